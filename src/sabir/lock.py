"""sabir.lock: what is history and not config, beside the config and committed with it.

Today that is the pinned base: the hub commit, or the digest of a folder's files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sabir.errors import InputError
from sabir.strict_yaml import load, read_text

NAME = "sabir.lock"
HEADER = "# Written by sabir. Commit it with the config: it pins what the results stand on.\n"


@dataclass(frozen=True)
class PinnedBase:
    """The base as it was when the first adapter stood on it."""

    name: str
    identity: str
    revision: str | None


def path_of(config: Path) -> Path:
    """Where the lock of a config lies."""
    return config.parent / NAME


def read(config: Path) -> dict[str, PinnedBase]:
    """The pinned bases by name, none before the first run. Raises InputError when the file is not a lock.

    Several, because the configs of one folder share the lock.
    """
    path = path_of(config)
    if not path.is_file():
        return {}
    data, _ = load(read_text(path), where=str(path))
    bases = data.get("bases") if isinstance(data, Mapping) else None
    if not isinstance(bases, Mapping) or not all(_is_pin(pin) for pin in bases.values()):
        raise InputError(
            str(path), "is not a lock that sabir wrote.", "Restore it from version control or delete it."
        )
    return {name: PinnedBase(name, pin["identity"], pin.get("revision")) for name, pin in bases.items()}


def _is_pin(pin: Any) -> bool:
    return isinstance(pin, Mapping) and isinstance(pin.get("identity"), str)


def write(config: Path, base: PinnedBase) -> None:
    """Pin a base, if it is not yet. Raises InputError where the lock cannot be written."""
    pins = read(config)
    if pins.get(base.name) == base:
        return
    pins[base.name] = base
    lines = [HEADER + "bases:\n"]
    for name, pin in sorted(pins.items()):
        lines.append(f"  {_quoted(name)}:\n")
        lines += [f"    {key}: {_quoted(value)}\n" for key, value in asdict(pin).items() if key != "name"]
    path = path_of(config)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text("".join(lines), encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise InputError(
            str(path), f"cannot be written ({error.strerror}).", "It must stand beside the config."
        ) from error


def _quoted(value: Any) -> str:
    return "null" if value is None else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
