"""What an update would take before its data exist, by both routes, and up to how many languages it pays.

The merged route trains the adapters of the languages that change, merges anew, and answers and scores what then is
new. The combined route trains one adapter on all rows and evaluates it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sabir.names import COMBINED
from sabir.report.baseline import evaluation, predicted_training
from sabir.report.costs import Rates, component, cost_rows, usd
from sabir.report.tables import Document, Table
from sabir.report.words import counted, duration, listed, money, percent

Row = Mapping[str, Any]

MOST_LANGUAGES = 8
START_UP_TELLS_S = 60.0  # of training in all: below it the rates hold much of what every job begins with


@dataclass(frozen=True)
class Language:
    """The training of one language.

    Args:
        rows, characters: of its training rows as they are now.
        epochs: over them, from scratch.
        replay: None: an update trains from scratch on all rows; else it goes on from the last adapter with the
            new rows and this share of the old ones, in [0, 1].
        update_epochs: over those, when it goes on; None: as many as from scratch.
    """

    rows: int
    characters: int
    epochs: float
    replay: float | None = None
    update_epochs: float | None = None

    def size(self, added: float) -> float:
        """Characters times epochs that an update trains on when that many characters are added."""
        if self.replay is None or self.characters == 0:
            return (self.characters + added) * self.epochs
        epochs = self.epochs if self.update_epochs is None else self.update_epochs
        return (added + self.replay * self.characters) * epochs


@dataclass(frozen=True)
class _Work:
    """Steps with their seconds (None where their kind was never measured), by what makes them necessary.

    `shared` and `answered` (by language) are done again in every update: merges, and what the merges answer;
    `own` when that language changes: its rows, and what its own adapter answers; `first` when it is new.
    """

    shared: Sequence[Row]
    answered: Mapping[str, Sequence[Row]]
    own: Mapping[str, Sequence[Row]]
    first: Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class _Known:
    """Languages, steps and how long things took."""

    languages: Mapping[str, Language]
    steps: Sequence[Row]
    rates: Rates
    adapters: Mapping[str, Row]
    combined: Row | None
    epochs: float

    def language(self, name: str) -> Language:
        """One of those there are, or a new one, which has no rows yet."""
        return self.languages.get(name) or Language(0, 0, self.epochs)

    def characters_per_row(self, name: str) -> float:
        """Of a language without rows the mean of the others."""
        own = self.language(name)
        each = [one.characters / one.rows for one in self.languages.values() if one.rows]
        if own.rows:
            return own.characters / own.rows
        return sum(each) / len(each) if each else 0.0

    def training_s(self, name: str, size: float) -> float | None:
        """Time to train a language's adapter; of a new one at the mean rate of the others."""
        if name in self.languages:
            return self.rates.seconds("adapter", size, f"adapter/{name}")
        rates = [self.rates.seconds("adapter", 1.0, f"adapter/{one}") for one in self.languages]
        mean = _mean(rates)
        return None if mean is None else size * mean

    def retraining_s(self, added: Mapping[str, float]) -> float | None:
        """Time to train one adapter on all rows, with characters added by language."""
        names = {**dict.fromkeys(self.languages), **dict.fromkeys(added)}
        sizes = {
            name: (self.language(name).characters + added.get(name, 0.0)) * self.epochs for name in names
        }
        found = predicted_training(sizes, adapters=self.adapters, combined=self.combined)
        return found.wall_s if found else None

    def work(self) -> _Work:
        """The merged route's steps beside training."""
        shared: list[Row] = []
        by_language: tuple[dict[str, list[Row]], ...] = ({}, {}, {})
        answered, own, first = by_language
        for step in self.steps:
            kind, name = step["kind"], step["name"]
            if not step["size"]:
                continue
            if kind in ("merged", "search", "macro") and name.startswith(("merged/", "scores/merged/")):
                shared.append(self.timed(step))
            elif kind == "data":
                own.setdefault(name.removeprefix("data/"), []).append(self.timed(step))
            elif kind in ("outputs", "scores"):
                model, language, _ = name.removeprefix(f"{kind}/").rsplit("/", 2)
                if model.startswith("merged/"):
                    answered.setdefault(language, []).append(self.timed(step))
                elif model.removeprefix("adapter/") in self.languages:
                    own.setdefault(model.removeprefix("adapter/"), []).append(self.timed(step))
                elif model == "base":
                    first.setdefault(language, []).append(self.timed(step))
        return _Work(shared, answered, own, first)

    def reevaluation(self) -> dict[str, list[Row]]:
        """What evaluating the combined adapter takes, by language."""
        found: dict[str, list[Row]] = {}
        for step in evaluation(self.steps):
            if step["size"]:
                found.setdefault(step["name"].split("/")[-2], []).append(self.timed(step))
        return found

    def timed(self, step: Row) -> Row:
        seconds = self.rates.seconds(step["kind"], step["size"], step["name"])
        return {"name": step["name"], "kind": step["kind"], "wall_s": seconds}


