"""What a model is asked, row by row, as token ids: made once, whoever answers."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sabir.errors import InputError
from sabir.work.prepare import Example

GENERATED = ("text", "phrases")  # answers that are written, not chosen


@dataclass(frozen=True)
class Question:
    """One row: the ids of its prompt, and the answers to choose among with their ids, none where one is written."""

    id: str
    prompt: array[int]
    options: tuple[str, ...] = ()
    option_ids: tuple[tuple[int, ...], ...] = ()

    @property
    def digest(self) -> str:
        """Content of the ids: 64 hex digits. The row's id and the options' texts are left out."""
        ids = [self.prompt.tolist(), self.option_ids]
        return hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()


def questions(
    builder: Any,
    examples: Sequence[Example],
    *,
    settings: Mapping[str, Any],
    train: Sequence[Example] = (),
    positions: int | None = None,
) -> list[Question]:
    """The rows as a model is asked them.

    Args:
        builder: the `TextBuilder` of the base.
        settings: `answer`, `max_length`, `labels` or `max_new_tokens`, and `shots` where examples stand before each.
        train: the rows that these are taken from.
        positions: see `room_of`.
    Raises InputError for a row whose question does not fit, and where there are too few rows for the shots.
    """
    told = settings.get("shots")
    count = told["count"] if told else 0
    room = room_of(settings, positions)
    ranked = _ranked(train, told["seed"]) if told else []
    named = f"data.{settings['language']}: " if "language" in settings else ""
    labels = tuple(settings.get("labels") or ())
    shared = tuple(tuple(builder.answer(label)) for label in labels)
    found = []
    for example in examples:
        options = labels if settings["answer"] == "label" else example.options
        option_ids = shared if options is labels else tuple(tuple(builder.answer(one)) for one in options)
        generated = settings["answer"] in GENERATED
        longest = settings["max_new_tokens"] if generated else max(map(len, option_ids), default=0)
        where = f"{named}row {example.id!r}"
        if not generated and not option_ids:
            raise InputError(where, "has no choices.", "Every row needs the answers to choose among.")
        try:
            if longest >= settings["max_length"]:
                raise InputError(
                    "lora.max_length",
                    f"is {settings['max_length']}, and the longest answer takes {longest} tokens.",
                    "Answers are never cut: raise it or drop the row.",
                )
            if count:
                shots = [(one.prompt, one.target) for one in _shots(ranked, example, count)]
                ids = builder.few_shot(example.prompt, shots, room=room - longest)
            else:
                ids, _ = builder.prompt(example.prompt, room=room - longest)
        except InputError as error:
            raise InputError(where, f"{error.where}: {error.message}", error.fix) from error
        found.append(Question(example.id, array("i", ids), () if generated else options, option_ids))
    return found


def room_of(settings: Mapping[str, Any], positions: int | None) -> int:
    """Tokens that a prompt and its answer may take together: with shots, as many rows' as there are examples more.

    Args:
        positions: the longest input of the base, None where it does not say.
    """
    shots = settings.get("shots")
    if not shots:
        return settings["max_length"]
    room = settings["max_length"] * (shots["count"] + 1)
    return room if positions is None else min(room, positions)


def _ranked(train: Sequence[Example], seed: int) -> list[Example]:
    """Rows in an order that depends on the seed and each row's content, not on the order they are in."""

    def place(example: Example) -> str:
        return hashlib.sha256(f"shots:{seed}:{example.digest}".encode()).hexdigest()

    return sorted(train, key=place)


def _shots(ranked: Sequence[Example], asked: Example, count: int) -> list[Example]:
    """The first rows whose texts are neither the asked one nor each other's."""
    found = list(_others(ranked, asked, count))
    if len(found) < count:
        raise InputError(
            "rivals.shots",
            f"is {count}, and the training rows hold {len(found)} other texts.",
            "Lower it or add training rows.",
        )
    return found


def _others(ranked: Sequence[Example], asked: Example, count: int) -> Iterator[Example]:
    seen = {asked.prompt.source.strip()}
    for one in ranked:
        if len(seen) > count:
            return
        if one.prompt.source.strip() not in seen:
            seen.add(one.prompt.source.strip())
            yield one
