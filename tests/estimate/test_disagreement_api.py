"""Estimates from plain lists and arrays of answers, for people with models of their own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import sabir
from sabir.estimate import ESTIMATORS, Evidence, Segment, disagreement

LANGUAGES = ["de", "en", "fr", "ja", "zh"]
MEMBERS = ("a", "b", "c")


def table(seed=0, n=60, languages=LANGUAGES, *, labelled=True):
    """n texts of each language with the answers of four models, wrong in a tenth of texts."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(["good", "bad", "mixed"], n * len(languages))

    def answers():
        return np.where(
            rng.random(len(truth)) < 0.1, rng.choice(["good", "bad", "mixed"], len(truth)), truth
        ).tolist()

    found = {
        "answer": answers(),
        "members": {name: answers() for name in MEMBERS},
        "language": np.repeat(languages, n).tolist(),
    }
    return found | {"truth": truth.tolist()} if labelled else found


def by_hand(given):
    """The evidence of such a table, in plain words."""
    names = sorted(set(given["language"]))
    agreement = [
        [float(member == own) for member in members]
        for own, *members in zip(given["answer"], *given["members"].values(), strict=True)
    ]
    error = None
    if "truth" in given:
        error = np.array(
            [float(one != true) for one, true in zip(given["answer"], given["truth"], strict=True)]
        )
    return Evidence(
        tuple(Segment(name) for name in names),
        np.array([names.index(one) for one in given["language"]]),
        agreement=np.array(agreement),
        error=error,
    )


@pytest.mark.parametrize("estimator", ["calibrated-disagreement", "disagreement", "constant"])
def test_plain_lists_give_what_the_estimator_gives(estimator):
    known, asked = table(0), table(1, languages=["ja", "xx"], labelled=False)
    found = disagreement(known, asked, estimator=estimator, level=0.8)
    assert found == ESTIMATORS.get(estimator).function(by_hand(known), by_hand(asked), level=0.8)
    assert [str(one.segment) for one in found] == ["ja", "xx"]
    assert all(one.low < one.error < one.high for one in found)


def test_what_members_share_is_told_from_their_labels():
    members, truth = np.array([[0, 0], [1, 1], [2, 0], [0, 1]]), np.array([0, 0, 0, 0])
    told = sabir.estimate.shared_mistakes(members, truth)
    assert (told.disagreement, told.both_wrong, told.same_wrong) == (0.5, 0.25, 0.25)
    assert told.error == np.mean(members != truth[:, None])
    assert sabir.estimate.independent_disagreement(0.5, 2) == 0.5
    assert sabir.estimate.krippendorff_alpha(members.astype(float)) < 0.5


def test_it_is_there_after_import_sabir_and_that_loads_no_numpy():
    code = "import sabir, sys; sabir.estimate; assert 'numpy' not in sys.modules; print(sabir.estimate.disagreement)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "disagreement" in done.stdout
    assert sabir.estimate.disagreement is disagreement
    assert set(sabir.estimate.__all__) == {
        *("ESTIMATORS", "Estimate", "Evidence", "Segment", "disagreement"),
        *("independent_disagreement", "krippendorff_alpha", "shared_mistakes"),
    }
    assert not hasattr(sabir.estimate, "agreement_of")


def test_arrays_columns_of_objects_and_members_in_another_order_say_the_same():
    known, asked = table(0), table(1, labelled=False)
    expected = disagreement(known, asked)
    arrays = {name: np.array(one) for name, one in known.items() if name != "members"}
    arrays["members"] = {
        name: np.array(one, dtype=object) for name, one in reversed(known["members"].items())
    }
    assert disagreement(arrays, asked) == expected
    wide = [{**one, "members": np.array(list(one["members"].values())).T} for one in (known, asked)]
    assert disagreement(*wide) == expected


def test_labels_may_be_numbers_minus_one_among_them():
    numbers = {"good": 1, "bad": -1, "mixed": 0}

    def coded(given):
        found = {name: [numbers[x] for x in given[name]] for name in ("answer", "truth") if name in given}
        members = {name: np.array([numbers[x] for x in one]) for name, one in given["members"].items()}
        return {**given, **found, "members": members}

    known, asked = table(0), table(1, labelled=False)
    assert disagreement(coded(known), coded(asked)) == disagreement(known, asked)


