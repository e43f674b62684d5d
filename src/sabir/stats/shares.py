"""Shares of right answers: what score tests of counts say, also of counts that come in clusters."""

from __future__ import annotations

import math

import numpy as np


def wilson(share: float, n: float, level: float) -> tuple[float, float]:
    """The shares that a score test at this level does not reject.

    Source: Wilson (1927), https://doi.org/10.2307/2276774
    """
    z2 = _normal_quantile(level) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    low, high = centre - half, centre + half
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


def tango(only_a: float, only_b: float, n: float, level: float) -> tuple[float, float]:
    """The differences of two paired shares that a score test at this level does not reject.

    Args:
        only_a, only_b: examples that only a, only b has right, of n.
    Source: Tango (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B
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


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided mid-p value of the toss of a coin for each example that one model alone has right.

    Source: https://doi.org/10.1186/1471-2288-13-91
    """
    from scipy.special import bdtr

    differing, fewer = only_a + only_b, min(only_a, only_b)
    if differing == 0:
        return 1.0
    at_most = float(bdtr(fewer, differing, 0.5))
    fewer_still = float(bdtr(fewer - 1, differing, 0.5)) if fewer else 0.0
    return min(1.0, at_most + fewer_still)  # 2 * (P(X < fewer) + P(X = fewer) / 2)


def independent_rows(sums: np.ndarray, squares: np.ndarray, sizes: np.ndarray, level: float) -> float:
    """How many independent rows say as much about the mean as these rows in clusters do.

    Rows divided by the design effect: the larger of the one seen (the variance of the mean of these clusters) and
    the one modelled (by the correlation within clusters), and at least 1; few clusters count for less still, as
    Student's interval is wider than the normal one. Where all rows are equal no correlation can be seen: then as
    many as there are clusters of equal weight.

    Args:
        sums, squares, sizes: (groups,) of each cluster's values in [-1, 1], of their squares, and its rows; at
            least two clusters.
    Source: Korn and Graubard (1998), Survey Methodology 24, 193-201; the correlation within clusters by analysis
        of variance, Donner and Koval (1980), Biometrics 36, 19-25. The larger
        of the two design effects was chosen by simulation: either alone covers down to 0.80 (30 clusters of 1 or
        10 rows, correlation 0.7), the larger 0.91 to 1.00.
    """
    from scipy.special import stdtrit

    n, groups, squared = sizes.sum(), len(sizes), (sizes**2).sum()
    mean = sums.sum() / n
    spread = squares.sum() / n - mean**2
    if spread <= 1e-12:
        return float(n**2 / squared)
    apart = (sums - mean * sizes) ** 2
    seen = apart.sum() * groups / (groups - 1) / n**2 / (spread / (n - 1))
    between = (apart / sizes).sum() / (groups - 1)
    within = (squares - sums**2 / sizes).sum() / max(1.0, n - groups)
    typical = (n - squared / n) / (groups - 1)
    whole = between + (typical - 1) * within
    alike = min(1.0, max(0.0, (between - within) / whole)) if whole > 0 else 1.0
    effect = max(1.0, seen, 1 + (squared / n - 1) * alike)
    few = _normal_quantile(level) / float(stdtrit(groups - 1, (1 + level) / 2))
    return float(n / effect * few**2)


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
