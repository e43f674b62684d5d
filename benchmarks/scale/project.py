"""A project of many languages and many merges, and a store that looks as if all of it had been run.

Rows are few and made up: the number of steps is what is large here. Nothing is trained; a finished step is a folder
with its record alone.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sabir import Project
from sabir.engine import ledger
from sabir.engine.steps import Graph, Step
from sabir.engine.store import RECORD, sealed
from sabir.plan import plan
from sabir.project.accounts import closed
from sabir.project.standing import Standing

CODES = """
af am ar as az be bg bn bo br bs ca ceb cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha haw he hi hmn
hr ht hu hy id ig is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny or pa pl ps
pt ro ru rw sd si sk sl sm sn so sq sr st su sv sw ta te tg th tr uk ur
"""
LANGUAGES = tuple(CODES.split())
LABELS = ("delivery", "payment")
CREATED = "2026-01-01T00:00:00+00:00"
SCORE = {"value": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "n": 100, "unscored": 0, "signature": "n:100"}


def merges(count: int) -> dict[str, dict[str, Any]]:
    """Merges that differ: linear ones of several scales, TIES of several densities and spaces."""
    found: dict[str, dict[str, Any]] = {}
    for i in range(count):
        share = round((i + 1) / (count + 1), 4)
        ties = {"method": "ties", "density": share, "space": ("delta", "knots", "core")[i % 3]}
        found[f"merge-{i:03}"] = ties if i % 2 else {"method": "linear", "scale": share}
    return found


def write_project(folder: Path, *, languages: int = 100, recipes: int = 50, rows: int = 10) -> Path:
    """A project on the embedded base with a combined baseline; returns its config.

    Args:
        languages: at most 100.
        rows: training rows of each language; a fifth of that for validation and for test.
    """
    for language in LANGUAGES[:languages]:
        for split, count in (("train", rows), ("valid", max(rows // 5, 2)), ("test", max(rows // 5, 2))):
            write_rows(folder / "data" / language / f"{split}.jsonl", f"{language} {split}", count)
    config = {
        "base": "embedded",
        "task": {"name": "classification", "labels": list(LABELS)},
        "data": {language: f"data/{language}" for language in LANGUAGES[:languages]},
        "baseline": "combined",
        "merges": merges(recipes),
    }
    path = folder / "sabir.yaml"
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def write_rows(path: Path, text: str, count: int) -> None:
    """Rows of a made-up text each, labels in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"input": f"{text} message {i}", "output": LABELS[i % 2]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def finish(project: Project, *, run: str, most: int | None = None) -> int:
    """Lay a folder with its record for the steps of the project's plan, and an entry in the ledger.

    Args:
        most: no more steps than this, the first ones; then the ledger says nothing of them.
    Returns: how many steps of the plan are in the store now.
    """
    standing = Standing(project.config, project.store, with_base=False)
    names = [f"merged/{merge}" for merge in project.config.merges]
    selection = {"selected": names[0], "best": dict(zip(project.config.merges, names, strict=True))}
    graph = plan(project.config, standing.facts, selection=selection, stale={}).graph
    for step in itertools.islice(graph, most):
        folder = project.store.folder(graph.fingerprints[step.name])
        folder.mkdir(parents=True, exist_ok=True)
        text = sealed(_record(graph, step, selection, run=run))
        (folder / RECORD).write_text(text, encoding="utf-8")
    if most is None:
        _write_entry(standing, graph, selection, run=run)
    return min(len(graph), most or len(graph))


def _record(graph: Graph, step: Step, selection: Mapping[str, Any], *, run: str) -> dict[str, Any]:
    """What the store would know of a step, had it been run."""
    return {
        "name": step.name,
        "kind": step.kind,
        "version": step.version,
        "fingerprint": graph.fingerprints[step.name],
        "settings": step.settings,
        "deps": graph.identities(step),
        "parts": dict(step.parts),
        "result": _result(step, selection),
        "cost": {
            "wall_s": 1.5,
            "device_s": 1.5,
            "tokens": 1000,
            "peak_bytes": 2**30,
            "size": step.size,
            "device": "cpu",
        },
        "run": run,
        "created": CREATED,
        "host": "benchmark",
        "versions": {"python": "3.11.0", "sabir": "0.1.0", "torch": "2.13.0", "transformers": "5.0.0"},
        "files": {"rows.jsonl": {"size_bytes": 1000, "sha256": "0" * 64}},
    }


def _result(step: Step, selection: Mapping[str, Any]) -> dict[str, Any]:
    """A result of the form that the kind of step leaves."""
    if step.kind == "select":
        return dict(selection)
    if step.kind in ("scores", "macro"):
        return {"scores": [{**SCORE, "metric": metric} for metric in step.settings["metrics"]]}
    return {"comparisons": []} if step.kind == "judge" else {}


def _write_entry(standing: Standing, graph: Graph, selection: Mapping[str, Any], *, run: str) -> None:
    """The ledger's entry of a run that did all of it."""
    facts = standing.facts
    steps = [
        {
            "name": step.name,
            "kind": step.kind,
            "fingerprint": graph.fingerprints[step.name],
            "why": "new",
            "size": step.size,
        }
        for step in graph
    ]
    opening = {
        "id": run,
        "config": standing.config.name,
        "phase": "setup",
        "languages_changed": list(facts.rows),
        "started": CREATED,
        "usd_per_hour": None,
        "devices": 1,
        "steps": steps,
        "languages": {language: graph.fingerprints[f"adapter/{language}"] for language in facts.rows},
        "base": asdict(facts.base),
        "selected": selection["selected"],
        "rows": {
            language: {"rows": dict(summary.rows), "digests": dict(summary.digests)}
            for language, summary in facts.rows.items()
        },
        "wall_s": 1.0,
    }
    ledger.write(standing.store, closed(standing.store, opening, failures={}))
