"""Jobs in processes of their own on this machine, forked from a server that has imported once.

Importing torch, transformers and peft costs 4 to 7 s; a server pays that once per run and forks a fresh
process for every job. There is one server per module to preload, so that cheap jobs do not wait for torch.
A server dies with the coordinator (its standard input closes) and takes its whole process group with it:
the jobs, and what these started.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from sabir.engine.backends import Slot
from sabir.engine.store import write_atomic


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
        if preload not in self._servers or self._servers[preload].killed:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._servers[preload] = _Server(preload, self._env, self._log)
        return self._servers[preload].run(job_file, dict(slot.env))

    def stop(self) -> None:
        for server in self._servers.values():
            server.tell({"do": "stop"})

    def kill(self) -> None:
        for server in self._servers.values():
            server.kill()

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers = {}


class _Server:
    """One fork server: orders go in by line, exit codes come out by line."""

    def __init__(self, preload: str | None, env: Mapping[str, str], log: Path):
        self._log = log
        self._jobs: dict[int, tuple[Future[int], Path]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._code: int | None = None  # how the server ended
        with open(log, "a", encoding="utf-8") as stream:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "sabir.engine.backends.server"),
                    *(str(os.getpid()), *([preload] if preload else [])),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, **env},
                text=True,
                start_new_session=True,  # Ctrl-C reaches the coordinator alone, which then decides
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def killed(self) -> bool:
        """True when a signal ended the server; another one may do better."""
        return self._code is not None and self._code < 0

    def run(self, job_file: Path, env: Mapping[str, str]) -> Future[int]:
        future: Future[int] = Future()
        with self._lock:
            number = next(self._numbers)
            self._jobs[number] = future, job_file
        self.tell({"do": "run", "number": number, "job": str(job_file), "env": env})
        if self._code is not None:
            self._give_up()
        return future

    def tell(self, order: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # a dead server is noticed by _listen
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End the server and all that it started, even while it imports and hears nothing."""
        if self._code is None:
            self._sweep()

    def close(self) -> None:
        assert self._process.stdin is not None
        self.kill()
        self._listener.join()
        with contextlib.suppress(OSError):  # an order that it did not take
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                answer = json.loads(line)
                with self._lock:
                    future, _ = self._jobs.pop(answer["number"])
                future.set_result(answer["code"])
        finally:
            self._code = self._process.wait()
            self._sweep()  # what is left of its jobs
            self._give_up()
            self._process.stdout.close()

    def _sweep(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _give_up(self) -> None:
        """The server is gone, and so are its jobs: killed with it, or failed as it failed."""
        assert self._code is not None
        with self._lock:
            orphans, self._jobs = self._jobs, {}
        for future, job_file in orphans.values():
            if self._code >= 0:
                message = f"the server that starts the jobs ended with code {self._code}."
                fix = f"It says why in {self._log}."
                with contextlib.suppress(OSError):  # then only the code tells
                    write_atomic(
                        job_file.parent / "error.json", {"where": "", "message": message, "fix": fix}
                    )
            future.set_result(self._code if self._code < 0 else 1)


def thread_caps(threads: int) -> tuple[tuple[str, str], ...]:
    """Variables that keep the libraries of a process to so many threads: without them two jobs fight."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return tuple((name, str(threads)) for name in names)


def cpu_slots(workers: int, cores: int) -> tuple[Slot, ...]:
    """`workers` equal shares of the cores, each with its thread caps."""
    threads = max(1, cores // workers)
    return (Slot("cpu", f"cpu x {threads}", thread_caps(threads), cpus=threads),) * workers


def gpu_slots(gpus: Sequence[str], cores: int) -> tuple[Slot, ...]:
    """One slot per GPU index, each seeing that GPU only."""
    threads = max(1, cores // len(gpus))
    return tuple(
        Slot(
            "cuda",
            f"cuda:{gpu}",
            (*thread_caps(threads), ("CUDA_VISIBLE_DEVICES", gpu)),
            cpus=threads,
            gpus=1,
        )
        for gpu in gpus
    )
