"""How wide the columns of a table are on a terminal, and where their texts break: at blanks, not inside words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from rich.cells import cell_len, chop_cells

from sabir.report.tables import Table

WORD = 22  # a word up to this width is never broken; a longer one only where nothing else helps
SHORT = 12  # columns up to this width are kept whole
JUDGED = 200  # rows by which the columns to fold are chosen: a table of thousands is drawn at once
_LETTER = re.compile(r"[^\W\d_]")
_SEAM = re.compile(r"(?<=[/,;])|(?=\[)")  # where a long name comes apart: merged/ties[density=0.2]


@dataclass(frozen=True)
class Layout:
    """Heads and cells with their line breaks, and the width of each column in terminal cells.

    `tight`: one blank between columns in place of two, and none at the edges.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[int, ...]
    tight: bool = False

    @property
    def width(self) -> int:
        return sum(self.widths) + _spacing(len(self.widths), self.tight)


def _spacing(columns: int, tight: bool) -> int:
    return columns - 1 if tight else 2 * columns


def parted(table: Table, room: int) -> list[Table]:
    """A table of many columns as several below each other that fit `room` terminal cells, each with its first column.

    The first has the title, the last the notes. A table that fits without folding its numbers stays whole, and so
    does one of few columns: it is read across.
    """

    def fits(columns: Sequence[int]) -> bool:
        rows = [[row[at] for at in columns] for row in table.rows]
        heads = [table.columns[at] for at in columns]
        return laid_out(heads, rows, room, fold_numbers=False).width <= room

    if fits(range(len(table.columns))):
        return [table]
    blocks = [[0]]
    for column in range(1, len(table.columns)):
        if len(blocks[-1]) > 1 and not fits([*blocks[-1], column]):
            blocks.append([0])
        blocks[-1].append(column)
    return [
        Table(
            table.title if block is blocks[0] else "",
            tuple(table.columns[at] for at in block),
            tuple(tuple(row[at] for at in block) for row in table.rows),
            table.notes if block is blocks[-1] else (),
            frozenset((row, block.index(at)) for row, at in table.strong if at in block),
        )
        for block in blocks
    ]


def laid_out(
    columns: Sequence[str], rows: Sequence[Sequence[str]], room: int, *, fold_numbers: bool = True
) -> Layout:
    """A table within `room` terminal cells where that goes without breaking words, else as narrow as it can be.

    What is given up, in this order, until it fits: heads on one line; texts wider than a word; texts wider than
    a short one; the blanks between columns; long names, at their seams; with `fold_numbers` numbers and intervals
    on one line.
    """
    cells: list[list[str]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]
    bodies = [_widest(column) for column in cells]
    heads = [_longest_piece([name]) for name in columns]
    widths = [max(body, cell_len(name)) for body, name in zip(bodies, columns, strict=True)]
    for kept, at_seams, tight in (
        *((None, False, False), (WORD, False, False), (SHORT, False, False)),
        *((SHORT, False, True), (SHORT, True, True)),
        *([(0, True, True)] if fold_numbers else []),
    ):
        least = [
            max(head, _longest_piece(column, at_seams=at_seams) if _folds(column, body, kept) else body)
            for head, column, body in zip(heads, cells, bodies, strict=True)
        ]
        room_for_cells = room - _spacing(len(columns), tight)
        widths = _shrunk(widths, least, cells, room_for_cells)
        if sum(widths) <= room_for_cells:
            break
    return Layout(
        tuple("\n".join(_lines(name, width)) for name, width in zip(columns, widths, strict=True)),
        tuple(
            tuple("\n".join(_lines(cell, width)) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ),
        tuple(widths),
        tight,
    )


def _folds(column: Sequence[str], body: int, kept: int | None) -> bool:
    """Whether a column may be folded where those up to the width `kept` are not; None: no column is.

    Numbers and intervals are read across and down: they fold last.
    """
    if kept is None:
        return False
    return not kept or (body > kept and any(_LETTER.search(cell) for cell in column))


def _shrunk(
    widths: Sequence[int], least: Sequence[int], cells: Sequence[Sequence[str]], room: int
) -> list[int]:
    """Widths made smaller until they fit or are the least: each time of the column that costs the fewest lines."""
    found = list(widths)
    shown = [column[:JUDGED] for column in cells]
    heights = [_heights(column, width) for column, width in zip(shown, found, strict=True)]
    while sum(found) > room and (free := [at for at, width in enumerate(found) if width > least[at]]):
        narrower = {at: _heights(shown[at], found[at] - 1) for at in free}
        lines = {
            at: sum(map(max, zip(*heights[:at], each, *heights[at + 1 :], strict=True)))
            for at, each in narrower.items()
        }
        chosen = min(free, key=lambda at: (lines[at], -found[at]))
        found[chosen] -= 1
        heights[chosen] = narrower[chosen]
    return found


def _heights(column: Iterable[str], width: int) -> list[int]:
    return [len(_lines(cell, width)) for cell in column]


def _widest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _longest_piece(texts: Iterable[str], *, at_seams: bool = False) -> int:
    """The least width that breaks no word; with `at_seams` none of up to `WORD`, and longer ones at seams."""
    pieces = (_indent(text) + piece.rstrip() for text in texts for piece in _pieces(text, at_seams))
    return max(map(cell_len, pieces), default=0)


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _pieces(text: str, at_seams: bool) -> list[str]:
    """Words with the blanks after them; with `at_seams` those longer than `WORD` in parts."""
    words = re.findall(r"\S+\s*", text)
    if not at_seams:
        return words
    return [
        part
        for word in words
        for seam in (_SEAM.split(word) if cell_len(word.rstrip()) > WORD else [word])
        for part in (chop_cells(seam, WORD) if cell_len(seam.rstrip()) > WORD else [seam])
    ]


@cache
def _lines(text: str, width: int) -> tuple[str, ...]:
    """A text in lines of a width; later ones are indented like the first. Words too wide come apart at seams."""
    if cell_len(text) <= width:
        return (text,)
    indent = _indent(text)
    lines: list[str] = []
    line = ""
    for piece in _pieces(text, any(cell_len(indent + word) > width for word in text.split())):
        if line and cell_len(indent + line + piece.rstrip()) > width:
            lines.append(indent + line.rstrip())
            line = ""
        line += piece
    return (*lines, indent + line.rstrip())
