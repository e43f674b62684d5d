"""Texts as they come in production, without labels: read, parted by language and window, each counted once."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError, SabirError, raise_all
from sabir.names import MACRO
from sabir.tasks import Row, Task
from sabir.work import Outcome, Work
from sabir.work.fields import ANSWERED
from sabir.work.incoming import INCLUSION, LANGUAGE, TIME, WEIGHT, folded, question_in, time_of, weight_of
from sabir.work.parquet import check_extra
from sabir.work.prepare import Example, task_of, write_examples
from sabir.work.sources import PARQUET, SHOWN, SUFFIXES, _records, _whole
from sabir.work.windows import Span, by_count, by_time

SPLIT = "test"  # what the rows to be answered are called in the folder of their step
TAG = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")
RESERVED = (MACRO, "combined", "continued")  # sabir's own rows stand in a language's place under these names


@dataclass(frozen=True, slots=True)
class ProductionRow:
    """One text of production; texts that ask the same in one language, domain and window are one row.

    Args:
        row: what is asked; its `output` is "". Its id is unlike those of all others of its language: that of the
            file, else `question`; where these stand in several domains or windows, with their names.
        question: digest of what is asked; a label holds for every row that asks the same.
        place: where it came from ("production.jsonl, line 412"); of texts that ask the same, one of theirs.
        time: in UTC; None where nothing is said.
        weight: the traffic it stands for, of all texts that ask the same together.
        window: its name, see `windows`; "" where texts are not parted.
        others: further ids that stand for it: of texts that ask the same.
    """

    language: str
    row: Row
    question: str
    place: str
    time: datetime | None = None
    weight: float = 1.0
    window: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Production:
    """The texts of one file.

    Args:
        rows: by language: those of the project first, in its order, then the others; in the order of the file.
        unseen: languages that the project does not have.
        duplicates: texts that ask what another one asks, and were added to it.
        with_labels: columns that look like labels; they were not looked at.
        small: by language, the windows of few texts.
        fields, window: as it was read.
        digest: of the content, whatever the order of the rows and their ids: by it a file is known again.
    """

    path: Path
    rows: Mapping[str, tuple[ProductionRow, ...]]
    unseen: tuple[str, ...] = ()
    duplicates: int = 0
    with_labels: tuple[str, ...] = ()
    small: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    window: Span | int | None = None
    digest: str = ""

    @property
    def every(self) -> Iterator[ProductionRow]:
        """All rows, language by language."""
        return (row for rows in self.rows.values() for row in rows)

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the file, in sentences."""
        found = []
        for language in self.unseen:
            hint = did_you_mean(language, self.fields)
            found.append(
                f"{self.path}: {_texts(len(self.rows[language]))} in {language!r}, a language that no adapter was "
                f"trained on: its error is a guess from the others.{hint}"
            )
        if self.with_labels:
            named = ", ".join(map(repr, self.with_labels))
            found.append(
                f"{self.path}: {named} looks like labels, and is not looked at. To use labels, give the file that has "
                "them as --labels FILE."
            )
        if self.duplicates:
            found.append(
                f"{self.path}: {_texts(self.duplicates)} the same as another of its language and domain: counted "
                "once, with their weights added."
            )
        return found

    def step_args(self, language: str, task: Mapping[str, Any]) -> dict[str, Any]:
        """The `args` of the step that prepares one language.

        Args:
            task: as steps are told of it: `name`, `settings`, maybe `code`.
        """
        fields = {name: dict(mapping) for name, mapping in self.fields.items()}
        return {
            "file": str(self.path.absolute()),
            "fields": fields,
            "window": self.window,
            "language": language,
            "task": dict(task),
        }


def read_production(
    path: Path, *, fields: Mapping[str, Mapping[str, str]], window: Span | int | None = None
) -> Production:
    """The texts of a file: JSONL, CSV, TSV or parquet with `input` and `language`, maybe `domain`, `time`, `weight`,
    `id`, `choices`, `instruction`, `group`; or chats as `messages`.

    Labels in it are not looked at. A time is an ISO 8601 date or date and time, UTC where it names no zone, or
    seconds since 1970.

    Args:
        fields: by language of the project, our names -> the file's; where a row has no such column, our own names
            are looked for.
        window: how the texts of a language are parted; None: not at all.
    Raises InputErrors for every wrong row (some five of them), and where a row has no time and is to be parted by it.
    """
    reading = _Reading(fields)
    errors: list[InputError] = []
    rows: list[ProductionRow] = []
    for place, record in records_of(path, fields):
        try:
            rows.append(reading.row(_whole(record, place), place))
        except InputError as error:
            errors.append(error)
    raise_all(first_of(errors, str(path)))
    if not rows:
        raise InputError(str(path), "there are no rows.", "Give a row a text, with `input` and `language`.")
    if not any(one.weight for one in rows):
        raise InputError(str(path), "every weight is 0: no text counts.", "Give some of them a weight.")
    every, small = _parted(rows, window, path)
    merged = _counted_once(every)
    known = [*fields, *dict.fromkeys(one.language for one in merged if one.language not in fields)]
    by_language = {language: tuple(one for one in merged if one.language == language) for language in known}
    return Production(
        path=path,
        rows={language: rows for language, rows in by_language.items() if rows},
        unseen=tuple(language for language in known if language not in fields),
        duplicates=len(rows) - len(merged),
        with_labels=tuple(reading.labels),
        small=small,
        fields=fields,
        window=window,
        digest=_digest(rows),
    )


