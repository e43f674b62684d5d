"""The JSON documents that programs read (what `--json` prints), from steps, records and ledger entries.

Pure: dicts in, dicts out. What a run did is written down once, as its ledger entry; documents are made of
those entries and of what the store knows now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sabir.names import COMBINED, MACRO, OWN
from sabir.report.baseline import Prediction, evaluation
from sabir.report.costs import ROUTES, Rates, cost_rows, route, usd
from sabir.report.models import is_own, training_of

SCORE_FIELDS = ("metric", "value", "low", "high", "level", "n", "unscored", "signature")
MORE_SCORE_FIELDS = ("groups", "undefined")  # null in records of older versions
STEP_FIELDS = ("name", "kind", "fingerprint", "status", "why")
COST_FIELDS = ("wall_s", "device_s", "tokens", "peak_bytes", "size", "fees_usd")
SEARCH_FIELDS = ("method", "budget", "seed", "metric", "recipe", "chosen", "trials")
SELECTION = "depends on the selection"
HASH = 12  # letters of a fingerprint that a signature shows

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
    retraining: Prediction | None = None,
) -> dict[str, Any]:
    """The `plan` document.

    `totals` are of everything from nothing (phase "setup") and, once there was a run, of this one: by the
    merged route what is to run; by the combined route training and evaluating one adapter on all of today's
    rows, whether the project trains it or not; "continued" where that baseline is to run, "beside" where rivals,
    other trainings or test sets are.
    Args:
        steps: name, kind, fingerprint, status, why and size of each step, in order; `size_from_nothing` too
            of one that goes on from an earlier result and would be larger without it.
        later: name, kind and size of steps that wait for the selection among merges.
        phase: what this run will be: setup, update, add or none.
        retraining: what training the combined adapter on today's rows is predicted to take.
    """
    waiting = [{**step, "fingerprint": None, "status": "run", "why": SELECTION} for step in later]
    every = [*steps, *waiting]
    known = {} if retraining is None else {COMBINED: retraining.wall_s}
    rows: list[dict[str, Any]] = []
    first: list[Row] = []  # the merged route from nothing
    todo: dict[str, list[Row]] = {name: [] for name in ROUTES}
    for step in every:
        kind, name, to_run = step["kind"], step["name"], step["status"] == "run"
        seconds = known.get(name) or rates.seconds(kind, step["size"], name)
        rows.append(
            {
                **{key: step[key] for key in STEP_FIELDS},
                "estimated_wall_s": seconds if to_run else 0.0,
                "estimated_usd": usd(seconds if to_run else 0.0, usd_per_hour),
            }
        )
        if not step["size"]:
            continue
        whole, of = step.get("size_from_nothing"), route(step)
        if of == "merged" and "release/" not in name:  # from nothing there is no release to hold against
            took = seconds if whole is None else rates.seconds(kind, whole, name)
            first.append({"name": name, "kind": kind, "wall_s": took})
        if to_run:
            todo[of].append({"name": name, "kind": kind, "wall_s": seconds})

    def total(steps: Sequence[Row] | None, name: str, phase: str) -> dict[str, Any]:
        return _total(steps, name, phase, devices, usd_per_hour)

    everything = _retraining(every, rates, retraining)
    totals = [total(first, "merged", "setup"), total(everything, "combined", "setup")]
    if phase != "setup":
        totals += [total(todo["merged"], "merged", phase), {**totals[1], "phase": phase}]
        if todo["continued"]:
            totals.append(total(todo["continued"], "continued", phase))
    if todo["beside"]:
        totals.append(total(todo["beside"], "beside", phase))
    return {"steps": rows, "totals": totals, "warnings": list(warnings), "phase": phase, "devices": devices}


def _retraining(steps: Sequence[Row], rates: Rates, retraining: Prediction | None) -> list[Row] | None:
    """What retraining everything takes, with the project's steps or what they would be if it had them.

    None where the project has none and nothing is known of their time.
    """
    training = next((step for step in steps if step["name"] == COMBINED), None)
    if retraining is not None:
        took: float | None = retraining.wall_s
    elif training is not None:
        took = rates.seconds("adapter", training["size"], COMBINED)
    else:
        return None
    evaluated = [
        {
            "name": step["name"],
            "kind": step["kind"],
            "wall_s": rates.seconds(step["kind"], step["size"], step["name"]),
        }
        for step in evaluation(steps)
        if step["size"]
    ]
    return [{"name": COMBINED, "kind": "adapter", "wall_s": took}, *evaluated]


def _total(
    steps: Sequence[Row] | None, name: str, phase: str, devices: int, usd_per_hour: float | None
) -> dict[str, Any]:
    """Estimates for one route, added up as the ledger does; None where a part was never measured."""
    row: Row = {"wall_s": None, "device_s": None, "usd": None}
    if steps is not None and all(step["wall_s"] is not None for step in steps):
        rows = cost_rows(steps, run="", phase=phase, devices=devices, usd_per_hour=usd_per_hour)
        nothing: Row = {"wall_s": 0.0, "device_s": 0.0, "usd": usd(0.0, usd_per_hour)}
        row = next((row for row in rows if row["component"] == "total"), nothing)
    return {
        "route": name,
        "phase": phase,
        "estimated_wall_s": row["wall_s"],
        "estimated_device_s": row["device_s"],
        "estimated_usd": row["usd"],
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
    attempts: Iterable[Row] = (),
) -> dict[str, Any]:
    """What a run did and cost: `steps` with their final status, `costs`, `failures`, `attempts`, `complete`.

    Args:
        steps: name, kind, fingerprint, status, why of each step as it stands after the run.
        reasons: why each step was to run, as known before the run.
        records: what the store knows after the run, by step name.
        ran, failures: names of the steps that ran; messages of those that failed, by name.
        attempts: name, kind, fingerprint and `wall_s` of each time a step was begun and not finished (killed,
            stopped, failed): it was paid, and counts in `costs` where its step belongs.
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
    attempts = [dict(attempt) for attempt in attempts]
    return {
        "id": run,
        "phase": phase,
        "devices": devices,
        "usd_per_hour": usd_per_hour,
        "steps": written,
        "costs": cost_rows(
            paid,
            run=run,
            phase=phase,
            devices=devices,
            usd_per_hour=usd_per_hour,
            attempts=attempts,
            complete=complete,
        ),
        "failures": dict(failures),
        "attempts": attempts,
        "complete": complete,
    }


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
        record = records.get(step["name"], {})
        cost = record.get("cost", {})
        if (record.get("result") or {}).get("kept"):  # answered before: its time says nothing of its size
            cost = {**cost, "size": None}
        rows.append(
            {
                **{key: step[key] for key in STEP_FIELDS},
                **{key: cost.get(key) for key in COST_FIELDS},
                "usd": usd(cost.get("device_s"), usd_per_hour, cost.get("fees_usd")),
            }
        )
    return rows


