"""Row 6: the exact trim threshold of 16.8 M float32 values at density 0.2, against topk, kthvalue and argsort.

    python threshold.py ours|topk|kthvalue|argsort [--side 4096] [--device cuda]

The values are a random delta of rank 16, signed; every side takes the magnitudes itself and gives one number.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from measure import Row, Settings, alternated, script

if TYPE_CHECKING:
    from torch import Tensor

SIDE, RANK, DENSITY = 4096, 16, 0.2
TILE = 1 << 18  # of a merge: tiles.TILE_VALUES
PEERS = ("topk", "kthvalue", "argsort")
REACH = 3
ROUNDS = 3
REPEATS = {"ours": 9, "topk": 5, "kthvalue": 5, "argsort": 2}


def threshold(settings: Settings) -> list[Row]:
    side = SIDE // settings.shrink
    commands = {
        name: script("threshold.py", name, "--side", side, "--device", settings.device)
        for name in ("ours", *PEERS)
    }
    done = alternated(settings, commands, rounds=ROUNDS)
    found = {name: {document["threshold"] for document in documents} for name, (_, documents) in done.items()}
    if len(set.union(*found.values())) != 1:
        raise RuntimeError(f"the thresholds differ: {found}")
    ours = done["ours"][0]
    best = min((done[name][0] for name in PEERS), key=lambda peer: peer.seconds)
    others = ", ".join(f"{name} {done[name][0].seconds:.3f} s" for name in PEERS)
    return [
        Row(
            f"exact threshold of {side * side / 1e6:.1f} M values, density {DENSITY:g}",
            ours,
            best,
            f"{REACH} x faster than the best",
            best.seconds / ours.seconds >= REACH,
            [others, "all results equal"],
        )
    ]


def find_ours(values: Tensor) -> float:
    """As a merge does it, on one thread: bounds from a sample, then one walk over tiles.

    Values on a GPU come over first.
    """
    import numpy as np

    from sabir.merging.order import largest, one_stream, sample_size

    flat = values.cpu().numpy().ravel()
    drawn = np.random.Generator(np.random.Philox(0)).integers(0, flat.size, sample_size(flat.size))
    sample = np.abs(flat[drawn])
    tiles = [flat[start : start + TILE] for start in range(0, flat.size, TILE)]
    [found] = largest(
        lambda limits: one_stream(tiles, limits), wanted=[_kept(values)], totals=[flat.size], samples=[sample]
    )
    return found.size


def find_topk(values: Tensor) -> float:
    magnitudes = values.abs().flatten()
    return float(magnitudes.topk(_kept(values), sorted=False).values.min())


def find_kthvalue(values: Tensor) -> float:
    magnitudes = values.abs().flatten()
    return float(magnitudes.kthvalue(magnitudes.numel() - _kept(values) + 1).values)


def find_argsort(values: Tensor) -> float:
    magnitudes = values.abs().flatten()
    return float(magnitudes[magnitudes.argsort(descending=True)[_kept(values) - 1]])


def _kept(values: Tensor) -> int:
    return int(DENSITY * values.numel())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side_name", choices=["ours", *PEERS])
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    import torch

    generator = torch.Generator().manual_seed(0)
    b, a = (
        torch.randn(shape, generator=generator) for shape in ((arguments.side, RANK), (RANK, arguments.side))
    )
    values = (b @ a * 1e-3).to(arguments.device)
    find = {"ours": find_ours, "topk": find_topk, "kthvalue": find_kthvalue, "argsort": find_argsort}
    found, seconds = 0.0, []
    for _ in range(REPEATS[arguments.side_name] + 1):
        started = time.perf_counter()
        found = find[arguments.side_name](values)  # a Python float: a GPU has finished
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds[1:], "threshold": found}))


if __name__ == "__main__":
    main()
