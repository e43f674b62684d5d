"""Intervals, paired differences and verdicts, by one mechanism for every metric.

A metric gives per-example statistics, an array (n, k), and `value`, which maps their means over examples,
(..., k), to scores, (...). Accuracy: k = 1, the mean itself. Macro F1 over L labels: 3 L counts. A bootstrap
is then a matrix of resampling counts, (resamples, n), times the statistics, and `value` of all rows at once.

Which method when, chosen by simulated coverage (tests/test_stats.py):

- one model, 0/1 statistic: Wilson's interval. The bootstrap of an accuracy near 0 or 1 is far too narrow.
- one model, anything else: the expanded percentile bootstrap, which is to the plain percentile interval as
  Student's interval is to the normal one.
- two models, 0/1: Tango's score interval for paired proportions, and the mid-p McNemar test. Two models that
  agree on all of 20 examples are not equal to within 0; here they differ by at most 0.16.
- two models, anything else: the expanded percentile bootstrap of the difference on the same resampled
  examples, and a permutation test that swaps the two models' answers, example by example.
- several groups: the intervals of the groups combined (MOVER), each group resampled within itself.

Examples that are unscored (a row of NaN) are left out, for differences where either model's is; nobody's
score is imputed. What cannot be known is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Value = Callable[[np.ndarray], np.ndarray]
Verdict = Literal["better", "not worse", "worse", "undecided"]

MOST_RESAMPLES = 2000  # more moves the third digit of a bound and nothing else
_CHUNK = 2**20  # resampled examples held at once, some 8 MiB per array


@dataclass(frozen=True)
class Interval:
    """A score with the range that holds the true one in `level` of all test sets of this size.

    `value` is None when no example was scored (n = 0); `low` and `high` also when one example cannot show how
    much examples vary.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Score of a minus score of b on the same n examples, with its interval and two-sided p-value."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def bootstrap(
    statistics: np.ndarray, value: Value, *, seed: int, level: float = 0.95, resamples: int = 1000
) -> Interval:
    """The score of one model, with its interval.

    Macro scores over labels with fewer than some 5 examples: too narrow by any bootstrap, since a label that
    a small test set misses counts 0 (simulated: 0.78 for 0.95 at 2.5 expected examples; 0.96 at 10).

    Args:
        statistics: (n, k), one row per example, all NaN where unscored.
        value: maps means over examples, (..., k), to scores, (...).
        seed: equal seeds and equal n resample equal examples.
        resamples: at most 2000.
    Source: Wilson (1927) where k = 1 and all is 0 or 1; else the expanded percentile interval of Hesterberg,
        https://arxiv.org/abs/1411.5279, section 4.
    """
    _check(level, resamples)
    rows = _scored(statistics)
    n = len(rows)
    if n == 0:
        return Interval(None, None, None, level, 0)
    point = float(value(rows.mean(axis=0)))
    low: float | None
    high: float | None
    if _is_share(rows, value):
        low, high = _wilson(point, n, level)
    elif n == 1:
        low = high = None
    else:
        replicates = np.concatenate([value(means) for means in _resampled_means(rows, seed, resamples)])
        if point in (0.0, 1.0) and (replicates == point).all():
            low, high = _wilson(point, n, level)  # all right or all wrong: no resample shows a spread
        else:
            low, high = _expanded_percentiles(replicates, n, level)
    return Interval(point, low, high, level, n)


def paired_difference(
    a: np.ndarray, b: np.ndarray, value: Value, *, seed: int, level: float = 0.95, resamples: int = 1000
) -> Difference:
    """How much better model a is than model b on the same examples, with interval and p-value.

    The p-value tests whether the two models' answers could as well be swapped; it knows no margin (see
    `verdict`). Interval and p-value are two methods and may disagree where p is near 1 - level.

    Args:
        a, b: (n, k) each, row i of both from example i; a pair with an unscored side is left out.
        value, seed, level, resamples: as in `bootstrap`; `resamples` is also the number of permutations.
    Source: Tango (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B
        and mid-p McNemar, https://doi.org/10.1186/1471-2288-13-91, for 0/1; else the paired bootstrap and
        approximate randomization, https://aclanthology.org/P18-1128.
    """
    _check(level, resamples)
    a, b = _pairs(a, b)
    n = len(a)
    if n == 0:
        return Difference(None, None, None, None, 0)
    difference = float(value(a.mean(axis=0)) - value(b.mean(axis=0)))
    low: float | None
    high: float | None
    if _is_share(a, value) and _is_share(b, value):
        only_a, only_b = int((a > b).sum()), int((a < b).sum())
        low, high = _tango(only_a, only_b, n, level)
        return Difference(difference, low, high, _mcnemar(only_a, only_b), n)
    if (a == b).all():
        # No pair differs, so a resample shows no spread. What the same n says of 0/1 scores bounds it.
        low, high = _tango(0, 0, n, level)
    elif n == 1:
        low = high = None
    else:
        both = np.stack([a, b], axis=1).reshape(n, -1)  # (n, 2 k): one resample serves both
        replicates = np.concatenate(
            [_difference_of(means, value) for means in _resampled_means(both, seed, resamples)]
        )
        low, high = _expanded_percentiles(replicates, n, level)
    swapped = _permuted_differences(a, b, value, np.random.default_rng([seed, 1]), resamples)
    return Difference(difference, low, high, _share_as_large(swapped, difference), n)


