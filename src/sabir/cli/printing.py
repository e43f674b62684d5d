"""What the verbs print: lines, JSON, tables; errors as sentences."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sabir.errors import SabirError

if TYPE_CHECKING:
    from sabir.report.tables import Table


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


def results(document: Mapping[str, Any]) -> Iterator[Table | str]:
    """What a run came to: quality, harder texts, what changed since the release, time and money; and advice."""
    from sabir.report.advice import advice
    from sabir.report.money import costs
    from sabir.report.quality import changed, quality
    from sabir.report.stress import stress

    candidate = any(row["b"] == f"release/{document['release']}" for row in document["changes"])
    since = changed(document) if candidate else None
    for table in (quality(document), stress(document), since, costs(document)):
        if table is not None:
            yield table
    if sentences := advice(document):
        yield "\n".join(["Advice:", "", *(f"- {sentence}" for sentence in sentences), ""])


def print_results(document: Mapping[str, Any]) -> None:
    for shown in results(document):
        print_shown(shown)


def print_shown(shown: Table | str) -> None:
    """A table, or sentences as wide as the terminal."""
    if not isinstance(shown, str):
        return print_table(shown)
    from rich.text import Text

    console = _console()
    with console.capture() as captured:
        console.print(Text(shown))
    say("\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n")))


def print_task(name: str | None) -> None:
    """The heading over what is of one of several tasks."""
    if name is not None:
        say(f"=== {name} ===\n")


def print_table(table: Table | None) -> None:
    """A table, where there is one; one of many columns in several below each other."""
    if table is None:
        return
    from sabir.report.layout import parted

    for part in parted(table, _console().width):
        _print_one(part)


def _print_one(table: Table) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    from sabir.report.layout import laid_out

    console = _console()
    layout = laid_out(table.columns, table.rows, console.width)
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=not layout.tight,
        padding=(0, 0 if layout.tight else 1, 0, 0),
        pad_edge=False,
    )
    for name, width in zip(layout.columns, layout.widths, strict=True):
        drawn.add_column(name, no_wrap=True, width=width)
    for i, row in enumerate(layout.rows):
        drawn.add_row(
            *(Text(cell, style="bold green" if (i, j) in table.strong else "") for j, cell in enumerate(row))
        )
    with console.capture() as captured:
        if table.rows:
            around = [Text("")] if layout.tight else []  # an empty line above and below, as the edge is
            if table.title:
                console.print(Text(table.title, style="bold"), *around, sep="\n")
            room = console.width
            console.width = max(layout.width, room)  # rather wider than the terminal than broken words
            console.print(drawn, *around, sep="\n")
            console.width = room
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
    if document is not None and "estimates" in document:
        from sabir.report.estimates import estimates

        print_table(estimates(document))
    elif document is not None:
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
