"""Rows as people have them (JSONL, CSV, TSV; the usual column names), read into one shape, and split."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabir.errors import InputError, raise_all
from sabir.tasks import Row

SUFFIXES = (".jsonl", ".csv", ".tsv")
SPLITS = ("train", "valid", "test")
SHARES = {"test": 0.1, "valid": 0.1}  # of a file without splits; the rest is train
SHOWN = 5  # errors told per file; the rest are counted

# pairs of columns that mean input and output, tried in this order when no mapping is given
COLUMNS = (("input", "output"), ("prompt", "completion"), ("text", "label"), ("instruction", "output"))


@dataclass(frozen=True)
class Forgotten:
    """A row that is to be as if it had never been there: sha256 of its id and of its text, never the text.

    A row of this id or of this text is meant; None: any.
    """

    id: str | None
    text: str | None

    @classmethod
    def of(cls, row: Row) -> Forgotten:
        return cls(hash_of(row.id), hash_of(row.input))


def hash_of(text: str) -> str:
    """sha256 of a text, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """Where the rows of one language lie: `files` by split, or one `file` that is split by a hash of the row.

    `fields` maps our names (input, output, id, instruction) to the file's columns; rows that are `forgotten`
    are in the files and count for nothing.
    """

    language: str
    files: Mapping[str, Path] = field(default_factory=dict)
    file: Path | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    forgotten: tuple[Forgotten, ...] = ()

    @property
    def paths(self) -> list[Path]:
        return [self.file] if self.file else [self.files[split] for split in SPLITS if split in self.files]

    def to_json(self) -> dict[str, Any]:
        return {
            "language": self.language,
            "files": {split: str(path) for split, path in self.files.items()},
            "file": str(self.file) if self.file else None,
            "fields": dict(self.fields),
            "forgotten": [[one.id, one.text] for one in self.forgotten],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Source:
        return cls(
            language=value["language"],
            files={split: Path(path) for split, path in value["files"].items()},
            file=Path(value["file"]) if value["file"] else None,
            fields=value["fields"],
            forgotten=tuple(Forgotten(*one) for one in value["forgotten"]),
        )


def split_files(folder: Path) -> dict[str, Path]:
    """The split files of a folder: train, valid and test, each with one of the known endings.

    Raises InputError when one split has two files.
    """
    found = {}
    for split in SPLITS:
        names = [
            folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()
        ]
        if len(names) > 1:
            listed = " and ".join(path.name for path in names)
            raise InputError(str(folder), f"both {listed} are there.", "Keep one of them.")
        if names:
            found[split] = names[0]
    return found


def read_splits(source: Source) -> dict[str, list[tuple[str, Row]]]:
    """Rows by split, each with the place it came from ("data/ja.jsonl, line 412").

    A file without splits is split 8 : 1 : 1 by a hash of the row's text, so a row stays in its split as
    others are added, and equal texts stay together. Without a valid file a tenth of train becomes valid in
    the same way. Forgotten rows are among them (see `without_forgotten`). Raises InputErrors with every wrong
    row (some five a file).
    """
    if source.file is not None:
        splits: dict[str, list[tuple[str, Row]]] = {split: [] for split in SPLITS}
        for place, row in read_file(source.file, source.fields):
            splits[_split_of(row)].append((place, row))
        return splits
    splits = {}
    errors: list[InputError] = []
    for split, path in source.files.items():
        try:
            splits[split] = read_file(path, source.fields)
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    raise_all(errors)
    if "valid" not in splits and "train" in splits:
        everything = splits["train"]
        splits["valid"] = [(place, row) for place, row in everything if _share(row) < SHARES["valid"]]
        splits["train"] = [(place, row) for place, row in everything if _share(row) >= SHARES["valid"]]
    return splits


def without_forgotten(
    source: Source, splits: Mapping[str, list[tuple[str, Row]]]
) -> tuple[dict[str, list[tuple[str, Row]]], int]:
    """The rows by split but for those that are forgotten, and the number of these."""
    ids = {one.id for one in source.forgotten}
    texts = {one.text for one in source.forgotten}
    if not (ids or texts):
        return dict(splits), 0
    kept = {
        split: [
            (place, row)
            for place, row in rows
            if hash_of(row.id) not in ids and hash_of(row.input) not in texts
        ]
        for split, rows in splits.items()
    }
    return kept, sum(map(len, splits.values())) - sum(map(len, kept.values()))


def find_rows(source: Source, wanted: Collection[str]) -> list[tuple[str, str, Row]]:
    """(split, place, row) of each row whose id or whole text is among those wanted, forgotten or not.

    Raises InputErrors as `read_splits` does.
    """
    return [
        (split, place, row)
        for split, rows in read_splits(source).items()
        for place, row in rows
        if row.id in wanted or row.input in wanted
    ]


def read_file(path: Path, fields: Mapping[str, str]) -> list[tuple[str, Row]]:
    """All rows of one file with their places. Raises InputErrors for what is wrong with it."""
    errors: list[InputError] = []
    rows: list[tuple[str, Row]] = []
    for number, record in _records(path):
        place = f"{path}, line {number}"
        try:
            rows.append((place, _row(_whole(record, place), fields, place)))
        except InputError as error:
            errors.append(error)
    if len(errors) > SHOWN:
        rest = f"{len(errors) - SHOWN} more rows are wrong in the same or other ways."
        errors[SHOWN:] = [InputError(str(path), rest)]
    raise_all(errors)
    if not rows:
        raise InputError(str(path), "the file has no rows.", "Add rows or take it out of the config.")
    return rows


def _split_of(row: Row) -> str:
    share = _share(row)
    if share < SHARES["test"]:
        return "test"
    return "valid" if share < SHARES["test"] + SHARES["valid"] else "train"


def _share(row: Row) -> float:
    """A number in [0, 1) that depends on the row's text alone."""
    return int.from_bytes(hashlib.sha256(row.input.encode()).digest()[:8], "big") / 2**64


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """What each line of a file holds, with its line number; an InputError where it could not be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _json_lines(file) if path.suffix == ".jsonl" else _table_lines(path, file)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror}).", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {_line_not_utf8(path)}", "is not UTF-8.", "Save the file as UTF-8."
        ) from error


def _line_not_utf8(path: Path) -> int:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _json_lines(file: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.rstrip("\r\n"), parse_constant=_no_number)
        except ValueError as error:
            yield number, error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _whole(record: Any, place: str) -> Mapping[str, Any]:
    """The record, once it is one."""
    if isinstance(record, json.JSONDecodeError):
        raise InputError(
            place,
            f"is not valid JSON ({record.msg}, column {record.colno}).",
            "Mend the line or take it out.",
        )
    if isinstance(record, ValueError):
        raise InputError(place, f"is not valid JSON ({record}).", "Mend the line or take it out.")
    if not isinstance(record, dict):
        raise InputError(place, f"is a {type(record).__name__}; expected an object.", "One object a line.")
    return record


def _table_lines(path: Path, file: Any) -> Iterator[tuple[int, Any]]:
    """Rows of a table, each with the line its record starts on."""
    csv.field_size_limit(2**31 - 1)  # the default refuses a text of more than 131,072 characters
    reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if header is None:
                header = cells
                _check_header(header, path)
            elif len(cells) == len(header):
                yield number, dict(zip(header, cells, strict=True))
            elif cells:  # else: an empty line
                raise InputError(
                    f"{path}, line {number}",
                    f"has {len(cells)} fields, and the header has {len(header)}.",
                    "Quote fields that hold the separator.",
                )
    except csv.Error as error:
        raise InputError(
            f"{path}, line {start}",
            f"is not a valid table row ({error}).",
            "A field that starts with a quote must end with one; write quotes inside it twice.",
        ) from error


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}, line 1", f"names the column {twice[0]!r} twice.", "Rename one of them.")


def _row(record: Mapping[str, Any], fields: Mapping[str, str], place: str) -> Row:
    identity = _optional(record, fields.get("id", "id"), place)
    if "messages" in record and not {"input", "output"} & set(fields):
        instruction, text, answer = _from_messages(record["messages"], place)
    else:
        source, target = _columns(record, fields, place)
        text, answer = _text(record, source, place), _text(record, target, place)
        extra = fields.get("instruction", "instruction")
        instruction = "" if extra == source else _optional(record, extra, place)
    for part in (identity, instruction, text, answer):
        _check_characters(part, place)
    return Row(identity or _content_id(text), text, answer, instruction)


def _columns(record: Mapping[str, Any], fields: Mapping[str, str], place: str) -> tuple[str, str]:
    """The columns of input and output: as mapped, else the first usual pair that is there."""
    pairs = [(fields.get("input", source), fields.get("output", target)) for source, target in COLUMNS]
    found = next((pair for pair in pairs if set(pair) <= set(record)), None)
    if found is None:
        missing = [
            repr(name) for key in ("input", "output") if (name := fields.get(key)) and name not in record
        ] or [repr(other) for pair in pairs for name, other in (pair, pair[::-1]) if name in record][:1]
        usual = ", ".join("/".join(pair) for pair in COLUMNS)
        expected = f"expected {' and '.join(missing)}" if missing else f"expected one of {usual} or messages"
        raise InputError(
            place,
            f"has the fields {sorted(map(str, record))}; {expected}.",
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
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        found = "null" if value is None else f"a {type(value).__name__}"
        raise InputError(place, f"field {column!r} is {found}; expected text.", "Drop the row or fill it.")
    text = str(value)
    if not text.strip():
        raise InputError(
            place, f"field {column!r} is empty.", "Every row needs one; drop the row or fill it."
        )
    return text


def _optional(record: Mapping[str, Any], column: str, place: str) -> str:
    value = record.get(column)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(place, f"field {column!r} is a {type(value).__name__}; expected text.")
    return str(value)


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