def bootstrap_macro(
    groups: Sequence[np.ndarray], value: Value, *, seed: int, level: float = 0.95, resamples: int = 1000
) -> Interval:
    """The mean score over several groups (languages), each with equal weight, with its interval.

    Groups are taken as independent of one another. For parallel texts put the languages side by side,
    (n, k * groups), and let `value` average them: that is `bootstrap` over texts.

    Args:
        groups: statistics of each group. One group without a scored example leaves the mean unknown.
    Source: MOVER, Zou and Donner (2008), https://doi.org/10.1002/sim.3095.
    """
    found = [
        bootstrap(group, value, seed=seed + i, level=level, resamples=resamples)
        for i, group in enumerate(groups)
    ]
    n = sum(each.n for each in found)
    centre, low, high = _combined([(each.value, each.low, each.high) for each in found])
    return Interval(centre, low, high, level, n)


def paired_macro(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
) -> Difference:
    """How much better model a is than model b in the mean over several groups (languages).

    Interval as in `bootstrap_macro`; the p-value permutes answers within every group.

    Args:
        pairs: per group the statistics of a and of b.
    """
    found = [
        paired_difference(a, b, value, seed=seed + i, level=level, resamples=resamples)
        for i, (a, b) in enumerate(pairs)
    ]
    n = sum(each.n for each in found)
    centre, low, high = _combined([(each.difference, each.low, each.high) for each in found])
    if centre is None:
        return Difference(None, None, None, None, n)
    swapped = np.mean(
        [
            _permuted_differences(*_pairs(a, b), value, np.random.default_rng([seed + i, 1]), resamples)
            for i, (a, b) in enumerate(pairs)
        ],
        axis=0,
    )
    return Difference(centre, low, high, _share_as_large(swapped, centre), n)


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """The p-values corrected for being several, in the order given: the chance of even one false alarm holds.

    A test that could not be made (None) stays None and is not counted.
    Source: Holm (1979), https://www.jstor.org/stable/4615733
    """
    made = sorted((p, i) for i, p in enumerate(pvalues) if p is not None)
    corrected: list[float | None] = [None] * len(pvalues)
    highest = 0.0
    for rank, (p, i) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - rank)))
        corrected[i] = highest
    return corrected


def values_of_pairs(a: np.ndarray, b: np.ndarray, value: Value) -> tuple[float | None, float | None]:
    """The scores of a and of b on the examples that both have scored: those whose `paired_difference` is taken.

    None for both when there is no such example.
    """
    a, b = _pairs(a, b)
    if len(a) == 0:
        return None, None
    return float(value(a.mean(axis=0))), float(value(b.mean(axis=0)))


def verdict(low: float | None, high: float | None, margin: float) -> Verdict:
    """What the interval of a - b allows to say of a, in this order:

    - "better": low > 0.
    - "not worse": low > -margin. All of the interval lies above the loss one would accept (non-inferiority);
      so also when high < 0, a loss that is sure and small enough.
    - "worse": high < 0. Surely a loss, and it may exceed the margin.
    - "undecided": all else, and when low or high is None.

    With margin 0 nothing is "not worse".

    Args:
        margin: the largest drop one would accept, at least 0.
    """
    if not margin >= 0:
        raise ValueError(f"margin is {margin!r}; it is the largest drop accepted, at least 0")
    if low is None or high is None:
        return "undecided"
    if low > 0:
        return "better"
    if low > -margin:
        return "not worse"
    return "worse" if high < 0 else "undecided"


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
    if not 1 <= resamples <= MOST_RESAMPLES:
        raise ValueError(f"resamples is {resamples!r}; it must lie between 1 and {MOST_RESAMPLES}")


def _unscored(statistics: np.ndarray) -> np.ndarray:
    """(n,) True where the row is all NaN. Raises ValueError for a row that is NaN in part."""
    if statistics.ndim != 2:
        raise ValueError(f"statistics has shape {statistics.shape}; expected (n, k)")
    missing = np.isnan(statistics)
    if (missing.any(axis=1) != missing.all(axis=1)).any():
        raise ValueError("a row of statistics is NaN in part; an unscored example is NaN in every column")
    return missing.any(axis=1)


def _scored(statistics: np.ndarray) -> np.ndarray:
    statistics = np.asarray(statistics, dtype=np.float64)
    return statistics[~_unscored(statistics)]


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of the examples that both models have scored."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a has statistics of shape {a.shape}, b of {b.shape}; pairs need the same examples")
    kept = ~(_unscored(a) | _unscored(b))
    return a[kept], b[kept]


