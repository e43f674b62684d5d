"""Row 5: TIES in delta space, density 0.2, folded into a float32 base of Llama-3.2-1B's shapes, against mergekit.

    python fold.py OURS THEIRS BASE       how far two folded models are apart, on some tensors, as JSON

Both programs run as their own commands, from the same adapters, in the same dialect. mergekit first folds every
adapter into a whole base of its own (`model+lora`), on disk; when the last of these was written is told apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Row, Run, Settings, Side, empty, make, read_once, run, script

if TYPE_CHECKING:
    from torch import Tensor

ADAPTERS, RANK, DENSITY = 5, 16, 0.2
SHAPES = "llama-3.2-1b"
REACH, REACH_MEMORY = 5, 3
# Compared in the first and last layer, beside an embedding and a norm that no adapter touches.
COMPARED = ("self_attn.q_proj", "mlp.down_proj")


def fold(settings: Settings) -> list[Row]:
    folder = empty(settings.folder)
    rank = settings.rank(RANK)
    base = make(settings, "base", folder / "base", shapes=SHAPES)
    inputs = make(
        settings, "adapters", folder / "adapters", shapes=SHAPES, count=ADAPTERS, rank=rank, base=base
    )
    adapters = sorted(inputs.iterdir())

    walls, peaks = [], []
    for _ in range(settings.repeats):
        ours_out = folder / "ours"
        shutil.rmtree(ours_out, ignore_errors=True)
        read_once(base, inputs)
        command = [sys.executable, "-m", "sabir", "merge", *map(str, adapters), "--method", "ties"]
        command += ["--dialect", "mergekit", "--density", str(DENSITY), "--rank", "fold", "--base", str(base)]
        done = run([*command, "--out", str(ours_out), "--json"], settings.threads)
        walls.append(done.wall_s)
        peaks.append(done.peak_mb)
    ours = Side("sabir merge", statistics.median(walls), max(peaks))

    read_once(base, inputs)
    done = _mergekit(settings, folder, base, adapters)
    started = time.time() - done.wall_s
    folded_s = max(path.stat().st_mtime for path in (folder / "cache").rglob("*")) - started
    merged_s = done.wall_s - folded_s
    apart = run(script("fold.py", ours_out, folder / "mergekit", base), settings.threads).document
    theirs = Side("mergekit-yaml", done.wall_s, done.peak_mb)
    row = Row(
        f"TIES, density {DENSITY:g}, {ADAPTERS} adapters, r = {rank}, folded into a float32 Llama-3.2-1B",
        ours,
        theirs,
        f"{REACH} x faster, 1/{REACH_MEMORY} of the memory",
        theirs.seconds / ours.seconds >= REACH and theirs.peak_mb / ours.peak_mb >= REACH_MEMORY,
        [
            f"memory {theirs.peak_mb / ours.peak_mb:.1f} x",
            f"of mergekit's time {folded_s:.1f} s went into starting and folding the adapters into bases, "
            f"{merged_s:.1f} s into the merge, {merged_s / ours.seconds:.1f} x ours",
            f"largest difference {apart['largest']:.1e}, entries more than 1e-7 apart {apart['share_apart']:.1e}, "
            f"deltas {apart['relative']:.1e} apart",
        ],
    )
    return [row]


def _mergekit(settings: Settings, folder: Path, base: Path, adapters: list[Path]) -> Run:
    """mergekit's own command on the CPU; its folded bases lie in FOLDER/cache."""
    config = {
        "merge_method": "ties",
        "base_model": str(base),
        "models": [
            {"model": f"{base}+{path}", "parameters": {"weight": 1.0, "density": DENSITY}}
            for path in adapters
        ],
        "dtype": "float32",
    }
    (folder / "mergekit.yaml").write_text(json.dumps(config), encoding="utf-8")
    out = empty(folder / "mergekit")
    command = [str(Path(sys.executable).with_name("mergekit-yaml")), str(folder / "mergekit.yaml"), str(out)]
    command += ["--lora-merge-cache", str(folder / "cache"), "--no-copy-tokenizer"]
    return run(command, settings.threads)


def compare(ours: Path, theirs: Path, base: Path) -> dict[str, float]:
    """The largest difference, the share of entries more than 1e-7 apart, and all relative to the merged delta."""
    largest, apart, entries, difference, norm = 0.0, 0, 0, 0.0, 0.0
    files = [_files(folder) for folder in (ours, theirs, base)]
    layers = sorted({int(name.split(".")[2]) for name in files[2] if name.startswith("model.layers.")})
    modules = [f"model.layers.{layer}.{kind}" for layer in (layers[0], layers[-1]) for kind in COMPARED]
    for name in [
        *(f"{module}.weight" for module in modules),
        "model.embed_tokens.weight",
        "model.norm.weight",
    ]:
        a, b, untouched = (_read(found[name], name).double() for found in files)
        gap = (a - b).abs()
        largest = max(largest, float(gap.max()))
        apart += int((gap > 1e-7).sum())
        entries += gap.numel()
        difference += float(gap.square().sum())
        norm += float((b - untouched).square().sum())
    return {"largest": largest, "share_apart": apart / entries, "relative": (difference / norm) ** 0.5}


def _files(model: Path) -> dict[str, Path]:
    """The file of each tensor of a model."""
    from safetensors import safe_open

    found = {}
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found.update(dict.fromkeys(file.keys(), path))
    return found


def _read(path: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("base", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(compare(arguments.ours, arguments.theirs, arguments.base)))


if __name__ == "__main__":
    main()
