"""The section `rivals`: what merging is held against, and on which other texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from sabir.catalog import did_you_mean
from sabir.config.values import RivalsConfig, Stress, TranslateConfig
from sabir.languages import read_unseen
from sabir.settings import Filled, Range, Reader, Text

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
    reader: Reader, given: Mapping[str, Any], folder: Path, languages: Collection[str]
) -> RivalsConfig:
    """The section `rivals`; what is wrong goes to the reader."""
    written = reader.mapping(given, _PATH)
    read = reader.settings(written, _HINTS, _PATH, "'rivals'")
    read["translate"] = _translate(reader, written, languages)
    read["unseen"] = read_unseen(reader, written, (*_PATH, "unseen"), folder, languages)
    return RivalsConfig(**read)


def _translate(
    reader: Reader, given: Mapping[str, Any], languages: Collection[str]
) -> TranslateConfig | None:
    path = (*_PATH, "translate")
    written = given.get("translate")
    if written is None:
        return None
    if isinstance(written, str):
        given = {"translate": {"model": written}}
    read = reader.settings(
        reader.mapping(given, path),
        {"model": Text, "to": Text, "languages": Mapping[str, str]},
        path,
        "'translate'",
    )
    if "model" not in read:
        fix = "Write a folder, a hub name, or my.module:function."
        reader.wrong((*path, "model"), "it is missing.", fix)
        return None
    found = TranslateConfig(**read)
    if languages and found.to not in languages:
        fix = (
            f"Its own adapter answers. There are: {', '.join(languages)}.{did_you_mean(found.to, languages)}"
        )
        reader.wrong((*path, "to"), f"{found.to!r} is none of the languages.", fix)
    return found
