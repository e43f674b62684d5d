"""Outputs of a model and of the members of an ensemble, from one file of any length, counted as it is read.

A row holds who answered what: {"id": ..., "language": "ja", "domain": "news", "outputs": {"merged/ties": "sport",
"adapter/ja": "travel"}}, as JSONL or as parquet, where `outputs` is a struct. Answers are labels. Rows are not kept:
ten million of them take as much memory as ten thousand, but for eight bytes each, by which ids are compared.
"""

from __future__ import annotations

import gc
import json
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.estimate.agreement import NONE, among_labels, of_labels
from sabir.estimate.evidence import Evidence, Segment, segmented
from sabir.estimate.tally import Tally
from sabir.work.fields import check_names
from sabir.work.parquet import check_extra
from sabir.work.sources import PARQUET

if TYPE_CHECKING:
    import pyarrow

PROCESSES = 2
_NAMES = ("id", "language", "domain", "window", "outputs")

_PART = 16 * 2**20  # bytes; a file below twice that is read by one process
_BLOCK = 4 * 2**20  # bytes read at once: some 20,000 rows, which as Python's objects take ten times that
_ROWS = 2**16  # of parquet, likewise
_DIFFERENT = 2**15  # lines that differ, kept until they are tallied
_DIGEST = 8  # bytes of an id's hash: among ten million ids two share one with a probability of 3e-6

# of (language, domain, window, label, model's answer, members' answers ...)
Counts = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class MemberOutputs:
    """What a file says of its segments.

    Args:
        evidence: `agreement` and `pairs` of counted rows, and `error` and `member_error` of a file with labels.
        rows: rows of the file.
        duplicates: rows whose id an earlier row had. They are counted as texts of their own.
        digest: of what was counted and of the ids, whatever the order of the rows: by it a file is known again.
    """

    evidence: Evidence
    rows: int
    duplicates: int
    digest: str


@dataclass(frozen=True)
class _Layout:
    """Whose answers are meant, and the names of the columns."""

    path: Path
    model: str
    members: tuple[str, ...]
    columns: Mapping[str, str]

    @property
    def labelled(self) -> bool:
        return "label" in self.columns

    @property
    def answering(self) -> tuple[str, ...]:
        return (self.model, *self.members)


def read_outputs(
    path: Path, *, model: str, members: Sequence[str], fields: Mapping[str, str], processes: int = PROCESSES
) -> MemberOutputs:
    """What a file of outputs says of how far a model and the members of its ensemble agree.

    Args:
        model: whose error is asked for; every row has its answer.
        members: the others; a row need not have all of their answers (none, or null).
        fields: our names (id, language, domain, window, outputs, label) -> the file's columns. All but language and
            outputs may be missing in a row. `label`, the gold answer, is read only where it is named here.
        processes: that read a large JSONL file together. Where it is more than one the caller's main module must be
            safe to import, as with any use of Python's processes.
    Raises InputError for the first wrong row, an empty file, and a member that no row has an answer of.
    """
    columns = {name: name for name in _NAMES} | dict(fields)
    layout = _Layout(Path(path), model, tuple(members), columns)
    try:
        if layout.path.suffix == PARQUET:
            parts = [_read_parquet(layout)]
        else:
            parts = _read_jsonl(layout, processes)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror}).", "Check the path.") from error
    tally = Tally()
    for part, _, _ in parts:
        tally.add(part)
    evidence = tally.evidence()
    rows = sum(number for _, number, _ in parts)
    if not rows:
        raise InputError(str(path), "there are no rows.", "Write one a line, or name another file.")
    _check_members(layout, evidence)
    ids = np.sort(np.concatenate([hashes for _, _, hashes in parts]))
    return MemberOutputs(evidence, rows, int((ids[1:] == ids[:-1]).sum()), _content(evidence, ids))


def _content(evidence: Evidence, ids: np.ndarray) -> str:
    assert evidence.agreement is not None
    found = sha256(ids.tobytes())
    rows = zip(evidence.segment.tolist(), evidence.agreement.tolist(), evidence.counts.tolist(), strict=True)
    for row in sorted(map(repr, rows)):
        found.update(row.encode())
    found.update(repr(evidence.segments).encode())
    return found.hexdigest()


_Part = tuple[
    Evidence, int, np.ndarray
]  # its counted rows, how many they stand for, and the hashes of their ids


