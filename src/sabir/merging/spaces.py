"""Spaces: in which coordinates deltas are merged entry by entry, and the way back to an adapter.

A space is a function of one module's deltas; it gives `Coordinates`: a change of basis of the low-rank factors,
so that every tile of every adapter is a product of two thin matrices and nothing dense is kept.

Facts that a space declares when it is registered:
    keeps_rank: an entrywise merge has at most the sum of the ranks; else full rank.
    lossless: every delta lies in it whole, so a linear method gives the same result as in `delta`.
    rank: of the result where none is asked, "sum" of the adapters' ranks or the "largest" of them.
    blocks: names of a module's blocks.
    shares: for each block what the weights are there, of the weights and the adapters' scales; None: as given.
Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sabir.catalog import Catalog
from sabir.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.lora.lowrank import LowRank, Truncation

SPACES = Catalog("space")

# Directions below this share of the largest singular value are rounding of float32 factors (2^-23). Relative:
# an absolute cut drops real directions of small adapters.
CUT = 2.0**-23
ROUNDING = 1e-13  # of the largest singular value: what float64 leaves where a zero should be


@dataclass(frozen=True, eq=False)
class Given:
    """What a space is made from: one module of n adapters.

    Args:
        lowranks: their deltas.
        scales: what each adapter's own B @ A is multiplied by.
        rank: what the recipe asks for, if a number.
        least_sigma: singular directions up to this size are cut; 0: those below `CUT` of the largest.
    """

    lowranks: Sequence[LowRank]
    scales: Sequence[float]
    rank: int | None
    least_sigma: float = 0.0


@dataclass(frozen=True, eq=False)
class Block:
    """A matrix per adapter, lefts[i] @ rights[i], that is merged entry by entry.

    Args:
        lefts: (rows, r_i) float64 each.
        rights: (r_i, columns) each; None: the adapters' own A.
        name: what tells this block from others of its module, "" where there is one.
        floor: magnitudes up to this are float64's rounding of a zero.
    """

    lefts: Sequence[Tensor]
    rights: Sequence[Tensor] | None
    name: str = ""
    floor: float = 0.0

    @property
    def held_bytes(self) -> int:
        return sum(8 * x.numel() for side in (self.lefts, self.rights or ()) for x in side)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The deltas of one module in the coordinates of a space.

    Args:
        blocks: what is merged; one, except where factors are merged apart.
        back: from each block's merged matrix to the nearest adapter of a rank; None: of the rank it has.
    """

    blocks: tuple[Block, ...]
    back: Callable[[Sequence[Tensor], int | None], Truncation]


def _root_shares(weights: Sequence[float], scales: Sequence[float]) -> tuple[list[float], list[float]]:
    """PEFT gives A and B the square root of weight times scale each, the sign to A."""
    products = [weight * scale for weight, scale in zip(weights, scales, strict=True)]
    roots = [abs(product) ** 0.5 for product in products]
    return [root if product >= 0 else -root for root, product in zip(roots, products, strict=True)], roots


@SPACES.register(
    "delta",
    source="https://arxiv.org/abs/2212.04089",
    keeps_rank=False,
    lossless=True,
    rank="sum",
    blocks=("",),
    shares=None,
)
def delta(given: Given) -> Coordinates:
    """The delta itself, (O, I): what is added to the base. An entrywise merge has full rank."""
    from sabir.lora.lowrank import truncate_dense

    block = Block([x.b.double() for x in given.lowranks], None)
    return Coordinates((block,), lambda merged, rank: truncate_dense(merged[0], rank))


@SPACES.register(
    "knots",
    source="https://arxiv.org/abs/2410.19735",
    keeps_rank=True,
    lossless=True,
    rank="sum",
    blocks=("",),
    shares=None,
)
def knots(given: Given) -> Coordinates:
    """The deltas in the one basis of outputs that an SVD of all of them side by side gives, (R, I).

    Exact and never dense: thin QR of the factors, then one R x R SVD. float64 until the projection.
    Source: https://arxiv.org/abs/2410.19735. Departs: singular values below `CUT` of the largest are cut;
    the sign of each direction makes its largest entry in U positive.
    """
    import torch

    from sabir.lora.lowrank import LowRank, canonical_signs, truncate

    lowranks = given.lowranks
    q_b, r_b = torch.linalg.qr(torch.cat([x.b.double() for x in lowranks], dim=1))  # (O, R), (R, R)
    triangles = [torch.linalg.qr(x.a.double().T, mode="r").R for x in lowranks]  # (r, r) each
    blocks = r_b.split([x.rank for x in lowranks], dim=1)
    core = torch.cat([block @ r_a.T for block, r_a in zip(blocks, triangles, strict=True)], dim=1)
    p, sigma, _ = torch.linalg.svd(core, full_matrices=False)
    real = int((sigma > (given.least_sigma or CUT * sigma[0])).sum()) if sigma.numel() else 0
    u = q_b @ p[:, :real]
    signs = canonical_signs(u)
    turned = (p[:, :real] * signs).T  # (real, R)
    # ΣV'_i = U'ΔW_i. What is left of a zero by float64 would vote in an election: it is a zero again.
    floor = ROUNDING * float(sigma[0]) if real else 0.0
    basis = (u * signs).float()

    def back(merged: Sequence[Tensor], rank: int | None) -> Truncation:
        return truncate(LowRank(basis, merged[0]), rank)

    return Coordinates((Block([turned @ block for block in blocks], None, floor=floor),), back)


