"""The moves that elementwise merge methods are made of, on plain tensors.

Everywhere n adapters lie along the first axis: values are (n, rows, columns) float32, weights (n,).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# A sum this small beside the sum of magnitudes is rounding: it counts as 0. Some 8 float32 roundings.
CANCELS = 1e-6
HALF = 1 << 16


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Each adapter times its weight, summed: (rows, columns)."""
    return (values * weights[:, None, None]).sum(0)


def trim(values: Tensor, threshold: Tensor) -> Tensor:
    """Keep the entries at least as large as their adapter's threshold; zero the rest.

    Args:
        threshold: (n,) smallest magnitude kept, see `magnitude_at`.
    Source: step 1 of TIES, https://arxiv.org/abs/2306.01708.
    """
    return values * (values.abs() >= threshold[:, None, None])


def kept_count(density: float, total: int) -> int:
    """How many of `total` entries a density keeps: floor(density * total), at least 1.

    Computed on the decimal as written: 0.29 of 100 is 29, where floats would say 28.
    """
    return min(total, max(1, int(Fraction(repr(float(density))) * total)))


def magnitude_at(tiles: Callable[[], Iterable[Tensor]], density: float) -> Tensor:
    """The magnitude of the floor(density * N)-th largest entry of each adapter, exactly: (n,).

    Two passes over the tiles, a histogram each: of the upper, then of the lower 16 bits of |x|. The bits
    of floats >= 0 sort like integers, and histograms add up, so nothing is held but one tile.

    Args:
        tiles: gives the tiles, (n, rows, columns) float32, anew each time it is called.
    """
    import torch

    upper = torch.stack([_histogram(tile, None) for tile in tiles()]).sum(0)  # (n, 65536)
    wanted = torch.tensor([kept_count(density, int(row.sum())) for row in upper])
    bins, missing = _from_the_top(upper, wanted)
    lower = torch.stack([_histogram(tile, bins) for tile in tiles()]).sum(0)
    last, _ = _from_the_top(lower, missing)
    return (bins * HALF + last).to(torch.int32).view(torch.float32)


def _histogram(values: Tensor, bins: Tensor | None) -> Tensor:
    """Counts of the upper half of |values| as bits, or of the lower half where the upper one is in `bins`."""
    import torch

    counts = []
    for i, value in enumerate(values):
        bits = value.abs().contiguous().view(torch.int32).flatten()
        upper = bits >> 16
        counted = upper if bins is None else bits[upper == bins[i]] & (HALF - 1)
        counts.append(torch.bincount(counted, minlength=HALF).cpu())
    return torch.stack(counts)


def _from_the_top(counts: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The bin that holds the wanted-th largest entry, and which entry of that bin it is."""
    above_or_in = counts.flip(1).cumsum(1).flip(1)  # entries in this bin or a larger one
    found = (above_or_in >= wanted[:, None]).sum(1) - 1
    rows = found[:, None]
    return found, wanted - (above_or_in.gather(1, rows) - counts.gather(1, rows))[:, 0]


def keep_mask(density: float, *, seed: int, digest: str, module: str, start: int, count: int) -> Tensor:
    """Which of `count` entries from position `start` on are kept, each with probability `density`: bool.

    A counter-based generator keyed by seed, adapter and module and indexed by position: tiles, threads,
    order and the other adapters change nothing.
    Source: Philox, https://doi.org/10.1145/2063384.2063405; the resolution is 2^-32.
    """
    import numpy as np
    import torch

    key = hashlib.sha256(f"sabir drop 1\n{seed}\n{digest}\n{module}".encode()).digest()
    block, skip = divmod(start, 8)  # one counter gives 256 bits
    bits = np.random.Philox(key=int.from_bytes(key[:16], "little"), counter=block)
    words = bits.random_raw((skip + count + 7) // 8 * 4).astype("<u8").view("<u4")
    return torch.from_numpy(words[skip : skip + count] < round(density * 2**32))


def drop(values: Tensor, mask: Tensor, density: float) -> Tensor:
    """Zero what the mask does not keep and divide the rest by the density: the same in expectation.

    Source: DARE, https://arxiv.org/abs/2311.03099.
    """
    return values * mask / density


def elect(values: Tensor, weights: Tensor) -> Tensor:
    """The sign of each weighted sum, (rows, columns); 0 where it is zero or cancels to rounding.

    Source: step 2 of TIES, https://arxiv.org/abs/2306.01708.
    """
    weighted = values * weights[:, None, None]
    sums = weighted.sum(0)
    return sums.sign() * (sums.abs() > CANCELS * weighted.abs().sum(0))


def contested(signs: Tensor, values: Tensor) -> Tensor:
    """Positions without a sign where some adapter has a value: bool, (rows, columns)."""
    return (signs == 0) & (values != 0).any(0)


def average_agreeing(values: Tensor, signs: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of the entries that have the elected sign; 0 where none has.

    A negative weight turns its adapter round: it is divided by its size.
    Source: step 3 of TIES, https://arxiv.org/abs/2306.01708. Departs: divides by the sum of the agreeing
    weights, which is their count when weights are equal.
    """
    weighted = values * weights[:, None, None]
    agree = (weighted.sign() == signs) & (signs != 0)
    share = (agree * weights.abs()[:, None, None]).sum(0)
    return (weighted * agree).sum(0) / share.where(share > 0, 1.0)
