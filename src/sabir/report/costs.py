"""What a run cost, by route: one adapter per language and a merge, or one adapter on everything.

A device is a place for one job at a time: a GPU, or a worker's share of the cores. Device time is the time
such a place was held; money is device time at one hourly price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COMPONENTS = ("train", "merge", "search", "evaluate")
KINDS = {
    "data": "train",
    "adapter": "train",
    "adopted": "train",
    "merged": "merge",
    "search": "search",
    "analysis": "evaluate",
    "select": "search",
    "judge": "evaluate",
}


def component(step: Mapping[str, Any]) -> str:
    """Which part of the work a step is: validation serves the search, test the report."""
    return KINDS.get(step["kind"]) or ("search" if step["name"].endswith("/valid") else "evaluate")


def route(step: Mapping[str, Any]) -> str:
    """ "combined" for the baseline and its evaluation, else "merged"."""
    return "combined" if "adapter/combined" in step["name"] else "merged"


def makespan(durations: Iterable[float], devices: int) -> float:
    """Wall clock of independent jobs on equal devices, the longest first to the device that is free first."""
    busy = [0.0] * devices
    for duration in sorted(durations, reverse=True):
        busy[busy.index(min(busy))] += duration
    return max(busy)


def cost_rows(
    steps: Sequence[Mapping[str, Any]],
    *,
    run: str,
    phase: str,
    devices: int,
    usd_per_hour: float | None,
    measured: bool = True,
    complete: bool = True,
) -> list[dict[str, Any]]:
    """One row per route and component, and their totals, of the steps given (with `wall_s` and `device_s`).

    `wall_s` is the wall clock of a component on `devices` places, its steps side by side; `wall_s_unlimited`
    with a place for every step. Steps of one kind run side by side; kinds (answers, scores, means) and
    components follow one another. `measured` is False for a
    prediction; `complete` is False for a run that failed or was stopped.
    """
    rows = []
    for name in ("merged", "combined"):
        parts = []
        for part in COMPONENTS:
            chosen = [step for step in steps if route(step) == name and component(step) == part]
            if not chosen:
                continue
            kinds = [
                [s["wall_s"] for s in chosen if s["kind"] == kind] for kind in {s["kind"] for s in chosen}
            ]
            clocks = (sum(makespan(walls, devices) for walls in kinds), sum(map(max, kinds)))
            parts.append((part, *clocks, sum(step["device_s"] for step in chosen)))
        if parts:
            parts.append(("total", *(sum(column) for column in list(zip(*parts, strict=True))[1:])))
        rows += [
            {
                "run": run,
                "phase": phase,
                "route": name,
                "component": part,
                "devices": devices,
                "wall_s": wall_s,
                "wall_s_unlimited": unlimited,
                "device_s": device_s,
                "usd": usd(device_s, usd_per_hour),
                "measured": measured,
                "complete": complete,
            }
            for part, wall_s, unlimited, device_s in parts
        ]
    return rows


def usd(device_s: float | None, usd_per_hour: float | None) -> float | None:
    """Money for device time, or None when there is no price or no time."""
    return None if device_s is None or usd_per_hour is None else device_s / 3600 * usd_per_hour


class Rates:
    """Seconds per unit of size by kind of step, from what earlier steps took; the newest ones count."""

    RECENT = 12

    def __init__(self, steps: Iterable[Mapping[str, Any]]):
        found: dict[str, list[float]] = {}
        for step in steps:
            if step.get("size") and step.get("wall_s") is not None:
                found.setdefault(step["kind"], []).append(step["wall_s"] / step["size"])
        self._rates = {kind: sorted(rates[-self.RECENT :]) for kind, rates in found.items()}

    def seconds(self, kind: str, size: float | None) -> float | None:
        """Estimated seconds of a step, or None when none of its kind was ever measured."""
        rates = self._rates.get(kind)
        return rates[len(rates) // 2] * size if rates and size else None
