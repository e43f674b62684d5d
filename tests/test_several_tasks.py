"""Several tasks in one project: one store, one run, one gate, one document, and each task's own results in it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sabir import InputError, Project, StepFailed, lock
from sabir.config import load_configs
from sabir.errors import Failures, GateNotMet, InputErrors
from sabir.project import releasing
from sabir.project.tasks import each, parts, together, told
from small_project import FIVE, LABELS, WORDS, rows, write_config, write_rows

INLINE = ["run.backend=inline"]
QUIZ = {"choices": ["tea", "coffee", "milk"]}


def write_two(folder: Path, **changes) -> Path:
    """A project of two tasks: labels in English and German, multiple choice in German and French."""
    for language in ("en", "de"):
        for split, count in (("train", 8), ("valid", 4), ("test", 4)):
            write_rows(folder / f"topic/{language}/{split}.jsonl", rows(language, split, count))
    for language in ("de", "fr"):
        for split, count in (("train", 6), ("valid", 3), ("test", 3)):
            quiz = [
                {"input": f"{WORDS[language][0]} {split} {i}?", "output": "tea", **QUIZ} for i in range(count)
            ]
            write_rows(folder / f"quiz/{language}/{split}.jsonl", quiz)
    tasks = {
        "topic": {
            "task": {"name": "classification", "labels": list(LABELS), "prompts": {"de": "Worum geht es?"}},
            "data": {language: f"topic/{language}" for language in ("en", "de")},
        },
        "quiz": {
            "task": "choice",
            "data": {language: f"quiz/{language}" for language in ("de", "fr")},
            "lora": {"epochs": 2},
        },
    }
    return write_config(
        folder,
        {
            "base": "embedded",
            "tasks": tasks,
            "lora": {"rank": 4, "epochs": 1, "max_length": 64, "batch_size": 8},
            "merges": {"average": {"method": "linear"}},
            "evaluate": {"resamples": 100},
            "run": {"backend": "inline"},
            **changes,
        },
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The two tasks, run and promoted."""
    config = write_two(tmp_path_factory.mktemp("tasks"))
    project = Project(config)
    return SimpleNamespace(config=config, ran=project.run(), promoted=project.promote())


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished.config.parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / finished.config.name


# --- one document ----------------------------------------------------------------------------------------


def test_a_run_does_every_task_and_gives_one_document(finished):
    document = finished.ran
    assert {step["task"] for step in document["steps"]} == {"topic", "quiz"}
    trained = {(step["task"], step["name"]) for step in document["steps"] if step["kind"] == "adapter"}
    assert trained == {
        (task, f"adapter/{one}")
        for task, one in (("topic", "en"), ("topic", "de"), ("quiz", "de"), ("quiz", "fr"))
    }
    assert {row["task"] for row in document["scores"]} == {"topic", "quiz"}
    assert {row["metric"] for row in document["scores"] if row["task"] == "quiz"} == {
        "accuracy",
        "accuracy_per_byte",
    }
    assert {row["task"] for key in ("comparisons", "costs") for row in document[key]} == {"topic", "quiz"}
    assert (document["selected"], document["release"]) == (None, None)
    assert {name: one["selected"] for name, one in document["tasks"].items()} == {
        "topic": "merged/average",
        "quiz": "merged/average",
    }
    assert document["run"]["phase"] == "setup"
    assert document["run"]["languages_changed"] == ["de", "en", "fr"]
    assert document["languages"] == ["en", "de", "fr"]
    assert document["pending"] == 0


def test_a_task_alone_has_the_document_of_a_project_of_its_own(finished):
    both = Project(finished.config).show()
    by_name = dict(parts(both))
    for name in ("topic", "quiz"):
        alone = Project(finished.config, task=name).show()
        assert "tasks" not in alone
        assert {row["task"] for row in alone["scores"]} == {name}
        without = {
            key: [{k: v for k, v in row.items() if k != "task"} for row in value]
            if isinstance(value, list) and value and isinstance(value[0], dict)
            else value
            for key, value in by_name[name].items()
            if key != "scores"
        }
        assert without == {key: value for key, value in alone.items() if key != "scores"}
        assert by_name[name]["scores"] == alone["scores"]


