"""Several tasks in one project: the documents of all in one, and errors that say which task they are of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sabir.config import Config
from sabir.config.tasks import SECTIONS, SHARED
from sabir.errors import InputError, SabirError, raise_all
from sabir.project.running import Hand

Document = dict[str, Any]

_OF_EACH = ("selected", "release", "current")  # a name says nothing without its task
_SENTENCES = ("warnings", "notes", "reasons")
_APART = (*_SENTENCES, "totals")  # lists that are no rows of one task each
_PHASES = ("add", "update", "none")  # what a run of several tasks is for: the first that one of them has


def each(configs: Sequence[Config], do: Callable[[Config], Document]) -> dict[str, Document]:
    """What is given for every task, by its name. Raises all that is wrong with any of them at once."""
    found: dict[str, Document] = {}
    errors: list[InputError] = []
    for config in configs:
        try:
            with told(config):
                found[str(config.task_name)] = do(config)
        except InputError as error:
            errors += [one for one in error.problems() if str(one) not in map(str, errors)]  # type: ignore[misc]
    raise_all(errors)
    return found


@contextmanager
def told(config: Config) -> Iterator[None]:
    """Errors of the block say which task they are of: a key of the config is named under `tasks`."""
    try:
        yield
    except SabirError as error:
        if config.task_name is None:
            raise
        placed = [type(one)(_placed(one.where, config), one.message, one.fix) for one in error.problems()]
        if len(placed) == 1:
            raise placed[0] from error
        raise_all(placed)  # type: ignore[arg-type]


def _placed(where: str, config: Config) -> str:
    """A place, or a sentence that begins with one, with its task: "tasks.topic.data.de", "topic: step adapter/de"."""
    key = re.match(r"\w*", where)
    if key and key[0] in SECTIONS and where[len(key[0]) :][:1] in (".", ":", ""):
        return f"tasks.{config.task_name}.{where}"
    known = key and key[0] in SHARED and where[len(key[0]) :][:1] in (".", ":", "")
    if known or not where or os.path.isabs(where):
        return where
    return f"{config.task_name}: {where}"


def of_one(hand: Hand, config: Config) -> Hand:
    """How the run of one task is driven: warnings and questions say which task they are about."""
    return replace(
        hand,
        warn=lambda warning: hand.warn(_placed(warning, config)),
        agree=lambda question: hand.agree(_placed(question, config)),
    )


def accepted(accept: Sequence[str], config: Config, configs: Sequence[Config]) -> list[str]:
    """What is accepted of one task: languages that only another one has are left out."""
    elsewhere = {language for one in configs for language in one.languages} - set(config.languages)
    return [name for name in accept if name not in elsewhere]


# --- documents -------------------------------------------------------------------------------------------


def together(documents: Mapping[str, Document], configs: Sequence[Config]) -> Document:
    """One document of several tasks.

    Rows get `task`; sentences begin with it; `pending` and the `totals` of a plan are summed; `run.id` is that of the
    newest run. What all tasks have alike stands as it is, and anything else is null here. All but the rows stands in
    `tasks` too, by task.
    """
    by_name = {str(config.task_name): config for config in configs}
    keys = dict.fromkeys(key for document in documents.values() for key in document)
    columns = {key: {name: document.get(key) for name, document in documents.items()} for key in keys}
    in_rows = {key for key, values in columns.items() if key not in _APART and _all_rows(values)}
    own = {
        name: {key: value for key, value in document.items() if key not in in_rows}
        for name, document in documents.items()
    }
    return {**{key: _joined(key, values, by_name) for key, values in columns.items()}, "tasks": own}


def parts(document: Document) -> list[tuple[str | None, Document]]:
    """The document of every task by its name, as it would be alone; of one task the document itself, without a name."""
    if "tasks" not in document:
        return [(None, document)]
    found: list[tuple[str | None, Document]] = []
    for name, own in document["tasks"].items():
        rows = {
            key: [row for row in value if row["task"] == name]
            for key, value in document.items()
            if key not in own and key not in _APART and isinstance(value, list)
        }
        found.append((name, {**rows, **own}))
    return found


def _joined(key: str, values: Mapping[str, Any], configs: Mapping[str, Config]) -> Any:
    first, *others = values.values()
    if key == "totals":
        return _totals(values)
    if key in _SENTENCES:
        return [_placed(sentence, configs[name]) for name, told in values.items() for sentence in told or ()]
    if _all_rows(values):
        return [{**row, "task": name} for name, rows in values.items() for row in rows]
    if all(isinstance(value, list) for value in values.values()):
        return list(dict.fromkeys(one for value in values.values() for one in value))
    if key == "run":
        inside = {part: {name: run[part] for name, run in values.items()} for part in first}
        return {part: _joined(part, of_tasks, configs) for part, of_tasks in inside.items()}
    if key == "id":
        return max(
            (run for run in values.values() if run is not None), default=None
        )  # it begins with the time
    if key == "phase":
        return _phase(values.values())
    if key == "pending":
        return sum(values.values())
    if key == "promoted":
        return any(values.values())
    return first if key not in _OF_EACH and all(value == first for value in others) else None


def _all_rows(values: Mapping[str, Any]) -> bool:
    """Whether it is a list of mappings in the document of every task."""
    return all(
        isinstance(value, list) and all(isinstance(row, dict) for row in value) for value in values.values()
    )


def _phase(phases: Iterable[str]) -> str:
    """What a run of several tasks is for; where one of them is new beside others, it is added."""
    found = set(phases)
    if found == {"setup"}:
        return "setup"
    return next(phase for phase in _PHASES if phase in {"add" if one == "setup" else one for one in found})


def _totals(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Estimates of all tasks, one after the other: from nothing, and of this run by whatever each task's is for."""
    own = {name: {row["phase"] for row in rows} - {"setup"} or {"setup"} for name, rows in values.items()}
    phase = _phase(one for phases in own.values() for one in phases)
    routes = dict.fromkeys(row["route"] for rows in values.values() for row in rows)
    found: list[dict[str, Any]] = []
    for of, chosen in (("setup", {name: {"setup"} for name in values}), (phase, own)):
        for route in routes:
            rows = [
                row
                for name, given in values.items()
                for row in given
                if row["route"] == route and row["phase"] in chosen[name]
            ]
            if rows and {"route": route, "phase": of} not in [
                {key: row[key] for key in ("route", "phase")} for row in found
            ]:
                found.append({"route": route, "phase": of, **_summed(rows)})
    return found


def _summed(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Sums of estimates; None where one of them is not known."""
    columns = {key: [row[key] for row in rows] for key in rows[0] if key.startswith("estimated_")}
    return {key: None if None in column else sum(column) for key, column in columns.items()}
