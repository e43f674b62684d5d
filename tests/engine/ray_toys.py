"""Toy work that only a cluster makes sense of, and a look at the processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from toys import Outcomes, Work, alive, note


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def marked(mark: str) -> list[int]:
    """Processes of ours that have this text in their environment, and live."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in text and alive(int(folder.name)):
                found.append(int(folder.name))
    return found


def printing_to(log: Path) -> int:
    """The process whose standard output goes to this file."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and os.readlink(folder / "fd" / "1") == str(log):
                return int(folder.name)
    raise AssertionError(f"nobody prints to {log}")


def ray_worker_dies(works: Sequence[Work]) -> Outcomes:
    """At the first try kill Ray's own process, which stands two above this one."""
    (work,) = works
    note(work, str(os.getpid()))
    if len(Path(work.args["diary"]).read_text().split()) == 1:
        os.kill(parent(os.getppid()), signal.SIGKILL)
        time.sleep(60)
    yield work.name, {}


def visible(works: Sequence[Work]) -> Outcomes:
    """Say which GPU this process sees and who forked it, when `together` others have come too."""
    for work in works:
        note(work, work.name)
        end = time.monotonic() + 20
        while len(Path(work.args["diary"]).read_text().split()) < work.args["together"]:
            if time.monotonic() > end:
                raise TimeoutError("the others did not come")
            time.sleep(0.02)
        yield work.name, {"result": {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "server": os.getppid()}}
