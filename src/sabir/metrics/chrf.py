"""chrF++: character and word n-grams that an answer shares with the target; needs no word splitter.

Per example the counts of n-grams, so that the score of many examples is that of their summed counts, as
sacrebleu's corpus score is; the tests hold the two equal.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sabir.metrics.catalog import METRICS, ratio, scored_rows

_CHARACTERS = 6  # orders of character n-grams: 1 to 6
_WORDS = 2  # orders of word n-grams: 1 and 2; these make it chrF++
_BETA = 2  # recall weighs beta**2 times as much as precision


def _f_score(means: np.ndarray) -> np.ndarray:
    """F of the precision and recall averaged over the orders that both texts have; 0 where there is none."""
    answered, actual, shared = means[..., 0::3], means[..., 1::3], means[..., 2::3]  # (..., orders) each
    both = (answered > 0) & (actual > 0)
    orders = both.sum(axis=-1)
    precision = ratio((ratio(shared, answered) * both).sum(axis=-1), orders)
    recall = ratio((ratio(shared, actual) * both).sum(axis=-1), orders)
    return ratio((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall)


def _describe(settings: dict[str, Any]) -> list[str]:
    # sacrebleu's own words: case, effective order, orders of characters and words, white space counted
    return [f"case:mixed|eff:yes|nc:{_CHARACTERS}|nw:{_WORDS}|space:no|beta:{_BETA}", "as:sacrebleu-2"]


@METRICS.register(
    version=1,
    source="https://aclanthology.org/W17-4770",
    value=_f_score,
    describe=_describe,
    fits=("text",),
)
def chrf(predictions: Sequence[str | None], targets: Sequence[str]) -> np.ndarray:
    """Characters and words in a row shared with the target (chrF++), over all examples together.

    As sacrebleu's corpus score with word_order 2, divided by 100. Upper and lower case differ, accents
    composed or not differ, blanks do not count. Words are what blanks part: a Japanese, Chinese or Thai
    sentence is one word.

    Returns: (n, 24) counts, of the answer, of the target and shared, for each order of n-grams: characters
        1 to 6, then words 1 and 2; NaN for unscored. An empty answer has counts of the target only.
    Source: https://aclanthology.org/W17-4770
    """
    statistics = scored_rows(predictions, targets, 3 * (_CHARACTERS + _WORDS))
    for row, prediction, target in zip(statistics, predictions, targets, strict=True):
        if prediction is None:
            continue
        for order, (answered, actual) in enumerate(zip(_ngrams(prediction), _ngrams(target), strict=True)):
            shared = sum(min(count, actual[ngram]) for ngram, count in answered.items() if ngram in actual)
            # An order that the target is too short for counts for neither text.
            row[3 * order : 3 * order + 3] = (answered.total() if actual else 0, actual.total(), shared)
    return statistics


def _ngrams(text: str) -> Iterator[Counter[Any]]:
    """The n-grams of each order with how often they occur: characters without blanks, then words."""
    characters = "".join(text.split())
    for n in range(1, _CHARACTERS + 1):
        yield Counter(characters[i : i + n] for i in range(len(characters) - n + 1))
    words = [part for word in text.split() for part in _apart(word)]
    for n in range(1, _WORDS + 1):
        yield Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _apart(word: str) -> tuple[str, ...]:
    """One ASCII punctuation mark split off a word: the last character, or else the first."""
    if len(word) > 1 and word[-1] in string.punctuation:
        return word[:-1], word[-1]
    if len(word) > 1 and word[0] in string.punctuation:
        return word[0], word[1:]
    return (word,)
