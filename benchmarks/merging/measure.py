"""A command's wall time and peak memory, seen from outside; sides of a comparison; rows of the table.

This and whatever `run.py` imports loads neither torch nor numpy: a child inherits its parent's peak.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """What all rows share.

    Args:
        folder: an empty folder for inputs and outputs.
        shrink: every shape is divided by this; 1, or 16 for a smoke run.
        device: where the rows of a single module run, "cpu" or "cuda".
        threads: of every side.
        repeats: runs of a whole command, of which the median counts.
    """

    folder: Path
    shrink: int = 1
    device: str = "cpu"
    threads: int = 2
    repeats: int = 1

    def rank(self, full: int) -> int:
        """A rank of this run: in a smoke run a quarter, so that five adapters' ranks still fit into a module."""
        return full if self.shrink == 1 else full // 4


@dataclass(frozen=True)
class Side:
    """What one program took: median wall seconds, and the largest resident memory of its process in MB (10^6)."""

    name: str
    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        met: whether the reach was met; None in a smoke run.
        notes: further figures, each a short sentence.
    """

    work: str
    ours: Side
    peer: Side | None
    reach: str
    met: bool | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One finished command."""

    wall_s: float
    peak_mb: float
    stdout: str

    @property
    def document(self) -> Any:
        """The JSON document it printed, as its last line or as a whole."""
        lines = self.stdout.strip().splitlines()
        return json.loads(lines[-1] if lines[-1].startswith("{") and lines[-1].endswith("}") else self.stdout)


def run(command: Sequence[str], threads: int) -> Run:
    """Run a command to its end. Its peak is the kernel's own high-water mark: mapped pages count.

    Raises RuntimeError, with the end of what it printed, when it fails.
    """
    os.sync()  # no side pays for writing out what another left in the page cache
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment(threads))
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            raise RuntimeError(
                f"{' '.join(command)} exited {process.returncode}:\n{(out.read() + err.read())[-4000:]}"
            )
        unit = 1 if sys.platform == "darwin" else 1024
        return Run(wall_s, usage.ru_maxrss * unit / 1e6, out.read())


def environment(threads: int) -> dict[str, str]:
    """This process's environment, with one number of threads for every library, and no network."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**os.environ, **counts, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def script(name: str, *arguments: object) -> list[str]:
    """The command that runs a script of this folder."""
    return [sys.executable, str(HERE / name), *map(str, arguments)]


def make(settings: Settings, what: str, folder: Path, *, shapes: str, **options: object) -> Path:
    """Write inputs with `make.py` into a folder; a process of its own, so that its memory is nobody's."""
    given = {"shapes": shapes, "shrink": settings.shrink, **options}
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    run(script("make.py", what, folder, *flags), settings.threads)
    return folder


def alternated(
    settings: Settings, commands: dict[str, list[str]], *, rounds: int
) -> dict[str, tuple[Side, list[Any]]]:
    """Run the commands in turn, several rounds (a smoke run: one); each prints {"seconds": [...], ...}.

    Returns the median of all its seconds, the peak of its processes, and what each round printed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    peaks = dict.fromkeys(commands, 0.0)
    documents: dict[str, list[Any]] = {name: [] for name in commands}
    for _ in range(rounds if settings.shrink == 1 else 1):
        for name, command in commands.items():
            done = run(command, settings.threads)
            documents[name].append(done.document)
            seconds[name] += done.document["seconds"]
            peaks[name] = max(peaks[name], done.peak_mb)
    return {
        name: (Side(name, statistics.median(seconds[name]), peaks[name]), documents[name])
        for name in commands
    }


def read_once(*folders: Path) -> None:
    """Read all files, so that every side finds its inputs in the page cache alike."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while file.read(1 << 24):
                        pass


def empty(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
