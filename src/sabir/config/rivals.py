"""The section `rivals`: what merging is held against, and on which other texts."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from sabir.catalog import did_you_mean
from sabir.config.values import Config, RivalsConfig, Stress, TranslateConfig
from sabir.errors import InputError
from sabir.languages import read_unseen, resolved
from sabir.own_code import is_own, own_function
from sabir.settings import Filled, Range, Reader, Text, shown
from sabir.strict_yaml import KeyPath

_PATH = ("rivals",)
_HINTS = {
    "shots": Annotated[int, Range(ge=0, le=64)],
    "merged_rank": bool,
    "routed": Text | None,
    "translate": Any,
    "stress": Annotated[tuple[Stress, ...], Filled()],
    "unseen": Any,
}


def read_rivals(
    reader: Reader, given: Mapping[str, Any], folder: Path, languages: Collection[str], code: Path | None
) -> RivalsConfig:
    """The section `rivals`; what is wrong goes to the reader.

    Args:
        folder: where relative paths start.
        code: where modules of the user's own are looked for; None where none may be run.
    """
    written = reader.mapping(given, _PATH)
    read = reader.settings(written, _HINTS, _PATH, "'rivals'")
    read["translate"] = _translate(reader, written, folder, languages)
    read["unseen"] = read_unseen(reader, written, (*_PATH, "unseen"), folder, languages)
    rivals = RivalsConfig(**read)
    for name, path in (
        (rivals.routed, (*_PATH, "routed")),
        (rivals.translate and rivals.translate.model, (*_PATH, "translate", "model")),
    ):
        if name and is_own(name):
            reader.attempt(partial(_own, name, code), path)
    return rivals


def _own(name: str, code: Path | None, where: str) -> None:
    own_function(name, code, where=where)


def _translate(
    reader: Reader, given: Mapping[str, Any], folder: Path, languages: Collection[str]
) -> TranslateConfig | None:
    path = (*_PATH, "translate")
    written = given.get("translate")
    if written is None:
        return None
    if isinstance(written, str):
        given = {"translate": {"model": written}}
    read = reader.settings(
        reader.mapping(given, path),
        {"model": Text, "to": Text, "languages": Mapping[str, Text]},
        path,
        "'translate'",
    )
    if "model" not in read:
        if "model" not in reader.mapping(given, path):
            fix = "Write a folder, a hub name, or my.module:function."
            reader.wrong((*path, "model"), "it is missing.", fix)
        return None
    found = TranslateConfig(**read)
    if not is_own(found.model):
        fix = "Or name a function of yours: my.module:function."
        check_model(reader, found.model, (*path, "model"), folder, fix)
    known = f"There are: {', '.join(languages)}."
    if languages and found.to not in languages:
        fix = f"Its own adapter answers. {known}{did_you_mean(found.to, languages)}"
        reader.wrong((*path, "to"), f"{found.to!r} is none of the languages.", fix)
    for language in found.languages:
        if languages and language not in languages:
            fix = f"{known}{did_you_mean(language, languages)}"
            reader.wrong((*path, "languages", language), "there is no such language.", fix)
    return found


def check_model(reader: Reader, name: str, path: KeyPath, folder: Path, fix: str) -> None:
    """Complain about a model that is neither a folder that is there nor has the form of a hub name.

    Args:
        folder: where relative paths start.
        fix: what else one could write.
    """
    if os.path.isdir(resolved(folder, name)):
        return
    if name.startswith((".", "/", "~")):
        reader.wrong(path, f"{shown(name)} is no folder.", f"Looked in {resolved(folder, name)}.")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        found = f"{shown(name)} is neither a folder nor a hub name such as Qwen/Qwen3-0.6B."
        reader.wrong(path, found, fix)


def check_rivals(reader: Reader, config: Config) -> None:
    """Complain about rivals that this task and these languages cannot have."""
    rivals, languages = config.rivals, list(config.languages)
    brought = [name for name, one in config.languages.items() if one.adapter is not None]
    if rivals.shots and brought:
        found = (
            f"there are no training rows of {', '.join(brought)} to take examples from: an adapter is given."
        )
        reader.wrong((*_PATH, "shots"), found, "Write shots: 0.")
    if len(languages) == 1:
        for name, asked, what in (
            ("routed", rivals.routed, "nothing to choose among"),
            ("translate", rivals.translate, "nothing to translate"),
            ("stress", {*rivals.stress} & {"code-switched", "mislabelled"}, "no other to mix it with"),
        ):
            if asked:
                found = f"there is one language, {languages[0]}, and {what}."
                reader.wrong((*_PATH, name), found, "Leave it out, or add a language.")
    for kind in sorted({kind for kind in rivals.stress if rivals.stress.count(kind) > 1}):
        reader.wrong((*_PATH, "stress"), f"{kind!r} stands there twice.", "Keep one of the two.")
    if rivals.merged_rank and not config.merges:
        found = "there is no merge to hold a combined adapter of its rank against."
        reader.wrong((*_PATH, "merged_rank"), found, "Leave it out, or name merges.")
    if rivals.translate is not None and _answer(config) not in (None, "label"):
        found = "a translated question is answered in another language; only labels are the same in all."
        reader.wrong((*_PATH, "translate"), found, "Leave it out.")
    if rivals.stress and _answer(config) not in (None, "label"):
        found = f"short, code-switched and mislabelled texts are made for labels, and {config.task.name!r} has none."
        reader.wrong((*_PATH, "stress"), found, "Leave it out; unseen: goes with every task.")


def _answer(config: Config) -> str | None:
    """How the task's answers are found; None where the task is not known."""
    from sabir.tasks import make_task

    try:
        return make_task(config.task.name, config.task.settings, code=config.task.code).answer
    except InputError:  # said where the task was read
        return None
