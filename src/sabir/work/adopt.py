"""Step `adopted`: an adapter the user brought, copied so that it cannot change under a release."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
        name_base(work.out / "adapter_config.json", work.args["base"])
        yield work.name, {}


def name_base(path: Path, base: Mapping[str, Any]) -> None:
    """Write the project's name of the base, and its revision, into an adapter's config.

    PEFT writes the folder that the base was loaded from, which differs between machines.
    """
    config = json.loads(path.read_bytes())
    config["base_model_name_or_path"] = base["name"]
    config["revision"] = base["revision"]
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])  # a set in PEFT: its order changes
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
