"""What the comparisons of a document allow to say: one sentence to conclude with, and one on every rival.

Nothing is judged here: verdicts, intervals and refusals are the document's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sabir.names import BASE, COMBINED, CONTINUED, MACRO, OWN, ROUTED
from sabir.report.models import in_prose, is_combined, is_own
from sabir.report.tables import Document
from sabir.report.words import listed, score, signed

MOST_NAMED = 8  # languages by name in one sentence
RIVALS = (COMBINED, CONTINUED, OWN, ROUTED, BASE)  # whom the conclusion is about: the first there is

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two models compared: a row for the mean over languages (None: not compared), and one a language."""

    a: str
    b: str
    mean: Row | None
    languages: tuple[Row, ...]

    @property
    def refused(self) -> tuple[Row, ...]:
        """Languages where parity was refused."""
        return tuple(row for row in self.languages if row.get("why"))

    def with_verdict(self, verdict: str) -> list[Row]:
        return [row for row in self.languages if row["verdict"] == verdict and not row.get("why")]


def pairs(document: Document, metric: str | None = None) -> list[Pair]:
    """The comparisons of a document, by pair; the languages' own adapters are one model."""
    metric = metric or document["metric"]
    found: dict[tuple[str, str], list[Row]] = {}
    for row in document["comparisons"]:
        if row.get("metric", metric) == metric:
            a, b = (OWN if is_own(model) else model for model in (row["a"], row["b"]))
            found.setdefault((a, b), []).append(row)
    return [
        Pair(
            a,
            b,
            next((row for row in rows if row["language"] == MACRO), None),
            tuple(row for row in rows if row["language"] != MACRO),
        )
        for (a, b), rows in found.items()
    ]


def between(document: Document, a: str, b: str, language: str = MACRO) -> dict[str, Any] | None:
    """`difference`, `low` and `high` of a minus b, whichever way round they were compared; None: they were not."""
    for pair in pairs(document):
        rows = [row for row in (pair.mean, *pair.languages) if row is not None]
        row = next((row for row in rows if row["language"] == language), None)
        if row is None:
            continue
        low, high, difference = row["low"], row["high"], row["difference"]
        if (pair.a, pair.b) == (a, b):
            return {"difference": difference, "low": low, "high": high}
        if (pair.a, pair.b) == (b, a):
            return {"difference": _less(difference), "low": _less(high), "high": _less(low)}
    return None


def _less(value: float | None) -> float | None:
    return None if value is None else -value


# --- one sentence ----------------------------------------------------------------------------------------


def conclusion(document: Document, metric: str | None = None) -> str | None:
    """What a reader may conclude of the selected merge against the combined adapter, in one sentence.

    Where there is no such adapter, against the next of `RIVALS`; None where nothing was compared.
    """
    pair = _concluded(document, metric)
    if pair is None or pair.mean is None:
        return None
    mean, count = pair.mean, len(pair.languages)
    told = "refused" if mean.get("why") else mean["verdict"]
    parts = [_on_average(pair, mean, told)]
    if count > 1:
        alike = [] if told == "refused" else pair.with_verdict(told)
        if told in ("better", "worse", "not worse"):
            parts[0] += f" and in {len(alike)} of {count} languages" if alike else ", in no single language"
        parts += [
            f"{words} {_named(rows)}{_shown_from(rows) if verdict == 'undecided' else ''}"
            for verdict, words in _IN_LANGUAGES.items()
            if (rows := pair.with_verdict(verdict))
            and (verdict != told or told == "undecided")  # those are named
        ]
        if pair.refused and told != "refused":
            parts.append(f"nothing is claimed for {_named(pair.refused)}, see below")
    sentence = "; ".join(parts)
    mostly = 2 * len(pair.with_verdict("worse")) >= count
    ending = "; do not merge here." if told == "worse" and mostly and pair.b == COMBINED else "."
    return f"{sentence}{ending}"


