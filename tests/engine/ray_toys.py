"""Toy work that only a cluster makes sense of."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from toys import Outcomes, Work, note
from witness import parent


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