def what_if(
    added: Mapping[str, int],
    *,
    languages: Mapping[str, Language],
    steps: Sequence[Row],
    rates: Rates,
    adapters: Mapping[str, Row],
    combined: Row | None,
    epochs: float,
    devices: Sequence[int],
    usd_per_hour: float | None,
) -> dict[str, Any]:
    """The document of `plan --what-if`; what cannot be known from what was measured is null.

    Args:
        added: training rows to be added, by language; one that is not among `languages` is new, and has the mean
            characters a row, the mean rates and the mean test rows. Empty: only the break-even is answered.
        languages: those there are, where they are trained here.
        steps: name, kind and size of the plan's steps and of those that wait for the selection.
        rates: what steps took.
        adapters, combined: costs of the newest trainings, as for `predicted_training`.
        epochs: of the combined training, and of a new language's.
        devices: numbers of devices to answer for.
    """
    known = _Known(languages, steps, rates, adapters, combined, epochs)
    growth = {name: rows * known.characters_per_row(name) for name, rows in added.items()}
    seconds = {
        name: known.training_s(name, known.language(name).size(characters))
        for name, characters in growth.items()
    }
    asked = [
        {
            "language": name,
            "rows": known.language(name).rows,
            "added": added[name],
            "new": name not in languages,
            "mode": "scratch" if known.language(name).replay is None or name not in languages else "continue",
            "estimated_wall_s": seconds[name],
        }
        for name in added
    ]
    work, again = known.work(), known.reevaluation()
    new = [name for name in added if name not in languages]
    routes = {
        "merged": [
            *(_training(f"adapter/{name}", seconds[name]) for name in added),
            *_redone(work, changed=[name for name in added if name in languages], new=new, of=len(languages)),
        ],
        "combined": [
            _training(COMBINED, known.retraining_s(growth)),
            *(row for rows in again.values() for row in rows),
            *(row for name in new for row in _typical([again], name)),
        ],
    }
    return {
        "added": dict(added),
        "languages": asked,
        "devices": list(devices),
        "usd_per_hour": usd_per_hour,
        "estimates": [
            _estimate(rows, name, places, usd_per_hour)
            for places in devices
            for name, rows in routes.items()
            if added
        ],
        "break_even": _break_even(known, work, again, added, devices),
        "measured_training_s": sum(
            cost["wall_s"] for cost in (*adapters.values(), combined or {}) if cost.get("wall_s")
        ),
    }


def _training(name: str, seconds: float | None) -> Row:
    return {"name": name, "kind": "adapter", "wall_s": seconds}


def _redone(work: _Work, *, changed: Iterable[str], new: Sequence[str], of: int) -> list[Row]:
    """What the merged route does beside training; merges of more languages take as much longer."""
    grown = 1.0 + len(new) / max(of, 1)
    return [
        *({**row, "wall_s": None if row["wall_s"] is None else row["wall_s"] * grown} for row in work.shared),
        *(row for rows in work.answered.values() for row in rows),
        *(row for name in changed for row in work.own.get(name, ())),
        *(row for name in new for row in _typical([work.own, work.answered, work.first], name)),
    ]


