"""A judge's labels: what they say raw, what is left after correction, and which judges are refused."""

from __future__ import annotations

import numpy as np
import pytest

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.silver import judge_of

RAW, CORRECTED = (ESTIMATORS.get(name).function for name in ("silver", "silver-corrected"))
LANGUAGES = ("de", "es", "fr", "ja", "pt", "zh")


def judged(
    rng: np.random.Generator, errors: dict[str, float], n: int, q1: float, q0: float, labelled: bool = True
) -> Evidence:
    """Answers that are right or wrong, and a judge that tells with these shares which they are."""
    wrong = np.concatenate([rng.random(n) < error for error in errors.values()])
    says_right = np.where(wrong, rng.random(len(wrong)) >= q0, rng.random(len(wrong)) < q1)
    return Evidence(
        tuple(Segment(language) for language in errors),
        np.repeat(np.arange(len(errors)), n),
        judged=says_right.astype(float),
        error=wrong.astype(float) if labelled else None,
    )


def test_sensitivity_and_specificity_are_the_shares_of_the_reference():
    rng = np.random.default_rng(0)
    reference = judged(rng, {"de": 0.3}, 500, 0.9, 0.7)
    wrong, said = reference.error == 1, reference.judged
    judge = judge_of(reference)
    assert judge.of_right == pytest.approx(said[~wrong].mean(), abs=1e-12)
    assert judge.of_wrong == pytest.approx(said[wrong].mean(), abs=1e-12)
    assert judge.tells


def test_the_correction_is_the_formula():
    rng = np.random.default_rng(1)
    reference = judged(rng, dict.fromkeys(LANGUAGES, 0.25), 300, 0.9, 0.7)
    production = judged(rng, {"de": 0.4, "ja": 0.1}, 2000, 0.9, 0.7, labelled=False)
    q1 = reference.judged[reference.error == 0].mean()
    q0 = 1 - reference.judged[reference.error == 1].mean()
    for place, found in enumerate(CORRECTED(reference, production, level=0.9)):
        p = production.judged[production.segment == place].mean()
        assert found.error == pytest.approx(1 - (p + q0 - 1) / (q0 + q1 - 1), abs=1e-12)
    for place, found in enumerate(RAW(reference, production, level=0.9)):
        assert found.error == pytest.approx(1 - production.judged[production.segment == place].mean())


def test_correction_takes_the_judges_bias_off_whatever_the_share_of_errors():
    rng = np.random.default_rng(2)
    reference = judged(rng, dict.fromkeys(LANGUAGES, 0.2), 2000, 0.95, 0.6)
    for error in (0.02, 0.2, 0.5, 0.9):
        production = judged(rng, {"ja": error}, 40_000, 0.95, 0.6, labelled=False)
        (raw,), (corrected,) = (
            RAW(reference, production, level=0.9),
            CORRECTED(reference, production, level=0.9),
        )
        assert raw.error == pytest.approx(0.05 * (1 - error) + 0.6 * error, abs=0.01)
        assert corrected.error == pytest.approx(error, abs=0.035)  # 2,400 wrong answers know q0 to 0.01


