"""A task of the user's own: run only where that was allowed, and then as good as a built-in one."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sabir import Project
from sabir.config import load_config
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.facts import gather
from sabir.lock import Lock
from sabir.tasks import Row, make_task
from sabir.work.prepare import task_of
from small_project import write_config, write_project

MODULE = '''
from dataclasses import dataclass
from typing import Literal

from sabir.tasks import Prompt, Task

open(__file__ + ".ran", "a").write("x")


@dataclass(frozen=True)
class Polite(Task):
    """Asks politely, and understands an answer in capitals."""

    def prompt(self, row):
        return Prompt("Please: ", row.input, f" {self.cue}")

    def read(self, answer):
        return answer.strip().lower() or None


def polite(*, labels: tuple[str, ...], cue: str = "Thanks:", tone: Literal["soft", "firm"] = "soft", times: int = 1):
    """A label per text."""
    if times < 1:
        raise ValueError(f"times is {times}; expected at least 1.")
    return Polite("polite", "label", "", cue, ("accuracy",), labels=tuple(labels))


def nothing():
    return {"name": "no task"}


number = 3
'''


@pytest.fixture
def code(tmp_path, monkeypatch, request):
    """A folder with a module of the user's own, whose name no other test has; forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    yield SimpleNamespace(folder=tmp_path, name=name, ran=tmp_path / f"{name}.py.ran")
    sys.modules.pop(name, None)


def config_of(code, function="polite", languages=("en", "de"), **task):
    given = {"name": f"{code.name}:{function}", **task}
    return write_project(code.folder, languages, task=given)


def refused(config, **more):
    with pytest.raises(InputError) as error:
        load_config(config, **more)
    return [str(problem) for problem in error.value.problems()]


LABELS = {"labels": ["delivery", "payment"]}


def test_unasked_it_is_neither_run_nor_imported(code):
    [said] = refused(config_of(code, **LABELS))
    assert said.endswith(
        f"task.name: '{code.name}:polite' names code of your own, which is not run unasked. "
        "If you trust it: --allow-code (in Python: allow_code=True)."
    )
    with pytest.raises(InputError, match="not run unasked"):
        Project(code.folder / "sabir.yaml")
    with pytest.raises(InputError, match="not run unasked"):
        make_task(f"{code.name}:polite", LABELS)
    assert not code.ran.exists()
    assert code.name not in sys.modules


def test_a_config_of_built_in_tasks_imports_nothing_of_the_folder(code):
    load_config(write_project(code.folder, ("en",)), allow_code=True)
    assert not code.ran.exists()


def test_allowed_it_is_found_beside_the_config_and_its_own_prompt_and_reading_hold(code):
    config = load_config(config_of(code, **LABELS), allow_code=True)
    assert (config.code, config.task.code) == (code.folder, code.folder)
    found = gather(config, Lock(), {}, with_base=False, store=Store(config.run.store))
    assert found.task.prompt(Row("1", "a parcel", "")).text == "Please: a parcel Thanks:"
    assert [found.task.read(answer) for answer in (" Payment\n", " ")] == ["payment", None]
    assert found.rows["de"].longest_frame[2] == "Please:  Thanks:"


def test_the_settings_of_its_signature_are_checked_like_those_of_built_in_tasks(code):
    def said(**task):
        return [sentence.partition(": ")[2] for sentence in refused(config_of(code, **task), allow_code=True)]

    assert said() == [f"task.labels: it is missing. '{code.name}:polite' needs a list of texts here."]
    [unknown] = said(**LABELS, tonne="soft")
    assert unknown.startswith(
        f"task.tonne: no such setting. '{code.name}:polite' takes: labels, cue, tone, times."
    )
    assert unknown.endswith("Did you mean 'tone'?")
    [wrong] = said(**LABELS, tone="loud")
    assert "task.tone: 'loud' is not" in wrong
    [own] = said(**LABELS, times=0)
    assert own == "task: times is 0; expected at least 1."


