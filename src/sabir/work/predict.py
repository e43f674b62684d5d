"""Answers of one model to texts that have no gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sabir.tasks import Row, Task
from sabir.work.outputs import choose_labels, write_texts
from sabir.work.prepare import Example


def answer(
    texts: Sequence[str],
    *,
    task: Task,
    base: Path,
    adapter: Path | None,
    max_length: int,
    batch_size: int,
    device: str,
) -> list[dict[str, Any]]:
    """One dict per text: `input`, `prediction`, and for label tasks `scores`, the labels' log-likelihoods."""
    from sabir.model.loading import adapted, load_base, load_tokenizer
    from sabir.model.text import TextBuilder

    builder = TextBuilder(load_tokenizer(base), max_length=max_length)
    examples = [Example(str(i), task.prompt(Row(str(i), text, "")), "") for i, text in enumerate(texts)]
    with adapted(load_base(base, device=device), adapter) as model:
        if task.answer == "label":
            answers, _ = choose_labels(model, builder, examples, task.labels, batch_size)
        else:
            answers, _ = write_texts(model, builder, examples, task.max_new_tokens, batch_size)
    return [
        {"input": text, **{key: value for key, value in found.items() if key != "id"}}
        for text, found in zip(texts, answers, strict=True)
    ]
