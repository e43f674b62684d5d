"""The k-th largest magnitude among values that never lie in memory together, exactly.

A sample says between which two magnitudes it must lie; one walk counts what lies above and keeps what lies
between; the answer is among those. Should the sample have erred, the bounds are widened and the walk repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy import ndarray

SIGMAS = 6.0  # half the width of the first bounds, in standard errors of the sample's rank
SAMPLE = 1 << 16  # values that bound the answer within some 2 % of all
SAMPLE_SHARE = 1 << 12  # of very many values, one in so many is sampled: fewer lie between the bounds
TAKE_ALL = 1 << 20  # up to so many values no bounds are needed


class Found(NamedTuple):
    """One answer: the magnitude, how many are larger, and how many are equal to it."""

    size: float
    larger: int
    equal: int


class Bounds(NamedTuple):
    low: float
    high: float


class Sifted(NamedTuple):
    """One tile's share: entries above the bounds, equal to the lower bound, and the magnitudes between."""

    above: int
    lowest: int
    between: ndarray


def share_count(density: float, total: int) -> int:
    """How many of `total` entries a density is: floor(density * total), of the decimal as written.

    0.29 of 100 is 29, where floats would say 28.
    """
    return int(Fraction(repr(float(density))) * total)


def sample_size(total: int) -> int:
    """How many of `total` values to sample, 0 where all can be taken."""
    return 0 if total <= TAKE_ALL else max(SAMPLE, total // SAMPLE_SHARE)


def sift(values: ndarray, bounds: Bounds) -> Sifted:
    """Count and collect one array's magnitudes."""
    import numpy as np

    sizes = np.abs(values)
    above = sizes > bounds.high
    inside = (sizes > bounds.low) ^ above
    lowest = int(np.count_nonzero(sizes == bounds.low))
    return Sifted(int(np.count_nonzero(above)), lowest, sizes[inside])


def bounds(sample: ndarray, wanted: int, total: int, sigmas: float = SIGMAS) -> Bounds:
    """Between which magnitudes the wanted-th largest lies, as far as a sample can tell.

    Args:
        sample: magnitudes of values drawn evenly; none: the bounds are 0 and infinity.
        wanted: 1 for the largest.
        sigmas: half the width, in standard errors.
    """
    import numpy as np

    if not len(sample):
        return Bounds(0.0, float("inf"))
    share = wanted / total
    place = share * len(sample)
    slack = sigmas * (len(sample) * share * (1 - share)) ** 0.5 + sigmas
    ordered = np.sort(sample)[::-1]
    first, last = int(place - slack), int(place + slack) + 1
    high = float(ordered[first]) if first >= 0 else float("inf")
    low = float(ordered[last]) if last < len(ordered) else 0.0
    return Bounds(low, high)


def largest(
    walk: Callable[[Sequence[Bounds]], Iterable[Sequence[tuple[int, Sifted]]]],
    *,
    wanted: Sequence[int],
    totals: Sequence[int],
    samples: Sequence[ndarray],
) -> list[Found]:
    """The wanted-th largest magnitude of each of n streams.

    Args:
        walk: sifts every tile by the bounds of each stream and gives (stream, share) pairs, tile by tile; it may
            be called again.
        wanted: of each stream, 1 for its largest; 0 gives infinity, more than its total the smallest.
        totals: how many values each stream has.
        samples: magnitudes drawn evenly from each stream.
    """
    sigmas = SIGMAS
    asked = [min(want, total) for want, total in zip(wanted, totals, strict=True)]
    limits = [bounds(*given, sigmas) for given in zip(samples, asked, totals, strict=True)]
    while True:
        shares: list[list[Sifted]] = [[] for _ in totals]
        for tile in walk(limits):
            for stream, share in tile:
                shares[stream].append(share)
        found = list(map(_pick, shares, limits, asked))
        if all(one is not None for one in found):
            return [one for one in found if one is not None]
        sigmas *= 4
        limits = [
            limit if one is not None else bounds(sample, want, total, sigmas)
            for one, limit, sample, want, total in zip(found, limits, samples, asked, totals, strict=True)
        ]


def _pick(shares: Sequence[Sifted], limit: Bounds, wanted: int) -> Found | None:
    """The wanted-th largest of one stream; None when it does not lie between the bounds."""
    import numpy as np

    if wanted < 1:
        return Found(float("inf"), 0, 0)
    above = sum(share.above for share in shares)
    lowest = sum(share.lowest for share in shares)
    between = np.concatenate([share.between for share in shares]) if shares else np.zeros(0, np.float32)
    place = wanted - above
    if place < 1 or place > len(between) + lowest:
        return None
    if place > len(between):
        return Found(limit.low, above + len(between), lowest)
    size = np.partition(between, len(between) - place)[len(between) - place]
    return Found(float(size), above + int((between > size).sum()), int((between == size).sum()))


def one_stream(tiles: Iterable[ndarray], limits: Sequence[Bounds]) -> Iterator[list[tuple[int, Sifted]]]:
    """A `walk` over the tiles of a single stream."""
    for tile in tiles:
        yield [(0, sift(tile, limits[0]))]
