"""Row 4: TIES in delta space to a rank-16 adapter of one 4096 x 4096 module, against PEFT's `ties_svd`.

    python ties_svd.py ours|peft|compare FOLDER --density 0.2 [--device cuda]

PEFT merges in a model of one linear layer, its adapters loaded beforehand; ours opens the adapters and merges them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Row, Settings, alternated, empty, make, run, script

if TYPE_CHECKING:
    from torch import Tensor

ADAPTERS, SIDE, RANK = 5, 4096, 16
DENSITIES = (0.2, 1.0)
REACH, REACH_ERROR = 8, 1.01
ROUNDS = 1
OURS_REPEATS = 5


def ties_svd(settings: Settings) -> list[Row]:
    folder = empty(settings.folder)
    rank, side = settings.rank(RANK), SIDE // settings.shrink
    make(settings, "adapters", folder / "adapters", shapes=str(SIDE), count=ADAPTERS, rank=rank)
    rows = []
    for density in DENSITIES:
        with_density = ("--density", density)
        commands = {
            "sabir.merging": script("ties_svd.py", "ours", folder, *with_density),
            "peft ties_svd": script(
                "ties_svd.py", "peft", folder, *with_density, "--device", settings.device
            ),
        }
        done = alternated(settings, commands, rounds=ROUNDS)
        (ours, _), (peft, _) = done.values()
        errors = run(script("ties_svd.py", "compare", folder, *with_density), settings.threads).document
        rows.append(
            Row(
                f"TIES, density {density:g}, of one {side} x {side} module, {ADAPTERS} adapters, to rank {rank}",
                ours,
                peft,
                f"{REACH} x faster, error at most {REACH_ERROR:g} of the optimum",
                peft.seconds / ours.seconds >= REACH and errors["ours"] <= REACH_ERROR,
                [
                    f"truncation error over the optimum: ours {errors['ours']:.5f}, peft {errors['peft']:.5f}",
                    f"the optimum keeps {errors['energy_kept']:.3f} of the energy",
                ],
            )
        )
    return rows


def merge_ours(folder: Path, density: float) -> None:
    from safetensors.torch import save_file

    from sabir.lora.files import open_adapter
    from sabir.merging.choices import make_recipe
    from sabir.merging.recipe import merge

    recipe = make_recipe("ties", settings={"density": density}, rank=_rank(folder))
    seconds = []
    for _ in range(OURS_REPEATS + 1):
        started = time.perf_counter()
        adapters = {path.name: open_adapter(path) for path in _folders(folder)}
        [(_, merged)] = list(merge(recipe, adapters))
        seconds.append(time.perf_counter() - started)
    save_file({"a": merged.a.contiguous(), "b": merged.b.contiguous()}, folder / "ours.safetensors")
    print(json.dumps({"seconds": seconds[1:]}))


def merge_peft(folder: Path, density: float, device: str) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import save_file

    class OneLayer(torch.nn.Module):
        def __init__(self, side: int):
            super().__init__()
            self.layer = torch.nn.Linear(side, side, bias=False)

    folders = _folders(folder)
    side = _delta(folders[0]).shape[0]
    model = PeftModel.from_pretrained(OneLayer(side), folders[0], adapter_name=folders[0].name).to(device)
    for path in folders[1:]:
        model.load_adapter(path, adapter_name=path.name)
    names = [path.name for path in folders]
    torch.linalg.svd(torch.randn(64, 64, device=device))  # what starts with the first call is not counted
    started = time.perf_counter()
    model.add_weighted_adapter(
        names, [1.0] * len(names), "merged", "ties_svd", density=density, svd_rank=_rank(folder)
    )
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = [time.perf_counter() - started]
    layer = model.base_model.model.layer
    b, a = layer.lora_B["merged"].weight, layer.lora_A["merged"].weight
    scaled = b.detach().cpu() * layer.scaling["merged"]
    save_file({"a": a.detach().cpu().contiguous(), "b": scaled.contiguous()}, folder / "peft.safetensors")
    print(json.dumps({"seconds": seconds}))


def compare(folder: Path, density: float) -> None:
    """Error of both truncations of PEFT's own merged delta, over the error of the optimal one (float64)."""
    import torch
    from peft.utils.merge_utils import ties
    from safetensors.torch import load_file

    values = [_delta(path) for path in _folders(folder)]
    merged = ties(values, torch.ones(len(values)), density).double()
    total = float(merged.square().sum())
    largest = torch.linalg.eigvalsh(merged.T @ merged)[-_rank(folder) :]
    optimum = (total - float(largest.sum())) ** 0.5
    found = {"energy_kept": float(largest.sum()) / total}
    for name in ("ours", "peft"):
        factors = load_file(folder / f"{name}.safetensors")
        found[name] = float((merged - factors["b"].double() @ factors["a"].double()).norm()) / optimum
    print(json.dumps(found))


def _folders(folder: Path) -> list[Path]:
    return sorted((folder / "adapters").iterdir())


def _rank(folder: Path) -> int:
    """Rank of the inputs, and of the result."""
    return json.loads((_folders(folder)[0] / "adapter_config.json").read_text("utf-8"))["r"]


def _delta(path: Path) -> Tensor:
    """The dense delta of an adapter of one module."""
    from safetensors.torch import load_file

    config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    tensors = load_file(path / "adapter_model.safetensors")
    [a] = [value for name, value in tensors.items() if name.endswith("lora_A.weight")]
    [b] = [value for name, value in tensors.items() if name.endswith("lora_B.weight")]
    return b @ a * (config["lora_alpha"] / config["r"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "peft", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--density", type=float, required=True)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.side == "ours":
        merge_ours(arguments.folder, arguments.density)
    elif arguments.side == "peft":
        merge_peft(arguments.folder, arguments.density, arguments.device)
    else:
        compare(arguments.folder, arguments.density)


if __name__ == "__main__":
    main()
