"""The documents of a project as it stands: what `run` and `show` give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sabir.catalog import did_you_mean
from sabir.engine.job import Work
from sabir.engine.steps import Step, above
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.lora.files import WEIGHTS
from sabir.lora.safetensors_io import read_header
from sabir.names import OWN, STRESS, UNSEEN
from sabir.plan import comparison
from sabir.project.standing import Standing, State
from sabir.report.documents import (
    merge_notes,
    recipes,
    remembered_statuses,
    routes,
    score_rows,
    searches,
    step_rows,
)
from sabir.report.models import training_of
from sabir.report.words import listed

CUT = 0.05  # of a training's rows; up to so many may be cut without a word
SHOWN = 8  # trainings in one sentence


def run_document(
    standing: Standing, state: State, *, run_id: str | None, phase: str, changed: list[str]
) -> dict[str, Any]:
    """The `run` document: statuses are those of the run where there was one."""
    config, records = standing.config, state.records
    entry = next((entry for entry in reversed(standing.entries) if entry["id"] == run_id), None)
    comparisons, analysis, changes = (state.record(name) for name in ("comparisons", "analysis", "changes"))
    pinned = [f"{name}: {a.why}." for name, a in state.assessments.items() if a.step.pinned]
    current = standing.current
    return {
        "run": {"id": run_id, "phase": phase, "languages_changed": changed},
        "steps": step_rows(remembered_statuses(state.rows(), entry), records, config.prices.usd_per_hour),
        "scores": score_rows(config.task_title, config.lora.seed, records),
        "comparisons": comparisons["result"]["comparisons"] if comparisons else [],
        "standings": comparisons["result"]["standings"] if comparisons else [],
        "seeds": config.seeds,
        "routes": routes(records),
        "stress_routes": {kind: found for kind in (*STRESS, UNSEEN) if (found := routes(records, kind))},
        "recipes": recipes(state.plan.reported, records),
        "parameters": _parameters(state, standing.store),
        "changes": changes["result"]["changes"] if changes else list(current.changes) if current else [],
        "level": config.evaluate.level,
        "costs": [row for entry in standing.entries for row in entry["costs"]],
        "selected": state.selected,
        "release": current.name if current else None,
        "store": str(standing.store.path),
        "metric": state.metric,
        "languages": list(config.languages),
        "notes": [
            *pinned,
            *merge_notes(state.plan.reported, records),
            *_rare_labels(records),
            *_cut(records),
        ],
        "searches": searches(records),
        "analysis": analysis["result"] if analysis else None,
        "pending": len(state.missing),
    }


def _size(file: Path) -> int:
    """Numbers in a safetensors file."""
    return sum(math.prod(place.shape) for place in read_header(file).values())


def _parameters(state: State, store: Store) -> dict[str, int]:
    """What a server holds beside the base: parameters of the selected merge, and of all own adapters together."""
    records = state.records
    own = [records.get(f"adapter/{language}") for language in state.languages]
    found = {}
    if all(own):
        folders = (store.folder(record["fingerprint"]) for record in own if record is not None)
        found["routed"] = sum(_size(folder / WEIGHTS) for folder in folders)
    if (merged := records.get(state.selected or "")) and "parameters" in merged["result"]:
        found[state.selected or ""] = merged["result"]["parameters"]
    return found


def _rare_labels(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Languages with labels that have so few test rows that intervals of macro scores are too narrow."""
    by_labels: dict[tuple[str, ...], list[str]] = {}
    for name, record in records.items():
        on_test = name.startswith("scores/base/") and name.endswith("/test") and record["kind"] == "scores"
        if on_test and (rare := tuple(record["result"]["rare_labels"])):
            by_labels.setdefault(rare, []).append(name.split("/")[2])
    return [
        f"{', '.join(languages)}: fewer than 5 test rows of {', '.join(rare)}; macro scores' intervals are too narrow."
        for rare, languages in by_labels.items()
    ]


def _cut(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Trainings of which more than a few rows were too long: what was cut off, no adapter has learnt."""
    trained = {
        name: record["result"]
        for name, record in records.items()
        if record["kind"] == "adapter" and training_of(name)[1] is None
    }
    cut = [
        f"{name} {result['cut_rows']:,} of {result['rows']:,}"
        for name, result in trained.items()
        if result.get("cut_rows", 0) > CUT * result["rows"]
    ]
    return [f"Training rows whose text was cut to fit lora.max_length: {listed(cut, SHOWN)}."] if cut else []


def compared(
    standing: Standing, state: State, a: str, b: str, metric: str | None = None
) -> list[dict[str, Any]]:
    """Paired differences between two models on the test rows, from the scores that are in the store."""
    from sabir.work.judge import judge

    known = [*state.plan.reported, OWN]
    alone = "" if standing.config.task_name is None else " Or compare in one task alone: --task NAME."
    for model in (a, b):
        if model not in known:
            fix = f"Known are: {', '.join(known)}.{did_you_mean(model, known)}{alone}"
            raise InputError("--compare", f"no scores on test of a model {model!r}.", fix)
    if a == b:
        raise InputError("--compare", f"{a!r} is not compared with itself.", "Name two models.")
    if metric is not None and metric not in (metrics := standing.facts.task.metrics):
        fix = f"There are: {', '.join(metrics)}.{did_you_mean(metric, metrics)}{alone}"
        raise InputError("--metric", f"there are no scores by {metric!r}.", fix)
    step = comparison(standing.config, standing.facts, a, b, metric)
    if missing := [name for name in above(step) if name not in state.records]:
        raise InputError("--compare", f"{missing[0]} is not in the store yet.", "Do `sabir run` first.")
    folders = {
        role: state.assessments[name].fingerprint for role, name in zip(step.deps, above(step), strict=True)
    }
    return next(iter(judge([at_once(standing, step, folders)])))[1]["result"]["comparisons"]


def at_once(standing: Standing, step: Step, fingerprints: Mapping[str, str]) -> Work:
    """A light step to be done here and now: it writes nothing and is not kept.

    Args:
        fingerprints: of what the step stands on, by role.
    """
    store = standing.store
    return Work(
        name=step.name,
        settings=step.settings,
        args={},
        inputs={role: store.folder(fingerprint) for role, fingerprint in fingerprints.items()},
        out=store.path,  # nothing is written there
        device="cpu",
        emit=lambda *_, **__: None,
    )