@SPACES.register(
    "core",
    source="https://arxiv.org/abs/2509.17786",
    keeps_rank=True,
    lossless=True,
    rank="sum",
    blocks=("",),
    shares=None,
)
def core(given: Given) -> Coordinates:
    """The deltas in common bases of outputs and of inputs, (R, R): the smallest matrices that hold them all.

    Source: Core Space, https://arxiv.org/abs/2509.17786. Departs: each delta is brought to the canonical factors
    U sqrt(S), sqrt(S) V' of its own SVD first, so that the bases do not depend on how it was factored; directions
    below `CUT` of the largest are cut; the sign of each makes its largest entry positive.
    """
    outputs, inputs = zip(*map(_balanced, given.lowranks), strict=True)
    root = CUT**0.5  # the canonical factors hold square roots
    return _between(_common(outputs, root), _common(inputs, root), given.lowranks)


@SPACES.register(
    "compressed",
    source="https://arxiv.org/abs/2606.03723",
    keeps_rank=True,
    lossless=False,
    rank="largest",
    blocks=("",),
    shares=None,
)
def compressed(given: Given) -> Coordinates:
    """The deltas cut to one common subspace of outputs and one of inputs before they are merged, (r, r).

    Compress-then-Merge: r is the rank asked for, else the largest of the adapters'.
    Source: https://arxiv.org/abs/2606.03723. Departs: the subspaces are the leading singular directions of all
    deltas side by side, and of all on top of each other.
    """
    rank = given.rank or max(x.rank for x in given.lowranks)
    parts = [_factored(x) for x in given.lowranks]
    outputs = _common([u * sigma for u, sigma, _ in parts], CUT)
    inputs = _common([v * sigma for _, sigma, v in parts], CUT)
    return _between(outputs[:, :rank], inputs[:, :rank], given.lowranks)


@SPACES.register(
    "factors",
    source="https://github.com/huggingface/peft",
    keeps_rank=True,
    lossless=False,
    rank="largest",
    blocks=(".lora_A", ".lora_B"),
    shares=_root_shares,
)
def factors(given: Given) -> Coordinates:
    """A and B merged apart, as PEFT does without an SVD: wrong by the cross terms B_i A_j. Only to compare."""
    import torch

    from sabir.lora.lowrank import LowRank, truncate

    ranks = {x.rank for x in given.lowranks}
    if len(ranks) > 1:
        raise InputError(
            "",
            f"adapters of ranks {sorted(ranks)} cannot be merged in 'factors' space.",
            "Use 'delta' space.",
        )

    def back(merged: Sequence[Tensor], rank: int | None) -> Truncation:
        return truncate(LowRank(merged[1].float(), merged[0].float()), rank)

    eyes = [torch.eye(x.rank, dtype=torch.float64) for x in given.lowranks]
    own_b = [
        x.b.double() / scale if scale else x.b.double()
        for x, scale in zip(given.lowranks, given.scales, strict=True)
    ]
    return Coordinates((Block(eyes, None, name=".lora_A"), Block(own_b, eyes, name=".lora_B")), back)


def _factored(x: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of a delta from its factors: U (O, q), S (q,), V (I, q), in float64."""
    import torch

    q_b, r_b = torch.linalg.qr(x.b.double())
    q_a, r_a = torch.linalg.qr(x.a.double().T)
    p, sigma, t = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return q_b @ p, sigma, q_a @ t.T


def _balanced(x: LowRank) -> tuple[Tensor, Tensor]:
    """The two canonical factors of a delta: U sqrt(S), V sqrt(S)."""
    u, sigma, v = _factored(x)
    return u * sigma.sqrt(), v * sigma.sqrt()


def _common(factors: Sequence[Tensor], cut: float) -> Tensor:
    """An orthonormal basis of what all factors side by side reach, by importance: (side, q) float64."""
    import torch

    from sabir.lora.lowrank import canonical_signs

    q, r = torch.linalg.qr(torch.cat(list(factors), dim=1))
    p, sigma, _ = torch.linalg.svd(r, full_matrices=False)
    real = int((sigma > cut * sigma[0]).sum()) if sigma.numel() else 0
    basis = q @ p[:, :real]
    return basis * canonical_signs(basis)


def _between(outputs: Tensor, inputs: Tensor, lowranks: Sequence[LowRank]) -> Coordinates:
    """The deltas as matrices between two bases, U'ΔW_iV."""
    import torch

    from sabir.lora.lowrank import LowRank, truncate

    lefts = [outputs.T @ x.b.double() for x in lowranks]
    rights = [x.a.double() @ inputs for x in lowranks]
    sizes = [float(torch.linalg.matrix_norm(left @ right)) for left, right in zip(lefts, rights, strict=True)]

    def back(merged: Sequence[Tensor], rank: int | None) -> Truncation:
        return truncate(LowRank(outputs.float(), (merged[0].double() @ inputs.T).float()), rank)

    return Coordinates((Block(lefts, rights, floor=ROUNDING * max(sizes)),), back)
