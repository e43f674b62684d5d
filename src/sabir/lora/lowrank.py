"""A delta as the product of two thin matrices, and what can be done to it without the dense matrix.

Shapes: O outputs, I inputs, r rank; Llama-3.1-8B's q_proj has O = I = 4096, an adapter r = 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EXACT_UP_TO = 512  # a dense matrix with a side this small is cut by a full SVD, a larger one by sampling
OVERSAMPLE = 16
POWER_ITERATIONS = 4


@dataclass(frozen=True, eq=False)
class LowRank:
    """One module's delta b @ a, with the adapter's scale folded into b.

    Args:
        b: (O, r) float32.
        a: (r, I) float32.
    """

    b: Tensor
    a: Tensor

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    def delta(self) -> Tensor:
        """The dense delta, (O, I) float32, multiplied in float64."""
        return (self.b.double() @ self.a.double()).float()


class Truncation(NamedTuple):
    """A delta cut to a rank, with its squared Frobenius norm after (`kept`) and before (`total`).

    Of what no rank was asked for, the norms were not taken: both are 0.
    """

    lowrank: LowRank
    kept: float
    total: float

    @property
    def share(self) -> float:
        """Energy kept, in [0, 1]; 1 for a delta of zeros."""
        return min(1.0, self.kept / self.total) if self.total > 0 else 1.0


def stack(parts: Sequence[LowRank], coefficients: Sequence[float] | None = None) -> LowRank:
    """The sum of several deltas, exactly, as one of rank sum(r): factors side by side.

    Args:
        coefficients: what each delta is multiplied by; 1 when not given.
    """
    weights = [1.0] * len(parts) if coefficients is None else coefficients
    b = torch.cat(
        [(part.b.double() * weight).float() for part, weight in zip(parts, weights, strict=True)], dim=1
    )
    return LowRank(b, torch.cat([part.a for part in parts], dim=0))


def inner(x: LowRank, y: LowRank) -> float:
    """The inner product of two deltas, tr((Bx'By)(AyAx')), in float64 and from the factors alone."""
    outputs = x.b.double().T @ y.b.double()  # (rx, ry)
    inputs = x.a.double() @ y.a.double().T  # (rx, ry)
    return float((outputs * inputs).sum())


def energy(x: LowRank) -> float:
    """The squared Frobenius norm of the delta, from the factors alone."""
    return max(0.0, inner(x, x))


def truncate(x: LowRank, rank: int | None) -> Truncation:
    """The nearest delta of at most that rank; untouched when it has no more already, or when it is None.

    Two thin QR and one small SVD, all in float64: error² is the sum of the squared singular values cut.
    """
    if rank is None:
        return Truncation(x, 0.0, 0.0)
    if x.rank <= rank:
        total = energy(x)
        return Truncation(x, total, total)
    q_b, r_b = torch.linalg.qr(x.b.double())
    q_a, r_a = torch.linalg.qr(x.a.double().T)
    p, sigma, t = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    u, vt = q_b @ p[:, :rank], t[:rank] @ q_a.T
    squares = sigma.square()
    return Truncation(_from_svd(u, sigma[:rank], vt), float(squares[:rank].sum()), float(squares.sum()))


def truncate_dense(delta: Tensor, rank: int | None) -> Truncation:
    """The nearest delta of that rank to a dense one, as factors; of its full rank when it is None.

    A full SVD when a side is at most `EXACT_UP_TO`; above it a randomised range finder, whose error is
    within 1 % of the optimum (tests). Nothing is drawn: the test matrix is the same in every run.

    Args:
        delta: (O, I) float32.
    Source: https://arxiv.org/abs/0909.4061, algorithm 4.4 (subspace iteration), then 5.1.
    """
    rows, columns = delta.shape
    total = float(torch.linalg.vector_norm(delta, dim=1).double().square().sum())
    if rank is None or rank >= min(rows, columns):
        eye = torch.eye(min(rows, columns), dtype=torch.float32, device=delta.device)
        whole = LowRank(delta.float(), eye) if columns <= rows else LowRank(eye, delta.float())
        return Truncation(whole, total, total)
    width = rank + max(OVERSAMPLE, rank // 4)
    if min(rows, columns) <= max(EXACT_UP_TO, width):
        u, sigma, vt = torch.linalg.svd(delta.double(), full_matrices=False)
    else:
        basis = _range(delta, width)  # (O, width) float32
        q, r = torch.linalg.qr((delta.T @ basis).double())  # (I, width), (width, width)
        p, sigma, t = torch.linalg.svd(r.T, full_matrices=False)
        u, vt = basis.double() @ p, t @ q.T
    kept = float(sigma[:rank].square().sum())
    return Truncation(_from_svd(u[:, :rank], sigma[:rank], vt[:rank]), kept, total)


def canonical_signs(u: Tensor) -> Tensor:
    """+1 or -1 per column: makes the largest entry of each column positive, so that an SVD is one thing."""
    if u.shape[1] == 0:
        return u.new_ones(0)
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(u.dtype)


def _from_svd(u: Tensor, sigma: Tensor, vt: Tensor) -> LowRank:
    signs = canonical_signs(u)
    return LowRank((u * (signs * sigma)).float(), (vt * signs[:, None]).float())


def _range(delta: Tensor, width: int) -> Tensor:
    """(O, width) orthonormal columns that hold nearly all of the leading directions of `delta`."""
    columns = delta.shape[1]
    bits = np.random.Philox(key=0).random_raw((columns * width + 63) // 64)
    coins = np.unpackbits(bits.astype("<u8").view(np.uint8))[: columns * width]
    signs = torch.from_numpy(coins.astype(np.float32) * 2 - 1).reshape(columns, width).to(delta.device)
    basis = torch.linalg.qr(delta @ signs).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(delta.T @ basis).Q
        basis = torch.linalg.qr(delta @ basis).Q
    return basis
