"""YAML -> Config: one frozen value that says what to train, merge and judge.

Everything wrong is reported at once, each with its file, line and key path, before anything heavy is
imported. What a run may take from here into an identity is the planner's business; this package only reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sabir.config.merges import Member, members
from sabir.config.sections import read_config, refuse_unknown_sections
from sabir.config.tasks import TaskReader, of_task, one_of, read_tasks
from sabir.config.values import (
    KINDS,
    Config,
    EnsembleConfig,
    EstimateConfig,
    EvaluationConfig,
    GateConfig,
    Grid,
    JudgeConfig,
    MergeConfig,
    PricesConfig,
    RivalsConfig,
    RunConfig,
    SearchConfig,
    SelectConfig,
    ServeConfig,
    TaskConfig,
    TranslateConfig,
)
from sabir.errors import raise_all
from sabir.settings import Reader, parse_overrides
from sabir.strict_yaml import load, read_text

__all__ = [
    "KINDS",
    "Config",
    "EnsembleConfig",
    "EstimateConfig",
    "EvaluationConfig",
    "GateConfig",
    "Grid",
    "JudgeConfig",
    "Member",
    "MergeConfig",
    "PricesConfig",
    "RivalsConfig",
    "RunConfig",
    "SearchConfig",
    "SelectConfig",
    "ServeConfig",
    "TaskConfig",
    "TranslateConfig",
    "load_config",
    "load_configs",
    "members",
    "task_of",
]


def load_config(
    path: str | Path,
    *,
    overrides: Mapping[str, str] | Sequence[str] = (),
    allow_code: bool = False,
    task: str | None = None,
) -> Config:
    """One config: that of a file with one task, or of the task of that name. For the rest see `load_configs`."""
    return task_of(load_configs(path, overrides=overrides, allow_code=allow_code), task)


def task_of(configs: Sequence[Config], task: str | None) -> Config:
    """The config of the task of that name; None: of the only one. Raises InputError for one that is not there, and
    where none is named and there are several."""
    return configs[one_of([config.task_name for config in configs], task, where=str(configs[0].path))]


def load_configs(
    path: str | Path, *, overrides: Mapping[str, str] | Sequence[str] = (), allow_code: bool = False
) -> tuple[Config, ...]:
    """What a YAML file says, checked: names, types, ranges, and that its files exist. One config, or one for each of
    its `tasks`, in the order of the file.

    Args:
        path: the file.
        overrides: settings from the command line, {"lora.epochs": "5"} or ["lora.epochs=5"]; a value is
            read as YAML.
        allow_code: whether functions of the user's own ("my.module:function") may be loaded and run.
    Raises InputErrors with everything that is wrong in one go.
    """
    given, lines = load(read_text(path), where=str(path))
    reader = Reader(str(path), lines)
    for key_path, value in parse_overrides(overrides):
        reader.override(given, key_path, value)
    reader.refuse_unusable_numbers(given, ())
    raise_all(reader.errors)
    file = Path(os.path.abspath(path))
    if given.get("tasks") is None:
        configs = [read_config(reader, given, file, allow_code)]
    else:
        configs = _tasks(reader, given, file, allow_code)
    raise_all(reader.errors)
    return tuple(configs)


def _tasks(reader: Reader, given: dict[str, Any], file: Path, allow_code: bool) -> list[Config]:
    """A config for each task; each has a serving folder of its own."""
    refuse_unknown_sections(reader, given)
    configs: list[Config] = []
    for name, own in read_tasks(reader, given).items():
        inside = TaskReader(reader, name, own, given)
        config = read_config(inside, of_task(reader, own, given), file, allow_code, task_name=name)
        configs.append(config if inside.is_own(("serve", "folder")) else _served_apart(config))
        same = [one for one in configs[:-1] if one.serve.folder == configs[-1].serve.folder]
        if same:
            found = f"tasks.{same[0].task_name} is served from there too."
            reader.wrong(("tasks", name, "serve", "folder"), found, "Name another folder.")
    return configs


def _served_apart(config: Config) -> Config:
    folder = config.serve.folder or config.run.store / "serve"
    return replace(config, serve=replace(config.serve, folder=folder / str(config.task_name)))