def test_a_second_run_has_nothing_to_do_and_one_task_runs_alone(finished, copy):
    again = Project(finished.config).run()
    assert again["run"] == {"id": None, "phase": "none", "languages_changed": []}
    write_rows(copy.parent / "quiz/fr/train.jsonl", [{"input": "encore ?", "output": "milk", **QUIZ}] * 2)
    write_rows(copy.parent / "topic/de/train.jsonl", rows("de", "train", 9))
    ran = Project(copy, task="topic").run()
    assert [s["name"] for s in ran["steps"] if s["kind"] == "adapter" and s["status"] == "run"] == [
        "adapter/de"
    ]
    waiting = Project(copy).plan()
    assert {row["task"] for row in waiting["steps"] if row["status"] == "run"} == {"quiz"}


def test_the_totals_of_a_plan_are_sums_over_the_tasks(finished):
    document = Project(finished.config).plan()
    for row in document["totals"]:
        own = [
            one
            for name in ("topic", "quiz")
            for one in document["tasks"][name]["totals"]
            if (one["route"], one["phase"]) == (row["route"], row["phase"])
        ]
        assert row["estimated_device_s"] == (
            None
            if any(one["estimated_device_s"] is None for one in own)
            else pytest.approx(sum(one["estimated_device_s"] for one in own))
        )
    assert ("merged", "setup") in {(row["route"], row["phase"]) for row in document["totals"]}


def documents(**tasks):
    """A document for each task, and the document of all."""
    configs = [SimpleNamespace(task_name=name) for name in tasks]
    return together(tasks, configs)


def test_rows_get_their_task_sentences_begin_with_it_and_what_differs_is_null():
    whole = documents(
        a={
            "scores": [{"n": 1}],
            "warnings": ["data.de: few rows.", "data: few."],
            "level": 0.95,
            "metric": "x",
            "pending": 2,
            "selected": "m",
            "languages": ["de", "en"],
            "searches": {},
            "empty": [],
        },
        b={
            "scores": [{"n": 2}],
            "warnings": [],
            "level": 0.95,
            "metric": "y",
            "pending": 1,
            "selected": "m",
            "languages": ["en", "fr"],
            "searches": {},
            "empty": [],
        },
    )
    assert whole["scores"] == [{"n": 1, "task": "a"}, {"n": 2, "task": "b"}]
    assert whole["warnings"] == ["tasks.a.data.de: few rows.", "tasks.a.data: few."]
    assert (whole["level"], whole["metric"], whole["pending"], whole["selected"]) == (0.95, None, 3, None)
    assert (whole["languages"], whole["searches"], whole["empty"]) == (["de", "en", "fr"], {}, [])
    first, second = (one for _, one in parts(whole))
    assert first["scores"] == [{"n": 1, "task": "a"}]
    assert (first["warnings"], second["warnings"]) == (["data.de: few rows.", "data: few."], [])
    assert (first["metric"], second["metric"], first["empty"]) == ("x", "y", [])


@pytest.mark.parametrize(
    ("phases", "together"),
    [
        (("setup", "setup"), "setup"),
        (("setup", "none"), "add"),
        (("setup", "update"), "add"),
        (("update", "none"), "update"),
        (("none", "none"), "none"),
    ],
)
def test_a_task_that_is_new_beside_others_is_an_addition(phases, together):
    def plan(phase):
        estimates = {"estimated_wall_s": 10.0, "estimated_device_s": 20.0, "estimated_usd": None}
        now = (
            []
            if phase == "setup"
            else [{"route": "merged", "phase": phase, **estimates, "estimated_wall_s": 1.0}]
        )
        return {"phase": phase, "totals": [{"route": "merged", "phase": "setup", **estimates}, *now]}

    whole = documents(a=plan(phases[0]), b=plan(phases[1]))
    assert whole["phase"] == together
    by_phase = {row["phase"]: row for row in whole["totals"]}
    assert by_phase["setup"]["estimated_wall_s"] == 20.0
    assert by_phase["setup"]["estimated_usd"] is None
    if together != "setup":
        this_run = sum(10.0 if phase == "setup" else 1.0 for phase in phases)
        assert by_phase[together]["estimated_wall_s"] == this_run


# --- what is kept by task --------------------------------------------------------------------------------


