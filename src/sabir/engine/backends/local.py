"""Jobs in processes of their own on this machine, forked from a server that has imported once.

Importing torch, transformers and peft costs 4 to 7 s; the server pays that once per run and forks a fresh
process for every job. The server dies with the coordinator (its standard input closes), the jobs die with
the server.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from sabir.engine.backends import Slot


class LocalBackend:
    """Args:
    slots: the places for jobs, see `cpu_slots` and `gpu_slots`.
    preload: modules the server imports before its first fork.
    env: environment of the server and all jobs, on top of this process's own.
    log: file for what the server itself prints.
    """

    def __init__(self, slots: Sequence[Slot], *, preload: Sequence[str], env: Mapping[str, str], log: Path):
        self.slots = tuple(slots)
        self._preload = tuple(preload)
        self._env = dict(env)
        self._log = log
        self._server: subprocess.Popen[str] | None = None
        self._futures: dict[int, Future[int]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def submit(self, job_file: Path, slot: Slot) -> Future[int]:
        future: Future[int] = Future()
        with self._lock:
            server = self._started()
            number = next(self._numbers)
            self._futures[number] = future
        self._tell(server, {"do": "run", "number": number, "job": str(job_file), "env": dict(slot.env)})
        return future

    def stop(self) -> None:
        self._tell(self._server, {"do": "stop"})

    def kill(self) -> None:
        self._tell(self._server, {"do": "kill"})

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.stdin.close()  # type: ignore[union-attr]
            server.wait()

    def _started(self) -> subprocess.Popen[str]:
        if self._server is None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "a", encoding="utf-8") as log:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "sabir.engine.backends.server", *self._preload],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **self._env},
                    text=True,
                    start_new_session=True,  # Ctrl-C reaches the coordinator alone, which then decides
                )
            threading.Thread(target=self._listen, args=(self._server,), daemon=True).start()
        return self._server

    @staticmethod
    def _tell(server: subprocess.Popen[str] | None, message: Mapping[str, object]) -> None:
        if server is None or server.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # a dead server is noticed by _listen
            server.stdin.write(json.dumps(message) + "\n")
            server.stdin.flush()

    def _listen(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        for line in server.stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._futures.pop(answer["number"])
            future.set_result(answer["code"])
        with self._lock:
            orphans, self._futures = self._futures, {}
        for future in orphans.values():
            future.set_result(-9)


def cpu_slots(workers: int, cores: int) -> tuple[Slot, ...]:
    """`workers` equal shares of the cores, each with its thread caps: without them two jobs fight."""
    threads = str(max(1, cores // workers))
    env = tuple((name, threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"))
    return (Slot("cpu", f"cpu x {threads}", env),) * workers


def gpu_slots(gpus: Sequence[str], cores: int) -> tuple[Slot, ...]:
    """One slot per GPU index, each seeing that GPU only."""
    shares = cpu_slots(len(gpus), cores)
    return tuple(
        Slot("cuda", f"cuda:{gpu}", (*share.env, ("CUDA_VISIBLE_DEVICES", gpu)))
        for gpu, share in zip(gpus, shares, strict=True)
    )
