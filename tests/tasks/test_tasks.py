"""What a model is asked, and which answers count as answers."""

from __future__ import annotations

import pytest

from sabir.errors import InputError
from sabir.tasks import TASKS, Row, make_task

LABELS = ("good", "bad")


def test_the_prompt_is_instruction_text_and_cue():
    task = make_task("classification", {"labels": LABELS, "instruction": "Is it good?"})
    prompt = task.prompt(Row("1", "Nice film.", "good"))
    assert prompt.text == "Is it good?\n\nNice film.\n\nAnswer:"
    assert prompt.source == "Nice film."


def test_a_rows_own_instruction_follows_the_tasks():
    task = make_task("summarization", {"instruction": "Sum up."})
    prompt = task.prompt(Row("1", "text", "x", "In one word."))
    assert prompt.text == "Sum up.\nIn one word.\n\ntext\n\nSummary:"


def test_without_an_instruction_the_text_comes_first():
    assert make_task("summarization", {"cue": "TL;DR"}).prompt(Row("1", "a", "b")).text == "a\n\nTL;DR"


def test_a_target_is_a_declared_label_without_blanks_around():
    task = make_task("classification", {"labels": LABELS})
    assert task.target(Row("1", "a", " good\n")) == "good"
    with pytest.raises(ValueError, match=r"the label 'Good' is not declared\. Declared are: good, bad\."):
        task.target(Row("1", "a", "Good"))
    with pytest.raises(ValueError, match=r"the answer is empty\."):
        task.target(Row("1", "a", " "))


def test_any_text_is_a_summary():
    assert make_task("summarization", {}).target(Row("1", "a", "日本語")) == "日本語"


@pytest.mark.parametrize("labels", [(), ("one",), ("a", "a"), ("a", " "), ("a", "a ")])
def test_labels_that_are_no_choice_are_refused(labels):
    with pytest.raises(InputError, match=r"^task: labels are .*expected at least two"):
        make_task("classification", {"labels": labels})


def test_blanks_around_a_declared_label_do_not_count():
    task = make_task("classification", {"labels": (" good", "bad ")})
    assert task.labels == LABELS
    assert task.target(Row("1", "a", "good")) == "good"


def test_no_room_for_an_answer_is_refused():
    with pytest.raises(InputError, match=r"^task: max_new_tokens is 0; expected at least 1\."):
        make_task("summarization", {"max_new_tokens": 0})


def test_an_unknown_task_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match=r"clasification.*classification"):
        make_task("clasification", {})


def test_metrics_are_the_tasks_own_unless_given():
    assert make_task("classification", {"labels": LABELS}).metrics[0] == "accuracy"
    assert make_task("classification", {"labels": LABELS, "metrics": ["macro_f1"]}).metrics == ("macro_f1",)


def test_a_metric_stands_there_once():
    with pytest.raises(
        InputError, match=r"^task\.metrics: 'rougeL' stands there twice\. Keep one of the two\."
    ):
        make_task("summarization", {"metrics": ("rougeL", "rouge1", "rougeL")})


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry.name)
def test_every_task_says_what_each_setting_is(entry):
    described = entry.function.__doc__
    assert all(f"{name}:" in described for name in entry.settings)


def test_one_label_may_be_the_beginning_of_another():
    labels = ("good", "good enough", "goo")
    task = make_task("classification", {"labels": labels})
    assert task.labels == labels
    assert [task.target(Row("1", "a", label)) for label in labels] == list(labels)


def test_labels_that_differ_in_blanks_inside_or_in_case_are_different():
    assert make_task("classification", {"labels": ("a b", "a  b", "A b")}).labels == ("a b", "a  b", "A b")
