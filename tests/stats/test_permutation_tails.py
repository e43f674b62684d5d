"""p-values far out: small enough to survive a correction over many languages, never smaller than they may be."""

from __future__ import annotations

import numpy as np
import pytest

from sabir import stats
from sabir.metrics import METRICS

MACRO_F1 = METRICS.get("macro_f1").facts["value"]


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def counts(rng: np.random.Generator, n: int, *rights: float) -> list[np.ndarray]:
    """Macro F1's statistics of models that have that share right, and guess the rest."""
    actual, labels, found = rng.choice(3, n, p=[0.5, 0.3, 0.2]), np.eye(3), []
    for right in rights:
        guess = np.where(rng.random(n) < right, actual, rng.integers(3, size=n))
        hits = (guess == actual)[:, None] * labels[actual]
        found.append(np.concatenate([hits, labels[guess], labels[actual]], axis=1))
    return found


def all_sums(gains: np.ndarray) -> np.ndarray:
    """Of every choice of signs, 2**len(gains)."""
    sums = np.zeros(1)
    for gain in gains:
        sums = np.concatenate([sums + gain, sums - gain])
    return sums


@pytest.mark.parametrize("n", [12, 16, 20])
def test_p_far_out_is_not_below_that_of_all_permutations(n):
    """And not above it by orders of magnitude, so that a plain effect is seen."""
    rng = np.random.default_rng(0)
    for trial in range(8):
        gains = rng.gamma(2.0, 0.1, n) + 0.1
        gains[: trial % 2] *= -1
        exact = (np.abs(all_sums(gains)) >= abs(gains.sum()) - 1e-12).mean()
        p = stats.paired_difference(gains[:, None], np.zeros((n, 1)), mean, seed=trial).p
        if exact < 1e-4:
            assert exact <= p <= 1e3 * exact
            assert p < 2e-3


def test_without_a_difference_small_p_values_are_as_rare_as_they_say():
    rng, trials = np.random.default_rng(1), 6000
    for draw, value in (
        (lambda: counts(rng, 60, 0.7, 0.7), MACRO_F1),
        (lambda: list(rng.beta(0.3, 2, (2, 30, 1))), mean),
    ):
        found = np.array(
            [stats.paired_difference(*draw(), value, seed=seed, resamples=60).p for seed in range(trials)]
        )
        for level in (0.05, 0.02, 0.01, 0.005, 0.001):  # 61 orders alone reach down to 0.016
            assert (found <= level).mean() <= level + 3 * np.sqrt(level / trials)
        assert (found <= 0.05).mean() >= 0.03


@pytest.mark.parametrize("clusters", [None, [i // 4 for i in range(200)]])
def test_a_plain_effect_is_significant_after_correction_over_sixty_languages(clusters):
    rng = np.random.default_rng(2)
    found = [
        stats.paired_difference(*counts(rng, 200, 0.85, 0.6), MACRO_F1, seed=0, clusters=clusters)
        for _ in range(60)
    ]
    corrected = stats.holm([one.p for one in found])
    assert np.mean([p <= 0.05 for p in corrected]) > 0.8
    assert stats.holm([1 / 1001] * 60)[0] > 0.05  # what a thousand permutations alone would say


def test_a_plain_effect_on_parallel_languages_has_a_small_p_too():
    rng = np.random.default_rng(3)
    pairs = [tuple(counts(rng, 100, 0.85, 0.6)) for _ in range(5)]
    for keys in (None, [range(100)] * 5):
        assert stats.paired_macro(pairs, MACRO_F1, seed=0, keys=keys).p < 1e-6


@pytest.mark.parametrize("differing", [1, 2, 4, 7])
def test_few_pairs_that_differ_cannot_be_significant(differing):
    gains = np.zeros((100, 1))
    gains[:differing] = 0.3 + 0.01 * np.arange(differing)[:, None]
    zeros = np.zeros((100, 1))
    least = 2.0 ** (1 - differing)
    assert least <= stats.paired_difference(gains, zeros, mean, seed=0).p <= least + 0.05
    in_twos = [i // 2 for i in range(100)]
    of_clusters = 2.0 ** (1 - (differing + 1) // 2)
    assert stats.paired_difference(gains, zeros, mean, seed=0, clusters=in_twos).p >= of_clusters
    parallel = stats.paired_macro([(gains, zeros)] * 5, mean, seed=0, keys=[range(100)] * 5)
    assert parallel.p >= least
    assert stats.paired_macro([(gains, zeros)] * 5, mean, seed=0).p < least  # five times as many coins
    seeds = np.stack([gains, 1.01 * gains, 1.02 * gains])
    assert stats.paired_difference(seeds, zeros, mean, seed=0).p >= least


def test_fewer_permutations_make_a_p_far_out_larger_not_smaller():
    """Their deviation is known less well, and Student's tail is the heavier for it."""
    rng = np.random.default_rng(4)
    drawn = [counts(rng, 200, 0.95, 0.6) for _ in range(25)]
    few, many = (
        np.array([stats.paired_difference(a, b, MACRO_F1, seed=0, resamples=times).p for a, b in drawn])
        for times in (50, 2000)
    )
    assert (few >= many).mean() >= 0.8
    assert np.median(many) < 1e-6


def test_no_difference_is_p_one():
    rng = np.random.default_rng(5)
    rows = rng.random((30, 1))
    assert stats.paired_difference(rows, rows, mean, seed=0).p == 1
    assert stats.paired_macro([(rows, rows)] * 2, mean, seed=0, keys=[range(30)] * 2).p == 1
