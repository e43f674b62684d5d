"""Texts parted by when they came, or by how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Span = Literal["day", "week", "month"]
SPANS: tuple[Span, ...] = ("day", "week", "month")
LEAST = 20  # texts of a window below which it tells too little by itself


@dataclass(frozen=True)
class Windows:
    """The window of each text, and those that hold too few of them.

    Args:
        names: of each text's window, in the order of the texts; they sort as time goes.
        small: windows of fewer texts than `least`, sorted.
    """

    names: tuple[str, ...]
    small: tuple[str, ...] = ()


def by_time(times: Sequence[datetime], span: Span, *, least: int = LEAST) -> Windows:
    """The day, week or month that each text came in, in UTC: "2026-11-21", "2026-W47", "2026-11".

    Weeks are those of ISO 8601: they start on Monday, and the first one of a year holds its first Thursday. A small
    window stays, and is marked: texts of another week would not belong to it.

    Args:
        times: with a time zone.
    """
    names = tuple(_name(time.astimezone(UTC), span) for time in times)
    return Windows(names, _small(names, least))


def by_count(n: int, size: int, *, times: Sequence[datetime | None] = (), least: int = LEAST) -> Windows:
    """Windows of so many texts each, in the order in which they came: "0001", "0002", ...

    What is left over at the end joins the window before it where it is small; where there is none before it, it is a
    window of its own, and marked.

    Args:
        n: texts there are.
        size: of a window, at least 1.
        times: of each text; where one has none, texts come in the order of the file.
    """
    order = list(range(n))
    known = [time for time in times if time is not None]
    if n and len(known) == n:
        order.sort(key=known.__getitem__)
    whole, rest = divmod(n, size)
    last = whole if rest >= least or not whole else whole - 1  # the number of the last window, from 0
    names = [""] * n
    for number, place in enumerate(order):
        names[place] = f"{1 + min(number // size, last):04}"
    return Windows(tuple(names), _small(names, least))


def _name(time: datetime, span: Span) -> str:
    if span == "week":
        year, week, _ = time.isocalendar()
        return f"{year:04}-W{week:02}"
    day = time.date().isoformat()
    return day if span == "day" else day[:7]


def _small(names: Sequence[str], least: int) -> tuple[str, ...]:
    return tuple(sorted(name for name, count in Counter(names).items() if count < least))
