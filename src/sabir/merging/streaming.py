"""The loop of a merge: module by module, tile by tile, never the dense stack of all adapters."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from sabir.catalog import Entry
from sabir.lora.files import Adapter
from sabir.lora.lowrank import LowRank, Truncation, energy, stack, truncate
from sabir.merging import by_module
from sabir.merging.dialects import Dialect
from sabir.merging.kept import Kept
from sabir.merging.ops import CANCELS
from sabir.merging.spaces import Block, Coordinates, Given
from sabir.merging.stack import Stack
from sabir.merging.whole import Facts

# Per adapter: 1 MB of float32. Of smaller tiles two threads wait for each other, 1.5 times as long.
TILE_VALUES = 1 << 18
LEAST_ROWS = 8  # of a tile: a product with fewer rows reads its right factor too often
HELD_BYTES = 1 << 28  # blocks kept between the walks of one merge: 256 MB, recomputed beyond

T = TypeVar("T")


class _Module(NamedTuple):
    """What merging one module gives beside its delta: energies after and before the cut."""

    kept: float
    total: float
    own_kept: Sequence[float]
    own: Sequence[float]


NOTHING_CUT = _Module(0.0, 0.0, (), ())


class Merged:
    """A merge that is computed as it is iterated: (module, LowRank) pairs, modules sorted.

    The order in which adapters are given, the number of threads and the tiles change no bit: adapters are summed
    in the order of their content. Modules are merged side by side, each with one thread of linear algebra.

    Attributes:
        rank: the largest rank of a module, known beforehand.
        shapes: (O, I) of each module that any adapter has.
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
        dialect: Dialect,
        settings: Mapping[str, Any],
        weights: Mapping[str, Any],
        rank: int | None = None,
        cap: int | None = None,
        on_module: Callable[[int, int], None] | None = None,
        threads: int | None = None,
        kept: Kept | None = None,
    ):
        present = [
            name for name in adapters if any(value != 0 for _, value in by_module.leaves(weights[name]))
        ]
        self.names = sorted(present, key=lambda name: (adapters[name].digest, name))
        self.energy_kept: float | None = None
        self.energy_kept_by_adapter: dict[str, float] | None = None
        self.threads = threads or torch.get_num_threads()
        everywhere = sorted({module for adapter in adapters.values() for module in adapter.modules})
        self.shapes = {
            module: next(a.shapes[module] for a in adapters.values() if module in a.shapes)
            for module in everywhere
        }
        self._adapters = [adapters[name] for name in self.names]
        self.digests = [adapter.digest for adapter in self._adapters]
        layers = by_module.layer_count(module for adapter in self._adapters for module in adapter.modules)
        self._weights = {
            module: {
                i: weight
                for i, (name, adapter) in enumerate(zip(self.names, self._adapters, strict=True))
                if (module in adapter.shapes or method.facts.get("compares"))
                and (weight := by_module.at(weights[name], module, layers, f"weights.{name}")) != 0
            }
            for module in everywhere
        }
        self._settings = {
            module: {
                key: by_module.at(value, module, layers, f"settings.{key}") for key, value in settings.items()
            }
            for module in everywhere
        }
        self._method, self._space, self._dialect = method, space, dialect
        self._adds_up = method.name in dialect.adds_up
        # then all modules of an adapter take part, and what it looks like does not depend on the others
        self.independent = space.name == "delta" and not any(isinstance(w, Mapping) for w in weights.values())
        self._asked, self._cap = rank, cap
        self._on_module = on_module
        self._kept = kept
        self._held: dict[str, Block] = {}
        self._free_bytes = HELD_BYTES
        self._hold = threading.Lock()
        self._facts = Facts(self, kept)

    @property
    def rank(self) -> int:
        return max((self._rank_of(module) for module in self.shapes), default=0)

    @property
    def uncut_rank(self) -> int:
        """The rank that holds all of the merge, where it has one below the module's own sides."""
        return max((self._sum_of_ranks(module) for module in self.shapes), default=0)

    def __iter__(self) -> Iterator[tuple[str, LowRank]]:
        """Each module's delta at the rank asked for; the energies are known after the last."""
        modules = []
        for module, (lowrank, energies) in self._each(self._merge):
            modules.append(energies)
            yield module, lowrank
        kept, total = sum(one.kept for one in modules), sum(one.total for one in modules)
        own, own_kept = (
            [sum(one[i] for one in side if one) for i in range(len(self.names))]
            for side in ([one.own for one in modules], [one.own_kept for one in modules])
        )
        self.energy_kept = min(1.0, kept / total) if total > 0 else 1.0
        self.energy_kept_by_adapter = {
            name: min(1.0, own_kept[i] / own[i]) if own[i] > 0 else 1.0
            for i, name in sorted(enumerate(self.names), key=lambda pair: pair[1])
        }

    def dense(self) -> Iterator[tuple[str, Tensor]]:
        """Each module's whole delta, (O, I) float32, for folding into the base: nothing is cut."""
        yield from self._each(self._dense)
        self.energy_kept, self.energy_kept_by_adapter = 1.0, dict.fromkeys(sorted(self.names), 1.0)

    def _each(self, function: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        """The function of each module, in order, computed on several threads a little ahead."""
        with _one_thread(), ThreadPoolExecutor(self.threads) as pool:
            waiting: deque[tuple[str, Future[T]]] = deque()
            todo = iter(self.shapes)
            try:
                for done in range(1, len(self.shapes) + 1):
                    while len(waiting) < self.threads + 1 and (module := next(todo, None)) is not None:
                        waiting.append((module, pool.submit(function, module)))
                    module, future = waiting.popleft()
                    yield module, future.result()
                    if self._on_module:
                        self._on_module(done, len(self.shapes))
            finally:
                for _, future in waiting:
                    future.cancel()
        self._held.clear()
        self._free_bytes = HELD_BYTES

    def _merge(self, module: str) -> tuple[LowRank, _Module]:
        lowranks = self._read(module)
        if not lowranks:
            rows, columns = self.shapes[module]
            return LowRank(torch.zeros(rows, 0), torch.zeros(0, columns)), NOTHING_CUT
        rank = None
        if not self._is_exact or sum(x.rank for x in lowranks) > min(self.shapes[module]):
            rank = self._rank_of(module)
        if self._is_sum:
            result = truncate(self._sum(module, lowranks), rank)
        else:
            coordinates = self._coordinates(module, lowranks)
            result = coordinates.back(self._blocks(module, coordinates, lowranks), rank)
        if self._is_exact:
            return result.lowrank, NOTHING_CUT
        return result.lowrank, self._energies(module, lowranks, result)

    def _dense(self, module: str) -> Tensor:
        rows, columns = self.shapes[module]
        lowranks = self._read(module)
        if not lowranks:
            return torch.zeros(rows, columns)
        if self._is_sum:
            return self._sum(module, lowranks).delta()
        coordinates = self._coordinates(module, lowranks)
        merged = self._blocks(module, coordinates, lowranks)
        if not self._space.facts["keeps_rank"]:
            return merged[0]
        return coordinates.back(merged, None).lowrank.delta()

    def _energies(self, module: str, lowranks: Sequence[LowRank], result: Truncation) -> _Module:
        own, own_kept = [0.0] * len(self.names), [0.0] * len(self.names)
        cut = result.share < 1 - 1e-9 or not self._space.facts["lossless"]
        basis = torch.linalg.qr(result.lowrank.b.double()).Q if cut else None
        for i, lowrank in zip(self.present(module), lowranks, strict=True):
            own[i] = energy(lowrank)
            own_kept[i] = own[i] if basis is None else _energy_in(basis, lowrank)
        cancelled = result.total <= CANCELS**2 * sum(own)  # then there was nothing to keep
        return _Module(*((0.0, 0.0) if cancelled else (result.kept, result.total)), own_kept, own)

    def _rank_of(self, module: str) -> int:
        """The rank of one module's result: what the recipe asks or the space gives, at most min(O, I)."""
        ranks = [self._adapters[i].ranks.get(module, 0) for i in self._weights[module]]
        default = sum(ranks) if self._space.facts["rank"] == "sum" else max(ranks, default=0)
        limits = [*self.shapes[module], *([] if self._cap is None else [self._cap])]
        if self._is_sum or self._space.facts["keeps_rank"]:
            limits.append(sum(ranks))
        return min(default if self._asked is None else self._asked, *limits)

    @property
    def _is_sum(self) -> bool:
        """A linear method where deltas lie whole: the factors side by side are its exact result."""
        return bool(self._method.facts.get("linear")) and self._space.facts["lossless"]

    def _sum_of_ranks(self, module: str) -> int:
        ranks = [self._adapters[i].ranks.get(module, 0) for i in self._weights[module]]
        return min(sum(ranks), *self.shapes[module])

    @property
    def _is_exact(self) -> bool:
        """The result holds all of the merge: no rank is asked for, and none is exceeded."""
        whole = self._is_sum or (self._space.facts["keeps_rank"] and self._space.facts["lossless"])
        return whole and self._asked is None and self._cap is None

    def _read(self, module: str) -> list[LowRank]:
        return [self._lowrank(self._adapters[i], module) for i in self._weights[module]]

    def _scales(self, module: str) -> list[float]:
        adapters = [self._adapters[i] for i in self._weights[module]]
        return [adapter.scale(module) if module in adapter.shapes else 0.0 for adapter in adapters]

    def _lowrank(self, adapter: Adapter, module: str) -> LowRank:
        if module in adapter.shapes:
            return adapter.read(module)
        rows, columns = self.shapes[module]
        return LowRank(torch.zeros(rows, 0), torch.zeros(0, columns))

    def _sum(self, module: str, lowranks: Sequence[LowRank]) -> LowRank:
        """A linear method on the factors. It is known by what it makes of unit vectors."""
        unit = self._stack(
            module, torch.eye(len(lowranks), dtype=torch.float64)[:, :, None], self.present(module), 0
        )
        weights = torch.tensor(list(self._weights[module].values()), dtype=torch.float64)
        coefficients = self._method.function(unit, weights, **self._settings[module])
        return stack(lowranks, coefficients[:, 0].tolist())

    def _coordinates(self, module: str, lowranks: Sequence[LowRank]) -> Coordinates:
        scales = self._scales(module)
        coordinates: Coordinates = self._space.function(Given(lowranks, scales, self._asked))
        for block in coordinates.blocks:
            self._remember(module + block.name, block)
        return coordinates

    def _blocks(self, module: str, coordinates: Coordinates, lowranks: Sequence[LowRank]) -> list[Tensor]:
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
            merged.append(whole)
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
            lowranks = self._read(module)
        if block is None:
            blocks = {module + one.name: one for one in self._coordinates(module, lowranks).blocks}
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
            values = torch.empty(len(factors), min(height, rows - first), columns, dtype=dtype)
            for value, (left, right) in zip(values, factors, strict=True):
                value.copy_(left[first : first + height] @ right)
            if block.floor:
                values = hardshrink(values, block.floor)
            yield self._stack(unit, values, tuple(only), first * columns)

    def _stack(self, unit: str, values: Tensor, present: tuple[int, ...], start: int) -> Stack:
        digests = tuple(self.digests[i] for i in present)
        return Stack(values, present, digests, unit, start, self._dialect, self._adds_up, self._facts)


def _energy_in(basis: Tensor, x: LowRank) -> float:
    """The energy of a delta inside the span of orthonormal columns (O, q), from the factors."""
    b, a = basis.T @ x.b.double(), x.a.double()
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum()))


_alone = threading.Lock()
_running: list[int] = []  # for each merge under way, how many threads torch had before the first


@contextmanager
def _one_thread() -> Iterator[None]:
    """Linear algebra on one thread, so that the number of threads changes no bit.

    It is faster too: a 320 x 320 SVD took 0.02 s on one thread and 4.7 s on two under load (merging.md).
    """
    with _alone:
        _running.append(_running[0] if _running else torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _alone:
            threads = _running.pop()
            if not _running:
                torch.set_num_threads(threads)
