"""What became of releases: their history, and which change of one made a language worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sabir.errors import InputError
from sabir.plan import comparison_of, suspects
from sabir.project.documents import at_once
from sabir.project.running import Hand, do_graph
from sabir.project.servers import other_base
from sabir.project.standing import Standing, released
from sabir.releases import Release

Document = dict[str, Any]


def blame(standing: Standing, name: str, language: str, *, hand: Hand) -> Document:
    """Which of a release's changes made one language worse, each put back by itself; the worst first."""
    from sabir.stats import holm
    from sabir.work.judge import judge

    standing.must_have(language, f"blame {name} {language}")
    release = standing.log.named(name)
    parent = None if release.parent is None else standing.log.named(release.parent)
    if parent is None or not parent.languages or not release.languages:
        found = "it has no parent that is a merge of adapters."
        raise InputError(f"blame {name}", found, "Only what differs between two merges can be put back.")
    _must_be_mergeable(standing, release, parent)
    now, before = released(release), released(parent)
    graph, models = suspects(standing.config, standing.facts, now, before, language)
    if not models:
        raise InputError(f"blame {name}", f"nothing differs from release {parent.name}.")
    records = do_graph(standing, graph, hand)
    step = comparison_of(
        standing.config, standing.facts, [[one, now.model] for one in models.values()], language
    )
    inputs = {role: graph.fingerprints[str(dep)] for role, dep in step.deps.items()}
    rows = [row for row in _judged(judge, standing, step, inputs) if row["language"] == language]
    by_model = {row["a"]: row for row in rows}
    metric = step.settings["metric"]
    corrected = holm([by_model[model]["p"] for model in models.values()])
    ranked = [
        {
            "suspect": suspect,
            "value": _value(records[f"scores/{model}/{language}/test"], metric),
            **{key: by_model[model][key] for key in ("difference", "low", "high", "n")},
            "p": p,
        }
        for (suspect, model), p in zip(models.items(), corrected, strict=True)
    ]
    return {
        "release": release.name,
        "parent": parent.name,
        "language": language,
        "metric": metric,
        "value": _value(records[f"scores/{now.model}/{language}/test"], metric),
        "suspects": sorted(ranked, key=lambda row: (-(row["difference"] or 0.0), row["suspect"])),
    }


def _judged(judge: Any, standing: Standing, step: Any, inputs: Mapping[str, str]) -> list[dict[str, Any]]:
    return next(iter(judge([at_once(standing, step, inputs)])))[1]["result"]["comparisons"]


def _value(record: Mapping[str, Any], metric: str) -> float | None:
    return next(row["value"] for row in record["result"]["scores"] if row["metric"] == metric)


def history(standing: Standing) -> Document:
    """Every release, the oldest first: data, recipe, scores, cost, who promoted it."""
    current = standing.current
    rows = []
    for release in standing.log.releases():
        row = {**asdict(release), "scores": list(release.scores)}
        row["in_store"] = standing.store.has(release.fingerprint)
        rows.append(row)
    events = [
        {"at": event.at, "by": event.by, "to": event.to, "event": "promote" if event.promoted else "rollback"}
        for event in standing.log.events()
    ]
    metric = standing.config.select.metric or standing.facts.task.metrics[0]
    return {
        "current": current.name if current else None,
        "releases": rows,
        "events": events,
        "metric": metric,
    }


def _must_be_mergeable(standing: Standing, release: Release, parent: Release) -> None:
    """Raise InputError where an adapter of either is lost, or stands on another base than today's."""
    for one in (release, parent):
        if not standing.same_base(one):
            raise other_base(standing, one)
        for language, adapter in one.languages.items():
            if not standing.store.has(adapter):
                found = f"its adapter of {language} is no longer in the store."
                raise InputError(f"release {one.name}", found, "It was purged or lost.")
