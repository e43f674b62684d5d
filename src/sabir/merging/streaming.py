"""The loop of a merge: module by module, tile by tile, never the dense stack of all adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sabir.catalog import Entry
from sabir.lora.files import Adapter
from sabir.lora.lowrank import LowRank, Truncation, energy, stack, truncate
from sabir.merging.ops import CANCELS
from sabir.merging.spaces import Coordinates
from sabir.merging.stack import Stack, Whole

TILE_VALUES = 1 << 21  # per adapter: 8 MB of float32
HELD_BYTES = 1 << 28  # coordinates kept between the walks of one merge: 256 MB, recomputed beyond


class Merged:
    """A merge that is computed as it is iterated: (module, LowRank) pairs, modules sorted.

    The order in which adapters are given, their number of threads and the tiles change no bit: adapters
    are summed in the order of their content.

    Attributes:
        rank: the largest rank of a module, known beforehand.
        shapes: (O, I) by module.
        energy_kept: share of the merged delta's energy (squared Frobenius norm, all modules together) that
            its rank could hold; 1 when nothing was cut, None until the last module came.
        energy_kept_by_adapter: the same for each language's own delta: its energy, counting in modules
            that were cut only the part in the column space (the outputs) the result can still write to.
            None until the last module came. An adapter of weight 0 is absent.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        *,
        method: Entry,
        space: Entry,
        settings: Mapping[str, Any],
        weights: Mapping[str, float],
        rank: int | None = None,
        on_module: Callable[[int, int], None] | None = None,
    ):
        present = [name for name in adapters if weights[name] != 0]
        self.names = sorted(present, key=lambda name: (adapters[name].digest, name))
        self.shapes = dict(next(iter(adapters.values())).shapes)
        self.energy_kept: float | None = None
        self.energy_kept_by_adapter: dict[str, float] | None = None
        self._adapters = [adapters[name] for name in self.names]
        self._weights = [float(weights[name]) for name in self.names]
        self._method, self._space, self._settings = method, space, settings
        self._asked = rank
        self._on_module = on_module
        self._held: dict[str, Coordinates] = {}
        self._free_bytes = HELD_BYTES

    @property
    def rank(self) -> int:
        return max((self._rank_of(module) for module in self.shapes), default=0)

    def __iter__(self) -> Iterator[tuple[str, LowRank]]:
        total, kept = 0.0, 0.0
        own = dict.fromkeys(self.names, 0.0)
        own_kept = dict.fromkeys(self.names, 0.0)
        whole = Whole(self._walk, self._combine)
        for done, module in enumerate(self.shapes, start=1):
            with one_thread():
                lowranks = self._read(module)
                if self._method.facts["linear"]:
                    result = truncate(self._sum(lowranks), self._rank_of(module))
                else:
                    coordinates = self._coordinates(module, lowranks)
                    tiles = [self._combine(tile) for tile in self._tiles(module, coordinates, whole)]
                    result = coordinates.back(torch.cat(tiles), self._rank_of(module))
                energies = [energy(lowrank) for lowrank in lowranks]
                if result.total > CANCELS**2 * sum(energies):  # else it cancelled: there was nothing to keep
                    total, kept = total + result.total, kept + result.kept
                cut = result.share < 1 - 1e-9
                basis = torch.linalg.qr(result.lowrank.b.double()).Q if cut else None
                for name, lowrank, all_of_it in zip(self.names, lowranks, energies, strict=True):
                    own[name] += all_of_it
                    own_kept[name] += all_of_it if basis is None else _energy_in(basis, lowrank)
            yield module, result.lowrank
            if self._on_module:
                self._on_module(done, len(self.shapes))
        self._held.clear()
        self._free_bytes = HELD_BYTES
        self.energy_kept = Truncation(LowRank(torch.empty(0, 0), torch.empty(0, 0)), kept, total).share
        self.energy_kept_by_adapter = {
            name: min(1.0, own_kept[name] / own[name]) if own[name] > 0 else 1.0
            for name in sorted(self.names)
        }

    def _rank_of(self, module: str) -> int:
        """The rank of one module's result: the sum of ranks or what the recipe asks, at most min(O, I)."""
        together = sum(adapter.ranks[module] for adapter in self._adapters)
        return min(together if self._asked is None else self._asked, *self.shapes[module])

    def _read(self, module: str) -> list[LowRank]:
        return [adapter.read(module) for adapter in self._adapters]

    def _combine(self, tile: Stack) -> Tensor:
        return self._method.function(tile, torch.tensor(self._weights), **self._settings)

    def _sum(self, lowranks: Sequence[LowRank]) -> LowRank:
        """A linear method on the factors. It is known by what it makes of unit vectors."""
        n = len(lowranks)
        unit = Stack(
            torch.eye(n, dtype=torch.float64)[:, :, None], (), "", 0, Whole(self._walk, self._combine)
        )
        weights = torch.tensor(self._weights, dtype=torch.float64)
        coefficients = self._method.function(unit, weights, **self._settings)
        return stack(lowranks, coefficients[:, 0].tolist())

    def _coordinates(self, module: str, lowranks: Sequence[LowRank] | None = None) -> Coordinates:
        """One module in the space of the recipe; kept for the next walk while there is room."""
        if module not in self._held:
            coordinates = self._space.function(self._read(module) if lowranks is None else lowranks)
            if coordinates.held_bytes > self._free_bytes:
                return coordinates
            self._held[module] = coordinates
            self._free_bytes -= coordinates.held_bytes
        return self._held[module]

    def _walk(self) -> Iterator[Stack]:
        """All tiles of all modules once more, for a fact about the whole."""
        whole = Whole(self._walk, self._combine)
        for module in self.shapes:
            with one_thread():
                coordinates = self._coordinates(module)
            yield from self._tiles(module, coordinates, whole)

    def _tiles(self, module: str, coordinates: Coordinates, whole: Whole) -> Iterator[Stack]:
        digests = tuple(adapter.digest for adapter in self._adapters)
        height = max(1, TILE_VALUES // max(1, coordinates.columns))
        for first in range(0, max(1, coordinates.rows), height):  # a module of zeros has one empty tile
            values = coordinates.tile(first, min(first + height, coordinates.rows))
            yield Stack(values, digests, module, first * coordinates.columns, whole)


def _energy_in(basis: Tensor, x: LowRank) -> float:
    """The energy of a delta inside the span of orthonormal columns (O, q), from the factors."""
    b, a = basis.T @ x.b.double(), x.a.double()
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum()))


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread, so that the number of threads changes no bit.

    It is faster too: a 320 x 320 SVD took 0.02 s on one thread and 4.7 s on two under load (merging.md).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
