"""Rows 1 and 2: KnOTS-TIES of five adapters of Llama-3.1-8B's shapes, adapter to adapter, by the real command."""

from __future__ import annotations

import statistics
import sys

from measure import Row, Settings, Side, empty, make, read_once, run

ADAPTERS = 5


def knots16(settings: Settings) -> list[Row]:
    return _rows(settings, 16, [(1.0, 30.0, 1000.0), (0.2, 180.0, 3000.0)])


def knots64(settings: Settings) -> list[Row]:
    return _rows(settings, 64, [(1.0, 180.0, 3000.0), (0.2, 180.0, 3000.0)])


def _rows(settings: Settings, rank: int, cases: list[tuple[float, float, float]]) -> list[Row]:
    """One row per (density, reach in seconds, reach in MB)."""
    rank = settings.rank(rank)
    inputs = empty(settings.folder) / "adapters"
    make(settings, "adapters", inputs, shapes="llama-3.1-8b", count=ADAPTERS, rank=rank)
    rows = []
    for density, most_s, most_mb in cases:
        walls, peaks, inside = [], [], []
        for _ in range(settings.repeats):
            out = settings.folder / "merged"
            read_once(inputs)
            command = [sys.executable, "-m", "sabir", "merge", *map(str, sorted(inputs.iterdir()))]
            command += ["--recipe", "ties-knots", "--density", str(density), "--out", str(out), "--json"]
            done = run(command, settings.threads)
            walls.append(done.wall_s)
            peaks.append(done.peak_mb)
            inside.append(done.document["wall_s"])
            empty(out).rmdir()
        ours = Side("sabir merge", statistics.median(walls), max(peaks))
        rows.append(
            Row(
                f"KnOTS-TIES, density {density:g}, {ADAPTERS} adapters, r = {rank}, of Llama-3.1-8B",
                ours,
                None,
                f"< {most_s:g} s, < {most_mb / 1000:g} GB",
                ours.seconds < most_s and ours.peak_mb < most_mb,
                [f"without starting Python {statistics.median(inside):.1f} s", f"runs: {settings.repeats}"],
            )
        )
    return rows
