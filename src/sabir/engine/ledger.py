"""What every run did and cost, kept for ever: one JSON file a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sabir.engine.store import Store, write_atomic


def new_run_id() -> str:
    """A name for a run that sorts by time, in UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def write(store: Store, run: Mapping[str, Any]) -> None:
    """Keep one run: at least `id` and `steps` (name, fingerprint, status, cost)."""
    write_atomic(store.path / "runs" / f"{run['id']}.json", run)


def runs(store: Store) -> list[dict[str, Any]]:
    """All runs, oldest first."""
    folder = store.path / "runs"
    if not folder.is_dir():
        return []
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json")) if path.name[0] != "."]


def last(store: Store) -> dict[str, Any] | None:
    """The newest run, or None."""
    folder = store.path / "runs"
    paths = sorted(path for path in folder.glob("*.json") if path.name[0] != ".") if folder.is_dir() else []
    return json.loads(paths[-1].read_bytes()) if paths else None