def test_each_task_has_its_own_releases_and_place_to_serve_from(finished):
    store = finished.config.parent / ".sabir"
    assert sorted(os.listdir(store / "releases")) == ["sabir.yaml#quiz", "sabir.yaml#topic"]
    for task in ("topic", "quiz"):
        assert (store / f"serve/{task}/current/adapter_config.json").is_file()
        assert finished.promoted["tasks"][task]["release"] == "1"
    assert finished.promoted["promoted"] is True
    assert finished.promoted["release"] is None
    document = Project(finished.config).releases()
    assert document["current"] is None
    assert {(row["task"], row["name"]) for row in document["releases"]} == {("topic", "1"), ("quiz", "1")}
    assert {name: one["current"] for name, one in document["tasks"].items()} == {"topic": "1", "quiz": "1"}


def test_gc_keeps_what_any_task_stands_on(copy):
    for project in (Project(copy), Project(copy, task="topic")):
        assert project.gc(keep_runs=0)["junk"] == []
    assert {row["status"] for row in Project(copy).plan()["steps"]} == {"reused"}


def test_rows_are_forgotten_and_held_in_one_task(copy):
    text = rows("de", "train", 4)[3]["input"]
    Project(copy, task="topic").forget([text])
    topic, quiz = (config.where for config in load_configs(copy))
    assert list(lock.read(topic).forgotten) == ["de"]
    assert lock.read(quiz).forgotten == {}
    assert "sabir.yaml#topic" in lock.path_of(copy).read_text("utf-8")
    with pytest.raises(InputError, match="release 1, which is in use, was made of a forgotten row"):
        Project(copy, task="topic").forget(purge=True)


def test_what_another_task_has_in_use_is_not_purged(tmp_path):
    """Both tasks have the same German rows; the row is forgotten in one of them."""
    config = write_two(tmp_path)
    shutil.copytree(tmp_path / "quiz/de", tmp_path / "other/de")
    second = {"task": {"name": "choice", "cue": "Reply:"}, "data": {"de": "other/de", "fr": "quiz/fr"}}
    import yaml

    given = yaml.safe_load(config.read_text("utf-8"))
    given["tasks"] = {"quiz": given["tasks"]["quiz"], "other": second}
    write_config(tmp_path, given)
    Project(config).run()
    Project(config, task="other").promote()
    text = f"{WORDS['de'][0]} train 2?"
    Project(config, task="quiz").forget([text])
    with pytest.raises(InputError, match=r"release 1 of sabir\.yaml#other, which is in use"):
        Project(config, task="quiz").forget(purge=True)


# --- promoted together, or none --------------------------------------------------------------------------


def changed_rows(config: Path) -> None:
    write_rows(config.parent / "topic/de/train.jsonl", rows("de", "train", 10))
    quiz = [{"input": f"encore {i} ?", "output": "milk", **QUIZ} for i in range(6)]
    write_rows(config.parent / "quiz/fr/train.jsonl", quiz)


def events(config: Path) -> dict[str, int]:
    folder = config.parent / ".sabir/releases"
    return {name: len(os.listdir(folder / name)) for name in sorted(os.listdir(folder))}


def served(config: Path) -> dict[str, str]:
    return {task: os.readlink(config.parent / f".sabir/serve/{task}/current") for task in ("topic", "quiz")}


def test_a_gate_that_one_task_does_not_meet_holds_all_of_them_back(copy, sabir):
    changed_rows(copy)
    Project(copy).run()
    before = served(copy)
    strict = ["tasks.quiz.gate.undecided=refuse", "tasks.quiz.gate.max_drop=0.001"]
    with pytest.raises(GateNotMet) as caught:
        Project(copy, overrides=strict).promote()
    assert str(caught.value).startswith("quiz: release 2 was not promoted: ")
    assert (events(copy), served(copy)) == ({"sabir.yaml#quiz": 1, "sabir.yaml#topic": 1}, before)
    options = [part for one in strict for part in ("--set", one)]
    assert sabir("promote", copy, *options)[0] == 3
    accepted = Project(copy, overrides=strict).promote(accept=["undecided", "fr"])
    assert {name: one["release"] for name, one in accepted["tasks"].items()} == {"topic": "2", "quiz": "2"}
    assert set(served(copy).values()).isdisjoint(before.values())


