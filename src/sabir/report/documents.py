"""The JSON documents that programs read (what `--json` prints), from steps, records and ledger entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sabir.report.costs import Rates, makespan, route, usd

SCORE_FIELDS = ("metric", "value", "low", "high", "level", "n", "unscored", "signature")


def plan_document(
    steps: Sequence[Mapping[str, Any]],
    later: Iterable[str],
    warnings: Sequence[str],
    rates: Rates,
    *,
    phase: str,
    devices: int,
    usd_per_hour: float | None,
) -> dict[str, Any]:
    """The `plan` document.

    Args:
        steps: name, kind, fingerprint, status, why and size of each step, in order.
        later: names of steps that wait for the selection among merges.
        phase: what this run will be: setup, update, add or none.
    """
    rows = []
    for step in steps:
        seconds = 0.0 if step["status"] == "reused" else rates.seconds(step["kind"], step["size"])
        rows.append(
            {
                **{key: step[key] for key in ("name", "kind", "fingerprint", "status", "why")},
                "estimated_wall_s": seconds,
                "estimated_usd": usd(seconds, usd_per_hour),
            }
        )
    for name in later:
        rows.append(
            {
                "name": name,
                "kind": name.partition("/")[0] if "/" in name else "judge",
                "fingerprint": None,
                "status": "run",
                "why": "depends on the selection",
                "estimated_wall_s": None,
                "estimated_usd": None,
            }
        )
    totals = []
    for which, chosen in (("setup", steps), (phase, [step for step in steps if step["status"] == "run"])):
        for name in ("merged", "combined"):
            if which == phase and name == "combined":
                chosen = [step for step in steps if route(step) == "combined"]  # retraining takes all of it
            totals.append(_total(chosen, name, which, rates, devices, usd_per_hour))
        if phase == "setup":
            break
    return {"steps": rows, "totals": totals, "warnings": list(warnings)}


def _total(
    steps: Iterable[Mapping[str, Any]],
    name: str,
    phase: str,
    rates: Rates,
    devices: int,
    usd_per_hour: float | None,
) -> dict[str, Any]:
    estimates = [rates.seconds(s["kind"], s["size"]) for s in steps if route(s) == name and s["size"]]
    known = [seconds for seconds in estimates if seconds is not None]
    complete = len(known) == len(estimates)
    return {
        "route": name,
        "phase": phase,
        "estimated_wall_s": makespan(known, devices) if complete else None,
        "estimated_device_s": sum(known) if complete else None,
        "estimated_usd": usd(sum(known), usd_per_hour) if complete else None,
    }


def step_rows(
    steps: Iterable[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]], usd_per_hour: float | None
) -> list[dict[str, Any]]:
    """The `steps` of a run document: what each did, and what it cost when it ran.

    Args:
        steps: name, kind, fingerprint, status, why.
        records: what the store knows, by step name.
    """
    rows = []
    for step in steps:
        cost = records.get(step["name"], {}).get("cost", {})
        rows.append(
            {
                **{key: step[key] for key in ("name", "kind", "fingerprint", "status", "why")},
                "wall_s": cost.get("wall_s"),
                "device_s": cost.get("device_s"),
                "usd": usd(cost.get("device_s"), usd_per_hour),
                "tokens": cost.get("tokens"),
                "peak_bytes": cost.get("peak_bytes"),
                "size": cost.get("size"),
            }
        )
    return rows


def score_rows(task: str, seed: int, records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The `scores` of a document, from the records of `scores/<model>/<language>/<split>`."""
    rows = []
    for name, record in records.items():
        if record["kind"] not in ("scores", "macro"):
            continue
        model, language, split = name.removeprefix("scores/").rsplit("/", 2)
        for score in record["result"]["scores"]:
            rows.append(
                {
                    "task": task,
                    "model": model,
                    "language": language,
                    "split": split,
                    "seed": seed,
                    **{key: score[key] for key in SCORE_FIELDS},
                }
            )
    return rows