def test_one_language_or_domain_may_be_said_once_for_all():
    known, asked = table(0), table(1, languages=["de"], labelled=False)
    (found,) = disagreement(known, {**asked, "language": "de", "window": "2026-11"})
    assert found.segment == Segment("de", "", "2026-11")
    domains = [f"d{row % 3}" for row in range(len(known["answer"]))]
    found = disagreement({**known, "domain": domains}, {**asked, "domain": "d1"})
    assert [one.segment for one in found] == [Segment("de", "d1")]
    assert found[0].how == "residuals of 15 labelled segments, each left out in turn"


def test_texts_without_a_label_are_not_learnt_from():
    known = table(0)
    half = {**known, "truth": [one if row % 2 else None for row, one in enumerate(known["truth"])]}
    kept = {
        name: one[1::2] if name != "members" else {m: column[1::2] for m, column in one.items()}
        for name, one in known.items()
    }
    asked = table(1, labelled=False)
    assert disagreement(half, asked) == disagreement(kept, asked)
    empty = {**known, "truth": [one if row % 2 else float("nan") for row, one in enumerate(known["truth"])]}
    assert disagreement(empty, asked) == disagreement(kept, asked)


def test_lists_are_compared_by_the_measure_that_is_given_and_so_is_their_error():
    def f1(first, second):
        both = len(set(first) & set(second))
        return 2 * both / (len(first) + len(second)) if both else 0.0

    def phrases(given):
        def spread(column):
            return [[one, "always"] for one in column]

        found = {name: spread(given[name]) for name in ("answer", "truth") if name in given}
        return {**given, **found, "members": {name: spread(one) for name, one in given["members"].items()}}

    known, asked = table(0), table(1, labelled=False)
    found = disagreement(phrases(known), phrases(asked), agree=f1, estimator="disagreement")
    plain = disagreement(known, asked, estimator="disagreement")
    # two of two phrases in common or one: half as wrong, and half as far apart
    np.testing.assert_allclose([one.error for one in found], [one.error / 2 for one in plain])
    np.testing.assert_allclose(
        [one.high - one.error for one in found], [(one.high - one.error) / 2 for one in plain]
    )


def test_errors_that_are_known_already_are_taken_as_they_are():
    known, asked = table(0), table(1, labelled=False)
    error = [float(one != true) for one, true in zip(known["answer"], known.pop("truth"), strict=True)]
    assert disagreement({**known, "error": error}, asked) == disagreement(table(0), asked)
    graded = disagreement({**known, "error": [one / 2 for one in error]}, asked)
    assert sum(one.error for one in graded) == pytest.approx(
        sum(one.error for one in disagreement(table(0), asked)) / 2, rel=0.1
    )


def test_rows_that_count_and_weigh():
    known, asked = table(0), table(1, languages=["de"], labelled=False)
    rows = len(asked["answer"])
    (found,) = disagreement(known, {**asked, "count": [1000] * rows})
    assert found.n == 1000 * rows
    differs = [
        any(one[row] != asked["answer"][row] for one in asked["members"].values()) for row in range(rows)
    ]
    (heavy,) = disagreement(known, {**asked, "weight": [10.0 if one else 1.0 for one in differs]})
    assert heavy.error > found.error


def test_translations_are_left_out_together():
    keys = np.tile(np.arange(60), 5)
    known, asked = table(0), table(1, labelled=False)
    assert disagreement({**known, "keys": keys}, asked)[0].high != disagreement(known, asked)[0].high


def test_estimators_that_ask_for_more_of_the_members_get_it():
    known, asked = table(0, 200), table(1, 200, labelled=False)
    found = disagreement(known, asked, estimator="agreement-on-the-line")
    assert [one.estimator for one in found] == ["agreement-on-the-line"] * 5
    few = {
        **table(1, 200),
        "truth": [one if row % 4 == 0 else None for row, one in enumerate(table(1, 200)["truth"])],
    }
    assert [one.n_labelled for one in disagreement(known, few, estimator="ppi")] == [50] * 5