class _Reading:
    """Rows of one file, one after the other: languages under one spelling, an id for one text only."""

    def __init__(self, fields: Mapping[str, Mapping[str, str]]):
        self.fields = fields
        self.labels: dict[str, None] = {}
        self._spelling = {folded(language): language for language in fields}
        self._asked: dict[tuple[str, str], tuple[str, str]] = {}  # (question, place) by language and id

    def row(self, record: Mapping[str, Any], place: str) -> ProductionRow:
        """What a record asks. Raises InputError for a record that asks nothing."""
        language = self._language(record, place)
        fields = mapping_of(record, language, self.fields)
        row, question, columns = question_in(record, fields, place)
        for name in (fields.get("output", ""), *ANSWERED):
            if name in record and name not in columns:
                self.labels[name] = None
        time, weight = time_of(record, place), weight_of(record, place)
        before = self._asked.setdefault((language, row.id), (question, place))
        if before[0] != question:
            found = f"the id {row.id!r} is that of another text in {before[1].rpartition(', ')[2]}."
            raise InputError(place, found, "Give every text of a language an id of its own, or none.")
        return ProductionRow(language, row, question, place, time, weight)

    def _language(self, record: Mapping[str, Any], place: str) -> str:
        """Under which name its language goes: as the project spells it, else as it was first written here."""
        written = record.get(LANGUAGE)
        if written is None or (isinstance(written, str) and not written.strip()):
            has = "" if LANGUAGE in record else f"; the row has the fields {sorted(map(str, record))}"
            raise InputError(place, f"there is no language{has}.", "Every row names its own, as `language`.")
        tag = written.strip() if isinstance(written, str) else ""
        if not TAG.fullmatch(tag) or tag in RESERVED:
            raise InputError(place, f"{written!r} names no language.", "Expected a tag such as de or pt-BR.")
        return self._spelling.setdefault(folded(tag), tag)


def mapping_of(
    record: Mapping[str, Any], language: str, fields: Mapping[str, Mapping[str, str]]
) -> Mapping[str, str]:
    """Our names -> a record's columns; in a language that the project does not have, those that fit best."""
    if language in fields:
        return fields[language]
    return max(fields.values(), key=lambda ours: sum(name in record for name in ours.values()), default={})


def first_of(errors: Sequence[InputError], name: str) -> list[InputError]:
    """Some five errors of a file; the others are counted."""
    if len(errors) <= SHOWN:
        return list(errors)
    rest = "1 more row is" if len(errors) == SHOWN + 1 else f"{len(errors) - SHOWN} more rows are"
    return [*errors[:SHOWN], InputError(name, f"{rest} wrong in the same or other ways.")]


def _texts(count: int) -> str:
    return "1 text is" if count == 1 else f"{count:,} texts are"


# --- the file --------------------------------------------------------------------------------------------


def records_of(path: Path, fields: Mapping[str, Mapping[str, str]]) -> Iterable[tuple[str, Any]]:
    """What each line or row of a file holds, with its place. Raises InputError for what is no such file."""
    check_file(path)
    mapped = (column for ours in fields.values() for column in ours.values())
    columns = dict.fromkeys((LANGUAGE, TIME, WEIGHT, INCLUSION, *mapped))
    records = _records(path, {name: name for name in columns})
    return _with_times(path, records) if path.suffix == PARQUET else records


def check_file(path: Path) -> None:
    """Raise InputError where no rows can be read from a file, by its name."""
    if path.suffix not in SUFFIXES:
        fix = "With one JSON object to a line it is .jsonl: rename it." if path.suffix == ".json" else ""
        raise InputError(str(path), f"does not end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.", fix)
    if not path.is_file():
        raise InputError(str(path), "there is no such file.", "Check the path.")
    if path.suffix == PARQUET:
        check_extra("pyarrow", str(path))


