"""What a merge method is given: one tile of every adapter's delta, and facts about the whole of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sabir.merging import ops

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stack:
    """One tile of n deltas in the coordinates of a space, and where it lies.

    Args:
        values: (n, rows, columns) float32.
        digests: content digest of each adapter.
        module: the module the tile belongs to.
        start: position of the tile's first entry in the module, counted row by row.
        whole: facts about all modules together.
    """

    values: Tensor
    digests: tuple[str, ...]
    module: str
    start: int
    whole: Whole | _SignCount

    def trimmed(self, density: float) -> Tensor:
        """The values with only the `density` share of largest entries of each whole adapter."""
        if density == 1:
            return self.values
        return ops.trim(self.values, self.whole.threshold(density).to(self.values.device))

    def dropped(self, density: float, seed: int) -> Tensor:
        """The values with each entry kept by chance, and divided by the chance."""
        if density == 1:
            return self.values
        import torch

        count = self.values[0].numel()
        masks = [
            ops.keep_mask(density, seed=seed, digest=d, module=self.module, start=self.start, count=count)
            for d in self.digests
        ]
        mask = torch.stack(masks).reshape(self.values.shape).to(self.values.device)
        return ops.drop(self.values, mask, density)

    def elected(self, values: Tensor, weights: Tensor) -> Tensor:
        """The sign to keep at each position; a zero sum takes the majority sign of the whole merge."""
        signs = ops.elect(values, weights)
        return self.whole.settle(signs, ops.contested(signs, values))


class Whole:
    """Facts about all modules of a merge together, each found by one more walk when first asked for."""

    def __init__(self, walk: Callable[[], Iterator[Stack]], method: Callable[[Stack], Tensor]):
        self._walk = walk
        self._method = method
        self._thresholds: dict[float, Tensor] = {}
        self._majority: float | None = None

    def threshold(self, density: float) -> Tensor:
        """The smallest magnitude each adapter keeps at this density: (n,)."""
        if density not in self._thresholds:
            self._thresholds[density] = ops.magnitude_at(
                lambda: (tile.values for tile in self._walk()), density
            )
        return self._thresholds[density]

    def settle(self, signs: Tensor, contested: Tensor) -> Tensor:
        """Give contested positions the overall majority sign. Nearly always there are none, and no walk."""
        if not contested.any():
            return signs
        if self._majority is None:
            count = _SignCount(self)
            for tile in self._walk():
                self._method(replace(tile, whole=count))
            self._majority = float((count.sum > 0) - (count.sum < 0))
        return signs.where(~contested, self._majority)


class _SignCount:
    """Stands in for the whole while the method runs only to have its elected signs added up."""

    def __init__(self, whole: Whole):
        self._of = whole
        self.sum = 0

    def threshold(self, density: float) -> Tensor:
        return self._of.threshold(density)

    def settle(self, signs: Tensor, contested: Tensor) -> Tensor:
        self.sum += int(signs.double().sum())
        return signs
