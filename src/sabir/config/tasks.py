"""The section `tasks`: several tasks in one project, each the common sections with single keys of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.settings import Reader, shown
from sabir.strict_yaml import KeyPath

SHARED = ("base", "run", "prices")
"""Sections that all tasks have in common."""

_BY_KEY = ("lora", "update", "select", "gate", "serve", "evaluate", "rivals", "ensemble", "estimate")
_WHOLE = ("task", "data", "baseline", "merges", "seeds")  # a task's own stands in place of the common one
SECTIONS = (*_WHOLE[:2], *_BY_KEY[:2], *_WHOLE[2:], *_BY_KEY[2:])


class TaskReader(Reader):
    """Reads the sections of one task; what is wrong is told where it stands, under the task or in common.

    Args:
        reader: of the whole file; it keeps the complaints.
        name: of the task.
        own: what stands under `tasks.<name>`.
        common: what stands at the top of the file.
    """

    def __init__(self, reader: Reader, name: str, own: Mapping[str, Any], common: Mapping[str, Any]):
        super().__init__(reader._file, reader._lines)
        self._found, self._overridden = reader._found, reader._overridden
        self._prefix: KeyPath = ("tasks", name)
        self._own, self._common = own, common

    def where(self, path: KeyPath) -> str:
        return super().where(self._place(path))

    def has(self, path: KeyPath) -> bool:
        return super().has(self._place(path))

    def is_own(self, path: KeyPath) -> bool:
        """Whether the key stands under the task itself."""
        return _stands(self._own, path)

    def _line(self, path: KeyPath) -> int:
        return super()._line(self._place(path))

    def _place(self, path: KeyPath) -> KeyPath:
        """Where a key of the task stands in the file, or would."""
        if path[: len(self._prefix)] == self._prefix:
            return path
        own = (*self._prefix, *path)
        for key in _keys(path):
            if _stands(self._own, key):
                return own
            if _stands(self._common, key):
                return path
        return own if path[0] in ("task", "data") else path


def _keys(path: KeyPath) -> list[KeyPath]:
    """What decides whose a value is: the key inside a section that is changed key by key, then the section."""
    return [path[:2], path[:1]] if path[0] in _BY_KEY and len(path) > 1 else [path[:1]]


def _stands(given: Mapping[str, Any], path: KeyPath) -> bool:
    inside: Any = given
    for key in path:
        if not isinstance(inside, dict) or key not in inside:
            return False
        inside = inside[key]
    return True


def read_tasks(reader: Reader, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What stands under each task, by its name; what is wrong with the section itself goes to the reader."""
    for section in ("task", "data"):
        if given.get(section) is not None:
            fix = f"Keep one of them: write {section}: under each task."
            reader.wrong((section,), "it does not go with tasks:.", fix)
    tasks = reader.mapping(given, ("tasks",))
    if isinstance(given["tasks"], dict) and not tasks:
        reader.wrong(("tasks",), "there is no task.", "Write one, such as `topic: {task: ..., data: ...}`.")
    read = {}
    for name in tasks:
        path: KeyPath = ("tasks", name)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            reader.wrong(path, f"{shown(name)} cannot name a task.", "Use letters, digits, - and _.")
        if tasks[name] is None:
            reader.wrong(path, "nothing is given.", "Write its task: and data:.")
            continue
        own = reader.mapping(tasks, path)
        for section in (section for section in SHARED if section in own):
            reader.wrong((*path, section), "all tasks share it.", f"Write {section}: once, beside tasks:.")
        reader.refuse_unknown([key for key in own if key not in SHARED], SECTIONS, path, "a task")
        if isinstance(tasks[name], dict):
            read[name] = own
    return read


def of_task(reader: Reader, own: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of one task: the common ones, with its own in their place, key by key where they have keys."""
    known = {key: value for key, value in common.items() if key in (*SHARED, *SECTIONS)}
    sections = {key: value for key, value in known.items() if key not in ("task", "data")}
    for section, value in own.items():
        before = sections.get(section)
        left_empty = value is None and section in (*_BY_KEY, "merges")
        if section in SHARED or section not in SECTIONS or left_empty:
            continue
        if section not in _BY_KEY or before is None:
            sections[section] = value
            continue
        before, value = _as_mapping(section, before), _as_mapping(section, value)
        if not isinstance(before, dict):
            reader.mapping(common, (section,))  # it says that this is none
        both = isinstance(before, dict) and isinstance(value, dict)
        sections[section] = {**before, **value} if both else value
    return sections


def _as_mapping(section: str, value: Any) -> Any:
    """A section that may be one word, as the mapping that word stands for."""
    return {"mode": value} if section == "update" and isinstance(value, str) else value


def one_of(names: list[str | None], wanted: str | None, *, where: str) -> int:
    """The place of the task that is wanted. Raises InputError for one that is not there, or where none is named and
    there are several.

    Args:
        names: of the tasks; [None] for a config that has one and no name for it.
        wanted: None: the only one.
    """
    known = [name for name in names if name is not None]
    if wanted is None:
        if len(names) == 1:
            return 0
        raise InputError(where, f"there are several tasks: {', '.join(known)}.", "Name one: --task NAME.")
    if wanted in known:
        return names.index(wanted)
    fix = f"There are: {', '.join(known)}.{did_you_mean(wanted, known)}" if known else "Leave out --task."
    found = f"there is no task {wanted!r}" + ("." if known else ": the config has one, without a name.")
    raise InputError("--task", found, fix)
