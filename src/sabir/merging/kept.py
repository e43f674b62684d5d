"""Facts about single adapters, kept from merge to merge: when one adapter changed, the others' need no new walk.

A fact is a function of the adapter's content and its own name alone, so a merge that finds it here and one that
computes it anew give the same bits.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sabir.merging.order import Found

VERSION = 1  # raise when the same name means another number


class Kept:
    """A folder with one small JSON file per adapter, named by its content.

    A file that is damaged or of another version counts as absent; two that write at once lose one's facts,
    never their truth.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._facts: dict[str, dict[str, Found]] = {}
        self._lock = threading.Lock()

    def get(self, digest: str, name: str) -> Found | None:
        with self._lock:
            return self._of(digest).get(name)

    def put(self, digest: str, found: Mapping[str, Found]) -> None:
        """Keep facts of one adapter on the disk. A full disk keeps none and harms nothing."""
        with self._lock:
            facts = self._of(digest)
            facts.update(found)
            written = {name: [one.size.hex(), one.larger, one.equal] for name, one in sorted(facts.items())}
            path = self._path(digest)
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                aside.write_text(json.dumps({"version": VERSION, "facts": written}), encoding="utf-8")
                aside.replace(path)

    def _of(self, digest: str) -> dict[str, Found]:
        if digest not in self._facts:
            self._facts[digest] = self._read(self._path(digest))
        return self._facts[digest]

    def _read(self, path: Path) -> dict[str, Found]:
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            if given["version"] != VERSION:
                return {}
            return {
                name: Found(float.fromhex(size), int(larger), int(equal))
                for name, (size, larger, equal) in given["facts"].items()
            }
        except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.json"
