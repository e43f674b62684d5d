"""The verb `predict`: an answer of the model in use."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sabir.cli.app import AllowCode, AsJson, ConfigPath, Override, TaskName, app, open_project
from sabir.cli.printing import print_json, say
from sabir.errors import InputError, raise_all

ROWS = ".jsonl"  # a file that ends so has a row a line; any other, a text a line


@app.command()
def predict(
    config: ConfigPath,
    text: Annotated[
        list[str] | None, typer.Argument(help="texts; none: one a line from --file or stdin")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="a text a line; or rows.jsonl, a row a line with `input`, and `choices` where it has some",
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="whose prompt is used, as de (default: the common one)")
    ] = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Answer with the model in use: texts from the arguments, a file, or standard input."""
    if text and file is not None:
        raise InputError("predict", "there are texts and a --file.", "Keep one of the two.")
    texts = text or _asked(file)
    if not texts:
        raise InputError("predict", "there is no text.", "Give one as an argument, or one a line.")
    answers = open_project(config, override, allow_code, task).predict(texts, language=language)
    if as_json:
        return print_json({"predictions": answers})
    for answer in answers:
        say(_line(answer))


def _line(answer: Mapping[str, Any]) -> str:
    """An answer on one line, a letter with the choice under it; of a text with line breaks too."""
    prediction = answer["prediction"] or ""
    if (choice := answer.get("choice", "").strip()) and choice != prediction:
        prediction = f"{prediction}. {choice}"
    return " ".join(prediction.splitlines())


def _asked(file: Path | None) -> list[str] | list[dict[str, Any]]:
    """What a file or standard input asks: texts, or rows."""
    if file is None and sys.stdin.isatty():
        return []
    try:
        text = sys.stdin.read() if file is None else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file or "standard input"), f"cannot be read ({error}).") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if file is None or file.suffix != ROWS:
        return [line.strip("\r") for _, line in lines]
    rows, errors = [], []
    for number, line in lines:
        row = _row(line)
        if isinstance(row, str):
            fix = 'Write {"input": "..."}, with "choices": ["...", "..."] where a row has its own.'
            errors.append(InputError(f"{file}, line {number}", row, fix))
        else:
            rows.append(row)
    raise_all(errors)
    return rows


def _row(line: str) -> dict[str, Any] | str:
    """The row that a line holds, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        return f"no JSON ({error})."
    if not isinstance(row, Mapping):
        return "no JSON object."
    if not isinstance(row.get("input"), str) or not row["input"].strip():
        return "there is no text `input`."
    choices = row.get("choices")
    if choices is not None and not (
        isinstance(choices, list) and all(isinstance(one, str) for one in choices)
    ):
        return "`choices` is no list of texts."
    if not isinstance(row.get("instruction") or "", str):
        return "`instruction` is no text."
    return dict(row)
