"""The JSON documents that programs read (what `--json` prints), from steps, records and ledger entries.

Pure: dicts in, dicts out. What a run did is written down once, as its ledger entry; documents are made of
those entries and of what the store knows now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sabir.report.costs import COMPONENTS, Rates, component, cost_rows, makespan, route, usd

SCORE_FIELDS = ("metric", "value", "low", "high", "level", "n", "unscored", "signature")
STEP_FIELDS = ("name", "kind", "fingerprint", "status", "why")
COST_FIELDS = ("wall_s", "device_s", "tokens", "peak_bytes", "size")
SEARCH_FIELDS = ("method", "budget", "seed", "metric", "recipe", "chosen", "trials")
SELECTION = "depends on the selection"

Row = Mapping[str, Any]


# --- plan ------------------------------------------------------------------------------------------------


def plan_document(
    steps: Sequence[Row],
    later: Iterable[Row],
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
        later: name, kind and size of steps that wait for the selection among merges.
        phase: what this run will be: setup, update, add or none.
    """
    waiting = [{**step, "fingerprint": None, "status": "run", "why": SELECTION} for step in later]
    every = [*steps, *waiting]
    rows = []
    for step in every:
        seconds = 0.0 if step["status"] == "reused" else rates.seconds(step["kind"], step["size"])
        rows.append(
            {
                **{key: step[key] for key in STEP_FIELDS},
                "estimated_wall_s": seconds,
                "estimated_usd": usd(seconds, usd_per_hour),
            }
        )
    totals = [_total(every, name, "setup", rates, devices, usd_per_hour) for name in ("merged", "combined")]
    if phase != "setup":
        todo = [step for step in every if step["status"] == "run"]
        totals.append(_total(todo, "merged", phase, rates, devices, usd_per_hour))
        totals.append(_total(every, "combined", phase, rates, devices, usd_per_hour))  # it takes all of it
    return {"steps": rows, "totals": totals, "warnings": list(warnings), "phase": phase, "devices": devices}


def _total(
    steps: Iterable[Row], name: str, phase: str, rates: Rates, devices: int, usd_per_hour: float | None
) -> dict[str, Any]:
    """Estimates for one route: its components one after the other, the steps of each side by side."""
    by_part: dict[str, list[float | None]] = {part: [] for part in COMPONENTS}
    for step in steps:
        if route(step) == name and step["size"]:
            by_part[component(step)].append(rates.seconds(step["kind"], step["size"]))
    estimates = [seconds for part in by_part.values() for seconds in part]
    known = [[seconds for seconds in part if seconds is not None] for part in by_part.values()]
    complete = None not in estimates
    device_s = sum(map(sum, known)) if complete else None
    return {
        "route": name,
        "phase": phase,
        "estimated_wall_s": sum(makespan(part, devices) for part in known) if complete else None,
        "estimated_device_s": device_s,
        "estimated_usd": usd(device_s, usd_per_hour),
    }


# --- run and show ----------------------------------------------------------------------------------------


def ledger_entry(
    steps: Iterable[Row],
    reasons: Mapping[str, str],
    records: Mapping[str, Row],
    *,
    run: str,
    phase: str,
    devices: int,
    usd_per_hour: float | None,
    ran: Collection[str],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """What a run did and cost: `steps` with their final status, `costs`, `failures`, `complete`.

    Args:
        steps: name, kind, fingerprint, status, why of each step as it stands after the run.
        reasons: why each step was to run, as known before the run.
        records: what the store knows after the run, by step name.
        ran, failures: names of the steps that ran; messages of those that failed, by name.
    """
    rows = []
    for step in steps:
        name, status, why = step["name"], step["status"], step["why"]
        if name in ran:
            status, why = "run", reasons.get(name, SELECTION)
        elif status == "run":
            status = "failed" if name in failures else "blocked"
        rows.append({**step, "status": status, "why": why})
    complete = not any(row["status"] in ("failed", "blocked") for row in rows)
    written = step_rows(rows, records, usd_per_hour)
    paid = [step for step in written if step["status"] == "run"]
    return {
        "id": run,
        "phase": phase,
        "devices": devices,
        "usd_per_hour": usd_per_hour,
        "steps": written,
        "costs": cost_rows(
            paid, run=run, phase=phase, devices=devices, usd_per_hour=usd_per_hour, complete=complete
        ),
        "failures": dict(failures),
        "complete": complete,
    }


def predicted_baseline(cost: Row | None, size: float | None, *, entry: Row) -> list[dict[str, Any]]:
    """Cost of training the combined baseline on today's rows, from the speed it was last trained with.

    Empty when that is not known, or when the run behind `entry` trained it itself or was not a whole update.
    Args:
        cost: of the training that stands there now; size: of the one that would be.
    """
    trained = any(row["route"] == "combined" and row["component"] == "train" for row in entry["costs"])
    if trained or not entry["complete"] or entry["phase"] not in ("update", "add"):
        return []
    if not cost or not cost.get("size") or not size:
        return []
    seconds = cost["wall_s"] / cost["size"] * size
    rows = cost_rows(
        [{"name": "adapter/combined", "kind": "adapter", "wall_s": seconds, "device_s": seconds}],
        run=entry["id"],
        phase=entry["phase"],
        devices=entry["devices"],
        usd_per_hour=entry["usd_per_hour"],
        measured=False,
    )
    return [row for row in rows if row["component"] == "train"]


def remembered_statuses(steps: Iterable[Row], entry: Row | None) -> list[dict[str, Any]]:
    """Steps as they stand now, with the status and reason of the run of `entry` where nothing changed.

    A step that is not in the store was not run, whatever a plan says: it is "blocked", or "failed" if that
    run tried it.
    """
    then = {step["name"]: step for step in entry["steps"]} if entry else {}
    rows = []
    for step in steps:
        old = then.get(step["name"])
        status, why = step["status"], step["why"]
        if status == "run":
            failed = old and old["fingerprint"] == step["fingerprint"] and old["status"] == "failed"
            status, why = ("failed" if failed else "blocked"), f"not run yet: {why}"
        elif old and old["fingerprint"] == step["fingerprint"] and old["status"] == "run":
            status, why = "run", old["why"]
        rows.append({**step, "status": status, "why": why})
    return rows


def step_rows(
    steps: Iterable[Row], records: Mapping[str, Row], usd_per_hour: float | None
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
                **{key: step[key] for key in STEP_FIELDS},
                **{key: cost.get(key) for key in COST_FIELDS},
                "usd": usd(cost.get("device_s"), usd_per_hour),
            }
        )
    return rows


def score_rows(task: str, seed: int, records: Mapping[str, Row]) -> list[dict[str, Any]]:
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


def searches(records: Mapping[str, Row]) -> dict[str, Row]:
    """What every search chose and tried, by model: `chosen` and each of `trials` have `settings`, `weights`
    by language (null: the method's own) and `value`, the macro mean on validation rows.
    """
    return {
        name: {key: record["result"][key] for key in SEARCH_FIELDS}
        for name, record in records.items()
        if record["kind"] == "search"
    }


def merge_notes(models: Iterable[str], records: Mapping[str, Row]) -> list[str]:
    """What the merges among the models warned of when they were made: a sentence each."""
    return [
        f"{model}: {warning}"
        for model in models
        if model in records and records[model]["kind"] in ("merged", "search")
        for warning in records[model]["result"].get("warnings", [])
    ]
