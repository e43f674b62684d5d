"""Merge methods: plain functions of stacked deltas and their weights; keyword-only parameters are settings.

Facts that a method declares when it is registered:
    weight: what an adapter weighs by default, "mean" (1/n) or a number.
    linear: a weighted sum of the deltas, whatever the values; it is then computed exactly on the factors.
    matrix: acts on singular directions, so it takes whole matrices, in `core` space (or `compressed`).
    compares: says what adapters differ in, so one that lacks a module counts there as zero; one alone is none.
Importing this loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sabir.catalog import Catalog
from sabir.merging import ops
from sabir.merging.dialects import TrimOver

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.merging.stack import Stack

METHODS = Catalog("merge method")


@METHODS.register("linear", source="https://arxiv.org/abs/2212.04089", weight="mean", linear=True)
def linear(deltas: Stack, weights: Tensor, *, scale: float = 1.0) -> Tensor:
    """The weighted sum of the deltas: their average, or task arithmetic.

    Args:
        scale: λ, multiplies the result. Methods differ first of all in how much they shrink: search it.
    Source: https://arxiv.org/abs/2212.04089
    """
    return scale * ops.weighted_sum(deltas.values, weights)


@METHODS.register("ties", source="https://arxiv.org/abs/2306.01708", weight=1.0)
def ties(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 1.0,
    scale: float = 1.0,
    trim_over: TrimOver | None = None,
) -> Tensor:
    """Trim small entries, elect one sign per position, average the entries that agree with it.

    Args:
        density: share of each adapter's entries kept, the largest, in (0, 1].
        scale: λ, multiplies the result.
        trim_over: what the density is a share of: the whole "adapter" (as the paper has it), or each "module".
    Source: https://arxiv.org/abs/2306.01708. Departs: weights enter the election and the mean.
    """
    return scale * deltas.agreed(deltas.trimmed(density, trim_over), weights)


@METHODS.register("dare", source="https://arxiv.org/abs/2311.03099", weight="mean")
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


@METHODS.register("dare_ties", source="https://arxiv.org/abs/2311.03099", weight=1.0)
def dare_ties(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 0.2,
    trim_density: float = 1.0,
    scale: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Drop entries by chance, rescale the rest, then elect signs and average the entries that agree.

    Args:
        density: probability that an entry is kept, in (0, 1].
        trim_density: share of entries that a trim after the draw keeps, in (0, 1]; the dropped ones count too.
        scale: λ, multiplies the result.
        seed: of the draw; each adapter and module draws its own mask from it.
    Source: https://arxiv.org/abs/2311.03099 with the election of https://arxiv.org/abs/2306.01708.
    Departs: the draw replaces the trim unless asked, as in mergekit and PEFT.
    """
    kept = deltas.trimmed(
        trim_density, key=("dropped", density, seed), of=lambda tile: tile.dropped(density, seed)
    )
    return scale * deltas.agreed(kept, weights)


@METHODS.register("magnitude", source="https://arxiv.org/abs/1506.02626", weight="mean")
def magnitude(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 0.2,
    scale: float = 1.0,
    trim_over: TrimOver | None = None,
) -> Tensor:
    """Trim small entries, and sum the rest by weight.

    Args:
        density: share of each adapter's entries kept, the largest, in (0, 1].
        scale: λ, multiplies the result.
        trim_over: what the density is a share of: the whole "adapter", or each "module".
    Source: https://arxiv.org/abs/1506.02626, on deltas as PEFT's magnitude_prune has it.
    """
    return scale * ops.weighted_sum(deltas.trimmed(density, trim_over), weights)


