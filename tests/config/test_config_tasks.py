"""The section `tasks`: several tasks in one config, each the common sections with single keys of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_texts import MINIMAL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabir.config import Config, load_config, load_configs
from sabir.errors import InputError
from sabir.languages import UpdateConfig

TWO = """\
base: embedded
tasks:
  sentiment:
    task: {name: classification, labels: [good, bad]}
    data: {de: data/de, en: data/en}
    lora: {epochs: 2}
  topic:
    task: summarization
    data: {de: data/de, no: data/no}
    update: {replay: 0.3}
    merges: [average]
    baseline: none
    gate: {max_drop: 0.1}
lora: {epochs: 5, rank: 4}
update: continue
baseline: combined
merges: {ties: {method: ties}}
gate: {undecided: refuse}
run: {workers: 2}
"""


@pytest.fixture
def both(project, monkeypatch):
    """Loads a YAML text as `config.yaml` of the project: the configs by task."""
    monkeypatch.chdir(project)

    def load(text: str, *overrides: str) -> dict[str | None, Config]:
        Path("config.yaml").write_text(text, encoding="utf-8")
        return {one.task_name: one for one in load_configs("config.yaml", overrides=overrides)}

    return load


@pytest.fixture
def told(both):
    """The sentences a YAML text earns."""

    def refused(text: str, *overrides: str) -> list[str]:
        with pytest.raises(InputError) as caught:
            both(text, *overrides)
        return [str(error) for error in caught.value.problems()]

    return refused


def test_a_task_has_the_common_sections_with_its_own_keys(both):
    configs = both(TWO)
    assert list(configs) == ["sentiment", "topic"]
    sentiment, topic = configs.values()
    assert (sentiment.lora.epochs, topic.lora.epochs) == (2.0, 5.0)
    assert (sentiment.lora.rank, topic.lora.rank) == (4, 4)
    assert (sentiment.update, topic.update) == (UpdateConfig("continue"), UpdateConfig("continue", 0.3))
    assert (sentiment.baseline, topic.baseline) == ("combined", "none")
    assert (list(sentiment.merges), list(topic.merges)) == (["ties"], ["average"])
    assert [(one.gate.max_drop, one.gate.undecided) for one in configs.values()] == [
        (0.02, "refuse"),
        (0.1, "refuse"),
    ]
    assert (list(sentiment.languages), list(topic.languages)) == (["de", "en"], ["de", "no"])
    assert {(one.base, one.run, one.path) for one in configs.values()} == {
        ("embedded", sentiment.run, sentiment.path)
    }


def test_what_is_kept_by_config_is_kept_by_task(both, project, read):
    sentiment, topic = both(TWO).values()
    assert (sentiment.name, topic.name) == ("config.yaml#sentiment", "config.yaml#topic")
    assert topic.where == project / "config.yaml#topic"
    assert (topic.task_title, read(MINIMAL).task_title) == ("topic", "summarization")
    assert (read(MINIMAL).name, read(MINIMAL).where) == ("config.yaml", project / "config.yaml")


def test_every_task_is_served_from_a_folder_of_its_own(both, project, told):
    assert [one.serve.folder for one in both(TWO).values()] == [
        project / ".sabir/serve/sentiment",
        project / ".sabir/serve/topic",
    ]
    served = both(TWO + "serve: {folder: served}\n", "tasks.topic.serve.folder=elsewhere")
    assert [one.serve.folder for one in served.values()] == [
        project / "served/sentiment",
        project / "elsewhere",
    ]
    (sentence,) = told(TWO, "tasks.topic.serve.folder=x", "tasks.sentiment.serve.folder=x")
    assert sentence == (
        "--set tasks.topic.serve.folder: tasks.sentiment is served from there too. Name another folder."
    )


def test_one_task_is_asked_for_by_name(both, project):
    both(TWO)
    assert load_config("config.yaml", task="topic").task_name == "topic"
    with pytest.raises(
        InputError, match=r"there are several tasks: sentiment, topic\. Name one: --task NAME\."
    ):
        load_config("config.yaml")
    with pytest.raises(
        InputError, match=r"no task 'topik'\. There are: sentiment, topic\. Did you mean 'topic'"
    ):
        load_config("config.yaml", task="topik")
    both(MINIMAL)
    assert load_config("config.yaml").task_name is None
    with pytest.raises(InputError, match=r"no task 'topic': the config has one, without a name"):
        load_config("config.yaml", task="topic")


def test_a_single_task_under_tasks_needs_no_name(both):
    both(TWO[: TWO.index("  topic:")] + TWO[TWO.index("lora: {epochs: 5") :])
    assert load_config("config.yaml").name == "config.yaml#sentiment"


def test_settings_from_the_command_line_are_common_or_of_one_task(both):
    rank = {name: one.lora.rank for name, one in both(TWO, "lora.rank=8").items()}
    assert rank == {"sentiment": 8, "topic": 8}
    epochs = both(TWO, "lora.epochs=9", "tasks.topic.lora.rank=2")
    assert {name: one.lora.epochs for name, one in epochs.items()} == {"sentiment": 2.0, "topic": 9.0}
    assert epochs["topic"].lora.rank == 2


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs: 2", "epochs: x", "line 6: tasks.sentiment.lora.epochs: 'x' is not a number above 0."),
        ("rank: 4", "rank: 0", "line 14: lora.rank: 0 is not a whole number of at least 1."),
        ("replay: 0.3", "replay: 3", "line 10: tasks.topic.update.replay: 3 is not a number from 0 to 1."),
        (
            "no: data/no",
            "no: {file: data/it.txt}",
            "line 9: tasks.topic.data.no.file: 'data/it.txt' does not end in",
        ),
        ("labels:", "label:", "line 4: tasks.sentiment.task.label: no such setting."),
        ("[average]", "[avrage]", "line 11: tasks.topic.merges.avrage: no such recipe or merge method"),
        ("{method: ties}", "{method: tise}", "line 17: merges.ties: no such recipe or merge method"),
        (
            "    baseline: none",
            "    base: embedded",
            "line 12: tasks.topic.base: all tasks share it. Write base: once, beside tasks:.",
        ),
        (
            "    baseline: none",
            "    baselin: none",
            "line 12: tasks.topic.baselin: no such setting. A task takes: task, data, lora, ",
        ),
        (
            "    task: summarization\n",
            "",
            "line 7: tasks.topic.task: it is missing. Write `task: summarization`",
        ),
        (
            "  topic:",
            "  to pic:",
            "line 7: tasks.to pic: 'to pic' cannot name a task. Use letters, digits, - and _.",
        ),
        ("  topic:", "  leer:\n  topic:", "line 7: tasks.leer: nothing is given. Write its task: and data:."),
        ("  topic:", "  drei: 3\n  topic:", "line 7: tasks.drei: 3 is not a mapping."),
        (
            "run: ",
            "task: summarization\nrun: ",
            "line 19: task: it does not go with tasks:. Keep one of them: write task: under each task.",
        ),
        ("run: ", "data: {de: data/de}\nrun: ", "line 19: data: it does not go with tasks:."),
        ("run: {workers: 2}", "run: {workers: 0}", "line 19: run.workers: 0 is not"),
        ("run: ", "rum: ", "line 19: rum: no such setting. A config takes: base, task, data, tasks, "),
        ("lora: {epochs: 5, rank: 4}", "lora: 3", "line 14: lora: 3 is not a mapping."),
    ],
)
def test_what_is_wrong_is_told_once_where_it_stands(told, old, new, sentence):
    assert TWO.count(old) == 1
    told_of = told(TWO.replace(old, new))
    assert [one for one in told_of if not one.startswith(f"config.yaml, {sentence}")] in ([], told_of[1:])
    assert told_of[0].startswith(f"config.yaml, {sentence}")
    assert len(set(told_of)) == len(told_of)


def test_what_is_wrong_with_all_tasks_is_told_at_once(told):
    wrong = TWO.replace("labels:", "label:").replace("data/no", "data/gone").replace("rank: 4", "rank: 0")
    assert [sentence.split(": ")[1] for sentence in told(wrong)] == [
        "tasks.sentiment.task.label",
        "tasks.sentiment.task.labels",
        "tasks.topic.data.no",
        "lora.rank",
    ]


@pytest.mark.parametrize(("tasks", "what"), [("{}", "there is no task."), ("3", "3 is not a mapping.")])
def test_tasks_that_are_none_are_refused(told, tasks, what):
    (sentence,) = told(f"base: embedded\ntasks: {tasks}\n")
    assert sentence.startswith(f"config.yaml, line 2: tasks: {what}")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["", "x", "continue", "ties", "data/de"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["task", "data", "de", "lora", "rank", "mode", "a b"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)
places = st.sampled_from(
    [
        *("tasks", "tasks.topic", "tasks.topic.task", "tasks.topic.lora", "tasks.topic.merges", "tasks.new"),
        *(
            "tasks.topic.update",
            "tasks.topic.serve",
            "tasks.topic.run",
            "tasks.topic.rivals",
            "tasks.topic.seeds",
        ),
        *(
            "lora",
            "update",
            "merges",
            "serve",
            "rivals",
            "rivals.unseen",
            "seeds",
            "task",
            "data",
            "gate",
            "evaluate",
        ),
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(places, anything, max_size=3))
def test_any_value_anywhere_in_tasks_is_taken_or_refused_in_a_sentence(both, changes):
    import yaml

    overrides = [f"{place}={yaml.safe_dump(value, allow_unicode=True)}" for place, value in changes.items()]
    try:
        configs = both(TWO, *overrides)
    except InputError as error:
        assert str(error)  # noqa: PT017
    else:
        assert len({one.name for one in configs.values()}) == len(configs)
        assert len({one.serve.folder for one in configs.values()}) == len(configs)
