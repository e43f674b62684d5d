"""Texts of production are read without their labels; what is wrong with a file is a sentence with its line."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabir.errors import InputError, InputErrors, SabirError
from sabir.tasks import make_task
from sabir.work.prepare import read_examples
from sabir.work.production import SPLIT, digest_of, prepare, read_production, rendered
from sabir.work.sources import SHOWN

FIELDS = {"en": {}, "de": {}, "pt-BR": {}}
TASK = make_task("classification", {"labels": ("good", "bad"), "instruction": "Is it good?"})
CHOICE = make_task("choice", {})


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    """What is read of these records."""

    def call(records, fields=FIELDS, **more):
        return read_production(jsonl(tmp_path / "production.jsonl", records), fields=fields, **more)

    return call


@pytest.fixture
def refused(read, tmp_path):
    """The sentences with which these records are refused, without the folder."""

    def call(records, **more) -> list[str]:
        with pytest.raises(InputError) as error:
            read(records, **more)
        return [str(one).removeprefix(f"{tmp_path}/") for one in error.value.problems()]

    return call


def texts(count, language="de", **more):
    return [{"input": f"text {i}", "language": language, **more} for i in range(count)]


def test_a_row_is_a_text_with_its_language_domain_time_and_traffic(read):
    given = {"id": 7, "input": "Guten Tag", "language": "de", "domain": "books", "group": "g", "weight": 2.5}
    [one] = read([{**given, "time": "2026-11-21T01:00:00+02:00"}]).rows["de"]
    assert (one.row.id, one.row.input, one.row.domain, one.row.group) == ("7", "Guten Tag", "books", "g")
    assert one.row.output == ""
    assert one.time == datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert one.weight == 2.5
    assert one.place.endswith("production.jsonl, line 1")


def test_the_same_rows_are_read_from_every_kind_of_file(tmp_path):
    records = [
        {
            "id": f"{i}",
            "input": f"täxt, {i}",
            "language": "de",
            "time": "2026-11-21",
            "weight": 0.5,
            "domain": "a",
        }
        for i in range(3)
    ]
    for separator, suffix in ((",", "csv"), ("\t", "tsv")):
        lines = [separator.join(records[0])]
        lines += [separator.join(f'"{value}"' for value in one.values()) for one in records]
        (tmp_path / f"a.{suffix}").write_text("\n".join(lines), encoding="utf-8")
    jsonl(tmp_path / "a.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    found = [read_production(tmp_path / f"a.{s}", fields=FIELDS) for s in ("jsonl", "csv", "tsv", "parquet")]
    assert len({one.digest for one in found}) == 1
    rows = [[(row.row, row.time, row.weight, row.question) for row in one.rows["de"]] for one in found]
    assert rows.count(rows[0]) == 4
    assert len(rows[0]) == 3


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ns"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("s"), pa.date32(), pa.date64()],
)
def test_times_that_parquet_keeps_as_such_are_times(tmp_path, kind):
    values = (
        [date(2026, 11, 21), None] if pa.types.is_date(kind) else [datetime(2026, 11, 21, tzinfo=UTC), None]
    )
    table = pa.table({"input": ["a", "b"], "language": ["de", "de"], "time": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = read_production(tmp_path / "a.parquet", fields=FIELDS).rows["de"]
    assert [one.time for one in rows] == [datetime(2026, 11, 21, tzinfo=UTC), None]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("20261121", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21 10:30", datetime(2026, 11, 21, 10, 30, tzinfo=UTC)),
        ("2026-11-21T10:30:00Z", datetime(2026, 11, 21, 10, 30, tzinfo=UTC)),
        ("2026-11-21T10:30:00.5-08:00", datetime(2026, 11, 21, 18, 30, 0, 500_000, tzinfo=UTC)),
        (1_795_257_000, datetime(2026, 11, 21, 10, 30, tzinfo=UTC)),
        ("1795257000", datetime(2026, 11, 21, 10, 30, tzinfo=UTC)),
        (1_795_257_000.5, datetime(2026, 11, 21, 10, 30, 0, 500_000, tzinfo=UTC)),
        ("", None),
        (None, None),
    ],
)
def test_times_are_iso_8601_or_seconds_and_utc_where_they_name_no_zone(read, written, meant):
    assert read(texts(1, time=written)).rows["de"][0].time == meant


@pytest.mark.parametrize(
    ("written", "fix"),
    [
        ("yesterday", "2026-11-21T10:30:00Z"),
        ("21.11.2026", "2026-11-21T10:30:00Z"),
        ("2026-11-31", "2026-11-21T10:30:00Z"),
        (1_795_257_000_000, "milliseconds"),
        ("1795257000000", "milliseconds"),
        (20261121, "as a text"),
        (0, "2026-11-21T10:30:00Z"),
        (-1, "2026-11-21T10:30:00Z"),
        (True, "2026-11-21T10:30:00Z"),
        ([2026, 11, 21], "2026-11-21T10:30:00Z"),
        (1e300, "2026-11-21T10:30:00Z"),
    ],
)
def test_what_is_no_time_is_refused_with_its_line(refused, written, fix):
    [said] = refused(texts(1, time=written))
    assert said.startswith(f"production.jsonl, line 1: field 'time' is {written!r}, which is no time.")
    assert fix in said


@pytest.mark.parametrize("written", [-1, -0.5, "much", True, [1], "inf", "nan"])
def test_traffic_is_a_number_that_is_not_negative(refused, written):
    [said] = refused(texts(1, weight=written))
    assert said.startswith(
        f"production.jsonl, line 1: field 'weight' is {written!r}; expected a number from 0 on."
    )


def test_a_text_of_no_traffic_stays_but_not_all_may_be_of_none(read, refused):
    rows = read([*texts(1, weight=0), {"input": "x", "language": "de"}]).rows["de"]
    assert [one.weight for one in rows] == [0.0, 1.0]
    assert refused(texts(2, weight=0)) == [
        "production.jsonl: every weight is 0: no text counts. Give some of them a weight."
    ]


def test_a_language_may_be_spelled_otherwise_and_one_that_is_unseen_is_kept_apart(read):
    languages = ("DE", "pt_br", "es", "ES", "de")
    found = read([{"input": f"t{i}", "language": one} for i, one in enumerate(languages)])
    assert {name: len(rows) for name, rows in found.rows.items()} == {"de": 2, "pt-BR": 1, "es": 2}
    assert found.unseen == ("es",)
    [warning] = found.warnings
    assert "2 texts are in 'es', a language that no adapter was trained on" in warning


def test_a_language_like_one_of_the_project_is_asked_about(read):
    [warning] = read([{"input": "t", "language": "ptt-BR"}]).warnings
    assert "Did you mean 'pt-BR'?" in warning


@pytest.mark.parametrize("written", ["", "  ", None])
def test_a_row_without_a_language_is_refused(refused, written):
    [said] = refused([{"input": "t", "language": written}])
    assert said == "production.jsonl, line 1: there is no language. Every row names its own, as `language`."
    [said] = refused([{"input": "t", "lang": "de"}])
    assert said.startswith(
        "production.jsonl, line 1: there is no language; the row has the fields ['input', 'lang']."
    )


@pytest.mark.parametrize("written", ["macro", "combined", "a/b", "../x", "d", 5, "x" * 40, "日本語", "en us"])
def test_what_names_no_language_is_refused(refused, written):
    [said] = refused([{"input": "t", "language": written}])
    assert f"{written!r} names no language." in said


def test_labels_by_accident_are_not_looked_at_and_said_once(read):
    plain = read(texts(3))
    found = read([{**one, "label": f"nonsense {i}", "output": [i]} for i, one in enumerate(texts(3))])
    assert found.digest == plain.digest
    assert all(one.row.output == "" and one.row.phrases == () for one in found.rows["de"])
    [warning] = found.warnings
    assert "'output', 'label' looks like labels, and is not looked at." in warning
    assert "--labels FILE" in warning


def test_the_column_that_the_config_calls_output_is_a_label_too(read):
    fields = {"de": {"input": "body", "output": "stars"}}
    found = read([{"body": "t", "stars": 5, "language": "de"}], fields)
    assert found.with_labels == ("stars",)
    assert found.rows["de"][0].row.input == "t"


def test_the_column_of_the_text_is_no_label_whatever_its_name(read):
    found = read([{"answer": "t", "language": "de"}], {"de": {"input": "answer"}})
    assert found.warnings == []


def test_each_language_is_read_by_its_own_fields(read):
    fields = {"de": {"input": "rezension", "domain": "sparte"}, "en": {"input": "review", "id": "key"}}
    rows = [
        {"rezension": "gut", "sparte": "Buch", "review": "other", "language": "de"},
        {"review": "good", "key": 5, "language": "en"},
        {"input": "plain", "language": "en"},
        {"review": "bueno", "language": "es"},
    ]
    found = read(rows, fields)
    assert [one.row.input for one in found.every] == ["gut", "good", "plain", "bueno"]
    assert found.rows["de"][0].row.domain == "Buch"
    assert found.rows["en"][0].row.id == "5"


def test_texts_go_by_the_usual_names(read):
    records = [
        {"text": "a"},
        {"prompt": "b"},
        {"question": "c", "choices": ["x", "y"]},
        {"instruction": "d"},
        {"instruction": "e", "input": ""},
        {"instruction": "be short", "input": "f"},
        {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "g"}]},
        {"messages": [{"role": "user", "content": "h"}, {"role": "assistant", "content": "an answer"}]},
    ]
    rows = read([{**one, "language": "de"} for one in records]).rows["de"]
    assert [one.row.input for one in rows] == list("abcdefgh")
    assert [one.row.instruction for one in rows] == ["", "", "", "", "", "be short", "be kind", ""]
    assert rows[2].row.choices == ("x", "y")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"input": "  "}, "field 'input' is empty."),
        ({"input": None}, "field 'input' is null; expected text."),
        ({"input": ["a"]}, "field 'input' is a list; expected text."),
        ({"body": "t"}, "has the fields ['body', 'language']; expected one of input, prompt, text"),
        ({"input": "t", "domain": {}}, "field 'domain' is a dict; expected text."),
        ({"input": "\ud83d"}, "holds half a character (\\ud83d)."),
        ({"messages": []}, "field 'messages' is not a list of turns."),
        ({"messages": [{"role": "assistant", "content": "t"}]}, "does not end with what a user says."),
        ({"messages": [{"role": "user"}]}, "field 'messages' holds a turn without text."),
        ({"input": "t", "choices": "a, b"}, None),
    ],
)
def test_what_asks_nothing_is_refused_with_its_line(read, refused, record, said):
    given = [*texts(1), {**record, "language": "de"}]
    if said is None:
        assert read(given).rows["de"][1].row.choices == ()  # somebody else's column
        return
    [found] = refused(given)
    assert found.startswith("production.jsonl, line 2: ")
    assert said in found


def test_some_five_wrong_rows_are_told_and_the_others_counted(refused, tmp_path):
    wrong = [{"input": "", "language": "de"}] * (SHOWN + 2)
    said = refused([*texts(3), *wrong])
    assert [one.partition(":")[0] for one in said[:SHOWN]] == [
        f"production.jsonl, line {4 + i}" for i in range(SHOWN)
    ]
    assert said[SHOWN:] == ["production.jsonl: 2 more rows are wrong in the same or other ways."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"input": "a", "language": "de"}\n{"input": \n', "line 2: is not valid JSON"),
        ('["a"]\n', "line 1: is a list; expected an object."),
        ("", "there are no rows."),
        ("\n\n", "there are no rows."),
        (b'{"input": "\xff", "language": "de"}\n', "line 1: is not UTF-8."),
    ],
)
def test_a_broken_file_is_a_sentence(tmp_path, text, said):
    path = tmp_path / "production.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"production\.jsonl") as error:
        read_production(path, fields=FIELDS)
    assert said in str(error.value)


def test_a_file_that_is_none_is_refused_by_its_name(tmp_path):
    with pytest.raises(InputError, match=r"there is no such file"):
        read_production(tmp_path / "none.jsonl", fields=FIELDS)
    with pytest.raises(InputError, match=r"does not end in \.jsonl, \.csv, \.tsv or \.parquet"):
        read_production(tmp_path / "a.txt", fields=FIELDS)
    with pytest.raises(InputError, match=r"it is \.jsonl: rename it"):
        read_production(tmp_path / "a.json", fields=FIELDS)
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="is no parquet file"):
        read_production(tmp_path / "b.parquet", fields=FIELDS)


def test_texts_that_ask_the_same_count_once_with_their_traffic(read):
    records = [
        {"id": 2, "input": "same", "language": "de", "weight": 3},
        {"id": 1, "input": "same", "language": "de"},
        {"id": 3, "input": "same", "language": "de", "domain": "books"},
        {"id": 1, "input": "same", "language": "en"},
        {"id": 4, "input": "same", "language": "de", "instruction": "Be short."},
    ]
    found = read(records)
    assert [(one.row.id, one.weight, one.others) for one in found.rows["de"]] == [
        ("1", 4.0, ("2",)),
        ("3", 1.0, ()),
        ("4", 1.0, ()),
    ]
    assert [one.row.id for one in found.rows["en"]] == ["1"]
    assert found.duplicates == 1
    assert "1 text is the same as another of its language and domain: counted once" in found.warnings[0]


def test_choices_are_part_of_what_is_asked(read):
    rows = [{"question": "q", "choices": choices, "language": "de"} for choices in (["a", "b"], ["a", "c"])]
    assert len(read(rows).rows["de"]) == 2


def test_one_id_for_two_texts_is_refused(refused, read):
    rows = [{"id": 1, "input": text, "language": "de"} for text in ("a", "b")]
    [said] = refused(rows)
    assert said == (
        "production.jsonl, line 2: the id '1' is that of another text in line 1. "
        "Give every text of a language an id of its own, or none."
    )
    assert len(list(read([rows[0], {**rows[1], "language": "en"}]).every)) == 2, "a translation may share it"


def test_ids_are_unlike_each_other_where_a_text_comes_again(read):
    rows = [
        {"id": 1, "input": "a", "language": "de", "domain": domain, "time": time}
        for domain in ("x", "y")
        for time in ("2026-11-02", "2026-11-09")
    ]
    found = read(rows, window="week").rows["de"]
    assert [one.row.id for one in found] == ["1@x/2026-W45", "1@x/2026-W46", "1@y/2026-W45", "1@y/2026-W46"]
    assert all(one.others == ("1",) for one in found)
    assert len({one.question for one in found}) == 1


def test_the_digest_is_of_the_content_whatever_the_order_and_the_ids(read):
    rows = [*texts(20), *texts(20, "en", domain="a", weight=2), *texts(3)]
    digest = read(rows).digest
    shuffled = [{**one, "id": f"r{i}"} for i, one in enumerate(random.Random(0).sample(rows, len(rows)))]
    assert read(shuffled).digest == digest
    assert read(rows, window=10).digest == digest
    assert read(rows[:-1]).digest != digest
    assert read([*rows[:-1], {**rows[-1], "weight": 2}]).digest != digest
    assert read([*rows[:-1], {**rows[-1], "domain": "b"}]).digest != digest


def test_each_language_is_parted_by_itself_and_its_small_windows_are_known(read):
    times = [{"time": f"2026-11-{day:02}"} for day in range(1, 31)]
    german = [{"input": f"d{i}", "language": "de", **times[i % 30]} for i in range(600)]
    english = [{"input": f"e{i}", "language": "en", **times[i]} for i in range(25)]
    found = read([*german, *english], window=100)
    assert {one.window for one in found.rows["de"]} == {f"000{i}" for i in range(1, 7)}
    assert {one.window for one in found.rows["en"]} == {"0001"}
    assert found.small == {}
    months = read([*german, *english], window="week")
    assert {one.window for one in months.rows["de"]} == {f"2026-W{week}" for week in (44, 45, 46, 47, 48, 49)}
    assert months.small["en"] == tuple(f"2026-W{week}" for week in (44, 45, 46, 47, 48))


def test_texts_without_a_time_cannot_be_parted_by_time(refused, read):
    rows = [*texts(2, time="2026-11-21"), {"input": "x", "language": "de"}, {"input": "y", "language": "de"}]
    [said] = refused(rows, window="week")
    assert said == (
        "production.jsonl, line 3: has no `time`, nor have 1 others; texts are to be parted by the week. "
        "Give every text one, or part by number: --window 500."
    )
    assert len(read(rows, window=2).rows["de"]) == 4


def test_one_row_is_enough(read):
    for window in (None, "day", 500):
        found = read(texts(1, time="2026-11-21"), window=window)
        assert len(found.rows["de"]) == 1
        assert found.small == ({} if window is None else {"de": (found.rows["de"][0].window,)})


# --- the step --------------------------------------------------------------------------------------------


def work(production, language, task, out):
    told = json.loads(json.dumps({"name": task[0], "settings": task[1]}))
    rows = rendered(production.rows[language], make_task(*task))
    out.mkdir()
    return SimpleNamespace(
        name=f"production/{language}",
        settings={"rows": digest_of(rows), "language": language},
        args=production.step_args(language, told),
        out=out,
    )


def test_the_step_writes_what_is_asked_as_test_rows(read, tmp_path):
    rows = [
        {"id": 1, "text": "a", "language": "de", "domain": "books", "group": "g", "time": "2026-11-02"},
        {"id": 1, "text": "a", "language": "de", "domain": "books", "group": "g", "time": "2026-11-09"},
        {"id": 2, "text": "b", "language": "en", "time": "2026-11-09"},
    ]
    task = ("classification", {"labels": ("good", "bad"), "instruction": "Is it good?"})
    production = read(rows, window="week")
    given = work(production, "de", task, tmp_path / "out")
    assert json.loads(json.dumps(given.args)) == given.args
    [(name, outcome)] = prepare([given])
    assert (name, outcome) == ("production/de", {"result": {"rows": {"test": 2}}})
    found = read_examples(given.out, SPLIT)
    assert sorted(one.id for one in found) == sorted(one.row.id for one in production.rows["de"])
    assert {(one.prompt.text, one.target, one.group, one.domain) for one in found} == {
        ("Is it good?\n\na\n\nAnswer:", "", "g", "books")
    }


def test_choices_are_what_the_model_chooses_among(read):
    rows = read([{"question": "q", "choices": ["x", "y"], "language": "de"}]).rows["de"]
    assert rendered(rows, CHOICE)[0].options == ("x", "y")


def test_a_row_that_the_task_cannot_ask_is_refused_with_its_line(read):
    rows = read(texts(SHOWN + 1)).rows["de"]
    with pytest.raises(InputErrors) as error:
        rendered(rows, CHOICE)
    said = [str(one).rpartition("/")[2] for one in error.value.problems()]
    assert said[0].startswith("production.jsonl, line 1: there are no choices;")
    assert said[-1].startswith("production.jsonl: 1 more row is wrong")


def test_what_is_asked_identifies_the_step_whatever_the_order_of_the_file(read):
    rows = [{"id": i, "input": f"t{i}", "language": "de"} for i in range(9)]

    def digest(records, task=TASK):
        return digest_of(rendered(read(records).rows["de"], task))

    plain = digest(rows)
    assert digest(rows[::-1]) == plain
    assert digest([{**one, "weight": 2, "time": "2026-11-21"} for one in rows]) == plain, (
        "answers are the same"
    )
    assert digest([{**rows[0], "domain": "d"}, *rows[1:]]) != plain
    assert digest([{**rows[0], "input": "other"}, *rows[1:]]) != plain
    assert digest(rows, make_task("classification", {"labels": ("good", "bad")})) != plain


def test_a_file_that_changed_meanwhile_is_not_answered(read, tmp_path):
    task = ("classification", {"labels": ("good", "bad")})
    given = work(read(texts(3)), "de", task, tmp_path / "out")
    jsonl(tmp_path / "production.jsonl", texts(4))
    with pytest.raises(SabirError, match=r"the file changed while the run began\. Run again\."):
        list(prepare([given]))
