"""What is known of errors without labels: the document, a table of segments, of what to do, and the trend over time."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sabir.estimate.evidence import span_of
from sabir.report.tables import Document, Table
from sabir.report.words import counted, hours, listed, money, p_value, percent, score, signed

if TYPE_CHECKING:
    from sabir.estimate.advice import Advice
    from sabir.estimate.evidence import Estimate, Segment

Row = Mapping[str, Any]

FACTS = ("raw", "disagreement_reference", "drift_p", "rise", "weight")
BLOCKS = "▁▂▃▄▅▆▇█"
ALARM, SMALL, UNKNOWN = "!", "·", "-"
NOW = "now"  # after all dates
MOST_WINDOWS = 16  # blocks in a row
MOST_NAMED = 6
FEWEST = 20  # labels of a segment on which its estimate stands
_DIGITS = re.compile(r"(\d+)")


def estimate_document(
    estimates: Sequence[Estimate],
    advice: Sequence[Advice],
    *,
    release: str | None,
    model: str,
    members: Mapping[str, Any],
    estimator: str,
    level: float,
    budgets: Mapping[str, float],
    alarms: Collection[Segment] | None = None,
    facts: Mapping[Segment, Mapping[str, Any]] | None = None,
    history: Sequence[Row] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The `estimate` document.

    Args:
        members: `kind`, `names` and their number `n`.
        budgets: by language; one that has none has no alarm.
        alarms: the segments that are alarming; None: those whose whole interval is over the budget.
        facts: by segment what else is known: `raw` disagreement, `disagreement_reference`, `drift_p`, `weight`.
        history: rows of `estimates` of earlier windows.
    """
    rows = []
    for one in estimates:
        budget = budgets.get(one.segment.language)
        over = budget is not None and one.low is not None and one.low > budget
        known = (facts or {}).get(one.segment, {})
        rows.append(
            {
                "language": one.segment.language,
                "domain": one.segment.domain,
                "window": one.segment.window,
                "estimator": one.estimator,
                "error": one.error,
                "low": one.low,
                "high": one.high,
                "level": one.level,
                "n": one.n,
                "n_labelled": one.n_labelled,
                "budget": budget,
                "alarm": over if alarms is None else one.segment in alarms,
                "flags": list(one.flags),
                **{name: known.get(name) for name in FACTS},
                "how": one.how,
            }
        )
    return {
        "release": release,
        "model": model,
        "members": dict(members),
        "estimator": estimator,
        "level": level,
        "estimates": rows,
        "advice": [
            {
                "action": one.action,
                "language": one.language,
                "p_over_budget": one.p_over_budget,
                "expected_gain": one.expected_gain,
                "estimated_usd": one.estimated_usd,
                "estimated_device_s": one.estimated_device_s,
                "labels": one.labels,
                "why": one.why,
            }
            for one in advice
        ],
        "history": [dict(row) for row in history],
        "warnings": list(warnings),
    }


def estimates(document: Document) -> Table:
    """One row a language and domain, of its last window: the error with its interval, beside its budget.

    Raw disagreement always stands beside it. What to beware of is in the notes.
    """
    rows = _last(document["estimates"])
    optional = {
        "domain": [row["domain"] for row in rows],
        "window": [row["window"] for row in rows],
    }
    columns = {
        "language": [row["language"] for row in rows],
        **{head: cells for head, cells in optional.items() if any(cells)},
        f"error [{100 * document['level']:g} % interval]": [_with_interval(row) for row in rows],
        "raw": [score(row.get("raw")) for row in rows],
        "budget": [score(row["budget"]) for row in rows],
        "": ["ALARM" if row["alarm"] else "" for row in rows],
        "n": [f"{row['n']:,}" for row in rows],
    }
    if any(row["n_labelled"] for row in rows):
        columns["labelled"] = [f"{row['n_labelled']:,}" for row in rows]
    if any(row.get("drift_p") is not None for row in rows):
        columns["drift p"] = ["" if row.get("drift_p") is None else p_value(row["drift_p"]) for row in rows]
    if any(row.get("rise") is not None for row in rows):
        columns["rise"] = ["" if row.get("rise") is None else signed(row["rise"]) for row in rows]
    heads = tuple(columns)
    alarming = {(at, heads.index("")) for at, row in enumerate(rows) if row["alarm"]}
    return Table(
        f"Estimated error of {_served(document)}",
        heads,
        tuple(zip(*columns.values(), strict=True)),
        (*_alarms(rows), *_made(document, rows), *_flagged(rows)),
        frozenset(alarming),
    )