def _concluded(document: Document, metric: str | None) -> Pair | None:
    of_selected = {
        pair.b: pair
        for pair in pairs(document, metric)
        if pair.a == document["selected"] and pair.mean is not None
    }
    return next((of_selected[rival] for rival in RIVALS if rival in of_selected), None)


_IN_LANGUAGES = {
    "better": "better in",
    "not worse": "not worse in",
    "worse": "worse in",
    "undecided": "undecided in",
}


def _on_average(pair: Pair, mean: Row, told: str) -> str:
    other = in_prose(pair.b)
    interval = f"[{signed(mean['low'])}, {signed(mean['high'])}]"
    if told == "refused":
        found = f"{signed(mean['difference'])} {interval} on average"
        return f"No parity of {pair.a} with {other} can be claimed ({found}): {_sentence(mean['why'])}"
    if told == "better":
        return f"{pair.a} is better than {other} by {size_of(mean)} on average"
    if told == "worse":
        return f"{pair.a} loses to {other} by {size_of(mean)} on average"
    if told == "not worse":
        return (
            f"{pair.a} is not worse than {other} by more than {mean['margin']:g} "
            f"({signed(mean['difference'])} {interval}) on average"
        )
    return (
        f"It is undecided whether {pair.a} is worse than {other} by {mean['margin']:g} on average: "
        f"{signed(mean['difference'])} {interval}{_shown_from([mean])}"
    )


def size_of(row: Row) -> str:
    """How large a difference is, with its interval where there is one, without its sign: "0.210 [0.150, 0.270]"."""
    low, high, difference = row["low"], row["high"], row["difference"]
    if difference < 0:
        low, high = _less(high), _less(low)
    told = score(abs(difference))
    return told if low is None or high is None else f"{told} [{low:.3f}, {high:.3f}]"


def _named(rows: Iterable[Row]) -> str:
    return listed([row["language"] for row in rows], MOST_NAMED)


def _shown_from(rows: Iterable[Row]) -> str:
    """From which size on the test rows would show a difference; "" where that is not in the document."""
    if not (known := [row["detectable"] for row in rows if row.get("detectable") is not None]):
        return ""
    least, most = score(min(known)), score(max(known))
    span = least if least == most else f"{least} to {most}"
    return f" (test rows that show differences from {span} on)"


def _sentence(text: str) -> str:
    return text.rstrip(". ")


# --- one on every rival ----------------------------------------------------------------------------------


def verdicts(document: Document, metric: str | None = None) -> list[str]:
    """What the comparisons of the selected merge allow to say beside the conclusion, a sentence each.

    And why parity with what was trained on the same rows was refused in single languages, of the conclusion's
    comparison too.
    """
    sentences = []
    concluded = _concluded(document, metric)
    for pair in pairs(document, metric):
        if pair.a != document["selected"]:
            continue
        if pair.mean is not None and pair != concluded:
            sentences.append(_verdict(pair, pair.mean))
        by_reason: dict[str, list[Row]] = {}
        for row in pair.refused if is_combined(pair.b) or pair.b == OWN else ():
            by_reason.setdefault(_sentence(row["why"]), []).append(row)
        sentences += [f"No parity is claimed in {_named(rows)}: {why}." for why, rows in by_reason.items()]
    return sentences


def _verdict(pair: Pair, mean: Row) -> str:
    interval = f"[{signed(mean['low'])}, {signed(mean['high'])}]"
    found = f"{pair.a} against {in_prose(pair.b)}: {signed(mean['difference'])} on average {interval}"
    if mean.get("why"):
        return f"{found}; no parity is claimed: {_sentence(mean['why'])}."
    shown = _shown_from([mean]) if mean["verdict"] in ("undecided", "not worse") else ""
    return f"{found}, so {_VERDICTS[mean['verdict']].format(mean['margin'])}{shown}."


_VERDICTS = {
    "better": "it is better",
    "not worse": "it is not worse by more than {:g}",
    "worse": "it is worse",
    "undecided": "these rows cannot decide whether it is worse by {:g}",
}
