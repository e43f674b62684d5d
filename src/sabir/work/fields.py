"""One record as people have it, by whatever names, made into a row."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError, raise_all
from sabir.tasks import Row

# pairs of columns that mean input and output, tried in this order when no mapping is given
COLUMNS = (("input", "output"), ("prompt", "completion"), ("text", "label"), ("instruction", "output"))
# likewise, of a row that has choices
ASKED = ("input", "question", "prompt", "text", "instruction")
ANSWERED = ("output", "completion", "answer", "answerKey", "label")
CHOICES = ("choices", "options")
OTHERS = ("id", "instruction", "group", "domain", "messages")
_WHOLE = "Every row needs one; drop the row or fill it."


@dataclass(frozen=True)
class Unreadable:
    """What stands in a record for a value that is no text: a time, an image; `kind` says which."""

    kind: str


def columns_read(fields: Mapping[str, str]) -> set[str]:
    """The names of all columns that `row_of` may look at."""
    usual = {name for pair in COLUMNS for name in pair}
    return usual.union(ASKED, ANSWERED, CHOICES, OTHERS, fields.values())


def row_of(record: Mapping[str, Any], fields: Mapping[str, str], place: str) -> Row:
    """The row that a record is.

    Args:
        fields: our names (input, output, id, instruction, choices, group, domain) -> the record's.
        place: where it came from, for errors.
    Raises InputError for a record that is none.
    """
    identity = _optional(record, fields.get("id", "id"), place)
    group = _optional(record, fields.get("group", "group"), place)
    domain = _optional(record, fields.get("domain", "domain"), place)
    phrases: tuple[str, ...] = ()
    choices = _choices(record, fields, place)
    if "messages" in record and not {"input", "output"} & set(fields):
        instruction, text, answer = _from_messages(record["messages"], place)
    else:
        source, target = _columns(record, fields, place, with_choices=choices is not None)
        text = _text(record, source, place)
        if isinstance(record[target], list):
            answer, phrases = "", _texts(record[target], target, place)
        else:
            answer = _text(record, target, place)
            answer = choices.told_by(record[target]) or answer if choices else answer
        extra = fields.get("instruction", "instruction")
        instruction = "" if extra == source else _optional(record, extra, place)
    options = choices.texts if choices else ()
    for part in (identity, group, domain, instruction, text, answer, *phrases, *options):
        _check_characters(part, place)
    return Row(identity or _content_id(text), text, answer, instruction, phrases, options, group, domain)


@dataclass(frozen=True)
class _Choices:
    """A row's choices; `marks` are what each is called by (A, B or 1, 2), where the data says.

    `numbers` says that they are numbers themselves: a number is then one of them, and no place.
    """

    texts: tuple[str, ...]
    marks: tuple[str, ...]
    numbers: bool

    def told_by(self, answer: Any) -> str | None:
        """The choice that is meant by a mark, or by a whole number: its place from 0. None: by neither."""
        if str(answer) in self.marks:
            return self.texts[self.marks.index(str(answer))]
        place = isinstance(answer, int) and not self.numbers
        return self.texts[answer] if place and 0 <= answer < len(self.texts) else None


def _choices(record: Mapping[str, Any], fields: Mapping[str, str], place: str) -> _Choices | None:
    """The choices: a list of texts, {text: [...], label: [...]}, or a list of {text, label}.

    What stands under one of the usual names and is none of these is somebody else's column.
    """
    mapped = fields.get("choices")
    column = mapped or next((name for name in CHOICES if name in record), None)
    if column is None:
        return None
    value = record.get(column)
    marks: Any = []
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value, marks = value["text"], value.get("label") or []
    elif isinstance(value, list) and value and all(isinstance(one, dict) and "text" in one for one in value):
        marks = [one["label"] for one in value if "label" in one]
        value = [one["text"] for one in value]
    elif not isinstance(value, list) or any(isinstance(one, list | dict) for one in value):
        if mapped is None:
            return None
        found = f"is {_kind(value)}" if column in record else "is missing"
        raise InputError(place, f"field {column!r} {found}; expected a list of texts.", _LISTED)
    texts, called = _texts(value, column, place), _texts(marks, column, place)
    if called and len(called) != len(texts):
        raise InputError(
            place,
            f"field {column!r} has {len(texts)} texts and {len(called)} labels.",
            "Mend it or drop the row.",
        )
    return _Choices(texts, called, bool(value) and not any(isinstance(one, str) for one in value))


_LISTED = "A cell of a table holds no list: write JSONL or parquet."


def _columns(
    record: Mapping[str, Any], fields: Mapping[str, str], place: str, *, with_choices: bool
) -> tuple[str, str]:
    """The columns of input and output: as mapped, else the first usual pair that is there."""
    known = tuple(product(ASKED, ANSWERED)) if with_choices else COLUMNS
    pairs = [(fields.get("input", source), fields.get("output", target)) for source, target in known]
    found = next((pair for pair in pairs if set(pair) <= set(record)), None)
    if found is None:
        listed = next((name for name in CHOICES if isinstance(record.get(name), str)), None)
        if listed and not with_choices and set(ASKED) & set(record) and set(ANSWERED) & set(record):
            raise InputError(place, f"field {listed!r} is a str; expected a list of texts.", _LISTED)
        missing = [
            repr(name) for key in ("input", "output") if (name := fields.get(key)) and name not in record
        ]
        if not missing and not with_choices:
            missing = [repr(other) for pair in pairs for name, other in (pair, pair[::-1]) if name in record][
                :1
            ]
        usual = f"one of {', '.join('/'.join(pair) for pair in COLUMNS)} or messages"
        if with_choices:
            usual = f"one of {', '.join(ASKED)} and one of {', '.join(ANSWERED)} beside the choices"
        raise InputError(
            place,
            f"has the fields {sorted(map(str, record))}; expected {' and '.join(missing) or usual}.",
            "Name yours in the config: fields: {input: ..., output: ...}.",
        )
    instruction = fields.get("instruction", "instruction")
    if found[0] == "input" and "input" not in fields and _is_blank(record["input"]):
        # Alpaca rows with an empty input: the instruction is the text
        return (found[0] if _is_blank(record.get(instruction)) else instruction), found[1]
    return found


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _from_messages(messages: Any, place: str) -> tuple[str, str, str]:
    """(what came before, the last user turn, the answer) of a chat whose last turn is the assistant's."""
    fix = "Expected a list of {role, content}, the last from the assistant."
    if not isinstance(messages, list) or len(messages) < 2:
        raise InputError(place, "field 'messages' is not a list of at least two turns.", fix)
    for turn in messages:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise InputError(place, "field 'messages' holds a turn without text.", fix)
    *before, asked, answer = messages
    if answer.get("role") != "assistant" or asked.get("role") != "user":
        raise InputError(place, "field 'messages' does not end with a user turn and an assistant turn.", fix)
    if not asked["content"].strip() or not answer["content"].strip():
        raise InputError(place, "field 'messages' ends with an empty turn.", fix)
    return "\n".join(turn["content"] for turn in before), asked["content"], answer["content"]