def test_a_folder_that_cannot_be_built_leaves_every_task_as_it_was(copy, monkeypatch):
    changed_rows(copy)
    Project(copy).run()
    before = served(copy)
    import sabir.work.export as module

    whole, built = module.export, []

    def fails_the_second_time(folder, out, **settings):
        built.append(out)
        if len(built) == 2:
            raise InputError(str(out), "cannot be written.")
        return whole(folder, out, **settings)

    monkeypatch.setattr(module, "export", fails_the_second_time)
    with pytest.raises(InputError, match="cannot be written"):
        Project(copy).promote(accept=["all"])
    assert len(built) == 2
    assert (events(copy), served(copy)) == ({"sabir.yaml#quiz": 1, "sabir.yaml#topic": 1}, before)


def test_somebody_who_promotes_meanwhile_stops_all_of_them(copy):
    changed_rows(copy)
    Project(copy).run()
    project = Project(copy)
    candidates = [
        releasing.judged(project._standing(config, with_base=True), None, accept=["all"])
        for config in project.configs
    ]
    Project(copy, task="quiz").promote(accept=["all"], by="ada")
    with pytest.raises(InputError, match="release 2 came into use meanwhile, by ada"):
        releasing.put_to_use(candidates, by="me")
    assert events(copy) == {"sabir.yaml#quiz": 2, "sabir.yaml#topic": 1}


def test_one_task_is_promoted_and_rolled_back_alone(copy):
    changed_rows(copy)
    Project(copy).run()
    Project(copy, task="topic").promote(accept=["all"])
    assert events(copy) == {"sabir.yaml#quiz": 1, "sabir.yaml#topic": 2}
    assert Project(copy, task="topic").rollback()["release"] == "1"
    assert Project(copy).promote(accept=["all"])["tasks"]["quiz"]["release"] == "2"


# --- when something goes wrong ---------------------------------------------------------------------------


def test_a_task_that_fails_keeps_no_other_from_running(tmp_path, monkeypatch, sabir):
    config = write_two(tmp_path)
    from sabir.work import train as module

    whole = module.train

    def fails_on_english(works):
        if works[0].name == "adapter/en":
            raise RuntimeError("the machine caught fire")
        return whole(works)

    monkeypatch.setattr(module, "train", fails_on_english)
    code, out, err = sabir("run", config, "--json")
    assert code == 1
    assert json.loads(out)["error"]["where"] == "topic: step adapter/en"
    assert err.splitlines()[-1].startswith("topic: step adapter/en: failed after")
    assert any(line.startswith("quiz: ") for line in err.splitlines()), "its run has a heading"
    between = Project(config).show()
    assert {name: one["pending"] > 0 for name, one in between["tasks"].items()} == {
        "topic": True,
        "quiz": False,
    }


def test_an_interruption_stops_every_task(tmp_path, monkeypatch):
    config = write_two(tmp_path)
    from sabir.project import running

    begun = []

    def interrupted(config, *_, **__):
        begun.append(config.task_name)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "do_missing", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Project(config).run()
    assert begun == ["topic"]


def test_nothing_runs_where_a_later_task_cannot(tmp_path):
    config = write_two(tmp_path)
    write_rows(tmp_path / "quiz/fr/test.jsonl", [{"input": "?", "output": "wine", **QUIZ}])
    with pytest.raises(InputError, match="'wine' is none of the choices"):
        Project(config).run()
    assert not (tmp_path / ".sabir/steps").exists()


def test_what_is_wrong_with_several_tasks_is_told_at_once_with_each_ones_name(tmp_path):
    config = write_two(tmp_path)
    shutil.rmtree(tmp_path / "quiz/fr")
    (tmp_path / "quiz/fr").mkdir()
    (tmp_path / "topic/en/test.jsonl").unlink()
    with pytest.raises(InputErrors) as caught:
        Project(config).check()
    places = [error.where for error in caught.value.problems()]
    assert any("topic" in place and "en" in place for place in places)
    assert any("quiz" in place and "fr" in place for place in places)