def score_rows(task: str, seed: int, records: Mapping[str, Row]) -> list[dict[str, Any]]:
    """The `scores` of a document, from the records of `scores/<model>/<language>/<split>`.

    Of a model that was trained several times the plain name has the mean over its trainings (seed null), as far as
    the record of `comparisons` has it; the first training is then `<model>#1`.

    Args:
        seed: of the first training; the second has the next one.
    """
    single = [row for name in records for row in _scores_of(task, seed, name, records)]
    _sign_means(single)
    repeated = {training_of(row["model"])[0] for row in single if training_of(row["model"])[1] is not None}
    compared = records.get("comparisons", {}).get("result", {})
    means = {
        _place(row): {
            "task": task,
            **row,
            **{key: row.get(key) for key in MORE_SCORE_FIELDS},
            "signature": _of(row["signature"], _parts(row, single)),
        }
        for row in (*compared.get("over_seeds", ()), *compared.get("own", ()))
        if row["model"] in repeated or row["model"] == OWN
    }
    answers: dict[tuple[str, ...], list[Mapping[str, int] | None]] = {}  # of all trainings
    for row in single:
        plain = {**row, "model": training_of(row["model"])[0]}
        answers.setdefault(_place(plain), []).append(row["answers"])
    rows = []
    for row in single:
        if (mean := means.pop(_place(row), None)) is not None:
            rows.append({**mean, "answers": _together(answers[_place(row)])})
            row = {**row, "model": f"{row['model']}#1"}
        rows.append(row)
    return [*rows, *({**mean, "answers": None} for mean in means.values())]


