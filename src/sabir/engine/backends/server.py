"""The fork server behind `LocalBackend`: imports once, then forks a process per job.

Reads one JSON line per order on standard input (`run`, `stop`), answers one line per finished job on
standard output. When standard input closes it kills its process group: its jobs, theirs, and itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from sabir.engine import job

PR_SET_PDEATHSIG = 1


def main(parent: int, preload: Sequence[str]) -> None:
    """Serve until standard input closes.

    Args:
        parent: process id of the coordinator; it may have died before this process came to ask for it.
        preload: modules to import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever an import prints goes to the log, not among the answers
    _die_with(parent)  # while it imports it does not see standard input close
    for module in preload:
        importlib.import_module(module)
    _die_by(0)  # from here on its end is its own: it takes its jobs along
    if os.getppid() != parent:
        return  # with orders unread: nobody waits for them
    job.versions()  # remembered by all that are forked
    jobs: dict[int, int] = {}
    try:
        _serve(jobs, answers)
    finally:
        _signal(jobs, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # no group of its own when started by hand
        os.killpg(os.getpid(), signal.SIGKILL)


def _serve(jobs: dict[int, int], answers: TextIO) -> None:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    orders = b""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _answer(jobs, answers)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, orders = (orders + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if order["do"] == "run":
                    jobs[_fork(order, answers)] = order["number"]
                else:
                    _signal(jobs, signal.SIGTERM)


def _fork(order: dict, answers: TextIO) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _die_with(server)
        job_file = Path(order["job"])
        log = os.open(job_file.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(answers.fileno())  # the coordinator hears the server's end, and not only the jobs'
        os.environ.update(order["env"])
        _cap_threads(order["env"].get("OMP_NUM_THREADS"))
        job.main(str(job_file))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _answer(jobs: dict[int, int], answers: TextIO) -> None:
    while jobs:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in jobs:
            code = os.waitstatus_to_exitcode(status)
            answers.write(json.dumps({"number": jobs.pop(pid), "code": code}) + "\n")
            answers.flush()


def _signal(jobs: dict[int, int], number: int) -> None:
    for pid in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _die_with(parent: int) -> None:
    """On Linux, be killed when the parent dies; elsewhere a server kills its jobs as it ends."""
    _die_by(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _die_by(number: int) -> None:
    """The signal that the parent's death sends to this process; 0: none."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


def _cap_threads(threads: str | None) -> None:
    """The variables are read at import, which is over: tell torch itself, if it is loaded."""
    torch = sys.modules.get("torch")
    if threads and torch is not None:
        torch.set_num_threads(int(threads))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
