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
    assert type(task_of(SimpleNamespace(args={"task": told}))).__name__ == "Polite"
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
