"""What tests see of the processes of this machine, and the keys they press."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from toys import alive, wait_for


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def marked(mark: str) -> list[int]:
    """Other processes that have this text in their environment, and live."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid() and alive(pid)]


def command(pid: int) -> str:
    """How a process was started, or what it calls itself; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def printing_to(log: Path) -> int:
    """The process whose standard output goes to this file."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and os.readlink(folder / "fd" / "1") == str(log):
                return int(folder.name)
    raise AssertionError(f"nobody prints to {log}")


def press_when(condition: Callable[[], object], *, times: int = 1) -> threading.Thread:
    """Send this process SIGINT, as the terminal does, once the condition holds."""

    def press() -> None:
        wait_for(condition)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=press)
    thread.start()
    return thread
