"""Tables of steps: what a plan would run and why, and what the last run did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sabir.names import COMBINED
from sabir.report.models import is_combined
from sabir.report.tables import Document, Table
from sabir.report.words import count, counted, duration, in_words, listed, mib, money, percent

_FAMILIES = {
    "data": "rows of",
    "stress": "other test sets",
    "translated": "translations",
    "adapter": "adapters",
    "adopted": "adapters",
    "scaled": "scales of the combined adapter",
    "merged": "merges",
    "search": "searches of",
    "outputs": "answers",
    "scores": "scores",
    "macro": "scores",
    "select": "selection, comparisons",
    "judge": "selection, comparisons",
    "changes": "selection, comparisons",
    "analysis": "analysis",
}
_BRIEF = {  # kinds that take next to no time
    "select": "selection",
    "judge": "comparisons",
    "changes": "changes since the release",
    "analysis": "analysis",
}
_SCALE = "select/combined"  # the step that chooses among the scales of the combined adapter
_STANDS_IN = ("older data", "held at")  # reasons of an old adapter in place of today's
_ROUTES = {
    "merged": "one adapter a language, merged",
    "combined": "retraining everything",
    "continued": "training the combined adapter on",
    "beside": "what is measured beside (rivals, other trainings and test sets)",
}
_PHASES = {"setup": "All of it from nothing", "update": "This update", "add": "This addition"}
_SHA256 = 64
_MOST_LETTERS = 60


def planned(document: Document) -> Table:
    """What a plan would run and why: a line for every training, the rest in one line a kind and status."""
    steps = document["steps"]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for step in steps:
        family = _FAMILIES[_kind(step)]
        alone = step["kind"] in ("adapter", "adopted") and (
            step["status"] == "run" or any(words in step["why"] for words in _STANDS_IN)
        )
        groups.setdefault((family, step["status"], step["name"] if alone else ""), []).append(step)
    order = list(dict.fromkeys(_FAMILIES.values()))
    rows = []
    for key in sorted(groups, key=lambda key: order.index(key[0])):
        group = groups[key]
        seconds = [step["estimated_wall_s"] for step in group if step["kind"] not in _BRIEF]
        known = [second for second in seconds if second is not None]
        took = "" if key[1] == "reused" else duration(sum(known) if len(known) == len(seconds) else None)
        rows.append((_names(key[0], group), key[1], _reasons(group), took))
    reused = sum(step["status"] == "reused" for step in steps)
    notes = [f"{counted(len(steps) - reused, 'step')} to run, {reused:,} reused."]
    if reused == len(steps):
        notes = ["Nothing to do: everything is up to date."]
    else:
        notes += [*_totals(document), *_detectable(document.get("detectable", ()))]
    return Table("Plan", ("steps", "status", "why", "device time"), tuple(rows), tuple(notes))


def _kind(step: Mapping[str, Any]) -> str:
    """The step's kind; the combined adapter at a scale is made as merges are, and is none."""
    return "scaled" if step["kind"] == "merged" and is_combined(step["name"]) else step["kind"]


def _brief(step: Mapping[str, Any]) -> str:
    return "scale of the combined adapter" if step["name"] == _SCALE else _BRIEF[step["kind"]]


def _names(family: str, group: Sequence[Mapping[str, Any]]) -> str:
    names = [step["name"] for step in group]
    if len(names) == 1 and group[0]["kind"] in ("adapter", "adopted", "merged", "search"):
        return names[0]
    if group[0]["kind"] in ("data", "adapter", "adopted", "search"):
        short = [
            name.removeprefix("data/").removeprefix("adapter/").removeprefix("merged/") for name in names
        ]
        return f"{family} {listed(short, 8)}"
    if _kind(group[0]) == "merged":
        recipes: dict[str, int] = {}
        for name in names:
            recipe = name.removeprefix("merged/").partition("[")[0]
            recipes[recipe] = recipes.get(recipe, 0) + 1
        words = [recipe + (f" x {count}" if count > 1 else "") for recipe, count in recipes.items()]
        return f"{family} {listed(words, 8)}"
    if group[0]["kind"] in _BRIEF:
        return ", ".join(dict.fromkeys(map(_brief, group)))
    return f"{family} ({len(names)})"


