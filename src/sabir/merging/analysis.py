"""What adapters look like before they are merged, from their factors: one read a module, never a dense matrix.

Every module's delta is brought to its canonical form U S V' first (thin QR of both factors, one r x r SVD),
so nothing here depends on how a delta was split into B and A. After that only inner products of bases, R x R.

Shapes: n adapters; k_i the numerical rank of adapter i's delta (O, I) in a module, K their sum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from sabir.errors import InputError
from sabir.lora.files import Adapter
from sabir.lora.lowrank import LowRank
from sabir.lora.write import SERVED_RANKS
from sabir.merging.by_module import layer_of
from sabir.merging.findings import findings
from sabir.merging.ops import CANCELS
from sabir.merging.threads import one_thread

RANKS = (8, 16, 32, 64, 128, 256, 512)
POSITIONS = 4096  # a module; a share over 224 modules is then known to 0.001 or better
SHARES = (0.9, 0.99)  # of the energy, for which the rank that keeps them is told


def analyze(
    adapters: Mapping[str, Adapter],
    *,
    ranks: Sequence[int] = RANKS,
    positions: int = POSITIONS,
    on_module: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Norms, cosines, shared spaces, sign conflicts and energy by rank of some adapters: a JSON-able document.

    Check them first, as for a merge. Where an adapter lacks a module, it is absent there. What is not defined
    (the cosine of a zero adapter, say) is None. Directions below `CANCELS` of a delta's strongest are rounding
    and left out. The order of the adapters changes no bit; rows are sorted by name.

    Args:
        ranks: for which the energy kept is told; added are the largest rank of an adapter, R (the largest sum of
            ranks in a module), and the largest rank servers take where R is above it.
        positions: entries sampled in each module for the sign conflicts; a module that has no more is
            counted whole.
        on_module: called with (modules done, modules in total) after each module.
    Returns:
        adapters: a row each: name, digest, rank (the largest), modules (their number), missing (modules that
            every other adapter has and this one lacks), saved (tensors trained whole: no deltas), norm
            (Frobenius norm of the whole delta), by_layer (rows of layer and norm; layer None outside the
            layers), by_kind (norm by the last part of the module name), effective_rank (of its own delta, see
            `effective_rank`; mean over modules weighted by energy).
        pairs: a row each: a, b, same_content, cosine (of the whole deltas), by_layer, by_kind, inputs and
            outputs (overlap of row and of column spaces: squared cosine of the principal angles, 0 none to 1
            same, mean over the smaller rank's directions in all modules both change; and the overlap by
            chance of random spaces of these sizes), signs (as below, for the two of them).
        inputs: effective_rank of the orthonormal row bases of all adapters stacked: mean and least over
            modules, with the mean of what one shared row space and independent ones would give (shared =
            largest rank, independent = sum of ranks, at most I); and reading, a sentence.
        signs: positions (sampled in total), conflict (share of positions where signs differ, of those where
            two adapters or more have an entry), losing (share of sum |v| whose sign has less magnitude at its
            position, at most 0.5; of the same positions), each with its standard error (0 where all was
            counted); and what independent entries of equal size would give (adapters of zero left out).
            Modules count by their size.
        energy: rank (R); kept (rows of rank, total, by_adapter: energy inside the top directions of output of
            [dW_1|...|dW_n], the same number in each module, as a share); rank_for (rows of share, total,
            by_adapter: the least rank that keeps that share).
        findings: sentences to act on.
    Raises InputError when there is no adapter, for a rank below 1 and fewer than 2 positions.
    Source: principal angles: Björck & Golub, https://doi.org/10.1090/S0025-5718-1973-0348991-3; the SVD of all
    side by side: KnOTS, https://arxiv.org/abs/2410.19735; effective rank: see `effective_rank`.
    """
    if not adapters:
        raise InputError("adapters", "none given.", "Name one or more.")
    for name, numbers, least in (("ranks", ranks, 1), ("positions", [positions], 2)):
        if any(number < least for number in numbers):
            raise InputError(name, f"expected {least} or more, got {min(numbers)!r}.")
    names = sorted(adapters)
    modules = sorted({module for adapter in adapters.values() for module in adapter.modules})
    facts = []
    with one_thread():
        for done, module in enumerate(modules, start=1):
            holders = {i: adapters[name] for i, name in enumerate(names) if module in adapters[name].shapes}
            present = {i: adapter.read(module) for i, adapter in holders.items()}
            facts.append(_facts(module, present, len(names), positions))
            if on_module:
                on_module(done, len(modules))
    document = {
        "adapters": _adapter_rows(names, adapters, modules, facts),
        "pairs": _pair_rows(names, adapters, facts),
        "inputs": _stacked_inputs(facts),
        "signs": _signs_together(facts),
        "energy": _energy_by_rank(names, adapters, facts, ranks),
    }
    return {**document, "findings": findings(document)}


