"""Answers of one model to rows that have no gold answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sabir.errors import InputError, raise_all
from sabir.tasks import Row, Task
from sabir.work.outputs import answers
from sabir.work.prepare import Example


def rows_of(texts: Sequence[str | Mapping[str, Any]], task: Task) -> list[Row]:
    """What is asked as rows, numbered from 1: texts, or mappings with `input` and maybe `choices`, `instruction`.

    Raises InputErrors for all that are neither, and that the task cannot ask.
    """
    rows, errors = [], []
    for number, text in enumerate(texts, 1):
        try:
            rows.append(_row(str(number), {"input": text} if isinstance(text, str) else text, task))
        except ValueError as error:
            fix = (
                "Give rows with `input` and `choices`: --file rows.jsonl." if task.answer == "choice" else ""
            )
            errors.append(InputError(f"text {number}", str(error), fix))
    raise_all(errors)
    return rows


def _row(number: str, given: Mapping[str, Any], task: Task) -> Row:
    text, choices = given.get("input"), given.get("choices") or ()
    if not isinstance(text, str):
        raise ValueError(f"`input` is {text!r}; expected text.")
    if isinstance(choices, str) or not all(isinstance(one, str) for one in choices):
        raise ValueError(f"`choices` is {choices!r}; expected a list of texts.")
    row = Row(number, text, "", str(given.get("instruction") or ""), choices=tuple(choices))
    task.options(row)
    return row


def answer(
    rows: Sequence[Row],
    *,
    task: Task,
    base: Path,
    model: Path | None,
    max_length: int,
    batch_size: int,
    device: str,
) -> list[dict[str, Any]]:
    """One dict per row: `input`, `prediction`, and where the model chooses `scores`, the options' log-likelihoods.

    A text that was as long as it may be without coming to an end is marked `cut`.

    Args:
        rows: see `rows_of`; `output` is not looked at.
        model: folder of an adapter, or of a whole model that was made from the base; None is the base.
    Raises InputError for a row that does not fit.
    """
    from sabir.model.loading import Models, load_tokenizer

    settings = {
        "answer": task.answer,
        "max_length": max_length,
        "labels": task.labels,
        "max_new_tokens": task.max_new_tokens,
    }
    examples = [Example(row.id, task.prompt(row), "", task.options(row)) for row in rows]
    with Models(base, device=device).at(model) as loaded:
        found, _ = answers(loaded, load_tokenizer(base), examples, settings=settings, batch_size=batch_size)
    return [
        {"input": row.input, **{key: value for key, value in answer.items() if key != "id"}}
        for row, answer in zip(rows, found, strict=True)
    ]
