"""The section `task`: what the model is asked, and what it is told otherwise in single languages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sabir.catalog import Entry, did_you_mean
from sabir.config.values import TaskConfig
from sabir.errors import InputError, SabirError
from sabir.languages import resolved
from sabir.own_code import is_own
from sabir.settings import Reader, Text, conform, expected, shown
from sabir.strict_yaml import KeyPath, load, read_text

_PATH: KeyPath = ("task",)
_PROMPTS: KeyPath = ("task", "prompts")


def read_task(
    reader: Reader, given: Mapping[str, Any], languages: Collection[str], folder: Path, code: Path | None
) -> TaskConfig:
    """The section `task`; what is wrong goes to the reader.

    Args:
        languages: those of the config, which may have prompts of their own.
        folder: where relative paths start.
        code: where modules of the user's own are looked for; None where none may be run.
    """
    task = given.get("task")
    if isinstance(task, str):
        task = {"name": task}
    elif not isinstance(task, dict):
        reader.mapping(given, _PATH)
        return TaskConfig("", {})
    if "name" not in task:
        reader.wrong((*_PATH, "name"), "it is missing.", "Write it, such as `name: classification`.")
    name = reader.one(task, "name", Text, _PATH, "")
    if not name:
        return TaskConfig("", {})
    entry = reader.attempt(partial(_entry, name, code), (*_PATH, "name"))
    if entry is None:
        return TaskConfig(name, {})
    known = entry.settings
    written = {key: value for key, value in task.items() if key not in ("name", "prompts")}
    before = len(reader.errors)
    hints = {key: setting.hint for key, setting in known.items()}
    settings = reader.settings(written, hints, _PATH, repr(name))
    for key, setting in known.items():
        if setting.required and key not in written:
            reader.wrong((*_PATH, key), "it is missing.", f"{name!r} needs {expected(setting.hint)} here.")
    texts = [key for key, hint in hints.items() if hint is str]
    config = TaskConfig(name, settings, _prompts(reader, task, languages, texts, folder), code)
    if len(reader.errors) == before and reader.attempt(partial(_made, config, None), _PATH):
        for language in config.prompts:
            reader.attempt(partial(_made, config, language), (*_PROMPTS, language))
    return config


def _prompts(
    reader: Reader, task: Mapping[str, Any], languages: Collection[str], texts: Collection[str], folder: Path
) -> dict[str, dict[str, str]]:
    """What the task says otherwise in single languages: in the config, or in a file of the same form."""
    written = task.get("prompts")
    if not isinstance(written, str):
        return _by_language(reader, reader.mapping(task, _PROMPTS), languages, texts, _PROMPTS)
    place = resolved(folder, written)
    if not place.is_file():
        reader.wrong(_PROMPTS, f"there is no file {shown(written)}.", f"Looked for {place}.")
        return {}
    try:
        content, lines = load(read_text(place), where=str(place))
    except InputError as error:
        reader.keep(error.problems(), _PROMPTS)  # type: ignore[arg-type]
        return {}
    inside = Reader(str(place), lines)
    prompts = _by_language(inside, content, languages, texts, ())
    reader.keep(inside.errors, _PROMPTS)
    return prompts


def _by_language(
    reader: Reader,
    written: Mapping[str, Any],
    languages: Collection[str],
    texts: Collection[str],
    path: KeyPath,
) -> dict[str, dict[str, str]]:
    prompts = {}
    for language, prompt in written.items():
        at = (*path, language)
        if language not in languages:
            known = f"There are: {', '.join(languages)}.{did_you_mean(language, languages)}"
            reader.wrong(at, "there is no such language.", known)
            continue
        if isinstance(prompt, str):
            prompt = {"instruction": prompt}
        here = reader.mapping({language: prompt}, at)
        if not here and (prompt is None or isinstance(prompt, dict)):
            reader.wrong(at, "nothing is given.", "Write its instruction, or {instruction: ..., cue: ...}.")
        prompts[language] = reader.settings(here, dict.fromkeys(texts, str), at, "a prompt")
    return prompts


def _entry(name: str, code: Path | None, where: str) -> Entry:
    from sabir.tasks import task_entry

    entry = task_entry(name, code=code, where=where)
    if is_own(name):
        try:
            for setting in entry.settings.values():
                with suppress(ValueError):
                    conform(None, setting.hint)
        except (TypeError, NameError, AttributeError) as error:
            fix = "Its keyword-only parameters are its settings: texts, numbers, truths, and lists of them."
            raise InputError(where, f"the settings of {name!r} cannot be read ({error}).", fix) from error
    return entry


def _made(config: TaskConfig, language: str | None, where: str) -> bool:
    """What only the task itself can say about its settings (labels named twice)."""
    from sabir.tasks import make_task

    asked = {"name": config.name, "settings": config.settings, "code": config.code}
    try:
        make_task(**(asked if language is None else config.of(language)), where=where)
    except SabirError:
        raise
    except Exception as error:
        if not is_own(config.name):
            raise
        found = f"{config.name!r} failed ({type(error).__name__}: {error})."
        raise InputError(where, found, "It is called with the settings that stand here.") from error
    return True
