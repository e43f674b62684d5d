"""Facts about whole modules and whole adapters, each found by one more walk over the tiles when first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from sabir.merging.kept import Kept
from sabir.merging.order import Found, Sifted, largest, sample_size, sift
from sabir.merging.stack import VALUES, Stack, Values

if TYPE_CHECKING:
    from sabir.merging.dialects import TrimOver

T = TypeVar("T")
Streams = Mapping[int, np.ndarray]  # one tile's values by stream: an adapter's number, or 0 for all together


class Extent(NamedTuple):
    """How many values each unit has, which units each stream runs through, and its values in all of them."""

    sizes: dict[str, int]
    holds: dict[int, list[str]]
    totals: dict[int, int]


class Walked(Protocol):
    """A merge as facts see it: its matrices ("units"), most often one per module, and their tiles."""

    threads: int
    none: float  # the majority sign where there is none
    independent: bool  # what an adapter looks like here does not depend on the others

    @property
    def units(self) -> Sequence[str]: ...

    @property
    def digests(self) -> Sequence[str]:
        """Of all adapters of the merge."""

    def present(self, unit: str) -> Sequence[int]:
        """Numbers of the adapters that have this unit."""

    def entries(self, unit: str) -> int:
        """How many values one adapter has there."""

    def sampled(self, unit: str, adapter: int, count: int) -> np.ndarray:
        """About so many magnitudes of an adapter, evenly drawn from the unit."""

    def tiles(self, unit: str, only: Sequence[int]) -> Iterator[Stack]:
        """The unit's tiles with these adapters, of those that have it."""

    def combine(self, tile: Stack) -> Tensor:
        """What the method makes of a tile."""


