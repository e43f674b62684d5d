"""Merging as it is defined, on dense float64 matrices: slow, and meant to be obviously right."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

Dense = dict[str, list[np.ndarray]]


def dense_delta(folder: Path) -> dict[str, np.ndarray]:
    """scale * B @ A of every module; no patterns."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    tensors = {
        name: t.to(torch.float64).numpy()
        for name, t in load_file(folder / "adapter_model.safetensors").items()
    }
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): scale
        * tensors[name.replace("lora_A", "lora_B")]
        @ tensors[name]
        for name in tensors
        if name.endswith("lora_A.weight")
    }


def knots_coordinates(deltas: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """U and the pieces Σ V_iᵀ of the SVD of all deltas side by side."""
    u, sigma, vt = np.linalg.svd(np.concatenate(deltas, axis=1), full_matrices=False)
    real = sigma > 2.0**-23 * sigma[0]
    u, sigma, vt = u[:, real], sigma[real], vt[real]
    for j in range(u.shape[1]):
        if u[np.argmax(np.abs(u[:, j])), j] < 0:
            u[:, j], vt[j] = -u[:, j], -vt[j]
    width = deltas[0].shape[1]
    values = sigma[:, None] * vt
    values[np.abs(values) <= 1e-13 * sigma[:1]] = 0  # float64's rounding of a zero
    return u, [values[:, i * width : (i + 1) * width] for i in range(len(deltas))]


def kept(density: float, seed: int, digest: str, module: str, position: int) -> bool:
    """DARE's coin for one position: word `position` of the stream of this seed, adapter and module."""
    key = hashlib.sha256(f"sabir drop 1\n{seed}\n{digest}\n{module}".encode()).digest()[:16]
    stream = np.random.Philox(key=int.from_bytes(key, "little"))
    word = int(stream.random_raw(position // 2 + 1)[-1])
    return (word >> (32 * (position % 2))) & 0xFFFFFFFF < density * 2**32


def merge_dense(
    deltas: Dense,
    method: str,
    space: str,
    weights: list[float],
    digests: list[str],
    *,
    density: float = 1.0,
    scale: float = 1.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The merged delta of every module, by a loop over positions."""
    n = len(weights)
    bases, stacks = {}, {}
    for module, each in deltas.items():
        bases[module], stacks[module] = (
            (np.eye(each[0].shape[0]), each) if space == "delta" else knots_coordinates(each)
        )
    if method == "ties":
        for i in range(n):
            sizes = np.sort(np.abs(np.concatenate([stacks[m][i].ravel() for m in stacks])))[::-1]
            threshold = sizes[max(1, int(Fraction(str(density)) * len(sizes))) - 1]
            # a float64 entry may stand a rounding below the float32 threshold it was rounded to
            for module in stacks:
                v = stacks[module][i]
                stacks[module][i] = np.where(np.abs(v) >= threshold * (1 - 1e-9), v, 0)
    if method in ("dare", "dare_ties") and density < 1:
        for module in stacks:
            for i in range(n):
                v = stacks[module][i]
                coins = [kept(density, seed, digests[i], module, p) for p in range(v.size)]
                stacks[module][i] = np.where(np.reshape(coins, v.shape), v / density, 0)
    combine = _elected if method in ("ties", "dare_ties") else _summed
    merged = combine({m: np.stack(v) for m, v in stacks.items()}, weights)
    return {module: scale * bases[module] @ merged[module] for module in merged}


def _summed(stacks: dict[str, np.ndarray], weights: list[float]) -> dict[str, np.ndarray]:
    return {m: sum(w * v for w, v in zip(weights, stack, strict=True)) for m, stack in stacks.items()}


def _elected(stacks: dict[str, np.ndarray], weights: list[float]) -> dict[str, np.ndarray]:
    signs = {}
    for module, stack in stacks.items():
        signs[module] = np.zeros(stack.shape[1:])
        for place in np.ndindex(*stack.shape[1:]):
            entries = [w * v for w, v in zip(weights, stack[(slice(None), *place)], strict=True)]
            if abs(sum(entries)) > 1e-6 * sum(map(abs, entries)):
                signs[module][place] = np.sign(sum(entries))
    majority = np.sign(sum(s.sum() for s in signs.values()))
    merged = {}
    for module, stack in stacks.items():
        merged[module] = np.zeros(stack.shape[1:])
        for place in np.ndindex(*stack.shape[1:]):
            sign = signs[module][place] or majority
            entries = [
                (w, v) for w, v in zip(weights, stack[(slice(None), *place)], strict=True) if sign * w * v > 0
            ]
            if entries:
                merged[module][place] = sum(w * v for w, v in entries) / sum(abs(w) for w, _ in entries)
    return merged
