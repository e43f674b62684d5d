"""What runs inside Ray's worker processes, on whatever node: a job, and a look at the store.

A job does not run in Ray's process but in one of ours, forked by the same server as on one machine: signals,
logs, thread caps and bytes are the same there. The server stays with Ray's process, so only the first job
of each pays for imports.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sabir.engine import job
from sabir.engine.backends import Slot
from sabir.engine.backends.local import LocalBackend
from sabir.errors import StoreError

HEARD_S = 0.1  # a cancelled task wakes so often to hear of it

_kept: dict[tuple, LocalBackend] = {}  # at most one: the servers of the last job


def run_job(
    job_file: str, preload: str | None, env: Mapping[str, str], caps: Mapping[str, str], log: str
) -> int:
    """Run a job on this node and give its exit code. Interrupted once it asks the job to save and end; twice
    it kills it.

    Args:
        job_file: on the store.
        env: environment of the servers and all jobs.
        caps: the thread caps of the slot.
        log: file for what the servers print; this process's own name is put into it.

    Raises StoreError when this node does not see the job file.
    """
    path = Path(job_file)
    if not path.exists():
        raise StoreError(
            str(path), f"the node {_host()} does not see it.", "Every node must see the store at this path."
        )
    told: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    try:
        servers = _servers({**env, **caps}, _own(Path(log)))
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")  # Ray's choice, for this task only
        seen = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
        running = servers.submit(path, Slot("", "", tuple({**caps, **seen}.items())), preload)
        heard = 0
        while True:
            try:
                return running.result(timeout=HEARD_S)
            except TimeoutError:
                if len(told) > 1:
                    servers.kill()
                elif len(told) > heard:
                    servers.stop()
                heard = len(told)
    finally:
        signal.signal(signal.SIGINT, before)


def _servers(env: Mapping[str, str], log: Path) -> LocalBackend:
    key = (tuple(sorted(env.items())), log)
    if key not in _kept:
        for old in _kept.values():
            old.close()
        _kept.clear()
        _kept[key] = LocalBackend((), env=env, log=log)
    return _kept[key]


def _own(log: Path) -> Path:
    """A file that no other process writes, on this node or elsewhere."""
    return log.with_stem(f"{log.stem}-{_host()}-{os.getpid()}")


def _host() -> str:
    return os.uname().nodename


@dataclass(frozen=True)
class Look:
    """What a node said: the token as it read it (None: it saw none), paths that it does not see, versions."""

    token: str | None
    missing: tuple[str, ...]
    versions: Mapping[str, str]


def look(token: str, answer: str, reads: Sequence[str]) -> Look:
    """Read the token file, and write what it says into the answer file.

    Args:
        token, answer: files on the store.
        reads: other paths that jobs will read.
    """
    try:
        text = Path(token).read_text(encoding="utf-8")
        Path(answer).write_text(text, encoding="utf-8")
    except OSError:
        text = None
    missing = tuple(path for path in reads if not os.path.exists(path))
    return Look(text, missing, job.versions())
