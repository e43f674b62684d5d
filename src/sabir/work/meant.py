"""Which of some options a text means that a model wrote freely."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR")  # scripts of narrow letters that part no words


def meant(text: str, options: Sequence[str]) -> str | None:
    """The one option that a text is or names; None where it is none of them, or names several.

    Tried to the letter, then without case, blanks and marks around it, then within a sentence: there an option counts
    as whole words, in scripts that part words, and not as part of a longer option ("relevant" in "not relevant", where
    both are options). An option of one character is named in its own case only: "a" is a word.
    """
    if text.strip() in options:
        return text.strip()
    bare = _bare(text)
    same = [option for option in options if bare and _bare(option) == bare]
    return same[0] if len(same) == 1 else _named(text, options)


def _named(text: str, options: Sequence[str]) -> str | None:
    written = _tidy(text)
    lowered = _lower(written)
    forms = {option: _tidy(option) for option in options}
    low = [_lower(form) for form in forms.values()]
    found = []
    for option, form in sorted(forms.items(), key=lambda item: -len(item[1])):
        cased = len(form) == 1 or low.count(_lower(form)) > 1
        spans = list(_spans(written, form) if cased else _spans(lowered, _lower(form)))
        for start, end in spans:  # what is part of this one names no shorter one
            written = written[:start] + " " * (end - start) + written[end:]
            lowered = lowered[:start] + " " * (end - start) + lowered[end:]
        found += [option] if spans else []
    return found[0] if len(found) == 1 else None


def _spans(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Where it stands in the text as whole words."""
    start = text.find(form) if form else -1
    while start >= 0:
        end = start + len(form)
        if not (start and _one_word(text[start - 1], form[0])) and not (
            end < len(text) and _one_word(form[-1], text[end])
        ):
            yield start, end
        start = text.find(form, start + 1)


def _one_word(a: str, b: str) -> bool:
    """Whether two characters side by side belong to one word for sure."""
    return all(_joins(one) for one in (a, b))


def _joins(character: str) -> bool:
    if not character.isalnum() and not unicodedata.category(character).startswith("M"):
        return False
    wide = unicodedata.east_asian_width(character) in "WF"
    return not wide and not unicodedata.name(character, "").startswith(UNSPACED)


def _bare(text: str) -> str:
    """Without case, and without what stands around its letters and digits; "" where there are none."""
    form = _tidy(text).casefold()
    inside = [place for place, character in enumerate(form) if character.isalnum()]
    return form[inside[0] : inside[-1] + 1] if inside else ""


def _tidy(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _lower(text: str) -> str:
    """In lower case, as long as it was."""
    return "".join(low if len(low := one.lower()) == 1 else one for one in text)
