"""Tables of releases: which there were, and which change of one is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sabir.report.tables import Document, Table
from sabir.report.words import (
    difference,
    hours,
    listed,
    metric_name,
    money,
    p_value,
    releases_named,
    score,
    signed,
)

Row = Mapping[str, Any]

MOST_LANGUAGES = 8
MOST_RELEASES = 12


def releases(document: Document) -> Table | None:
    """Every release: when, by whom, which model, what of its data is new, its mean score, verdict and cost.

    None before there was one. Cost is what was spent since the release before it.
    """
    history = document["releases"]
    if not history:
        return None
    by_name = {release["name"]: release for release in history}
    metric = document.get("metric") or _first_metric(history)
    priced = any(release["usd"] is not None for release in history)
    rows, strong = [], set()
    for number, release in enumerate(history):
        is_current = release["name"] == document["current"]
        if is_current:
            strong.add((number, 0))
        row = (
            release["name"] + ("  <- current" if is_current else ""),
            release["created"][:16].replace("T", " "),
            release["by"],
            release.get("model") or "",
            _news(release, by_name.get(release["parent"])),
            score(_mean(release, metric)),
            release["verdict"] + (" (accepted)" if release.get("accepted") else ""),
            hours(release.get("device_s")),
        )
        rows.append((*row, money(release["usd"])) if priced else row)
    mean = f"mean {metric_name(metric)}" if metric else "mean"
    columns = ("release", "when (UTC)", "by", "model", "new in it", mean, "verdict", "device h")
    notes = [f"Release {release['name']}: {reason}" for release in history for reason in _accepted(release)]
    if gone := [release["name"] for release in history if release.get("in_store") is False]:
        whose = "its model is" if len(gone) == 1 else "their models are"
        notes.append(f"{releases_named(gone, MOST_RELEASES)}: {whose} no longer in the store.")
    return Table(
        "Releases", (*columns, "USD") if priced else columns, tuple(rows), tuple(notes), frozenset(strong)
    )


def _accepted(release: Row) -> list[str]:
    """What spoke against a release that was let through by name."""
    return list(release.get("reasons", ())) if release.get("accepted") else []


def _first_metric(history: Sequence[Row]) -> str | None:
    return next((row["metric"] for release in reversed(history) for row in release["scores"]), None)


def _mean(release: Row, metric: str | None) -> float | None:
    rows = [row for row in release["scores"] if (row["language"], row["metric"]) == ("macro", metric)]
    return rows[0]["value"] if rows else None


def _news(release: Row, parent: Row | None) -> str:
    """The languages whose adapter is not the parent's, with how many train rows came or went; "+": added."""
    now = release["languages"]
    if parent is None or not parent["languages"]:
        return listed(list(now), MOST_LANGUAGES)
    then = parent["languages"]
    words = []
    for language in [*now, *(gone for gone in then if gone not in now)]:
        if language not in now:
            words.append(f"-{language}")
        elif language not in then:
            words.append(f"+{language}")
        elif now[language] != then[language]:
            words.append(language + _grown(_train_rows(parent, language), _train_rows(release, language)))
    if release.get("recipe") != parent.get("recipe"):
        words.append("recipe")
    return listed(words, MOST_LANGUAGES)


def _train_rows(release: Row, language: str) -> int | None:
    return release.get("data", {}).get(language, {}).get("rows", {}).get("train")


def _grown(before: int | None, after: int | None) -> str:
    if before is None or after is None or before == after:
        return ""
    grown = after - before
    return f" ({grown:+,} {'row' if abs(grown) == 1 else 'rows'})"


def blamed(document: Document) -> Table:
    """Each change of a release put back by itself, the one that made the language worst first."""
    language, parent = document["language"], document["parent"]
    suspects = sorted(
        document["suspects"], key=lambda row: (row["difference"] is None, -(row["difference"] or 0.0))
    )
    rows = tuple(
        (
            row["suspect"],
            score(row["value"]),
            difference(row),
            p_value(row["p"]),
            str(row["n"]),
        )
        for row in suspects
    )
    guilty = [row for row in suspects if row["low"] is not None and row["low"] > 0]
    notes = [
        f"{row['suspect']} made {language} worse: with release {parent}'s put back, it scores "
        f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]."
        for row in guilty
    ]
    if not guilty:
        notes.append(f"No single change can be told to have made {language} worse on these rows.")
    if len(suspects) > 1:
        notes.append("Each is judged by itself: of many, one may stand out by chance.")
    return Table(
        f"Who made {language} worse in release {document['release']}: {metric_name(document['metric'])} on test "
        f"rows with one change put back to release {parent}",
        ("put back", "score", "put back - release", "p", "n"),
        rows,
        tuple(notes),
    )
