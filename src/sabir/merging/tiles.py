"""The adapters of a merge as tiles: in the coordinates of its space, rows after rows, never a dense stack."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from sabir.catalog import Entry
from sabir.errors import InputError
from sabir.lora.files import Adapter
from sabir.lora.lowrank import LowRank, stack
from sabir.lora.safetensors_io import is_finite
from sabir.merging.dialects import Dialect
from sabir.merging.kept import Kept
from sabir.merging.spaces import Block, Coordinates, Given
from sabir.merging.stack import Stack
from sabir.merging.whole import Facts

# Per adapter: 1 MB of float32. Of smaller tiles two threads wait for each other, 1.5 times as long.
TILE_VALUES = 1 << 18
LEAST_ROWS = 8  # of a tile: a product with fewer rows reads its right factor too often
HELD_BYTES = 1 << 28  # blocks kept between the walks of one merge: 256 MB, recomputed beyond


class Tiles:
    """The deltas of a merge, module by module and tile by tile, and what the method makes of each tile.

    A unit is one matrix per adapter that is merged entry by entry: a module, or in `factors` space half of one. Safe
    to use from several threads.

    Args:
        adapters: those that take part, in the order in which they are summed.
        shapes: (O, I) of every module that any adapter has.
        weights: by module, by number of the adapter, of those that are present there.
        settings: of the method, by module.
        rank: what is asked for, if a number.
        independent: what an adapter looks like does not depend on the others.
        threads: how many may walk at once.
        kept: facts about single adapters from earlier merges.
    """

    def __init__(
        self,
        adapters: Sequence[Adapter],
        *,
        shapes: Mapping[str, tuple[int, int]],
        weights: Mapping[str, Mapping[int, float]],
        settings: Mapping[str, Mapping[str, Any]],
        method: Entry,
        space: Entry,
        dialect: Dialect,
        rank: int | None,
        independent: bool,
        threads: int,
        kept: Kept | None,
    ):
        self.shapes = shapes
        self.digests = [adapter.digest for adapter in adapters]
        self.independent = independent
        self.threads = threads
        self.none = dialect.none
        self._adapters, self._weights, self._settings = adapters, weights, settings
        self._method, self._space, self._dialect = method, space, dialect
        self._adds_up = method.name in dialect.adds_up
        self._asked = rank
        self._facts = Facts(self, kept)
        self._held: dict[str, Block] = {}
        self._free_bytes = HELD_BYTES
        self._hold = threading.Lock()
        self._stopped = threading.Event()

    def read(self, module: str) -> list[LowRank]:
        """The deltas of the adapters that are present in a module."""
        return [self._lowrank(self._adapters[i], module) for i in self._weights[module]]

    def _scales(self, module: str) -> list[float]:
        adapters = [self._adapters[i] for i in self._weights[module]]
        return [adapter.scale(module) if module in adapter.shapes else 0.0 for adapter in adapters]

    def _lowrank(self, adapter: Adapter, module: str) -> LowRank:
        if module in adapter.shapes:
            return adapter.read(module)
        rows, columns = self.shapes[module]
        return LowRank(torch.zeros(rows, 0), torch.zeros(0, columns))

    def summed(self, module: str, lowranks: Sequence[LowRank]) -> LowRank:
        """A linear method on the factors. It is known by what it makes of unit vectors."""
        unit = self._stack(
            module, torch.eye(len(lowranks), dtype=torch.float64)[:, :, None], self.present(module), 0
        )
        weights = torch.tensor(list(self._weights[module].values()), dtype=torch.float64)
        coefficients = self._method.function(unit, weights, **self._settings[module])
        total = stack(lowranks, coefficients[:, 0].tolist())
        return LowRank(_finite(total.b, module), total.a)

    def coordinates(self, module: str, lowranks: Sequence[LowRank]) -> Coordinates:
        """The module in the space of the merge."""
        scales = self._scales(module)
        coordinates: Coordinates = self._space.function(
            Given(lowranks, scales, self._asked, self._dialect.least_sigma)
        )
        for block in coordinates.blocks:
            self._remember(module + block.name, block)
        return coordinates

    def blocks(self, module: str, coordinates: Coordinates, lowranks: Sequence[LowRank]) -> list[Tensor]:
        """Each block of a module, merged."""
        merged = []
        for block in coordinates.blocks:
            rights = [x.a for x in lowranks] if block.rights is None else block.rights
            whole = torch.empty(block.lefts[0].shape[0], rights[0].shape[1])
            first = 0
            for tile in self._block_tiles(module + block.name, block, rights, self.present(module)):
                rows = self.combine(tile)
                whole[first : first + len(rows)] = rows
                first += len(rows)
            merged.append(_finite(whole, module))
        return merged

    # --- what facts about the whole walk over (see `whole.Walked`) -------------------------------------------

    @property
    def units(self) -> list[str]:
        blocks = self._space.facts["blocks"]
        return [module + block for module in self.shapes if self._weights[module] for block in blocks]

    def present(self, unit: str) -> tuple[int, ...]:
        return tuple(self._weights[self._module_of(unit)])

    def _module_of(self, unit: str) -> str:
        return unit if unit in self.shapes else unit.rpartition(".")[0]

    def entries(self, unit: str) -> int:
        if self.independent:
            rows, columns = self.shapes[unit]
            return rows * columns
        block = self._held.get(unit) or self._block(unit)[0]
        columns = self.shapes[self._module_of(unit)][1] if block.rights is None else block.rights[0].shape[1]
        return int(block.lefts[0].shape[0] * columns)

    def sampled(self, unit: str, adapter: int, count: int) -> np.ndarray:
        block, rights = self._block(unit)
        place = self.present(unit).index(adapter)
        left, right = block.lefts[place], rights[place].double()
        key = hashlib.sha256(f"sabir sample 1\n{unit}".encode()).digest()
        drawn = (
            np.random.Philox(key=int.from_bytes(key[:16], "little")).random_raw(2 * count).astype(np.int64)
            >> 1
        )
        rows = torch.from_numpy(np.abs(drawn[:count]) % left.shape[0])
        columns = torch.from_numpy(np.abs(drawn[count:]) % right.shape[1])
        return (left[rows] * right[:, columns].T).sum(1).abs().float().numpy()

    def tiles(self, unit: str, only: Sequence[int]) -> Iterator[Stack]:
        block, rights = self._block(unit)
        yield from self._block_tiles(unit, block, rights, [i for i in self.present(unit) if i in only])

    def combine(self, tile: Stack) -> Tensor:
        module = self._module_of(tile.module)
        weights = torch.tensor([self._shares(tile.module)[i] for i in tile.present])
        return self._method.function(tile, weights, **self._settings[module])

    def _shares(self, unit: str) -> Mapping[int, float]:
        """What each adapter weighs in a unit."""
        module = self._module_of(unit)
        weights, shares = self._weights[module], self._space.facts["shares"]
        if shares is None:
            return weights
        scales = self._scales(module)
        block = self._space.facts["blocks"].index(unit.removeprefix(module))
        return dict(zip(weights, shares(list(weights.values()), scales)[block], strict=True))

    def _block(self, unit: str) -> tuple[Block, Sequence[Tensor]]:
        """A unit's block once more, and its right factors: kept where there was room, else computed again."""
        module = self._module_of(unit)
        block = self._held.get(unit)
        if block is None or block.rights is None:
            lowranks = self.read(module)
        if block is None:
            blocks = {module + one.name: one for one in self.coordinates(module, lowranks).blocks}
            block = blocks[unit]
        return block, block.rights if block.rights is not None else [x.a for x in lowranks]

    def _remember(self, unit: str, block: Block) -> None:
        with self._hold:
            if unit not in self._held and block.held_bytes <= self._free_bytes:
                self._held[unit] = block
                self._free_bytes -= block.held_bytes

    def _block_tiles(
        self, unit: str, block: Block, rights: Sequence[Tensor], only: Sequence[int]
    ) -> Iterator[Stack]:
        """Rows after rows of these adapters' matrices; all at once where a method takes whole matrices."""
        places = [place for place, i in enumerate(self.present(unit)) if i in only]
        factors = [(block.lefts[place], rights[place].double()) for place in places]
        rows, columns = block.lefts[0].shape[0], rights[0].shape[1]
        height = max(LEAST_ROWS, TILE_VALUES // max(1, columns))
        dtype = torch.float32
        if self._method.facts.get("matrix"):
            height, dtype = max(1, rows), torch.float64
        for first in range(0, max(1, rows), height):  # a module of zeros has one empty tile
            if self._stopped.is_set():
                raise CancelledError
            values = torch.empty(len(factors), min(height, rows - first), columns, dtype=dtype)
            for value, (left, right) in zip(values, factors, strict=True):
                value.copy_(left[first : first + height] @ right)
            if block.floor:
                values = hardshrink(values, block.floor)
            yield self._stack(unit, values, tuple(only), first * columns)

    def _stack(self, unit: str, values: Tensor, present: tuple[int, ...], start: int) -> Stack:
        digests = tuple(self.digests[i] for i in present)
        return Stack(values, present, digests, unit, start, self._dialect, self._adds_up, self._facts)

    def start(self) -> None:
        """Forget what was held, and an earlier stop."""
        with self._hold:
            self._held.clear()
            self._free_bytes = HELD_BYTES
        self._stopped.clear()

    def stop(self) -> None:
        """Whoever walks gives up at the next tile."""
        self._stopped.set()


def _finite(merged: Tensor, module: str) -> Tensor:
    if not is_finite(merged):
        raise InputError(
            "", f"module {module!r} becomes too large for float32.", "Lower the scale or the weights."
        )
    return merged
