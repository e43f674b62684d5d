"""The curve from disagreement to error, against other fits of the same; and what each language lies above it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mistakes_of_models import evidence, languages
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from sabir.estimate.agreement import disagreement, disagreements
from sabir.estimate.calibration import ENOUGH, curve
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment


def one_language(rng, n, *, members=5, graded=False, language="de"):
    """Texts that are the oftener wrong the more members disagree."""
    agreement = (rng.random((n, members)) < rng.beta(3, 1, n)[:, None]).astype(float)
    error = (rng.random(n) < 0.05 + 0.7 * disagreement(agreement) ** 2).astype(float)
    if graded:
        error = np.clip(0.6 * disagreement(agreement) + 0.1 * rng.standard_normal(n), 0, 1)
    return Evidence((Segment(language),), np.zeros(n, int), agreement=agreement, error=error)


def asked(*seen, language="de"):
    """A text for each disagreement."""
    agreement = 1 - np.array(seen, float)[:, None]
    return Evidence((Segment(language),), np.zeros(len(seen), int), agreement=agreement)


def together(*parts):
    sizes = [len(part) for part in parts]
    return Evidence(
        tuple(part.segments[0] for part in parts),
        np.repeat(np.arange(len(parts)), sizes),
        agreement=np.concatenate([part.agreement for part in parts]),
        error=np.concatenate([part.error for part in parts]),
    )


@pytest.mark.parametrize("graded", [False, True])
def test_with_texts_enough_the_curve_is_isotonic_regression(graded):
    reference = one_language(np.random.default_rng(0), ENOUGH, graded=graded)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(disagreement(reference.agreement), reference.error)
    found = curve(reference).rows(asked(0, 0.2, 0.4, 0.6, 0.8, 1))
    np.testing.assert_allclose(
        found, theirs.predict([0, 0.2, 0.4, 0.6, 0.8, 1]), atol=0.001
    )  # 0 is half a mistake


@pytest.mark.parametrize("graded", [False, True])
def test_with_fewer_texts_the_curve_is_the_likeliest_logistic_one(graded):
    reference = one_language(np.random.default_rng(1), ENOUGH - 1, graded=graded)
    seen = disagreement(reference.agreement)

    def unlikely(parameters):
        share = expit(parameters[0] + parameters[1] * seen)
        likely = reference.error * np.log(share) + (1 - reference.error) * np.log(1 - share)
        return -likely.sum() + parameters[1] ** 2 / 200

    best = minimize(unlikely, [0.0, 0.0], tol=1e-12).x
    at = np.linspace(0, 1, 7)
    np.testing.assert_allclose(curve(reference).rows(asked(*at)), expit(best[0] + best[1] * at), atol=1e-4)


@pytest.mark.parametrize("n", [60, 800])
def test_expected_errors_of_the_reference_are_its_error_in_the_mean(n):
    reference = one_language(np.random.default_rng(2), n)
    assert curve(reference).rows(reference).mean() == pytest.approx(reference.error.mean(), abs=1e-3)


@pytest.mark.parametrize("n", [60, 800])
def test_more_disagreement_never_means_fewer_mistakes(n):
    reference = one_language(np.random.default_rng(3), n)
    found = curve(replace(reference, error=1 - disagreement(reference.agreement))).rows(asked(0, 0.3, 0.7, 1))
    np.testing.assert_allclose(found, 1 - disagreement(reference.agreement).mean(), atol=1e-3)


@pytest.mark.parametrize("n", [40, 800])
def test_a_row_of_count_three_is_three_rows(n):
    reference = one_language(np.random.default_rng(4), n)
    counts = np.random.default_rng(5).integers(1, 4, n)
    counted, repeated = replace(reference, count=counts), reference.take(np.repeat(np.arange(n), counts))
    at = asked(0, 0.1, 0.5, 0.9)
    np.testing.assert_allclose(curve(counted).rows(at), curve(repeated).rows(at), atol=1e-9)


def test_traffic_counts_in_proportion_only():
    reference = one_language(np.random.default_rng(4), 100)
    weight = np.random.default_rng(5).random(100)
    found = [curve(replace(reference, weight=weight * k)).rows(asked(0, 0.5, 1)) for k in (1.0, 1000.0)]
    np.testing.assert_allclose(*found, atol=1e-9)
    heavy = replace(reference, weight=np.where(reference.error == 1, 5.0, 1.0))
    assert (curve(heavy).rows(asked(0, 0.5, 1)) > curve(reference).rows(asked(0, 0.5, 1))).all()


@pytest.mark.parametrize("n", [20, 800])
@pytest.mark.parametrize("error", [0.0, 1.0])
def test_where_all_is_right_or_all_is_wrong_the_curve_is_within_half_a_mistake_of_it(error, n):
    reference = replace(one_language(np.random.default_rng(6), n), error=np.full(n, error))
    found = curve(reference).rows(asked(0, 0.5, 1))
    assert (np.abs(found - error) <= 1 / n).all()
    assert ((found > 0) & (found < 1)).all()


def test_rows_that_disagreement_parts_without_exception_have_a_finite_curve():
    reference = asked(*[0.0] * 20, *[1.0] * 20)
    found = curve(replace(reference, error=np.repeat([0.0, 1.0], 20))).rows(asked(0, 0.5, 1))
    assert found[0] < 0.05
    assert found[1] == pytest.approx(0.5, abs=0.05)
    assert found[2] > 0.95


def test_without_a_member_or_without_a_label_nothing_is_expected():
    reference = one_language(np.random.default_rng(7), 50)
    silent = Evidence(
        (Segment("de"),), np.zeros(2, int), agreement=np.array([[1.0, np.nan], [np.nan, np.nan]])
    )
    found = curve(reference).rows(silent)
    assert np.isnan(found).tolist() == [False, True]
    assert np.isnan(curve(reference.without_labels()).rows(silent)).all()
    assert np.isnan(curve(replace(reference, agreement=None)).rows(silent)).all()
    assert np.isnan(curve(reference).rows(replace(silent, agreement=None))).all()


# -- languages -----------------------------------------------------------------------------------------------


def with_a_hard_language(rng, n_hard, n=300, more=0.25):
    """Four languages alike, and one that has more mistakes at every disagreement."""
    hard = one_language(rng, n_hard, language="ja")
    hard = replace(hard, error=np.maximum(hard.error, (rng.random(n_hard) < more).astype(float)))
    return together(*(one_language(rng, n, language=name) for name in ("de", "en", "fr", "zh")), hard)


@pytest.mark.parametrize("n", [20, 300], ids=["logistic", "isotonic"])
def test_a_language_of_more_mistakes_lies_above_the_curve_and_an_unknown_one_on_it(n):
    fitted = curve(with_a_hard_language(np.random.default_rng(8), 60, n))
    at = 0.3
    rows = {name: fitted.rows(asked(at, language=name))[0] for name in ("de", "ja", "new")}
    assert rows["ja"] > rows["new"]
    assert rows["ja"] > rows["de"]
    assert rows["new"] == pytest.approx(expit(np.interp(at, fitted.at, fitted.log_odds)))


def test_an_offset_is_drawn_to_the_pool_the_more_the_fewer_texts_a_language_has():
    rng = np.random.default_rng(9)
    drawn = []
    for n in (5, 40, 2000):
        of_trials = []
        for _ in range(30):
            reference = with_a_hard_language(rng, n)
            fitted = curve(reference)
            hard = reference.of(Segment("ja"))
            stranger = replace(hard, segments=(Segment("new"),))
            gap = hard.error.mean() - fitted.rows(stranger).mean()
            of_trials.append((fitted.rows(hard).mean() - fitted.rows(stranger).mean(), gap))
        moved, gaps = np.sum(of_trials, axis=0)
        drawn.append(moved / gaps)
    assert 0 < drawn[0] < drawn[1] < drawn[2]
    assert drawn[0] < 0.6
    assert drawn[2] == pytest.approx(1, abs=0.05)


def test_languages_that_do_not_differ_have_hardly_an_offset():
    rng = np.random.default_rng(10)
    reference = together(*(one_language(rng, 100, language=f"x{i}") for i in range(8)))
    above = np.array(list(curve(reference).offsets.values()))
    means = reference.mean(reference.error)
    apart = np.log(means / (1 - means)) - np.log(means.mean() / (1 - means.mean()))
    assert above.std() < 0.5 * apart.std()


def test_a_language_without_a_label_has_no_offset_and_changes_nothing():
    rng = np.random.default_rng(11)
    parts = [one_language(rng, 80, language=f"x{i}") for i in range(4)]
    silent = one_language(rng, 80, language="zz")
    fitted = curve(together(*parts))
    with_it = curve(together(*parts, replace(silent, error=np.full(80, np.nan))))
    assert with_it.offsets == pytest.approx(fitted.offsets)
    assert "zz" not in with_it.offsets


# -- what it is for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_with_shared_mistakes_the_curve_is_nearer_than_raw_disagreement_and_than_no_change(error):
    rng = np.random.default_rng(12)
    off = {"calibrated-disagreement": [], "disagreement": [], "constant": []}
    for _ in range(8):
        reference = evidence(rng, *languages(rng, 18, error), 300)
        production = evidence(rng, *languages(rng, 20, error), 500)
        production = replace(production, segments=tuple(Segment(f"new{i:02}") for i in range(20)))
        true = production.mean(production.error)
        for name, ones in off.items():
            found = ESTIMATORS.get(name).function(reference, production.without_labels(), level=0.9)
            ones += np.abs([one.error for one in found] - true).tolist()
    ours = np.mean(off.pop("calibrated-disagreement"))
    assert all(ours < 0.95 * np.mean(ones) for ones in off.values())


def test_raw_disagreement_stays_what_it_is():
    rng = np.random.default_rng(13)
    reference, production = (evidence(rng, *languages(rng, 5, 0.2), 100) for _ in range(2))
    found = ESTIMATORS.get("disagreement").function(reference, production, level=0.9)
    assert [one.error for one in found] == pytest.approx(disagreements(production).tolist())
