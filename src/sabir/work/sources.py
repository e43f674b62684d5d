"""Rows as people have them (JSONL, CSV, TSV, parquet, data sets of the hub), read into one shape, and split."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabir.errors import InputError, raise_all
from sabir.tasks import Row
from sabir.work.fields import check_mapped, check_names, columns_read, row_of
from sabir.work.hub import HubData, read_hub
from sabir.work.parquet import check_extra, read_parquet

PARQUET = ".parquet"
SUFFIXES = (".jsonl", ".csv", ".tsv", PARQUET)
SPLITS = ("train", "valid", "test")
SHARES = {"test": 0.1, "valid": 0.1}  # of a file without splits; the rest is train
SHOWN = 5  # errors told per file; the rest are counted


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
    """Where the rows of one language lie: `files` by split, one `file` that is split by a hash of the row, or `hub`.

    `fields` maps our names (input, output, id, instruction, choices, group, domain) to the file's columns; rows that
    are `forgotten` are in the files and count for nothing.
    """

    language: str
    files: Mapping[str, Path] = field(default_factory=dict)
    file: Path | None = None
    hub: HubData | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    forgotten: tuple[Forgotten, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files there are; none of a data set that lies on the hub."""
        if self.hub is not None:
            return self.hub.files
        return [self.file] if self.file else [self.files[split] for split in SPLITS if split in self.files]

    @property
    def places(self) -> str:
        """What is read, in the words of an error."""
        return self.hub.name if self.hub else ", ".join(map(str, self.paths))

    def check_installed(self) -> None:
        """Raise InputError where a package is missing that reading needs; nothing is read or imported."""
        where = f"data.{self.language}"
        if self.hub is not None:
            check_extra("datasets", where)
        elif any(path.suffix == PARQUET for path in self.paths):
            check_extra("pyarrow", where)

    def to_json(self) -> dict[str, Any]:
        return {
            "language": self.language,
            "files": {split: str(path) for split, path in self.files.items()},
            "file": str(self.file) if self.file else None,
            "hub": self.hub.to_json() if self.hub else None,
            "fields": dict(self.fields),
            "forgotten": [[one.id, one.text] for one in self.forgotten],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Source:
        return cls(
            language=value["language"],
            files={split: Path(path) for split, path in value["files"].items()},
            file=Path(value["file"]) if value["file"] else None,
            hub=HubData.from_json(value["hub"]) if value["hub"] else None,
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
    for split, name, records in _split_records(source):
        try:
            splits[split] = _rows(records, source.fields, name)
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
    return _rows(_records(path, fields), fields, str(path))


def _split_records(source: Source) -> Iterator[tuple[str, str, Iterable[tuple[str, Any]]]]:
    """(split, where it lies, its records with their places) of each split there is; records are read as they are
    asked for."""
    columns = columns_read(source.fields)
    if source.hub is not None:
        yield from read_hub(source.hub, columns, where=f"data.{source.language}")
    for split, path in source.files.items():
        yield split, str(path), _records(path, source.fields)


def _rows(records: Iterable[tuple[str, Any]], fields: Mapping[str, str], name: str) -> list[tuple[str, Row]]:
    errors: list[InputError] = []
    rows: list[tuple[str, Row]] = []
    columns: dict[str, None] = {}  # of all rows, in the order in which they came
    for place, record in records:
        try:
            whole = _whole(record, place)
            columns.update(dict.fromkeys(whole))
            rows.append((place, row_of(whole, fields, place)))
        except InputError as error:
            errors.append(error)
    if columns:
        check_mapped(fields, columns, name)
    if len(errors) > SHOWN:
        rest = "1 more row is" if len(errors) == SHOWN + 1 else f"{len(errors) - SHOWN} more rows are"
        errors[SHOWN:] = [InputError(name, f"{rest} wrong in the same or other ways.")]
    raise_all(errors)
    if not rows:
        raise InputError(name, "there are no rows.", "Add some, or take it out of the config.")
    return rows


def _split_of(row: Row) -> str:
    share = _share(row)
    if share < SHARES["test"]:
        return "test"
    return "valid" if share < SHARES["test"] + SHARES["valid"] else "train"


def _share(row: Row) -> float:
    """A number in [0, 1) that depends on the row's text alone."""
    return int.from_bytes(hashlib.sha256(row.input.encode()).digest()[:8], "big") / 2**64


def _records(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """What each line or row of a file holds, with its place; an InputError where it could not be read."""
    if path.suffix == PARQUET:
        for number, record in read_parquet(path, columns_read(fields)):
            yield f"{path}, row {number}", record
        return
    for number, record in _lines(path):
        yield f"{path}, line {number}", record


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
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
                check_names(header, f"{path}, line 1")
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