class Facts:
    """The whole behind the tiles of one merge (see `stack.Whole`). Safe to ask from several threads."""

    counts_signs = False

    def __init__(self, walked: Walked, kept: Kept | None = None):
        self._walked = walked
        self._kept = kept if walked.independent else None
        self._found: dict[tuple[object, ...], dict[int, Found]] = {}
        self._totals: dict[tuple[object, ...], Tensor] = {}
        self._last: dict[tuple[object, ...], Tensor] = {}
        self._extents: dict[tuple[object, ...], Extent] = {}
        self._majority: float | None = None
        # Facts about all modules are found once, by the first thread that asks; walkers never ask for both.
        self._of_adapters, self._of_merge = threading.Lock(), threading.Lock()

    def largest(
        self,
        tile: Stack,
        key: tuple[object, ...],
        of: Values | None,
        over: TrimOver,
        wanted: Callable[[int], int],
        *,
        together: bool = False,
    ) -> list[Found]:
        walked = self._walked
        if over == "module":
            everyone: Sequence[int] = (0,) if together else tile.present
            found = self._largest([tile.module], everyone, key, of, wanted, together)
        else:
            with self._of_adapters:
                everyone = range(len(walked.digests))
                found = self._largest(walked.units, everyone, key, of, wanted, together)
        return [found[stream] for stream in ((0,) if together else tile.present)]

    def _largest(
        self,
        units: Sequence[str],
        streams: Sequence[int],
        key: tuple[object, ...],
        of: Values | None,
        wanted: Callable[[int], int],
        together: bool,
    ) -> dict[int, Found]:
        walked = self._walked
        sizes, holds, totals = self._extent(tuple(units), tuple(streams), together)
        asked = {stream: wanted(totals[stream]) for stream in streams}
        place = (units[0] if len(units) == 1 else "*", key, tuple(asked.items()))
        if place in self._found:
            return self._found[place]
        names = {stream: self._name(holds[stream], asked[stream], totals[stream]) for stream in streams}
        found = self._known(names) if key == VALUES else {}
        missing = [stream for stream in streams if stream not in found]
        if missing:

            def streams_of(tile: Stack) -> Streams:
                values = (tile.values if of is None else of(tile)).numpy()
                return {0: values[0]} if together else dict(zip(tile.present, values, strict=True))

            only = range(len(walked.digests)) if together else missing
            most = max(totals[stream] for stream in missing)
            every = most // max(1, sample_size(most)) | 1  # odd: else it would meet the same few columns
            if not any(sample_size(totals[stream]) for stream in missing):
                samples = {stream: np.zeros(0, np.float32) for stream in missing}
            elif key == VALUES:
                samples = {
                    stream: np.concatenate(
                        [walked.sampled(unit, stream, sizes[unit] // every + 1) for unit in holds[stream]]
                    )
                    for stream in missing
                }
            else:
                samples = self._every(units, only, streams_of, missing, every)
            new = largest(
                lambda limits: self._sifted(units, only, streams_of, dict(zip(missing, limits, strict=True))),
                wanted=[asked[stream] for stream in missing],
                totals=[totals[stream] for stream in missing],
                samples=[samples[stream] for stream in missing],
            )
            found |= dict(zip(missing, new, strict=True))
            if key == VALUES and self._kept:
                for stream in missing:
                    self._kept.put(walked.digests[stream], {names[stream]: found[stream]})
        self._found[place] = found
        return found

    def _extent(self, units: tuple[str, ...], streams: tuple[int, ...], together: bool) -> Extent:
        """How far a walk goes; added up once, as it is asked for tile by tile."""
        place = (units[0] if len(units) == 1 else "*", streams)
        if place not in self._extents:
            sizes = dict(zip(units, self._map(self._walked.entries, units), strict=True))
            holds = {
                stream: [unit for unit in units if together or stream in self._walked.present(unit)]
                for stream in streams
            }
            totals = {stream: sum(sizes[unit] for unit in holds[stream]) for stream in streams}
            self._extents[place] = Extent(sizes, holds, totals)
        return self._extents[place]

    def _name(self, units: Sequence[str], wanted: int, total: int) -> str:
        """What a kept fact is called: it names all it depends on beside the adapter's content."""
        return f"{wanted} of {total} in {units[0] if len(units) == 1 else len(units)}"

    def _known(self, names: Mapping[int, str]) -> dict[int, Found]:
        if self._kept is None:
            return {}
        known = {stream: self._kept.get(self._walked.digests[stream], name) for stream, name in names.items()}
        return {stream: one for stream, one in known.items() if one is not None}

    def _sifted(
        self,
        units: Sequence[str],
        only: Sequence[int],
        streams_of: Callable[[Stack], Streams],
        limits: Mapping[int, object],
    ) -> Iterator[list[tuple[int, Sifted]]]:
        places = {stream: place for place, stream in enumerate(limits)}

        def sift_unit(unit: str) -> list[tuple[int, Sifted]]:
            return [
                (places[stream], sift(values, limits[stream]))  # type: ignore[arg-type]
                for tile in self._walked.tiles(unit, only)
                for stream, values in streams_of(tile).items()
            ]

        yield from self._map(sift_unit, units)

    def _every(
        self,
        units: Sequence[str],
        only: Sequence[int],
        streams_of: Callable[[Stack], Streams],
        wanted: Sequence[int],
        step: int,
    ) -> dict[int, np.ndarray]:
        """Magnitudes of every step-th value: a sample of values that are no product of factors."""

        def of_unit(unit: str) -> list[tuple[int, np.ndarray]]:
            return [
                (stream, np.abs(values.ravel()[::step]))
                for tile in self._walked.tiles(unit, only)
                for stream, values in streams_of(tile).items()
            ]

        drawn: dict[int, list[np.ndarray]] = {stream: [] for stream in wanted}
        for unit in self._map(of_unit, units):
            for stream, values in unit:
                drawn[stream].append(values)
        return {stream: np.concatenate(values) for stream, values in drawn.items()}

    def last_kept(
        self, tile: Stack, of: Values | None, found: Sequence[Found], rooms: Sequence[int]
    ) -> Tensor:
        place = (tile.module, tuple(found), tuple(rooms))
        if place not in self._last:
            self._last[place] = self._last_kept(tile, of, found, rooms)
        return self._last[place]

    def _last_kept(
        self, tile: Stack, of: Values | None, found: Sequence[Found], rooms: Sequence[int]
    ) -> Tensor:
        last = torch.full((len(found),), self._walked.entries(tile.module), dtype=torch.int64)
        left = {i: room for i, (room, one) in enumerate(zip(rooms, found, strict=True)) if room < one.equal}
        for one in self._walked.tiles(tile.module, tile.present):
            values = (one.values if of is None else of(one)).numpy()
            for i, room in list(left.items()):
                places = np.flatnonzero(np.abs(values[i]) == np.float32(found[i].size))
                if room <= len(places):
                    last[i] = one.start + (int(places[room - 1]) if room else -1)
                    del left[i]
                else:
                    left[i] -= len(places)
            if not left:
                break
        return last

    def entries(self, tile: Stack) -> int:
        return self._walked.entries(tile.module)

    def total(self, tile: Stack, key: tuple[object, ...], of: Values) -> Tensor:
        place = (tile.module, key)
        if place not in self._totals:
            parts = [of(one).double() for one in self._walked.tiles(tile.module, tile.present)]
            self._totals[place] = torch.stack(parts).sum(0)
        return self._totals[place]

    def settle(self, signs: Tensor, contested: Tensor) -> Tensor:
        """Nearly always nothing is contested, and there is no walk."""
        if not contested.any():
            return signs
        with self._of_merge:
            if self._majority is None:
                self._majority = self._sum_of_signs()
        return signs.where(~contested, self._majority)

    def _sum_of_signs(self) -> float:
        everyone = range(len(self._walked.digests))

        def of_unit(unit: str) -> int:
            count = _SignCount(self)
            for tile in self._walked.tiles(unit, everyone):
                self._walked.combine(replace(tile, whole=count))
            return count.sum

        total = sum(self._map(of_unit, self._walked.units))
        return float((total > 0) - (total < 0)) or self._walked.none

    def _map(self, function: Callable[[str], T], units: Sequence[str]) -> Iterator[T]:
        """The function of each unit, in their order, on as many threads as the merge has."""
        if len(units) == 1 or self._walked.threads == 1:
            yield from map(function, units)
            return
        with ThreadPoolExecutor(self._walked.threads) as pool:
            yield from pool.map(function, units)


class _SignCount:
    """Stands in for the whole while the method runs only to have its elected signs added up."""

    counts_signs = True

    def __init__(self, whole: Facts):
        self._of = whole
        self.sum = 0
        self.largest, self.total, self.last_kept = whole.largest, whole.total, whole.last_kept
        self.entries = whole.entries

    def settle(self, signs: Tensor, contested: Tensor) -> Tensor:
        self.sum += int(signs.sum(dtype=torch.float64))
        return signs