def _is_share(rows: np.ndarray, value: Value) -> bool:
    """Whether the score is the plain share of ones: k = 1, every statistic 0 or 1, and `value` the mean."""
    if rows.shape[1] != 1 or not np.isin(rows, (0.0, 1.0)).all():
        return False
    probe = np.array([[0.0], [0.3], [1.0]])
    return bool((np.asarray(value(probe)) == probe[:, 0]).all())


def _resampled_means(rows: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Means of the statistics over examples drawn with replacement, (c, k) at a time, `resamples` in all."""
    n = len(rows)
    rng = np.random.default_rng([seed, 0])
    for count in _chunks(resamples, n):
        drawn = rng.integers(n, size=(count, n))
        drawn += n * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        yield times.astype(np.float64) @ rows / n


def _permuted_differences(
    a: np.ndarray, b: np.ndarray, value: Value, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """(resamples,) differences after each example's two sides have been swapped by the toss of a coin."""
    n = len(a)
    gain, mean_a, mean_b = a - b, a.mean(axis=0), b.mean(axis=0)
    found = []
    for count in _chunks(resamples, n):
        moved = (rng.random((count, n)) < 0.5).astype(np.float64) @ gain / n
        found.append(value(mean_a - moved) - value(mean_b + moved))
    return np.concatenate(found)


def _chunks(resamples: int, n: int) -> Iterator[int]:
    most = max(1, _CHUNK // n)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _difference_of(means: np.ndarray, value: Value) -> np.ndarray:
    """value of the first half of the columns minus value of the second."""
    a, b = np.split(means, 2, axis=-1)
    return value(a) - value(b)


def _share_as_large(swapped: np.ndarray, difference: float) -> float:
    """Two-sided p-value of a permutation test. The observed order counts as one: p is never 0."""
    as_large = np.abs(swapped) >= abs(difference) - 1e-12  # equal up to the rounding of sums in another order
    return float((as_large.sum() + 1) / (len(swapped) + 1))


def _expanded_percentiles(replicates: np.ndarray, n: int, level: float) -> tuple[float, float]:
    """Percentiles of the replicates, taken so far out that for a mean they match Student's interval."""
    from scipy.special import ndtr, stdtrit

    outside = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    low, high = np.quantile(replicates, [outside, 1 - outside])
    return float(low), float(high)


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """The shares that a score test at this level does not reject."""
    z2 = _normal_quantile(level) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    low, high = centre - half, centre + half
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


def _tango(only_a: int, only_b: int, n: int, level: float) -> tuple[float, float]:
    """The differences of two paired shares that a score test at this level does not reject.

    Args:
        only_a, only_b: examples that only a, only b has right, of n.
    """
    z = _normal_quantile(level)
    observed = (only_a - only_b) / n

    def score(delta: float) -> float:
        """The test statistic for a true difference of delta; falls as delta grows."""
        linear = (2 * n - only_a + only_b) * delta - only_a - only_b
        constant = -only_b * delta * (1 - delta)
        share_b = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * share_b + delta * (1 - delta))
        gap = n * (observed - delta)
        if variance <= 0:
            return math.copysign(math.inf, gap) if gap else 0.0
        return gap / math.sqrt(variance)

    def bound(inside: float, outside: float) -> float:
        """Where |score| passes z, between the observed difference and the end of the scale."""
        for _ in range(60):  # halvings of at most 2: down to the last bit
            middle = (inside + outside) / 2
            if abs(score(middle)) <= z:
                inside = middle
            else:
                outside = middle
        return inside

    return bound(observed, -1.0), bound(observed, 1.0)


def _mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided mid-p value of the toss of a coin for each example that one model alone has right."""
    from scipy.special import bdtr

    differing, fewer = only_a + only_b, min(only_a, only_b)
    if differing == 0:
        return 1.0
    at_most = float(bdtr(fewer, differing, 0.5))
    fewer_still = float(bdtr(fewer - 1, differing, 0.5)) if fewer else 0.0
    return min(1.0, at_most + fewer_still)  # 2 * (P(X < fewer) + P(X = fewer) / 2)


def _combined(
    groups: Sequence[tuple[float | None, float | None, float | None]],
) -> tuple[float | None, float | None, float | None]:
    """Mean of the groups' centres, with the distances to their bounds added as independent errors add."""
    if not groups:
        raise ValueError("a mean over groups needs at least one group")
    centres = [centre for centre, _, _ in groups if centre is not None]
    if len(centres) < len(groups):
        return None, None, None
    centre = math.fsum(centres) / len(centres)
    below = [c - low for c, low, _ in groups if c is not None and low is not None]
    above = [high - c for c, _, high in groups if c is not None and high is not None]
    if min(len(below), len(above)) < len(groups):
        return centre, None, None
    return centre, centre - math.hypot(*below) / len(groups), centre + math.hypot(*above) / len(groups)
