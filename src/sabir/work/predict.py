"""Answers of one model to rows that have no gold answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        found = (
            f"there is {'a text' if isinstance(texts, str) else _kind(texts)} where a list of texts is due."
        )
        raise InputError("predict", found, "Write one text as a list too: predict(['...']).")
    rows, errors = [], []
    for number, text in enumerate(texts, 1):
        try:
            rows.append(_row(str(number), {"input": text} if isinstance(text, str) else text, task))
        except ValueError as error:
            errors.append(InputError(f"text {number}", *error.args))
    raise_all(errors)
    return rows


def _row(number: str, given: Any, task: Task) -> Row:
    if not isinstance(given, Mapping):
        fix = 'Give a text, or {"input": "...", "choices": ["...", "..."]}.'
        raise ValueError(f"is {_kind(given)}; expected a text or a mapping.", fix)
    text, choices = given.get("input"), given.get("choices") or ()
    if not isinstance(text, str):
        raise ValueError(f"`input` is {_kind(text)}; expected a text.", 'Write {"input": "..."}.')
    if not text.strip():
        raise ValueError("there is no text in it.", "Give one, or leave it out.")
    if not isinstance(choices, (list, tuple)) or not all(isinstance(one, str) for one in choices):
        raise ValueError(f"`choices` is {choices!r}; expected a list of texts.", 'Write ["...", "..."].')
    if task.answer == "choice" and not choices:
        fix = "Give rows with `input` and `choices`: --file rows.jsonl."
        raise ValueError("there are no choices.", fix)
    row = Row(number, text, "", str(given.get("instruction") or ""), choices=tuple(choices))
    task.prompt(row)
    task.options(row)
    return row


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "nothing" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


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

    `choice` is the row's own choice that is meant, in full where a letter is answered. A text that was as long as
    it may be without coming to an end is marked `cut`.

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
        {
            "input": row.input,
            **{key: value for key, value in answer.items() if key != "id"},
            **_meant(row, example.options, answer["prediction"]),
        }
        for row, example, answer in zip(rows, examples, found, strict=True)
    ]


def _meant(row: Row, options: Sequence[str], prediction: str) -> dict[str, str]:
    """The choice of the row that an option stands for, where there is one for each."""
    if not options or len(options) != len(row.choices):
        return {}
    return {"choice": row.choices[options.index(prediction)]}
