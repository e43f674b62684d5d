"""Step `adopted`: a model the user brought, copied so that it cannot change under a release."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sabir.errors import SabirError
from sabir.lora.files import CONFIG, WEIGHTS, open_adapter
from sabir.work import Outcome, Work
from sabir.work.bases import digest_of

MODEL_CONFIGS = ("config.json", "generation_config.json", "model.safetensors.index.json")


def adopt(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Copy what decides the answers, and see that it is still what was planned.

    Of a PEFT adapter its two files; of a whole model its config and weights: tokenizer and chat template are
    the base's, as for every model that is scored.
    """
    for work in works:
        folder = Path(work.args["path"])
        if (folder / CONFIG).is_file():
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(folder / name, work.out / name)
            found = open_adapter(work.out).digest
            name_base(work.out / CONFIG, work.args["base"])
        else:
            weights = sorted(path.name for path in folder.glob("*.safetensors"))
            for name in (*(name for name in MODEL_CONFIGS if (folder / name).is_file()), *weights):
                shutil.copyfile(folder / name, work.out / name)
            found = digest_of(folder, {})[0]  # read after it was copied
        if found != work.settings["digest"]:
            raise SabirError(str(folder), "the files changed while the run began.", "Run again.")
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
