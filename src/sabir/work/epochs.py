"""Step `checkpoint`: an adapter as it was after one of its epochs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from sabir.errors import SabirError
from sabir.lora.files import CONFIG, WEIGHTS
from sabir.work import Outcome, Work
from sabir.work.train import EPOCHS


def checkpoint(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Copy what a training kept of itself. Raises SabirError where it kept nothing."""
    for work in works:
        folder = work.inputs["adapter"] / EPOCHS / str(work.settings["epoch"])
        if not (folder / WEIGHTS).is_file():
            found = f"its training kept no adapter of epoch {work.settings['epoch']}."
            fix = "Trainings keep them where ensemble.free names checkpoints, from then on."
            raise SabirError(work.name, found, fix)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / name, work.out / name)
        yield work.name, {}
