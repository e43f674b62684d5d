"""sabir.lock: what is history and not config, beside the config and committed with it.

The pinned bases (the hub commit, or the digest of a folder's files), which all configs of a folder share; and
by config: each language's last adapter, adapters that were rolled back to, and rows that are forgotten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sabir.errors import InputError
from sabir.strict_yaml import load, read_text
from sabir.work.sources import Forgotten

NAME = "sabir.lock"
HEADER = "# Written by sabir. Commit it with the config: it pins what the results stand on.\n"

T = TypeVar("T")


@dataclass(frozen=True)
class PinnedBase:
    """The base as it was when the first adapter stood on it."""

    name: str
    identity: str
    revision: str | None


@dataclass(frozen=True)
class Line:
    """A language's last adapter: digest of the rows it was trained on, its fingerprint, and the adapter it went
    on from (None: from scratch)."""

    rows: str
    adapter: str
    parent: str | None


@dataclass(frozen=True)
class Hold:
    """A language that was rolled back: while its rows have this digest, its adapter is the one named here, as
    it was in that release."""

    rows: str
    adapter: str
    release: str


@dataclass(frozen=True)
class Lock:
    """What the lock says to one config. `bases` by name, the others by language."""

    bases: Mapping[str, PinnedBase] = field(default_factory=dict)
    lineage: Mapping[str, Line] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    forgotten: Mapping[str, tuple[Forgotten, ...]] = field(default_factory=dict)


def path_of(config: Path) -> Path:
    """Where the lock of a config lies."""
    return config.parent / NAME


def read(config: Path) -> Lock:
    """What the lock says to this config; empty before the first run. Raises InputError when the file is no lock."""
    path = path_of(config)
    bases, configs = _read(path)
    own = configs.get(config.name, {})
    try:
        return Lock(
            {name: _made(PinnedBase, {"revision": None, **pin, "name": name}) for name, pin in bases.items()},
            {language: _made(Line, line) for language, line in _mapping(own, "lineage").items()},
            {language: _made(Hold, hold) for language, hold in _mapping(own, "holds").items()},
            {
                language: tuple(_made(Forgotten, one) for one in _listed(rows))
                for language, rows in _mapping(own, "forgotten").items()
            },
        )
    except (TypeError, ValueError) as error:
        raise _no_lock(path) from error


def write(config: Path, lock: Lock) -> None:
    """Say this to the config from now on; what other configs have in the file stays, and so do their bases.

    Nothing is touched when the file says the same already. Raises InputError where it cannot be written, or
    is there and is no lock.
    """
    path = path_of(config)
    bases, configs = _read(path)
    bases = bases | {name: _without_name(pin) for name, pin in lock.bases.items()}
    own = {
        "lineage": {language: asdict(line) for language, line in lock.lineage.items()},
        "holds": {language: asdict(hold) for language, hold in lock.holds.items()},
        "forgotten": {
            language: [asdict(one) for one in _in_order(rows)]
            for language, rows in lock.forgotten.items()
            if rows
        },
    }
    configs = {**configs, config.name: {name: part for name, part in own.items() if part}}
    configs = {name: parts for name, parts in configs.items() if parts}
    text = "".join([HEADER, *_lines({"bases": bases, **({"configs": configs} if configs else {})})])
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(
            str(path), f"cannot be written ({error.strerror}).", "It must stand beside the config."
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bases by name, and the parts of each config by the name of its file."""
    if not path.is_file():
        return {}, {}
    data, _ = load(read_text(path), where=str(path))
    bases, configs = data.get("bases"), data.get("configs", {})
    if not (set(data) <= {"bases", "configs"} and isinstance(bases, dict) and isinstance(configs, dict)):
        raise _no_lock(path)
    if not all(isinstance(one, dict) for one in (*bases.values(), *configs.values())):
        raise _no_lock(path)
    return bases, configs


def _no_lock(path: Path) -> InputError:
    return InputError(
        str(path), "is not a lock that sabir wrote.", "Restore it from version control or delete it."
    )


def _made(kind: type[T], values: Any) -> T:
    """One entry, its fields texts or null as declared. Raises TypeError or ValueError for any other."""
    if not isinstance(values, dict):
        raise TypeError
    made = kind(**values)
    for name, hint in _hints(kind).items():  # type: ignore[arg-type]
        if not isinstance(getattr(made, name), hint):
            raise ValueError(name)
    return made


def _mapping(parts: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = parts.get(name, {})
    if not isinstance(found, dict) or set(parts) - {"lineage", "holds", "forgotten"}:
        raise TypeError
    return found


def _listed(rows: Any) -> list[Any]:
    if not isinstance(rows, list):
        raise TypeError
    return rows


def _in_order(rows: Iterable[Forgotten]) -> list[Forgotten]:
    return sorted(set(rows), key=lambda one: (one.id or "", one.text or ""))


def _without_name(pin: PinnedBase) -> dict[str, Any]:
    return {key: value for key, value in asdict(pin).items() if key != "name"}


def _lines(values: Mapping[str, Any], depth: int = 0, *, in_order: bool = False) -> Iterable[str]:
    """A nested mapping as YAML: names of the user quoted and sorted, our own as they are.

    A list is one entry to a line, so that what was added shows as lines in version control.
    """
    for key, value in sorted(values.items()) if in_order else values.items():
        start = "  " * depth + (_quoted(key) if in_order else key) + ":"
        if isinstance(value, list):
            yield f"{start}\n"
            for one in value:
                inside = ", ".join(f"{name}: {_quoted(part)}" for name, part in one.items())
                yield f"{'  ' * (depth + 1)}- {{{inside}}}\n"
        elif not isinstance(value, Mapping):
            yield f"{start} {_quoted(value)}\n"
        elif not value:
            yield f"{start} {{}}\n"
        else:
            yield f"{start}\n"
            yield from _lines(value, depth + 1, in_order=not in_order)


def _quoted(value: Any) -> str:
    """A text or null as JSON has it, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
