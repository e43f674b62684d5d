"""A file that a person fills in comes back as labels of the texts it was written for."""

from __future__ import annotations

import csv
import json

import pytest

from sabir.errors import InputError
from sabir.tasks import make_task
from sabir.work.labelling import read_labels, write_choice
from sabir.work.production import read_production
from sabir.work.sources import SHOWN

FIELDS = {"en": {}, "de": {"input": "rezension", "output": "stern", "id": "nr"}}
TASK = make_task("classification", {"labels": ("good", "bad")})
GERMAN = make_task("classification", {"labels": ("gut", "schlecht")})
TASKS = {"en": TASK, "de": GERMAN}
TEXTS = [
    *({"id": i, "input": f"text {i}", "language": "en", "domain": "books"} for i in range(4)),
    *({"nr": i, "rezension": f"Text {i}", "language": "de"} for i in range(4)),
    {"input": "same", "language": "es"},
]


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def production(tmp_path):
    return read_production(jsonl(tmp_path / "production.jsonl", TEXTS), fields=FIELDS)


@pytest.fixture
def labelled(production, tmp_path):
    """The labels in these records."""

    def call(records, of=None, tasks=TASKS, task=TASK):
        path = jsonl(tmp_path / "labels.jsonl", records)
        return read_labels(path, of or production, tasks=tasks, task=task)

    return call


@pytest.fixture
def refused(labelled, tmp_path):
    def call(records, **more) -> list[str]:
        with pytest.raises(InputError) as error:
            labelled(records, **more)
        return [str(one).removeprefix(f"{tmp_path}/") for one in error.value.problems()]

    return call


def by_text(labels, production):
    """(target, inclusion) by text, of those that have a label."""
    found = ((one.row.input, labels.of(one)) for one in production.every)
    return {text: (label.target, label.inclusion) for text, label in found if label is not None}


def test_texts_are_found_by_id_and_by_what_they_say(labelled, production):
    labels = labelled(
        [
            {"id": 0, "language": "en", "output": "good"},
            {"id": "1", "language": "en", "label": "bad"},
            {"input": "text 2", "output": " good "},
            {"nr": 3, "language": "de", "stern": "gut"},
            {"rezension": "Text 1", "language": "de", "stern": "schlecht"},
            {"input": "same", "language": "ES", "output": "bad"},
        ]
    )
    assert by_text(labels, production) == {
        "text 0": ("good", None),
        "text 1": ("bad", None),
        "text 2": ("good", None),
        "Text 3": ("gut", None),
        "Text 1": ("schlecht", None),
        "same": ("bad", None),
    }
    assert labels.empty == 0
    assert labels.warnings == []


def test_an_id_that_is_the_annotators_own_is_passed_over_where_the_text_is_there(labelled, production):
    labels = labelled([{"id": "task 5", "input": "text 2", "output": "good"}])
    assert by_text(labels, production) == {"text 2": ("good", None)}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_chosen_and_filled_in_comes_back(production, tmp_path, form):
    path = tmp_path / "to-label.jsonl"
    chosen = [(one, 0.25 * (1 + place % 4)) for place, one in enumerate(production.every)]
    write_choice(path, chosen)
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert list(records[0]) == ["id", "language", "domain", "input", "inclusion", "output"]
    assert {one["output"] for one in records} == {""}
    answers = {"en": "good", "de": "schlecht", "es": "bad"}
    filled = [{**one, "output": answers[one["language"]] if at % 3 else ""} for at, one in enumerate(records)]
    if form == "csv":
        path = tmp_path / "filled.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(filled[0]))
            writer.writeheader()
            writer.writerows(filled)
    else:
        jsonl(path, filled)
    labels = read_labels(path, production, tasks=TASKS, task=TASK)
    assert by_text(labels, production) == {
        one.row.input: (answers[one.language], inclusion)
        for at, (one, inclusion) in enumerate(chosen)
        if at % 3
    }
    assert labels.empty == 3
    assert "3 rows have no answer and count as not labelled" in labels.warnings[0]


def test_choices_and_instructions_come_back_too(tmp_path):
    task = make_task("choice", {})
    rows = [
        {"question": "q", "choices": ["x", "y"], "instruction": "Think.", "language": "en"},
        {"question": "q", "choices": ["x", "z"], "language": "en"},
    ]
    production = read_production(jsonl(tmp_path / "production.jsonl", rows), fields=FIELDS)
    path = tmp_path / "to-label.jsonl"
    write_choice(path, [(one, 1.0) for one in production.every])
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for names in (("output", "id"), ("output", "input", "instruction", "choices", "language")):
        answers = [{key: one[key] for key in names if key in one} for one in records]
        jsonl(path, [{**answers[0], "output": "y"}, {**answers[1], "output": 1}])
        labels = read_labels(path, production, tasks={}, task=task)
        assert [labels.of(one).target for one in production.every] == ["y", "z"]


