"""The documents of a project as it stands: what `run` and `show` give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sabir.catalog import did_you_mean
from sabir.engine.job import Work
from sabir.engine.steps import Step, above
from sabir.errors import InputError
from sabir.plan import OWN, comparison
from sabir.project.standing import Standing, State
from sabir.report.documents import merge_notes, remembered_statuses, score_rows, searches, step_rows


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
        "scores": score_rows(config.task.name, config.lora.seed, records),
        "comparisons": comparisons["result"]["comparisons"] if comparisons else [],
        "changes": changes["result"]["changes"] if changes else list(current.changes) if current else [],
        "level": config.evaluate.level,
        "costs": [row for entry in standing.entries for row in entry["costs"]],
        "selected": state.selected,
        "release": current.name if current else None,
        "store": str(standing.store.path),
        "metric": state.metric,
        "languages": list(config.languages),
        "notes": pinned + merge_notes(state.plan.reported, records),
        "searches": searches(records),
        "analysis": analysis["result"] if analysis else None,
        "pending": len(state.missing),
    }


def compared(standing: Standing, state: State, a: str, b: str) -> list[dict[str, Any]]:
    """Paired differences between two models on the test rows, from the scores that are in the store."""
    from sabir.work.judge import judge

    known = [*state.plan.reported, OWN]
    for model in (a, b):
        if model not in known:
            fix = f"Known are: {', '.join(known)}.{did_you_mean(model, known)}"
            raise InputError("--compare", f"no scores on test of a model {model!r}.", fix)
    step = comparison(standing.config, standing.facts, a, b)
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
