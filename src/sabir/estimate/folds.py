"""What is left out of labelled evidence, one part at a time, and its estimate by a method that has seen none of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sabir.estimate.evidence import Estimate, Evidence, Segment

Estimator = Callable[
    [Evidence, Evidence], Sequence[Estimate]
]  # of a reference and of what is to be estimated

# An estimator that is judged on half of the texts parts these once more to see how far off it is.
OF_INTERVALS, OF_BACKTESTS = 0, 1


@dataclass(frozen=True)
class Fold:
    """A part of the evidence that is left out together.

    Args:
        kind: what is left out, "language" or "domain".
        name: which one.
        held: (n,) bool, its rows.
    """

    kind: str
    name: str
    held: np.ndarray


def folds(evidence: Evidence, by: Sequence[str]) -> Iterator[Fold]:
    """One part after the other; of a kind that has but one part none, since nothing would be left.

    Args:
        by: fields of a segment: "language", "domain".
    """
    for kind in by:
        of_segments = np.array([getattr(segment, kind) for segment in evidence.segments], dtype=object)
        names = sorted(set(of_segments))
        for name in names if len(names) > 1 else ():
            yield Fold(kind, name, (of_segments == name)[evidence.segment])


def apart(rest: Evidence, held: Evidence, *, coin: int) -> Iterator[tuple[Evidence, np.ndarray]]:
    """References that have none of the texts of held, each with the rows of held, (n,) bool, that it is for.

    Texts of the rest that have a key of held (the same text in another language) are left out. Where that would leave
    less than half of it, as in parallel sets, held is parted in two by its keys, and for each half the texts of its
    keys alone are left out.

    Args:
        coin: by which keys are parted, see `halves`.
    """
    known = _of_keys(rest, held.keys)
    if 2 * known.sum() <= len(rest):
        yield rest.take(~known) if known.any() else rest, np.ones(len(held), bool)
        return
    assert held.keys is not None
    half = halves(held.keys, coin=coin)
    for mine in (half, ~half):
        reference = rest.take(~_of_keys(rest, held.keys[mine]))
        if mine.any() and len(reference):
            yield reference, mine


def estimated_apart(
    estimator: Estimator, rest: Evidence, held: Evidence, *, halved: bool = True
) -> list[Estimate]:
    """The estimates of held, in the order of its segments, by an estimator that has seen none of its texts.

    The estimates of halves (see `apart`) are averaged by their texts, ends of intervals too: they are then rather too
    wide, since each half is smaller than the whole.

    Args:
        held: what is labelled in it is what the estimator may see.
        halved: False for an estimator that lives on labels in held: to halve these changes more than texts known from
            another language do, so that the rest then stays whole.
    """
    if not halved and 2 * _of_keys(rest, held.keys).sum() > len(rest):
        return list(estimator(rest, held))
    parts: dict[Segment, list[Estimate]] = {segment: [] for segment in held.segments}
    for reference, mine in apart(rest, held, coin=OF_BACKTESTS):
        for estimate in estimator(reference, held.take(mine)):
            parts[estimate.segment].append(estimate)
    return [_together(found) for found in parts.values() if found]


def halves(keys: np.ndarray, *, coin: int) -> np.ndarray:
    """(n,) bool, half of the keys True, by their names alone: the same key is in the same half of every set.

    Args:
        coin: those parted by one coin are parted anew by another; by the same all would be on one side.
    """
    sides = {key: hashlib.sha256(str(key).encode()).digest()[coin] % 2 == 1 for key in set(keys.tolist())}
    return np.array([sides[key] for key in keys.tolist()], dtype=bool)


def _of_keys(evidence: Evidence, keys: np.ndarray | None) -> np.ndarray:
    """(n,) bool, rows that have one of these keys; a key of None is nobody else's."""
    if evidence.keys is None or keys is None:
        return np.zeros(len(evidence), bool)
    wanted = set(keys.tolist()) - {None}
    return np.array([key in wanted for key in evidence.keys.tolist()], dtype=bool)


def _together(halves: Sequence[Estimate]) -> Estimate:
    """The estimates of a segment's halves as one of the whole; of one that says nothing the other."""
    told = [one for one in halves if one.error is not None] or list(halves)
    if len(told) == 1:
        return replace(told[0], n=sum(one.n for one in halves))
    sizes = [one.n for one in told]

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in told]
        return None if None in values else float(np.average(values, weights=sizes))

    return replace(
        told[0],
        error=mean("error"),
        low=mean("low"),
        high=mean("high"),
        n=sum(one.n for one in halves),
        n_labelled=sum(one.n_labelled for one in halves),
    )