def _scores_of(task: str, seed: int, name: str, records: Mapping[str, Row]) -> list[dict[str, Any]]:
    record = records[name]
    if record["kind"] not in ("scores", "macro"):
        return []
    model, language, split = name.removeprefix("scores/").rsplit("/", 2)
    asked = _asked(records.get(f"outputs/{model}/{language}/{split}"))
    return [
        {
            "task": task,
            "model": model,
            "language": language,
            "split": split,
            "seed": seed + (training_of(model)[1] or 1) - 1,
            **{key: score[key] for key in SCORE_FIELDS},
            **{key: score.get(key) for key in MORE_SCORE_FIELDS},
            "signature": "|".join([score["signature"], *asked]),
            "answers": record["result"].get("answers"),
        }
        for score in record["result"]["scores"]
    ]


def _asked(outputs: Row | None) -> list[str]:
    """What a score stands on beside the metric: the base, the model by its content, the rendered rows (prompts and
    gold answers), decoding. A mean over languages has none: its parts have."""
    if outputs is None or "answer" not in outputs["settings"]:
        return []
    settings, deps = outputs["settings"], outputs["deps"]
    models = [dep for role, dep in sorted(deps.items()) if role.partition("/")[0] == "model"]
    shots = settings.get("shots")
    parts = {
        "base": settings.get("base", "").partition(":")[2][:HASH],
        "model": "+".join(dep[:HASH] for dep in models) or "none",
        "rows": deps.get("rows", "")[:HASH],
        "shots": f"{shots['count']},seed {shots['seed']}" if shots else "0",
        "answer": settings["answer"],
        "max_length": settings.get("max_length"),
        **{key: settings[key] for key in ("max_new_tokens", "generator", "detector") if key in settings},
    }
    return [f"{key}:{value}" for key, value in parts.items()]


def _sign_means(rows: list[dict[str, Any]]) -> None:
    """Have means over languages say what they are means of: two that agree in that are the same score."""
    by_place: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row["language"] != MACRO:
            place = (row["model"], row["split"], row["metric"])
            by_place.setdefault(place, []).append(f"{row['language']}:{row['signature']}")
    for row in rows:
        if row["language"] == MACRO:
            parts = by_place.get((row["model"], row["split"], row["metric"]), ())
            row["signature"] = _of(row["signature"], parts)


def _parts(mean: Row, rows: Iterable[Row]) -> list[str]:
    """The signatures of the scores that a mean over trainings, or over the languages' own adapters, is made of."""
    own = mean["model"] == OWN
    return [
        f"{row['model']}:{row['language']}:{row['signature']}"
        for row in rows
        if (row["split"], row["metric"]) == (mean["split"], mean["metric"])
        and row["language"] != MACRO
        and mean["language"] in (MACRO, row["language"])
        and (is_own(row["model"]) if own else training_of(row["model"])[0] == mean["model"])
    ]


def _of(signature: str, parts: Iterable[str]) -> str:
    return f"{signature}|of:{hashlib.sha256(chr(10).join(sorted(parts)).encode()).hexdigest()[:HASH]}"


def _place(row: Row) -> tuple[str, ...]:
    return tuple(row[key] for key in ("model", "language", "split", "metric"))


def _together(counts: Sequence[Mapping[str, int] | None]) -> dict[str, int] | None:
    """Counts of answers added up; None where one is not known."""
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    return {key: sum(count[key] for count in known) for key in known[0]}


def routes(records: Mapping[str, Row], split: str = "test") -> dict[str, dict[str, int]]:
    """Where the detector sent the rows of a split: {language: {language of the adapter: rows}}."""
    return {
        name.split("/")[2]: dict(record["result"]["routes"])
        for name, record in records.items()
        if name.startswith("outputs/routed/") and name.endswith(f"/{split}")
    }


def recipes(models: Iterable[str], records: Mapping[str, Row]) -> dict[str, Row]:
    """What the merges among the models are, without defaults: `method`, `space`, `settings`, `weights`, ...; of a
    search what is fixed in it."""
    return {
        model: record["result"]["recipe"] if record["kind"] == "search" else record["settings"]
        for model in models
        if (record := records.get(model)) is not None and record["kind"] in ("merged", "search")
    }


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
