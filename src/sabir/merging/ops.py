"""The moves that elementwise merge methods are made of, on plain tensors.

Everywhere n adapters lie along the first axis: values are (n, rows, columns) float32, weights (n,).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

# A sum this small beside the sum of magnitudes is rounding: it counts as 0. Some 8 float32 roundings.
CANCELS = 1e-6
COIN = 1 << 32


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Each adapter times its weight, summed: (rows, columns)."""
    return (values * weights[:, None, None]).sum(0)


def trim(values: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Keep the entries at least as large as their adapter's threshold; zero the rest.

    Source: step 1 of TIES, https://arxiv.org/abs/2306.01708.
    """
    import numpy as np
    import torch

    kept = torch.empty_like(values)
    for value, threshold, out in zip(values, thresholds, kept, strict=True):
        below = float(np.nextafter(np.float32(threshold), np.float32(0)))  # hardshrink keeps what is larger
        torch.hardshrink(value, below, out=out) if threshold > 0 else out.copy_(value)
    return kept


def coins(*, seed: int, digest: str, module: str, start: int, count: int) -> ndarray:
    """A number in [0, 2^32) for each of `count` positions from `start` on, uint32.

    A counter-based generator keyed by seed, adapter and module and indexed by position: tiles, threads,
    order and the other adapters change nothing.
    Source: Philox, https://doi.org/10.1145/2063384.2063405.
    """
    import numpy as np

    key = hashlib.sha256(f"sabir drop 1\n{seed}\n{digest}\n{module}".encode()).digest()
    block, skip = divmod(start, 8)  # one counter gives 256 bits
    bits = np.random.Philox(key=int.from_bytes(key[:16], "little"), counter=block)
    words = bits.random_raw((skip + count + 7) // 8 * 4).astype("<u8", copy=False).view("<u4")
    return words[skip : skip + count]


def keep_mask(density: float, *, seed: int, digest: str, module: str, start: int, count: int) -> Tensor:
    """Which of `count` entries from position `start` on are kept, each with probability `density`: bool."""
    import torch

    drawn = coins(seed=seed, digest=digest, module=module, start=start, count=count)
    return torch.from_numpy(drawn < round(density * COIN))


def chance_by_rank(sizes: Tensor, density: float, epsilon: float) -> Tensor:
    """The chance of each entry to be kept: density ± epsilon by the rank of its magnitude within its row.

    Args:
        sizes: (rows, columns) magnitudes, rows whole.
        epsilon: the smallest of a row has density - epsilon, the largest density + epsilon.
    Source: DELLA, https://arxiv.org/abs/2406.11617.
    """
    columns = sizes.shape[-1]
    if columns == 1:
        return sizes.new_full(sizes.shape, density)
    ranks = sizes.argsort(stable=True, dim=-1).argsort(-1)
    return (density - epsilon) + ranks.to(sizes.dtype) / (columns - 1) * (2 * epsilon)


class Sides(NamedTuple):
    """What the adapters say of each position, apart for those above zero and those below: (rows, columns).

    Args:
        votes: the sum that elects the sign.
        magnitudes: the sum of magnitudes behind the votes.
        above, below: sums of the entries on that side, weighted.
        shares_above, shares_below: what each side's sum is divided by.
    """

    votes: Tensor
    magnitudes: Tensor
    above: Tensor
    below: Tensor
    shares_above: Tensor
    shares_below: Tensor


def sides(values: Tensor, turns: Sequence[float], rest: Sequence[float], shares: Sequence[float]) -> Sides:
    """Both sides' sums in one pass.

    Args:
        turns: factor of each adapter before it takes sides and votes.
        rest: factor of its entries after that.
        shares: what it adds to its side's divisor.
    """
    blank = [values.new_zeros(values.shape[1:]) for _ in range(6)]
    votes, magnitudes, above, below, shares_above, shares_below = blank
    for value, turn, factor, share in zip(values, turns, rest, shares, strict=True):
        turned = value if turn == 1 else value * turn
        votes += turned
        up = turned.clamp_min(0)
        down = turned - up
        magnitudes += up
        magnitudes -= down
        above.add_(up, alpha=factor)
        below.add_(down, alpha=factor)
        shares_above.add_(up.sign_(), alpha=share)
        shares_below.sub_(down.sign_(), alpha=share)
    return Sides(*blank)


def votes(values: Tensor, turns: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The sum that elects each sign, and the sum of magnitudes behind it: of `sides`, no more than these."""
    sums, magnitudes = (values.new_zeros(values.shape[1:]) for _ in range(2))
    for value, turn in zip(values, turns, strict=True):
        turned = value if turn == 1 else value * turn
        sums += turned
        magnitudes += turned.abs()
    return sums, magnitudes


def elect(sums: Tensor, magnitudes: Tensor) -> Tensor:
    """The sign of each sum, (rows, columns); 0 where it is zero or cancels to rounding.

    Source: step 2 of TIES, https://arxiv.org/abs/2306.01708.
    """
    return sums.sign().mul_(sums.abs() > CANCELS * magnitudes)


def agreeing(found: Sides, signs: Tensor, *, adds_up: bool) -> Tensor:
    """The mean of the entries on the elected side; 0 where no sign was elected.

    Args:
        signs: +1, -1 or 0, (rows, columns).
        adds_up: their sum instead.
    Source: step 3 of TIES, https://arxiv.org/abs/2306.01708.
    """
    up = signs > 0
    total = found.above.where(up, found.below).mul_(signs.abs())
    if not adds_up:
        share = found.shares_above.where(up, found.shares_below)
        total /= share.masked_fill_(share == 0, 1.0)
    return total


class Directions(NamedTuple):
    """The singular directions a matrix really has: u (rows, q), sigma (q,), v (columns, q)."""

    u: Tensor
    sigma: Tensor
    v: Tensor

    @property
    def rank(self) -> int:
        return self.sigma.shape[0]

    @property
    def mean(self) -> Tensor:
        """The mean singular value; 0 of a matrix of zeros."""
        return self.sigma.sum() / max(1, self.rank)

    def top(self, count: int) -> Directions:
        return Directions(self.u[:, :count], self.sigma[:count], self.v[:, :count])


def directions(x: Tensor) -> Directions:
    """The singular directions of a matrix, without those below 1e-6 of the largest: they are rounding."""
    import torch

    u, sigma, vt = torch.linalg.svd(x, full_matrices=False)
    rank = int((sigma > CANCELS * sigma[:1]).sum()) if sigma.numel() else 0
    return Directions(u[:, :rank], sigma[:rank], vt[:rank].T)


def polar(x: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns on the directions x has; its other directions stay zero."""
    found = directions(x)
    return found.u @ found.v.T
