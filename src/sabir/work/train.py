"""Step `adapter`: one LoRA adapter, of one language or of all together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence

from sabir.work import Outcome, Work
from sabir.work.prepare import read_examples


def train(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Train on the train rows of every input folder; goes on from a checkpoint an earlier try left."""
    from sabir.model.train import LoraSettings, seed_of, train_adapter

    for work in works:
        lora = dict(work.args["lora"])
        lora["seed"] = seed_of(lora["seed"], work.settings["language"])
        lora["targets"] = lora["targets"] if isinstance(lora["targets"], str) else tuple(lora["targets"])
        rows = [
            (example.prompt, example.target)
            for role in sorted(work.inputs)
            for example in read_examples(work.inputs[role], "train")
        ]
        emit = work.emit
        emit(0, 1)
        checkpoints = work.out / "checkpoints"
        trained = train_adapter(
            rows,
            base=work.args["base"]["folder"],
            lora=LoraSettings(**lora),
            out=work.out,
            checkpoints=checkpoints,
            device=work.device,
            micro_batch=work.args["micro_batch"],
            checkpoint_every_s=work.args["checkpoint_every_s"],
            on_step=lambda done, total, loss, emit=emit: emit(done, total, loss=loss),  # type: ignore[misc]
        )
        shutil.rmtree(checkpoints, ignore_errors=True)
        name_base(work)
        yield (
            work.name,
            {
                "tokens": trained.tokens,
                "peak_bytes": trained.peak_bytes,
                "result": {
                    "rows": len(rows),
                    "steps": trained.steps,
                    "cut_rows": trained.cut_rows,
                    "loss": trained.loss,
                },
            },
        )


def name_base(work: Work) -> None:
    """Write the base's name and revision into adapter_config.json, which PEFT fills with a local path."""
    path = work.out / "adapter_config.json"
    config = json.loads(path.read_bytes())
    config["base_model_name_or_path"] = work.args["base"]["name"]
    config["revision"] = work.args["base"]["revision"]
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])  # a set in PEFT: its order changes
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
