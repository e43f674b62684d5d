"""What a merge method is given: one tile of every adapter's delta, and facts about the whole of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sabir.merging import ops
from sabir.merging.dialects import Dialect, TrimOver
from sabir.merging.order import Found, share_count

if TYPE_CHECKING:
    from torch import Tensor

Values = Callable[["Stack"], "Tensor"]
VALUES = ("values",)  # the key of the tile's own values


class Whole(Protocol):
    """Facts beyond one tile: about one module, or about all modules of each adapter."""

    counts_signs: bool  # the method runs only to have its elected signs added up

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
        """Of each adapter here the magnitude at which `wanted(its number of entries)` entries are kept.

        Args:
            key, of: values made from a tile instead of its own, and what tells them from others.
            together: those values are one per position, not one per adapter.
        """

    def entries(self, tile: Stack) -> int:
        """How many entries each adapter has in this module."""

    def total(self, tile: Stack, key: tuple[object, ...], of: Values) -> Tensor:
        """`of` of every tile of this module, added up in float64."""

    def settle(self, signs: Tensor, contested: Tensor) -> Tensor:
        """Signs with contested positions given the majority sign of the whole merge."""

    def last_kept(
        self, tile: Stack, of: Values | None, found: Sequence[Found], rooms: Sequence[int]
    ) -> Tensor:
        """Of each adapter the position in the module of the last entry equal to its threshold that is kept."""


@dataclass(frozen=True, eq=False)
class Stack:
    """One tile of n deltas in the coordinates of a space, and where it lies.

    Args:
        values: (n, rows, columns) float32; float64 where a method takes whole matrices.
        present: which of the merge's adapters these are, by number.
        digests: content digest of each of them.
        module: the module the tile belongs to.
        start: position of the tile's first entry in the module, counted row by row.
        dialect: whose rules hold.
        adds_up: entries that agree are added up, not averaged.
        whole: facts about the module and all modules.
    """

    values: Tensor
    present: tuple[int, ...]
    digests: tuple[str, ...]
    module: str
    start: int
    dialect: Dialect
    adds_up: bool
    whole: Whole

    def trimmed(
        self,
        density: float,
        over: TrimOver | None = None,
        *,
        key: tuple[object, ...] = VALUES,
        of: Values | None = None,
    ) -> Tensor:
        """The values with only the `density` share of largest entries of each adapter.

        Args:
            over: what it is a share of; the dialect's own when not given.
            key, of: values made from the tile instead of its own, and what tells them from others.
        """
        values = self.values if of is None else of(self)
        if density == 1:
            return values
        return self._largest(values, self._count(density), over or self.dialect.trim_over, key, of)

    def middle(self, density: float, outliers: float, over: TrimOver) -> Tensor:
        """The values without each adapter's `outliers` share of largest entries; then the `density` share."""
        if density == 1:
            return self.values
        count = self._count(density)

        def cut(n: int) -> int:
            """Fewer outliers where else the density could not be kept."""
            return min(self._floor(outliers, n), n - count(n))

        wanted = self._largest(self.values, lambda n: cut(n) + count(n), over, VALUES, None)
        return wanted - self._largest(self.values, cut, over, VALUES, None)

    def _floor(self, share: float, total: int) -> int:
        return int(share * total) if self.dialect.floats else share_count(share, total)

    def _count(self, density: float) -> Callable[[int], int]:
        """How many of n entries the dialect keeps."""
        rules = self.dialect
        return lambda n: min(n, max(rules.at_least, self._floor(density, n) + rules.extra))

    def _largest(
        self,
        values: Tensor,
        count: Callable[[int], int],
        over: TrimOver,
        key: tuple[object, ...],
        of: Values | None,
        *,
        together: bool = False,
    ) -> Tensor:
        """The values with only the `count(N)` largest entries of each adapter."""
        found = self.whole.largest(self, key, of, over, count, together=together)
        kept = ops.trim(values, [one.size for one in found])
        if self.dialect.exactly and over == "module":
            rooms = [count(self.whole.entries(self)) - one.larger for one in found]
            if any(room < one.equal for room, one in zip(rooms, found, strict=True)):
                kept *= self._first_equals(values, found, self.whole.last_kept(self, of, found, rooms))
        return kept

    def _first_equals(self, values: Tensor, found: Sequence[Found], last: Tensor) -> Tensor:
        """Which entries are larger than their threshold, or equal to it and not behind `last`: bool."""
        import torch

        places = torch.arange(values[0].numel()).reshape(values[0].shape) + self.start
        larger = values.abs() > torch.tensor([one.size for one in found])[:, None, None]
        return larger | (places <= last[:, None, None])

    def dropped(self, density: float, seed: int) -> Tensor:
        """The values with each entry kept by chance, and divided by the chance.

        Source: DARE, https://arxiv.org/abs/2311.03099.
        """
        if density == 1:
            return self.values
        kept = self._drawn(density, seed)
        if self.dialect.same_size:
            return self._resized(kept, ("drawn", density, seed), lambda tile: tile._drawn(density, seed))
        return kept / density

    def _drawn(self, density: float, seed: int) -> Tensor:
        import torch

        count = self.values[0].numel()
        masks = [
            ops.keep_mask(density, seed=seed, digest=d, module=self.module, start=self.start, count=count)
            for d in self.digests
        ]
        return self.values * torch.stack(masks).reshape(self.values.shape)

    def thinned(self, density: float, epsilon: float, seed: int) -> Tensor:
        """The values with each entry kept by a chance that grows with its rank, and divided by that chance.

        Source: DELLA, https://arxiv.org/abs/2406.11617.
        """
        if density == 1:
            return self.values
        kept, chances = self._thinned(density, epsilon, seed)
        if self.dialect.same_size:
            return self._resized(
                kept,
                ("thinned", density, epsilon, seed),
                lambda tile: tile._thinned(density, epsilon, seed)[0],
            )
        return kept / chances

    def _thinned(self, density: float, epsilon: float, seed: int) -> tuple[Tensor, Tensor]:
        import torch

        count = self.values[0].numel()
        chances = ops.chance_by_rank(self.values.abs(), density, epsilon)
        drawn = [
            torch.from_numpy(
                ops.coins(seed=seed, digest=d, module=self.module, start=self.start, count=count).astype(
                    "int64"
                )
            )
            for d in self.digests
        ]
        mask = torch.stack(drawn).reshape(self.values.shape) < chances.double() * ops.COIN
        return self.values * mask, chances

    def _resized(self, kept: Tensor, key: tuple[object, ...], of: Values) -> Tensor:
        """Kept entries times the number per module and adapter that restores the sum of magnitudes."""
        import torch

        before = self.whole.total(self, ("magnitudes",), lambda tile: _sizes(tile.values))
        after = self.whole.total(self, (*key, "magnitudes"), lambda tile: _sizes(of(tile)))
        usable = (before >= SAME_SIZE_FLOOR) & (after >= SAME_SIZE_FLOOR)
        factor = torch.where(usable, before / after, 1.0)
        return kept * factor.float()[:, None, None]

    def agreed(self, values: Tensor, weights: Tensor, *, weighted_votes: bool | None = None) -> Tensor:
        """One sign elected at each position, and the mean of the entries that have it.

        A zero sum takes the majority sign of the whole merge. A negative weight turns its adapter round.

        Args:
            weighted_votes: signs are elected on the weighted values; the dialect's own when not given.
        Source: steps 2 and 3 of TIES, https://arxiv.org/abs/2306.01708. Departs: weights enter the election,
        and the mean divides by them; their count when all are equal. Other dialects: see `Dialect`.
        """
        given, ones = weights.tolist(), [1.0] * len(weights)
        by_weight = self.dialect.weighted_votes if weighted_votes is None else weighted_votes
        turns, rest = (given, ones) if by_weight else (ones, given)
        shares = {"sizes": list(map(abs, given)), "weights": given, "count": ones}[self.dialect.divide]
        if self.whole.counts_signs:
            signs = ops.elect(*ops.votes(values, turns))
            return self.whole.settle(signs, signs)
        found = ops.sides(values, turns, rest, shares)
        if self.dialect.majority:
            signs = ops.elect(found.votes, found.magnitudes)
            signs = self.whole.settle(signs, (signs == 0) & (found.magnitudes > 0))
        else:
            signs = found.votes.sign() + (found.votes == 0)
        return ops.agreeing(found, signs, adds_up=self.adds_up)

    def variable(self, density: float) -> Tensor:
        """The values at the `density` share of positions where the adapters differ most, (n, rows, columns).

        Source: the first step of SCE, https://arxiv.org/abs/2408.07990.
        """
        if density == 1:
            return self.values
        count = self.whole.total(self, ("varies",), lambda tile: (_variance(tile) > 0).sum())
        wanted = self._floor(density, int(count))
        if wanted == 0:
            return self.values * 0.0
        key = ("variance",)
        return self.values * (
            self._largest(_variance(self), lambda n: wanted, "module", key, _variance, together=True) > 0
        )

    def energies(self, density: float) -> Tensor:
        """The mean square of each adapter's `variable` values over the module, (n,) float64."""
        squares = self.whole.total(
            self, ("squares", density), lambda tile: tile.variable(density).double().square().sum((1, 2))
        )
        return squares / self.whole.entries(self)


SAME_SIZE_FLOOR = 1e-7  # mergekit 0.1.5 leaves a tensor alone whose sum of magnitudes is below


def _sizes(values: Tensor) -> Tensor:
    return values.double().abs().sum((1, 2))


def _variance(tile: Stack) -> Tensor:
    """Over adapters, at each position: (1, rows, columns)."""
    return tile.values.var(0, correction=0, keepdim=True) if tile.values.numel() else tile.values[:1]
