"""sabir.lock: what is history and not config, beside the config and committed with it.

Today that is the pinned base: the hub commit, or the digest of a folder's files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
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


def read(config: Path) -> PinnedBase | None:
    """The pinned base, or None when there is no lock yet. Raises InputError when the file is not a lock."""
    path = path_of(config)
    if not path.is_file():
        return None
    data, _ = load(read_text(path), where=str(path))
    base = data.get("base") if isinstance(data, Mapping) else None
    if not isinstance(base, Mapping) or not isinstance(base.get("identity"), str):
        raise InputError(
            str(path), "is not a lock that sabir wrote.", "Restore it from version control or delete it."
        )
    return PinnedBase(str(base.get("name")), base["identity"], base.get("revision"))


def write(config: Path, base: PinnedBase) -> None:
    """Write the lock if it says something new. Raises InputError where it cannot be written."""
    text = HEADER + "base:\n" + "".join(f"  {key}: {_quoted(value)}\n" for key, value in vars(base).items())
    path = path_of(config)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise InputError(
            str(path), f"cannot be written ({error.strerror}).", "It must stand beside the config."
        ) from error


def _quoted(value: Any) -> str:
    return "null" if value is None else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
