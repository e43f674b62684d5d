"""What a test set can show: the smallest drop that would be found, and not overlooked.

Importing this loads no numpy, so that a plan can say it at once.
"""

from __future__ import annotations

import math
from statistics import NormalDist

NORMAL = NormalDist()


def detectable(
    low: float | None, high: float | None, level: float, *, power: float = 0.8, tests: int = 1
) -> float | None:
    """The smallest true drop that a paired test on these examples would find, from a difference's interval.

    A drop that large is found significant with probability `power`; a smaller one may well go unseen. None
    where the interval is unknown, or so wide that even a drop of 1 would not be found. From an interval that holds
    few training seeds (Student's, wide) it is right for one test, and too small where corrected for several.

    Args:
        low, high: bounds of the paired difference, at this level.
        tests: how many tests the p-value is corrected for (Bonferroni: Holm's strictest step).
    Source: the minimum detectable effect, Bloom (1995), https://doi.org/10.1177/0193841X9501900504
    """
    _check(level, power, tests)
    if low is None or high is None:
        return None
    deviation = (high - low) / (2 * _standard_errors(level))
    drop = deviation * (_standard_errors(1 - (1 - level) / tests) + NORMAL.inv_cdf(power))
    return drop if drop <= 1 else None


def detectable_from_n(
    n: int, *, differing: float = 0.2, level: float = 0.95, power: float = 0.8, tests: int = 1
) -> float | None:
    """As `detectable`, before any pair is known: the smallest true drop in accuracy that n examples would show.

    Several languages pooled with equal weight and as many rows each are as good as one with all their rows.

    Args:
        differing: the share of examples that only one of the two models has right; more where the drop is
            larger than that.
    Source: McNemar's test, Connor (1987), https://doi.org/10.2307/2531961, solved for the difference.
    """
    _check(level, power, tests)
    if not 0 < differing <= 1:
        raise ValueError(f"differing is {differing!r}; it must lie above 0, at most 1")
    z_level, z_power = _standard_errors(1 - (1 - level) / tests), NORMAL.inv_cdf(power)

    def is_found(drop: float) -> bool:
        share = max(differing, drop)
        return drop * math.sqrt(n) >= z_level * math.sqrt(share) + z_power * math.sqrt(share - drop**2)

    if not is_found(1.0):
        return None
    missed, found = 0.0, 1.0
    for _ in range(50):  # halvings of 1: down to the last bit
        middle = (missed + found) / 2
        missed, found = (missed, middle) if is_found(middle) else (middle, found)
    return found


def _standard_errors(level: float) -> float:
    """How many standard errors a two-sided interval of that level reaches to either side."""
    return NORMAL.inv_cdf((1 + level) / 2)


def _check(level: float, power: float, tests: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
    if not 0.5 <= power < 1:
        raise ValueError(f"power is {power!r}; it must lie between 0.5 and 1")
    if tests < 1:
        raise ValueError(f"tests is {tests!r}; it is at least 1")