# --- one module ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Facts:
    """What one module adds to the whole. Arrays are float64; an absent adapter's entries are 0.

    Args:
        shape: (O, I).
        inner: (n, n) inner products of the deltas.
        ranks: (n,) numerical ranks k_i.
        inputs, outputs: (n, n) sums of the squared cosines of the principal angles.
        own: (n,) effective rank of each delta.
        stacked: effective rank of the stacked row bases, in [0, min(K, I)].
        kept: (n, K) energy of each delta in each output direction of all side by side, strongest first.
        signs: moments of the conflicts, see `_moments`: of all together under None, of a pair under (i, j).
        sampled: entries looked at.
    """

    module: str
    shape: tuple[int, int]
    inner: np.ndarray
    ranks: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    own: np.ndarray
    stacked: float
    kept: np.ndarray
    signs: Mapping[tuple[int, int] | None, np.ndarray]
    sampled: int


def effective_rank(sigma: np.ndarray) -> float:
    """How many directions singular values amount to: exp of the entropy of sigma / sum(sigma); 0 for none.

    1 when one stands alone, their number when all are equal.
    Source: Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
    """
    positive = sigma[sigma > 0]
    p = positive / positive.sum()
    return float(np.exp(-(p * np.log(p)).sum())) if positive.size else 0.0


