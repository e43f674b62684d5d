"""Weighted means of rows that stand for several texts, with the variance that rows of one source leave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 20  # texts or labels; of fewer no method can say much
ENOUGH = 500  # labelled texts, from which a curve of any shape is fitted, and trust without labels is tested


@dataclass(frozen=True)
class Mean:
    """A mean, the variance of that mean, and how many independent texts of equal weight say as much (Kish)."""

    value: float
    variance: float
    units: float


def mean_of(
    values: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    keys: np.ndarray | None = None,
) -> Mean:
    """The mean of texts drawn at random, and how far another draw would move it.

    The variance is infinite for fewer than two independent texts. With equal weights it is the usual one, s² / n.

    Args:
        values: (n,) of rows.
        weights: (n,) of each text of a row; None: 1.
        counts: (n,) texts of a row; None: 1.
        keys: (n,) rows of one key are drawn together; a key of None is nobody else's. None: each text by itself.
    Source: the variance of a ratio by linearisation, with replacement, clusters as units: Cochran (1977), Sampling
        Techniques, sections 6.3 and 9A; with the factor G / (G - 1).
    """
    counted = np.ones(len(values)) if counts is None else counts
    each = np.ones(len(values)) if weights is None else weights
    whole = float((counted * each).sum())
    if not whole > 0:
        return Mean(float("nan"), float("inf"), 0.0)
    value = float((counted * each * values).sum() / whole)
    pull = each * (values - value)
    groups = groups_of(keys, len(values))
    if groups is None:
        squares, shares = counted * pull**2, counted * each**2
        units = float(counted.sum())
    else:
        squares = np.square(np.bincount(groups, counted * pull))
        shares = np.square(np.bincount(groups, counted * each))
        units = float(len(shares))
    kish = whole**2 / float(shares.sum())
    variance = float(squares.sum()) / whole**2 * units / (units - 1) if units > 1 else float("inf")
    return Mean(value, variance, kish)


def share(value: float) -> float:
    """This, or the nearer of 0 and 1."""
    return min(1.0, max(0.0, value))


def groups_of(keys: np.ndarray | None, n: int) -> np.ndarray | None:
    """(n,) int, the number of each row's key; None where no two rows have the same."""
    if keys is None:
        return None
    named = [i if key is None else (key,) for i, key in enumerate(keys.tolist())]
    numbers: dict[object, int] = {}
    for name in named:
        numbers.setdefault(name, len(numbers))
    return None if len(numbers) == n else np.array([numbers[name] for name in named])
