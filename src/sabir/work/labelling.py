"""Labels for some texts of production: the file that a person fills in, and what was filled in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sabir.errors import InputError, raise_all
from sabir.tasks import Row, Task
from sabir.work.fields import ANSWERED, _optional, _text, _texts
from sabir.work.incoming import INCLUSION, LANGUAGE, TEXTS, folded, question_in
from sabir.work.production import Production, ProductionRow, first_of, mapping_of, records_of
from sabir.work.sources import _whole

EMPTY: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True)
class Label:
    """The gold answer to one text.

    Args:
        target: as the task takes it.
        inclusion: the probability with which the text was chosen for labelling, in (0, 1]; None: all alike.
        place: where it came from ("labels.jsonl, line 4").
    """

    target: str
    inclusion: float | None
    place: str


@dataclass(frozen=True)
class Labels:
    """The labels of one file.

    Args:
        labels: by language and `question` of the rows; a label holds for every row that asks the same.
        empty: rows without an answer, which say nothing.
    """

    path: Path
    labels: Mapping[tuple[str, str], Label]
    empty: int = 0

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the file, in sentences."""
        if not self.empty:
            return []
        rows = "1 row has" if self.empty == 1 else f"{self.empty:,} rows have"
        return [
            f"{self.path}: {rows} no answer and count as not labelled. Intervals hold if chance left them out, not if "
            "they were the hard ones."
        ]

    def of(self, row: ProductionRow) -> Label | None:
        """The label of a text, or None."""
        return self.labels.get((row.language, row.question))


def read_labels(path: Path, production: Production, *, tasks: Mapping[str, Task], task: Task) -> Labels:
    """The labels of a file for texts of a production file: rows with `id` or `input`, and `output`; where an id or a
    text stands for several languages also `language`; maybe `inclusion`. Rows with an empty `output` are not labelled.

    Args:
        tasks: by language, the task as it has it; `task` is that of the others.
    Raises InputErrors for rows that label none of the texts, that label a text otherwise than another row does, and
    whose answer the task does not know (some five of them).
    """
    known = _Known(production)
    labels: dict[tuple[str, str], Label] = {}
    errors: list[InputError] = []
    strangers: list[str] = []
    empty = read = 0
    for place, record in records_of(path, production.fields):
        read += 1
        try:
            record = _whole(record, place)
            one = known.find(record, place)
            if one is None:
                strangers.append(place)
                continue
            answered = _answered(record, one.row, mapping_of(record, one.language, production.fields), place)
            if answered is None:
                empty += 1
                continue
            label = _label(record, answered, tasks.get(one.language, task), place)
            before = labels.setdefault((one.language, one.question), label)
            if before.target != label.target:
                found = f"says {label.target!r}, and {_line(before.place)} says {before.target!r} of the same text."
                raise InputError(place, found, "Keep one of the two.")
        except InputError as error:
            errors.append(error)
    if strangers:
        first = _line(strangers[0])
        found = (
            f"{len(strangers):,} of {read:,} rows match no text of {production.path.name} (first: {first})."
        )
        errors.insert(0, InputError(str(path), found, "Give labels of its texts, by `id` or `input`."))
    raise_all(first_of(errors, str(path)))
    if not read:
        raise InputError(
            str(path), "there are no rows.", "Give each a text's `id` or `input`, and its `output`."
        )
    _check_inclusion(path, labels.values())
    return Labels(path, labels, empty)