def test_it_may_be_asked_otherwise_in_one_language(code):
    config = load_config(config_of(code, **LABELS, prompts={"de": {"cue": "Danke:"}}), allow_code=True)
    found = gather(config, Lock(), {}, with_base=False, store=Store(config.run.store))
    assert {language: task.cue for language, task in found.tasks.items()} == {"en": "Thanks:", "de": "Danke:"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module_here:polite", "'no_such_module_here' cannot be imported"),
        ("{own}:impolite", "'{own}' has no 'impolite'. Name a function of it."),
        ("{own}:number", "'{own}:number' is no function. Name a function."),
        ("{own}:nothing", "{own}:nothing returned a dict. Return a sabir.tasks.Task, or a subclass of it."),
        ("{own}:", "has no ''"),
        (":polite", "cannot be imported"),
        ("..{own}:polite", "cannot be imported"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(code, name, said):
    config = write_project(code.folder, ("en",), task={"name": name.replace("{own}", code.name)})
    [sentence] = refused(config, allow_code=True)
    assert said.replace("{own}", code.name) in sentence


def test_a_module_that_does_not_run_is_a_sentence(code):
    (code.folder / f"{code.name}.py").write_text("def polite(:\n")
    [sentence] = refused(config_of(code, **LABELS), allow_code=True)
    assert f"'{code.name}' cannot be imported (SyntaxError: " in sentence


def test_a_step_is_told_where_the_code_lies_and_one_that_is_not_told_runs_none(code):
    told = {"name": f"{code.name}:polite", "settings": LABELS, "code": str(code.folder)}
    assert task_of(SimpleNamespace(args={"task": told})).prompt(Row("1", "x", "")).before == "Please: "
    sys.modules.pop(code.name)
    with pytest.raises(InputError, match="not run unasked"):
        task_of(SimpleNamespace(args={"task": {**told, "code": None}}))
    assert code.name not in sys.modules


def test_a_worker_process_loads_it_and_writes_the_rows_that_were_planned(code):
    config = load_config(config_of(code, **LABELS), allow_code=True)
    found = gather(config, Lock(), {}, with_base=False, store=Store(config.run.store))
    out = code.folder / "out"
    out.mkdir()
    work = {
        "name": "data/de",
        "out": str(out),
        "settings": dict(found.rows["de"].digests),
        "args": {"source": found.sources["de"].to_json(), "task": _as_json(config.task.of("de"))},
    }
    worker = (
        "import json, sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from sabir.work.prepare import prepare\n"
        "work = json.load(sys.stdin); work['out'] = Path(work['out'])\n"
        "print(json.dumps(list(prepare([SimpleNamespace(**work)]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", worker],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    [[name, outcome]] = json.loads(done.stdout)
    assert (name, outcome["result"]["rows"]) == ("data/de", found.rows["de"].rows)
    first = json.loads((out / "test.jsonl").read_text("utf-8").splitlines()[0])
    assert (first["prompt"]["before"], first["prompt"]["after"]) == ("Please: ", " Thanks:")


def _as_json(told):
    return {**told, "code": str(told["code"])}


def test_the_rest_of_a_config_is_still_checked_where_its_task_may_not_be_run(code):
    config = config_of(code, **LABELS)
    write_config(
        code.folder,
        {"base": "embedded", "task": f"{code.name}:polite", "data": {"en": "data/en"}, "lora": {"rank": 0}},
    )
    by_task, by_rank = refused(config)
    assert "task.name: " in by_task
    assert "not run unasked" in by_task
    assert "lora.rank: 0 is not" in by_rank


# --- what its functions raise -------------------------------------------------------------------------------

WRONG = """
from sabir.tasks import Prompt, Task

class Asked(Task):
    def prompt(self, row):
        return {prompt}
    def options(self, row):
        return {options}
    def target(self, row):
        return {target}
    def read(self, answer):
        return {read}

def asked():
    return Asked("asked", "label", "", "", ("accuracy",), labels=("delivery", "payment"))
"""
RIGHT = {"prompt": "Prompt('', row.input, '')", "options": "()", "target": "row.output", "read": "answer"}


def made_wrong(code, **changes):
    (code.folder / f"{code.name}.py").write_text(WRONG.format(**{**RIGHT, **changes}))
    return config_of(code, "asked")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "row.text"}, "prompt failed (AttributeError: 'Row' object has no attribute 'text')."),
        ({"prompt": "'a text'"}, "prompt gave a str. Return a sabir.tasks.Prompt."),
        (
            {"prompt": "Prompt('', None, '')"},
            "prompt gave a Prompt whose parts are no texts. Fill all three.",
        ),
        ({"target": "{}['x']"}, "target failed (KeyError: 'x')."),
        ({"target": "int(row.output)"}, "target failed (ValueError: invalid literal for int() with"),
        ({"target": "None"}, "target gave nothing. Return a text."),
        ({"options": "1 / 0"}, "options failed (ZeroDivisionError: division by zero)."),
        ({"options": "'ab'"}, "options gave a str. Return a tuple of texts."),
    ],
)
def test_what_its_functions_raise_or_give_wrong_is_told_with_the_row_and_their_name(code, changes, said):
    with pytest.raises(InputError) as caught:
        Project(made_wrong(code, **changes), allow_code=True).check()
    first = str(caught.value.problems()[0])
    assert first.startswith(f"{code.folder}/data/en/train.jsonl, line 1: {code.name}:asked: ")
    assert said in first


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("answer.lowercase()", "read failed (AttributeError: 'str' object has no attribute 'lowercase')."),
        ("answer == 'x'", "read gave a bool."),
    ],
)
def test_an_answer_that_it_cannot_read_is_told_with_its_name(code, read, said):
    made_wrong(code, read=read)
    task = make_task(f"{code.name}:asked", {}, code=code.folder)
    with pytest.raises(InputError) as caught:
        task.read("x")
    assert str(caught.value).startswith(f"task.name: {code.name}:asked: {said} It is given a model's answer")


