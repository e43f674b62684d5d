"""The section `task`: what the model is asked, by language, and by functions of one's own."""

from __future__ import annotations

import pytest
from config_texts import MINIMAL

LABELLED = MINIMAL.replace("summarization", "{name: classification, labels: [a, b], instruction: Which%s}")
OWN_TASKS = """\
from decimal import Decimal

from sabir.tasks import Task


def fine(*, instruction: str = "", cue: str = "A:", strict: bool = False):
    if strict:
        raise ValueError("strict is too strict.")
    if cue == "boom":
        raise RuntimeError("boom")
    return Task(name="mine", answer="label", instruction=instruction, cue=cue, metrics=("accuracy",), labels=("a", "b"))


def priced(*, price: Decimal = Decimal(1)):
    return fine()


def no_task():
    return 3


def needs_something(rows):
    return fine()
"""


@pytest.fixture
def own(project):
    """A module of the user's own beside the config."""
    (project / "tasks_of_a_user.py").write_text(OWN_TASKS, encoding="utf-8")
    (project / "broken_of_a_user.py").write_text("1 / 0\n", encoding="utf-8")
    return MINIMAL.replace("summarization", "{name: 'tasks_of_a_user:%s'}")


# --- prompts ---------------------------------------------------------------------------------------------


def test_a_language_may_be_asked_in_its_own_words(read):
    prompts = ", prompts: {de: 'Welches?', en: {cue: 'Answer:', instruction: 'Which one?'}}"
    task = read(LABELLED % prompts).task
    assert task.of("de")["settings"] == {**task.settings, "instruction": "Welches?"}
    assert task.of("en")["settings"] == {**task.settings, "instruction": "Which one?", "cue": "Answer:"}
    assert task.of("fr")["settings"] == task.settings
    assert read(LABELLED % "").task.prompts == {}


def test_prompts_in_a_file_are_those_in_the_config(read, project):
    inline = read(LABELLED % ", prompts: {de: {cue: 'Antwort:'}, en: Which one}").task
    (project / "prompts.yaml").write_text("de: {cue: 'Antwort:'}\nen: Which one\n", encoding="utf-8")
    assert read(LABELLED % ", prompts: prompts.yaml").task == inline


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ("{fr: x}", "task.prompts.fr: there is no such language. There are: de, en."),
        ("{dee: x}", "task.prompts.dee: there is no such language. There are: de, en. Did you mean 'de'?"),
        (
            "{de: {instrction: x}}",
            "task.prompts.de.instrction: no such setting. A prompt takes: instruction, cue. "
            "Did you mean 'instruction'?",
        ),
        (
            "{de: {labels: [x]}}",
            "task.prompts.de.labels: no such setting. A prompt takes: instruction, cue.",
        ),
        ("{de: {cue: 3}}", "task.prompts.de.cue: 3 is not a text. Put it in quotes: '3'."),
        ("{de: 3}", "task.prompts.de: 3 is not a mapping. Expected `key: value` pairs here."),
        (
            "{de: }",
            "task.prompts.de: nothing is given. Write its instruction, or {instruction: ..., cue: ...}.",
        ),
        (
            "{de: {}}",
            "task.prompts.de: nothing is given. Write its instruction, or {instruction: ..., cue: ...}.",
        ),
        ("[x]", "task.prompts: ['x'] is not a mapping. Expected `key: value` pairs here."),
    ],
)
def test_wrong_prompts_are_refused(refusals, prompts, sentence):
    assert refusals(LABELLED % f", prompts: {prompts}") == [f"config.yaml, line 2: {sentence}"]


def test_what_is_wrong_in_a_file_of_prompts_is_told_with_its_line_and_with_the_rest(refusals, project):
    place = project / "prompts.yaml"
    place.write_text("de: {cue: 3}\nfr: x\n", encoding="utf-8")
    assert refusals(LABELLED % ", prompts: prompts.yaml" + "lora: {rank: 0}\n") == [
        f"{place}, line 1: de.cue: 3 is not a text. Put it in quotes: '3'.",
        f"{place}, line 2: fr: there is no such language. There are: de, en.",
        "config.yaml, line 6: lora.rank: 0 is not a whole number of at least 1.",
    ]
    place.write_text("de: {cue\n", encoding="utf-8")
    told = refusals(LABELLED % ", prompts: prompts.yaml" + "lora: {rank: 0}\n")
    assert len(told) == 2
    assert told[0].startswith(f"{place}, line 2: not valid YAML")
    place.write_text("", encoding="utf-8")
    assert "the file is empty" in refusals(LABELLED % ", prompts: prompts.yaml")[0]
    assert refusals(LABELLED % ", prompts: nowhere.yaml") == [
        "config.yaml, line 2: task.prompts: there is no file 'nowhere.yaml'. "
        f"Looked for {project / 'nowhere.yaml'}."
    ]


