"""What a backtest comes to, a row for each estimator and kind of members: how far off, how sure, of what use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sabir.estimate.judged import Judged
from sabir.stats import bootstrap, paired_difference

CONSTANT, RAW, SILVER = "constant", "disagreement", "silver"
FEWEST_RANKED = 4  # segments; of three one order in six is the right one by chance
_SEED = 6

Name = tuple[str, str | None]  # an estimator and its members


@dataclass(frozen=True)
class Bounds:
    """A number with its interval over segments; None where there are too few."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """One estimator over all segments that were left out in one way.

    Args:
        fold, labels, metric: as in `Judged`.
        n: segments that it was asked of; told: those that it said something of.
        mae: mean of |estimated - true|.
        noise_floor: the mae of one who knew the error of ever more such texts, since the true errors are measured on
            few rows; only an estimate that looks at these very texts can be nearer.
        coverage: share of intervals that hold the truth; intervals: how many there are.
        spearman: correlation of the ranks of estimated and true error; None of fewer than four segments, where all
            are alike, and for an estimator that says the same whatever the texts. Of several replicates their mean.
        regret: true error of the worst language less that of the one estimated to be worst.
        better_than_silver: (mae of silver labels - mae) / mae of silver labels, on the segments of both.
        to_constant, to_raw, to_silver: mae less theirs, on the segments of both; below 0: nearer.
        near_chance: whether the model is near chance on half of the segments or more: then all this says nothing.
    """

    estimator: str
    members: str | None
    fold: str
    labels: int
    metric: str
    n: int
    told: int
    mae: Bounds | None
    noise_floor: float
    coverage: float | None
    intervals: int
    spearman: float | None
    regret: float | None
    better_than_silver: Bounds | None
    to_constant: Bounds | None
    to_raw: Bounds | None
    to_silver: Bounds | None
    near_chance: bool

    @property
    def name(self) -> Name:
        return self.estimator, self.members


def summarised(
    rows: Sequence[Judged], *, level: float, clusters: Sequence[str] = ("part", "language")
) -> tuple[Summary, ...]:
    """A summary for each estimator, members, way of leaving out and number of labels, in the order of the rows.

    Args:
        level: of the intervals, which hold other segments.
        clusters: what segments must share to count as one there: "part", "language", "domain".
    """
    groups: dict[tuple[str, str, str | None, int, str], list[Judged]] = {}
    for row in rows:
        groups.setdefault((row.fold, row.estimator, row.members, row.labels, row.metric), []).append(row)
    found = []
    for (fold, estimator, members, labels, metric), mine in groups.items():
        others = [group for key, group in groups.items() if (key[0], key[4]) == (fold, metric)]
        covered = [row.covered for row in mine if row.covered is not None]
        silver = _rival(others, SILVER, members)

        def to(name: str, own: list[Judged] = mine, others: list[list[Judged]] = others) -> Bounds | None:
            rival = _rival(others, name, own[0].members)
            if rival is None or rival is own:
                return None
            return difference(own, rival, level=level, clusters=clusters)

        found.append(
            Summary(
                estimator,
                members,
                fold,
                labels,
                metric,
                n=len(mine),
                told=sum(row.off is not None for row in mine),
                mae=_mae(mine, level, clusters),
                noise_floor=float(np.mean([row.sampling for row in mine])),
                coverage=float(np.mean(covered)) if covered else None,
                intervals=len(covered),
                spearman=_mean_over_replicates(mine, _spearman),
                regret=_mean_over_replicates(mine, _regret),
                better_than_silver=None
                if silver is None or silver is mine
                else _better(mine, silver, level, clusters),
                to_constant=to(CONSTANT),
                to_raw=to(RAW),
                to_silver=to(SILVER),
                near_chance=2 * sum(row.near_chance for row in mine) >= len(mine),
            )
        )
    return tuple(found)


def difference(
    mine: Sequence[Judged], others: Sequence[Judged], *, level: float, clusters: Sequence[str]
) -> Bounds | None:
    """How much farther off mine are than others, on the segments of both; None where there is none."""
    a, b, keys = _both(mine, others, clusters)
    if not len(a):
        return None
    found = paired_difference(a[:, None], b[:, None], _mean, seed=_SEED, level=level, clusters=keys)
    assert found.difference is not None
    return Bounds(found.difference, found.low, found.high)


def _mae(rows: Sequence[Judged], level: float, clusters: Sequence[str]) -> Bounds | None:
    told = [row for row in rows if row.off is not None]
    if not told:
        return None
    off = np.array([[row.off] for row in told], dtype=float)
    keys = [_cluster(row, clusters) for row in told]
    found = bootstrap(off, _mean, seed=_SEED, level=level, clusters=keys)
    assert found.value is not None
    low = None if found.low is None else max(0.0, found.low)
    return Bounds(found.value, low, found.high)


def _better(
    mine: Sequence[Judged], silver: Sequence[Judged], level: float, clusters: Sequence[str]
) -> Bounds | None:
    own, theirs, keys = _both(mine, silver, clusters)
    if not len(own) or not theirs.any():
        return None

    def share(means: np.ndarray) -> np.ndarray:
        own, theirs = means[..., 0], means[..., 1]
        return np.divide(theirs - own, theirs, out=np.full(theirs.shape, -np.inf), where=theirs > 0)

    found = bootstrap(np.stack([own, theirs], 1), share, seed=_SEED, level=level, clusters=keys)
    assert found.value is not None
    return Bounds(found.value, _finite(found.low), _finite(found.high))


def _both(
    mine: Sequence[Judged], others: Sequence[Judged], clusters: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, ...]]]:
    """How far off both are on the segments of which both say something, and the cluster of each."""
    theirs = {_place(row): row.off for row in others if row.off is not None}
    pairs = [(row, theirs[_place(row)]) for row in mine if row.off is not None and _place(row) in theirs]
    own = np.array([row.off for row, _ in pairs], dtype=float)
    return (
        own,
        np.array([off for _, off in pairs], dtype=float),
        [_cluster(row, clusters) for row, _ in pairs],
    )


def _rival(groups: Iterable[list[Judged]], name: str, members: str | None) -> list[Judged] | None:
    """The rows of an estimator: over the same members, over none, or over those where it is nearest."""
    found = [rows for rows in groups if rows[0].estimator == name]
    same = [rows for rows in found if rows[0].members in (None, members)]

    def far(rows: list[Judged]) -> float:
        off = [row.off for row in rows if row.off is not None]
        return float(np.mean(off)) if off else math.inf

    return min(same or found, key=far, default=None)


def _mean_over_replicates(
    rows: Sequence[Judged], of_one: Callable[[list[Judged]], float | None]
) -> float | None:
    """The mean of what is said of each part's replicates by themselves; None where nothing is said of any."""
    groups: dict[tuple[str, int], list[Judged]] = {}
    for row in rows:
        if row.estimated is not None:
            groups.setdefault((row.part, row.replicate), []).append(row)
    values = [value for group in groups.values() if (value := of_one(group)) is not None]
    return float(np.mean(values)) if values else None


def _spearman(rows: list[Judged]) -> float | None:
    # What does not look at the texts would rank backwards here: the worst language is left out of its own mean.
    if len(rows) < FEWEST_RANKED or not rows[0].informed:
        return None
    estimated, true = np.array([(row.estimated, row.true) for row in rows], dtype=float).T
    if np.ptp(estimated) == 0 or np.ptp(true) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(estimated, true).statistic)


def _regret(rows: list[Judged]) -> float | None:
    """Of languages estimated alike one is chosen by chance; so it is where the texts are not looked at."""
    languages = sorted({row.segment.language for row in rows})
    if len(languages) < 2:
        return None

    def of(language: str, name: str) -> float:
        mine = [row for row in rows if row.segment.language == language]
        return float(np.average([getattr(row, name) for row in mine], weights=[row.n for row in mine]))

    true = np.array([of(language, "true") for language in languages])
    estimated = np.array([of(language, "estimated") if rows[0].informed else 0.0 for language in languages])
    return float(true.max() - true[estimated == estimated.max()].mean())


def _place(row: Judged) -> tuple[object, ...]:
    return row.part, row.replicate, row.segment


def _cluster(row: Judged, clusters: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.part if name == "part" else getattr(row.segment, name) for name in clusters)


def _mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
