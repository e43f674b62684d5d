"""ROUGE: how many words, word pairs, or words in order an answer shares with the target.

Arithmetic by the rouge-score package, words by `sabir.metrics.words`: the package's own tokenizer knows
English only. Each score is the F-measure of one example; a text without a word scores 0.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np

from sabir.metrics.catalog import METRICS, mean_value, scored_rows
from sabir.metrics.words import describe_words, words

_SOURCE = "https://aclanthology.org/W04-1013"


def _describe(settings: dict[str, Any]) -> list[str]:
    language = settings["language"]
    arithmetic = f"rouge-score-{importlib.metadata.version('rouge-score')}"
    return [f"lang:{language}", "measure:f1", f"arithmetic:{arithmetic}", describe_words(language)]


@METRICS.register(
    version=1, source=_SOURCE, value=mean_value, describe=_describe, fits=("text",), splits_words=True
)
def rouge1(predictions: Sequence[str | None], targets: Sequence[str], *, language: str) -> np.ndarray:
    """Words shared with the target, as F-measure of each example.

    Args:
        language: BCP-47; decides how text is split into words and stemmed (see `words`).
    Returns: (n, 1) in [0, 1], NaN for unscored; an empty answer scores 0.
    Source: https://aclanthology.org/W04-1013
    """
    return _scores("rouge1", predictions, targets, language)


@METRICS.register(
    version=1, source=_SOURCE, value=mean_value, describe=_describe, fits=("text",), splits_words=True
)
def rouge2(predictions: Sequence[str | None], targets: Sequence[str], *, language: str) -> np.ndarray:
    """Pairs of neighbouring words shared with the target, as F-measure of each example.

    Settings and result as for `rouge1`; a text of one word has no pair and scores 0.
    """
    return _scores("rouge2", predictions, targets, language)


@METRICS.register(
    "rougeL",
    version=1,
    source=_SOURCE,
    value=mean_value,
    describe=_describe,
    fits=("text",),
    splits_words=True,
)
def rouge_l(predictions: Sequence[str | None], targets: Sequence[str], *, language: str) -> np.ndarray:
    """Longest run of words in the target's order, gaps allowed, as F-measure of each example.

    Settings and result as for `rouge1`. The whole text is one sequence (not ROUGE-Lsum).
    """
    return _scores("rougeL", predictions, targets, language)


class _Words:
    """What rouge-score calls a tokenizer."""

    def __init__(self, language: str):
        self.language = language

    def tokenize(self, text: str) -> list[str]:
        return words(text, language=self.language)


def _scores(
    kind: str, predictions: Sequence[str | None], targets: Sequence[str], language: str
) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk and scikit-learn, some 2 s

    scorer = RougeScorer([kind], tokenizer=_Words(language))
    statistics = scored_rows(predictions, targets, 1)
    for row, prediction, target in zip(statistics, predictions, targets, strict=True):
        if prediction is not None:
            row[0] = scorer.score(target, prediction)[kind].fmeasure
    return statistics