# --- functions of one's own ------------------------------------------------------------------------------


def test_a_task_of_ones_own_is_read_like_any_other_where_it_may_run(read, refusals, own):
    config = read(own % "fine", "task.cue=Q", allow_code=True)
    assert (config.task.name, config.task.settings) == ("tasks_of_a_user:fine", {"cue": "Q"})
    assert config.task.code == config.code == config.folder
    assert refusals(own % "fine") == [
        "config.yaml, line 2: task.name: 'tasks_of_a_user:fine' names code of your own, which is not run unasked. "
        "If you trust it: --allow-code (in Python: allow_code=True)."
    ]
    assert "Did you mean 'cue'?" in refusals(own % "fine", "task.ceu=x", allow_code=True)[0]


@pytest.mark.parametrize(
    ("name", "overrides", "what"),
    [
        ("tasks_of_a_user:gone", (), "has no 'gone'"),
        ("gone_of_a_user:fine", (), "cannot be imported (ModuleNotFoundError"),
        ("broken_of_a_user:fine", (), "cannot be imported (ZeroDivisionError: division by zero)"),
        ("tasks_of_a_user:Decimal", (), "returned a Decimal"),
        ("tasks_of_a_user:priced", (), "no setting can have the type <class 'decimal.Decimal'>"),
        ("tasks_of_a_user:no_task", (), "returned a int"),
        ("tasks_of_a_user:needs_something", (), "failed (TypeError: "),
        ("tasks_of_a_user:fine", ("task.strict=true",), "strict is too strict."),
        ("tasks_of_a_user:fine", ("task.prompts={de: {cue: boom}}",), "failed (RuntimeError: boom)"),
        ("rivals_of_a_user:", (), "cannot be imported"),
    ],
)
def test_a_task_of_ones_own_that_cannot_be_is_refused_in_a_sentence(refusals, own, name, overrides, what):
    text = own.replace("tasks_of_a_user:%s", name)
    (sentence,) = refusals(text, *overrides, allow_code=True)
    assert sentence.split(": ")[1].startswith("task")
    assert what in sentence


# --- what is refused -------------------------------------------------------------------------------------


def test_unknown_settings_of_a_task_are_refused_with_a_suggestion(refusals):
    text = MINIMAL.replace("summarization", "{name: summarization, instrction: x}")
    (sentence,) = refusals(text)
    assert sentence.startswith(
        "config.yaml, line 2: task.instrction: no such setting. 'summarization' takes: "
    )
    assert sentence.endswith("Did you mean 'instruction'?")


@pytest.mark.parametrize(
    ("task", "path", "what"),
    [
        ("sumarization", "task.name", "Did you mean 'summarization'?"),
        ("classification", "task.labels", "'classification' needs a list of texts here"),
        ("{labels: [a, b]}", "task.name", "it is missing"),
        ("{}", "task.name", "it is missing"),
        ("{name: 3}", "task.name", "3 is not a non-empty text"),
        ("''", "task.name", "'' is not a non-empty text"),
        ("[classification]", "task", "is not a mapping"),
        (
            "{name: classification, labels: a}",
            "task.labels",
            "'a' is not a list of texts. Write it as a list: [a].",
        ),
        (
            "{name: classification, labels: [1, 2]}",
            "task.labels",
            "[1, 2] is not a list of texts. Put its values in quotes: ['1', '2'].",
        ),
        ("{name: classification, labels: [a, a]}", "task", "none twice"),
        ("{name: summarization, max_new_tokens: 1.5}", "task.max_new_tokens", "1.5 is not a whole number"),
    ],
)
def test_wrong_tasks_are_refused(refusals, task, path, what):
    (sentence,) = refusals(MINIMAL.replace("summarization", task))
    assert sentence.startswith(f"config.yaml, line 2: {path}: ")
    assert what in sentence