def sampled_positions(module: str, shape: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the entries looked at in a module: all when there are no more than `count`.

    Else drawn with replacement, by a counter-based generator keyed by the module's name alone.
    Source: Philox, https://doi.org/10.1145/2063384.2063405; a position's chance is even to 2^-15 of itself.
    """
    rows, columns = shape
    if rows * columns <= count:
        every = np.divmod(np.arange(rows * columns), columns)
        return every[0], every[1]
    key = hashlib.sha256(f"sabir positions 1\n{module}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(key[:16], "little")).random_raw(count)
    upper, lower = (words >> np.uint64(32)).astype(np.int64), (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return upper * rows >> 32, lower * columns >> 32


def _facts(module: str, present: Mapping[int, LowRank], n: int, positions: int) -> _Facts:
    """One module's facts.

    With D = diag(S) of all deltas: inner products are D (U'U * V'V) D summed by blocks, and the Gram matrix
    D U'U D has the squared singular values of [dW_1|...|dW_n] as eigenvalues; the j-th direction holds
    eigenvalue_j times (share of its eigenvector in block i) of adapter i.
    """
    shape = next(iter(present.values())).shape
    owners, forms = list(present), [_canonical(x) for x in present.values()]
    counts = torch.tensor([len(form.sigma) for form in forms])
    sigma = torch.cat([form.sigma for form in forms])  # (K,)
    outputs = _gram([form.q_b for form in forms], [form.left for form in forms])  # U'U, (K, K)
    inputs = _gram([form.q_a for form in forms], [form.right for form in forms])  # V'V, (K, K)
    member = torch.zeros(n, len(sigma), dtype=torch.float64)  # which adapter a direction belongs to
    member[torch.tensor(owners).repeat_interleave(counts), torch.arange(len(sigma))] = 1
    weighted = sigma[:, None] * outputs * sigma
    energies, vectors = torch.linalg.eigh(weighted)  # weakest first
    stacked = torch.linalg.eigvalsh(inputs).clamp(min=0).sqrt()
    own = np.zeros(n)
    own[owners] = [effective_rank(form.sigma.numpy()) for form in forms]
    rows, columns = sampled_positions(module, shape, positions)
    entries = {i: _entries(x, rows, columns) for i, x in present.items()}
    return _Facts(
        module=module,
        shape=shape,
        inner=(member @ (weighted * inputs) @ member.T).numpy(),
        ranks=member.sum(1).numpy(),
        inputs=(member @ inputs.square() @ member.T).numpy(),
        outputs=(member @ outputs.square() @ member.T).numpy(),
        own=own,
        stacked=effective_rank(stacked.numpy()),
        kept=(member @ vectors.square() * energies.clamp(min=0)).flip(1).numpy(),
        signs=_sign_moments(entries, shape[0] * shape[1], len(rows)),
        sampled=len(rows),
    )


@dataclass(frozen=True, eq=False)
class _Canonical:
    """A delta as (q_b left) diag(sigma) (q_a right)', float64: q_b (O, p), q_a (I, q), left (p, k), right (q, k)."""

    q_b: torch.Tensor
    q_a: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    sigma: torch.Tensor


def _canonical(x: LowRank) -> _Canonical:
    """Directions below `CANCELS` of the strongest are rounding of float32 factors and cut."""
    q_b, r_b = torch.linalg.qr(x.b.double())
    q_a, r_a = torch.linalg.qr(x.a.double().T)
    p, sigma, t = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    real = int((sigma > CANCELS * sigma[:1]).sum())
    return _Canonical(q_b, q_a, p[:, :real], t[:real].T, sigma[:real])


def _gram(bases: Sequence[torch.Tensor], turns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Inner products of the columns of all (base @ turn), the long axis summed once."""
    stacked, turn = torch.cat(list(bases), dim=1), torch.block_diag(*turns)
    return turn.T @ (stacked.T @ stacked) @ turn


def _entries(x: LowRank, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Single entries of a delta, float64. One that its terms cancel to rounding (`CANCELS`) is 0."""
    terms = x.b[torch.from_numpy(rows)].double() * x.a[:, torch.from_numpy(columns)].T.double()
    values = terms.sum(1)
    return values.where(values.abs() > CANCELS * terms.abs().sum(1), 0.0).numpy()


def _sign_moments(
    entries: Mapping[int, np.ndarray], size: int, sampled: int
) -> dict[tuple[int, int] | None, np.ndarray]:
    """Moments of sign conflicts among all adapters of a module (None) and in each pair: (2, 5) arrays."""
    groups: dict[tuple[int, int] | None, np.ndarray] = {
        pair: np.stack([entries[pair[0]], entries[pair[1]]]) for pair in combinations(sorted(entries), 2)
    }
    if len(entries) > 1:
        groups[None] = np.stack([entries[i] for i in sorted(entries)])
    return {group: _conflicts(values, size, sampled) for group, values in groups.items()}


def _conflicts(values: np.ndarray, size: int, sampled: int) -> np.ndarray:
    """Moments of positions in conflict and of magnitude on the losing side, for values (adapters, sampled)."""
    plus, minus = values.clip(min=0).sum(0), -values.clip(max=0).sum(0)
    contested = (values != 0).sum(0) > 1
    conflict = (values > 0).any(0) & (values < 0).any(0)
    return np.stack(
        [
            _moments(conflict.astype(float), contested.astype(float), size, sampled),
            _moments(np.minimum(plus, minus), (plus + minus) * contested, size, sampled),
        ]
    )


def _moments(x: np.ndarray, y: np.ndarray, size: int, sampled: int) -> np.ndarray:
    """Estimated totals of x and y over a module of `size` entries, and the variances of both and covariance.

    (total x, total y, var x, cov, var y); no variance where every entry was counted. They add up over modules.
    """
    if sampled == size:
        return np.array([x.sum(), y.sum(), 0.0, 0.0, 0.0])
    (vx, c), (_, vy) = np.cov(x, y)
    return np.array([size * x.mean(), size * y.mean(), *(size**2 / sampled * np.array([vx, c, vy]))])


# --- all modules -----------------------------------------------------------------------------------------


def _adapter_rows(
    names: Sequence[str], adapters: Mapping[str, Adapter], modules: Sequence[str], facts: Sequence[_Facts]
) -> list[dict[str, Any]]:
    holders = {module: [name for name in names if module in adapters[name].shapes] for module in modules}
    rows = []
    for i, name in enumerate(names):
        energies = np.array([one.inner[i, i] for one in facts])
        total = float(energies.sum())
        own = float(sum(one.own[i] * one.inner[i, i] for one in facts))
        rows.append(
            {
                "name": name,
                "digest": adapters[name].digest,
                "rank": max(adapters[name].ranks.values(), default=0),
                "modules": len(adapters[name].modules),
                "missing": [
                    module
                    for module in modules
                    if name not in holders[module] and len(holders[module]) == len(names) - 1
                ],
                "saved": sorted(adapters[name].saved),
                "norm": math.sqrt(total),
                "by_layer": [
                    {"layer": layer, "norm": math.sqrt(inner[i, i])}
                    for layer, inner in _inner_by(facts, _layer)
                ],
                "by_kind": {kind: math.sqrt(inner[i, i]) for kind, inner in _inner_by(facts, _kind)},
                "effective_rank": own / total if total > 0 else None,
            }
        )
    return rows


def _pair_rows(
    names: Sequence[str], adapters: Mapping[str, Adapter], facts: Sequence[_Facts]
) -> list[dict[str, Any]]:
    whole = sum(one.inner for one in facts)
    return [
        {
            "a": names[i],
            "b": names[j],
            "same_content": adapters[names[i]].digest == adapters[names[j]].digest,
            "cosine": _cosine(whole, i, j),
            "by_layer": [
                {"layer": layer, "cosine": _cosine(inner, i, j)} for layer, inner in _inner_by(facts, _layer)
            ],
            "by_kind": {kind: _cosine(inner, i, j) for kind, inner in _inner_by(facts, _kind)},
            "inputs": _overlap([(one.inputs[i, j], one.ranks[[i, j]], one.shape[1]) for one in facts]),
            "outputs": _overlap([(one.outputs[i, j], one.ranks[[i, j]], one.shape[0]) for one in facts]),
            "signs": _shares(one.signs.get((i, j)) for one in facts),
        }
        for i, j in combinations(range(len(names)), 2)
    ]


def _layer(module: str) -> int:
    """The layer of a module for sorting: -1 outside the layers."""
    layer = layer_of(module)
    return -1 if layer is None else layer


def _kind(module: str) -> str:
    return module.rpartition(".")[2]


def _inner_by(facts: Sequence[_Facts], group: Callable[[str], Any]) -> list[tuple[Any, np.ndarray]]:
    """Inner products summed over the modules of each group, sorted; the group -1 is called None."""
    sums: dict[Any, Any] = {}
    for one in facts:
        sums[group(one.module)] = sums.get(group(one.module), 0.0) + one.inner
    return [(None if key == -1 else key, sums[key]) for key in sorted(sums)]


def _cosine(inner: Any, i: int, j: int) -> float | None:
    """None where a delta is zero."""
    norms = math.sqrt(inner[i, i]) * math.sqrt(inner[j, j])
    return float(np.clip(inner[i, j] / norms, -1.0, 1.0)) if norms > 0 else None


def _overlap(parts: Iterable[tuple[float, np.ndarray, int]]) -> dict[str, float | None]:
    """Overlap of two spaces over modules, from (sum of squared cosines, the two ranks, side) of each."""
    squared, chance, angles = 0.0, 0.0, 0.0
    for one, (k_i, k_j), side in parts:
        squared += one
        chance += k_i * k_j / side
        angles += min(k_i, k_j)
    if not angles:
        return {"overlap": None, "chance": None}
    return {"overlap": float(min(1.0, squared / angles)), "chance": float(chance / angles)}


def _shares(parts: Iterable[np.ndarray | None]) -> dict[str, float | None]:
    """Shares of conflicts with standard errors: a ratio of totals, its variance by linearisation."""
    found = [part for part in parts if part is not None]
    sums = sum(found) if found else np.zeros((2, 5))
    shares: dict[str, float | None] = {}
    for name, (x, y, var_x, cov, var_y) in zip(("conflict", "losing"), sums, strict=True):  # type: ignore[arg-type]
        ratio = float(x / y) if y > 0 else None
        error = None
        if ratio is not None:
            error = math.sqrt(max(0.0, var_x - 2 * ratio * cov + ratio**2 * var_y)) / float(y)
        shares |= {name: ratio, f"{name}_standard_error": error}
    return shares


def _signs_together(facts: Sequence[_Facts]) -> dict[str, Any]:
    """Conflicts among all adapters, beside what independent normal entries of equal size would give."""
    n = int(np.any([one.ranks > 0 for one in facts], axis=0).sum())  # those that are not zero
    return {
        "positions": sum(one.sampled for one in facts),
        **_shares(one.signs.get(None) for one in facts),
        "independent_conflict": 1 - 2.0 ** (1 - n) if n > 1 else None,
        "independent_losing": (1 - n**-0.5) / 2 if n > 1 else None,
    }


def _stacked_inputs(facts: Sequence[_Facts]) -> dict[str, Any]:
    """Effective rank of the stacked row bases over the modules where some delta is not zero."""
    rows = [
        (one.stacked, one.ranks.max(), min(one.ranks.sum(), one.shape[1])) for one in facts if one.ranks.any()
    ]
    if not rows:
        empty = dict.fromkeys(("mean", "least", "shared", "independent"))
        return {"effective_rank": empty, "reading": "All adapters are zero: they read no input."}
    mean, shared, independent = (float(value) for value in np.mean(rows, axis=0))
    ranks = {
        "mean": mean,
        "least": float(min(row[0] for row in rows)),
        "shared": shared,
        "independent": independent,
    }
    return {"effective_rank": ranks, "reading": _reading(mean, shared, independent)}


def _reading(mean: float, shared: float, independent: float) -> str:
    told = (
        f"Together they read {mean:.1f} input directions a module ({shared:.4g} if all were shared, "
        f"{independent:.4g} if independent)"
    )
    if independent <= shared:
        return f"{told}."
    apart = (mean - shared) / (independent - shared)  # 0: one row space, 1: independent
    if apart < 0.1:
        return f"{told}: nearly one shared space, so most of a weighted sum fits in rank {shared:.4g}."
    if apart > 0.9:
        return f"{told}: nearly independent spaces, so a sum of them needs the sum of the ranks."
    return f"{told}: partly shared spaces."


def _energy_by_rank(
    names: Sequence[str], adapters: Mapping[str, Adapter], facts: Sequence[_Facts], ranks: Sequence[int]
) -> dict[str, Any]:
    """Energy kept when every module keeps its q strongest output directions."""
    together = max(
        (sum(adapters[name].ranks.get(one.module, 0) for name in names) for one in facts), default=0
    )
    told = {*ranks, together, max(max(adapters[name].ranks.values(), default=0) for name in names)} - {0}
    if together > SERVED_RANKS[-1]:
        told.add(SERVED_RANKS[-1])
    by_direction = np.zeros((len(names), max((one.kept.shape[1] for one in facts), default=0) + 1))
    for one in facts:
        by_direction[:, 1 : one.kept.shape[1] + 1] += one.kept
    curves = by_direction.cumsum(1)  # (n, 1 + directions): energy kept by rank 0, 1, ...
    total = curves.sum(0)
    return {
        "rank": together,
        "kept": [
            {
                "rank": rank,
                "total": _share_at(total, rank),
                "by_adapter": {
                    name: _share_at(curve, rank) for name, curve in zip(names, curves, strict=True)
                },
            }
            for rank in sorted(told)
        ],
        "rank_for": [
            {
                "share": share,
                "total": _rank_for(total, share),
                "by_adapter": {
                    name: _rank_for(curve, share) for name, curve in zip(names, curves, strict=True)
                },
            }
            for share in SHARES
        ],
    }


def _share_at(curve: np.ndarray, rank: int) -> float | None:
    return float(curve[min(rank, len(curve) - 1)] / curve[-1]) if curve[-1] > 0 else None


def _rank_for(curve: np.ndarray, share: float) -> int | None:
    return int((curve < share * curve[-1]).sum()) if curve[-1] > 0 else None
