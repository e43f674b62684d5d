"""Row 3: one 1024 x 1024 module, five adapters of rank 16: KnOTS-TIES from the factors against dense, as published.

    python module.py ours|dense|compare FOLDER [--device cuda]

Ours opens the adapters and merges them; dense has its deltas in memory. Each prints its times as JSON, the first,
in which libraries start, left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Row, Settings, alternated, empty, make, run, script

if TYPE_CHECKING:
    from torch import Tensor, dtype

ADAPTERS, SIDE, RANK = 5, 1024, 16
REACH = 300
ROUNDS = 3
OURS_REPEATS, DENSE_REPEATS = 9, 1


def module(settings: Settings) -> list[Row]:
    folder = empty(settings.folder)
    rank = settings.rank(RANK)
    make(settings, "adapters", folder / "adapters", shapes=str(SIDE), count=ADAPTERS, rank=rank)
    commands = {
        "sabir.merging": script("module.py", "ours", folder),
        "dense KnOTS": script("module.py", "dense", folder, "--device", settings.device),
    }
    done = alternated(settings, commands, rounds=ROUNDS)
    (ours, _), (dense, _) = done.values()
    differ = run(script("module.py", "compare", folder), settings.threads).document
    side = SIDE // settings.shrink
    return [
        Row(
            f"KnOTS-TIES, density 1, of one {side} x {side} module, {ADAPTERS} adapters, r = {rank}",
            ours,
            dense,
            f"{REACH} x faster",
            dense.seconds / ours.seconds >= REACH,
            [
                f"relative difference {differ['dense']:.1e} to dense float32, {differ['dense64']:.1e} to dense float64"
            ],
        )
    ]


def merge_ours(folder: Path) -> None:
    from safetensors.torch import save_file

    from sabir.lora.files import open_adapter
    from sabir.merging.choices import make_recipe
    from sabir.merging.recipe import merge

    recipe = make_recipe("ties-knots", settings={"density": 1.0})
    seconds = []
    for _ in range(OURS_REPEATS + 1):
        started = time.perf_counter()
        adapters = {path.name: open_adapter(path) for path in sorted((folder / "adapters").iterdir())}
        [(_, merged)] = list(merge(recipe, adapters))
        seconds.append(time.perf_counter() - started)
    save_file({"a": merged.a.contiguous(), "b": merged.b.contiguous()}, folder / "ours.safetensors")
    print(json.dumps({"seconds": seconds[1:]}))


def merge_dense(folder: Path, device: str) -> None:
    import torch
    from safetensors.torch import save_file

    values = [x.to(device) for x in deltas(folder, torch.float32)]
    seconds = []
    for _ in range(DENSE_REPEATS + 1):
        started = time.perf_counter()
        merged = knots_ties(values)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    save_file({"merged": merged.cpu()}, folder / "dense.safetensors")
    print(json.dumps({"seconds": seconds[1:]}))


def compare(folder: Path) -> None:
    """How far ours is from dense, relative to its norm: float32 as timed, and float64."""
    import torch
    from safetensors.torch import load_file

    factors = load_file(folder / "ours.safetensors")
    ours = factors["b"].double() @ factors["a"].double()
    dense = load_file(folder / "dense.safetensors")["merged"].double()
    dense64 = knots_ties(deltas(folder, torch.float64))
    print(
        json.dumps(
            {
                "dense": float((ours - dense).norm() / dense.norm()),
                "dense64": float((ours - dense64).norm() / dense64.norm()),
            }
        )
    )


def deltas(folder: Path, kind: dtype) -> list[Tensor]:
    """The dense deltas of all adapters of one module."""
    from safetensors.torch import load_file

    found = []
    for path in sorted((folder / "adapters").iterdir()):
        config = json.loads((path / "adapter_config.json").read_text("utf-8"))
        tensors = load_file(path / "adapter_model.safetensors")
        [a] = [value for name, value in tensors.items() if name.endswith("lora_A.weight")]
        [b] = [value for name, value in tensors.items() if name.endswith("lora_B.weight")]
        found.append((b.to(kind) @ a.to(kind)) * (config["lora_alpha"] / config["r"]))
    return found


def knots_ties(values: list[Tensor]) -> Tensor:
    """KnOTS with TIES at density 1, on dense deltas. Source: https://arxiv.org/abs/2410.19735, algorithm 1."""
    import torch

    u, s, vt = torch.linalg.svd(torch.cat(values, dim=1), full_matrices=False)
    real = s > 1e-5
    u, right = u[:, real], s[real, None] * vt[real]
    aligned = torch.stack(right.split([x.shape[1] for x in values], dim=1))
    signs = aligned.sum(0).sign()
    signs = torch.where(signs == 0, signs.sum().sign(), signs)
    agree = aligned * signs > 0
    return u @ ((aligned * agree).sum(0) / agree.sum(0).clamp(min=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "dense", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.side == "ours":
        merge_ours(arguments.folder)
    elif arguments.side == "dense":
        merge_dense(arguments.folder, arguments.device)
    else:
        compare(arguments.folder)


if __name__ == "__main__":
    main()