def _with_times(path: Path, records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Records of a parquet file; the times that it keeps as such, which are no texts, in their place."""
    from pyarrow import ArrowException, timestamp, types
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            kind = schema.field(TIME).type if schema.names.count(TIME) == 1 else None
            if kind is None or not (types.is_timestamp(kind) or types.is_date(kind)):
                times: Iterator[Any] | None = None
            else:
                column = file.read([TIME])[TIME]
                whole = column if types.is_date32(kind) else column.cast(timestamp("us", "UTC"), safe=False)
                times = iter(whole.to_pylist())
    except (ArrowException, OSError):
        times = None  # whoever reads the records says it better
    for place, record in records:
        yield place, record if times is None else {**record, TIME: next(times)}


def _parted(
    rows: Sequence[ProductionRow], window: Span | int | None, path: Path
) -> tuple[list[ProductionRow], dict[str, tuple[str, ...]]]:
    """The rows with their windows, each language parted by itself; and by language the small windows."""
    if window is None:
        return list(rows), {}
    timeless = [one for one in rows if one.time is None]
    if timeless and not isinstance(window, int):
        more = f", nor have {len(timeless) - 1:,} others" if len(timeless) > 1 else ""
        raise InputError(
            timeless[0].place,
            f"has no `time`{more}; texts are to be parted by the {window}.",
            "Give every text one, or part by number: --window 500.",
        )
    found, small = list(rows), {}
    places: dict[str, list[int]] = {}
    for place, one in enumerate(rows):
        places.setdefault(one.language, []).append(place)
    for language, at in places.items():
        times = [rows[place].time for place in at]
        if isinstance(window, int):
            windows = by_count(len(at), window, times=times)
        else:
            windows = by_time([time for time in times if time is not None], window)
        for place, name in zip(at, windows.names, strict=True):
            found[place] = replace(rows[place], window=name)
        if windows.small:
            small[language] = windows.small
    return found, small


def _counted_once(rows: Iterable[ProductionRow]) -> list[ProductionRow]:
    """Texts that ask the same in one language, domain and window as one, with their weights added."""
    alike: dict[tuple[str, str, str, str], list[ProductionRow]] = {}
    for one in rows:
        alike.setdefault((one.language, one.row.domain, one.window, one.question), []).append(one)
    merged = [group[0] if len(group) == 1 else _together(group) for group in alike.values()]
    holders = Counter((one.language, one.row.id) for one in merged)
    return [one if holders[one.language, one.row.id] == 1 else _told_apart(one, holders) for one in merged]


def _together(alike: Sequence[ProductionRow]) -> ProductionRow:
    first = min(alike, key=lambda one: (one.row.id, one.row.group))  # whatever their order in the file
    others = sorted({one.row.id for one in alike} - {first.row.id})
    return replace(first, weight=math.fsum(one.weight for one in alike), others=tuple(others))


def _told_apart(one: ProductionRow, taken: Counter[tuple[str, str]]) -> ProductionRow:
    """A row whose id stands in several domains or windows, with an id of its own."""
    name = f"{one.row.id}@{'/'.join(part for part in (one.row.domain, one.window) if part)}"
    while taken[one.language, name]:
        name += "'"
    return replace(one, row=replace(one.row, id=name), others=(one.row.id, *one.others))


def _digest(rows: Iterable[ProductionRow]) -> str:
    """Content of the file before texts that ask the same were put together."""
    keys = sorted(
        f"{one.language} {one.question} {one.weight!r} {one.time} {one.row.domain!r}" for one in rows
    )
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


# --- the step --------------------------------------------------------------------------------------------


def rendered(rows: Iterable[ProductionRow], task: Task) -> list[Example]:
    """What a model is asked, by the rows' ids, in an order that depends on their content alone.

    Raises InputErrors for rows that the task cannot ask.
    """
    examples: list[Example] = []
    errors: list[InputError] = []
    for one in rows:
        row = one.row
        try:
            examples.append(Example(row.id, task.prompt(row), "", task.options(row), row.group, row.domain))
        except ValueError as error:
            errors.append(InputError(one.place, str(error)))
    raise_all(first_of(errors, errors[0].where.rpartition(", ")[0] if errors else ""))
    return sorted(examples, key=lambda example: (example.digest, example.id))


def digest_of(examples: Iterable[Example]) -> str:
    """Content of what is asked, order-free: it identifies the step that prepares it."""
    keys = sorted(
        example.digest + json.dumps([example.id, example.options, example.group, example.domain])
        for example in examples
    )
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def prepare(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Step `production`: write what is asked in one language as JSONL, to be answered as test rows are."""
    for work in works:
        args = work.args
        production = read_production(Path(args["file"]), fields=args["fields"], window=args["window"])
        examples = rendered(production.rows.get(args["language"], ()), task_of(work))
        if digest_of(examples) != work.settings["rows"]:
            raise SabirError(args["file"], "the file changed while the run began.", "Run again.")
        write_examples(work.out, SPLIT, examples)
        yield work.name, {"result": {"rows": {SPLIT: len(examples)}}}
