"""F1 of keyphrases: how many of a document's gold phrases an answer names, whole phrase against whole phrase.

An answer is one text; phrases are parted by semicolons (also full-width and Arabic ones) and line ends. Commas
and the ideographic 、 part nothing: they occur inside phrases (免、抵、退). Two phrases are the same when they
are after NFKC, casefold and the stemming of every word; in Japanese, Chinese, Korean and Thai after NFKC,
casefold and without blanks and punctuation. A phrase named twice counts once, where it stood first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from sabir.metrics.catalog import METRICS, mean_value, same_length, scored_rows
from sabir.metrics.words import (
    describe_normalisation,
    describe_stemmer,
    normalised,
    primary_language,
    runs,
    words,
)

_AT_K = "https://arxiv.org/abs/1906.04106"
_AT_M = "https://arxiv.org/abs/1810.05241"
_PRESENT = "https://aclanthology.org/P17-1054"

_APART = re.compile("[;；؛\r\n]")
_NOT_STEMMED = {"ja", "zh", "ko", "th"}  # blanks there are a matter of taste, and words have no plural

_STEMMED_FROM = 3  # characters, as in Porter's own program: "IDs" is "ID"; Hindi's कि and की stay apart

# Without their signs three programming languages would be one, and a letter.
_SHARP, _PLUS = re.compile(r"(?<![a-z0-9])([cfj])#"), re.compile(r"(?<![a-z0-9])c\+\+")

# What must be met whole for a phrase to be there in ja, zh, ko, th: one character of theirs with its marks,
# or a stretch of letters or digits of other scripts ("ai" is not in "main", 24年 not in 2024年).
_OWN = (
    "\u0e00-\u0e7f\u1100-\u11ff\u3005\u3007\u3041-\u30ff\u3105-\u318f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
_THAI_MARKS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
_MARKS = f"{_THAI_MARKS}\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
_PIECE = re.compile(f"[{_OWN}][{_MARKS}]*|[^{_OWN}]+")

Part = Literal["all", "present", "absent"]


def _describe(part: Part, k: int | None) -> Callable[[dict[str, Any]], list[str]]:
    def describe(settings: dict[str, Any]) -> list[str]:
        language = settings["language"]
        kept = primary_language(language) in _NOT_STEMMED
        return [
            f"lang:{language}",
            f"gold:{part}",
            f"precision:{'of-answered' if k is None else f'of-{k}'}",
            "mean:documents",
            "no-gold:left-out",
            "split:semicolon-line",
            describe_normalisation(),
            "stem:none|blanks:dropped" if kept else describe_stemmer(language),
        ]

    return describe


def _registered(name: str, part: Part, k: int | None, source: str) -> Callable[[Any], Any]:
    return METRICS.register(
        name,
        version=1,
        source=source,
        value=mean_value,
        describe=_describe(part, k),
        fits=("phrases",),
    )


@_registered("f1_at_5", "all", 5, _AT_K)
def f1_at_5(predictions: Sequence[str | None], targets: Sequence[str], *, language: str) -> np.ndarray:
    """F1 of the first five keyphrases, mean over documents.

    Precision is a share of five also where fewer were given, so that saying little does not pay; an answer of
    the three gold phrases and no more scores 0.75 (see `f1_at_m`).

    Args:
        language: BCP-47; decides how phrases are compared.
    Returns: (n, 1) in [0, 1]; NaN for unscored, and where the target has no phrase.
    Source: https://arxiv.org/abs/1906.04106
    """
    return _scores(predictions, targets, None, language, part="all", k=5)


@_registered("f1_at_10", "all", 10, _AT_K)
def f1_at_10(predictions: Sequence[str | None], targets: Sequence[str], *, language: str) -> np.ndarray:
    """F1 of the first ten keyphrases, mean over documents; otherwise as `f1_at_5`."""
    return _scores(predictions, targets, None, language, part="all", k=10)


@_registered("f1_at_m", "all", None, _AT_M)
def f1_at_m(predictions: Sequence[str | None], targets: Sequence[str], *, language: str) -> np.ndarray:
    """F1 of all keyphrases given, as many as there are, mean over documents.

    Settings and result as for `f1_at_5`; an answer without a phrase scores 0.
    Source: https://arxiv.org/abs/1810.05241
    """
    return _scores(predictions, targets, None, language, part="all", k=None)


@_registered("present_f1_at_5", "present", 5, _PRESENT)
def present_f1_at_5(
    predictions: Sequence[str | None], targets: Sequence[str], *, language: str, sources: Sequence[str]
) -> np.ndarray:
    """F1 of the first five given keyphrases that occur in the text, against the gold ones that do.

    Args:
        language: as for `f1_at_5`.
        sources: the texts that the phrases are about. A phrase occurs where its words stand in a row, compared
            as phrases are; in Japanese, Chinese, Korean and Thai its characters.
    Returns: (n, 1) in [0, 1]; NaN for unscored, and where no gold phrase is of this part.
    Source: https://aclanthology.org/P17-1054
    """
    return _scores(predictions, targets, sources, language, part="present", k=5)


@_registered("present_f1_at_m", "present", None, _PRESENT)
def present_f1_at_m(
    predictions: Sequence[str | None], targets: Sequence[str], *, language: str, sources: Sequence[str]
) -> np.ndarray:
    """F1 of all given keyphrases that occur in the text, against the gold ones that do.

    Settings and result as for `present_f1_at_5`.
    """
    return _scores(predictions, targets, sources, language, part="present", k=None)


@_registered("absent_f1_at_5", "absent", 5, _PRESENT)
def absent_f1_at_5(
    predictions: Sequence[str | None], targets: Sequence[str], *, language: str, sources: Sequence[str]
) -> np.ndarray:
    """F1 of the first five given keyphrases that do not occur in the text, against the gold ones that do not.

    Settings and result as for `present_f1_at_5`.
    """
    return _scores(predictions, targets, sources, language, part="absent", k=5)


@_registered("absent_f1_at_m", "absent", None, _PRESENT)
def absent_f1_at_m(
    predictions: Sequence[str | None], targets: Sequence[str], *, language: str, sources: Sequence[str]
) -> np.ndarray:
    """F1 of all given keyphrases that do not occur in the text, against the gold ones that do not.

    Settings and result as for `present_f1_at_5`.
    """
    return _scores(predictions, targets, sources, language, part="absent", k=None)


def _scores(
    predictions: Sequence[str | None],
    targets: Sequence[str],
    sources: Sequence[str] | None,
    language: str,
    *,
    part: Part,
    k: int | None,
) -> np.ndarray:
    statistics = scored_rows(predictions, targets, 1)
    if sources is not None:
        same_length(predictions, sources, "sources")
    for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if prediction is None:
            continue
        answered, gold = phrases(prediction, language=language), phrases(target, language=language)
        if sources is not None:
            text = _searchable(sources[i], language)
            wanted = part == "present"
            answered, gold = (
                tuple(phrase for phrase in each if (_joined(phrase) in text) == wanted)
                for each in (answered, gold)
            )
        if not gold:
            statistics[i] = np.nan
            continue
        first = {_key(phrase, language) for phrase in answered[:k]}
        hits = len(first & {_key(phrase, language) for phrase in gold})
        # 2 P R / (P + R) with P = hits / of and R = hits / gold
        statistics[i, 0] = 2 * hits / ((len(answered) if k is None else k) + len(gold))
    return statistics


@functools.lru_cache(maxsize=4096)  # a target is read again for every metric and every model
def phrases(text: str, *, language: str) -> tuple[tuple[str, ...], ...]:
    """The phrases of an answer in order, each as the words (or characters) that it is compared by, none twice."""
    found: dict[str, tuple[str, ...]] = {}
    for written in _APART.split(text):
        pieces = _pieces(written, language)
        if pieces:
            found.setdefault(_key(pieces, language), pieces)
    return tuple(found.values())


def _key(pieces: tuple[str, ...], language: str) -> str:
    """Equal for phrases that are the same."""
    return ("" if primary_language(language) in _NOT_STEMMED else " ").join(pieces)


def _joined(pieces: Sequence[str]) -> str:
    """Pieces so that one such string is in another where its pieces stand there in a row."""
    return f" {' '.join(pieces)} "


def _pieces(text: str, language: str) -> tuple[str, ...]:
    read = _PLUS.sub("cplusplus", _SHARP.sub(r"\1sharp", normalised(text)))
    if primary_language(language) in _NOT_STEMMED:
        return tuple(piece for run in runs(read) for piece in _PIECE.findall(run))
    return tuple(words(read, language=language, stemmed_from=_STEMMED_FROM))


@functools.lru_cache(maxsize=4096)
def _searchable(source: str, language: str) -> str:
    """A text as `_joined` has it."""
    return _joined(_pieces(source, language))