def advice(document: Document) -> Table | None:
    """What to do about each language, what gains most for its cost first; None where nothing is advised."""
    found = document["advice"]
    if not found:
        return None
    columns = {
        "do": [row["action"] + (f" {row['labels']}" if row.get("labels") else "") for row in found],
        "language": [row["language"] for row in found],
        "over budget": [
            "?" if row["p_over_budget"] is None else percent(row["p_over_budget"]) for row in found
        ],
        "spared in 1,000": [
            "?" if row["expected_gain"] is None else f"{1000 * row['expected_gain']:.1f}" for row in found
        ],
        "device h": [hours(row.get("estimated_device_s")) for row in found],
        "USD": [money(row["estimated_usd"]) for row in found],
    }
    acting = [row for row in found if row["action"] != "wait"]
    notes = [f"{row['action'].capitalize()} {row['language']}: {row['why']}." for row in acting[:MOST_NAMED]]
    if not acting:
        notes.append("Nothing to do: every language is within its budget as far as can be told.")
    notes.append(
        "Over budget: how probable, after shrinkage. Spared: errors in 1,000 texts of all traffic, if retrained."
    )
    strong = frozenset((at, 0) for at, row in enumerate(found) if row["action"] == "retrain")
    return Table(
        "What to do first", tuple(columns), tuple(zip(*columns.values(), strict=True)), tuple(notes), strong
    )


def trend(document: Document) -> Table | None:
    """The error of each language and domain from window to window, drawn; None of fewer than two windows.

    Texts that are not parted are a window each time they are estimated.
    """
    by_place: dict[tuple[str, str], dict[str, Row]] = {}
    spans = {span_of(row["window"]) for row in document["estimates"]}
    whole = {row["window"] for row in document["estimates"]} == {""}
    for row in [*document["history"], *document["estimates"]]:
        if span_of(row["window"]) not in spans or (whole and row["window"]):
            continue  # windows of another kind
        if "created" in row and spans == {None} and not whole:
            continue  # windows by number are numbered in each file from the start
        name = row.get("created", NOW) if whole else row["window"]
        by_place.setdefault((row["language"], row["domain"]), {})[name] = row
    windows = sorted(
        {window for rows in by_place.values() for window in rows},
        key=lambda window: (window == NOW, _natural(window)),
    )
    if len(windows) < 2:
        return None
    shown = windows[-MOST_WINDOWS:]
    drawn = {place: [rows.get(window) for window in shown] for place, rows in by_place.items()}
    every = [row for rows in drawn.values() for row in rows if row is not None]
    top = max(
        (value for row in every for value in (row["error"], row["budget"]) if value is not None), default=0
    )
    known = {
        place: [row for row in rows if row is not None and row["error"] is not None]
        for place, rows in drawn.items()
    }
    budgets = {
        place: next((row["budget"] for row in reversed(rows) if row is not None), None)
        for place, rows in drawn.items()
    }
    columns = {
        "language": [language for language, _ in drawn],
        **({"domain": [domain for _, domain in drawn]} if any(domain for _, domain in drawn) else {}),
        "trend": ["".join(_block(row, top) for row in rows) for rows in drawn.values()],
        "first": [_value(rows[:1]) for rows in known.values()],
        "last": [_value(rows[-1:]) for rows in known.values()],
        "highest": [_highest(rows) for rows in known.values()],
        "budget": [
            "" if budget is None else f"{score(budget)} {_height(budget, top)}" for budget in budgets.values()
        ],
    }
    earlier = f", the last {len(shown)} of {len(windows)} windows" if len(shown) < len(windows) else ""
    marks = {
        f"{ALARM} the window before it is alarming": any(row["alarm"] for row in every),
        f"{SMALL} the window before it is small": any(_is_small(row) for row in every),
        f"{UNKNOWN} no estimate": any(UNKNOWN in cell for cell in columns["trend"]),
    }
    legend = f"A block a window, up to {score(top)}; beside each budget its height."
    return Table(
        f"Error over time: {shown[0]} to {shown[-1]}{earlier}",
        tuple(columns),
        tuple(zip(*columns.values(), strict=True)),
        ("; ".join([legend.removesuffix("."), *(mark for mark, used in marks.items() if used)]) + ".",),
    )


