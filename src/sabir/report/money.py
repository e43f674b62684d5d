"""Tables of time and money: set-up and updates by both routes, and what the updates saved so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.report.costs import COMPONENTS
from sabir.report.tables import Document, Table, csv_of
from sabir.report.words import counted, duration, hours, money, percent

CostRow = Mapping[str, Any]

FIELDS = (
    *("run", "phase", "route", "component", "devices"),
    *("wall_s", "wall_s_unlimited", "device_s", "usd", "measured", "complete"),
)
_PHASES = {"setup": "set-up", "update": "update", "add": "new language", "none": "other"}
_WORK = {
    ("combined", "train"): "train: combined",
    ("merged", "train"): "train: by language",
    ("merged", "merge"): "  merge",
    ("merged", "search"): "  choose (valid)",
    ("merged", "evaluate"): "  evaluate the rest",
    ("combined", "evaluate"): "  evaluate combined",
    ("continued", "train"): "train: combined, continued",
    ("continued", "evaluate"): "  evaluate continued",
    ("beside", "train"): "beside: train rivals",
    ("beside", "merge"): "  beside: merge",
    ("beside", "search"): "  beside: choose",
    ("beside", "evaluate"): "  beside: evaluate",
}
_PREDICTED = "~ not trained this time: predicted from measured tokens per second."


def csv_text(rows: Iterable[CostRow]) -> str:
    """Cost rows as CSV; those of several tasks say which."""
    rows = list(rows)
    return csv_of(rows, (*FIELDS, *(["task"] if any("task" in row for row in rows) else [])))


# --- which runs ------------------------------------------------------------------------------------------


def rows_since(rows: Sequence[CostRow], since: str | None) -> list[CostRow]:
    """The cost rows of the runs since a date, a run's id, or a run's number in the table of costs.

    A run that was stopped stays with the one that went on from it. Each row gets `number`, its run's in that table
    (null where it has no place there), so that what is chosen from is numbered as the whole.
    Args:
        since: "2026-11-21" or "2026-11-21T16:00" (UTC where no zone is given), an id, a number from 1; None for
            all of them.
    Raises InputError when it is none of these.
    """
    return [{**row, "number": number} for number, group in _since(rows, since) for row in group]


def _since(rows: Sequence[CostRow], since: str | None) -> list[tuple[int | None, list[CostRow]]]:
    """Each task's number in the table (None where it has no place there) and rows, from `since` on."""
    numbered: list[tuple[int | None, list[CostRow]]] = []
    number = 0
    for group in _tasks(rows):
        if _tells(group):
            number = group[0].get("number", number + 1)
        numbered.append((number if _tells(group) else None, group))
    if since is None:
        return numbered
    by_run = [at for at, (_, group) in enumerate(numbered) if any(row["run"] == since for row in group)]
    if by_run:
        return numbered[by_run[0] :]
    if since.isdecimal() and len(since) < len("20261121"):
        by_number = [at for at, (found, _) in enumerate(numbered) if found == int(since)]
        if not by_number:
            raise InputError("--since", f"there is no run {since}.", f"There are {number}, numbered from 1.")
        return numbered[by_number[0] :]
    try:
        date = datetime.fromisoformat(since)
    except ValueError:
        runs = list(dict.fromkeys(row["run"] for row in rows))
        raise InputError(
            "--since",
            f"{since!r} is no date, and no run's number or id.",
            f"Write it as 2026-11-21.{did_you_mean(since, runs)}",
        ) from None
    start = (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    return [
        (found, group) for found, group in numbered if group[-1]["run"] >= start
    ]  # ids begin with the time


def _tasks(costs: Sequence[CostRow]) -> list[list[CostRow]]:
    """Cost rows by the task they served: those of a run that did not finish, and of the one that went on."""
    groups: list[list[CostRow]] = []
    for row in costs:
        last = groups[-1][-1] if groups else None
        goes_on = last and not last.get("complete", True) and last["phase"] == row["phase"]
        if last and (last["run"] == row["run"] or goes_on):
            groups[-1].append({"complete": True, **row})
        else:
            groups.append([{"complete": True, **row}])
    return groups


def _tells(group: Sequence[CostRow]) -> bool:
    """False for a run that only merged or scored anew: it compares no routes."""
    return group[0]["phase"] != "none" or any(row["component"] == "train" for row in group)


def _label(number: int | None, group: Sequence[CostRow]) -> str:
    return f"{number}. {_PHASES[group[0]['phase']]}" + ("" if group[-1]["complete"] else " (unfinished)")


# --- time and cost ---------------------------------------------------------------------------------------


def costs(document: Document, since: str | None = None) -> Table | None:
    """Set-up and updates by both routes, in the layout of the paper; None where there was no such run.

    Three clocks: a device for every job, as many devices as the run had, and one device. A run that failed or
    was stopped is added to the one that went on from it.
    Args:
        since: only the runs from there on, see `rows_since`.
    """
    rows: list[tuple[str, ...]] = []
    chosen = _since(document["costs"], since)
    groups = [(number, group) for number, group in chosen if number is not None]
    every = [row for _, group in groups for row in group]
    priced = any(row["usd"] is not None for row in every)
    several = sorted({row["devices"] for row in every if row["devices"] > 1})
    for number, group in groups:
        cells = {key: _cells(found, bool(several)) for key, found in _summed(group).items()}
        train = [cells.get((route, "train")) for route in ("combined", "merged")]
        lines = []
        for key, name in _WORK.items():
            if key in cells:
                mark = " ~" if _is_predicted(group, *key) else ""
                lines.append((name + mark, _cost_texts(cells[key], priced)))
            if key == ("merged", "train") and train[0] and train[1]:
                lines.append(("  difference", _changes(train[0], train[1], priced)))
        label = _label(number, group)
        rows += [(label if line == 0 else "", name, *texts) for line, (name, texts) in enumerate(lines)]
    if not rows:
        return None
    columns = ["run", "work", "a device each", "one device", "device h"]
    notes = ["Clocks: a device for every job at once; one device for all."]
    if several:
        devices = " or ".join(map(str, several))
        columns.insert(3, f"{devices} devices")
        notes = [
            f"Clocks: a device for every job at once; {devices} devices for either route (the one combined "
            "training counted as if it split over them without loss, which sabir does not do); one device."
        ]
    notes.append(
        "By language: an adapter each, then merged. Combined: one adapter on all data. The rest: the bare "
        "base, each language's own adapter, and the merges."
    )
    if ("continued", "train") in _summed(every):
        notes.append("Continued: the combined adapter trained on with the new rows only.")
    if any(not row["measured"] for row in every):
        notes.append(_PREDICTED)
    notes += _elsewhere([group for number, group in chosen if number is None])
    if not priced:
        notes.append("No price is set (prices: {usd_per_hour: ...}), so hours are counted and money is not.")
    return Table("Time and cost", (*columns, "USD") if priced else tuple(columns), tuple(rows), tuple(notes))


def _elsewhere(groups: Sequence[Sequence[CostRow]]) -> list[str]:
    """What runs without a place in the table took: nothing that was paid goes unsaid."""
    device_s = sum(row["device_s"] for group in groups for row in group if row["component"] != "total")
    if not device_s:
        return []
    return [f"{counted(len(groups), 'other run')} only merged or scored anew: {hours(device_s)} device h."]


def _summed(group: Iterable[CostRow]) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in group:
        sums = found.setdefault((row["route"], row["component"]), {"devices": row["devices"], "usd": None})
        for key in ("wall_s", "wall_s_unlimited", "device_s"):
            sums[key] = sums.get(key, 0.0) + row[key]
        if row["usd"] is not None:
            sums["usd"] = (sums["usd"] or 0.0) + row["usd"]
        if row["route"] != "merged" and row["component"] == "train":
            sums["wall_s"] = sums["device_s"] / sums["devices"]  # the best case of one training, see the note
    return found


def _is_predicted(group: Iterable[CostRow], route: str, component: str) -> bool:
    found = [row for row in group if (row["route"], row["component"]) == (route, component)]
    return any(not row["measured"] for row in found)


def _cells(found: Mapping[str, Any], several: bool) -> list[float | None]:
    clocks = [found["wall_s_unlimited"], *([found["wall_s"]] if several else []), found["device_s"]]
    return [*clocks, found["device_s"], found["usd"]]


def _cost_texts(cells: Sequence[float | None], priced: bool) -> tuple[str, ...]:
    *clocks, device_s, usd = cells
    texts = (*map(duration, clocks), hours(device_s))
    return (*texts, "" if usd is None else money(usd)) if priced else texts


def _changes(before: Sequence[float | None], after: Sequence[float | None], priced: bool) -> tuple[str, ...]:
    cells = tuple(
        f"{100 * (x / y - 1):+.1f} %" if x is not None and y else ""
        for x, y in zip(after, before, strict=True)
    )
    return cells if priced else cells[:-1]


# --- savings ---------------------------------------------------------------------------------------------


def savings(document: Document, since: str | None = None) -> Table | None:
    """What each update and each added language saved against retraining everything, and all of them so far.

    Retraining: training the combined adapter on all rows and evaluating it. Against it stands all that the
    merged route spent: training, merging, search and evaluation. None where no update was finished.
    Args:
        since: only the updates from there on, see `rows_since`; what was saved so far is counted from there.
    """
    rows: list[tuple[str, ...]] = []
    spent = saved = usd = 0.0
    updates = _updates(document["costs"], since)
    priced = any(row["usd"] is not None for _, group in updates for row in group)
    known = [_has_baseline(group) for _, group in updates]
    for (number, group), is_known in zip(updates, known, strict=True):
        parts = [_paid([row for row in group if row["component"] == part], "merged") for part in COMPONENTS]
        ours, theirs = _paid(group, "merged"), _paid(group, "combined")
        mark = " ~" if _is_predicted(group, "combined", "train") else ""
        less = theirs - ours if is_known else None
        less_usd = _paid(group, "combined", "usd") - _paid(group, "merged", "usd") if is_known else None
        if any(row["usd"] is None for row in group):
            less_usd = None
        spent += ours if is_known else 0.0
        saved, usd = saved + (less or 0.0), usd + (less_usd or 0.0)
        line = [_label(number, group), hours(theirs) + mark if is_known else "?", *map(hours, parts)]
        line += [hours(less), hours(saved), *((money(less_usd), money(usd)) if priced else ())]
        rows.append(tuple(line))
    if not rows:
        return None
    columns = ["run", "all retrained", "train", "merge", "choose", "evaluate", "saved", "saved so far"]
    notes = []
    if any(known):
        notes.append(
            f"{counted(sum(known), 'update')} took {hours(spent)} device h in place of {hours(spent + saved)} by "
            f"retraining everything: {_gain(saved, saved / (spent + saved), usd if priced else None)}."
        )
    notes.append(
        "In device hours. All retrained: the combined adapter trained on all rows, and evaluated. Saved: that "
        "less all that the merged route spent, its search and its evaluation of other models too."
    )
    if any(_is_predicted(group, "combined", "train") for _, group in updates):
        notes.append(_PREDICTED)
    if not all(known):
        notes.append("? Nothing is known of retraining everything there; not counted.")
    if priced:
        columns += ["saved USD", "USD so far"]
    return Table("Saved against retraining everything", tuple(columns), tuple(rows), tuple(notes))


def _updates(costs: Sequence[CostRow], since: str | None) -> list[tuple[int | None, list[CostRow]]]:
    """The finished updates and additions of languages."""
    return [
        (number, group)
        for number, group in _since(costs, since)
        if group[0]["phase"] in ("update", "add") and group[-1]["complete"]
    ]


@dataclass(frozen=True)
class Saved:
    """What merging saved in so many updates against retraining everything; negative: it took more.

    `device_s` of all of them together, `share` of what retraining would have taken.
    """

    updates: int
    device_s: float
    share: float


def saved_so_far(costs: Sequence[CostRow]) -> Saved | None:
    """What the updates saved of which it is known what retraining would have taken; None: there is none."""
    known = [group for _, group in _updates(costs, None) if _has_baseline(group)]
    theirs = sum(_paid(group, "combined") for group in known)
    ours = sum(_paid(group, "merged") for group in known)
    return Saved(len(known), theirs - ours, (theirs - ours) / theirs) if theirs else None


def _gain(saved: float, share: float, usd: float | None) -> str:
    """Device time and money that were saved, or spent on top: "0.5000 device h (10.5 %) and 5.00 USD more"."""
    less, more = "saved", "more"
    time = f"{hours(abs(saved))} device h ({percent(abs(share))})"
    how = less if saved >= 0 else more
    if usd is None:
        return f"{time} {how}"
    cheaper = less if usd > 0 or (usd == 0 and saved >= 0) else more  # prices may differ from run to run
    return f"{time}{'' if cheaper == how else ' ' + how} and {money(abs(usd))} USD {cheaper}"


def _has_baseline(group: Iterable[CostRow]) -> bool:
    return any((row["route"], row["component"]) == ("combined", "train") for row in group)


def _paid(rows: Iterable[CostRow], route: str, what: str = "device_s") -> float:
    """Device time or money of a route, without the totals; what had no price counts nothing."""
    chosen = [row for row in rows if row["route"] == route and row["component"] != "total"]
    return sum(row[what] or 0.0 for row in chosen)
