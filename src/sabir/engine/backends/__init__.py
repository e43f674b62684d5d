"""Where jobs run. A backend has some slots and takes jobs; it knows nothing of steps.

`submit(job_file, slot, preload)` returns a future that ends with the exit code of the job (see
`sabir.engine.job.main`; negative: killed by that signal; errno.ENOMEM: out of the memory of its place);
`preload` names a module that is slow to import. `stop()` asks running jobs to save and end; `kill()` ends
them at once; `close()` does so too, and gives everything back.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time: a GPU, or a share of the cores. `env` is set in the job's process.

    `cpus`, `gpus` and `memory_bytes` (None: no matter) are what a job takes of its machine; no result depends
    on them.
    """

    device: str
    device_name: str
    env: tuple[tuple[str, str], ...] = ()
    cpus: int = 1
    gpus: int = 0
    memory_bytes: int | None = None


class Backend(Protocol):
    """What `sabir.engine.run` needs of a backend."""

    slots: tuple[Slot, ...]

    def submit(self, job_file: Path, slot: Slot, preload: str | None) -> Future[int]: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...
