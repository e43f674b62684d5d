"""What a comparison of models finds, and what it allows to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Value = Callable[[np.ndarray], np.ndarray]
Verdict = Literal["better", "not worse", "worse", "undecided"]
Bounds = tuple[float | None, float | None]

MOST_RESAMPLES = 2000  # more moves the third digit of a bound and nothing else


@dataclass(frozen=True)
class Interval:
    """A score with the range that holds the true one in `level` of all test sets of this size.

    `value` is None when no example was scored (n = 0); `low` and `high` also when one example, or one source of
    all examples, cannot show how much they vary. `groups`: how many independent units the n examples make up (their
    sources; the texts that parallel languages share), by default n.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    groups: int = -1

    def __post_init__(self) -> None:
        if self.groups < 0:
            object.__setattr__(self, "groups", self.n)


@dataclass(frozen=True)
class Difference:
    """Score of a minus score of b on the same n examples, with its interval and two-sided p-value.

    `groups` as in `Interval`.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    groups: int = -1

    def __post_init__(self) -> None:
        if self.groups < 0:
            object.__setattr__(self, "groups", self.n)


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


def check_settings(level: float, resamples: int) -> None:
    """Raise ValueError for a level or a number of resamples that makes no sense."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
    if not 1 <= resamples <= MOST_RESAMPLES:
        raise ValueError(f"resamples is {resamples!r}; it must lie between 1 and {MOST_RESAMPLES}")
