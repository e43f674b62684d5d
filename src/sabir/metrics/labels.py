"""Metrics of one label per example.

A prediction that is not a declared label (empty, a sentence, a misspelling: a failure to parse) is a wrong
answer in a class of its own: it counts against the recall of the target's label and is never itself a label.
A prediction of None was never made: unscored, left out and counted by the caller.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sabir.errors import InputError
from sabir.metrics.catalog import METRICS, mean_value, scored_rows


def _describe(settings: dict[str, Any]) -> list[str]:
    labels = settings.get("labels")
    named = [] if labels is None else [f"labels:{json.dumps(list(labels), ensure_ascii=False)}"]
    return [*named, "failures:wrong", "zero_division:0"]


@METRICS.register(version=1, value=mean_value, describe=lambda settings: _describe(settings)[:-1])
def accuracy(
    predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...] | None = None
) -> np.ndarray:
    """Share of examples whose prediction is the target, to the letter.

    Args:
        labels: when given, targets must be among them.
    Returns: (n, 1), 1.0 for right, 0.0 for wrong, NaN for unscored.
    Raises InputError for a target outside the labels.
    """
    if labels is not None:
        _check(targets, labels)
    statistics = scored_rows(predictions, targets, 1)
    for row, prediction, target in zip(statistics, predictions, targets, strict=True):
        if prediction is not None:
            row[0] = prediction == target
    return statistics


def _over_labels(of_counts: Callable[..., np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The value of a macro metric: mean over labels of what one label's three mean counts give."""

    def value(means: np.ndarray) -> np.ndarray:
        hits, predicted, actual = np.split(means, 3, axis=-1)
        return of_counts(hits, predicted, actual).mean(axis=-1)

    return value


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


@METRICS.register(
    version=1,
    value=_over_labels(lambda hits, predicted, actual: _ratio(2 * hits, predicted + actual)),
    describe=_describe,
)
def macro_f1(
    predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...]
) -> np.ndarray:
    """F1 of each declared label, averaged with equal weight; 0 for a label neither predicted nor present.

    Args:
        labels: all labels the task declares, also those absent from this data.
    Returns: (n, 3 * labels) counts: hit, predicted, actual.
    Raises InputError for a target outside the labels, or labels that repeat.
    Source: the mean of per-class F1, not F1 of mean precision and recall, https://arxiv.org/abs/1911.03347.
    """
    return _counts(predictions, targets, labels)


@METRICS.register(
    version=1, value=_over_labels(lambda hits, predicted, actual: _ratio(hits, predicted)), describe=_describe
)
def macro_precision(
    predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...]
) -> np.ndarray:
    """Precision of each declared label, averaged with equal weight; 0 for a label never predicted.

    Settings, result and errors as for `macro_f1`.
    """
    return _counts(predictions, targets, labels)


@METRICS.register(
    version=1, value=_over_labels(lambda hits, predicted, actual: _ratio(hits, actual)), describe=_describe
)
def macro_recall(
    predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...]
) -> np.ndarray:
    """Recall of each declared label, averaged with equal weight; 0 for a label not present.

    Settings, result and errors as for `macro_f1`.
    """
    return _counts(predictions, targets, labels)


def _counts(predictions: Sequence[str | None], targets: Sequence[str], labels: tuple[str, ...]) -> np.ndarray:
    """(n, 3 * labels): per example and label 1 where hit, where predicted, where actual."""
    _check(targets, labels)
    column = {label: j for j, label in enumerate(labels)}
    statistics = scored_rows(predictions, targets, 3 * len(labels))
    hits, predicted, actual = np.split(statistics, 3, axis=1)  # views: written through
    for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if prediction is None:
            continue
        actual[i, column[target]] = 1
        if prediction in column:
            predicted[i, column[prediction]] = 1
            hits[i, column[prediction]] = prediction == target
    return statistics


def _check(targets: Sequence[str], labels: tuple[str, ...]) -> None:
    if not labels:
        raise InputError("labels", "the list is empty.", "Declare every label of the task.")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise InputError("labels", f"{twice[0]!r} is declared twice.", "Declare every label once.")
    declared = set(labels)
    for i, target in enumerate(targets):
        if target not in declared:
            raise InputError(
                f"example {i}",
                f"the target {target!r} is not a declared label: {', '.join(map(repr, labels))}.",
                "Correct the target or declare the label.",
            )