def test_in_degrees_too_the_bias_goes_though_the_share_of_errors_is_another():
    rng = np.random.default_rng(3)

    def graded(mean: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        errors = rng.beta(4 * mean, 4 * (1 - mean), n)
        return errors, np.clip(0.9 - 0.6 * errors + 0.1 * rng.standard_normal(n), 0, 1)

    errors, said = graded(0.6, 5000)
    reference = Evidence((Segment("de"),), np.zeros(5000, int), judged=said, error=errors)
    for mean in (0.3, 0.5, 0.8):
        _, said = graded(mean, 20_000)
        production = Evidence((Segment("de"),), np.zeros(20_000, int), judged=said)
        (found,) = CORRECTED(reference, production, level=0.9)
        assert found.error == pytest.approx(mean, abs=0.02)  # clipping bends the line a little


def test_a_judge_no_better_than_chance_is_refused():
    rng = np.random.default_rng(4)
    production = judged(rng, {"de": 0.3}, 100, 0.6, 0.4, labelled=False)
    for q1, q0 in ((0.6, 0.4), (0.3, 0.5)):  # says anything; takes wrong for right
        reference = judged(rng, dict.fromkeys(LANGUAGES, 0.3), 100, q1, q0)
        for estimator in (CORRECTED, RAW):
            (found,) = estimator(reference, production, level=0.9)
            assert (found.error, found.low, found.high) == (None, None, None)
            assert found.how.startswith(
                "the judge is no better than chance: on 600 labelled texts it rates right"
            )


def test_a_judge_of_whom_nothing_is_known_is_believed_by_silver_and_refused_by_its_correction():
    rng = np.random.default_rng(4)
    production = judged(rng, {"de": 0.3}, 100, 0.6, 0.4, labelled=False)
    reference = judged(rng, dict.fromkeys(LANGUAGES, 0.0), 100, 0.9, 0.9)
    (raw,), (corrected,) = (one(reference, production, level=0.9) for one in (RAW, CORRECTED))
    assert raw.error == pytest.approx(1 - production.judged.mean())
    assert corrected.error is None


@pytest.mark.parametrize(("n", "error"), [(60, 0.05), (400, 0.02), (400, 0.3)])
def test_a_judge_that_knows_nothing_hardly_ever_passes_and_a_fair_one_mostly(n, error):
    rng, passed, trials = np.random.default_rng(n), {0.5: 0, 0.95: 0}, 1000
    for _ in range(trials):
        for q in passed:
            judge = judge_of(judged(rng, {"de": error}, n, q, q))
            passed[q] += judge is not None and judge.tells
    assert passed[0.5] / trials <= 0.01 + 0.0063  # two standard errors
    assert passed[0.95] / trials > (0.95 if n * error >= 5 else 0.7)


def test_a_reference_without_mistakes_or_without_judgements_says_nothing_of_the_judge():
    rng = np.random.default_rng(5)
    production = judged(rng, {"de": 0.3}, 50, 0.9, 0.9, labelled=False)
    perfect = judged(rng, {"de": 0.0}, 50, 0.9, 0.9)
    unjudged = Evidence((Segment("de"),), np.zeros(2, int), error=np.array([0.0, 1.0]))
    for reference in (perfect, unjudged):
        (found,) = CORRECTED(reference, production, level=0.9)
        assert found.error is None
        assert found.how == "the reference has no right and wrong answers that were judged"


def test_texts_of_one_source_do_not_make_a_judge_surer():
    rng = np.random.default_rng(6)
    refused = 0
    for _ in range(400):
        wrong, said = (np.repeat(rng.random(40) < share, 10).astype(float) for share in (0.3, 0.5))
        reference = Evidence(
            (Segment("de"),), np.zeros(400, int), judged=said, error=wrong, keys=np.repeat(np.arange(40), 10)
        )
        judge = judge_of(reference)
        refused += judge is None or not judge.tells
    assert refused / 400 >= 0.97


def test_texts_that_the_judge_left_out_are_named():
    rng = np.random.default_rng(7)
    reference = judged(rng, dict.fromkeys(LANGUAGES, 0.3), 100, 0.9, 0.9)
    production = judged(rng, {"de": 0.3, "ja": 0.3}, 100, 0.9, 0.9, labelled=False)
    production.judged[:25] = np.nan
    for estimator in (RAW, CORRECTED):
        de, ja = estimator(reference, production, level=0.9)
        assert "not judged: 25% of the texts" in de.flags
        assert not any(flag.startswith("not judged") for flag in ja.flags)
        assert 0 < de.error < 1


def test_over_segments_intervals_come_from_how_far_off_the_judge_was_elsewhere():
    rng = np.random.default_rng(8)
    held, trials = 0, 60
    for _ in range(trials):
        errors = {language: 0.1 + 0.3 * rng.random() for language in LANGUAGES}
        reference = judged(rng, errors, 200, 0.9, 0.8)
        production = judged(rng, {"ja": 0.25}, 200, 0.9, 0.8)
        truth = production.error.mean()
        (found,) = CORRECTED(reference, production.without_labels(), level=0.9)
        assert found.low is not None
        held += found.low <= truth <= found.high
    assert held / trials >= 0.8  # of few residuals: see tests of across
