"""What the verbs print: lines, JSON, tables; errors as sentences."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sabir.errors import SabirError

if TYPE_CHECKING:
    from sabir.report.tables import Table

KEPT_WHOLE = 22  # columns up to this width are not folded: numbers, intervals, short names


def say(text: str) -> None:
    """A line on standard output. A reader that has seen enough (`sabir show | head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(warning: str) -> None:
    print(f"warning: {warning}", file=sys.stderr)


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document, a line for each row of its lists: json indents in Python, some ten times as slowly."""
    written = json.JSONEncoder(ensure_ascii=False).encode
    lines = []
    for key, value in document.items():
        rows = "[" + ",\n  ".join(map(written, value)) + "]" if isinstance(value, list) else written(value)
        lines.append(f" {written(key)}: {rows}")
    say("{\n" + ",\n".join(lines) + "\n}")


def print_results(document: Mapping[str, Any]) -> None:
    from sabir.report.money import costs
    from sabir.report.quality import changed, quality

    candidate = any(row["b"] == f"release/{document['release']}" for row in document["changes"])
    for table in (quality(document), changed(document) if candidate else None, costs(document)):
        print_table(table)


def print_table(table: Table | None) -> None:
    """A table, where there is one."""
    if table is None:
        return
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    console = _console()
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    widest = [max(map(cell_len, cells)) for cells in zip(*table.rows, strict=True)] or [0] * len(
        table.columns
    )
    kept = [width if width <= KEPT_WHOLE else None for width in widest]
    if sum((width or 8) + 2 for width in kept) > console.width:  # else the table would be cut off
        kept = [None] * len(kept)
    for name, width in zip(table.columns, kept, strict=True):
        drawn.add_column(name, overflow="fold", min_width=width)
    for i, row in enumerate(table.rows):
        drawn.add_row(
            *(Text(cell, style="bold green" if (i, j) in table.strong else "") for j, cell in enumerate(row))
        )
    with console.capture() as captured:
        if table.rows:
            console.print(drawn)
        for note in table.notes:
            console.print(Text(note))
    say("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def _console() -> Any:
    """A console as wide as the terminal; wide enough for every table where there is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def show_scene(title: str, text: str, document: Mapping[str, Any] | None) -> None:
    """One scene of the demo: a heading, a few sentences, and the tables when there are any."""
    from rich.rule import Rule

    console = _console()
    with console.capture() as captured:
        if title:
            console.print()
            console.print(Rule(title, align="left", style="bold cyan"))
        console.print(text)
    say(captured.get().rstrip("\n"))
    if document is not None:
        print_results(document)


def print_analysis(analysis: Mapping[str, Any]) -> None:
    from sabir.report.analysis import tables

    for table in tables(analysis):
        print_table(table)


def print_errors(errors: Sequence[SabirError]) -> None:
    """The error document: the first one, and all of them."""
    problems = [
        {"kind": one.kind, "where": one.where, "message": one.message, "fix": one.fix} for one in errors
    ]
    print_json({"error": problems[0], "errors": problems})
