"""A project of many languages and many merges, and a store that looks as if all of it had been run.

Rows are few and made up: the number of steps is what is large here. Nothing is trained; a finished step is a folder
with its record alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sabir.engine.steps import Graph, Step

LANGUAGES = ["af", "am", "ar", "as", "az", "be", "bg", "bn", "bo", "br", "bs", "ca", "ceb", "cs", "cy", "da", "de", "el", "en", "eo", "es", "et", "eu", "fa", "fi", "fil", "fr", "fy", "ga", "gd", "gl", "gu", "ha", "haw", "he", "hi", "hmn", "hr", "ht", "hu", "hy", "id", "ig", "is", "it", "ja", "jv", "ka", "kk", "km", "kn", "ko", "ku", "ky", "la", "lb", "lo", "lt", "lv", "mg", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "no", "ny", "or", "pa", "pl", "ps", "pt", "ro", "ru", "rw", "sd", "si", "sk", "sl", "sm", "sn", "so", "sq", "sr", "st", "su", "sv", "sw", "ta", "te", "tg", "th", "tr", "uk", "ur"]
LABELS = ("delivery", "payment")
CREATED = "2026-01-01T00:00:00+00:00"


def merges(count: int) -> dict[str, dict[str, Any]]:
    """Merges that differ, each a recipe of its own: TIES and linear merges of several densities and scales."""
    found: dict[str, dict[str, Any]] = {}
    for i in range(count):
        density, scale = 0.05 + 0.9 * (i // 2) / max(count // 2, 1), 0.2 + i / count
        ties = {"method": "ties", "density": round(density, 4), "space": ("delta", "knots", "core")[i % 3]}
        found[f"merge-{i:03}"] = ties if i % 2 else {"method": "linear", "scale": round(scale, 4)}
    return found


def write_project(folder: Path, *, languages: int = 100, recipes: int = 50, rows: int = 10) -> Path:
    """A project on the embedded base with a combined baseline; returns its config.

    Args:
        languages: at most 100.
        rows: training rows of each language; a fifth of that for validation and for test.
    """
    for language in LANGUAGES[:languages]:
        for split, count in (("train", rows), ("valid", max(rows // 5, 2)), ("test", max(rows // 5, 2))):
            path = folder / "data" / language / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            texts = [
                {"input": f"{language} {split} message {i}", "output": LABELS[i % 2]} for i in range(count)
            ]
            path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
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


def record(graph: Graph, step: Step, result: Mapping[str, Any], *, run: str) -> dict[str, Any]:
    """What the store would know of a step, had it been run."""
    return {
        "name": step.name,
        "kind": step.kind,
        "version": step.version,
        "fingerprint": graph.fingerprints[step.name],
        "settings": step.settings,
        "deps": graph.identities(step),
        "parts": dict(step.parts),
        "result": dict(result),
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
    }


def result_of(step: Step, selection: Mapping[str, Any]) -> dict[str, Any]:
    """A result of the form that the kind of step leaves."""
    if step.kind == "select":
        return dict(selection)
    if step.kind in ("scores", "macro"):
        scores = [
            {
                "metric": metric,
                "value": 0.5,
                "low": 0.4,
                "high": 0.6,
                "level": 0.95,
                "n": 100,
                "unscored": 0,
                "signature": f"{metric}|n:100",
            }
            for metric in step.settings["metrics"]
        ]
        return {"scores": scores}
    if step.kind == "judge":
        return {"comparisons": []}
    return {}


def finish(store: Path, graph: Graph, selection: Mapping[str, Any], *, run: str) -> int:
    """Lay a folder with its record for every step of a graph; returns how many there are now."""
    for step in graph:
        folder = store / "steps" / graph.fingerprints[step.name]
        folder.mkdir(parents=True, exist_ok=True)
        told = record(graph, step, result_of(step, selection), run=run)
        text = json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        (folder / "record.json").write_text(text, encoding="utf-8")
    return len(graph)