def test_lists_of_phrases_are_labels(tmp_path):
    task = make_task("keyphrases", {})
    production = read_production(
        jsonl(tmp_path / "production.jsonl", [{"input": t, "language": "en"} for t in "abc"]), fields=FIELDS
    )
    given = [
        {"input": "a", "output": ["x", "y"]},
        {"input": "b", "output": "x; z"},
        {"input": "c", "output": []},
    ]
    labels = read_labels(jsonl(tmp_path / "labels.jsonl", given), production, tasks={}, task=task)
    assert [labels.of(one) and labels.of(one).target for one in production.every] == ["x; y", "x; z", None]


def test_a_label_holds_for_every_row_that_asks_the_same(labelled, tmp_path):
    rows = [
        {"id": i, "input": "same", "language": "en", "time": f"2026-11-{day:02}"}
        for i, day in enumerate((2, 3, 9))
    ]
    production = read_production(jsonl(tmp_path / "again.jsonl", rows), fields=FIELDS, window="week")
    assert [(one.row.id, one.others) for one in production.every] == [("0", ("1",)), ("2", ())]
    for identity in range(3):
        labels = labelled([{"id": identity, "output": "good"}], of=production)
        assert [labels.of(one).target for one in production.every] == ["good", "good"]


def test_rows_that_match_no_text_are_refused_with_their_number(refused):
    said = refused(
        [
            {"id": 0, "language": "en", "output": "good"},
            {"id": 17, "language": "en", "output": "good"},
            {"input": "unheard of", "output": "good"},
            {"id": 0, "language": "fr", "output": "good"},
        ]
    )
    assert said == [
        "labels.jsonl: 3 of 4 rows match no text of production.jsonl (first: line 2). "
        "Give labels of its texts, by `id` or `input`."
    ]


def test_two_labels_for_one_text_must_agree(labelled, refused, production):
    twice = [{"id": 0, "language": "en", "output": "good"}, {"input": "text 0", "output": "good"}]
    assert by_text(labelled(twice), production) == {"text 0": ("good", None)}
    said = refused([*twice, {"id": 0, "language": "en", "output": "bad"}])
    assert said == [
        "labels.jsonl, line 3: says 'bad', and line 1 says 'good' of the same text. Keep one of the two."
    ]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"output": "good"}, "has neither `id` nor `input`."),
        ({"id": 0, "language": "en"}, "has no `output`."),
        ({"id": 0, "language": "en", "output": "great"}, "the label 'great' is not declared."),
        ({"id": 0, "language": "en", "output": ["good"]}, "the answer is a list of texts"),
        ({"id": 0, "language": "en", "output": {}}, "field 'output' is a dict; expected text."),
        (
            {"id": 0, "language": "en", "input": "text 1", "output": "good"},
            "the id '0' is that of another text",
        ),
        ({"id": 0, "output": "good"}, "the id '0' stands for en, de. Add its `language`."),
        ({"id": 0, "language": "en", "output": "good", "inclusion": 0}, "field 'inclusion' is 0;"),
        ({"id": 0, "language": "en", "output": "good", "inclusion": 1.5}, "field 'inclusion' is 1.5;"),
        (
            {"id": 0, "language": "en", "output": "good", "inclusion": "often"},
            "field 'inclusion' is 'often';",
        ),
        ({"id": 0, "language": "en", "output": "gut"}, "the label 'gut' is not declared."),
    ],
)
def test_what_is_no_label_is_refused_with_its_line(refused, record, said):
    [found] = refused([record])
    assert found.startswith("labels.jsonl, line 1: ")
    assert said in found


def test_some_five_wrong_labels_are_told_and_the_others_counted(refused):
    said = refused([{"output": "good"}] * (SHOWN + 3))
    assert len(said) == SHOWN + 1
    assert said[-1] == "labels.jsonl: 3 more rows are wrong in the same or other ways."


def test_chosen_texts_and_others_do_not_mix(refused):
    [said] = refused(
        [
            {"id": 0, "language": "en", "output": "good", "inclusion": 0.5},
            {"id": 1, "language": "en", "output": "good"},
        ]
    )
    assert said.startswith("labels.jsonl: 1 of 2 labels have no `inclusion` (first: line 2).")


def test_a_file_without_rows_is_refused_and_one_without_answers_is_not(labelled, refused):
    assert refused([]) == [
        "labels.jsonl: there are no rows. Give each a text's `id` or `input`, and its `output`."
    ]
    labels = labelled([{"id": 0, "language": "en", "output": ""}, {"id": 1, "language": "en", "output": " "}])
    assert labels.labels == {}
    assert labels.empty == 2


def test_a_choice_overwrites_nothing(production, tmp_path):
    path = tmp_path / "to-label.jsonl"
    path.write_text("the work of a week", encoding="utf-8")
    with pytest.raises(InputError, match="is there already"):
        write_choice(path, [])
    assert path.read_text("utf-8") == "the work of a week"
    with pytest.raises(InputError, match="cannot be written"):
        write_choice(tmp_path / "nowhere" / "a.jsonl", [])
