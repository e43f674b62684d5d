"""What to retrain or to label first: beliefs that come true as often as they say, ranked by what they gain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from sabir.estimate.advice import Cost, advise
from sabir.estimate.evidence import Estimate, Segment

LANGUAGES = ("de", "fr", "ja", "pt", "sv")
LEVEL = 0.9
Z = float(ndtri((1 + LEVEL) / 2))


def estimate(language, error, deviation=0.02, *, n=500, domain="", flags=(), how=""):
    half = None if deviation is None else Z * deviation
    bounds = (
        (None, None) if half is None or error is None else (max(0.0, error - half), min(1.0, error + half))
    )
    return Estimate(
        Segment(language, domain), "calibrated-disagreement", error, *bounds, LEVEL, n=n, how=how, flags=flags
    )


def of(errors, deviation=0.02, **more):
    return [estimate(language, error, deviation, **more) for language, error in errors.items()]


def one(estimates, budget=0.2, **more):
    budgets = {each.segment.language: budget for each in estimates}
    return {advice.language: advice for advice in advise(estimates, budgets, **more)}


def test_a_poisoned_language_is_retrained_and_the_others_wait():
    errors = {"de": 0.10, "fr": 0.12, "ja": 0.35, "pt": 0.11, "sv": 0.09}
    found = advise(of(errors), dict.fromkeys(LANGUAGES, 0.2), reference_error=dict.fromkeys(LANGUAGES, 0.1))
    assert found[0].language == "ja"
    assert [each.action for each in found] == ["retrain", "wait", "wait", "wait", "wait"]
    assert found[0].p_over_budget > 0.99
    assert found[0].expected_gain > 10 * max(each.expected_gain for each in found[1:])


@pytest.mark.parametrize(
    ("error", "action"), [(0.10, "wait"), (0.19, "label"), (0.21, "label"), (0.24, "retrain")]
)
def test_undecided_means_label(error, action):
    found = one([estimate("de", error)])["de"]
    assert found.action == action
    assert found.labels == (50 if action == "label" else 0)


def test_a_doubtful_estimate_is_labelled_before_it_is_believed():
    doubt = "extrapolating: disagreement 0.4, the reference has 0.1 to 0.3"
    assert one([estimate("de", 0.10, flags=(doubt,))])["de"].action == "label"
    assert doubt in one([estimate("de", 0.10, flags=(doubt,))])["de"].why
    assert one([estimate("de", 0.10, flags=("one member: ...",))])["de"].action == "wait"
    # Beyond all that was labelled errors are not smaller: when its whole interval is over, doubt does not hold it up.
    assert one([estimate("de", 0.40, flags=(doubt,))])["de"].action == "retrain"


def test_without_an_interval_or_an_estimate_nothing_is_claimed():
    found = one([estimate("de", 0.4, None, how="too few labelled segments (2)"), estimate("fr", None)])
    for each in found.values():
        assert (each.action, each.p_over_budget, each.expected_gain) == ("label", None, None)
    assert "too few labelled segments (2)" in found["de"].why
    assert "nothing can be said" in found["fr"].why


def test_no_more_labels_are_asked_for_than_there_are_texts():
    assert one([estimate("de", 0.2, n=30)], usd_per_label=0.5)["de"].labels == 30
    assert one([estimate("de", 0.2, n=30)], usd_per_label=0.5)["de"].estimated_usd == 15.0


def test_one_domain_over_budget_is_reason_enough_and_is_named():
    segments = [estimate("de", 0.05, domain="news", n=900), estimate("de", 0.45, domain="web", n=100)]
    found = one(segments)["de"]
    assert found.action == "retrain"
    assert "in web" in found.why
    assert found.p_over_budget < 0.01  # 0.09 over all its texts


# --- shrinkage -------------------------------------------------------------------------------------------


def beliefs(estimated, deviation, budget):
    languages = [f"l{i:02}" for i in range(len(estimated))]
    found = advise(
        [estimate(name, error, deviation) for name, error in zip(languages, estimated, strict=True)],
        dict.fromkeys(languages, budget),
    )
    by_name = {each.language: each.p_over_budget for each in found}
    return np.array([by_name[name] for name in languages])


@pytest.mark.parametrize(("between", "better_by"), [(0.0, 0.05), (0.01, 0.05), (0.03, 0.01), (0.1, -0.003)])
def test_after_shrinkage_less_is_said_to_be_over_budget_that_is_not(between, better_by):
    """True errors around 0.4, known to 0.03, a budget of 0.43.

    Of what the estimates alone say too often shrinkage takes part away and never too much; where errors differ by far
    more than they are uncertain, it costs next to nothing.
    """
    rng = np.random.default_rng(5)
    true = 0.4 + between * rng.standard_normal((400, 8))
    seen = true + 0.03 * rng.standard_normal((400, 8))
    said = np.array([beliefs(row, 0.03, 0.43) for row in seen])
    alone, came = ndtr((seen - 0.43) / 0.03), true > 0.43
    assert came.mean() < said.mean() < alone.mean()
    assert ((alone - came) ** 2).mean() - ((said - came) ** 2).mean() > better_by  # Brier scores


def test_estimates_that_differ_no_more_than_their_intervals_allow_are_drawn_together_most():
    errors = {"de": 0.10, "fr": 0.14, "ja": 0.18, "pt": 0.12, "sv": 0.11}
    wide = one(of(errors, 0.05), budget=0.17)
    narrow = one(of(errors, 0.001), budget=0.17)
    unshrunk = one(of({"ja": 0.18}, 0.05), budget=0.17)
    assert wide["ja"].p_over_budget < unshrunk["ja"].p_over_budget < narrow["ja"].p_over_budget
    assert narrow["ja"].p_over_budget > 0.999


def test_drift_is_shrunk_not_the_differences_between_languages():
    """Japanese was always worse: with its reference known nothing is thought to have drifted."""
    errors = {"de": 0.10, "fr": 0.12, "ja": 0.40, "pt": 0.11, "sv": 0.09}
    budgets = {name: error + 0.05 for name, error in errors.items()}
    known = advise(of(errors, 0.05), budgets, reference_error=errors)
    found = {each.language: each.p_over_budget for each in known}
    assert max(found.values()) - min(found.values()) < 1e-9
    assert all(each < 0.16 for each in found.values())  # one deviation below the budget without shrinkage


# --- gain and cost ---------------------------------------------------------------------------------------


def test_the_expected_gain_is_the_mean_of_what_the_error_exceeds_the_reference_by():
    drawn = np.random.default_rng(6).normal(0.22, 0.05, 2_000_000)
    settings = {"reference_error": {"de": 0.2, "fr": 0.1}, "traffic": {"de": 3, "fr": 1}}
    label = one([estimate("de", 0.22, 0.05)], budget=0.25, **settings)["de"]
    retrain = one([estimate("de", 0.22, 0.05)], budget=0.1, **settings)["de"]
    assert (label.action, retrain.action) == ("label", "retrain")
    # The mean of two million draws of a deviation of 0.05 is known to 0.00004.
    assert retrain.expected_gain == pytest.approx(np.maximum(drawn - 0.2, 0).mean(), abs=2e-4)
    over = np.where(drawn > 0.25, drawn - 0.2, 0)  # after labelling it is retrained only then
    assert label.expected_gain == pytest.approx(over.mean(), abs=2e-4)


def test_gain_is_in_proportion_to_traffic():
    errors = {"de": 0.3, "fr": 0.3}
    settings = {"reference_error": {"de": 0.1, "fr": 0.1}}
    found = one(of(errors), traffic={"de": 3.0, "fr": 1.0}, **settings)
    assert found["de"].expected_gain == pytest.approx(3 * found["fr"].expected_gain)
    assert sum(each.expected_gain for each in found.values()) == pytest.approx(0.2, abs=0.001)
    by_texts = one([estimate("de", 0.3, n=300), estimate("fr", 0.3, n=100)], **settings)
    assert by_texts["de"].expected_gain == pytest.approx(found["de"].expected_gain)


def order(costs=None, **more):
    errors = {"de": 0.30, "fr": 0.35, "ja": 0.40}
    found = advise(
        of(errors),
        dict.fromkeys(errors, 0.2),
        reference_error=dict.fromkeys(errors, 0.1),
        costs=costs,
        **more,
    )
    return [each.language for each in found]


def test_the_largest_gain_per_unit_of_cost_comes_first():
    assert order() == ["ja", "fr", "de"]
    seconds = {"de": Cost(device_s=10), "fr": Cost(device_s=1000), "ja": Cost(device_s=100)}
    assert order(seconds) == ["de", "ja", "fr"]
    usd = {"de": Cost(10, 3.0), "fr": Cost(1000, 1.0), "ja": Cost(100, 2.0)}
    assert order(usd) == ["fr", "ja", "de"]
    assert order({**usd, "ja": Cost(100, None)}) == ["de", "ja", "fr"]  # a price is missing: by device time
    assert order({"de": Cost(device_s=10)}) == ["ja", "fr", "de"]  # of some nothing is known: by gain alone


def test_labels_count_with_the_retraining_they_may_lead_to():
    """De may or may not be over its budget: labels are cheap, but only retraining mends anything."""
    estimates = of({"de": 0.2, "fr": 0.26})
    settings = {
        "reference_error": {"de": 0.1, "fr": 0.1},
        "usd_per_label": 0.01,
        "costs": {"de": Cost(60, 100.0), "fr": Cost(60, 1.0)},
    }
    found = advise(estimates, {"de": 0.2, "fr": 0.2}, **settings)
    assert [(each.language, each.action) for each in found] == [("fr", "retrain"), ("de", "label")]
    assert [each.estimated_usd for each in found] == [1.0, 0.5]
    assert [each.estimated_device_s for each in found] == [60, 0.0]


def test_what_is_not_known_is_none_not_nothing():
    found = one(of({"de": 0.2, "fr": 0.4}))
    assert found["fr"].expected_gain is None
    assert (found["fr"].estimated_usd, found["fr"].estimated_device_s) == (None, None)
    assert found["de"].estimated_usd is None
    assert (found["de"].estimated_device_s, one([estimate("de", 0.01)])["de"].estimated_usd) == (0.0, 0.0)


def test_a_language_without_a_budget_is_refused():
    with pytest.raises(ValueError, match="no budget for fr"):
        advise(of({"de": 0.1, "fr": 0.1}), {"de": 0.2})
    assert advise([], {}) == ()
