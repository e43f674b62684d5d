"""One record of production as people have it: what it asks, when it came, how much traffic it stands for."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from sabir.errors import InputError
from sabir.tasks import Row
from sabir.work.fields import Unreadable, _check_characters, _choices, _optional, _text

LANGUAGE, TIME, WEIGHT, INCLUSION = "language", "time", "weight", "inclusion"  # columns of such files alone
TEXTS = ("input", "prompt", "text", "question", "instruction")  # columns of the text, where none is mapped
EARLIEST_S, LATEST_S = 3e8, 1e11  # of times as numbers, 1979 to 5138: before lie days, after it milliseconds
TALK = "Expected a list of {role, content}, the last from the user."


def question_in(
    record: Mapping[str, Any], fields: Mapping[str, str], place: str
) -> tuple[Row, str, tuple[str, ...]]:
    """What a record asks: as a row, its digest, and the columns it stands in.

    Raises InputError for a record that asks nothing.
    """
    at = {
        name: column if (column := fields.get(name, name)) in record else name
        for name in ("id", "group", "domain", "instruction")
    }
    identity, group, domain = (_optional(record, at[name], place) for name in ("id", "group", "domain"))
    mapped = {"choices": fields["choices"]} if fields.get("choices") in record else {}
    found = _choices(record, mapped, place)
    choices = found.texts if found else ()
    if "messages" in record and fields.get("input") not in record:
        column = "messages"
        instruction, text = _from_talk(record[column], place)
    else:
        column = _column(record, fields, place)
        text = _text(record, column, place)
        instruction = "" if column == at["instruction"] else _optional(record, at["instruction"], place)
    for part in (identity, group, domain, instruction, text, *choices):
        if not part.isascii():
            _check_characters(part, place)
    question = _digest_of(text, instruction, choices)
    row = Row(identity or question, text, "", instruction, choices=choices, group=group, domain=domain)
    return row, question, (column, at["instruction"])


def _column(record: Mapping[str, Any], fields: Mapping[str, str], place: str) -> str:
    """The column of the text: as mapped, else the first usual one that is there; an empty `input` beside an
    instruction means that."""
    if (mapped := fields.get("input")) is not None and mapped in record:
        return mapped
    usual = [name for name in TEXTS if name in record]
    if not usual:
        expected = f"{mapped!r}, or one of" if mapped else "one of"
        raise InputError(
            place,
            f"has the fields {sorted(map(str, record))}; expected {expected} {', '.join(TEXTS)}.",
            "Name yours in the config: fields: {input: ...}.",
        )
    blank = usual[0] == "input" and not str(record["input"] or "").strip()
    return "instruction" if blank and record.get("instruction") else usual[0]


def _from_talk(messages: Any, place: str) -> tuple[str, str]:
    """(what came before, the last user turn) of a chat; an answer that follows it is left out."""
    if not isinstance(messages, list) or not messages:
        raise InputError(place, "field 'messages' is not a list of turns.", TALK)
    for turn in messages:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise InputError(place, "field 'messages' holds a turn without text.", TALK)
    turns = messages[:-1] if messages[-1].get("role") == "assistant" else messages
    if not turns or turns[-1].get("role") != "user" or not turns[-1]["content"].strip():
        raise InputError(place, "field 'messages' does not end with what a user says.", TALK)
    return "\n".join(turn["content"] for turn in turns[:-1]), turns[-1]["content"]


def _digest_of(text: str, instruction: str = "", choices: Sequence[str] = ()) -> str:
    """Digest of what is asked, 16 hex digits: of ten million texts two share one with a probability of 3e-6."""
    asked = json.dumps([text, instruction, choices]) if instruction or choices else text
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def time_of(record: Mapping[str, Any], place: str) -> datetime | None:
    """When it came, in UTC; None where nothing is said. Raises InputError for what is no time."""
    value = record.get(TIME)
    if value is None or value == "":
        return None
    fix = 'Write it as "2026-11-21", "2026-11-21T10:30:00Z", or in seconds since 1970.'
    try:
        if isinstance(value, datetime):
            return _utc(value)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, str) and not re.fullmatch(r"\s*\d{9,}(\.\d*)?\s*", value):
            return _utc(datetime.fromisoformat(value.strip()))
        if isinstance(value, bool):
            raise ValueError
        seconds = float(value)
        if EARLIEST_S <= seconds < LATEST_S:
            return datetime.fromtimestamp(seconds, UTC)
        if LATEST_S <= seconds < 1000 * LATEST_S:
            fix = "It looks like milliseconds: divide by 1000."
        elif 0 < seconds < EARLIEST_S:
            fix = "A day is written as a text: " + '"2026-11-21".'
    except (TypeError, ValueError, OverflowError):
        pass
    shown = value.kind if isinstance(value, Unreadable) else repr(value)
    raise InputError(place, f"field {TIME!r} is {shown}, which is no time.", fix)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def weight_of(record: Mapping[str, Any], place: str) -> float:
    """Its traffic, from 0 on; 1 where nothing is said."""
    value = record.get(WEIGHT)
    if value is None or value == "":
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise InputError(
            place,
            f"field {WEIGHT!r} is {value!r}; expected a number from 0 on.",
            "It is the traffic of a text.",
        )
    return weight


def folded(tag: str) -> str:
    """A language tag as all its spellings are alike."""
    return tag.lower().replace("_", "-")
