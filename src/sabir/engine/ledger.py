"""What every run did and cost, kept for ever: an entry a run, there from its start on.

runs/<id>.json         the entry: costs, rows, what went wrong
runs/steps/<id>.json   its steps, apart: of many languages they are megabytes, and few commands ask for them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sabir.engine.leases import living
from sabir.engine.store import Store, read_json, saying_when_full, write_atomic
from sabir.errors import StoreError

FIX = "Delete it; only its costs are forgotten."


class Run(dict[str, Any]):
    """An entry of the ledger; its `steps` are read when they are first asked for, as `run["steps"]`."""

    def __init__(self, entry: Mapping[str, Any], steps: Path):
        super().__init__(entry)
        self._steps = steps

    def __missing__(self, key: str) -> Any:
        if key != "steps":
            raise KeyError(key)
        try:
            self[key] = read_json(self._steps, "the steps of this entry of the ledger", FIX)["steps"]
        except FileNotFoundError as error:
            raise StoreError(
                str(self._steps), "the steps of an entry of the ledger are gone.", FIX
            ) from error
        return self[key]


def new_run_id() -> str:
    """A name for a run that sorts by time, in UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def begin(store: Store, run: Mapping[str, Any]) -> None:
    """Keep what is known of a run as it starts; it is `open` until `write`. Its owner must be there already.

    Raises StoreError when the disk is full.
    """
    _write(store, {**run, "open": True})


def write(store: Store, run: Mapping[str, Any]) -> None:
    """Keep one run: at least `id` and `steps` (name, fingerprint, status, cost). It is no longer `open`.

    Raises StoreError when the disk is full.
    """
    _write(store, {key: value for key, value in run.items() if key != "open"})


def runs(store: Store) -> list[Run]:
    """All runs, oldest first."""
    return list(map(_read, _paths(store)))


def last(store: Store) -> Run | None:
    """The newest run, or None."""
    paths = _paths(store)
    return _read(paths[-1]) if paths else None


def unsettled(store: Store) -> list[Run]:
    """Entries that are open and whose run is dead: it was killed before it could say what it did."""
    entries = [entry for entry in runs(store) if entry.get("open")]
    alive = set(living(store)) if entries else set()
    return [entry for entry in entries if entry["id"] not in alive]


def attempts(store: Store, run_id: str) -> list[dict[str, Any]]:
    """Time that the jobs of a run that is over spent on steps they did not finish, a row for each such job.

    A row has the `name`, `kind` and `fingerprint` of the step that the job was at, `wall_s`, and `fees_usd` where
    the step said that it paid others. A killed job left no word of its end: then its file was last touched at most
    some seconds before.
    """
    folders = sorted((store.path / "jobs" / run_id).glob("[0-9]*"))
    return [row for folder in folders if (row := _attempt(store, folder)) is not None]


def _attempt(store: Store, folder: Path) -> dict[str, Any] | None:
    try:
        job = json.loads((folder / "job.json").read_bytes())
        touched = (folder / "events.jsonl").stat().st_mtime
        events = _events(folder / "events.jsonl")
    except (FileNotFoundError, ValueError):  # killed before it began
        return None
    done = {event["step"] for event in events if event["event"] == "finished"}
    left = [spec for spec in job["steps"] if spec["name"] not in done and not _made(store, spec, job)]
    if not left or not events:
        return None
    since = max(event["t"] for event in events if event["event"] in ("began", "finished"))
    ended = [event["t"] for event in events if event["event"] == "ended"]
    end = ended[-1] if ended else max(touched, events[-1]["t"])
    at = {event["step"] for event in events if event["event"] == "progress" and event["t"] >= since}
    spec = next((spec for spec in reversed(left) if spec["name"] in at), left[0])
    fees = [e["fees_usd"] for e in events if e.get("step") == spec["name"] and e.get("fees_usd") is not None]
    return {
        **{key: spec[key] for key in ("name", "kind", "fingerprint")},
        "wall_s": max(0.0, end - since),
        **({"fees_usd": fees[-1]} if fees else {}),
    }


def _made(store: Store, spec: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Finished by this job, which was killed before it could say so."""
    record = store.record(spec["fingerprint"])
    return record is not None and record.get("job") == job["token"]


def _events(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of events."""
    data = path.read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def _write(store: Store, run: Mapping[str, Any]) -> None:
    head = dict(run)
    with saying_when_full(store):
        if "steps" in head:
            write_atomic(_steps(store, run["id"]), {"steps": head.pop("steps")})
        write_atomic(store.path / "runs" / f"{run['id']}.json", head)


def _steps(store: Store, run_id: str) -> Path:
    return store.path / "runs" / "steps" / f"{run_id}.json"


def _paths(store: Store) -> list[Path]:
    return sorted((store.path / "runs").glob("[!.]*.json"))  # ids sort by time


def _read(path: Path) -> Run:
    return Run(read_json(path, "this entry of the ledger", FIX), path.parent / "steps" / path.name)
