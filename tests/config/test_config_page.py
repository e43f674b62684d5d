"""docs/config.md: its examples load, and it names every key."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sabir import starter
from sabir.config import (
    EvaluationConfig,
    GateConfig,
    MergeConfig,
    RivalsConfig,
    RunConfig,
    SearchConfig,
    ServeConfig,
    TranslateConfig,
    load_configs,
    members,
)
from sabir.config.tasks import SECTIONS, SHARED
from sabir.languages import UpdateConfig
from sabir.tasks import TASKS

DOCS = Path(__file__).parents[2] / "docs" / "config.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[1].strip()[:20])
def test_every_example_of_the_docs_loads(example, tmp_path):
    for language in ("data/de", "data/en", "data/nl", "news/de", "news/en"):
        (tmp_path / language).mkdir(parents=True)
    for name in ("data/fr.jsonl", "a.jsonl", "b.jsonl", "c.jsonl", "v.jsonl", "t.jsonl"):
        (tmp_path / name).touch()
    for adapter in ("zh", "in-use"):
        (tmp_path / "adapters" / adapter).mkdir(parents=True)
        (tmp_path / "adapters" / adapter / "adapter_config.json").write_text("{}")
    section = example.partition(":")[0]
    task, data = (
        "task: {name: classification, labels: [a, b]}\n",
        "data: {de: data/de, en: data/en, fr: data/fr.jsonl}\n",
    )
    given = {"data": task, "task": data, "tasks": ""}.get(section, task + data)
    (tmp_path / "config.yaml").write_text(f"base: embedded\n{given}{example}", encoding="utf-8")
    for config in load_configs(tmp_path / "config.yaml"):
        for merge in config.merges.values():
            for member in members(merge):
                assert merge.made(member.settings).method


def test_the_docs_name_every_key():
    text = DOCS.read_text(encoding="utf-8")
    for kind in (
        *(MergeConfig, SearchConfig, UpdateConfig, GateConfig, ServeConfig, RunConfig),
        *(EvaluationConfig, RivalsConfig, TranslateConfig),
    ):
        for field in dataclasses.fields(kind):
            assert field.name in ("name", "settings") or re.search(rf"`(\w+\.)?{field.name}`", text)


def test_the_docs_name_every_task_and_its_settings():
    text = DOCS.read_text(encoding="utf-8").split("## `task`")[1].split("\n## ")[0]
    for name in TASKS.names():
        for word in (name, *TASKS.get(name).settings):
            assert f"`{word}`" in text, word


def test_the_docs_name_every_section():
    text = DOCS.read_text(encoding="utf-8").split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert named == {*SHARED, *SECTIONS, "tasks"}


def test_what_the_starter_config_has_in_comments_loads_too(tmp_path):
    for language in ("en", "de", "nl"):
        (tmp_path / "data" / language).mkdir(parents=True)
    commented = ("rivals", "seeds", "evaluate", "prices", "prompts")
    text, count = re.subn(rf"^( *)# ({'|'.join(commented)}):", r"\1\2:", starter.TEXT, flags=re.MULTILINE)
    assert count == len(commented)
    (tmp_path / "sabir.yaml").write_text(text, encoding="utf-8")
    (config,) = load_configs(tmp_path / "sabir.yaml")
    assert config.rivals.shots
    assert config.task.prompts
    (tasks,) = re.findall(r"^# (tasks: .*)$", starter.TEXT, re.MULTILINE)
    filled = tasks.replace("task: ...", "task: summarization").replace("data: ...", "data: {de: data/de}")
    (tmp_path / "tasks.yaml").write_text(f"base: embedded\n{filled}\n", encoding="utf-8")
    assert [one.task_name for one in load_configs(tmp_path / "tasks.yaml")] == ["sentiment", "topic"]
