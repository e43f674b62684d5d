"""Scored rows as independent units: what is drawn, swapped or left out together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sabir.stats.results import Value

Keys = Sequence[Hashable]


@dataclass(frozen=True)
class Sample:
    """The scored rows of one model, or of two side by side, summed by independent unit.

    Attributes:
        rows: (n, seeds, k).
        sums: (groups, seeds, k): of each unit's rows; `rows` itself where each row is a unit of its own.
        unit: (n,) the number of each row's unit, None where each row is a unit of its own.
        keys: of each unit; None where no unit is known to be found elsewhere.
    """

    rows: np.ndarray
    sums: np.ndarray
    unit: np.ndarray | None
    keys: tuple[Hashable, ...] | None

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def seeds(self) -> int:
        return self.rows.shape[1]

    @property
    def groups(self) -> int:
        return self.sums.shape[0]

    @property
    def clustered(self) -> bool:
        return self.unit is not None

    @cached_property
    def sizes(self) -> np.ndarray:
        """(groups,) rows of each unit."""
        return self.by_unit(np.ones(self.n))

    @property
    def equal_groups(self) -> float:
        """As many units of equal size would weigh as evenly (Kish): `groups` where all are of one size."""
        return float(self.n**2 / (self.sizes**2).sum())

    def by_unit(self, of_rows: np.ndarray) -> np.ndarray:
        """(groups,) sums of what is given per row, (n,)."""
        return of_rows if self.unit is None else np.bincount(self.unit, of_rows, minlength=self.groups)

    def means(self) -> np.ndarray:
        """(seeds, k) over rows."""
        found: np.ndarray = self.sums.sum(axis=0) / self.n
        return found


def sample_of(statistics: np.ndarray, clusters: Keys | None) -> Sample:
    """The rows that every seed has scored, in units by their keys.

    Args:
        statistics: (n, k) or (seeds, n, k). Seeds that are equal in every row are one: they show no spread.
        clusters: one key per row; a row whose key is None is a unit of its own.
    Raises ValueError for a row that is NaN in part, or keys that are not as many as the rows.
    """
    stacked = with_seeds(statistics)
    if clusters is not None and len(clusters) != stacked.shape[1]:
        raise ValueError(f"{len(clusters)} clusters for {stacked.shape[1]} rows; each row has one")
    kept = np.flatnonzero(~unscored(stacked))
    if len(stacked) > 1 and (stacked[:, kept] == stacked[:1, kept]).all():
        stacked = stacked[:1]
    rows = stacked[:, kept].transpose(1, 0, 2)
    if clusters is None:
        return Sample(rows, rows, None, None)
    codes: dict[Hashable, int] = {}
    unit = np.array(
        [
            codes.setdefault(object() if clusters[i] is None else clusters[i], len(codes))
            for i in kept.tolist()
        ],
        dtype=int,
    )
    keys = tuple(codes)
    if len(keys) == len(rows):
        return Sample(rows, rows, None, keys)
    sums = np.zeros((len(keys), *rows.shape[1:]))
    np.add.at(sums, unit, rows)
    return Sample(rows, sums, unit, keys)


def pair_of(a: np.ndarray, b: np.ndarray, clusters: Keys | None) -> Sample:
    """Both sides of the rows that both models have scored, side by side: k is twice that of either.

    A side with one seed stands beside each seed of the other.
    """
    a, b = with_seeds(a), with_seeds(b)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"a has statistics of shape {a.shape}, b of {b.shape}; pairs need the same examples")
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise ValueError(
            f"a has {len(a)} seeds, b has {len(b)}; pairs need the same seeds, or one side only one"
        )
    seeds = max(len(a), len(b))
    both = np.concatenate([np.broadcast_to(side, (seeds, *side.shape[1:])) for side in (a, b)], axis=-1)
    missing = unscored(a) | unscored(b)
    if missing.any():
        both[:, missing] = np.nan
    return sample_of(both, clusters)


def sides(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """(n, seeds, k) of a and of b, from a pair."""
    a, b = np.split(sample.rows, 2, axis=-1)
    return a, b


def difference_of(value: Value) -> Value:
    """`value` of the first half of the columns minus that of the second."""

    def difference(means: np.ndarray) -> np.ndarray:
        a, b = np.split(means, 2, axis=-1)
        return value(a) - value(b)

    return difference


def score(value: Value, means: np.ndarray) -> np.ndarray:
    """The mean over seeds of the scores: (..., seeds, k) -> (...)."""
    if means.shape[-2] == 1:
        return value(means[..., 0, :])
    found: np.ndarray = value(means).mean(axis=-1)
    return found


def pulls(sample: Sample, value: Value) -> np.ndarray:
    """(groups,) how far each unit pulls the score: their squares sum to its variance over examples.

    Source: the delete-one-group jackknife, Efron and Stein (1981), https://doi.org/10.1214/aos/1176345462
    """
    if sample.groups < 2:
        return np.zeros(sample.groups)
    left = sample.n - sample.sizes
    without = score(value, (sample.sums.sum(axis=0) - sample.sums) / left[:, None, None])
    return (without.mean() - without) * math.sqrt((sample.groups - 1) / sample.groups)


def is_share(rows: np.ndarray, value: Value) -> bool:
    """Whether the score is the plain share of ones: k = 1, every statistic 0 or 1, and `value` the mean."""
    if rows.shape[-1] != 1 or not np.isin(rows, (0.0, 1.0)).all():
        return False
    probe = np.array([[0.0], [0.3], [1.0]])
    return bool((np.asarray(value(probe)) == probe[:, 0]).all())


def with_seeds(statistics: np.ndarray) -> np.ndarray:
    """(seeds, n, k) float64, from that or from (n, k)."""
    statistics = np.asarray(statistics, dtype=np.float64)
    if statistics.ndim == 2:
        return statistics[None]
    if statistics.ndim != 3 or len(statistics) == 0:
        raise ValueError(f"statistics has shape {statistics.shape}; expected (n, k) or (seeds, n, k)")
    return statistics


def unscored(statistics: np.ndarray) -> np.ndarray:
    """(n,) True where any seed's row is all NaN. Raises ValueError for a row that is NaN in part.

    Args:
        statistics: (seeds, n, k).
    """
    missing = np.isnan(statistics)
    if (missing.any(axis=-1) != missing.all(axis=-1)).any():
        raise ValueError("a row of statistics is NaN in part; an unscored example is NaN in every column")
    found: np.ndarray = missing.any(axis=-1).any(axis=0)
    return found
