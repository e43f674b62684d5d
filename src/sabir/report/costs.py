"""What a run cost, by route: one adapter per language and a merge, or one adapter on everything.

A device is a place for one job at a time: a GPU, or a worker's share of the cores. Device time is the time
such a place was held; money is device time at one hourly price, and the fees that a step paid to others.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sabir.names import STRESS, UNSEEN

ROUTES = ("merged", "combined", "continued", "beside")  # beside: what serves neither, but to judge them
_BESIDE = re.compile(
    r"#|^stress/|^translated/|^select/|adapter/combined\[|/routed|/translate-test|/base\[|"
    rf"/({'|'.join((*STRESS, UNSEEN))})$"
)
COMPONENTS = ("train", "merge", "search", "evaluate")
KINDS = {
    "data": "train",
    "stress": "evaluate",
    "translated": "evaluate",
    "adapter": "train",
    "adopted": "train",
    "merged": "merge",
    "search": "search",
    "analysis": "evaluate",
    "select": "search",
    "judge": "evaluate",
    "changes": "evaluate",
}
NO_TIME = ("stress", "macro", "select", "judge", "changes")  # kinds that need not be measured to be estimated
RESUMABLE = ("adapter", "search")  # kinds whose broken-off attempts were work towards the finished step


def component(step: Mapping[str, Any]) -> str:
    """Which part of the work a step is: validation serves the search, test the report.

    Answers and scores of releases and of blame's merges are `evaluate`: they serve no choice among merges.
    """
    return KINDS.get(step["kind"]) or ("search" if step["name"].endswith("/valid") else "evaluate")


def route(step: Mapping[str, Any]) -> str:
    """ "combined" for the baseline and its evaluation, "continued" for the same trained on; "beside" for rivals, other
    trainings and other test sets; else "merged"."""
    name = step["name"]
    if "/merged/" in name and "#" not in name and name.endswith(("/test", "/valid")):
        return "merged"  # nearly all of twenty thousand steps
    if _BESIDE.search(name):
        return "beside"
    if "adapter/co" not in name:
        return "merged"
    return next(
        (baseline for baseline in ("combined", "continued") if f"adapter/{baseline}" in name), "merged"
    )


def makespan(durations: Iterable[float], devices: int) -> float:
    """Wall clock of independent jobs on equal devices, the longest first to the device that is free first."""
    busy = [0.0] * devices  # as a heap
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(busy, busy[0] + duration)
    return max(busy)


def cost_rows(
    steps: Iterable[Mapping[str, Any]],
    *,
    run: str,
    phase: str,
    devices: int,
    usd_per_hour: float | None,
    attempts: Iterable[Mapping[str, Any]] = (),
    measured: bool = True,
    complete: bool = True,
) -> list[dict[str, Any]]:
    """One row per route and component, and their totals, of the steps given (with `wall_s`, `device_s`, `fees_usd`).

    `wall_s` is the wall clock of a component on `devices` places, its steps side by side; `wall_s_unlimited`
    with a place for every step. Steps of one kind run side by side; kinds (answers, scores, means) and
    components follow one another.
    Args:
        attempts: name, kind, `wall_s` and `fees_usd` of what was begun and not finished. It was paid like the
            rest; the attempts at one step and the step itself follow one another.
        measured: False for a prediction. complete: False for a run that failed or was stopped.
    """
    clocks: dict[tuple[str, str], dict[str, dict[str, float]]] = {}  # by place, kind and step
    paid: dict[tuple[str, str], float] = {}
    fees: dict[tuple[str, str], float] = {}  # of the places that had any
    for step in (*steps, *attempts):
        place, name = (route(step), component(step)), step["name"]
        walls = clocks.setdefault(place, {}).setdefault(step["kind"], {})
        walls[name] = walls.get(name, 0.0) + step["wall_s"]
        paid[place] = paid.get(place, 0.0) + step.get("device_s", step["wall_s"])
        if step.get("fees_usd") is not None:
            fees[place] = fees.get(place, 0.0) + step["fees_usd"]
    rows = []
    for name in ROUTES:
        parts = []
        for part in COMPONENTS:
            if kinds := clocks.get((name, part)):
                each = [walls.values() for walls in kinds.values()]
                wall_s = sum(makespan(walls, devices) for walls in each)
                parts.append((part, wall_s, sum(map(max, each)), paid[name, part]))
        if parts:
            if own := [fee for (one, _), fee in fees.items() if one == name]:
                fees[name, "total"] = sum(own)
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
                "usd": usd(device_s, usd_per_hour, fees.get((name, part))),
                "measured": measured,
                "complete": complete,
            }
            for part, wall_s, unlimited, device_s in parts
        ]
    return rows


def usd(device_s: float | None, usd_per_hour: float | None, fees_usd: float | None = None) -> float | None:
    """Money for device time, and fees; without a price or time the fees alone, None where there are none either."""
    if device_s is None or usd_per_hour is None:
        return fees_usd
    return device_s / 3600 * usd_per_hour + (fees_usd or 0.0)


def in_full(
    cost: Mapping[str, Any], fingerprint: str, attempts: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The cost of a training or search with the time of the attempts it went on from.

    Its own `wall_s` begins at the last checkpoint, its `tokens` and `size` at the start: without the attempts
    a training that was killed and resumed looks faster than it is.
    """
    before = sum(attempt["wall_s"] for attempt in attempts if attempt["fingerprint"] == fingerprint)
    return {**cost, "wall_s": cost["wall_s"] + before, "device_s": cost["device_s"] + before}


class Rates:
    """Seconds per unit of size, from what earlier steps took: of the step of that name, else of its kind.

    A step's own rate is the better one, as a language's text has its own number of tokens per character. The
    median of the newest counts.
    Args:
        steps: name, kind, fingerprint, size and `wall_s` of steps that ran, the oldest first.
        attempts: name, kind, fingerprint and `wall_s` of what was begun and not finished.
    """

    RECENT = 12

    def __init__(self, steps: Iterable[Mapping[str, Any]], attempts: Iterable[Mapping[str, Any]] = ()):
        spent: dict[str, float] = {}
        for attempt in attempts:
            if attempt["kind"] in RESUMABLE:
                spent[attempt["fingerprint"]] = spent.get(attempt["fingerprint"], 0.0) + attempt["wall_s"]
        found: dict[tuple[str, str | None], list[float]] = {}
        for step in steps:
            if step.get("size") and step.get("wall_s") is not None:
                rate = (step["wall_s"] + spent.get(step["fingerprint"], 0.0)) / step["size"]
                found.setdefault((step["kind"], None), []).append(rate)
                found.setdefault((step["kind"], step["name"]), []).append(rate)
        self._rates = {key: sorted(rates[-self.RECENT :]) for key, rates in found.items()}

    def seconds(self, kind: str, size: float | None, name: str | None = None) -> float | None:
        """Estimated seconds of a step, or None when none of its kind was ever measured."""
        rates = self._rates.get((kind, name)) or self._rates.get((kind, None))
        if not rates and self._rates and kind in NO_TIME:
            return 0.0
        return rates[len(rates) // 2] * size if rates and size else None