def test_errors_say_which_task_they_are_of():
    config = SimpleNamespace(task_name="quiz")

    def where(place: str, kind=InputError) -> str:
        with pytest.raises(kind) as caught, told(config):
            raise kind(place, "is wrong.")
        assert type(caught.value) is kind
        return caught.value.where

    assert where("data.de") == "tasks.quiz.data.de"
    assert where("merges.t.density") == "tasks.quiz.merges.t.density"
    assert where("seeds") == "tasks.quiz.seeds"
    assert where("data/de.jsonl, line 3") == "quiz: data/de.jsonl, line 3"
    assert where("/a/data.jsonl, line 3") == "/a/data.jsonl, line 3"
    assert where("base") == "base"
    assert where("run.store") == "run.store"
    assert where("step adapter/de", StepFailed) == "quiz: step adapter/de"
    assert where("--language xx") == "quiz: --language xx"
    several = InputErrors([InputError("data.de", "a."), InputError("task.name", "b.")])
    with pytest.raises(InputErrors) as caught, told(config):
        raise several
    assert [one.where for one in caught.value.problems()] == ["tasks.quiz.data.de", "tasks.quiz.task.name"]
    with pytest.raises(InputError) as caught, told(SimpleNamespace(task_name=None)):
        raise InputError("data.de", "a.")
    assert caught.value.where == "data.de"


def test_what_all_tasks_share_is_complained_about_once():
    def fails(config):
        raise InputError("base", "is gone.")

    with pytest.raises(InputError) as caught:
        each([SimpleNamespace(task_name="a"), SimpleNamespace(task_name="b")], fails)
    assert len(caught.value.problems()) == 1


def test_failures_of_several_kinds_end_as_the_worst_of_them():
    both = Failures([InputError("a", "x."), StepFailed("b", "y.")])
    assert (both.exit_code, both.kind, len(both.problems())) == (1, "step", 2)
    assert str(both) == "a: x.\nb: y."


# --- the command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "CONFIG", "text"],
        ["rollback", "CONFIG"],
        ["export", "CONFIG", "--out", "x"],
        ["why", "CONFIG", "adapter/de"],
        ["blame", "CONFIG", "1", "de"],
        ["forget", "CONFIG", "x"],
        ["plan", "CONFIG", "--what-if", "de=+5"],
    ],
)
def test_a_verb_about_one_model_asks_for_the_task(sabir, finished, arguments):
    code, out, err = sabir(*(finished.config if one == "CONFIG" else one for one in arguments))
    assert (code, out) == (2, "")
    assert err == f"{finished.config}: there are several tasks: topic, quiz. Name one: --task NAME.\n"


def test_a_task_that_is_not_there_is_named_with_those_that_are(sabir, finished):
    code, _, err = sabir("show", finished.config, "--task", "quizz")
    assert (code, err) == (
        2,
        "--task: there is no task 'quizz'. There are: topic, quiz. Did you mean 'quiz'?\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["plan"],
        ["run"],
        ["show"],
        ["show", "--scores"],
        ["releases"],
        ["gc", "--dry-run"],
        ["verify"],
    ],
)
def test_verbs_about_the_project_take_all_tasks(sabir, finished, arguments):
    code, out, _ = sabir(arguments[0], finished.config, *arguments[1:])
    assert code == 0
    if arguments[0] in ("plan", "run", "show", "releases"):
        assert out.index("=== topic ===") < out.index("=== quiz ===")
    code, out, _ = sabir(arguments[0], finished.config, *arguments[1:], "--json")
    assert code == 0
    document = json.loads(out)
    assert arguments[0] in ("gc", "verify") or set(document["tasks"]) == {"topic", "quiz"}


def test_rows_of_several_tasks_say_which_in_csv_and_markdown_has_headings(sabir, finished):
    lines = sabir("show", finished.config, "--scores", "--csv")[1].splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == {"topic", "quiz"}
    compared = ("show", finished.config, "--compare", "merged/average", "base")
    lines = sabir(*compared, "--csv")[1].splitlines()
    place = lines[0].split(",").index("task")
    assert {line.split(",")[place] for line in lines[1:]} == {"topic", "quiz"}
    lines = sabir("show", finished.config, "--costs", "--csv")[1].splitlines()
    assert lines[0].endswith(",task")
    out = sabir(*compared, "--markdown")[1]
    assert [line for line in out.splitlines() if line.startswith("## ")] == ["## topic", "## quiz"]
    assert out.count("| a | b | language |") == 2


