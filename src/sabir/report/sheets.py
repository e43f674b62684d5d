"""Scores and comparisons as CSV, for spreadsheets and statistics packages: a line a row of the document, unrounded."""

from __future__ import annotations

from sabir.report.tables import Document, csv_of

ANSWERS = ("empty", "cut", "unread")
SCORE_FIELDS = (
    *("task", "model", "language", "split", "metric", "value", "low", "high", "level"),
    *("n", "unscored", "undefined", "groups", "seed", *ANSWERS, "signature"),
)
COMPARISON_FIELDS = (
    *("a", "b", "language", "split", "metric", "difference", "low", "high", "p", "margin", "verdict"),
    *("n", "groups", "seeds", "detectable", "why"),
)


def scores_csv(document: Document) -> str:
    """Every score of a document, of all splits; what is wrong with the answers in columns of its own."""
    rows = (
        {**row, **{name: (row.get("answers") or {}).get(name) for name in ANSWERS}}
        for row in document["scores"]
    )
    return csv_of(rows, SCORE_FIELDS)


def comparisons_csv(document: Document) -> str:
    """Every comparison of a document; those of several tasks say which."""
    rows = document["comparisons"]
    return csv_of(rows, (*(["task"] if any("task" in row for row in rows) else []), *COMPARISON_FIELDS))
