"""Step `adopted`: an adapter the user brought, copied so that it cannot change under a release."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sabir.errors import SabirError
from sabir.lora.files import open_adapter
from sabir.work import Outcome, Work

FILES = ("adapter_config.json", "adapter_model.safetensors")


def adopt(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Copy the two files of a PEFT adapter, and see that they are still the ones that were planned."""
    for work in works:
        folder = Path(work.args["path"])
        for name in FILES:
            shutil.copyfile(folder / name, work.out / name)
        if open_adapter(work.out).digest != work.settings["digest"]:
            raise SabirError(str(folder), "the adapter changed while the run began.", "Run again.")
        yield work.name, {}