def test_the_scores_of_a_release_are_signed_as_those_that_are_shown(finished):
    project = Project(finished.config)
    place = ("task", "model", "language", "split", "metric")
    shown = {tuple(row[key] for key in place): row for row in project.show()["scores"]}
    for release in project.releases()["releases"]:
        own = {row["language"] for row in release["scores"]}
        assert "macro" in own
        for row in release["scores"]:
            there = shown[release["task"], *(row[key] for key in place[1:])]
            assert row["signature"] == there["signature"]
            assert row["language"] == "macro" or "|base:" in row["signature"]


def test_a_metric_or_a_model_that_one_task_lacks_is_told_with_the_task(sabir, finished):
    for more in ((), ("--scores", "--csv")):
        code, _, err = sabir("show", finished.config, "--metric", "macro_f1", *more)
        assert (code, err) == (
            2,
            "quiz: --metric: there are no scores by 'macro_f1'. There are: accuracy, accuracy_per_byte. "
            "Or show one task: --task topic.\n",
        )
    assert sabir("show", finished.config, "--metric", "macro_f1", "--task", "topic")[0] == 0
    code, _, err = sabir("show", finished.config, "--compare", "adapter/fr", "base")
    assert code == 2
    assert "topic: --compare: no scores on test of a model 'adapter/fr'." in err
    assert "Or compare in one task alone: --task NAME." in err


def test_predict_takes_rows_with_choices_and_the_prompt_of_a_language(sabir, finished, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(
        path, [{"input": "What is hot?", **QUIZ}, {"input": "And white?", "choices": ["snow", "coal"]}]
    )
    asked = ("predict", finished.config, "--task", "quiz")
    code, out, _ = sabir(*asked, "--file", path)
    assert code == 0
    first, second = out.splitlines()
    assert first in QUIZ["choices"]
    assert second in ("snow", "coal")
    answers = json.loads(sabir(*asked, "--file", path, "--json")[1])["predictions"]
    assert [set(answer["scores"]) for answer in answers] == [set(QUIZ["choices"]), {"snow", "coal"}]
    code, _, err = sabir(*asked, "What is hot?")
    assert code == 2
    assert "text 1: there are no choices. Give rows with" in err
    assert "--file rows.jsonl" in err
    topic = ("predict", finished.config, "--task", "topic", "das Paket", "--json")
    plain, german = (json.loads(sabir(*topic, *more)[1]) for more in ((), ("--language", "de")))
    assert plain["predictions"][0]["scores"] != german["predictions"][0]["scores"], "another prompt"
    code, _, err = sabir(*topic, "--language", "dee")
    assert code == 2
    assert "Did you mean 'de'?" in err


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "no JSON ("),
        ("[1]", "no JSON object."),
        ('{"text": "x"}', "there is no text `input`."),
        ('{"input": " "}', "there is no text `input`."),
        ('{"input": "x", "choices": "ab"}', "`choices` is no list of texts."),
        ('{"input": "x", "choices": ["a", 1]}', "`choices` is no list of texts."),
        ('{"input": "x", "instruction": 1}', "`instruction` is no text."),
        ('{"input": "x", "choices": ["a", "a"]}', "the choice 'a' is there twice."),
    ],
)
def test_rows_that_cannot_be_asked_are_refused_in_a_sentence(sabir, finished, tmp_path, line, what):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"input": "fine", "choices": ["a", "b"]}}\n\n{line}\n', encoding="utf-8")
    code, out, err = sabir("predict", finished.config, "--task", "quiz", "--file", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err
    assert f"{path}, line 3" in err or "text 2" in err


def test_five_languages_are_enough_for_a_second_config_beside_them(copy):
    """Plain configs and tasks share a store: neither sees the other's runs."""
    write_config(
        copy.parent,
        {
            "base": "embedded",
            "task": {"name": "classification", "labels": list(LABELS)},
            "data": {one: f"topic/{one}" for one in FIVE if (copy.parent / f"topic/{one}").is_dir()},
            "merges": "average",
        },
        "plain.yaml",
    )
    document = Project(copy.parent / "plain.yaml").show()
    assert (document["run"]["id"], document["costs"], document["release"]) == (None, [], None)
