"""Draws with replacement and swaps by the toss of a coin, many at a time, and what their spread says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from sabir.stats.results import Value
from sabir.stats.samples import Sample, difference_of, score

_CHUNK = 2**20  # resampled units held at once, some 8 MiB per array
_FEW_AS_LARGE = 10  # permutations; a share known from fewer is off by a third and more


def resampled_scores(sample: Sample, value: Value, *, seed: int, resamples: int) -> np.ndarray:
    """(resamples,) scores of units drawn with replacement: equal seeds and units draw the same ones."""
    groups, columns = sample.groups, sample.sums.reshape(sample.groups, -1)
    rng = np.random.default_rng([seed, 0])
    found = []
    for count in _chunks(resamples, groups):
        drawn = rng.integers(groups, size=(count, groups))
        drawn += groups * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups)
        times = times.astype(np.float64)
        rows = (times @ sample.sizes)[:, None] if sample.clustered else sample.n
        means = times @ columns / rows
        found.append(score(value, means.reshape(count, *sample.sums.shape[1:])))
    return np.concatenate(found)


def swapped_differences(
    pairs: Sequence[Sample], places: Sequence[np.ndarray], value: Value, *, seed: int, resamples: int
) -> np.ndarray:
    """(resamples, pairs) differences after each unit's two sides were swapped by the toss of its coin.

    Args:
        pairs: of one seed each.
        places: per pair the number of each unit; units of several pairs with one number share a coin.
    """
    rng, difference = np.random.default_rng([seed, 1]), difference_of(value)
    coins = 1 + max(int(place.max()) for place in places)
    parts = []
    for pair, place in zip(pairs, places, strict=True):
        a, b = np.split(pair.sums[:, 0], 2, axis=-1)
        own = None if len(place) == coins and (place == np.arange(coins)).all() else place
        parts.append((a - b, pair.means()[0], pair.n, own))
    found = []
    for count in _chunks(resamples, coins):
        tossed = (rng.random((count, coins)) < 0.5).astype(np.float64)
        columns = []
        for gain, means, n, own in parts:
            moved = (tossed if own is None else tossed[:, own]) @ gain / n
            columns.append(difference(means + np.concatenate([-moved, moved], axis=-1)))
        found.append(np.stack(columns, axis=-1))
    return np.concatenate(found)


def permutation_p(swapped: np.ndarray, difference: float, differing: int) -> float:
    """Two-sided p-value of a permutation test: the share of swaps with a difference at least as large.

    The observed order counts as one: p is never 0. Where that share rests on fewer than ten swaps, Student's tail
    with their standard deviation reaches below 1 / resamples; times 3.18, the most by which the tail of a sum of
    signed terms can exceed the normal one, so that for scores that are means this p errs towards the large. Of
    2**differing orders at least two are as large as the observed one, and p is never less than that.

    Args:
        swapped: (resamples,) differences after swaps.
        differing: units whose two sides differ.
    Source: Phipson and Smyth (2010), https://doi.org/10.2202/1544-6115.1585; the bound on the tail, Bentkus and
        Dzindzalieta (2015), https://doi.org/10.3150/14-BEJ603.
    """
    from scipy.special import stdtr

    # Equal up to the rounding of sums in another order.
    as_large = int((np.abs(swapped) >= abs(difference) - 1e-12).sum())
    p = (as_large + 1) / (len(swapped) + 1)
    deviation = math.sqrt(float((swapped**2).mean()))
    if as_large < _FEW_AS_LARGE and deviation > 0:
        p = min(p, 2 * 3.178 * float(stdtr(len(swapped), -abs(difference) / deviation)))
    return max(p, 2.0 ** (1 - differing)) if differing else 1.0


def expanded_percentiles(replicates: np.ndarray, n: float, level: float) -> tuple[float, float]:
    """Percentiles of the replicates, taken so far out that for a mean they match Student's interval.

    Args:
        n: units drawn, of equal weight.
    Source: Hesterberg, https://arxiv.org/abs/1411.5279, section 4.
    """
    from scipy.special import ndtr, stdtrit

    outside = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    low, high = np.quantile(replicates, [outside, 1 - outside])
    return float(low), float(high)


def _chunks(resamples: int, n: int) -> Iterator[int]:
    most = max(1, _CHUNK // n)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