@METHODS.register("della", source="https://arxiv.org/abs/2406.11617", weight=1.0)
def della(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 0.4,
    epsilon: float = 0.15,
    scale: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Drop entries by a chance that falls with their rank, rescale, elect signs, average what agrees.

    Args:
        density: mean probability that an entry is kept, in (0, 1].
        epsilon: the smallest entry of a row is kept with density - epsilon, the largest with density + epsilon.
        scale: λ, multiplies the result.
        seed: of the draw; each adapter and module draws its own mask from it.
    Source: https://arxiv.org/abs/2406.11617
    """
    return scale * deltas.agreed(deltas.thinned(density, epsilon, seed), weights)


@METHODS.register("della_linear", source="https://arxiv.org/abs/2406.11617", weight="mean")
def della_linear(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 0.4,
    epsilon: float = 0.15,
    scale: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Drop entries by a chance that falls with their rank, rescale, and sum by weight.

    Args:
        density: mean probability that an entry is kept, in (0, 1].
        epsilon: the smallest entry of a row is kept with density - epsilon, the largest with density + epsilon.
        scale: λ, multiplies the result.
        seed: of the draw; each adapter and module draws its own mask from it.
    Source: https://arxiv.org/abs/2406.11617
    """
    return scale * ops.weighted_sum(deltas.thinned(density, epsilon, seed), weights)


@METHODS.register("breadcrumbs", source="https://arxiv.org/abs/2312.06795", weight="mean")
def breadcrumbs(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 0.9,
    outliers: float = 0.01,
    scale: float = 1.0,
    trim_over: TrimOver = "module",
) -> Tensor:
    """Drop the few largest entries and the smallest ones, and sum the rest by weight.

    Args:
        density: share of entries kept, in (0, 1].
        outliers: share of entries dropped as too large, in [0, 1).
        scale: λ, multiplies the result.
        trim_over: what the shares are of: each "module" (as the paper has it), or the whole "adapter".
    Source: https://arxiv.org/abs/2312.06795
    """
    return scale * ops.weighted_sum(deltas.middle(density, outliers, trim_over), weights)


@METHODS.register("breadcrumbs_ties", source="https://arxiv.org/abs/2312.06795", weight=1.0)
def breadcrumbs_ties(
    deltas: Stack,
    weights: Tensor,
    *,
    density: float = 0.9,
    outliers: float = 0.01,
    scale: float = 1.0,
    trim_over: TrimOver = "module",
) -> Tensor:
    """Drop the few largest entries and the smallest ones, elect signs, average what agrees.

    Args:
        density: share of entries kept, in (0, 1].
        outliers: share of entries dropped as too large, in [0, 1).
        scale: λ, multiplies the result.
        trim_over: what the shares are of: each "module" (as the paper has it), or the whole "adapter".
    Source: https://arxiv.org/abs/2312.06795 with the election of https://arxiv.org/abs/2306.01708, as in mergekit.
    """
    return scale * deltas.agreed(deltas.middle(density, outliers, trim_over), weights)


@METHODS.register("sce", source="https://arxiv.org/abs/2408.07990", weight=1.0, compares=True)
def sce(deltas: Stack, weights: Tensor, *, density: float = 0.1, scale: float = 1.0) -> Tensor:
    """Select the positions where adapters differ most, weigh adapters by their energy there, erase minorities.

    Args:
        density: share of each module's positions kept, those of largest variance, in (0, 1].
        scale: λ, multiplies the result.
    Source: https://arxiv.org/abs/2408.07990. Departs: given weights multiply the weights it finds.
    """
    import torch

    kept = deltas.variable(density)
    energies = deltas.energies(density)
    total = float(energies.sum())
    usable = total > (deltas.dialect.least_energy)
    own = energies / total if usable else torch.full_like(energies, 1 / len(energies))
    return scale * deltas.agreed(kept, own.float() * weights, weighted_votes=False)


@METHODS.register("tsv", source="https://arxiv.org/abs/2412.00081", weight=1.0, matrix=True)
def tsv(deltas: Stack, weights: Tensor, *, scale: float = 1.0) -> Tensor:
    """TSV-Merge: put all adapters' singular vectors side by side, make them orthogonal, and multiply back.

    Args:
        scale: α, multiplies the result.
    Source: https://arxiv.org/abs/2412.00081. Departs: an adapter brings all the directions it has, which are few
    (of a full fine-tuning the paper keeps 1/n of the directions of each).
    """
    import torch

    parts = [
        ops.directions(value * weight) for value, weight in zip(deltas.values.double(), weights, strict=True)
    ]
    u, v = (
        ops.polar(torch.cat(side, dim=1)) for side in zip(*((part.u, part.v) for part in parts), strict=True)
    )
    return scale * (u * torch.cat([part.sigma for part in parts])) @ v.T


@METHODS.register("iso_c", source="https://arxiv.org/abs/2502.04959", weight=1.0, matrix=True)
def iso_c(deltas: Stack, weights: Tensor, *, scale: float = 1.0) -> Tensor:
    """Iso-C: the weighted sum with all its singular values made equal. One adapter alone is flattened too.

    Args:
        scale: α, multiplies the result.
    Source: https://arxiv.org/abs/2502.04959. Departs: the mean is over the directions that the sum has.
    """
    summed = ops.directions(ops.weighted_sum(deltas.values.double(), weights.double()))
    return scale * summed.mean * summed.u @ summed.v.T


@METHODS.register("iso_cts", source="https://arxiv.org/abs/2502.04959", weight=1.0, matrix=True)
def iso_cts(deltas: Stack, weights: Tensor, *, common: float = 0.8, scale: float = 1.0) -> Tensor:
    """Iso-CTS: the sum's leading directions and what each adapter adds to them, all of one size.

    Args:
        common: share of the sum's directions kept as common to all, in [0, 1].
        scale: α, multiplies the result.
    Source: https://arxiv.org/abs/2502.04959. Departs: shares are of the directions that the sum has.
    """
    import torch

    weighted = deltas.values.double() * weights.double()[:, None, None]
    summed = ops.directions(weighted.sum(0))
    each = round((summed.rank - int(common * summed.rank)) / len(weighted))
    each = min(each, summed.rank // len(weighted))
    shared = summed.top(summed.rank - each * len(weighted))
    parts = [ops.directions(value - shared.u @ (shared.u.T @ value)).top(each) for value in weighted]
    parts.append(shared)
    sigmas = torch.cat([part.sigma for part in parts])
    mean = sigmas.sum() / max(1, len(sigmas))
    u, v = (
        ops.polar(torch.cat(side, dim=1)) for side in zip(*((part.u, part.v) for part in parts), strict=True)
    )
    return scale * mean * u @ v.T
