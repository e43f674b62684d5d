"""Merging as it is defined, on dense float64 matrices: slow, and meant to be obviously right.

Shapes: O outputs, I inputs; v is the matrix of one adapter and module in the coordinates of a space.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors.torch import load_file

CUT = 2.0**-23  # singular directions below this share of the largest are rounding
NOISE = 1e-13  # entries below this share of the largest singular value are a float64 rounding of zero
CANCELLED = 1e-6  # a sum below this share of the sum of its magnitudes has no sign
ONE_ROUNDING = 1 - 1e-9  # a float64 entry may stand a rounding below the float32 threshold it was rounded to

Settings = Mapping[str, Any]
Stack = dict[str, dict[str, ndarray]]  # module -> adapter -> v

ELECTING = ("ties", "dare_ties", "della", "breadcrumbs_ties", "sce")
SPECTRAL = ("tsv", "iso_c", "iso_cts")
DEFAULTS: dict[str, dict[str, Any]] = {
    "linear": {},
    "ties": {"density": 1.0, "trim_over": "adapter"},
    "magnitude": {"density": 0.2, "trim_over": "adapter"},
    "dare": {"density": 0.2, "seed": 0},
    "dare_ties": {"density": 0.2, "trim_density": 1.0, "seed": 0},
    "della": {"density": 0.4, "epsilon": 0.15, "seed": 0},
    "della_linear": {"density": 0.4, "epsilon": 0.15, "seed": 0},
    "breadcrumbs": {"density": 0.9, "outliers": 0.01, "trim_over": "module"},
    "breadcrumbs_ties": {"density": 0.9, "outliers": 0.01, "trim_over": "module"},
    "sce": {"density": 0.1},
    "tsv": {},
    "iso_c": {},
    "iso_cts": {"common": 0.8},
}


# -- adapters as dense matrices -----------------------------------------------------------------------------


def dense_delta(folder: Path) -> dict[str, ndarray]:
    """scale * B @ A of every module, (O, I); rank_pattern shows in the shapes, alpha_pattern is looked up."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    deltas = {}
    for name in tensors:
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a = tensors[name].double().numpy()
        b = tensors[name.replace("lora_A", "lora_B")].double().numpy()
        alpha = config["lora_alpha"]
        for pattern, value in (config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                alpha = value
                break
        deltas[module] = alpha / (math.sqrt(len(a)) if config.get("use_rslora") else len(a)) * b @ a
    return deltas


# -- values by module ---------------------------------------------------------------------------------------


def value_at(value: Any, module: str, modules: list[str]) -> Any:
    """A setting or weight at one module: itself, a gradient over depth, or the first pattern that matches."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"depth"}:
        layers = [int(layer) for m in modules for layer in re.findall(r"(?<=\.)\d+(?=\.)", m)[:1]]
        layer = int(re.findall(r"(?<=\.)\d+(?=\.)", module)[0])
        first, last = min(layers), max(layers)
        place = (layer - first) / (last - first) if last > first else 0.0
        return float(np.interp(place, np.linspace(0, 1, len(value["depth"])), value["depth"]))
    parts = module.split(".")
    suffixes = [".".join(parts[i:]) for i in range(len(parts))]
    for pattern, inner in value.items():
        if any(fnmatch.fnmatchcase(suffix, pattern) for suffix in suffixes):
            return value_at(inner, module, modules)
    raise LookupError(f"no pattern matches {module}")


# -- spaces -------------------------------------------------------------------------------------------------


def _upright(u: ndarray) -> ndarray:
    """The columns, each with its largest entry positive."""
    return u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])


def _cleaned(v: ndarray, largest: float) -> ndarray:
    return np.where(np.abs(v) <= NOISE * largest, 0, v)


def _knots(deltas: dict[str, ndarray], rank: int | None) -> tuple[ndarray, dict[str, ndarray], ndarray]:
    """U and, for each adapter, Uᵀ ΔW = its piece Σ Vᵀ of the SVD of all deltas side by side."""
    u, sigma, _ = np.linalg.svd(np.concatenate(list(deltas.values()), axis=1), full_matrices=False)
    u = _upright(u[:, sigma > CUT * sigma[0]])
    pieces = {name: _cleaned(u.T @ d, sigma[0]) for name, d in deltas.items()}
    return u, pieces, np.eye(next(iter(deltas.values())).shape[1])


def _core(deltas: dict[str, ndarray], rank: int | None) -> tuple[ndarray, dict[str, ndarray], ndarray]:
    """Uᵀ ΔW V, where U are the left singular vectors of all factors U_i √S_i side by side, V likewise.

    Those are the eigenvectors of the sum of U_i S_i U_iᵀ = (ΔW_i ΔW_iᵀ)^½.
    """

    def shared(matrices: list[ndarray]) -> ndarray:
        side = len(matrices[0])
        total = np.zeros((side, side))
        for m in matrices:
            left, sigma, _ = np.linalg.svd(m, full_matrices=False)
            total += left * sigma @ left.T
        values, vectors = np.linalg.eigh(total)
        order = np.argsort(values)[::-1]
        return _upright(vectors[:, [j for j in order if values[j] > CUT**2 * values[order[0]]]])

    u = shared(list(deltas.values()))
    v = shared([d.T for d in deltas.values()])
    largest = max(np.linalg.norm(d, 2) for d in deltas.values())
    return u, {name: _cleaned(u.T @ d @ v, largest) for name, d in deltas.items()}, v.T


def _compressed(deltas: dict[str, ndarray], rank: int | None) -> tuple[ndarray, dict[str, ndarray], ndarray]:
    """Uᵀ ΔW V in the `rank` first left directions of [ΔW_1 | ... ] and right directions of [ΔW_1 ; ...]."""
    assert rank is not None

    def first(wide: ndarray) -> ndarray:
        u, sigma, _ = np.linalg.svd(wide, full_matrices=False)
        return _upright(u[:, sigma > CUT * sigma[0]][:, :rank])

    u = first(np.concatenate(list(deltas.values()), axis=1))
    v = first(np.concatenate([d.T for d in deltas.values()], axis=1))
    largest = max(np.linalg.norm(d, 2) for d in deltas.values())
    return u, {name: _cleaned(u.T @ d @ v, largest) for name, d in deltas.items()}, v.T


def _delta(deltas: dict[str, ndarray], rank: int | None) -> tuple[ndarray, dict[str, ndarray], ndarray]:
    rows, columns = next(iter(deltas.values())).shape
    return np.eye(rows), dict(deltas), np.eye(columns)


SPACES = {"delta": _delta, "knots": _knots, "core": _core, "compressed": _compressed}


# -- what becomes of one adapter's entries ------------------------------------------------------------------


def kept_count(density: float, total: int) -> int:
    """floor(density * total) of the density as it is written (0.29 * 100 is 29), at least 1."""
    return max(1, int(Fraction(str(density)) * total))


def sizes_of(values: list[ndarray]) -> ndarray:
    """All magnitudes, largest first."""
    return np.sort(np.abs(np.concatenate([v.ravel() for v in values])))[::-1]


def coins(seed: int, digest: str, module: str, count: int) -> ndarray:
    """One number in [0, 1) for each position: 32-bit words of the stream of this seed, adapter and module."""
    key = hashlib.sha256(f"sabir drop 1\n{seed}\n{digest}\n{module}".encode()).digest()[:16]
    pairs = np.random.Philox(key=int.from_bytes(key, "little")).random_raw((count + 1) // 2)
    words = np.stack([pairs & np.uint64(0xFFFFFFFF), pairs >> np.uint64(32)], axis=1).ravel()
    return words[:count] / 2.0**32


def keep_probability(v: ndarray, density: float, epsilon: float) -> ndarray:
    """DELLA's chance of each entry to stay: density -+ epsilon from the smallest to the largest of its row."""
    chances = np.full(v.shape, density)
    columns = v.shape[1]
    for row in range(v.shape[0]):
        order = np.argsort(np.abs(v[row]), kind="stable")
        for rank, column in enumerate(order):  # 0 = the smallest
            if columns > 1:
                chances[row, column] = density - epsilon + 2 * epsilon * rank / (columns - 1)
    return chances


def _trimmed(stacks: Stack, density: dict[str, float], trim_over: str) -> Stack:
    """Each adapter's entries at least as large as the floor(density * N)-th largest of the adapter or module."""
    thresholds: dict[tuple[str, str], float] = {}
    for name in {name for present in stacks.values() for name in present}:
        modules = [module for module in stacks if name in stacks[module]]
        for group in [modules] if trim_over == "adapter" else [[module] for module in modules]:
            sizes = sizes_of([stacks[module][name] for module in group])
            [share] = {density[module] for module in group}
            for module in group:
                thresholds[module, name] = sizes[kept_count(share, len(sizes)) - 1]
    return {
        module: {
            name: np.where(np.abs(v) >= thresholds[module, name] * ONE_ROUNDING, v, 0)
            for name, v in present.items()
        }
        for module, present in stacks.items()
    }


def _without_outliers(
    stacks: Stack, density: dict[str, float], outliers: dict[str, float], trim_over: str
) -> Stack:
    """Breadcrumbs: the floor(outliers * N) largest fall, of the others the floor(density * N) largest stay.

    Where fewer than that are left, fewer outliers fall: at density 1 all entries stay.
    """
    found: Stack = {module: {} for module in stacks}
    for name in {name for present in stacks.values() for name in present}:
        modules = [module for module in stacks if name in stacks[module]]
        for group in [modules] if trim_over == "adapter" else [[module] for module in modules]:
            sizes = sizes_of([stacks[module][name] for module in group])
            [share] = {density[module] for module in group}
            [top] = {outliers[module] for module in group}
            count = kept_count(share, len(sizes))
            first = min(int(Fraction(str(top)) * len(sizes)), len(sizes) - count)
            last = first + count - 1
            for module in group:
                size = np.abs(stacks[module][name])
                stays = (size * ONE_ROUNDING <= sizes[first]) & (size >= sizes[last] * ONE_ROUNDING)
                found[module][name] = np.where(stays, stacks[module][name], 0)
    return found


def _select(present: dict[str, ndarray], density: float) -> dict[str, ndarray]:
    """SCE's selection: the positions whose variance over the adapters is largest."""
    if density == 1:
        return present
    stack = np.stack(list(present.values()))
    variance = stack.var(axis=0)
    variance[variance <= CANCELLED**2 * (stack**2).mean(axis=0)] = 0
    count = int(Fraction(str(density)) * int(np.count_nonzero(variance)))
    if count == 0:
        return {name: np.zeros_like(v) for name, v in present.items()}
    threshold = np.sort(variance.ravel())[::-1][count - 1]
    return {name: np.where(variance >= threshold * ONE_ROUNDING, v, 0) for name, v in present.items()}


# -- how the adapters become one ----------------------------------------------------------------------------


def _summed(stacks: Stack, weights: Stack) -> dict[str, ndarray]:
    return {
        m: np.sum([weights[m][name] * v for name, v in present.items()], axis=0)
        for m, present in stacks.items()
    }


def _elected(stacks: Stack, weights: Stack, votes: Stack | None = None) -> dict[str, ndarray]:
    """The mean of the weighted entries that agree with the elected sign; `votes` elect in place of weights."""
    votes = votes or weights
    signs = {}
    for module, present in stacks.items():
        entries = np.stack([votes[module][name] * v for name, v in present.items()])
        total = entries.sum(axis=0)
        signs[module] = np.where(np.abs(total) > CANCELLED * np.abs(entries).sum(axis=0), np.sign(total), 0)
    majority = np.sign(sum(sign.sum() for sign in signs.values()))
    merged = {}
    for module, present in stacks.items():
        sign = np.where(signs[module] == 0, majority, signs[module])
        above, below = np.zeros(sign.shape), np.zeros(sign.shape)
        for name, v in present.items():
            w = weights[module][name]
            agrees = w * v * sign > 0
            above += np.where(agrees, w * v, 0)
            below += np.where(agrees, abs(w), 0)
        merged[module] = np.divide(above, below, out=np.zeros(sign.shape), where=below > 0)
    return merged


def _svd(m: ndarray, largest: float) -> tuple[ndarray, ndarray, ndarray]:
    """The SVD without directions that are rounding beside `largest`."""
    u, sigma, vt = np.linalg.svd(m, full_matrices=False)
    real = sigma > CUT * largest
    return u[:, real], sigma[real], vt[real].T


def _polar(directions: list[ndarray]) -> ndarray:
    """The matrix with orthonormal directions nearest to these columns."""
    u, sigma, vt = np.linalg.svd(np.concatenate(directions, axis=1), full_matrices=False)
    real = sigma > 1e-6 * sigma.max(initial=0)
    return u[:, real] @ vt[real]


def _tsv(weighted: list[tuple[float, ndarray]]) -> ndarray:
    parts = [(w, *_svd(m, float(np.linalg.norm(m, 2)))) for w, m in weighted]
    u, v = _polar([u for _, u, _, _ in parts]), _polar([v for _, _, _, v in parts])
    return u * np.concatenate([w * sigma for w, _, sigma, _ in parts]) @ v.T


def _iso_c(weighted: list[tuple[float, ndarray]]) -> ndarray:
    u, sigma, v = _svd(*_sum_of(weighted))
    return sigma.mean() * u @ v.T if len(sigma) else np.zeros(weighted[0][1].shape)


def _sum_of(weighted: list[tuple[float, ndarray]]) -> tuple[ndarray, float]:
    """The weighted sum, and the size beside which its singular values may be rounding."""
    total = np.sum([w * m for w, m in weighted], axis=0)
    size = max(np.linalg.norm(total, 2), 1e-9 * max(abs(w) * np.linalg.norm(m, 2) for w, m in weighted))
    return total, float(size)


def _iso_cts(weighted: list[tuple[float, ndarray]], common: float) -> ndarray:
    u, sigma, v = _svd(*_sum_of(weighted))
    n, q = len(weighted), len(sigma)
    own = round(Fraction(q - int(Fraction(str(common)) * q), n))
    shared = q - n * own
    lefts, sigmas, rights = [], [], []
    outside = np.eye(len(u)) - u[:, :shared] @ u[:, :shared].T
    for w, m in weighted:
        ui, si, vi = _svd(outside @ (w * m), abs(w) * float(np.linalg.norm(m, 2)))
        lefts, sigmas, rights = [*lefts, ui[:, :own]], [*sigmas, si[:own]], [*rights, vi[:, :own]]
    lefts, sigmas, rights = [*lefts, u[:, :shared]], [*sigmas, sigma[:shared]], [*rights, v[:, :shared]]
    every = np.concatenate(sigmas)
    return every.mean() * _polar(lefts) @ _polar(rights).T if len(every) else np.zeros(weighted[0][1].shape)


# -- the merge ----------------------------------------------------------------------------------------------


def merge_dense(
    adapters: Mapping[str, Mapping[str, ndarray]],
    method: str,
    space: str,
    *,
    weights: Mapping[str, Any],
    digests: Mapping[str, str],
    rank: Mapping[str, int] | None = None,
    settings: Settings | None = None,
) -> dict[str, ndarray]:
    """The merged delta (O, I) of every module that some adapter has, dialect `sabir`.

    Args:
        adapters: for each adapter, its deltas by module; modules may differ.
        weights: a number or value by module for each adapter; 0 is as if it were absent (there).
        digests: content digests, by which the draws are keyed.
        rank: of the shared subspaces of `compressed`, by module.
        settings: those of the method; numbers or values by module.
    """
    said = {"scale": 1.0, **DEFAULTS[method], **(settings or {})}
    modules = sorted({module for deltas in adapters.values() for module in deltas})
    at = {key: {m: value_at(value, m, modules) for m in modules} for key, value in said.items()}
    left, right, stacks, shares = {}, {}, {}, {}
    for m in modules:
        present = {name: deltas[m] for name, deltas in adapters.items() if m in deltas}
        if method == "sce":  # who lacks a module differs there from who has it
            zero = np.zeros_like(next(iter(present.values())))
            present = {name: deltas.get(m, zero) for name, deltas in adapters.items()}
        shares[m] = {name: value_at(weights[name], m, modules) for name in present}
        present = {name: d for name, d in present.items() if shares[m][name] != 0}
        if not any(d.any() for d in present.values()):  # no direction at all: zero, in every space
            present = {name: d for name, d in present.items() if space == "delta"}
        if present:
            left[m], stacks[m], right[m] = SPACES[space](present, (rank or {}).get(m))

    if method in ("ties", "magnitude"):
        stacks = _trimmed(stacks, at["density"], said["trim_over"])
    if method in ("breadcrumbs", "breadcrumbs_ties"):
        stacks = _without_outliers(stacks, at["density"], at["outliers"], said["trim_over"])
    if method in ("dare", "dare_ties", "della", "della_linear"):
        for m, present in stacks.items():
            for name, v in present.items():
                density = at["density"][m]
                if density < 1:
                    chance = np.full(v.shape, density)
                    if method.startswith("della"):
                        chance = keep_probability(v, density, at["epsilon"][m])
                    draws = coins(said["seed"], digests[name], m, v.size).reshape(v.shape)
                    stacks[m][name] = np.where(draws < chance, v / chance, 0)
    if method == "dare_ties" and said["trim_density"] != 1:
        stacks = _trimmed(stacks, at["trim_density"], "adapter")
    votes = None
    if method == "sce":
        stacks = {m: _select(present, at["density"][m]) for m, present in stacks.items()}
        votes = {m: dict.fromkeys(present, 1.0) for m, present in stacks.items()}
        for m, present in stacks.items():
            energy = {name: (v**2).mean() for name, v in present.items()}
            total = sum(energy.values()) or 1.0
            shares[m] = {name: shares[m][name] * energy[name] / total for name in present}

    if method in SPECTRAL:
        merged = {}
        for m, present in stacks.items():
            weighted = [(shares[m][name], v) for name, v in present.items()]
            if method == "tsv":
                merged[m] = _tsv(weighted)
            elif method == "iso_c":
                merged[m] = _iso_c(weighted)
            else:
                merged[m] = _iso_cts(weighted, at["common"][m])
    elif method in ELECTING:
        merged = _elected(stacks, shares, votes)
    else:
        merged = _summed(stacks, shares)
    return {
        m: at["scale"][m] * left[m] @ merged[m] @ right[m] if m in merged else np.zeros(_shape(adapters, m))
        for m in modules
    }


def _shape(adapters: Mapping[str, Mapping[str, ndarray]], module: str) -> tuple[int, ...]:
    return next(deltas[module].shape for deltas in adapters.values() if module in deltas)
