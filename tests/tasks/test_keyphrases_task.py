"""Keyphrases: a list of phrases as one text that can be learned and read again."""

from __future__ import annotations

import pytest

from sabir.errors import InputError
from sabir.tasks import Row, make_task

TASK = make_task("keyphrases", {})


def target(*phrases, output=""):
    return TASK.target(Row("1", "text", output, phrases=phrases))


def test_phrases_are_written_in_the_order_of_the_file():
    assert target("zeta", "alpha", "小さい単語") == "zeta; alpha; 小さい単語"


@pytest.mark.parametrize("written", ["b; a ;c", "b；a；c", "b\na\nc\n", ";b;;a;c; "])
def test_one_text_is_parted_at_semicolons_of_every_kind_and_at_lines(written):
    assert target(output=written) == "b; a; c"


def test_blanks_inside_and_around_a_phrase_are_one_blank_and_none():
    assert target("  neural \t network ", "", "x") == "neural network; x"


@pytest.mark.parametrize("phrase", ["a; b", "a；b"])
def test_a_phrase_that_holds_what_parts_phrases_is_refused(phrase):
    with pytest.raises(ValueError, match=r"holds a semicolon, which parts phrases\. Write it without"):
        target("x", phrase)


@pytest.mark.parametrize("phrases", [(), ("", " ")])
def test_no_phrases_are_refused(phrases):
    with pytest.raises(ValueError, match=r"there are no phrases\. Every row needs one"):
        target(*phrases)


def test_commas_belong_to_a_phrase():
    assert target(output="Paris, France; wine") == "Paris, France; wine"


def test_other_tasks_take_no_list():
    for task in (make_task("summarization", {}), make_task("classification", {"labels": ("a", "b")})):
        with pytest.raises(
            ValueError, match=r"the answer is a list of texts; this task takes one text\. Write one,"
        ):
            task.target(Row("1", "text", "", phrases=("a", "b")))


def test_no_room_for_phrases_is_refused():
    with pytest.raises(InputError, match=r"^task: max_new_tokens is 0; expected at least 1\."):
        make_task("keyphrases", {"max_new_tokens": 0})
