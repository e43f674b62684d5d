"""Numbers as people say them: durations, money, scores. Rounding happens here and nowhere before."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min; "?" when unknown."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def hours(seconds: float | None) -> str:
    """Device time in hours: two decimals from one hour on, four below; "?" when unknown."""
    if seconds is None:
        return "?"
    found = seconds / 3600
    return f"{found:.4f}" if abs(found) < 1 else f"{found:.2f}"


def money(usd: float | None) -> str:
    """US dollars: cents from a dollar on, whole ones from a thousand on, four decimals below a dollar.

    "?" when unknown; "less than 0.0001" is said as such.
    """
    if usd is None:
        return "?"
    if abs(usd) >= 999.995:
        return f"{usd:,.0f}"
    if abs(usd) >= 0.99995:
        return f"{usd:.2f}"
    if usd and abs(usd) < 0.00005:
        return "<0.0001" if usd > 0 else "-<0.0001"
    return f"{usd:.4f}"


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; "?" when unknown."""
    return "?" if share is None else f"{100 * share:.1f} %"


def size(size_bytes: float) -> str:
    """Bytes with a unit of 1024s: 812 B, 3.4 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1023.95:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """ "1 step", "1,204 steps"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def mib(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:,.0f} MiB"


def score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+z.3f}"


def difference(row: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def p_value(p: float | None) -> str:
    """Three decimals; no p is said to be 0."""
    if p is None:
        return "?"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def with_interval(row: Mapping[str, Any] | None, mark: str = "") -> str:
    """A score with its interval where there is one, and a mark after the score."""
    if row is None or row["value"] is None:
        return ""
    found = f"{row['value']:.3f}{mark}"
    if row["low"] is None or row["high"] is None:
        return found
    return f"{found} [{row['low']:.3f}, {row['high']:.3f}]"


def number_range(numbers: Iterable[int]) -> str:
    """ "500", "94 to 500"."""
    found = set(numbers)
    least, most = min(found), max(found)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def metric_name(metric: str) -> str:
    return metric.replace("_", " ")


def listed(words: Sequence[str], most: int, separator: str = ", ") -> str:
    if len(words) <= most:
        return separator.join(words)
    return f"{separator.join(words[:most])}{separator}and {len(words) - most} more"


def by_number(names: Iterable[str]) -> list[str]:
    """Names of releases in the order of their numbers, each once; those that are none come last."""
    return sorted(set(names), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def releases_named(names: Iterable[str], most: int) -> str:
    """ "Release 2", "Releases 1, 2, 10"."""
    ordered = by_number(names)
    return f"{'Release' if len(ordered) == 1 else 'Releases'} {listed(ordered, most)}"


_CUT = re.compile(r"(\S+): [^;\[{]*[\[{][^;]*\.\.\.[^;]*[\]}]")  # of differences: too long to tell
_DICT = re.compile(r"\{[^{}]*\}")


def in_words(reason: str) -> str:
    """A reason without the marks of Python: "update: default -> {'replay': 0.2}" ends in "replay 0.2"."""

    def told(found: re.Match[str]) -> str:
        try:
            settings = ast.literal_eval(found[0])
        except (SyntaxError, ValueError):  # cut short
            return found[0]
        if not isinstance(settings, dict):
            return found[0]
        return ", ".join(
            f"{name} {'default' if value is None else value}" for name, value in settings.items()
        )

    return _DICT.sub(told, _CUT.sub(r"\1 changed", reason))
