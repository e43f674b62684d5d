"""The loop of a merge: module by module, tile by tile, never the dense stack of all adapters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sabir.catalog import Entry
from sabir.lora.files import Adapter
from sabir.lora.lowrank import LowRank, Truncation, energy, truncate
from sabir.merging import by_module
from sabir.merging.dialects import Dialect
from sabir.merging.kept import Kept
from sabir.merging.ops import CANCELS
from sabir.merging.threads import one_thread
from sabir.merging.tiles import Tiles

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
        present = [name for name in adapters if by_module.anywhere(weights[name])]
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
        self._method, self._space = method, space
        self._asked, self._cap = rank, cap
        self._on_module = on_module
        self._tiles = Tiles(
            self._adapters,
            shapes=self.shapes,
            weights=self._weights,
            settings={
                module: {
                    key: by_module.at(value, module, layers, f"settings.{key}")
                    for key, value in settings.items()
                }
                for module in everywhere
            },
            method=method,
            space=space,
            dialect=dialect,
            rank=rank,
            # then all modules of an adapter take part
            independent=space.name == "delta" and not any(isinstance(w, Mapping) for w in weights.values()),
            threads=self.threads,
            kept=kept,
        )

    @property
    def rank(self) -> int:
        return max((self._rank_of(module) for module in self.shapes), default=0)

    @property
    def uncut_rank(self) -> int:
        """The largest rank of a module that the space gives where none is asked for."""
        return max(map(self._own_rank, self.shapes), default=0)

    def __iter__(self) -> Iterator[tuple[str, LowRank]]:
        """Each module's delta at the rank asked for; the energies are known after the last."""
        modules = []
        for module, (lowrank, energies) in self._each(self._merge):
            modules.append(energies)
            yield module, lowrank
        self._add_up(modules)

    def dense(self) -> Iterator[tuple[str, Tensor]]:
        """Each module's whole delta, (O, I) float32, for folding into the base: nothing is cut."""
        modules = []
        for module, (delta, energies) in self._each(self._dense):
            modules.append(energies)
            yield module, delta
        self._add_up(modules)

    def _add_up(self, modules: Sequence[_Module]) -> None:
        """The energies of all modules together."""
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

    def _each(self, function: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        """The function of each module, in order, computed on several threads a little ahead."""
        with one_thread(), ThreadPoolExecutor(self.threads) as pool:
            waiting: deque[tuple[str, Future[T]]] = deque()
            todo = iter(self.shapes)
            self._tiles.start()
            try:
                for done in range(1, len(self.shapes) + 1):
                    while len(waiting) < self.threads + 1 and (module := next(todo, None)) is not None:
                        waiting.append((module, pool.submit(function, module)))
                    module, future = waiting.popleft()
                    yield module, future.result()
                    if self._on_module:
                        self._on_module(done, len(self.shapes))
            finally:
                if waiting:  # left early: what runs need not go on
                    self._tiles.stop()
                for _, future in waiting:
                    future.cancel()

    def _merge(self, module: str) -> tuple[LowRank, _Module]:
        lowranks = self._tiles.read(module)
        if not lowranks:
            rows, columns = self.shapes[module]
            return LowRank(torch.zeros(rows, 0), torch.zeros(0, columns)), NOTHING_CUT
        rank = None
        if not self._is_exact or sum(x.rank for x in lowranks) > min(self.shapes[module]):
            rank = self._rank_of(module)
        if self._is_sum:
            result = truncate(self._tiles.summed(module, lowranks), rank)
        else:
            coordinates = self._tiles.coordinates(module, lowranks)
            result = coordinates.back(self._tiles.blocks(module, coordinates, lowranks), rank)
        if self._is_exact:
            return result.lowrank, NOTHING_CUT
        return result.lowrank, self._energies(module, lowranks, result)

    def _dense(self, module: str) -> tuple[Tensor, _Module]:
        rows, columns = self.shapes[module]
        lowranks = self._tiles.read(module)
        if not lowranks:
            return torch.zeros(rows, columns), NOTHING_CUT
        if self._is_sum:
            return self._tiles.summed(module, lowranks).delta(), NOTHING_CUT
        coordinates = self._tiles.coordinates(module, lowranks)
        merged = self._tiles.blocks(module, coordinates, lowranks)
        if not self._space.facts["keeps_rank"]:
            return merged[0], NOTHING_CUT
        result = coordinates.back(merged, None)
        lossless = self._space.facts["lossless"]
        return result.lowrank.delta(), NOTHING_CUT if lossless else self._energies(module, lowranks, result)

    def _energies(self, module: str, lowranks: Sequence[LowRank], result: Truncation) -> _Module:
        own, own_kept = [0.0] * len(self.names), [0.0] * len(self.names)
        cut = result.share < 1 - 1e-9 or not self._space.facts["lossless"]
        basis = torch.linalg.qr(result.lowrank.b.double()).Q if cut else None
        for i, lowrank in zip(self._tiles.present(module), lowranks, strict=True):
            own[i] = energy(lowrank)
            own_kept[i] = own[i] if basis is None else _energy_in(basis, lowrank)
        cancelled = result.total <= CANCELS**2 * sum(own)  # then there was nothing to keep
        return _Module(*((0.0, 0.0) if cancelled else (result.kept, result.total)), own_kept, own)

    def _rank_of(self, module: str) -> int:
        """The rank of one module's result: what the recipe asks or the space gives, at most min(O, I)."""
        ranks = self._ranks(module)
        limits = [*self.shapes[module], *([] if self._cap is None else [self._cap])]
        if self._is_sum or self._space.facts["keeps_rank"]:
            limits.append(sum(ranks))
        return min(self._own_rank(module) if self._asked is None else self._asked, *limits)

    @property
    def _is_sum(self) -> bool:
        """A linear method where deltas lie whole: the factors side by side are its exact result."""
        return bool(self._method.facts.get("linear")) and self._space.facts["lossless"]

    def _ranks(self, module: str) -> list[int]:
        return [self._adapters[i].ranks.get(module, 0) for i in self._weights[module]]

    def _own_rank(self, module: str) -> int:
        """What the space gives where no rank is asked for."""
        ranks = self._ranks(module)
        rank = sum(ranks) if self._space.facts["rank"] == "sum" else max(ranks, default=0)
        return min(rank, *self.shapes[module])

    @property
    def _is_exact(self) -> bool:
        """The result holds all of the merge: no rank is asked for, and none is exceeded."""
        whole = self._is_sum or (self._space.facts["keeps_rank"] and self._space.facts["lossless"])
        return whole and self._asked is None and self._cap is None


def _energy_in(basis: Tensor, x: LowRank) -> float:
    """The energy of a delta inside the span of orthonormal columns (O, q), from the factors."""
    b, a = basis.T @ x.b.double(), x.a.double()
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum()))
