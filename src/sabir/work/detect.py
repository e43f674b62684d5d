"""In which of the project's languages a text is written, by a detector's name."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.own_code import called, is_own, own_function, own_identity

PY3LANGID = "py3langid"
WHERE = "rivals.routed"
SHOWN = 40  # characters of a text in a message

Detect = Callable[[Sequence[str]], list[str]]  # texts to languages, one each


def detector(name: str, languages: Collection[str], code: Path | None) -> Detect:
    """The detector of that name, which answers with these languages and no others.

    A text without a letter says nothing of its language: py3langid is not asked, and the alphabetically first
    language is the answer.

    Args:
        name: "py3langid", or "my.module:function": a list of texts to a list of as many languages.
        languages: BCP-47, at least one; their order plays no part.
        code: the folder of the user's own modules; None: none may be run.
    Raises InputError for a detector that does not exist, is not installed, or cannot tell these languages apart;
    and when called, for an answer that is none of the languages.
    """
    known = tuple(sorted(languages))
    if is_own(name):
        return _own(name, own_function(name, code, where=WHERE), known)
    _must_be_known(name)
    if command := detector_missing(name):
        raise InputError(WHERE, f"{name} is not installed.", f"Run: {command}.")
    return _py3langid(known)


def detector_identity(name: str, code: Path | None = None) -> str:
    """What a detector's answers depend on beside the languages: its name and version, or the user's module.

    Raises InputError for a detector that does not exist.
    """
    if is_own(name):
        return own_identity(name, code)
    _must_be_known(name)
    return name if detector_missing(name) else f"{name}-{version(name)}"


def _must_be_known(name: str) -> None:
    if name != PY3LANGID:
        fix = f"Write {PY3LANGID}, or my.module:function.{did_you_mean(name, [PY3LANGID])}"
        raise InputError(WHERE, f"there is no language detector {name!r}.", fix)


def detector_missing(name: str) -> str | None:
    """The command that installs this detector, or None where it is there already (or the user's own)."""
    return "pip install 'sabir[detect]'" if name == PY3LANGID and find_spec(PY3LANGID) is None else None


def _py3langid(languages: tuple[str, ...]) -> Detect:
    by_subtag: dict[str, list[str]] = defaultdict(list)
    for language in languages:
        by_subtag[language.partition("-")[0]].append(language)
    for subtag, alike in by_subtag.items():
        if len(alike) > 1:
            raise InputError(
                WHERE,
                f"{PY3LANGID} knows {subtag!r} only, and cannot tell {' from '.join(alike)}.",
                "Name a detector that can, as my.module:function.",
            )
    identifier = _identifier(tuple(by_subtag))

    def detect(texts: Sequence[str]) -> list[str]:
        return [
            by_subtag[identifier.classify(text)[0]][0] if any(map(str.isalpha, text)) else languages[0]
            for text in texts
        ]

    return detect


@functools.lru_cache(maxsize=1)  # reading the model takes half a second
def _identifier(subtags: tuple[str, ...]):  # type: ignore[no-untyped-def]
    """py3langid's model with these languages alone: an instance, for its own functions share a global one."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if unknown := [subtag for subtag in subtags if subtag not in identifier.labels]:
        raise InputError(
            WHERE,
            f"{PY3LANGID} does not know {', '.join(map(repr, unknown))}.",
            "Name a detector that does, as my.module:function.",
        )
    identifier.set_languages(subtags)
    return identifier


def _own(name: str, function: Callable[..., object], languages: tuple[str, ...]) -> Detect:
    def detect(texts: Sequence[str]) -> list[str]:
        fix = "It is given a list of texts and returns a list with one language for each."
        found = called(name, function, list(texts), where=WHERE, fix=fix)
        if not isinstance(found, (list, tuple)) or len(found) != len(texts):
            given = (
                f"{len(found)} answers" if isinstance(found, (list, tuple)) else f"a {type(found).__name__}"
            )
            raise InputError(WHERE, f"{name!r} gave {given} for {len(texts)} texts.", fix)
        for place, (text, language) in enumerate(zip(texts, found, strict=True), 1):
            if language not in languages:
                raise InputError(
                    WHERE,
                    f"{name!r} answered {language!r} to text {place} of {len(texts)} ({text[:SHOWN]!r}).",
                    f"It may answer: {', '.join(languages)}.",
                )
        return list(found)

    return detect
