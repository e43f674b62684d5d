"""Whether a candidate is worse than the model in use: on the same texts, by a test that keeps its level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sabir.estimate.calibration import Curve, curve
from sabir.estimate.change import risen, worse
from sabir.estimate.evidence import Evidence, Segment

LINEAR = Curve(np.array([0.0, 1.0]), np.array([-2.0, 2.0]), {})
"""An error of 0.12 without, and of 0.88 with full disagreement."""


def held_against(agreement, languages=("de",), **more):
    """One member's agreement, (languages, n); the rows of one language after those of another."""
    agreement = np.atleast_2d(agreement)
    segment = np.repeat(np.arange(len(agreement)), agreement.shape[1])
    names = tuple(map(Segment, languages))
    return Evidence(names, segment, agreement=agreement.reshape(-1, 1), **more)


def test_it_is_a_paired_one_sided_t_test_of_the_expected_errors_corrected_over_languages():
    rng = np.random.default_rng(0)
    before, now = rng.random((2, 3, 60))
    now[1] *= 0.6
    languages = ("de", "en", "fr")
    found = worse(held_against(before, languages), held_against(now, languages), LINEAR)

    def expected(agreement):
        return 1 / (1 + np.exp(-(-2 + 4 * (1 - agreement))))

    alone = [
        stats.ttest_rel(expected(a), expected(b), alternative="greater").pvalue
        for a, b in zip(now, before, strict=True)
    ]
    order = np.argsort(alone)
    holm = np.maximum.accumulate(np.minimum(1, np.array(alone)[order] * [3, 2, 1]))
    assert np.array(found)[order] == pytest.approx(holm)
    assert found[1] < 0.001


def test_the_language_of_the_poisoned_adapter_is_named_and_no_other():
    """100 languages' worth of updates: 500 texts each, answers of one language fall to 30 % agreement from 80 %."""
    rng = np.random.default_rng(1)
    languages = ("de", "en", "fr", "ja", "zh")
    named = false = 0
    for _ in range(100):
        before = (rng.random((5, 500)) < 0.8).astype(float)
        now = np.where(
            rng.random((5, 500)) < 0.1, 1 - before, before
        )  # an update changes some answers anyway
        now = np.where(before == 0, np.where(rng.random((5, 500)) < 0.4, 1.0, now), now)
        now[3] = (rng.random(500) < 0.3).astype(float)
        p = worse(held_against(before, languages), held_against(now, languages), LINEAR)
        named += p[3] < 0.05
        false += any(one < 0.05 for place, one in enumerate(p) if place != 3)
    assert named == 100
    assert false <= 5


def test_false_alarms_over_all_languages_are_as_rare_as_asked_for():
    """1,000 updates of five languages in which answers change and are no better or worse."""
    rng = np.random.default_rng(2)
    languages = tuple("abcde")
    raised = 0
    for _ in range(1000):
        before, now = (rng.random((2, 5, 40)) < 0.7).astype(float)
        p = worse(held_against(before, languages), held_against(now, languages), LINEAR)
        raised += min(p) < 0.05
    assert 20 <= raised <= 70


def test_copies_of_a_text_are_one_witness():
    rng = np.random.default_rng(3)
    before, now = (rng.random((2, 30)) < [[0.8], [0.5]]).astype(float)
    keys = np.array([str(i) for i in range(30)], dtype=object)
    once = worse(held_against(before, keys=keys), held_against(now, keys=keys), LINEAR)
    copied = [held_against(np.repeat(one, 20), keys=np.repeat(keys, 20)) for one in (before, now)]
    assert worse(*copied, LINEAR)[0] == pytest.approx(once[0], rel=0.05)
    apart = [held_against(np.repeat(one, 20)) for one in (before, now)]
    assert worse(*apart, LINEAR)[0] < 1e-3 * once[0]


def test_where_the_curve_tells_nothing_the_disagreement_itself_is_read():
    """A model in use that was always right gives no slope: its poisoned successor is seen all the same."""
    reference = held_against(np.ones((4, 25)), tuple("abcd"), error=np.zeros(100))
    fitted = curve(reference)
    before, now = (
        held_against(np.ones((2, 30)), ("de", "fr")),
        held_against([[0.0] * 30, [1.0] * 30], ("de", "fr")),
    )
    assert worse(before, now, fitted) == [0.0, 1.0]
    assert now.mean(risen(before, now, fitted)).tolist() == [1.0, 0.0]


def test_a_rise_is_the_difference_of_expected_errors():
    before, now = held_against([1.0, 0.0, 0.5]), held_against([0.0, 0.0, np.nan])
    low, high = 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))
    found = risen(before, now, LINEAR)
    assert found[:2] == pytest.approx([high - low, 0.0])
    assert np.isnan(found[2])


@pytest.mark.parametrize("known", [0, 1])
def test_too_few_texts_say_nothing_and_weigh_on_no_other_language(known):
    before = np.tile([1.0, 0.0], (2, 10))
    now = np.zeros((2, 20))
    now[1, known:] = np.nan
    found = worse(held_against(before, ("de", "en")), held_against(now, ("de", "en")), LINEAR)
    alone = worse(held_against(before[:1]), held_against(now[:1]), LINEAR)
    assert found == [alone[0], None]


def test_the_same_answers_are_no_change():
    agreement = np.tile([1.0, 0.0], 20)
    assert worse(held_against(agreement), held_against(agreement), LINEAR) == [1.0]


def test_other_texts_are_refused():
    with pytest.raises(ValueError, match="other texts"):
        worse(held_against([1.0, 0.0]), held_against([1.0, 0.0], ("en",)), LINEAR)
