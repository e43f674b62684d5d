"""Every row of the merging benchmark, all sides in the same run, as a Markdown table.

    python benchmarks/merging/run.py [--rows knots16,fold] [--small] [--device cuda] [--out FILE.json]

Rows: knots16, knots64, module, ties-svd, mergekit, threshold. --small divides every shape by 16: a smoke run whose
figures mean nothing. The machine should be otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fold
import knots
import module
import threshold
import ties_svd
from measure import Row, Settings

ROWS: dict[str, Callable[[Settings], list[Row]]] = {
    "knots16": knots.knots16,
    "knots64": knots.knots64,
    "module": module.module,
    "ties-svd": ties_svd.ties_svd,
    "mergekit": fold.fold,
    "threshold": threshold.threshold,
}
ON_DEVICE = ("module", "ties-svd", "threshold")  # the rows that --device moves
HEAD = "| work | ours (s) | ours (MB) | peer | peer (s) | peer (MB) | ratio | reach | met |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: " + ", ".join(ROWS))
    parser.add_argument("--small", action="store_true", help="every shape divided by 16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of every side; they get as many cores")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each whole command of ours")
    parser.add_argument(
        "--folder", type=Path, help="where temporary folders go; 45 GB are needed for mergekit"
    )
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; known are {', '.join(ROWS)}")
    if arguments.device == "cuda":
        names = [name for name in names if name in ON_DEVICE]
        if subprocess.run(
            [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
        ).returncode:
            parser.error("torch sees no GPU here; leave --device out")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

    about = machine(arguments.threads, arguments.device)
    print(", ".join(f"{key} {value}" for key, value in about.items()) + "\n", flush=True)
    print(HEAD + "\n" + "|---" * HEAD.count(" | ") + "|---|", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sabir-merging-", dir=arguments.folder) as folder:
        settings = Settings(
            Path(folder),
            shrink=16 if arguments.small else 1,
            device=arguments.device,
            threads=arguments.threads,
            repeats=arguments.repeats,
        )
        for name in names:
            made = ROWS[name](replace(settings, folder=Path(folder) / name))
            shutil.rmtree(Path(folder) / name, ignore_errors=True)
            if arguments.small:
                made = [replace(row, met=None) for row in made]
            rows += made
            print("\n".join(map(line, made)), flush=True)
    print()
    for row in rows:
        print(f"- {row.work}: {'; '.join(row.notes)}.")
    if arguments.out:
        document = {"machine": about, "small": arguments.small, "rows": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def line(row: Row) -> str:
    """A row of the table."""
    peer = ("", "", "", "")
    if row.peer is not None:
        ratio = row.peer.seconds / row.ours.seconds
        peer = (row.peer.name, f"{row.peer.seconds:.3g}", f"{row.peer.peak_mb:.0f}", f"{ratio:.1f}")
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    cells = (
        row.work,
        f"{row.ours.seconds:.3g}",
        f"{row.ours.peak_mb:.0f}",
        *peer,
        row.reach,
        met,
    )
    return f"| {' | '.join(cells)} |"


def machine(threads: int, device: str) -> dict[str, str]:
    """What the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    about = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": str(cores),
        "threads": str(threads),
        "memory": f"{memory:.0f} GiB",
        "device": device,
        "Python": platform.python_version(),
    }
    for package in ("torch", "numpy", "peft", "mergekit", "transformers"):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "missing"
    return about


if __name__ == "__main__":
    main()
