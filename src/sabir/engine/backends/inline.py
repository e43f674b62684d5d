"""Jobs one after the other in this process: for tests, debuggers and notebooks."""

from __future__ import annotations

import errno
import signal
from concurrent.futures import Future
from pathlib import Path

from sabir.engine import job
from sabir.engine.backends import Slot
from sabir.engine.interrupts import on_interrupt
from sabir.engine.store import disk_is_full


class InlineBackend:
    """One slot, no processes; a job is done when `submit` returns. Ctrl-C ends the running one at once."""

    def __init__(self, device: str = "cpu"):
        self.slots = (Slot(device, device),)

    def submit(self, job_file: Path, slot: Slot, preload: str | None) -> Future[int]:
        future: Future[int] = Future()
        try:
            with on_interrupt(signal.default_int_handler):
                job.execute(job_file)
        except KeyboardInterrupt:
            future.set_result(130)
            signal.raise_signal(signal.SIGINT)  # the caller hears of it as it hears of any other
        except (Exception, SystemExit) as error:  # said in error.json, if the disk took it
            future.set_result(errno.ENOSPC if disk_is_full(error) else 1)
        else:
            future.set_result(0)
        return future

    def stop(self) -> None:
        """Nothing runs beside the caller."""

    kill = close = stop
