"""Merge methods: plain functions of stacked deltas and their weights; keyword-only parameters are settings.

Facts that a method declares when it is registered:
    linear: a weighted sum of the deltas, whatever the values; it is then computed exactly on the factors.
    weight: what an adapter weighs by default, "mean" (1/n) or a number.
Importing this loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sabir.catalog import Catalog
from sabir.merging import ops

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.merging.stack import Stack

METHODS = Catalog("merge method")


@METHODS.register("linear", source="https://arxiv.org/abs/2212.04089", linear=True, weight="mean")
def linear(deltas: Stack, weights: Tensor, *, scale: float = 1.0) -> Tensor:
    """The weighted sum of the deltas: their average, or task arithmetic.

    Args:
        scale: λ, multiplies the result. Methods differ first of all in how much they shrink: search it.
    Source: https://arxiv.org/abs/2212.04089
    """
    return scale * ops.weighted_sum(deltas.values, weights)


@METHODS.register("ties", source="https://arxiv.org/abs/2306.01708", linear=False, weight=1.0)
def ties(deltas: Stack, weights: Tensor, *, density: float = 1.0, scale: float = 1.0) -> Tensor:
    """Trim small entries, elect one sign per position, average the entries that agree with it.

    Args:
        density: share of each adapter's entries kept, the largest over all its modules, in (0, 1].
        scale: λ, multiplies the result.
    Source: https://arxiv.org/abs/2306.01708. Departs: weights enter the election and the mean.
    """
    kept = deltas.trimmed(density)
    signs = deltas.elected(kept, weights)
    return scale * ops.average_agreeing(kept, signs, weights)


@METHODS.register("dare", source="https://arxiv.org/abs/2311.03099", linear=False, weight="mean")
def dare(
    deltas: Stack, weights: Tensor, *, density: float = 0.2, scale: float = 1.0, seed: int = 0
) -> Tensor:
    """Drop entries by chance, rescale the rest, and sum by weight.

    Args:
        density: probability that an entry is kept, in (0, 1].
        scale: λ, multiplies the result.
        seed: of the draw; each adapter and module draws its own mask from it.
    Source: https://arxiv.org/abs/2311.03099
    """
    return scale * ops.weighted_sum(deltas.dropped(density, seed), weights)


@METHODS.register("dare_ties", source="https://arxiv.org/abs/2311.03099", linear=False, weight=1.0)
def dare_ties(
    deltas: Stack, weights: Tensor, *, density: float = 0.2, scale: float = 1.0, seed: int = 0
) -> Tensor:
    """Drop entries by chance, rescale the rest, then elect signs and average the entries that agree.

    Args:
        density: probability that an entry is kept, in (0, 1].
        scale: λ, multiplies the result.
        seed: of the draw; each adapter and module draws its own mask from it.
    Source: https://arxiv.org/abs/2311.03099 with the election of https://arxiv.org/abs/2306.01708.
    Departs: the draw replaces the trim, as in mergekit and PEFT.
    """
    kept = deltas.dropped(density, seed)
    signs = deltas.elected(kept, weights)
    return scale * ops.average_agreeing(kept, signs, weights)
