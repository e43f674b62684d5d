"""Jobs one after the other in this process: for tests, debuggers and notebooks."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from sabir.engine import job
from sabir.engine.backends import Slot


class InlineBackend:
    """One slot, no processes; a job is done when `submit` returns."""

    def __init__(self, device: str = "cpu"):
        self.slots = (Slot(device, device),)

    def submit(self, job_file: Path, slot: Slot, preload: str | None) -> Future[int]:
        future: Future[int] = Future()
        try:
            job.execute(job_file)
        except Exception:  # said in error.json, which the caller reads
            future.set_result(1)
        else:
            future.set_result(0)
        return future

    def stop(self) -> None:
        """Nothing runs beside the caller."""

    kill = close = stop
