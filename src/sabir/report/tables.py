"""A table for people: what the reports return and the command line draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


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
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rows = [
        [f"**{cell}**" if (i, j) in table.strong else cell for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    body = [
        f"**{table.title}**",
        "",
        line(table.columns),
        line(["---"] * len(table.columns)),
        *map(line, rows),
        "",
    ]
    return "\n".join([*body, *(f"{note}\n" for note in table.notes)])
