"""The worker's side: one job file in, finished steps out, whatever process it runs in.

A job is one or more steps of the same function. The function gets a list of `Work` and yields
`(name, outcome)` as each step is finished; that step is then committed to the store at once, so a crash
loses only what was not yet yielded. `outcome` may hold `result` (small JSON that others read from the
record), `tokens`, `peak_bytes`, and `fees_usd`: what the step paid to others, such as an endpoint.
"""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import platform
import resource
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from sabir.engine.store import Store, disk_is_full, write_atomic
from sabir.errors import SabirError

LIBRARIES = ("sabir", "torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy")
TOUCH_S = 5.0


@dataclass(frozen=True)
class Work:
    """One step as its function sees it: settings and inputs, and a folder to fill.

    `inputs` maps each role to the folder of what the step stands on; `device` is "cpu" or "cuda"; `halvings`
    says how often the step ran out of memory before, so that it does half as much at a time.
    """

    name: str
    settings: Mapping[str, Any]
    args: Mapping[str, Any]
    inputs: Mapping[str, Path]
    out: Path
    device: str
    emit: Callable[..., None]
    halvings: int = 0


WorkFunction = Callable[[Sequence[Work]], Iterator[tuple[str, Mapping[str, Any]]]]


def execute(job_file: Path) -> None:
    """Run one job to its end. On failure leaves error.json beside the job file and raises."""
    job = json.loads(job_file.read_bytes())
    try:
        _execute(job, job_file.parent)
    except BaseException as error:
        write_atomic(job_file.parent / "error.json", _described(error))
        raise


def _execute(job: Mapping[str, Any], folder: Path) -> None:
    store = Store(job["store"])
    with _events(folder) as events:
        # another run's process that was killed a moment ago may still have finished one
        specs = {spec["name"]: spec for spec in job["steps"] if not store.has(spec["fingerprint"])}
        if not specs:
            return
        function = resolve(job["run"])
        works = [_work(spec, store, job, events) for spec in specs.values()]
        pending = set(specs)
        before = time.perf_counter()
        for name, outcome in function(works):
            if name not in pending:
                raise RuntimeError(f"{job['run']} finished {name!r}, which was not asked of it or is done")
            pending.remove(name)
            wall_s = time.perf_counter() - before
            _commit(store, specs[name], job, outcome, wall_s)
            _write_event(events, "finished", step=name)
            before = time.perf_counter()
    if pending:
        raise RuntimeError(f"{job['run']} ended without finishing {sorted(pending)}")


@contextmanager
def _events(folder: Path) -> Iterator[IO[str]]:
    """The file in which the job says what happens, and whose own time says how long it was at work.

    A killed process writes no last line, so the file is touched as long as it lives.
    """
    path = folder / "events.jsonl"
    over = threading.Event()

    def touch() -> None:
        while not over.wait(TOUCH_S):
            with suppress(OSError):  # then the last event tells
                os.utime(path, (time.time(), time.time()))  # by the clock that the events have

    with open(path, "a", encoding="utf-8") as events:
        _write_event(events, "began")
        thread = threading.Thread(target=touch, daemon=True)
        thread.start()
        try:
            yield events
        finally:
            over.set()
            thread.join()
            with suppress(OSError):  # on a full disk the time of the file tells
                _write_event(events, "ended")


def _work(spec: Mapping[str, Any], store: Store, job: Mapping[str, Any], events: IO[str]) -> Work:
    name = spec["name"]

    def emit(done: float, total: float, **facts: Any) -> None:
        """Say how far the step is: `done` of `total`, and what one likes to watch (loss, unit)."""
        _write_event(events, "progress", step=name, done=done, total=total, **facts)

    return Work(
        name=name,
        settings=spec["settings"],
        args=spec["args"],
        inputs={role: store.folder(fingerprint) for role, fingerprint in spec["inputs"].items()},
        out=store.partial(spec["fingerprint"], token=job["token"], keep=spec["resumable"]),
        device=job["device"],
        emit=emit,
        halvings=spec["halvings"],
    )


def _commit(
    store: Store, spec: Mapping[str, Any], job: Mapping[str, Any], outcome: Mapping[str, Any], wall_s: float
) -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    peak = outcome.get("peak_bytes") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    store.commit(
        spec["fingerprint"],
        job["token"],
        {
            **{
                key: spec[key]
                for key in ("name", "kind", "version", "fingerprint", "settings", "deps", "parts")
            },
            "result": dict(outcome.get("result", {})),
            "cost": {
                "wall_s": wall_s,
                "device_s": wall_s,
                "tokens": outcome.get("tokens"),
                "fees_usd": outcome.get("fees_usd"),
                "peak_bytes": peak,
                "size": spec["size"],
                "device": job["device_name"],
            },
            "run": job["run_id"],
            "job": job["token"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "versions": versions(),
        },
    )


def resolve(name: str) -> WorkFunction:
    """The function behind "module:function"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the libraries that make results, and of Python."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def _write_event(events: IO[str], event: str, **facts: Any) -> None:
    events.write(json.dumps({"t": time.time(), "event": event, **facts}) + "\n")
    events.flush()


def _described(error: BaseException) -> dict[str, Any]:
    where = fix = ""
    if isinstance(error, SabirError):
        where, message, fix = error.where, error.message, error.fix
    elif disk_is_full(error):
        message, fix = "the disk is full.", "Free some space."
    elif isinstance(error, MemoryError):
        message = "out of memory."
    else:
        message = f"{type(error).__name__}: {error}".strip().rstrip(".:") + "."
    return {"where": where, "message": message, "fix": fix, "trace": traceback.format_exc()}


def main(job_file: str) -> None:
    """Run a job in this process and exit 0, 1 (failed), 28 (failed, the disk is full) or 130 (stopped)."""
    code = 0
    try:
        execute(Path(job_file))
    except (KeyboardInterrupt, SystemExit):
        code = 130
    except BaseException as error:
        code = errno.ENOSPC if disk_is_full(error) else 1
        with suppress(OSError):  # a full disk takes no log either
            traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # no atexit of a forked interpreter: its threads and handles belong to the server