def _check_members(layout: _Layout, evidence: Evidence) -> None:
    assert evidence.agreement is not None
    silent = np.isnan(evidence.agreement).all(axis=0)
    for member in np.array(layout.members, dtype=object)[silent]:
        known = [name for name, none in zip(layout.members, silent, strict=True) if not none]
        near = did_you_mean(member, [*known, *first_names(layout.path, column=layout.columns["outputs"])])
        raise InputError(
            str(layout.path), f"no row has an output of {member!r}.", f"Name models that it holds.{near}"
        )


def first_names(path: Path, *, column: str = "outputs") -> list[str]:
    """Who answers in a file, by its first row; nobody in a file of other columns, and in one of another format.

    Raises OSError or ValueError for a file that cannot be read.
    """
    if path.suffix == PARQUET:
        return _names_of_parquet(path, column)
    if path.suffix != ".jsonl":
        return []
    with open(path, encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "{}")
    row = json.loads(first)
    outputs = row.get(column) if isinstance(row, dict) else None
    return list(outputs) if isinstance(outputs, dict) else []


def _names_of_parquet(path: Path, column: str) -> list[str]:
    check_extra("pyarrow", str(path))
    from pyarrow.parquet import read_schema

    schema = read_schema(path)
    at = schema.get_field_index(column)
    return [] if at < 0 else [field.name for field in getattr(schema.field(at).type, "fields", ())]


# JSONL