def _last(rows: Sequence[Row]) -> list[Row]:
    """Of each language and domain the row of its last window, in the order in which they first come."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        place = (row["language"], row["domain"])
        if place not in found or _natural(row["window"]) >= _natural(found[place]["window"]):
            found[place] = row
    return list(found.values())


def _served(document: Document) -> str:
    release = document["release"]
    return document["model"] if release is None else f"release {release} ({document['model']})"


def _place(row: Row) -> str:
    return "/".join(part for part in (row["language"], row["domain"]) if part)


def _with_interval(row: Row) -> str:
    if row["error"] is None:
        return "?"
    if row["low"] is None or row["high"] is None:
        return score(row["error"])
    return f"{row['error']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _alarms(rows: Sequence[Row]) -> list[str]:
    alarming = [_place(row) for row in rows if row["alarm"]]
    if not alarming:
        return []
    verb = "is" if len(alarming) == 1 else "are"
    return [
        f"ALARM: {listed(alarming, MOST_NAMED)} {verb} over budget beyond doubt, all that is looked at together."
    ]


def _made(document: Document, rows: Sequence[Row]) -> list[str]:
    """By whom and over whom it was estimated, and how the intervals were made or why there is none."""
    members = document["members"]
    names = listed(list(members["names"]), MOST_NAMED)
    over = f" over {counted(members['n'], 'member')} ({members['kind']}: {names})" if members["n"] else ""
    at_rest = (
        ": the error on the labelled rows; it does not look at these texts" if _is_constant(document) else ""
    )
    sentences = [
        f"By {document['estimator']}{at_rest}.",
        f"Raw: the disagreement{over} alone, which shared mistakes make too small.",
    ]
    few = sorted({row["language"] for row in rows if 0 < row["n_labelled"] < FEWEST})
    if few:
        sentences.append(
            f"Too few labels in {listed(few, MOST_NAMED)} to count: an estimate stands on {FEWEST} or more."
        )
    with_one = _grouped((row["how"], row) for row in rows if row["low"] is not None and row["how"])
    without = _grouped((row["how"] or "not known", row) for row in rows if row["low"] is None)
    if len(with_one) == 1:
        sentences.append(f"Intervals by {next(iter(with_one))}.")
    else:
        sentences += [f"Interval of {places} by {how}." for how, places in with_one.items()]
    return sentences + [f"No interval for {places}: {why}." for why, places in without.items()]


def _is_constant(document: Document) -> bool:
    return bool(document["estimator"] == "constant")


def _flagged(rows: Sequence[Row]) -> list[str]:
    """What to beware of, a sentence a flag with the segments that have it."""
    return [
        f"{places}: {flag}."
        for flag, places in _grouped((f, row) for row in rows for f in row["flags"]).items()
    ]


def _grouped(pairs: Iterable[tuple[str, Row]]) -> dict[str, str]:
    """The places that have each text, listed."""
    found: dict[str, list[str]] = {}
    for text, row in pairs:
        found.setdefault(text, []).append(_place(row))
    return {text: listed(places, MOST_NAMED) for text, places in found.items()}


def _block(row: Row | None, top: float) -> str:
    if row is None or row["error"] is None:
        return UNKNOWN
    return _height(row["error"], top) + ALARM * bool(row["alarm"]) + SMALL * _is_small(row)


def _height(value: float, top: float) -> str:
    eighths = (
        int(len(BLOCKS) * value / top + 1e-9) if top else 0
    )  # three of them are not two because of rounding
    return BLOCKS[min(len(BLOCKS) - 1, eighths)]


def _is_small(row: Row) -> bool:
    return any(flag.startswith("small") for flag in row["flags"])


def _value(rows: Sequence[Row]) -> str:
    return score(rows[0]["error"]) if rows else "?"


def _highest(rows: Sequence[Row]) -> str:
    if not rows:
        return "?"
    most = max(rows, key=lambda row: row["error"])
    return f"{score(most['error'])} ({most['window']})"


def _natural(window: str) -> list[tuple[int, str]]:
    """Windows in the order of their numbers: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in _DIGITS.split(window) if part]