def _typical(groups: Iterable[Mapping[str, Sequence[Row]]], name: str) -> list[Row]:
    """The rows of an average language, under a name: the mean of each row over the languages there are."""
    found: list[Row] = []
    for group in groups:
        rows: dict[tuple[str, str], list[float | None]] = {}
        for language, own in group.items():
            for row in own:
                parts = [name if part == language else part for part in row["name"].split("/")]
                rows.setdefault(("/".join(parts), row["kind"]), []).append(row["wall_s"])
        found += [{"name": key[0], "kind": key[1], "wall_s": _mean(walls)} for key, walls in rows.items()]
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    """None when there is none, or when one is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def _estimate(rows: Sequence[Row], name: str, devices: int, usd_per_hour: float | None) -> dict[str, Any]:
    """Wall clock, device time and money of one route, and device time by component.

    One combined training holds one device, whatever others there are; `estimated_wall_s_split` is what the wall
    clock would be if it split over all of them without loss.
    """
    parts: dict[str, float] = {}
    wall_s = split_s = device_s = None
    if all(row["wall_s"] is not None for row in rows):
        costs = cost_rows(rows, run="", phase="", devices=devices, usd_per_hour=None)
        found = {row["component"]: row for row in costs}
        wall_s, device_s = found["total"]["wall_s"], found["total"]["device_s"]
        parts = {part: row["device_s"] for part, row in found.items() if part != "total"}
        split_s = wall_s
        if name == "combined":
            split_s += found["train"]["device_s"] / devices - found["train"]["wall_s"]
    return {
        "devices": devices,
        "route": name,
        "estimated_wall_s": wall_s,
        "estimated_wall_s_split": split_s,
        "estimated_device_s": device_s,
        "estimated_usd": usd(device_s, usd_per_hour),
        "components": parts,
    }


# --- the break-even --------------------------------------------------------------------------------------


def _break_even(
    known: _Known,
    work: _Work,
    again: Mapping[str, Sequence[Row]],
    added: Mapping[str, int],
    devices: Sequence[int],
) -> dict[str, Any]:
    """How many of the languages there are may change in one update while the merged route still takes less.

    Every one that changes is an average one, and grows by the mean of the rows asked about (not at all when
    none were). Answers and scores are many and small: they fill the devices there are.
    """
    growth = sum(added.values()) / len(added) if added else 0
    with_rows = {name: one for name, one in known.languages.items() if one.rows}
    extra = {name: growth * known.characters_per_row(name) for name in with_rows}
    training = _mean(known.training_s(name, one.size(extra[name])) for name, one in with_rows.items())
    always = _sums([*work.shared, *(row for rows in work.answered.values() for row in rows)])
    each = _sums(_typical([{name: work.own.get(name, ()) for name in with_rows}], "any"))
    whole = _sums([row for rows in again.values() for row in rows])

    def ours(many: int, places: int | None) -> float | None:
        """Of the merged route: wall clock on so many devices, or device time."""
        if training is None or always is None or each is None:
            return None
        in_turn = many if places is None else math.ceil(many / places)
        together = [(kind, total, most) for kind, (total, most) in always.items()]
        together += [(kind, many * total, most) for kind, (total, most) in each.items()]
        return in_turn * training + _filled(together, places)

    def theirs(many: int, places: int | None, *, split: bool = False) -> float | None:
        share = many / len(with_rows)
        seconds = known.retraining_s({name: share * more for name, more in extra.items()})
        if seconds is None or whole is None:
            return None
        evaluated = _filled([(kind, total, most) for kind, (total, most) in whole.items()], places)
        return seconds / (places if split and places else 1) + evaluated

    def most(places: int | None, *, split: bool = False) -> int | None:
        for many in range(1, len(with_rows) + 1):
            mine, other = ours(many, places), theirs(many, places, split=split)
            if mine is None or other is None:
                return None
            if mine >= other:
                return many - 1
        return len(with_rows) or None

    return {
        "of": len(with_rows),
        "rows": growth,
        "device_time": most(None),
        "wall": [
            {"devices": places, "languages": most(places), "languages_if_split": most(places, split=True)}
            for places in devices
        ],
    }


def _sums(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[float, float]] | None:
    """By component and kind: all seconds, and the longest; None where one is not known."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        if row["wall_s"] is None:
            return None
        key = (component(row), row["kind"])
        total, most = found.get(key, (0.0, 0.0))
        found[key] = (total + row["wall_s"], max(most, row["wall_s"]))
    return found


def _filled(work: Iterable[tuple[tuple[str, str], float, float]], places: int | None) -> float:
    """Time of work that fills the devices, kind after kind; without a number of devices, the device time."""
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    for key, total, most in work:
        before = sums.get(key, (0.0, 0.0))
        sums[key] = (before[0] + total, max(before[1], most))
    if places is None:
        return sum(total for total, _ in sums.values())
    return sum(max(most, total / places) for total, most in sums.values())


