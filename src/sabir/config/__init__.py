"""YAML -> Config: one frozen value that says what to train, merge and judge.

Everything wrong is reported at once, each with its file, line and key path, before anything heavy is
imported. What a run may take from here into an identity is the planner's business; this package only reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sabir.config.merges import Member, members
from sabir.config.sections import read_config
from sabir.config.values import (
    Config,
    EvaluationConfig,
    GateConfig,
    Grid,
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
    "Config",
    "EvaluationConfig",
    "GateConfig",
    "Grid",
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
    "members",
]


def load_config(
    path: str | Path, *, overrides: Mapping[str, str] | Sequence[str] = (), allow_code: bool = False
) -> Config:
    """The config in a YAML file, checked: names, types, ranges, and that its files exist.

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
    config = read_config(reader, given, file, allow_code)
    raise_all(reader.errors)
    return config
