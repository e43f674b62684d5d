"""The table of harder texts: how far each model falls on short, mixed and mislabelled rows, and in other languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sabir.names import ROUTED
from sabir.report.models import in_one_row, in_table
from sabir.report.quality import BEST, mean_of, on_split
from sabir.report.tables import Document, Table
from sabir.report.words import listed, metric_name, percent, with_interval

SETS = {
    "short": "short: the first words of a text",
    "code-switched": "code-switched: half a text, and half of one in another language",
    "mislabelled": "mislabelled: texts in other languages, tagged as this one",
    "unseen": "unseen: languages without an adapter",
}
_WITH_A_RIGHT_ROUTE = ("test", "short", "code-switched")
MOST_WRONG = 6  # languages by name


def stress(document: Document, metric: str | None = None) -> Table | None:
    """One row a model, one column a test set: the mean over its languages; None where there is no such set.

    The last row is the share of rows that the detector sent to their own language's adapter, where that is known.
    """
    metric = metric or document["metric"]
    by_set = {name: on_split(document, name, metric) for name in ("test", *SETS)}
    by_set = {name: scores for name, scores in by_set.items() if scores}
    if not set(by_set) - {"test"}:
        return None
    models = in_one_row(model for name, scores in by_set.items() if name != "test" for model, _ in scores)
    columns, strong = [], set()
    for at, scores in enumerate(by_set.values(), 1):
        present = {language for _, language in scores} - {"macro"}
        means = [mean_of(scores, model, sorted(present)) for model in models]
        best = max((row["value"] for row in means if row and row["value"] is not None), default=None)
        is_best = [row is not None and best is not None and row["value"] == best for row in means]
        strong |= {(row, at) for row, yes in enumerate(is_best) if yes}
        columns.append(
            [with_interval(row, BEST if yes else "") for row, yes in zip(means, is_best, strict=True)]
        )
    names = [in_table(model) + ("  <- selected" if model == document["selected"] else "") for model in models]
    rows = list(zip(names, *columns, strict=True))
    routes = _routes(document)
    if ROUTED in models and any(name in routes for name in by_set):
        shares = [
            percent(share) if (share := _sent_right(routes.get(name, {}), name)) is not None else ""
            for name in by_set
        ]
        rows.append(("routed to their own language's adapter", *shares))
    return Table(
        f"Harder texts: {metric_name(metric)}, mean over languages",
        ("model", *by_set),
        tuple(rows),
        (
            f"{BEST} the largest of its column; whether others are worse was not tested. "
            f"{'; '.join(words for name, words in SETS.items() if name in by_set)}.",
            *_astray(routes.get("test", {})),
        ),
        frozenset(strong),
    )


Counts = Mapping[str, Mapping[str, int]]  # by language, where its rows were sent


def _routes(document: Document) -> dict[str, Counts]:
    """Where rows were sent, by test set."""
    found: dict[str, Any] = dict(document.get("stress_routes") or {})
    return {"test": document["routes"], **found} if document.get("routes") else found


def _sent_right(counts: Counts, name: str) -> float | None:
    """The mean over languages of the share of rows sent to their own; None where no route is the right one."""
    if not counts or name not in _WITH_A_RIGHT_ROUTE:
        return None
    shares = [sent.get(language, 0) / sum(sent.values()) for language, sent in counts.items()]
    return sum(shares) / len(shares)


def _astray(counts: Counts) -> list[str]:
    """Which languages the detector takes for others on the test rows, the worst first."""
    wrong = {}
    for language, sent in counts.items():
        others = {other: count for other, count in sent.items() if other != language and count}
        if others:
            most = max(others, key=lambda other: others[other])
            wrong[language] = (sum(others.values()) / sum(sent.values()), most)
    worst = sorted(wrong, key=lambda language: -wrong[language][0])
    told = [f"{language} {percent(wrong[language][0])} (most to {wrong[language][1]})" for language in worst]
    return [f"Test rows sent to another language's adapter: {listed(told, MOST_WRONG)}."] if told else []
