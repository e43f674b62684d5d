"""A file of outputs is read as the rows in it say, in one part or several, as JSONL or parquet."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabir.errors import InputError
from sabir.estimate.evidence import Segment
from sabir.work import member_outputs
from sabir.work.member_outputs import MemberOutputs, read_outputs

MODEL, MEMBERS = "merged/ties", ("adapter/de", "adapter/ja", "base")


def drawn(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for number in range(n):
        outputs = {name: rng.choice(["sport", "travel", "食べ物"]) for name in (MODEL, *MEMBERS)}
        row = {"id": f"r{number}", "language": rng.choice(["de", "ja"]), "domain": None, "outputs": outputs}
        row["gold"] = rng.choice(["sport", "travel"]) if number % 11 else None
        if number % 3:
            row["domain"] = rng.choice(["news", "web"])
        if number % 7 == 0:
            outputs["base"] = None
        rows.append(row)
    return rows


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, **settings: Any) -> MemberOutputs:
    return read_outputs(path, **{"model": MODEL, "members": MEMBERS, "fields": {}, "processes": 1} | settings)


def expected(rows: list[dict[str, Any]], *, gold: bool = False) -> Counter[tuple]:
    """(segment, agreements, pairs, errors ...) of each row by plain comparison."""
    found: Counter[tuple] = Counter()
    for row in rows:
        model, *others = (row["outputs"].get(name) for name in (MODEL, *MEMBERS))

        def same(a, b):
            return None if a is None or b is None else float(a == b)

        values = [same(model, one) for one in others] + [same(a, b) for a, b in combinations(others, 2)]
        if gold:
            hits = [same(row["gold"], one) for one in (model, *others)]
            values += [None if hit is None else 1 - hit for hit in hits]
        found[Segment(row["language"], row.get("domain") or ""), *values] += 1
    return found


def found(outputs: MemberOutputs) -> Counter[tuple]:
    evidence = outputs.evidence
    columns = [evidence.agreement, evidence.pairs, evidence.error, evidence.member_error]
    values = np.column_stack([one for one in columns if one is not None])
    counted: Counter[tuple] = Counter()
    for place, row, count in zip(evidence.segment, values, evidence.counts, strict=True):
        counted[evidence.segments[place], *(None if np.isnan(x) else float(x) for x in row)] += int(count)
    return counted


def test_a_file_says_what_its_rows_say(tmp_path):
    rows = drawn(500)
    outputs = read(written(tmp_path / "o.jsonl", rows))
    assert found(outputs) == expected(rows)
    assert (outputs.rows, outputs.duplicates) == (500, 0)
    assert outputs.evidence.error is None  # gold answers in the file are not looked at unasked


def test_a_named_label_makes_it_a_reference(tmp_path):
    rows = drawn(500)
    outputs = read(written(tmp_path / "o.jsonl", rows), fields={"label": "gold"})
    assert found(outputs) == expected(rows, gold=True)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_file_are_its_rows_each_once(tmp_path, parts, monkeypatch):
    rows = drawn(200)
    path = written(tmp_path / "o.jsonl", rows)
    monkeypatch.setattr(member_outputs, "_BLOCK", 300)  # a row is some 150 bytes
    layout = member_outputs._Layout(path, MODEL, MEMBERS, {name: name for name in member_outputs._NAMES})
    size = path.stat().st_size
    starts = [0]
    for line in path.read_bytes().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    # bounds within lines, on their first byte and on their last
    for bounds in (
        [size * i // parts for i in range(parts + 1)],
        [0, starts[20], size],
        [0, starts[20] - 1, size],
    ):
        read_parts = [member_outputs._read_range(layout, a, b) for a, b in pairwise(bounds)]
        together = sum((found(MemberOutputs(one, 0, 0, "")) for one, _, _ in read_parts), Counter())
        assert together == expected(rows)
        assert sum(number for _, number, _ in read_parts) == 200


def test_two_processes_read_what_one_does(tmp_path, monkeypatch):
    rows = drawn(400)
    rows[390]["id"] = "r3"
    path = written(tmp_path / "o.jsonl", rows)
    monkeypatch.setattr(member_outputs, "_PART", 1000)
    outputs = read(path, processes=2)
    assert found(outputs) == expected(rows)
    assert (outputs.rows, outputs.duplicates) == (400, 1)  # found across the parts


def test_blank_lines_carriage_returns_and_marks_of_order_are_nothing(tmp_path):
    rows = drawn(5)
    path = tmp_path / "o.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n  \r\n".join(json.dumps(row).encode() for row in rows))
    assert found(read(path)) == expected(rows)


@pytest.mark.parametrize("last", [False, True], ids=["id first", "id last"])
@pytest.mark.parametrize(
    "kind", [str, int, 'a "{}\\'.format, "ü{}".format], ids=["text", "number", "escaped", "ü"]
)
def test_ids_are_known_again_wherever_and_however_they_are_written(tmp_path, kind, last):
    rows = []
    for number, row in enumerate(drawn(60)):
        del row["id"]
        identity = {"id": kind(number % 50)}
        rows.append(row | identity if last else identity | row)
    outputs = read(written(tmp_path / "o.jsonl", rows))
    assert outputs.duplicates == 10
    assert found(outputs) == expected(rows)


def test_an_id_is_the_same_among_lines_that_begin_with_it_and_others(tmp_path, monkeypatch):
    rows = drawn(40)
    rows[30:] = [dict(reversed(row.items())) | {"id": "r3"} for row in rows[30:]]
    monkeypatch.setattr(member_outputs, "_BLOCK", 300)
    monkeypatch.setattr(member_outputs, "_DIFFERENT", 3)
    outputs = read(written(tmp_path / "o.jsonl", rows))
    assert outputs.duplicates == 10
    assert found(outputs) == expected(rows)


def test_rows_of_one_id_are_counted(tmp_path):
    rows = drawn(40)
    for number in (7, 8, 9):
        rows[number]["id"] = "r6"
    del rows[20]["id"], rows[21]["id"]  # rows without one are nobody's double
    assert read(written(tmp_path / "o.jsonl", rows)).duplicates == 3


def test_numbers_and_texts_of_the_same_letters_are_one_label(tmp_path):
    rows = [{"language": "de", "outputs": {MODEL: 1, "base": "1"}}]
    outputs = read(written(tmp_path / "o.jsonl", rows), members=("base",))
    assert outputs.evidence.agreement.tolist() == [[1.0]]


@pytest.mark.parametrize("kind", ["plain", "dictionary"])
def test_parquet_says_what_jsonl_says(tmp_path, kind, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = drawn(300)
    rows[9]["id"] = "r1"
    table = pyarrow.Table.from_pylist(rows)
    if kind == "dictionary":
        table = table.set_column(1, "language", table["language"].dictionary_encode())
    parquet.write_table(table, tmp_path / "o.parquet", row_group_size=64)
    monkeypatch.setattr(member_outputs, "_ROWS", 70)
    for fields in ({}, {"label": "gold"}):
        ours = read(tmp_path / "o.parquet", fields=fields)
        assert found(ours) == expected(rows, gold=bool(fields))
        assert (ours.rows, ours.duplicates) == (300, 1)


ROW = {"language": "de", "outputs": {MODEL: "x"}}
WRONG = {
    "not JSON": ("{", "is not valid JSON"),
    "two on a line": ('{"language": "de"}, {"language": "de"}', "is not valid JSON"),
    "a list": ([1], "is a list; expected an object."),
    "a text": ("x", "is not valid JSON"),
    "a quoted text": ('"language"', "is a text; expected an object."),
    "no brace": ('"language": "de", "outputs": {"merged/ties": "x"}}', "is not valid JSON"),
    "a brace too many": (
        '{"id": "x", {"language": "de", "outputs": {"merged/ties": "x"}}',
        "is not valid JSON",
    ),
    "no language": ({"outputs": {MODEL: "x"}}, "field 'language' is missing"),
    "no outputs": ({"language": "de", "output": {MODEL: "x"}}, "Did you mean 'output'?"),
    "empty language": (ROW | {"language": " "}, "field 'language' is empty; expected a language."),
    "a domain of a number": (ROW | {"domain": 3}, "field 'domain' is a int; expected text."),
    "outputs of a text": (
        {"language": "de", "outputs": "x"},
        "field 'outputs' is a text; expected an object.",
    ),
    "no answer of the model": (
        {"language": "de", "outputs": {"merged/tie": "x"}},
        "Did you mean 'merged/tie'?",
    ),
    "null of the model": ({"language": "de", "outputs": {MODEL: None}}, "has no answer of 'merged/ties'"),
    "a list of phrases": (ROW | {"outputs": {MODEL: "x", "base": ["a"]}}, "the answer of 'base' is a list;"),
    "a share": (ROW | {"outputs": {MODEL: 0.5}}, "the answer of 'merged/ties' is a float; expected a label."),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_wrong_row_is_told_with_its_line(tmp_path, case, monkeypatch):
    row, says = WRONG[case]
    path = written(tmp_path / "o.jsonl", drawn(30))
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[19:19] = ["", row if isinstance(row, str) else json.dumps(row)]
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(member_outputs, "_PART", 1000)
    for processes in (1, 2):
        with pytest.raises(InputError) as refused:
            read(path, processes=processes if case == "not JSON" else 1)  # to start two takes a second
        assert refused.value.where == f"{path}, line 21"
        assert says in str(refused.value)


def test_a_wrong_row_of_parquet_is_told_with_its_number(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = drawn(30)
    rows[17]["outputs"][MODEL] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "o.parquet")
    with pytest.raises(InputError, match=r"row 18: field 'outputs' has no answer of 'merged/ties'"):
        read(tmp_path / "o.parquet")


def test_a_member_that_nowhere_answers_is_told_with_who_does(tmp_path):
    path = written(tmp_path / "o.jsonl", drawn(30))
    with pytest.raises(InputError, match=r"no row has an output of 'adapter/jp'.*Did you mean 'adapter/ja'"):
        read(path, members=("adapter/de", "adapter/jp"))


def test_an_empty_file_and_none_are_told(tmp_path):
    with pytest.raises(InputError, match="there are no rows"):
        read(written(tmp_path / "o.jsonl", []))
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.jsonl")