def _text(record: Mapping[str, Any], column: str, place: str) -> str:
    if column not in record:
        known = sorted(map(str, record))
        raise InputError(
            place, f"field {column!r} is missing; the row has {known}.", "Fill it, or map your field."
        )
    value = record[column]
    if not _is_text(value):
        raise InputError(
            place, f"field {column!r} is {_kind(value)}; expected text.", "Drop the row or fill it."
        )
    text = str(value)
    if not text.strip():
        raise InputError(place, f"field {column!r} is empty.", _WHOLE)
    return text


def _texts(values: Sequence[Any], column: str, place: str) -> tuple[str, ...]:
    """The texts of a list, blank ones too: what these mean is the task's to say."""
    for number, value in enumerate(values, start=1):
        if not _is_text(value):
            raise InputError(
                place,
                f"field {column!r} holds {_kind(value)} at place {number}; expected texts.",
                "Drop the row or mend it.",
            )
    return tuple(map(str, values))


def _optional(record: Mapping[str, Any], column: str, place: str) -> str:
    value = record.get(column)
    if value is None or value == "":
        return ""
    if not _is_text(value):
        raise InputError(place, f"field {column!r} is {_kind(value)}; expected text.")
    return str(value)


def _is_text(value: Any) -> bool:
    """Whether a value is a text, or a number that can stand as one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return not isinstance(value, float) or math.isfinite(value)


def _kind(value: Any) -> str:
    if isinstance(value, Unreadable):
        return value.kind
    if isinstance(value, float):
        return "no number"
    return "null" if value is None else f"a {type(value).__name__}"


def _check_characters(text: str, place: str) -> None:
    """Refuse half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InputError(
            place, f"holds half a character ({half}).", "Write the whole one or drop the row."
        ) from error


def _content_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_names(names: Iterable[str], place: str) -> None:
    """Raise InputError where two columns have one name."""
    names = list(names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(place, f"names the column {twice[0]!r} twice.", "Rename one of them.")


def check_mapped(fields: Mapping[str, str], columns: Collection[str], place: str) -> None:
    """Raise InputErrors for columns that are mapped and that no row has: no mapping is quietly without effect.

    Args:
        columns: those that any row of the file has.
    """
    known = ", ".join(map(repr, columns))
    raise_all(
        [
            InputError(
                place,
                f"no row has the column {column!r} that fields.{name} names; there are {known}.",
                f"Write one of them, or take {name} out of fields.{did_you_mean(column, columns)}",
            )
            for name, column in fields.items()
            if column not in columns
        ]
    )
