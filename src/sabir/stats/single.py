"""One model's score, and the difference of two, on one set of examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sabir.stats.resampling import (
    expanded_percentiles,
    permutation_p,
    resampled_scores,
    swapped_differences,
)
from sabir.stats.results import Bounds, Difference, Interval, Value, check_settings
from sabir.stats.samples import Keys, Sample, difference_of, is_share, pair_of, pulls, sample_of, score, sides
from sabir.stats.seeds import Spread, spread_of, student_p, widened
from sabir.stats.shares import independent_rows, mcnemar, tango, wilson

_FEW = 8  # resamples of fewer examples or clusters never leave what was seen: 0.47 for 0.95 of 2, 0.74 of 3
_NO_SPREAD = 1e-12
UNLIMITED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Settings:
    """Of an interval: seed of the draws, level, number of draws."""

    seed: int
    level: float
    resamples: int


def bootstrap(
    statistics: np.ndarray,
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    clusters: Keys | None = None,
) -> Interval:
    """The score of one model, with its interval.

    Macro scores over labels with fewer than some 5 examples: too narrow by any bootstrap, since a label that
    a small test set misses counts 0 (simulated: 0.78 for 0.95 at 2.5 expected examples; 0.96 at 10). See
    `rare_labels`.

    Args:
        statistics: (n, k), one row per example, all NaN where unscored; or (seeds, n, k), the answers of models
            trained with several seeds to the same examples. The score is then the mean over seeds, on the
            examples that every seed has scored, and the interval holds other seeds and other examples.
        value: maps means over examples, (..., k), to scores, (...).
        seed: equal seeds and equal n resample equal examples.
        resamples: at most 2000.
        clusters: one key per example; examples of one key (texts of one source) are drawn together, and one
            whose key is None alone. By default each is drawn alone.
    """
    check_settings(level, resamples)
    sample = sample_of(statistics, clusters)
    if sample.n == 0:
        return Interval(None, None, None, level, 0)
    settings = Settings(seed, level, resamples)
    centre, bounds = interval_of(sample, value, settings)
    if sample.seeds > 1:
        limits = (0.0, 1.0) if is_share(sample.rows, value) else UNLIMITED
        bounds = _with_seeds(sample, value, centre, bounds, level, limits)
    return Interval(centre, *bounds, level, sample.n, sample.groups)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    clusters: Keys | None = None,
) -> Difference:
    """How much better model a is than model b on the same examples, with interval and p-value.

    The p-value tests whether the two models' answers could as well be swapped; it knows no margin (see
    `verdict`). Interval and p-value are two methods and may disagree where p is near 1 - level. Of several seeds
    both are Student's.

    Args:
        a, b: (n, k) each, row i of both from example i; a pair with an unscored side is left out. Or (seeds, n, k),
            seed by seed; a side of one seed, or (n, k), stands beside each seed of the other.
        value, seed, level, resamples, clusters: as in `bootstrap`; `resamples` is also the number of permutations,
            which swap whole clusters.
    """
    check_settings(level, resamples)
    pair = pair_of(a, b, clusters)
    if pair.n == 0:
        return Difference(None, None, None, None, 0)
    settings = Settings(seed, level, resamples)
    difference, bounds = difference_interval_of(pair, value, settings)
    if pair.seeds > 1:
        limits = (-1.0, 1.0) if are_shares(pair, value) else UNLIMITED
        bounds = _with_seeds(pair, difference_of(value), difference, bounds, level, limits)
    p = p_of(pair, value, settings)
    return Difference(difference, *bounds, p, pair.n, pair.groups)


def values_of_pairs(a: np.ndarray, b: np.ndarray, value: Value) -> tuple[float | None, float | None]:
    """The scores of a and of b on the examples that both have scored: those whose `paired_difference` is taken.

    None for both when there is no such example.
    """
    pair = pair_of(a, b, None)
    if pair.n == 0:
        return None, None
    first, second = (float(score(value, side.mean(axis=0))) for side in sides(pair))
    return first, second


def interval_of(sample: Sample, value: Value, settings: Settings) -> tuple[float, Bounds]:
    """The score, and bounds that hold other examples (and the same seeds)."""
    centre, level = float(score(value, sample.means())), settings.level
    several = sample.clustered or sample.seeds > 1  # rows of a unit
    if sample.groups == 1 and several:
        return centre, (None, None)
    if is_share(sample.rows, value):
        n = float(sample.n)
        if several:
            ones = sample.sums.sum(axis=(1, 2))
            n = independent_rows(ones, ones, sample.sizes * sample.seeds, level)
        return centre, wilson(centre, n, level)
    if sample.groups == 1:
        return centre, (None, None)
    replicates = resampled_scores(sample, value, seed=settings.seed, resamples=settings.resamples)
    if np.ptp(replicates) < _NO_SPREAD:
        # All right, all wrong, or one answer to all: no resample shows a spread. What the same n says of shares does.
        if centre in (0.0, 1.0):
            return centre, wilson(centre, sample.equal_groups, level)
        half = wilson(0.0, sample.equal_groups, level)[1]
        return centre, (centre - half, centre + half)
    return centre, _percentiles(sample, value, centre, replicates, level)


def difference_interval_of(pair: Sample, value: Value, settings: Settings) -> tuple[float, Bounds]:
    """The score of a less that of b, and bounds that hold other examples (and the same seeds)."""
    a, b = sides(pair)
    difference, level = float(score(value, a.mean(axis=0)) - score(value, b.mean(axis=0))), settings.level
    several = pair.clustered or pair.seeds > 1  # rows of a unit
    if pair.groups == 1 and several:
        return difference, (None, None)
    if are_shares(pair, value):
        scale = 1.0
        if several:
            scale = _independent_pairs(pair, level) / (pair.n * pair.seeds)
        only_a, only_b = float((a > b).sum()), float((a < b).sum())
        return difference, tango(scale * only_a, scale * only_b, scale * pair.n * pair.seeds, level)
    if (a == b).all():
        # No pair differs, so a resample shows no spread. What the same n says of 0/1 scores bounds it.
        return difference, tango(0, 0, pair.equal_groups, level)
    if pair.groups == 1:
        return difference, (None, None)
    between = difference_of(value)
    replicates = resampled_scores(pair, between, seed=settings.seed, resamples=settings.resamples)
    if np.ptp(replicates) < _NO_SPREAD:  # two models that each give one answer to all, whatever is drawn
        half = tango(0, 0, pair.equal_groups, level)[1]
        return difference, (difference - half, difference + half)
    return difference, _percentiles(pair, between, difference, replicates, level)


def p_of(pair: Sample, value: Value, settings: Settings) -> float:
    """Two-sided p-value of the difference between the two sides of at least one example."""
    a, b = sides(pair)
    gains = np.subtract(*np.split(pair.sums, 2, axis=-1))
    differing = int((gains != 0).any(axis=(1, 2)).sum())
    if pair.seeds > 1:
        between = difference_of(value)
        spread = _spread(pair, between)
        p = student_p(float(score(between, pair.means())), spread)
        return max(p, 2.0 ** (1 - differing)) if differing else 1.0
    if are_shares(pair, value) and not pair.clustered:
        return mcnemar(int((a > b).sum()), int((a < b).sum()))
    difference = float(score(value, a.mean(axis=0)) - score(value, b.mean(axis=0)))
    swapped = swapped_differences(
        [pair], [np.arange(pair.groups)], value, seed=settings.seed, resamples=settings.resamples
    )
    return permutation_p(swapped[:, 0], difference, differing)


def are_shares(pair: Sample, value: Value) -> bool:
    """Whether both sides are plain shares of ones."""
    return all(is_share(side, value) for side in sides(pair))


def _percentiles(
    sample: Sample, value: Value, centre: float, replicates: np.ndarray, level: float
) -> tuple[float, float]:
    """The expanded percentile interval; of a few examples or clusters also all of Student's interval."""
    if sample.groups >= _FEW:
        return expanded_percentiles(replicates, max(2.0, sample.equal_groups), level)
    from scipy.special import stdtrit

    low, high = expanded_percentiles(replicates, sample.groups, level)
    error = math.sqrt(float((pulls(sample, value) ** 2).sum()))
    half = float(stdtrit(sample.groups - 1, (1 + level) / 2)) * error
    return min(low, centre - half), max(high, centre + half)


def _with_seeds(
    sample: Sample, value: Value, centre: float, bounds: Bounds, level: float, limits: tuple[float, float]
) -> Bounds:
    low, high = bounds
    if low is None or high is None:
        return bounds
    return widened(centre, (low, high), _spread(sample, value), level, limits)


def _spread(sample: Sample, value: Value) -> Spread:
    examples = float((pulls(sample, value) ** 2).sum())
    return spread_of(value(sample.means()), examples, sample.equal_groups - 1)


def _independent_pairs(pair: Sample, level: float) -> float:
    a, b = sides(pair)
    gains = a - b
    sums, squares = (pair.by_unit(each.sum(axis=(1, 2))) for each in (gains, gains**2))
    return independent_rows(sums, squares, pair.sizes * pair.seeds, level)