def _read_jsonl(layout: _Layout, processes: int) -> list[_Part]:
    size = layout.path.stat().st_size
    parts = max(1, min(processes, size // _PART))
    bounds = [size * part // parts for part in range(parts + 1)]
    if parts == 1:
        return [_read_range(layout, 0, size)]
    with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
        under_way = [pool.submit(_read_range, layout, *ends) for ends in pairwise(bounds)]
        return [part.result() for part in under_way]  # in their order: the first wrong row is told


def _read_range(layout: _Layout, start: int, end: int) -> _Part:
    """The lines that start within these bytes of the file."""
    tally, rows = Tally(), 0
    ids = bytearray()
    # What lines hold is read once, however often it stands there: but for the id they are alike by the thousand.
    seen: Counter[bytes] = Counter()  # what stands behind an id, and whole lines with a blank before
    id_first = _id_first(layout.columns["id"])
    try:
        with _without_collector():
            for lines in _blocks(layout.path, start, end):
                rows += len(lines)
                parted = id_first.findall(b"\n".join(lines))
                if len(parted) == len(lines):
                    ids += b"".join([_digest(identity.strip(b'"')) for identity, _ in parted])
                    seen.update([rest for _, rest in parted])
                else:
                    seen.update([b" " + line for line in lines])
                if len(seen) > _DIFFERENT:
                    ids += _add(layout, tally, seen)
                    seen.clear()
            ids += _add(layout, tally, seen)
    except (ValueError, TypeError, KeyError, AttributeError):
        _tell(layout, start, end)
        raise
    return tally.evidence(), rows, np.frombuffer(ids, dtype=np.uint64)


def _id_first(column: str) -> re.Pattern[bytes]:
    """Finds the lines that begin with an id of plain characters: the id, and what stands behind it."""
    name = re.escape(json.dumps(column, ensure_ascii=False).encode())
    return re.compile(rb'^\s*\{\s*%s\s*:\s*("[^"\\\n]*"|-?\d+)\s*,\s*(".*)$' % name, re.MULTILINE)


def _add(layout: _Layout, tally: Tally, seen: Counter[bytes]) -> bytes:
    """Tally lines, or what stands in them behind an id; the hashes of ids that are still within them."""
    # One call for many lines: a call for each takes half as long again.
    lines = [line if line.startswith(b" ") else b"{" + line for line in seen]
    records = json.loads(b"[" + b",".join(lines) + b"]")
    if len(records) != len(lines):
        raise ValueError("lines that are no objects of their own")
    language, domain, window, outputs, identity = (
        layout.columns[name] for name in ("language", "domain", "window", "outputs", "id")
    )
    label, names = layout.columns.get("label"), layout.answering
    counts: Counts = Counter()
    ids = bytearray()
    for record, count in zip(records, seen.values(), strict=True):
        answers = map(record[outputs].get, names)
        gold = label and record.get(label)
        counts[(record[language], record.get(domain), record.get(window), gold, *answers)] += count
        if record.get(identity) is not None:
            ids += count * _digest(str(record[identity]).encode("utf-8", "surrogatepass"))
    tally.add(_of_counts(layout, counts))
    return bytes(ids)


def _blocks(path: Path, start: int, end: int) -> Iterator[list[bytes]]:
    """The lines that start within these bytes, many at a time; blank ones are left out."""
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()  # the rest of a line that starts before
        while (at := file.tell()) < end:
            block = file.read(min(_BLOCK, end - at))
            block = (block + file.readline()) if not block.endswith(b"\n") else block
            if not at:
                block = block.removeprefix(BOM_UTF8)
            lines = [line for line in block.split(b"\n") if line and not line.isspace()]
            if lines:
                yield lines


@contextmanager
def _without_collector() -> Iterator[None]:
    """Without searches for circles among objects: JSON makes none, and half the time would go into looking."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _digest(identity: bytes) -> bytes:
    return blake2b(identity, digest_size=_DIGEST).digest()


def _of_counts(layout: _Layout, counts: Counts) -> Evidence:
    """What was counted. Raises ValueError for values of which `_check` says what is wrong."""
    segments, answers, labels = [], [], []
    for language, domain, window, label, *given in counts:
        if not (
            _is_name(language) and _is_optional(domain) and _is_optional(window) and _is_answer(given[0])
        ):
            raise ValueError("a wrong row")
        if not all(one is None or _is_answer(one) for one in (label, *given)):
            raise ValueError("a wrong answer")
        segments.append(Segment(language, domain or "", window or ""))
        answers.append(given)
        labels.append(label)
    numbers: dict[str, int] = {}
    codes = np.array([[_number(one, numbers) for one in given] for given in answers], dtype=np.int64)
    gold = np.array([_number(one, numbers) for one in labels], dtype=np.int64)
    names, segment = segmented(segments)
    count = np.fromiter(counts.values(), dtype=np.int64)
    return _evidence(layout, names, segment, codes.reshape(len(counts), len(layout.answering)), gold, count)


def _number(answer: Any, numbers: dict[str, int]) -> int:
    return NONE if answer is None else numbers.setdefault(str(answer), len(numbers))


def _evidence(
    layout: _Layout,
    names: tuple[Segment, ...],
    segment: np.ndarray,
    answers: np.ndarray,
    gold: np.ndarray,
    count: np.ndarray | None,
) -> Evidence:
    """Of answers by number, (n, 1 + M), the model's first, and gold answers, (n,); -1 for none."""
    model, members = answers[:, 0], answers[:, 1:]
    evidence = Evidence(
        names, segment, agreement=of_labels(model, members), pairs=among_labels(members), count=count
    )
    if not layout.labelled:
        return evidence
    known = gold != NONE
    error = np.where(known, (model != gold).astype(float), np.nan)
    of_members = np.where(
        known[:, None] & (members != NONE), (members != gold[:, None]).astype(float), np.nan
    )
    return replace(evidence, error=error, member_error=of_members)


# What is wrong


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_optional(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_answer(value: Any) -> bool:
    return isinstance(value, str | int)


def _tell(layout: _Layout, start: int, end: int) -> None:
    """Raise InputError for the first wrong line that starts within these bytes."""
    number = 0
    with open(layout.path, "rb") as file:
        at = 0
        for line in file:
            number += 1
            begins, at = at, at + len(line)
            if begins < start or not line.strip():
                continue
            if begins >= end:
                return
            place = f"{layout.path}, line {number}"
            text = line.removeprefix(BOM_UTF8) if not begins else line
            try:
                record = json.loads(text.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise InputError(place, "is not UTF-8.", "Save the file as UTF-8.") from error
            except ValueError as error:
                raise InputError(
                    place, f"is not valid JSON ({error}).", "Mend the line or take it out."
                ) from error
            _check(layout, record, place)


def _check(layout: _Layout, record: Any, place: str) -> None:
    """Raise InputError for a record that is no row of outputs."""
    if not isinstance(record, dict):
        raise InputError(place, f"is {_kind(record)}; expected an object.", "One object a line.")
    columns = layout.columns
    language, outputs = columns["language"], columns["outputs"]
    for column in (language, outputs):
        if column not in record:
            fix = f"The row has {sorted(record)}. Fill it, or map your field.{did_you_mean(column, record)}"
            raise InputError(place, f"field {column!r} is missing.", fix)
    if not _is_name(record[language]):
        found = f"field {language!r} is {_kind(record[language])}; expected a language."
        raise InputError(place, found, 'Write one, such as "ja".')
    for column in (columns["domain"], columns["window"]):
        if not _is_optional(record.get(column)):
            found = f"field {column!r} is {_kind(record[column])}; expected text."
            raise InputError(place, found, "Write a name, or leave it out.")
    if not isinstance(record[outputs], dict):
        found = f"field {outputs!r} is {_kind(record[outputs])}; expected an object."
        raise InputError(place, found, 'Write {"name of a model": "its answer", ...}.')
    if record[outputs].get(layout.model) is None:
        found = f"field {outputs!r} has no answer of {layout.model!r}, whose error is asked for."
        fix = f"It has those of {', '.join(map(repr, record[outputs])) or 'nobody'}."
        raise InputError(place, found, f"{fix}{did_you_mean(layout.model, record[outputs])}")
    answers = {name: record[outputs].get(name) for name in layout.answering}
    if layout.labelled:
        answers[columns["label"]] = record.get(columns["label"])
    for name, answer in answers.items():
        if answer is not None and not _is_answer(answer):
            found = f"the answer of {name!r} is {_kind(answer)}; expected a label."
            raise InputError(place, found, "Labels are texts or whole numbers.")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "a text" if value.strip() else "empty"
    return "null" if value is None else f"a {type(value).__name__}"


# Parquet


def _read_parquet(layout: _Layout) -> _Part:
    check_extra("pyarrow", str(layout.path))
    import pyarrow
    from pyarrow.parquet import ParquetFile

    tally, rows = Tally(), 0
    ids = bytearray()
    try:
        with open(layout.path, "rb") as raw, ParquetFile(raw) as file:
            names = file.schema_arrow.names
            check_names(names, str(layout.path))
            wanted = [name for name in names if name in layout.columns.values()]
            for batch in file.iter_batches(_ROWS, columns=wanted):
                try:
                    tally.add(_of_batch(layout, batch))
                except ValueError:
                    for number, record in enumerate(batch.to_pylist(), start=rows + 1):
                        _check(layout, record, f"{layout.path}, row {number}")
                    raise
                if layout.columns["id"] in wanted:
                    known = batch.column(layout.columns["id"]).drop_null().to_pylist()
                    ids += b"".join([_digest(str(one).encode()) for one in known])
                rows += batch.num_rows
    except pyarrow.ArrowException as error:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            str(layout.path), f"is no parquet file that can be read ({said}).", "Write it again."
        ) from error
    return tally.evidence(), rows, np.frombuffer(ids, dtype=np.uint64)


def _of_batch(layout: _Layout, batch: pyarrow.RecordBatch) -> Evidence:
    """What the rows of a batch say. Raises ValueError for values of which `_check` says what is wrong."""
    from pyarrow import types

    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    outputs = columns.get(layout.columns["outputs"])
    if outputs is None or not types.is_struct(outputs.type):
        raise ValueError("outputs are no struct")
    answering = [outputs.type.field(place).name for place in range(outputs.type.num_fields)]
    answered = dict(zip(answering, outputs.flatten(), strict=True))

    names: dict[str, int] = {"": 0}
    language, domain, window = (
        _coded(columns.get(layout.columns[name]), names, batch.num_rows)
        for name in ("language", "domain", "window")
    )
    numbers: dict[str, int] = {}
    codes = [_coded(answered.get(name), numbers, batch.num_rows) for name in layout.answering]
    gold = _coded(columns.get(layout.columns["label"]) if layout.labelled else None, numbers, batch.num_rows)
    blank = [place for name, place in names.items() if not name.strip()]
    if (language == NONE).any() or np.isin(language, blank).any() or (codes[0] == NONE).any():
        raise ValueError("a row without a language, or without the model's answer")

    span = len(names)
    keys, segment = np.unique((language * span + domain.clip(0)) * span + window.clip(0), return_inverse=True)
    called = list(names)
    segments = [
        Segment(called[key // span**2], called[key // span % span], called[key % span])
        for key in keys.tolist()
    ]
    return _evidence(layout, tuple(segments), segment, np.stack(codes, axis=1), gold, None)


def _coded(column: pyarrow.Array | None, numbers: dict[str, int], rows: int) -> np.ndarray:
    """(rows,) each value by its number, to which new ones are added; -1 for null, or where there is no column."""
    from pyarrow import types

    if column is None or types.is_null(column.type):
        return np.full(rows, NONE)
    encoded = column if types.is_dictionary(column.type) else None
    kind = encoded.type.value_type if encoded is not None else column.type
    allowed = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_integer,
        types.is_boolean,
    )
    if not any(of(kind) for of in allowed):
        raise ValueError(f"values of type {kind}")
    encoded = column.dictionary_encode() if encoded is None else encoded
    places = [_number(value, numbers) for value in encoded.dictionary.to_pylist()]
    return np.array([*places, NONE])[encoded.indices.fill_null(len(places)).to_numpy(zero_copy_only=False)]