def test_without_any_label_raw_disagreement_is_left():
    known, asked = table(0, labelled=False), table(1, labelled=False)
    found = disagreement(known, asked, estimator="disagreement")
    assert all(one.error is not None and one.low is None for one in found)
    assert all("no reference: none of its texts is labelled" in one.flags for one in found)
    with pytest.raises(
        ValueError, match=r"no text is labelled\. Give 'truth' or 'error', or take estimator='disagree"
    ):
        disagreement(known, asked)


def test_one_member_and_copies_are_estimated_and_flagged():
    def only(given, members):
        return {**given, "members": {new: given["members"][old] for new, old in members.items()}}

    known, asked = table(0), table(1, labelled=False)
    (one, *_) = disagreement(only(known, {"a": "a"}), only(asked, {"a": "a"}))
    assert any(flag.startswith("one member:") for flag in one.flags)
    copies = {"a": "a", "again": "a"}
    (two, *_) = disagreement(only(known, copies), only(asked, copies))
    assert any(flag.startswith("members all say the same:") for flag in two.flags)
    assert (one.error, one.low, one.high) == pytest.approx((two.error, two.low, two.high))


def test_nothing_asked_is_nothing_answered():
    assert (
        disagreement(table(), {"answer": [], "members": {name: [] for name in MEMBERS}, "language": []}) == []
    )


# -- what is wrong is said -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answers": []}, "reference: 'answers' is no column; expected answer, .* Did you mean 'answer'?"),
        ({"language": None}, "reference: 'language' is missing; needed are answer, members, language"),
        ({"members": None}, "reference: 'members' is missing"),
        ({"truth": ["good"] * 299}, "reference: 'truth' has 299 values, 'answer' has 300"),
        ({"language": ["de"] * 299}, "reference: 'language' has 299 values, 'answer' has 300"),
        ({"language": ["de"] * 299 + [None]}, "reference: 'language' is missing in row 299"),
        ({"language": 3}, "reference: 'language' is 3; expected a value a text"),
        ({"answer": "good"}, "reference: 'answer' is 'good'; expected a value a text"),
        ({"members": {}}, "reference: 'members' is empty; expected the answers of at least one other model"),
        (
            {"members": [["good"] * 300]},
            r"reference: 'members' is list; expected a mapping .* or an array \(n, M\)",
        ),
        (
            {"members": {"a": ["good"], "b": ["good"], "c": ["good"]}},
            "reference: member 'a' has 1 values, 'answer' has 300",
        ),
        (
            {"members": {"a": ["good"] * 300}},
            "the reference has the members a, production a, b, c; expected the same",
        ),
        (
            {"truth": [1] * 300},
            "reference: answers are such as '.*', those of 'truth' such as 1; expected labels of",
        ),
        ({"error": [1.5] * 300}, r"reference: 'error' is 1.5 in row 0; expected a number in \[0, 1\]"),
        ({"weight": [-1.0] * 300}, "reference: 'weight' is -1.0 in row 0; expected a number from 0 on"),
        ({"weight": [None] * 300}, "reference: 'weight' is None in row 0"),
        ({"count": [0] * 300}, "reference: 'count' is 0 in row 0; expected a number from 1 on"),
        ({"answer": [["good"]] * 300}, "reference: answers such as .'good'. cannot be held .* give agree="),
    ],
)
def test_a_wrong_column_is_named_with_what_it_holds(change, sentence):
    changed = {name: one for name, one in {**table(), **change}.items() if one is not None}
    with pytest.raises(ValueError, match=sentence):
        disagreement(changed, table(1, labelled=False))


def test_production_is_named_where_it_is_wrong():
    asked = {**table(1, labelled=False), "window": ["x"]}
    with pytest.raises(ValueError, match="production: 'window' has 1 values, 'answer' has 300"):
        disagreement(table(), asked)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"level": 90}, "level is 90; expected a number between 0 and 1"),
        (
            {"estimator": "disagrement"},
            "'disagrement' is none; expected one of .* Did you mean 'disagreement'?",
        ),
        (
            {"estimator": "doc"},
            "estimator 'doc' needs confidence, which members do not tell; expected one of",
        ),
    ],
)
def test_a_wrong_setting_is_named(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        disagreement(table(), table(1, labelled=False), **settings)
