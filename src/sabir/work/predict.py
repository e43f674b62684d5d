"""Answers of one model to texts that have no gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sabir.tasks import Row, Task
from sabir.work.outputs import answers
from sabir.work.prepare import Example


def answer(
    texts: Sequence[str],
    *,
    task: Task,
    base: Path,
    model: Path | None,
    max_length: int,
    batch_size: int,
    device: str,
) -> list[dict[str, Any]]:
    """One dict per text: `input`, `prediction`, and for label tasks `scores`, the labels' log-likelihoods.

    Args:
        model: folder of an adapter, or of a whole model that was made from the base; None is the base.
    """
    from sabir.model.loading import Models, load_tokenizer

    settings = {
        "answer": task.answer,
        "max_length": max_length,
        "labels": task.labels,
        "max_new_tokens": task.max_new_tokens,
    }
    examples = [Example(str(i), task.prompt(Row(str(i), text, "")), "") for i, text in enumerate(texts)]
    with Models(base, device=device).at(model) as loaded:
        found, _ = answers(loaded, load_tokenizer(base), examples, settings=settings, batch_size=batch_size)
    return [
        {"input": text, **{key: value for key, value in answer.items() if key != "id"}}
        for text, answer in zip(texts, found, strict=True)
    ]
