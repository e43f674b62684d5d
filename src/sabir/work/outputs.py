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
    """Answer with many models on one base: the base is loaded once, each adapter once."""
    from sabir.model.loading import adapted, load_base, load_tokenizer, peak_device_bytes

    folder = works[0].args["base"]["folder"]
    tokenizer = load_tokenizer(folder)
    base = load_base(folder, device=works[0].device)
    ordered = sorted(works, key=lambda work: str(work.inputs.get("model", "")))
    for model_folder, group in groupby(ordered, key=lambda work: work.inputs.get("model")):
        with adapted(base, model_folder) as model:
            for work in group:
                examples = read_examples(work.inputs["rows"], work.args["split"])
                answers, tokens = _answers(model, tokenizer, work, examples)
                write_answers(work.out, answers)
                yield work.name, {"tokens": tokens, "peak_bytes": peak_device_bytes(work.device)}


def _answers(
    model: Any, tokenizer: Any, work: Work, examples: Sequence[Example]
) -> tuple[list[dict[str, Any]], int]:
    from sabir.model.text import TextBuilder

    builder = TextBuilder(tokenizer, max_length=work.settings["max_length"])
    total = len(examples)

    def on_batch(done: int) -> None:
        work.emit(done, total)

    if work.settings["answer"] == "label":
        return choose_labels(
            model, builder, examples, work.settings["labels"], work.args["batch_size"], on_batch
        )
    return write_texts(
        model, builder, examples, work.settings["max_new_tokens"], work.args["batch_size"], on_batch
    )


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

    answers = [builder.answer(label) for label in labels]
    room = builder.max_length - max(map(len, answers))
    prompts = [builder.prompt(example.prompt, room=room)[0] for example in examples]
    scores = label_scores(
        model,
        prompts,
        answers,
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
    answers = generate(
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
        for example, ids in zip(examples, answers, strict=True)
    ]
    return found, sum(map(len, prompts)) + sum(map(len, answers))


def write_answers(folder: Path, answers: Sequence[Mapping[str, Any]]) -> None:
    """Keep answers as JSONL, one a row, in the order of the rows."""
    with open(folder / "outputs.jsonl", "w", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """What `write_answers` kept."""
    with open(folder / "outputs.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
