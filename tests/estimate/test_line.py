"""Agreement on the line: exact where accuracies and agreements lie on lines, silent where they do not."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.estimators.agreement_on_the_line import Standing, along_the_line
from sabir.estimate.evidence import Evidence, Segment


def moved(shares: np.ndarray, slope: float, offset: float) -> np.ndarray:
    return ndtr(slope * ndtri(shares) + offset)


ACCURACY = np.array([0.85, 0.8, 0.7, 0.9])
AGREEMENT = np.array([0.8, 0.7, 0.84, 0.66, 0.78, 0.74])


@pytest.mark.parametrize(("slope", "offset"), [(1.0, -0.3), (0.7, -0.5), (1.2, 0.1)])
def test_the_accuracy_is_found_where_everything_lies_on_one_line(slope, offset):
    before = Standing(AGREEMENT, ACCURACY)
    found, how = along_the_line(before, moved(AGREEMENT, slope, offset))
    assert found == pytest.approx(moved(ACCURACY[:1], slope, offset)[0], abs=1e-9)
    assert how == "along the agreements of 6 pairs of models (R² 1.00)"


def test_nothing_moved_nothing_changes():
    assert along_the_line(Standing(AGREEMENT, ACCURACY), AGREEMENT)[0] == pytest.approx(0.85, abs=1e-9)


def test_three_models_are_enough_and_two_are_not():
    three = Standing(AGREEMENT[[0, 1, 3]], ACCURACY[:3])
    found, _ = along_the_line(three, moved(AGREEMENT[[0, 1, 3]], 1.0, -0.3))
    assert found == pytest.approx(moved(ACCURACY[:1], 1.0, -0.3)[0], abs=1e-9)
    assert along_the_line(Standing(AGREEMENT[:1], ACCURACY[:2]), AGREEMENT[:1]) == (
        None,
        "no line through 2 models; at least 3 are needed",
    )


def test_a_line_that_is_none_is_not_followed():
    found, how = along_the_line(Standing(AGREEMENT, ACCURACY), AGREEMENT[::-1])
    assert found is None
    assert how.startswith("no line through the agreements of 6 pairs of models (R² 0.")


def test_lines_are_followed_from_a_fit_above_0_95_on():
    rng = np.random.default_rng(0)
    said = set()
    for noise in np.linspace(0.0, 0.2, 60):
        there = moved(AGREEMENT, 1.0, -0.3)
        there = ndtr(ndtri(there) + noise * rng.normal(0, 1, 6))
        straight = np.corrcoef(ndtri(AGREEMENT), ndtri(there))[0, 1] ** 2
        assert (along_the_line(Standing(AGREEMENT, ACCURACY), there)[0] is not None) == (straight > 0.95)
        said.add(straight > 0.95)
    assert said == {True, False}


def test_pairs_at_the_ends_of_the_scale_are_left_out():
    ends = AGREEMENT.copy()
    ends[5] = 0.99  # between models 2 and 3: those of the model in use are left
    there = moved(AGREEMENT, 1.0, -0.3)
    there[5] = 0.2  # off the line, and yet it is followed
    found, how = along_the_line(Standing(ends, ACCURACY), there)
    assert found == pytest.approx(moved(ACCURACY[:1], 1.0, -0.3)[0], abs=1e-9)
    assert "5 pairs" in how
    assert along_the_line(Standing(np.full(6, 0.99), ACCURACY), there) == (
        None,
        "no line: only 0 of 6 pairs of models agree on 0.05 to 0.98 of texts both here and there",
    )


def test_members_that_all_say_the_same_make_no_line():
    alike = np.full(6, 0.8)
    assert along_the_line(Standing(alike, ACCURACY), alike) == (
        None,
        "no line: all pairs of models agree alike",
    )


def test_pairs_that_leave_the_model_open_say_nothing_of_it():
    # only the pairs (0, 1), (1, 2), (2, 3), (0, 3) are left: a ring of four, of which one value stays free
    agreement = np.array([0.8, 0.99, 0.84, 0.66, 0.99, 0.74])
    found, how = along_the_line(Standing(agreement, ACCURACY), moved(agreement, 1.0, -0.3))
    assert found is None
    assert how == "no line: the pairs that are left do not tie the model in use to two others"


def simulated(rng: np.random.Generator, n: int, easy: float, skills: np.ndarray) -> dict[str, np.ndarray]:
    """Texts of seven labels; models are right where skill + easy + a mood that all share + their own is above 0.

    Wrong labels are drawn by lot. Probits of accuracy then lie on a line of slope 1, those of agreement nearly so.
    """
    mood = rng.normal(0, 0.7, (n, 1)) + rng.normal(0, 1, (n, len(skills)))
    answers = np.where(skills + easy + mood > 0, 0, rng.integers(1, 7, (n, len(skills))))
    error = (answers != 0).astype(float)
    members = combinations(range(1, len(skills)), 2)
    return {
        "agreement": (answers[:, 1:] == answers[:, :1]).astype(float),
        "pairs": np.stack([(answers[:, j] == answers[:, k]).astype(float) for j, k in members], axis=1),
        "error": error[:, 0],
        "member_error": error[:, 1:],
    }


def evidence(segments, parts) -> Evidence:
    places = np.repeat(np.arange(len(parts)), [len(part["error"]) for part in parts])
    fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Evidence(tuple(segments), places, **fields)


SKILLS = np.array([1.0, 0.5, 0.9, 1.4, 0.2])


def test_models_of_different_skill_tell_how_hard_texts_are():
    rng = np.random.default_rng(1)
    languages = [Segment(name) for name in ("de", "en", "fr", "ja", "zh")]
    reference = evidence(
        languages, [simulated(rng, 20_000, easy, SKILLS) for easy in (0.1, 0.0, -0.1, -0.2, 0.05)]
    )
    segments = [Segment("de", "", "may"), Segment("ko")]
    production = evidence(segments, [simulated(rng, 20_000, easy, SKILLS) for easy in (-0.5, -0.6)])
    found = ESTIMATORS.get("agreement-on-the-line").function(reference, production, level=0.9)
    true = production.mean(production.error)
    before = reference.mean(reference.error)[0]
    for one, error in zip(found, true, strict=True):
        assert abs(one.error - error) < 0.25 * abs(before - error)


def test_where_there_is_no_line_the_estimate_says_why():
    rng = np.random.default_rng(2)
    reference = evidence([Segment("de")], [simulated(rng, 400, 0.0, SKILLS)])
    guesses = rng.integers(0, 2, (400, 10)).astype(float)
    production = Evidence(
        (Segment("de"),), np.zeros(400, int), agreement=guesses[:, :4], pairs=guesses[:, 4:]
    )
    [found] = ESTIMATORS.get("agreement-on-the-line").function(reference, production, level=0.9)
    assert (found.error, found.low, found.high) == (None, None, None)
    assert found.how.startswith("no line through the agreements of 10 pairs of models (R² 0.")


def test_one_member_is_too_few():
    parts = simulated(np.random.default_rng(3), 100, 0.0, SKILLS)
    first = {"agreement": 1, "pairs": 0, "member_error": 1}
    parts |= {name: parts[name][:, :columns] for name, columns in first.items()}
    reference = evidence([Segment("de")], [parts])
    [found] = ESTIMATORS.get("agreement-on-the-line").function(
        reference, reference.without_labels(), level=0.9
    )
    assert found.error is None
    assert found.how == "no line through 2 models; at least 3 are needed"


def test_a_member_that_answered_no_labelled_text_is_none_of_the_models():
    rng = np.random.default_rng(4)
    parts = simulated(rng, 5000, 0.0, SKILLS)
    reference = evidence([Segment("de")], [parts])
    parts["member_error"][:, 3] = np.nan
    without = evidence([Segment("de")], [parts])
    production = evidence([Segment("de")], [simulated(rng, 5000, -0.4, SKILLS)])
    estimator = ESTIMATORS.get("agreement-on-the-line").function
    whole, fewer = (estimator(one, production, level=0.9)[0].error for one in (reference, without))
    assert fewer is not None
    assert abs(fewer - whole) < 0.05