def _reasons(group: Sequence[Mapping[str, Any]]) -> str:
    """Why the steps of one line run; what comes of other lines' steps is said in general."""
    counts: dict[str, int] = {}
    for step in group:
        for reason in step["why"].split("; ") if group[0]["kind"] != "adapter" else [step["why"]]:
            words = reason.split(" ")
            if len(words) == 2 and words[1] == "changed" and words[0].startswith(("outputs/", "scores/")):
                reason = "their answers changed" if words[0].startswith("outputs/") else "scores changed"
            elif len(words) == 2 and words[1] == "changed" and words[0].startswith("merged/"):
                reason = "merges changed"
            counts[reason] = counts.get(reason, 0) + 1
    often = sorted(counts, key=lambda reason: -counts[reason])
    return in_words(listed(often, 3, "; "))


def _totals(document: Document) -> list[str]:
    """What set-up takes and what this run takes, by both routes, a sentence each."""
    totals = document["totals"]
    if all(row["estimated_device_s"] is None for row in totals):
        return ["How long it takes is not known yet: nothing has been measured in this store."]
    sentences = []
    devices = document.get("devices", 1)
    places = "one device" if devices == 1 else f"{devices} devices"
    again = any(step["name"] == COMBINED and step["status"] == "run" for step in document["steps"])
    told = [
        row
        for row in totals
        if row["estimated_device_s"] and (again or (row["phase"], row["route"]) != ("none", "combined"))
    ]
    alone = sum(row["phase"] == "none" for row in told) == 1
    for row in told:
        what = _PHASES.get(row["phase"], "This run")
        price = "" if row["estimated_usd"] is None else f", {money(row['estimated_usd'])} USD"
        by = "" if row["phase"] == "none" and alone else f" by {_ROUTES[row['route']]}"
        sentences.append(
            f"{what}{by}: about {duration(row['estimated_wall_s'])} on {places} "
            f"({duration(row['estimated_device_s'])} of device time{price})."
        )
    known = {(row["phase"], row["route"]): row["estimated_device_s"] for row in totals}
    for phase in ("update", "add"):
        ours, theirs = known.get((phase, "merged")), known.get((phase, "combined"))
        if ours and theirs:
            less = "less" if ours <= theirs else "more"
            sentences.append(
                f"That is {percent(abs(1 - ours / theirs))} {less} device time than retraining everything."
            )
    return sentences


def _detectable(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The smallest drops that the test rows would show against the current release, in a sentence."""
    drops = [
        f"{'the mean' if row['language'] == 'macro' else row['language']} "
        f"{'none' if row['drop'] is None else format(row['drop'], '.3f')} ({counted(row['n'], 'row')})"
        for row in rows
    ]
    told = f"Smallest drop these test rows would show, if independent: {listed(drops, 9)}."
    return [told] if drops else []


def ran(document: Document) -> Table:
    """What the last run did with each training and merge."""
    rows = [
        (
            step["name"],
            step["status"],
            in_words(step["why"]),
            duration(step["wall_s"]),
            count(step["tokens"]),
            mib(step["peak_bytes"]),
        )
        for step in document["steps"]
        if step["kind"] in ("adapter", "adopted", "merged", "search")
    ]
    return Table("Steps", ("step", "status", "why", "took", "tokens", "peak memory"), tuple(rows))


def why(document: Document) -> Table:
    """Why a step runs or is reused: each field in which it, or what it stands on, is not what it was.

    A step that is new has one row, as it was nothing before.
    """
    rows = tuple(
        (root["step"], one["field"], _shortened(one["was"]), _shortened(one["now"]))
        for root in document["roots"]
        for one in root["differences"] or [{"field": root["why"], "was": None, "now": None}]
    )
    step, before = document["step"], document["before"]
    if document["status"] == "reused":
        note = f"{step} is in the store: {in_words(document['why'])}."
    elif before is None:
        note = f"{step} will run: it was never run before."
    elif not rows:
        note = f"{step} will run: {in_words(document['why'])}."
    else:
        roots = [f"{root['step']}: {in_words(root['why'])}" for root in document["roots"]]
        note = f"{step} will run because of {listed(roots, 4, '; ')}."
    was = "" if before is None else f" (before: {before[:12]})"
    return Table(
        f"Why {step}",
        ("step", "field", "was", "is now"),
        rows,
        (note, f"Fingerprint {document['fingerprint'][:12]}{was}."),
    )


def _shortened(value: Any) -> str:
    """A setting's value, or as much of a digest as tells it from another; "-" where there was none."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == _SHA256 and all(letter in "0123456789abcdef" for letter in text):
        return text[:12]
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."
