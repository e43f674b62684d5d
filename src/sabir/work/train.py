"""Step `adapter`: one LoRA adapter, of one language or of all together, from scratch or from an earlier one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sabir.errors import SabirError
from sabir.lora.files import CONFIG
from sabir.work import Outcome, Work
from sabir.work.adopt import name_base
from sabir.work.prepare import Example, read_examples
from sabir.work.rows import choose, half, read_rows, write_rows

EPOCHS = "epochs"  # the folder of an adapter that holds it as it was after each of its epochs
PARENT = "parent"  # role of the adapter to go on from; every other input is the folder of a data step


def train(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Train on the train rows of every input folder, or on one half of them, `settings["half"]`; goes on from a
    checkpoint an earlier try left.

    With a parent: goes on from its weights, with the rows it was not trained on and a share
    `settings["update"]["replay"]` of the others.
    """
    from sabir.model.train import LoraSettings, seed_of, train_adapter

    for work in works:
        lora = dict(work.args["lora"])
        lora["seed"] = seed_of(lora["seed"], work.settings["language"])
        lora["targets"] = lora["targets"] if isinstance(lora["targets"], str) else tuple(lora["targets"])
        everything = [
            example
            for role in sorted(work.inputs)
            if role != PARENT
            for example in read_examples(work.inputs[role], "train")
        ]
        if (number := work.settings.get("half")) is not None:
            everything = half(everything, number)
        parent = work.inputs.get(PARENT)
        rows, known, facts = _chosen(work, everything, parent)
        emit = work.emit
        emit(0, 1)
        checkpoints = work.out / "checkpoints"
        trained = train_adapter(
            [(example.prompt, example.target) for example in rows],
            base=work.args["base"]["folder"],
            lora=LoraSettings(**lora),
            parent=parent,
            epochs=work.out / EPOCHS if work.args.get("keep_epochs") else None,
            out=work.out,
            checkpoints=checkpoints,
            device=work.device,
            micro_batch=max(1, work.args["micro_batch"] >> work.halvings),
            checkpoint_every_s=work.args["checkpoint_every_s"],
            on_step=lambda done, total, loss, emit=emit: emit(done, total, loss=loss),  # type: ignore[misc]
        )
        shutil.rmtree(checkpoints, ignore_errors=True)
        for folder in (work.out, *sorted((work.out / EPOCHS).glob("*"))):
            name_base(folder / CONFIG, work.args["base"])
        write_rows(work.out, everything, known)
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
                    **facts,
                },
            },
        )


def _chosen(
    work: Work, everything: Sequence[Example], parent: Path | None
) -> tuple[Sequence[Example], Mapping[str, int], dict[str, Any]]:
    """The rows to train on, the lines the parent stands for, and what the record says of both."""
    if parent is None:
        return everything, {}, {}
    known = read_rows(parent)
    if known is None:
        raise SabirError(
            "",
            "the adapter to go on from is gone, or does not say which rows it was trained on.",
            "Write update: scratch to train on all rows again.",
        )
    replay, seed = work.settings["update"]["replay"], work.args["lora"]["seed"]
    choice = choose(everything, known, replay=replay, seed=seed)
    facts = {
        "new": len(choice.new),
        "replayed": len(choice.replayed),
        "characters": sum(example.characters for example in choice.rows),
    }
    return choice.rows, known, facts
