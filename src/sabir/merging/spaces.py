"""Spaces: in which coordinates deltas are merged entry by entry, and the way back to an adapter.

A space is a function of one module's deltas; it gives `Coordinates`. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sabir.catalog import Catalog

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.lora.lowrank import LowRank, Truncation

SPACES = Catalog("space")

# Directions below this share of the largest singular value are rounding of float32 factors (2^-23). Relative:
# an absolute cut drops real directions of small adapters.
KNOTS_CUT = 2.0**-23
ROUNDING = 1e-13  # of the largest singular value: what float64 leaves where a zero should be


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The deltas of one module in the coordinates of a space.

    Args:
        rows, columns: shape of each delta in these coordinates.
        tile: rows [first, last) of all n deltas, (n, last - first, columns) float32.
        back: from merged coordinates (rows, columns) to the nearest adapter of a rank.
        held_bytes: memory that keeping these coordinates takes.
    """

    rows: int
    columns: int
    tile: Callable[[int, int], Tensor]
    back: Callable[[Tensor, int], Truncation]
    held_bytes: int


@SPACES.register("delta", source="https://arxiv.org/abs/2212.04089", keeps_rank=False)
def delta(lowranks: Sequence[LowRank]) -> Coordinates:
    """The delta itself, (O, I): what is added to the base. An entrywise merge has full rank."""
    import torch

    from sabir.lora.lowrank import truncate_dense

    factors = [(x.b.double(), x.a.double()) for x in lowranks]
    rows, columns = lowranks[0].shape

    def tile(first: int, last: int) -> Tensor:
        return torch.stack([(b[first:last] @ a).float() for b, a in factors])

    held = sum(8 * (b.numel() + a.numel()) for b, a in factors)
    return Coordinates(rows, columns, tile, truncate_dense, held)


@SPACES.register("knots", source="https://arxiv.org/abs/2410.19735", keeps_rank=True)
def knots(lowranks: Sequence[LowRank]) -> Coordinates:
    """The deltas in the one basis of outputs that an SVD of all of them side by side gives, (R, I).

    Exact and never dense: thin QR of the factors, then one R x R SVD. float64 until the projection.
    Source: https://arxiv.org/abs/2410.19735. Departs: singular values below `KNOTS_CUT` of the largest are
    cut; the sign of each direction makes its largest entry in U positive.
    """
    import torch

    from sabir.lora.lowrank import LowRank, canonical_signs, truncate

    q_b, r_b = torch.linalg.qr(torch.cat([x.b.double() for x in lowranks], dim=1))  # (O, R), (R, R)
    triangles = [torch.linalg.qr(x.a.double().T, mode="r").R for x in lowranks]  # (r, r) each
    blocks = r_b.split([x.rank for x in lowranks], dim=1)
    core = torch.cat([block @ r_a.T for block, r_a in zip(blocks, triangles, strict=True)], dim=1)
    p, sigma, _ = torch.linalg.svd(core, full_matrices=False)
    real = int((sigma > KNOTS_CUT * sigma[0]).sum()) if sigma.numel() else 0
    u = q_b @ p[:, :real]
    signs = canonical_signs(u)
    turned = (p[:, :real] * signs).T  # (real, R)
    # ΣV'_i = U'ΔW_i. What is left of a zero by float64 would vote in an election: it is a zero again.
    floor = ROUNDING * float(sigma[0]) if real else 0.0
    parts = [turned @ block @ x.a.double() for block, x in zip(blocks, lowranks, strict=True)]
    values = torch.stack([part.where(part.abs() > floor, 0.0).float() for part in parts])  # (n, real, I)
    basis = (u * signs).float()

    def back(merged: Tensor, rank: int) -> Truncation:
        return truncate(LowRank(basis, merged), rank)

    held = 4 * (values.numel() + basis.numel())
    return Coordinates(real, values.shape[2], lambda first, last: values[:, first:last], back, held)
