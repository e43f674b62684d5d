"""From YAML to a `Config`, section by section; what is wrong goes to the reader."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from sabir.catalog import Entry, did_you_mean
from sabir.config.merges import read_merges
from sabir.config.rivals import read_rivals
from sabir.config.values import (
    Config,
    EvaluationConfig,
    GateConfig,
    PricesConfig,
    RunConfig,
    SelectConfig,
    ServeConfig,
    TaskConfig,
)
from sabir.languages import LANGUAGE_FORM, LoraConfig, UpdateConfig, read_languages, read_update, resolved
from sabir.settings import Range, Reader, Text, expected, shown
from sabir.strict_yaml import KeyPath, load, read_text


def read_config(reader: Reader, given: dict[str, Any], file: Path, allow_code: bool) -> Config:
    """A config from what its file says.

    Args:
        allow_code: whether functions of the user's own may be loaded: they say which settings they take.
    """
    reader.refuse_unknown(given, _SECTIONS, (), "a config")
    for name in _MISSING:
        if given.get(name) is None:
            reader.wrong((name,), "it is missing.", _MISSING[name])
    folder = file.parent
    lora = reader.section(LoraConfig(), given, ("lora",))
    update = read_update(reader, UpdateConfig(), given, ("update",))
    languages = read_languages(reader, given, folder, lora, update)
    baseline = reader.one(given, "baseline", Literal["none", "combined", "continued"], (), "none")
    run = reader.section(RunConfig(), given, ("run",))
    run = replace(run, store=resolved(folder, str(run.store)))
    return Config(
        path=file,
        folder=folder,
        base=_base(reader, given, folder),
        task=_task(reader, given, languages, folder, folder if allow_code else None),
        languages=languages,
        lora=lora,
        update=update,
        baseline=baseline,
        merges=read_merges(reader, given, list(languages)),
        select=reader.section(SelectConfig(), given, ("select",)),
        gate=_gate(reader, given, folder),
        serve=_serve(reader, given, folder),
        prices=reader.section(PricesConfig(), given, ("prices",)),
        run=run,
        evaluate=reader.section(EvaluationConfig(), given, ("evaluate",)),
        rivals=read_rivals(reader, given, folder, languages),
        seeds=reader.one(given, "seeds", Annotated[int, Range(ge=1, le=20)], (), 1),
        allow_code=allow_code,
    )


_SECTIONS = (
    *("base", "task", "data", "lora", "update", "baseline", "merges"),
    *("select", "gate", "serve", "prices", "run", "evaluate", "rivals", "seeds"),
)
_MISSING = {
    "base": "Write `base: embedded`, a folder, or a hub name such as Qwen/Qwen3-0.6B.",
    "task": "Write `task: summarization`, or {name: classification, labels: [...]}.",
    "data": LANGUAGE_FORM,
}


def _base(reader: Reader, given: Mapping[str, Any], folder: Path) -> str:
    base = reader.one(given, "base", Text, (), "") if given.get("base") is not None else ""
    if not base or base == "embedded" or os.path.isdir(resolved(folder, base)):
        return base
    if base.startswith((".", "/", "~")):
        reader.wrong(("base",), f"{shown(base)} is no folder.", f"Looked in {resolved(folder, base)}.")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", base):
        reader.wrong(
            ("base",),
            f"{shown(base)} is neither a folder nor a hub name such as Qwen/Qwen3-0.6B.",
            f"'embedded' is the base that ships with sabir.{did_you_mean(base, ['embedded'])}",
        )
    return base


def _gate(reader: Reader, given: Mapping[str, Any], folder: Path) -> GateConfig:
    gate = reader.section(GateConfig(), given, ("gate",))
    if gate.incumbent is None:
        return gate
    place = resolved(folder, str(gate.incumbent))
    if not any((place / name).is_file() for name in ("adapter_config.json", "config.json")):
        fix = f"Looked for adapter_config.json or config.json in {place}."
        reader.wrong(
            ("gate", "incumbent"), f"{shown(str(gate.incumbent))} holds no adapter and no model.", fix
        )
    return replace(gate, incumbent=place)


def _serve(reader: Reader, given: Mapping[str, Any], folder: Path) -> ServeConfig:
    serve = reader.section(ServeConfig(), given, ("serve",))
    return serve if serve.folder is None else replace(serve, folder=resolved(folder, str(serve.folder)))


def _task(
    reader: Reader,
    given: Mapping[str, Any],
    languages: Collection[str],
    folder: Path,
    code: Path | None,
) -> TaskConfig:
    task = given.get("task")
    if isinstance(task, str):
        task = {"name": task}
    elif not isinstance(task, dict):
        reader.mapping(given, ("task",))
        return TaskConfig("", {})
    if "name" not in task:
        reader.wrong(("task", "name"), "it is missing.", "Write it, such as `name: classification`.")
    name = reader.one(task, "name", Text, ("task",), "")
    if not name:
        return TaskConfig("", {})
    entry = reader.attempt(partial(_task_entry, name, code), ("task", "name"))
    if entry is None:
        return TaskConfig(name, {})
    known = entry.settings
    written = {key: value for key, value in task.items() if key not in ("name", "prompts")}
    before = len(reader.errors)
    hints = {key: setting.hint for key, setting in known.items()}
    settings = reader.settings(written, hints, ("task",), repr(name))
    for key, setting in known.items():
        if setting.required and key not in written:
            reader.wrong(("task", key), "it is missing.", f"{name!r} needs {expected(setting.hint)} here.")
    texts = [key for key, hint in hints.items() if hint is str]
    config = TaskConfig(name, settings, _prompts(reader, task, languages, texts, folder), code)
    if len(reader.errors) == before:
        reader.attempt(partial(_check_task, config), ("task",))
    return config


def _prompts(
    reader: Reader, task: Mapping[str, Any], languages: Collection[str], texts: Collection[str], folder: Path
) -> dict[str, dict[str, str]]:
    """What the task says otherwise in single languages: in the config, or in a file of the same form."""
    path: KeyPath = ("task", "prompts")
    written = task.get("prompts")
    if isinstance(written, str):
        place = resolved(folder, written)
        if not place.is_file():
            reader.wrong(path, f"there is no file {shown(written)}.", f"Looked for {place}.")
            return {}
        content, _ = load(read_text(place), where=str(place))
        task = {"prompts": content}
    prompts = {}
    for language, prompt in reader.mapping(task, path).items():
        at = (*path, language)
        if language not in languages:
            known = f"There are: {', '.join(languages)}.{did_you_mean(language, languages)}"
            reader.wrong(at, "there is no such language.", known)
            continue
        if isinstance(prompt, str):
            prompt = {"instruction": prompt}
        here = reader.mapping({language: prompt}, at)
        prompts[language] = reader.settings(here, dict.fromkeys(texts, str), at, "a prompt")
    return prompts


def _task_entry(name: str, code: Path | None, where: str) -> Entry:
    from sabir.tasks import task_entry

    return task_entry(name, code=code, where=where)


def _check_task(config: TaskConfig, where: str) -> None:
    """What only the task itself can say about its settings (labels named twice)."""
    from sabir.tasks import make_task

    make_task(config.name, config.settings, code=config.code, where=where)
