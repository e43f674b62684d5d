"""rows.txt: what an adapter was trained on; and from it, what a continuation is trained on.

One line a row, sorted: the first 16 hex digits of the row's content digest, and of the sha256 of its text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sabir.work.prepare import Example
from sabir.work.sources import hash_of

NAME = "rows.txt"
DIGITS = 16  # of each hash: among a million rows two share them with a probability of 3e-8


@dataclass(frozen=True)
class Choice:
    """What a continuation is trained on: the rows that its parent was not trained on, and some of the others.

    `gone` counts, line by line, rows the parent was trained on that are no longer there.
    """

    new: tuple[Example, ...]
    replayed: tuple[Example, ...]
    gone: Mapping[str, int]

    @property
    def rows(self) -> tuple[Example, ...]:
        return self.new + self.replayed


def choose(rows: Iterable[Example], parent: Mapping[str, int], *, replay: float, seed: int) -> Choice:
    """The rows to go on with, each part in the order of `rows`.

    Whether a row is replayed depends on its content and the seed alone: not on the other rows, so it does not
    change as rows are added.

    Args:
        parent: lines of the parent's rows.txt, counted; a row that is there more often than the parent had it
            is new that many times.
        replay: the share of the old rows that is chosen.
    """
    left = dict(parent)
    new: list[Example] = []
    replayed: list[Example] = []
    for row in rows:
        line = line_of(row)
        if not left.get(line):
            new.append(row)
            continue
        left[line] -= 1
        if _place(row, seed) < replay:
            replayed.append(row)
    return Choice(tuple(new), tuple(replayed), {line: count for line, count in left.items() if count})


def _place(row: Example, seed: int) -> float:
    """A number from 0 up to 1 that a row has for a seed."""
    digits = hashlib.sha256(f"replay:{seed}:{row.digest}".encode()).hexdigest()[:13]
    return int(digits, 16) / 16**13  # 52 bits: exact, and never 1


def line_of(row: Example) -> str:
    """The row's line in rows.txt."""
    return f"{row.digest[:DIGITS]} {hash_of(row.prompt.source)[:DIGITS]}"


def write_rows(folder: Path, rows: Sequence[Example], parent: Mapping[str, int]) -> None:
    """Write an adapter's rows.txt: these rows and whatever else its parent stands for."""
    lines = Counter(map(line_of, rows)) | Counter(parent)
    (folder / NAME).write_text("".join(f"{line}\n" for line in sorted(lines.elements())), encoding="ascii")


def read_rows(folder: Path) -> Counter[str] | None:
    """The lines of an adapter's rows.txt, counted; None for one that sabir did not train, or did before it
    wrote them."""
    try:
        return Counter((folder / NAME).read_text(encoding="ascii").splitlines())
    except FileNotFoundError:
        return None


def half(rows: Sequence[Example], number: int) -> list[Example]:
    """One half of the rows, in their order: 1 and 2 are each other's rest, 3 and 4 of another split, and so on.

    Which half a row falls in depends on the contents of all: the halves are of one size.
    """
    pair, second = divmod(number - 1, 2)

    def place(row: Example) -> str:
        return hashlib.sha256(f"half:{pair}:{row.digest}".encode()).hexdigest()

    middle = (len(rows) + 1) // 2
    ranked = sorted(range(len(rows)), key=lambda nth: place(rows[nth]))
    return [rows[nth] for nth in sorted(ranked[middle:] if second else ranked[:middle])]
