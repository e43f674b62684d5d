"""How the texts of a language change within the year, and rows made of them."""

from __future__ import annotations

import re
import unicodedata

UNSPACED = ("ja", "zh")  # languages that write no blanks between words
OTHER = "en"  # the language that texts are mixed with


def spoken(text: str, language: str) -> str:
    """As a recogniser of speech writes it down: no capitals, no punctuation."""
    joint = "" if language in UNSPACED else " "
    marks = "".join(joint if unicodedata.category(one)[0] in "PS" else one for one in text)
    return re.sub(r"\s+", " ", marks).strip().lower()


def short(text: str, language: str) -> str:
    """Its first third, as something typed into a search box."""
    if language in UNSPACED:
        return text[: max(4, len(text) // 3)]
    words = text.split()
    return " ".join(words[: max(3, len(words) // 3)])


def mixed(text: str, language: str, other: str) -> str:
    """Its first third, and what follows in the other language."""
    words = other.split()
    return f"{short(text, language)} {' '.join(words[len(words) // 3 :])}"


def drifted(kind: str, text: str, language: str, translation: str) -> str:
    """A text as it comes after a drift of that kind ("" is none)."""
    if kind == "mixed":
        return mixed(text, language, translation)
    ways = {"": lambda one, _: one, "spoken": spoken, "short": short}
    return ways[kind](text, language)
