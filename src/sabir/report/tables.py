"""A table for people: what the reports return and the command line draws."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
_MARKS = re.compile(r"[|*<]")


@dataclass(frozen=True)
class Table:
    """A title, the columns' heads, rows of texts, and what a reader may conclude, a sentence each.

    `strong` names cells to set off, as (row, column).
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    strong: frozenset[tuple[int, int]] = frozenset()


def markdown(tables: Iterable[Table | None]) -> str:
    """Tables as Markdown, with their notes below."""
    return "\n".join(_markdown(table) for table in tables if table is not None)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rows = [
        [f"**{_literal(cell)}**" if (i, j) in table.strong else _literal(cell) for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    body = [
        f"**{table.title}**",
        "",
        line([_literal(head) for head in table.columns]),
        line(["---"] * len(table.columns)),
        *map(line, rows),
        "",
    ]
    return "\n".join([*body, *(f"{_literal(note)}\n" for note in table.notes)])


def _literal(text: str) -> str:
    """A text that Markdown shows as it is: no emphasis, no tags, no new columns."""
    return _MARKS.sub(r"\\\g<0>", text)


def csv_of(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """Rows as CSV: one header, a line a row; what is unknown is empty, truths are true and false."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        values = (row.get(field) for field in fields)
        writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in values])
    return text.getvalue()
