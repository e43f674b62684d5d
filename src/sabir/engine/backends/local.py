"""Jobs in processes of their own on this machine, forked from a server that has imported once.

Importing torch, transformers and peft costs 4 to 7 s; a server pays that once per run and forks a fresh
process for every job. There is one server per module to preload, so that cheap jobs do not wait for torch.
A server dies with the coordinator (its standard input closes), the jobs die with their server.
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
    env: environment of the servers and all jobs, on top of this process's own.
    log: file for what the servers themselves print.
    """

    def __init__(self, slots: Sequence[Slot], *, env: Mapping[str, str], log: Path):
        self.slots = tuple(slots)
        self._env = dict(env)
        self._log = log
        self._servers: dict[str | None, _Server] = {}

    def submit(self, job_file: Path, slot: Slot, preload: str | None) -> Future[int]:
        if preload not in self._servers:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._servers[preload] = _Server(preload, self._env, self._log)
        return self._servers[preload].run(job_file, dict(slot.env))

    def stop(self) -> None:
        for server in self._servers.values():
            server.tell({"do": "stop"})

    def kill(self) -> None:
        for server in self._servers.values():
            server.tell({"do": "kill"})

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers = {}


class _Server:
    """One fork server: orders go in by line, exit codes come out by line."""

    def __init__(self, preload: str | None, env: Mapping[str, str], log: Path):
        self._futures: dict[int, Future[int]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        with open(log, "a", encoding="utf-8") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sabir.engine.backends.server", *([preload] if preload else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, **env},
                text=True,
                start_new_session=True,  # Ctrl-C reaches the coordinator alone, which then decides
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self, job_file: Path, env: Mapping[str, str]) -> Future[int]:
        future: Future[int] = Future()
        with self._lock:
            number = next(self._numbers)
            self._futures[number] = future
        self.tell({"do": "run", "number": number, "job": str(job_file), "env": env})
        if self._process.poll() is not None:
            self._give_up()
        return future

    def tell(self, order: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # a dead server is noticed by _listen
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._futures.pop(answer["number"])
            future.set_result(answer["code"])
        self._give_up()

    def _give_up(self) -> None:
        """The server is gone: so are its jobs."""
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
