"""A mean over languages whose texts are translations of each other is known less well, and the interval says so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from sabir import stats
from sabir.metrics import METRICS

MACRO_F1 = METRICS.get("macro_f1").facts["value"]


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def texts(layout: str, n: int, languages: int) -> list[list[object]]:
    """Keys of each language's texts."""
    if layout == "shared":
        return [[*range(n)] for _ in range(languages)]
    if layout == "half shared":
        return [[*range(n // 2), *((language, i) for i in range(n // 2))] for language in range(languages)]
    return [[*range(n // (1 + language))] for language in range(languages)]  # uneven: parts of the first


def draw(
    rng: np.random.Generator, keys: list[list[object]], *, alike: float, share: float | None
) -> list[np.ndarray]:
    """Statistics of each language; texts of one key are about as hard in each. Of 0/1 where a share is given."""
    hardness: dict[object, float] = {}
    found = []
    for of_language in keys:
        common = np.array([hardness.setdefault(key, rng.standard_normal()) for key in of_language])
        hard = np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.standard_normal(len(common))
        rows = 0.5 + 0.1 * hard if share is None else (hard < ndtri(share)).astype(float)
        found.append(rows[:, None])
    return found


CASES = [
    ("shared", 60, 5, 0.7), ("shared", 60, 5, 0.95), ("shared", 60, 5, None), ("shared", 20, 10, 0.8),
    ("half shared", 60, 4, 0.7), ("half shared", 60, 4, None),
    ("uneven", 80, 4, 0.7), ("uneven", 80, 4, None),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "n", "languages", "share"), CASES)
def test_joint_interval_covers_where_the_independent_one_does_not(layout, n, languages, share):
    rng, keys = np.random.default_rng(0), texts(layout, n, languages)
    truth = 0.5 if share is None else share
    held = alone = 0
    for seed in range(300):
        groups = draw(rng, keys, alike=0.8, share=share)
        found = stats.bootstrap_macro(groups, mean, seed=seed, resamples=200, keys=keys)
        held += found.low <= truth <= found.high
        found = stats.bootstrap_macro(groups, mean, seed=seed, resamples=200)
        alone += found.low <= truth <= found.high
    assert held / 300 >= 0.95 - 0.038  # three standard errors of 300 trials
    assert alone / 300 < 0.88


@pytest.mark.parametrize(("layout", "n", "languages", "share"), CASES)
def test_joint_interval_is_no_wider_than_need_be_where_texts_do_not_go_together(layout, n, languages, share):
    rng, keys = np.random.default_rng(1), texts(layout, n, languages)
    joint, alone = [], []
    for seed in range(40):
        groups = draw(rng, keys, alike=0.0, share=share)
        found = stats.bootstrap_macro(groups, mean, seed=seed, resamples=200, keys=keys)
        joint.append(found.high - found.low)
        found = stats.bootstrap_macro(groups, mean, seed=seed, resamples=200)
        alone.append(found.high - found.low)
    assert 1 <= np.mean(joint) / np.mean(alone) <= 1.15


@pytest.mark.parametrize(("layout", "n", "languages", "share"), CASES)
def test_equal_models_on_parallel_texts_are_told_apart_no_more_often_than_said(layout, n, languages, share):
    rng, keys = np.random.default_rng(2), texts(layout, n, languages)
    held = rejected = alone = 0
    for seed in range(300):
        a, b = (draw(rng, keys, alike=0.8, share=share) for _ in range(2))
        pairs = list(zip(a, b, strict=True))
        found = stats.paired_macro(pairs, mean, seed=seed, resamples=200, keys=keys)
        held += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
        alone += stats.paired_macro(pairs, mean, seed=seed, resamples=200).p <= 0.05
    assert held / 300 >= 0.95 - 0.038
    assert rejected / 300 <= 0.05 + 0.038
    assert alone / 300 > 0.09


def test_fully_parallel_languages_are_one_test_set_of_wide_rows():
    """An oracle: the languages side by side, the bootstrap over texts."""
    rng = np.random.default_rng(3)
    hard = rng.standard_normal((80, 1))
    groups = [0.5 + 0.1 * (hard + rng.standard_normal((80, 1))) for _ in range(4)]
    joint = stats.bootstrap_macro(groups, mean, seed=0, resamples=2000, keys=[range(80)] * 4)
    wide = stats.bootstrap(np.hstack(groups), lambda means: means.mean(axis=-1), seed=0, resamples=2000)
    assert joint.value == pytest.approx(wide.value)
    assert (joint.groups, joint.n) == (80, 320)
    assert joint.high - joint.low == pytest.approx(wide.high - wide.low, rel=0.06)  # noise of 2,000 resamples


def test_the_same_language_twice_is_known_no_better_than_once():
    rng = np.random.default_rng(4)
    rows = (rng.random((50, 1)) < 0.8).astype(float)
    once = stats.bootstrap(rows, mean, seed=0)
    twice = stats.bootstrap_macro([rows, rows], mean, seed=0, keys=[range(50)] * 2)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    other = (rng.random((50, 1)) < 0.8).astype(float)
    once = stats.paired_difference(rows, other, mean, seed=0)
    twice = stats.paired_macro([(rows, other)] * 2, mean, seed=0, keys=[range(50)] * 2)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_languages_all_right_on_the_same_texts_are_known_no_better_than_one():
    ones = np.ones((20, 1))
    once = stats.bootstrap(ones, mean, seed=0)
    both = stats.bootstrap_macro([ones, ones], mean, seed=0, keys=[range(20)] * 2)
    assert both.low == pytest.approx(once.low)
    assert stats.bootstrap_macro([ones, ones], mean, seed=0).low > once.low


def test_swapping_shared_texts_together_gives_the_p_of_all_swaps():
    rng = np.random.default_rng(5)
    hard = 0.15 * rng.standard_normal((9, 1))
    pairs = [(rng.random((9, 1)) + 0.3 + hard, rng.random((9, 1))) for _ in range(3)]
    gains = np.mean([a - b for a, b in pairs], axis=0)[:, 0]
    signs = np.array(np.meshgrid(*[[1, -1]] * 9)).reshape(9, -1).T
    exact = (np.abs(signs @ gains) >= abs(gains.sum()) - 1e-12).mean()
    found = stats.paired_macro(pairs, mean, seed=0, resamples=2000, keys=[range(9)] * 3).p
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2000) + 1 / 2001)


def test_swapping_the_models_turns_the_sign_of_the_mean():
    rng = np.random.default_rng(6)
    keys = [range(30), range(10, 50), ["its own", *range(5)]]
    pairs = [tuple((rng.random((len(of), 6)) < 0.5).astype(float) for _ in range(2)) for of in keys]
    ab = stats.paired_macro(pairs, MACRO_F1, seed=0, keys=keys)
    ba = stats.paired_macro([(b, a) for a, b in pairs], MACRO_F1, seed=0, keys=keys)
    assert (ab.difference, ab.low, ab.high) == pytest.approx((-ba.difference, -ba.high, -ba.low))
    assert ab.groups == 51


def test_texts_of_one_source_stay_together_within_a_language_too():
    rng = np.random.default_rng(7)
    rows, source = rng.random((24, 1)), [i // 3 for i in range(24)]
    one = stats.bootstrap(rows, mean, seed=2, clusters=source)
    macro = stats.bootstrap_macro([rows], mean, seed=2, keys=[source])
    assert (macro.value, macro.low, macro.high) == pytest.approx((one.value, one.low, one.high))
    one = stats.paired_difference(rows, rows[::-1], mean, seed=2, clusters=source)
    macro_pair = stats.paired_macro([(rows, rows[::-1])], mean, seed=2, keys=[source])
    assert (macro_pair.low, macro_pair.high, macro_pair.p) == pytest.approx((one.low, one.high, one.p))


def test_a_language_without_a_scored_row_leaves_the_mean_unknown_with_keys_too():
    full, holes = np.array([[0.1], [0.4]]), np.full((2, 1), np.nan)
    found = stats.bootstrap_macro([full, holes], mean, seed=0, keys=[[1, 2], [1, 2]])
    assert found == stats.Interval(None, None, None, 0.95, 2)
    assert stats.paired_macro([(full, full), (full, holes)], mean, seed=0, keys=[[1, 2]] * 2).p is None