def test_what_the_functions_of_every_task_say_stays_as_it_is(code):
    made = "Task('plain', 'label', '', '', ('accuracy',), ('a', 'b'))"
    module = f"from sabir.tasks import Task\ndef plain():\n    return {made}\n"
    (code.folder / f"{code.name}.py").write_text(module)
    with pytest.raises(
        InputError, match=r"line 1: the label 'delivery' is not declared\. Declared are: a, b"
    ):
        Project(config_of(code, "plain"), allow_code=True).check()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            "'t', 'score', '', '', ('accuracy',)",
            "answer is 'score'. There are: label, choice, text, phrases.",
        ),
        ("'t', 'lable', '', '', ('accuracy',)", "Did you mean 'label'?"),
        ("'t', 'label', '', '', (), ('a', 'b')", "metrics are (). Name at least one"),
        ("'t', 'label', '', '', 'accuracy', ('a', 'b')", "metrics are 'accuracy'. Name at least one"),
        ("'t', 'label', '', '', ('accuracy',)", "answered by a label, and its labels are ()."),
        ("'t', 'text', '', '', ('rougeL',)", "writes at most 0 tokens. Say how many: max_new_tokens=64."),
        ("'t', 'label', None, '', ('accuracy',), ('a', 'b')", "instruction is None. Give a text"),
    ],
)
def test_a_task_that_cannot_be_asked_or_judged_is_refused_once(code, made, said):
    module = f"from sabir.tasks import Task\ndef wrong():\n    return Task({made})\n"
    (code.folder / f"{code.name}.py").write_text(module)
    [sentence] = refused(config_of(code, "wrong"), allow_code=True)
    assert f"task: {code.name}:wrong returned a Task " in sentence
    assert said in sentence
