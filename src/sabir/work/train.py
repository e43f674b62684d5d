"""Step `adapter`: one LoRA adapter, of one language or of all together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from sabir.work import Outcome, Work
from sabir.work.adopt import name_base
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
        name_base(work.out / "adapter_config.json", work.args["base"])
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