def write_choice(path: Path, rows: Iterable[tuple[ProductionRow, float]]) -> None:
    """Write texts to be labelled as JSONL, each with an empty `output` to fill in.

    Args:
        path: a file that is not there yet: what a person filled in is never overwritten.
        rows: each with the probability with which it was chosen.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            for one, inclusion in rows:
                row = one.row
                more = {"instruction": row.instruction, "choices": list(row.choices)}
                record = {
                    "id": row.id,
                    LANGUAGE: one.language,
                    "domain": row.domain,
                    "input": row.input,
                    **{name: value for name, value in more.items() if value},
                    INCLUSION: inclusion,
                    "output": "",
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    except FileExistsError as error:
        raise InputError(str(path), "is there already.", "Name a new file: it may hold labels.") from error
    except OSError as error:
        raise InputError(str(path), f"cannot be written ({error.strerror}).", "Check the path.") from error


class _Known:
    """The texts there are, found by id or by what they ask."""

    def __init__(self, production: Production):
        self._production = production
        self._by: dict[str, dict[str, ProductionRow]] = {}  # by id or question, then by language
        for one in production.every:
            for name in (one.row.id, one.question, *one.others):
                self._by.setdefault(name, {})[one.language] = one

    def find(self, record: Mapping[str, Any], place: str) -> ProductionRow | None:
        """The text that a row of labels is about; None where there is none."""
        language = self._language(record, place)
        fields = mapping_of(record, language, self._production.fields)
        identity = _optional(record, fields["id"] if fields.get("id") in record else "id", place)
        columns = (fields.get("input", ""), *TEXTS, "messages")
        asked = any(record.get(column) not in EMPTY for column in columns)
        if not identity and not asked:
            raise InputError(
                place, "has neither `id` nor `input`.", "Every row has one of them, and `output`."
            )
        row, question, _ = question_in(record, fields, place) if asked else (None, "", ())
        found = self._by.get(identity) or self._by.get(question, {})
        if not language and len(found) > 1:
            named = f"the id {identity!r}" if identity else "the text"
            raise InputError(place, f"{named} stands for {', '.join(found)}.", "Add its `language`.")
        one = found.get(language) if language else next(iter(found.values()), None)
        if identity and row is not None and one is not None and one.row.input != row.input:
            another = f"the id {identity!r} is that of another text in {self._production.path.name}."
            raise InputError(place, another, "Give the labels of this file.")
        return one

    def _language(self, record: Mapping[str, Any], place: str) -> str:
        tag = _optional(record, LANGUAGE, place).strip()
        return next((one for one in self._production.rows if folded(one) == folded(tag)), tag)


def _answered(record: Mapping[str, Any], row: Row, fields: Mapping[str, str], place: str) -> Row | None:
    """The text with its answer; None where that is empty."""
    names = (fields.get("output", ""), *ANSWERED)
    column = next((name for name in names if name in record), None)
    if column is None:
        raise InputError(place, "has no `output`.", "Add the right answer, or an empty one to leave it out.")
    value = record[column]
    if value in EMPTY or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, list):
        return replace(row, phrases=_texts(value, column, place))
    return replace(row, output=_text(record, column, place))


def _label(record: Mapping[str, Any], row: Row, task: Task, place: str) -> Label:
    try:
        target = task.target(row)
    except ValueError as error:
        raise InputError(place, str(error)) from error
    value = record.get(INCLUSION)
    if value in EMPTY:
        return Label(target, None, place)
    try:
        inclusion = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        inclusion = 0.0
    if not 0 < inclusion <= 1:
        found = f"field {INCLUSION!r} is {value!r}; expected a probability above 0 and up to 1."
        raise InputError(place, found, "Leave it as it was written.")
    return Label(target, inclusion, place)


def _check_inclusion(path: Path, labels: Iterable[Label]) -> None:
    """Raise InputError where only some of the labels say how likely their texts were chosen."""
    labels = list(labels)
    without = [label for label in labels if label.inclusion is None]
    if without and len(without) < len(labels):
        found = f"{len(without):,} of {len(labels):,} labels have no `{INCLUSION}` (first: {_line(without[0].place)})."
        fix = "Texts chosen by --choose and others do not mix: give one of the two kinds."
        raise InputError(str(path), found, fix)


def _line(place: str) -> str:
    return place.rpartition(", ")[2]
