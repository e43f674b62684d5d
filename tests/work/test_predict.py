"""What may be asked of the model in use: texts and rows; all else is refused by its number."""

from __future__ import annotations

import pytest

from sabir.cli.predict import _line
from sabir.errors import InputError
from sabir.tasks import Row, make_task
from sabir.work.bases import EMBEDDED_FOLDER
from sabir.work.predict import answer, rows_of

SORTS = make_task("classification", {"labels": ("good", "bad")})
CHOICE = make_task("choice", {})


def refused(texts, task=SORTS):
    with pytest.raises(InputError) as caught:
        rows_of(texts, task)
    return str(caught.value)


def test_texts_and_mappings_are_asked_and_numbered_from_one():
    rows = rows_of(("Sehr gut", {"input": "x", "instruction": "Say it."}), SORTS)
    assert rows == [Row("1", "Sehr gut", ""), Row("2", "x", "", "Say it.")]
    assert rows_of([{"input": "q", "choices": ["a", "b"]}], CHOICE)[0].choices == ("a", "b")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("Sehr gut", "there is a text where a list of texts is due. Write one text as a list too"),
        ({"input": "Sehr gut"}, "there is a dict where a list of texts is due."),
        (3, "there is an int where a list of texts is due."),
        (None, "there is nothing where a list of texts is due."),
    ],
)
def test_what_is_no_list_is_refused(texts, said):
    assert refused(texts).startswith(f"predict: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (1, "is an int; expected a text or a mapping. Give a text, or {"),
        (None, "is nothing; expected a text or a mapping."),
        (["a"], "is a list; expected a text or a mapping."),
        ({"text": "a"}, "`input` is nothing; expected a text."),
        ({"input": 1}, "`input` is an int; expected a text."),
        ("", "there is no text in it. Give one, or leave it out."),
        ({"input": " \n"}, "there is no text in it."),
        ({"input": "a", "choices": "ab"}, "`choices` is 'ab'; expected a list of texts."),
        ({"input": "a", "choices": 3}, "`choices` is 3; expected a list of texts."),
    ],
)
def test_what_is_no_text_is_refused_by_its_number(text, said):
    assert refused(["fine", text]).startswith(f"text 2: {said}")


def test_everything_wrong_is_told_at_once():
    assert refused([1, "fine", None]).splitlines()[1].startswith("text 3: ")


def test_a_question_without_choices_says_where_they_stand():
    assert refused(["q"], CHOICE) == (
        "text 1: there are no choices. Give rows with `input` and `choices`: --file rows.jsonl."
    )
    assert "the choice 'a' is there twice. Mend" in refused([{"input": "q", "choices": ["a", "a"]}], CHOICE)


@pytest.mark.parametrize("answer_with", ["letter", "text"])
def test_what_is_chosen_is_said_in_full(answer_with):
    task = make_task("choice", {"answer_with": answer_with})
    rows = rows_of([{"input": "What is hot?", "choices": ["tea", " ice\ncream "]}], task)
    how = {"base": EMBEDDED_FOLDER, "model": None, "max_length": 64, "batch_size": 1, "device": "cpu"}
    [found] = answer(rows, task=task, **how)
    options = task.options(rows[0])
    assert found["choice"] == rows[0].choices[options.index(found["prediction"])]
    shown = " ".join(found["choice"].split())
    assert _line(found) == (f"{found['prediction']}. {shown}" if answer_with == "letter" else shown)


def test_an_answer_is_one_line():
    assert _line({"prediction": "a\nb"}) == "a b"
    assert _line({"prediction": None}) == ""
