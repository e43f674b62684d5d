"""Rows as people have them, and how one file is split."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sabir.errors import InputError, InputErrors
from sabir.tasks import Row
from sabir.work.fields import row_of
from sabir.work.sources import (
    SHOWN,
    Forgotten,
    Source,
    find_rows,
    hash_of,
    read_file,
    read_splits,
    split_files,
    without_forgotten,
)


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def written(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def pairs(path, fields=None):
    return [(row.input, row.output) for _, row in read_file(path, fields or {})]


def only(path, fields=None) -> Row:
    [(_, row)] = read_file(path, fields or {})
    return row


@pytest.mark.parametrize(
    "columns", [("input", "output"), ("prompt", "completion"), ("text", "label"), ("instruction", "output")]
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_the_usual_columns_are_understood_in_every_format(tmp_path, columns, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        jsonl(path, [dict(zip(columns, ("ein Text", "gut"), strict=True))])
    else:
        between = "," if suffix == ".csv" else "\t"
        written(path, f"{between.join(columns)}\nein Text{between}gut\n")
    row = only(path)
    assert (row.input, row.output, row.instruction) == ("ein Text", "gut", "")


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path):
    table = written(tmp_path / "a.csv", "\ufefftext,label\r\neins,x\r\nzwei,y\r\n")
    assert pairs(table) == [("eins", "x"), ("zwei", "y")]
    lines = written(
        tmp_path / "a.jsonl", '\ufeff{"text": "eins", "label": "x"}\r\n\r\n{"text": "zwei", "label": "y"}'
    )
    assert pairs(lines) == [("eins", "x"), ("zwei", "y")]


def test_quotes_separators_and_newlines_stand_in_quoted_fields(tmp_path):
    path = written(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",x\nsaid "so",y\n\n"",\n')
    with pytest.raises(InputError, match="line 6"):  # counted where the row starts, in lines of the file
        read_file(path, {})
    path = written(tmp_path / "b.csv", 'text,label\n"one, ""two""\nthree",x\nsaid "so",y\n')
    assert [place.rpartition(", ")[2] for place, _ in read_file(path, {})] == ["line 2", "line 4"]
    assert pairs(path) == [('one, "two"\nthree', "x"), ('said "so"', "y")]


def test_long_texts_are_read_from_tables(tmp_path):
    text = "a" * 200_000  # the csv module stops at 131,072 unless told
    assert pairs(written(tmp_path / "a.csv", f"text,label\n{text},x\n")) == [(text, "x")]


def test_a_table_row_of_another_width_names_its_line(tmp_path):
    path = written(tmp_path / "a.csv", "text,label\na,x\nb, c,y\n")
    with pytest.raises(InputError, match=r"a\.csv, line 3: has 3 fields, and the header has 2\. Quote"):
        read_file(path, {})


def test_an_unclosed_quote_names_its_line(tmp_path):
    path = written(tmp_path / "a.tsv", 'text\tlabel\na\tx\n"b\ty\nc\tz\n')
    with pytest.raises(InputError, match=r"a\.tsv, line 3: is not a valid table row"):
        read_file(path, {})


def test_a_column_named_twice_is_refused(tmp_path):
    path = written(tmp_path / "a.csv", "text,label,text\na,x,b\n")
    with pytest.raises(InputError, match=r"line 1: names the column 'text' twice\. Rename"):
        read_file(path, {})


@pytest.mark.parametrize("empty", ["", None, "   "])
def test_alpaca_rows_with_an_empty_input_ask_the_instruction(tmp_path, empty):
    path = jsonl(
        tmp_path / "a.jsonl",
        [
            {"instruction": "Translate.", "input": "Hund", "output": "dog"},
            {"instruction": "Say hello.", "input": empty, "output": "hello"},
        ],
    )
    rows = [row for _, row in read_file(path, {})]
    assert [(row.instruction, row.input, row.output) for row in rows] == [
        ("Translate.", "Hund", "dog"),
        ("", "Say hello.", "hello"),
    ]


def test_messages_ask_the_last_user_turn_after_what_came_before(tmp_path):
    turns = [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "2+2?"),
        ("assistant", "4"),
    ]
    path = jsonl(tmp_path / "a.jsonl", [{"id": 7, "messages": [{"role": r, "content": c} for r, c in turns]}])
    assert only(path) == Row("7", "2+2?", "4", "Be brief.\nHi\nHello")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hi", "is not a list"),
        ([{"role": "user", "content": "hi"}], "is not a list of at least two turns"),
        ([{"role": "user", "content": "hi"}, {"role": "assistant"}], "a turn without text"),
        (
            [{"role": "user", "content": "hi"}, {"role": "user", "content": "x"}],
            "does not end with a user turn",
        ),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": " "}], "an empty turn"),
    ],
)
def test_messages_that_are_no_dialogue_are_refused_by_sentence(tmp_path, messages, said):
    path = jsonl(tmp_path / "a.jsonl", [{"messages": messages}])
    with pytest.raises(InputError, match=rf"line 1: field 'messages' .*{said}.*\. Expected a list of"):
        read_file(path, {})


@pytest.mark.parametrize(
    ("record", "fields", "expected"),
    [
        ({"review": "a", "stars": "5"}, {"input": "review", "output": "stars"}, ("a", "5")),
        ({"review": "a", "label": "5"}, {"input": "review"}, ("a", "5")),
        ({"text": "a", "stars": "5"}, {"output": "stars"}, ("a", "5")),
        ({"input": "no", "text": "a", "label": "5"}, {"input": "text", "output": "label"}, ("a", "5")),
        ({"instruction": "a", "input": "b", "output": "5"}, {"input": "instruction"}, ("a", "5")),
        ({"messages": "other", "text": "a", "label": "5"}, {"input": "text", "output": "label"}, ("a", "5")),
    ],
)
def test_fields_are_taken_as_mapped(tmp_path, record, fields, expected):
    assert pairs(jsonl(tmp_path / "a.jsonl", [record]), fields) == [expected]


def test_id_and_instruction_may_be_mapped(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"key": 0, "ask": "Sum up.", "text": "a", "label": "b"}])
    assert only(path, {"id": "key", "instruction": "ask"}) == Row("0", "a", "b", "Sum up.")


def test_a_mapped_field_that_is_not_there_is_named(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": "b"}])
    with pytest.raises(InputError) as error:
        read_file(path, {"input": "review"})
    assert str(error.value) == (
        f"{path}: no row has the column 'review' that fields.input names; there are 'text', 'label'. "
        "Write one of them, or take input out of fields."
    )
    with pytest.raises(InputErrors) as errors:
        read_file(path, {"input": "review", "output": "stars"})
    assert len(errors.value.errors) == 2


@pytest.mark.parametrize("name", ["group", "id", "instruction", "domain"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_mistyped_column_is_never_quietly_without_effect(tmp_path, name, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        jsonl(path, [{"text": "a", "label": "b"}, {"text": "c", "label": "b", "document": "d"}])
    else:
        written(path, "text,label,document\na,b,d\n")
    with pytest.raises(InputError) as error:
        read_file(path, {name: "documnt"})
    assert str(error.value) == (
        f"{path}: no row has the column 'documnt' that fields.{name} names; there are 'text', 'label', "
        f"'document'. Write one of them, or take {name} out of fields. Did you mean 'document'?"
    )
    read_file(path, {name: "document"})


def test_choices_in_a_cell_of_a_table_are_refused_with_the_real_reason(tmp_path):
    path = written(tmp_path / "a.csv", "question,choices,answer\nq,a|b,a\n")
    for fields in ({}, {"choices": "choices"}):
        with pytest.raises(InputError) as error:
            read_file(path, fields)
        assert str(error.value) == (
            f"{path}, line 2: field 'choices' is a str; expected a list of texts. "
            "A cell of a table holds no list: write JSONL or parquet."
        )


def test_numbers_are_labels_as_they_are_written(tmp_path):
    assert pairs(written(tmp_path / "a.csv", "text,label\na,0\nb,1\n")) == [("a", "0"), ("b", "1")]
    assert pairs(jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": 0}])) == [("a", "0")]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["a", None], "field 'output' holds null at place 2; expected texts"),
        ([["a"]], "field 'output' holds a list at place 1; expected texts"),
        ({"a": 1}, "field 'output' is a dict; expected text"),
        (None, "field 'output' is null; expected text"),
        (True, "field 'output' is a bool; expected text"),
        ("", "field 'output' is empty"),
        (" \n", "field 'output' is empty"),
        ("\ud83d", "holds half a character (\\ud83d)"),
    ],
)
def test_an_output_that_is_no_text_is_refused_by_sentence(tmp_path, value, said):
    path = jsonl(tmp_path / "a.jsonl", [{"input": "x", "output": value}])
    with pytest.raises(InputError) as error:
        read_file(path, {})
    assert str(error.value).startswith(f"{path}, line 1: {said}")


def test_a_missing_field_names_what_is_there(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"input": "x", "output": "y"}, {"input": "x"}])
    with pytest.raises(InputError, match=r"line 2: has the fields \['input'\]; expected 'output'"):
        read_file(path, {})


@pytest.mark.parametrize("line", ['{"input": "x", ', '{"input": "x", "output": NaN}'])
def test_a_broken_json_line_names_its_number(tmp_path, line):
    path = written(tmp_path / "a.jsonl", '{"input": "x", "output": "y"}\n\n' + line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 3: is not valid JSON \(.*\)\. Mend the line"):
        read_file(path, {})


def test_a_line_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"line 1: is a list; expected an object"):
        read_file(written(tmp_path / "a.jsonl", "[1]\n"), {})


def test_broken_lines_and_wrong_rows_are_told_together(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"input": ""}\n{\n{"input": "x", "output": ""}\n')
    with pytest.raises(InputErrors) as error:
        read_file(path, {})
    assert [problem.where.rpartition(" ")[2] for problem in error.value.problems()] == ["1", "2", "3"]


def test_more_wrong_rows_are_counted_and_not_told(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"input": "x", "output": ""}] * (SHOWN + 7))
    with pytest.raises(InputErrors) as error:
        read_file(path, {})
    problems = error.value.problems()
    assert len(problems) == SHOWN + 1
    assert str(problems[-1]) == f"{path}: 7 more rows are wrong in the same or other ways."


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.csv", ""), ("a.csv", "text,label\n")]
)
def test_an_empty_file_is_refused(tmp_path, name, text):
    with pytest.raises(InputError, match=r"there are no rows\. Add some, or take it out"):
        read_file(written(tmp_path / name, text), {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "a.jsonl", {})


@pytest.mark.parametrize("rows_before", [0, 20_000])
def test_a_file_that_is_not_utf8_names_the_line(tmp_path, rows_before):
    good = b'{"input": "x", "output": "y"}\n' * rows_before
    path = written(tmp_path / "a.jsonl", good + '{"input": "schön", "output": "y"}'.encode("latin-1"))
    with pytest.raises(InputError, match=rf"line {rows_before + 1}: is not UTF-8\. Save the file as UTF-8"):
        read_file(path, {})


# --- lists, choices, groups --------------------------------------------------------------------------------


def test_a_list_of_texts_is_a_list_of_phrases(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"id": 1, "input": "x", "output": ["小さい", "a; b", 7]}])
    assert only(path) == Row("1", "x", "", phrases=("小さい", "a; b", "7"))


def test_in_a_table_phrases_are_one_text(tmp_path):
    row = only(written(tmp_path / "a.csv", "text,label\nx,one; two\n"))
    assert (row.output, row.phrases) == ("one; two", ())


@pytest.mark.parametrize("name", ["choices", "options"])
def test_choices_stand_in_a_list_under_the_usual_names(tmp_path, name):
    row = only(jsonl(tmp_path / "a.jsonl", [{"input": "q", "output": "b", name: ["a", "b", 3]}]))
    assert (row.input, row.output, row.choices) == ("q", "b", ("a", "b", "3"))


def test_choices_and_group_may_be_mapped(tmp_path):
    fields = {"input": "ctx", "output": "label", "choices": "endings", "group": "source_id"}
    record = {"ctx": "He", "label": "1", "endings": ["sits", "runs"], "source_id": 12}
    row = only(jsonl(tmp_path / "a.jsonl", [record]), fields)
    assert (row.output, row.choices, row.group) == ("1", ("sits", "runs"), "12")


ARC = {"text": ["w", "x", "y", "z"], "label": ["1", "2", "3", "4"]}
CSQA = [{"label": label, "text": text} for label, text in zip("ABC", "wxy", strict=True)]


@pytest.mark.parametrize(
    ("choices", "answers", "expected"),
    [
        (ARC, {"answerKey": "1"}, "w"),  # the mark 1, not the place 1
        (ARC, {"answerKey": 2}, "x"),
        (CSQA, {"answerKey": "C"}, "y"),
        ({"text": ["w", "x"], "label": ["B", "A"]}, {"answerKey": "A"}, "x"),
        (["w", "x"], {"answer": 1}, "x"),
        (["w", "x"], {"label": 0}, "w"),
        (["1", "2", "3"], {"answer": 1}, "2"),  # a whole number is a place, also among texts that are digits
        ([1, 2, 3], {"answer": 1}, "1"),  # but among numbers it is one of them
        (["w", "x"], {"answer": 7}, "7"),
        (["w", "x"], {"answer": -1}, "-1"),
        (["w", "x"], {"answer": "B"}, "B"),  # a letter is the task's to read
        (["w", "x"], {"output": "x", "answer": 0}, "x"),
    ],
)
def test_the_right_choice_is_found_by_mark_by_place_or_as_text(tmp_path, choices, answers, expected):
    record = {"question": "q", "choices": choices, **answers}
    row = only(jsonl(tmp_path / "a.jsonl", [record]))
    assert (row.input, row.output) == ("q", expected)


def test_a_question_comes_before_a_text_and_an_instruction_beside_choices(tmp_path):
    record = {"instruction": "Choose.", "question": "q", "text": "t", "choices": ["a", "b"], "answer": "a"}
    row = only(jsonl(tmp_path / "a.jsonl", [record]))
    assert (row.instruction, row.input, row.output) == ("Choose.", "q", "a")


def test_without_choices_a_question_and_an_answer_are_not_guessed_at(tmp_path):
    with pytest.raises(InputError, match=r"has the fields \['answer', 'question'\]; expected one of"):
        read_file(jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}]), {})


@pytest.mark.parametrize(
    ("record", "fields", "said"),
    [
        ({"question": "q", "choices": ["a", None], "answer": 0}, {}, "holds null at place 2; expected texts"),
        (
            {"question": "q", "choices": {"text": ["a"], "label": ["A", "B"]}, "answer": 0},
            {},
            "1 texts and 2",
        ),
        (
            {"question": "q", "ends": "a, b", "answer": 0},
            {"choices": "ends"},
            "'ends' is a str; expected a list",
        ),
        ({"choices": ["a", "b"], "answer": 0}, {}, "expected one of input, question"),
        ({"question": "q", "choices": ["a", "b"]}, {}, "and one of output, completion, answer"),
        ({"question": "q", "choices": ["a", "b"], "answerKey": ""}, {}, "field 'answerKey' is empty"),
    ],
)
def test_rows_whose_choices_are_none_are_refused_by_sentence(tmp_path, record, fields, said):
    path = jsonl(tmp_path / "a.jsonl", [record])
    with pytest.raises(InputError) as error:
        read_file(path, fields)
    assert str(error.value).startswith(f"{path}, line 1: ")
    assert said in str(error.value)


def test_one_row_without_its_mapped_choices_is_refused_by_its_line(tmp_path):
    whole = {"question": "q", "ends": ["a", "b"], "answer": 0}
    path = jsonl(tmp_path / "a.jsonl", [whole, {"question": "q", "answer": 0}])
    with pytest.raises(InputError, match=r"line 2: field 'ends' is missing; expected a list"):
        read_file(path, {"choices": "ends"})


def test_a_column_of_that_name_that_holds_no_list_of_texts_is_somebody_elses(tmp_path):
    records = [
        {"text": "a", "label": "b", "options": options} for options in ("x", None, {"a": 1}, [{"b": 2}])
    ]
    assert all(row.choices == () for _, row in read_file(jsonl(tmp_path / "a.jsonl", records), {}))


def test_a_group_is_taken_from_its_column(tmp_path):
    records = [{"text": "a", "label": "x", "group": "doc 7"}, {"text": "b", "label": "x", "group": None}]
    rows = read_file(jsonl(tmp_path / "a.jsonl", records), {})
    assert [row.group for _, row in rows] == ["doc 7", ""]


def test_half_a_character_in_a_choice_is_refused(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"question": "q", "choices": ["a", "\ud83d"], "answer": 0}])
    with pytest.raises(InputError, match="holds half a character"):
        read_file(path, {})


# --- splits ------------------------------------------------------------------------------------------------


def split_texts(source):
    return {split: [row.input for _, row in rows] for split, rows in read_splits(source).items()}


def labelled(count):
    return [{"text": f"text {i}", "label": "x"} for i in range(count)]


def test_one_file_is_split_near_eight_to_one_to_one(tmp_path):
    splits = split_texts(Source("de", file=jsonl(tmp_path / "a.jsonl", labelled(4000))))
    # three standard deviations of a binomial with p = 0.1 and n = 4000 are 57
    assert 343 < len(splits["valid"]) < 457
    assert 343 < len(splits["test"]) < 457
    assert sum(map(len, splits.values())) == 4000


def test_a_row_stays_in_its_split_as_others_are_added(tmp_path):
    before = split_texts(Source("de", file=jsonl(tmp_path / "a.jsonl", labelled(200))))
    after = split_texts(Source("de", file=jsonl(tmp_path / "b.jsonl", labelled(400)[::-1])))
    for split, texts in before.items():
        assert set(texts) <= set(after[split])


def test_equal_texts_are_in_one_split_whatever_their_label(tmp_path):
    rows = [{"text": f"text {i}", "label": label} for label in "xyz" for i in range(60)]
    splits = split_texts(Source("de", file=jsonl(tmp_path / "a.jsonl", rows)))
    for one in splits:
        for other in splits:
            assert one == other or not set(splits[one]) & set(splits[other])


def test_a_tenth_of_train_becomes_valid_where_there_is_none(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", labelled(2000))
    test = jsonl(tmp_path / "test.jsonl", [{"text": "t", "label": "x"}])
    splits = split_texts(Source("de", files={"train": train, "test": test}))
    assert 160 < len(splits["valid"]) < 240
    assert len(splits["train"]) + len(splits["valid"]) == 2000
    assert splits["test"] == ["t"]
    own = jsonl(tmp_path / "valid.jsonl", [{"text": "v", "label": "x"}])
    splits = split_texts(Source("de", files={"train": train, "valid": own, "test": test}))
    assert (len(splits["train"]), splits["valid"]) == (2000, ["v"])


def test_what_is_wrong_in_several_files_is_told_at_once(tmp_path):
    files = {split: written(tmp_path / f"{split}.jsonl", "{") for split in ("train", "valid", "test")}
    with pytest.raises(InputErrors) as error:
        read_splits(Source("de", files=files))
    assert [problem.where for problem in error.value.problems()] == [
        f"{path}, line 1" for path in files.values()
    ]


def test_a_source_goes_through_json(tmp_path):
    for source in (
        Source("de", files={"train": tmp_path / "a.csv"}, fields={"input": "x"}),
        Source("ja", file=tmp_path / "b.jsonl"),
        Source(
            "ja", file=tmp_path / "b.jsonl", forgotten=(Forgotten("a" * 64, None), Forgotten(None, "b" * 64))
        ),
    ):
        assert Source.from_json(json.loads(json.dumps(source.to_json()))) == source


def test_a_folders_splits_are_found_by_name(tmp_path):
    for name in ("train.csv", "test.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    assert split_files(tmp_path) == {"train": tmp_path / "train.csv", "test": tmp_path / "test.jsonl"}
    (tmp_path / "train.tsv").touch()
    with pytest.raises(InputError, match=r"both train\.csv and train\.tsv are there\. Keep one"):
        split_files(tmp_path)


# --- forgotten rows ----------------------------------------------------------------------------------------


def forgetting(path, *forgotten):
    return Source("de", file=path, forgotten=forgotten)


def test_rows_are_forgotten_by_id_or_by_text_in_every_split(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"id": f"n{i}", **row} for i, row in enumerate(labelled(200))])
    whole = read_splits(Source("de", file=path))
    by_id = [Forgotten(hash_of(f"n{i}"), None) for i in range(60)]
    by_text = [Forgotten(None, hash_of(f"text {i}")) for i in range(40, 100)]
    kept, count = without_forgotten(forgetting(path, *by_id, *by_text), whole)
    assert count == 100
    for split, rows in whole.items():
        assert kept[split] == [(place, row) for place, row in rows if int(row.id[1:]) >= 100]
        assert len(kept[split]) < len(rows)


def test_nothing_forgotten_is_nothing_left_out(tmp_path):
    whole = read_splits(Source("de", file=jsonl(tmp_path / "a.jsonl", labelled(20))))
    assert without_forgotten(Source("de"), whole) == (whole, 0)
    assert without_forgotten(forgetting(tmp_path, Forgotten(hash_of("no such id"), None)), whole) == (
        whole,
        0,
    )


def test_a_row_without_an_id_is_forgotten_by_the_one_it_is_called_by(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", labelled(20))
    rows = [row for rows in read_splits(Source("de", file=path)).values() for _, row in rows]
    kept, count = without_forgotten(
        forgetting(path, Forgotten(hash_of(rows[3].id), None)), read_splits(Source("de", file=path))
    )
    assert count == 1
    assert rows[3] not in [row for rows in kept.values() for _, row in rows]


def test_rows_are_found_by_id_and_by_text_with_their_places(tmp_path):
    files = {
        "train": jsonl(tmp_path / "train.jsonl", [{"id": "7", "text": "a", "label": "x"}, *labelled(3)]),
        "valid": jsonl(tmp_path / "valid.jsonl", [{"id": "8", "text": "a", "label": "y"}]),
        "test": jsonl(tmp_path / "test.jsonl", [{"id": "9", "text": "b", "label": "x"}]),
    }
    source = Source("de", files=files)
    found = find_rows(source, ["a", "9"])
    assert [(split, place.rpartition(", ")[2], row.id) for split, place, row in found] == [
        ("train", "line 1", "7"),
        ("valid", "line 1", "8"),
        ("test", "line 1", "9"),
    ]
    assert find_rows(source, ["text"]) == []  # a part of a text is no text
    assert find_rows(replace(source, forgotten=(Forgotten.of(found[0][2]),)), ["a", "9"]) == found


def test_the_real_reviews_are_read_whole(shared):
    files = sorted((shared / "data" / "sentiment" / "reviews").rglob("*.jsonl"))
    assert files
    for path in files:
        assert len(read_file(path, {})) == sum(1 for line in path.open("rb") if line.strip())


def test_the_real_questions_keep_their_choices(shared):
    for path in sorted((shared / "data" / "commonsense" / "mixed").rglob("*.jsonl")):
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        rows = [row for _, row in read_file(path, {})]
        assert [row.choices for row in rows] == [tuple(record["choices"]) for record in records]
        assert [row.output for row in rows] == [record["output"] for record in records]
        places = [{k: v for k, v in record.items() if k != "output"} for record in records]
        by_place = [row_of(record, {}, "").output for record in places]  # their answer is a place
        assert by_place == [record["output"] for record in records]


def test_the_real_keyphrases_are_lists(shared):
    for path in sorted((shared / "data" / "keyphrases").rglob("*.jsonl")):
        listed = [json.loads(line)["output"] for line in path.read_text("utf-8").splitlines()]
        assert [list(row.phrases) for _, row in read_file(path, {})] == listed
