"""Agreement of labels and of anything else, what it says of errors, and the published vectors."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from mistakes_of_models import answers

from sabir.estimate.agreement import (
    among_answers,
    among_labels,
    coded,
    disagreement,
    disagreements,
    independent_disagreement,
    krippendorff_alpha,
    of_answers,
    of_labels,
    shared_mistakes,
)
from sabir.estimate.evidence import Evidence, Segment


def equal(first, second):
    return float(first == second)


def jaccard(first, second):
    return len(set(first) & set(second)) / max(1, len(set(first) | set(second)))


def test_equal_answers_have_one_number_whatever_column_they_stand_in_and_none_is_less_than_all():
    (first, second), labels = coded(["de", None, "en"], np.array(["en", "fr", "en"], dtype=object))
    assert labels == ["de", "en", "fr"]
    assert first.tolist() == [0, -1, 1]
    assert second.tolist() == [1, 2, 1]


def test_an_empty_place_of_a_table_is_no_answer():
    (column,), labels = coded(np.array([1.0, np.nan, 2.0]))
    assert column.tolist() == [0, -1, 1]
    assert labels == [1.0, 2.0]


def test_lists_have_no_numbers():
    with pytest.raises(TypeError):
        coded([["a"], ["b"]])


def test_labels_agree_as_answers_under_equality_do():
    rng = np.random.default_rng(0)
    texts = rng.choice(["a", "b", "c", None], (200, 4), p=[0.4, 0.3, 0.2, 0.1])
    numbers, _ = coded(*texts.T)
    own, members = numbers[0], np.stack(numbers[1:], axis=1)
    columns = [column.tolist() for column in texts.T]
    np.testing.assert_array_equal(of_labels(own, members), of_answers(columns[0], columns[1:], equal))
    np.testing.assert_array_equal(among_labels(members), among_answers(columns[1:], equal))


def test_a_model_without_an_answer_agrees_with_nobody_and_a_member_without_one_is_not_counted():
    own, members = np.array([0, -1, 0, -1]), np.array([[0, 1], [0, 1], [-1, 0], [-1, -1]])
    np.testing.assert_array_equal(of_labels(own, members), [[1, 0], [0, 0], [np.nan, 1], [np.nan, np.nan]])
    np.testing.assert_array_equal(disagreement(of_labels(own, members)), [0.5, 1, 0, np.nan])
    np.testing.assert_array_equal(among_labels(members), [[0], [0], [np.nan], [np.nan]])


def test_pairs_are_in_the_order_that_evidence_names():
    members = np.array([[0, 1, 1, 2]])
    expected = [float(members[0, j] == members[0, k]) for j, k in combinations(range(4), 2)]
    assert among_labels(members)[0].tolist() == expected


def test_lists_agree_as_their_own_measure_says():
    own, member = [["a"], ["a", "b"], None], [["a", "b"], ["a", "b"], ["a"]]
    np.testing.assert_array_equal(of_answers(own, [member], jaccard), [[0.5], [1], [0]])


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan")])
def test_a_measure_that_leaves_0_to_1_is_named_with_the_answers(wrong):
    with pytest.raises(ValueError, match=r"agree\('a', 'b'\) gave .*; expected a number in \[0, 1\]"):
        of_answers(["a"], [["b"]], lambda first, second: wrong)


def test_segments_disagree_by_the_mean_of_their_texts_weighted_by_traffic():
    evidence = Evidence(
        (Segment("de"), Segment("fr"), Segment("ja")),
        np.array([0, 0, 1, 2]),
        agreement=np.array([[1, 1], [0, 1], [0, 0], [np.nan, np.nan]]),
        weight=np.array([1.0, 3.0, 1.0, 1.0]),
    )
    np.testing.assert_allclose(disagreements(evidence), [3 * 0.5 / 4, 1, np.nan])


# -- what disagreement says of errors ------------------------------------------------------------------------


@pytest.mark.parametrize("models", [2, 3, 6])
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_error_is_half_of_disagreement_and_of_what_both_get_wrong_and_wrong_alike(models, shared):
    found = answers(np.random.default_rng(3), 500, 0.3, shared, models)
    truth = np.zeros(500, dtype=int)
    told = shared_mistakes(found, truth)
    assert told.error == pytest.approx((found != 0).mean(), abs=1e-12)  # an identity, to rounding
    assert told.disagreement / 2 <= told.error
    assert told.disagreement == pytest.approx(disagreement(among_labels(found)).mean(), abs=1e-12)


def test_half_the_disagreement_is_no_lower_bound_for_lists():
    """Answers {a} and {b} to a truth {a, b}: by F1 each is wrong by 1/3, and they disagree wholly."""

    def f1(first, second):
        return 2 * len(set(first) & set(second)) / (len(first) + len(second))

    error = 1 - of_answers([["a"]], [[["a", "b"]]], f1)[0, 0]
    apart = 1 - of_answers([["a"]], [[["b"]]], f1)[0, 0]
    assert error == pytest.approx(1 / 3)
    assert apart / 2 > error


@pytest.mark.parametrize(("error", "labels"), [(0.2, 2), (0.2, 3), (0.05, 5), (0.5, 3)])
def test_independent_members_disagree_as_the_closed_form_says(error, labels):
    wrong = [error / (labels - 1)] * (labels - 1)
    shares = np.array([1 - error, *wrong])
    assert independent_disagreement(error, labels) == pytest.approx(1 - (shares**2).sum(), abs=1e-12)


def test_shared_mistakes_hide_errors():
    """At an error of 0.20 and three labels five members disagree 0.34 if they err independently."""
    rng = np.random.default_rng(0)
    seen = []
    for shared in (0.0, 0.3, 0.6, 0.9):
        found = answers(rng, 200_000, 0.2, shared, 5)
        seen.append(disagreement(among_labels(found)).mean())
        alone = 0.2 * (1 - shared) / (1 - 0.2 * shared)
        expected = (1 - 0.2 * shared) * independent_disagreement(alone, 3)
        assert seen[-1] == pytest.approx(expected, abs=0.003)  # 200,000 texts: four standard errors
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(0.34, abs=0.005)
    assert seen[-1] < 0.08


# -- Krippendorff's alpha ------------------------------------------------------------------------------------


def test_alpha_of_the_published_vectors():
    assert krippendorff_alpha(np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1.0]])) == pytest.approx(
        0.685714, abs=1e-6
    )
    assert krippendorff_alpha(np.array([[0, 1], [0, 1], [1, 0], [1, 0.0]])) == pytest.approx(-0.75)
    interval = krippendorff_alpha(np.array([[1, 2], [3, 4], [1, 1.0]]), scale="interval")
    assert interval == pytest.approx(19 / 24)


@pytest.mark.parametrize("scale", ["nominal", "interval"])
def test_alpha_is_one_less_seen_over_expected_disagreement_of_pairs(scale):
    rng = np.random.default_rng(5)
    ratings = rng.integers(0, 4, (40, 5)).astype(float)
    ratings[rng.random((40, 5)) < 0.3] = np.nan

    def far(first, second):
        return float(first != second) if scale == "nominal" else (first - second) ** 2

    units = [row[~np.isnan(row)] for row in ratings]
    units = [row for row in units if len(row) > 1]
    whole = np.concatenate(units)
    seen = sum(
        sum(far(a, b) for i, a in enumerate(row) for j, b in enumerate(row) if i != j) / (len(row) - 1)
        for row in units
    ) / len(whole)
    lot = [far(a, b) for i, a in enumerate(whole) for j, b in enumerate(whole) if i != j]
    assert krippendorff_alpha(ratings, scale=scale) == pytest.approx(1 - seen / np.mean(lot), abs=1e-12)


def test_alpha_of_one_answer_to_all_is_not_known():
    assert krippendorff_alpha(np.ones((5, 3))) is None
