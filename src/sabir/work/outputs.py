"""Step `outputs`: what a model answers to the rows of one language and split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sabir.work import Outcome, Work
from sabir.work.prepare import Example, read_examples


def outputs(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Answer with many models on one base: the base is loaded once, each adapter once, whole models last."""
    from sabir.model.loading import Models, holds_model, load_tokenizer, peak_device_bytes

    def place(work: Work) -> tuple[bool, str]:
        folder = work.inputs.get("model")
        return folder is not None and holds_model(folder), str(folder or "")

    base = works[0].args["base"]["folder"]
    tokenizer = load_tokenizer(base)
    models = Models(base, device=works[0].device)
    for _, group in groupby(sorted(works, key=place), key=place):
        first, *others = group
        with models.at(first.inputs.get("model")) as model:
            for work in (first, *others):
                examples = read_examples(work.inputs["rows"], work.args["split"])
                total = len(examples)
                found, tokens = answers(
                    model,
                    tokenizer,
                    examples,
                    settings=work.settings,
                    batch_size=work.args["batch_size"],
                    on_batch=lambda done, work=work, total=total: work.emit(done, total),  # type: ignore[misc]
                )
                write_answers(work.out, found)
                yield work.name, {"tokens": tokens, "peak_bytes": peak_device_bytes(work.device)}
            del model  # or it would stay in memory while the next one is loaded


def answers(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    settings: Mapping[str, Any],
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], int]:
    """The model's answer to each row, and the number of tokens read and written.

    Args:
        settings: `answer` ("label" or "text"), `max_length`, and `labels` or `max_new_tokens`.
    """
    from sabir.model.text import TextBuilder

    builder = TextBuilder(tokenizer, max_length=settings["max_length"])
    if settings["answer"] == "label":
        return choose_labels(model, builder, examples, settings["labels"], batch_size, on_batch)
    return write_texts(model, builder, examples, settings["max_new_tokens"], batch_size, on_batch)


def choose_labels(
    model: Any,
    builder: Any,
    examples: Sequence[Example],
    labels: Sequence[str],
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], int]:
    """The likeliest label of each row with all log-likelihoods, and the number of tokens read."""
    from sabir.model.likelihood import label_scores

    label_ids = [builder.answer(label) for label in labels]
    room = builder.max_length - max(map(len, label_ids))
    prompts = [builder.prompt(example.prompt, room=room)[0] for example in examples]
    scores = label_scores(
        model,
        prompts,
        label_ids,
        pad_id=builder.pad_id,
        batch_size=batch_size,
        on_batch=on_batch,
    )
    found = []
    for example, row in zip(examples, scores.tolist(), strict=True):
        best = max(range(len(labels)), key=row.__getitem__)
        found.append(
            {"id": example.id, "prediction": labels[best], "scores": dict(zip(labels, row, strict=True))}
        )
    return found, sum(map(len, prompts))


def write_texts(
    model: Any,
    builder: Any,
    examples: Sequence[Example],
    max_new_tokens: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], int]:
    """The generated text for each row ("" where nothing was written), and the tokens read and written."""
    from sabir.model.generate import generate

    prompts = [
        builder.prompt(example.prompt, room=builder.max_length - max_new_tokens)[0] for example in examples
    ]
    written = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        stop_ids=builder.stop_ids,
        pad_id=builder.pad_id,
        batch_size=batch_size,
        on_batch=on_batch,
    )
    found = [
        {"id": example.id, "prediction": builder.decode(ids).strip()}
        for example, ids in zip(examples, written, strict=True)
    ]
    return found, sum(map(len, prompts)) + sum(map(len, written))


def write_answers(folder: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Keep answers as JSONL, one a row, in the order of the rows."""
    with open(folder / "outputs.jsonl", "w", encoding="utf-8") as file:
        for answer in found:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """What `write_answers` kept."""
    with open(folder / "outputs.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