# --- for people ------------------------------------------------------------------------------------------


def supposed(document: Document) -> Table:
    """Wall clock by both routes for each number of devices; device time, money and the break-even below."""
    estimates = {(row["devices"], row["route"]): row for row in document["estimates"]}
    rows = []
    for places in document["devices"] if estimates else ():
        ours, theirs = estimates[places, "merged"], estimates[places, "combined"]
        walls = (ours["estimated_wall_s"], theirs["estimated_wall_s"], theirs["estimated_wall_s_split"])
        rows.append((f"{places}", *map(duration, walls)))
    words = [
        f"{one['language']}{' (new)' if one['new'] else ''} {one['added']:+,}"
        for one in document["languages"]
    ]
    title = f"What if: rows of {listed(words, MOST_LANGUAGES)}" if words else "What if languages changed"
    columns = ("devices", "by language, merged", "retraining everything", "the same, split over them")
    return Table(title, columns, tuple(rows), tuple(_sentences(document)))


def _sentences(document: Document) -> list[str]:
    estimates, even = document["estimates"], document["break_even"]
    unknown = any(row["estimated_device_s"] is None for row in estimates) or even["device_time"] is None
    if unknown and not any(row["estimated_device_s"] is not None for row in estimates):
        return ["How long it takes is not known: nothing, or not enough, was measured in this store yet."]
    sentences = []
    by_route = {row["route"]: row for row in estimates}
    if by_route:
        ours, theirs = by_route["merged"], by_route["combined"]
        texts = [duration(row["estimated_device_s"]) + _price(row) for row in (ours, theirs)]
        sentences.append(
            f"Device time: {texts[0]} by one adapter a language, merged; {texts[1]} by retraining everything."
        )
        if ours["estimated_device_s"] is not None and theirs["estimated_device_s"]:
            share = ours["estimated_device_s"] / theirs["estimated_device_s"]
            sentences[-1] += f" That is {percent(abs(1 - share))} {'less' if share <= 1 else 'more'}."
    sentences += _evens(even)
    if any(one["new"] for one in document["languages"]):
        sentences.append(
            "A new language counts with the mean characters a row, rates and test rows of the others."
        )
    trained_s = document["measured_training_s"]
    if 0 < trained_s < START_UP_TELLS_S:
        sentences.append(
            f"The rates come from {duration(trained_s)} of training: starting up is in them, so for many more rows "
            "the estimates are too high."
        )
    sentences.append(
        "Split: if the one combined training split over the devices without loss, which it does not."
    )
    return sentences


def _price(row: Row) -> str:
    return "" if row["estimated_usd"] is None else f" ({money(row['estimated_usd'])} USD)"


def _evens(even: Row) -> list[str]:
    """Up to how many languages it pays, in device time and in wall clock."""
    if even["device_time"] is None:
        return ["Up to how many languages it pays is not known: not enough was measured in this store yet."]
    growing = f" (each growing by {even['rows']:,.0f} rows)" if even["rows"] else ""
    most, of = even["device_time"], even["of"]
    everyone = counted(of, "language")
    if most == 0:
        sentence = (
            f"Already when one of {everyone} changes{growing}, retraining everything takes less device time."
        )
    elif most == of:
        sentence = f"Even when all {everyone} change{growing}, retraining everything takes more device time."
    else:
        sentence = (
            f"Up to {most} of {everyone} may change in one update{growing} before retraining everything takes less "
            "device time."
        )
    return [sentence, *_sooner(even["wall"])]


def _sooner(walls: Sequence[Row]) -> list[str]:
    """Up to how many languages the merged route ends first, by the number of devices."""
    ends = [
        f"{row['languages']} on {counted(row['devices'], 'device')}"
        + (f" ({row['languages_if_split']} split)" if row["languages_if_split"] != row["languages"] else "")
        for row in walls
        if row["languages"]
    ]
    never = [row["devices"] for row in walls if row["languages"] == 0]
    sentences = [f"It ends sooner with up to {listed(ends, MOST_LANGUAGES)}."] if ends else []
    if never:
        places = counted(never[0], "device") if len(never) == 1 else f"{_either(never)} devices"
        sentences.append(f"On {places} retraining everything ends sooner already when one changes.")
    return sentences


def _either(numbers: Sequence[int]) -> str:
    """ "1 or 4", "1, 4 or 8"."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}"
