"""What every run did and cost, kept for ever: one JSON file a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sabir.engine.store import Store, read_json, write_atomic


def new_run_id() -> str:
    """A name for a run that sorts by time, in UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def write(store: Store, run: Mapping[str, Any]) -> None:
    """Keep one run: at least `id` and `steps` (name, fingerprint, status, cost)."""
    write_atomic(store.path / "runs" / f"{run['id']}.json", run)


def runs(store: Store) -> list[dict[str, Any]]:
    """All runs, oldest first."""
    return [_read(path) for path in _paths(store)]


def last(store: Store) -> dict[str, Any] | None:
    """The newest run, or None."""
    paths = _paths(store)
    return _read(paths[-1]) if paths else None


def _paths(store: Store) -> list[Path]:
    return sorted((store.path / "runs").glob("*.json"))  # ids sort by time


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, "this entry of the ledger", "Delete it; only its costs are forgotten.")
