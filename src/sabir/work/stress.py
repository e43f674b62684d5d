"""Step `stress`: harder test sets, made of the test rows of label tasks, whose gold labels they keep.

- `short`: the first words of a text, where a language detector and a model have little to go by.
- `code-switched`: the first half of a text, and the second half of one in another language.
- `mislabelled`: rows that come tagged as this language, and are in the others.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sabir.errors import InputError
from sabir.tasks import Prompt
from sabir.work import Outcome, Work
from sabir.work.prepare import Example, read_examples, write_examples

WHERE = "rivals.stress"
SHORT, SWITCHED, MISLABELLED = "short", "code-switched", "mislabelled"
SHORT_WORDS = 3
SHORT_CHARACTERS = 8  # where a language writes no spaces
UNSPACED = frozenset(("bo", "cmn", "dz", "ja", "km", "lo", "lzh", "my", "th", "wuu", "yue", "zh"))
Rows = Mapping[str, Sequence[Example]]  # test rows by language


def needs(kind: str, language: str, languages: Collection[str]) -> list[str]:
    """The languages whose test rows the stress set of one language stands on."""
    return [language] if kind == SHORT else sorted(languages)


def stress(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Write one language's stress set as test.jsonl; inputs are the rows as "rows/<language>".

    Ids are unique within a set, and every row has a group: its source's group or id. The result counts the rows,
    and those of the language's own that it has none for (`left_out`). Raises InputError when no row is left.
    """
    for work in works:
        kind, language, seed = (work.settings[key] for key in ("stress", "language", "seed"))
        rows = {
            role.removeprefix("rows/"): read_examples(folder, "test")
            for role, folder in work.inputs.items()
            if role.startswith("rows/")
        }
        if kind == SHORT:
            found = _short(rows[language], language)
        elif kind == SWITCHED:
            found = _code_switched(rows, language, seed)
        else:
            found = _mislabelled(rows, language, seed)
        if not found:
            raise InputError(WHERE, f"no test row of {language!r} makes a {kind!r} one.", "Take it out.")
        write_examples(work.out, "test", found)
        yield (
            work.name,
            {"result": {"rows": len(found), "left_out": max(0, len(rows[language]) - len(found))}},
        )


def _short(rows: Sequence[Example], language: str) -> list[Example]:
    """The first words of each text that has more of them."""
    limit = SHORT_CHARACTERS if _unspaced(language) else SHORT_WORDS
    found = []
    for row in rows:
        ends = _ends(row.prompt.source, language)
        if len(ends) > limit:
            found.append(_with_text(row, row.prompt.source[: ends[limit - 1]].strip()))
    return found


def _code_switched(rows: Rows, language: str, seed: int) -> list[Example]:
    """The first half of each text, and the second half of a row with the same label in another language.

    Where the other language has a row of the same id and label (parallel texts), it is that one.
    """
    by_id = {other: {row.id: row for row in rows[other]} for other in rows if other != language}
    by_label: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for other in by_id:
        for row in sorted(rows[other], key=lambda row: row.id):
            by_label[other, row.target].append(row)
    found = []
    for row in rows[language]:
        for other in sorted(by_id, key=lambda other: _drawn(seed, row.id, other)):
            alike = by_label[other, row.target]
            if not alike:
                continue
            same = by_id[other].get(row.id)
            if same is None or same.target != row.target:
                same = alike[_drawn(seed, row.id, other, "partner") % len(alike)]
            first, _ = _halves(row.prompt.source, language)
            _, second = _halves(same.prompt.source, other)
            found.append(_with_text(row, f"{first} {second}"))
            break
    return found


def _mislabelled(rows: Rows, language: str, seed: int) -> list[Example]:
    """As many rows as the language has, evenly from the others (fewer where one of them has not enough).

    Each comes with the instruction of this language, for that is what its tag says it is.
    """
    frames = [row.prompt for row in rows[language]]
    others = sorted(
        (other for other in rows if other != language), key=lambda other: _drawn(seed, language, other)
    )
    found: list[Example] = []
    for place, other in enumerate(others):
        share = (len(frames) + len(others) - 1 - place) // len(others)
        drawn = sorted(rows[other], key=lambda row: (_drawn(seed, language, other, row.id), row.id))
        for row in drawn[:share]:
            frame = frames[len(found) % len(frames)]
            prompt = Prompt(frame.before, row.prompt.source, frame.after)
            found.append(replace(row, id=f"{other}:{row.id}", prompt=prompt, group=row.group or row.id))
    return sorted(found, key=lambda row: row.id)


def _with_text(row: Example, text: str) -> Example:
    prompt = Prompt(row.prompt.before, text, row.prompt.after)
    return replace(row, prompt=prompt, group=row.group or row.id)


def _halves(text: str, language: str) -> tuple[str, str]:
    """A text in two, the first half with the word more; one of a single word is both."""
    ends = _ends(text, language)
    if len(ends) < 2:
        return text.strip(), text.strip()
    middle = ends[(len(ends) + 1) // 2 - 1]
    return text[:middle].strip(), text[middle:].strip()


def _unspaced(language: str) -> bool:
    return language.partition("-")[0] in UNSPACED


def _ends(text: str, language: str) -> list[int]:
    """Where each word ends; where no spaces are written each character, with the marks that belong to it."""
    if not _unspaced(language):
        return [match.end() for match in re.finditer(r"\S+", text)]
    ends: list[int] = []
    for place, character in enumerate(text):
        if character.isspace():
            continue
        if unicodedata.category(character)[0] == "M" and ends and ends[-1] == place:
            ends[-1] = place + 1
        else:
            ends.append(place + 1)
    return ends


def _drawn(seed: int, *parts: Any) -> int:
    """A number drawn for these parts: the same on every machine, whatever else is drawn."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *parts]).encode()).digest()[:8], "big")
