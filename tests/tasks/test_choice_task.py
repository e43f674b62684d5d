"""Multiple choice: what is asked, what may be answered, and which answer is right."""

from __future__ import annotations

import pytest

from sabir.tasks import Row, make_task

TEXT = make_task("choice", {})
LETTER = make_task("choice", {"answer_with": "letter"})


def row(output="", choices=("warm", "cold", "wet"), **more):
    return Row("1", "Snow is", output, choices=tuple(choices), **more)


def test_by_text_the_choices_are_scored_and_not_shown():
    assert TEXT.options(row()) == ("warm", "cold", "wet")
    assert TEXT.prompt(row()).text == "Snow is\n\nAnswer:"


def test_by_letter_the_choices_are_listed_under_letters_and_the_letters_scored():
    assert LETTER.options(row()) == ("A", "B", "C")
    prompt = LETTER.prompt(row())
    assert prompt.text == "Snow is\n\nA. warm\nB. cold\nC. wet\n\nAnswer:"
    assert prompt.source == "Snow is"  # what is cut to fit is the question, never the choices


@pytest.mark.parametrize("answer", ["cold", " cold\n", "B", "1"])
def test_the_answer_is_told_by_text_by_letter_or_by_place_from_0(answer):
    assert TEXT.target(row(answer)) == "cold"
    assert LETTER.target(row(answer)) == "B"


def test_a_text_comes_before_a_letter_and_a_letter_before_a_place():
    assert TEXT.target(row("A", ["B", "A"])) == "A"
    assert LETTER.target(row("A", ["B", "A"])) == "B"
    assert TEXT.target(row("1", ["2", "3", "1"])) == "1"


@pytest.mark.parametrize("answer", ["D", "3", "-1", "Cold", "", "²"])
def test_an_answer_that_is_no_choice_is_refused_with_the_choices(answer):
    with pytest.raises(ValueError, match=r"is none of the choices .* Choices are: 'warm', 'cold', 'wet'\."):
        TEXT.target(row(answer))


def test_a_near_miss_is_suggested():
    with pytest.raises(ValueError, match=r"Did you mean 'cold'\?"):
        TEXT.target(row("colt"))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ((), r"there are no choices; .* a cell of a table holds no list: write JSONL or parquet\."),
        (("warm",), r"there is one choice; expected at least two\. Mend the row or take it out\."),
        (("warm", " "), r"one of the choices is empty\. Mend the row or take it out\."),
        (("warm", "cold", "warm "), r"the choice 'warm' is there twice\. Mend the row or take it out\."),
    ],
)
@pytest.mark.parametrize("task", [TEXT, LETTER], ids=["text", "letter"])
def test_choices_that_are_none_are_refused(task, choices, said):
    with pytest.raises(ValueError, match=said):
        task.options(row("warm", choices))


def test_more_choices_than_letters_are_scored_by_text_only():
    many = [f"choice {i}" for i in range(27)]
    assert TEXT.target(row("26", many)) == "choice 26"
    with pytest.raises(ValueError, match=r"there are 27 choices; answer_with: letter takes 26\. Write"):
        LETTER.options(row("26", many))


def test_one_choice_may_be_the_beginning_of_another():
    choices = ("cold", "cold and wet", "col")
    assert TEXT.options(row("", choices)) == choices
    assert [TEXT.target(row(choice, choices)) for choice in choices] == list(choices)


def test_a_list_of_answers_is_refused():
    with pytest.raises(
        ValueError, match=r"the answer is a list of texts; this task takes one of the choices\. Write one"
    ):
        TEXT.target(row(phrases=("warm", "cold")))


def test_choices_in_five_scripts_are_taken_as_they_are():
    choices = ("ضباب", "製造所", "눈", "हिम", "снег")
    for place, choice in enumerate(choices):
        assert TEXT.target(row(choice, choices)) == TEXT.target(row(str(place), choices)) == choice
