"""Parquet files are read like any other, and what is wrong with one is a sentence."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabir.errors import InputError, InputErrors
from sabir.work.parquet import BATCH
from sabir.work.sources import SHOWN, Source, read_file, read_splits, split_files


def parquet(path, records, **more):
    table = records if isinstance(records, pa.Table) else pa.Table.from_pylist(records)
    pq.write_table(table, path, **more)
    return path


RECORDS = [
    {"id": 7, "text": "schön", "label": "x"},
    {"id": 8, "text": "日本語\n", "label": "y"},
]


def test_the_rows_are_those_of_the_same_records_as_jsonl(tmp_path):
    more = [{"id": 9, "question": "q", "choices": ["a", "b"], "answer": 1, "group": "d"}]
    talk = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}]
    keyphrases = [{"input": "x", "output": ["a", "b"]}]
    arc = [{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}]
    for number, records in enumerate((RECORDS, more, talk, keyphrases, arc)):
        lines = tmp_path / f"{number}.jsonl"
        lines.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        rows = [row for _, row in read_file(parquet(tmp_path / f"{number}.parquet", records), {})]
        assert rows == [row for _, row in read_file(lines, {})]


def test_the_place_of_a_row_is_its_number_from_1_across_batches(tmp_path):
    records = [{"text": f"t{i}", "label": "x"} for i in range(2 * BATCH + 5)]
    records[BATCH + 3]["label"] = None
    path = parquet(tmp_path / "a.parquet", records, row_group_size=100)
    with pytest.raises(InputError) as error:
        read_file(path, {})
    assert str(error.value) == (
        f"{path}, row {BATCH + 4}: field 'label' is null; expected text. Drop the row or fill it."
    )


def test_texts_of_every_width_and_of_categories_are_texts(tmp_path):
    table = pa.table(
        {
            "text": pa.array(["a", "b"], pa.large_string()),
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "group": pa.array([1, 2], pa.int8()),
        }
    )
    rows = read_file(parquet(tmp_path / "a.parquet", table), {})
    assert [(row.input, row.output, row.group) for _, row in rows] == [("a", "x", "1"), ("b", "y", "2")]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pa.scalar(datetime(2024, 1, 2, tzinfo=UTC)), "a value of type timestamp[us, tz=UTC]"),
        (pa.scalar(1, pa.timestamp("ns")), "a value of type timestamp[ns]"),
        (pa.scalar(b"\x00"), "a value of type binary"),
        (pa.scalar({"a": "b"}), "a dict"),
        (pa.scalar(float("nan")), "no number"),
        (pa.scalar(True), "a bool"),
        (pa.scalar(None), "null"),
    ],
)
def test_a_value_that_is_no_text_is_refused_by_its_type(tmp_path, value, said):
    table = pa.table(
        {"text": pa.array([value.as_py() if value.type != pa.timestamp("ns") else 1], value.type)}
    )
    table = table.append_column("label", pa.array(["x"]))
    with pytest.raises(InputError) as error:
        read_file(parquet(tmp_path / "a.parquet", table), {})
    assert str(error.value).startswith(
        f"{tmp_path / 'a.parquet'}, row 1: field 'text' is {said}; expected text."
    )


def test_columns_that_are_not_asked_for_do_no_harm(tmp_path):
    table = pa.Table.from_pylist(RECORDS).append_column("image", pa.array([b"\xff", None]))
    table = table.append_column("seen", pa.array([1, 2], pa.timestamp("ns")))
    assert len(read_file(parquet(tmp_path / "a.parquet", table), {})) == 2


def test_a_missing_column_names_all_that_are_there(tmp_path):
    path = parquet(tmp_path / "a.parquet", [{"review": "a", "stars": 5, "seen": 1}])
    with pytest.raises(
        InputError, match=r"row 1: has the fields \['review', 'seen', 'stars'\]; expected one of"
    ):
        read_file(path, {})
    [(_, row)] = read_file(path, {"input": "review", "output": "stars"})
    assert (row.input, row.output) == ("a", "5")


def test_wrong_rows_are_told_together_and_the_rest_counted(tmp_path):
    path = parquet(tmp_path / "a.parquet", [{"text": "", "label": "x"}] * (SHOWN + 4))
    with pytest.raises(InputErrors) as error:
        read_file(path, {})
    assert str(error.value.problems()[-1]) == f"{path}: 4 more rows are wrong in the same or other ways."


def test_a_file_that_is_no_parquet_is_refused_by_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    for content in (b"", b"text,label\na,b\n", parquet(tmp_path / "b.parquet", RECORDS).read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"a\.parquet: is no parquet file that can be read \(.*\)\. Write it"
        ):
            read_file(path, {})
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "none.parquet", {})


def test_a_column_named_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["text", "label", "text"]
    )
    with pytest.raises(InputError, match=r"names the column 'text' twice\. Rename"):
        read_file(parquet(tmp_path / "a.parquet", table), {})


def test_a_file_without_rows_is_refused(tmp_path):
    empty = pa.Table.from_pylist(RECORDS).slice(0, 0)
    with pytest.raises(InputError, match=r"there are no rows\."):
        read_file(parquet(tmp_path / "a.parquet", empty), {})


def test_parquet_stands_beside_other_files_of_a_folder_and_alone(tmp_path):
    parquet(tmp_path / "train.parquet", [{"text": f"text {i}", "label": "x"} for i in range(40)])
    (tmp_path / "test.csv").write_text("text,label\nt,x\n")
    splits = read_splits(Source("de", files=split_files(tmp_path)))
    assert len(splits["train"]) + len(splits["valid"]) == 40
    assert [row.input for _, row in splits["test"]] == ["t"]
    alone = read_splits(Source("de", file=tmp_path / "train.parquet"))
    assert sum(map(len, alone.values())) == 40
    parquet(tmp_path / "test.parquet", RECORDS)
    with pytest.raises(InputError, match=r"both test\.csv and test\.parquet are there"):
        split_files(tmp_path)


def test_a_missing_package_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = parquet(tmp_path / "a.parquet", RECORDS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = r"parquet files need pyarrow\. Install it: pip install 'sabir\[hub\]'"
    with pytest.raises(InputError, match=said):
        read_file(path, {})
    with pytest.raises(InputError, match=rf"^data\.de: {said}"):
        Source("de", file=path).check_installed()
    Source("de", file=tmp_path / "a.jsonl").check_installed()
