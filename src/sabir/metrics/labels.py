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
from sabir.metrics.catalog import METRICS, mean_value, ratio, scored_rows


def _describe(settings: dict[str, Any]) -> list[str]:
    labels = settings.get("labels")
    named = [] if labels is None else [f"labels:{json.dumps(list(labels), ensure_ascii=False)}"]
    return [*named, "failures:wrong", "zero_division:0"]


@METRICS.register(
    version=1,
    value=mean_value,
    describe=lambda settings: _describe(settings)[:-1],
    fits=("label", "choice"),
)
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


@METRICS.register(
    version=1,
    value=_over_labels(lambda hits, predicted, actual: ratio(2 * hits, predicted + actual)),
    describe=_describe,
    fits=("label",),
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
    version=1,
    value=_over_labels(lambda hits, predicted, actual: ratio(hits, predicted)),
    describe=_describe,
    fits=("label",),
)
def macro_precision(
    predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...]
) -> np.ndarray:
    """Precision of each declared label, averaged with equal weight; 0 for a label never predicted.

    Settings, result and errors as for `macro_f1`.
    """
    return _counts(predictions, targets, labels)


@METRICS.register(
    version=1,
    value=_over_labels(lambda hits, predicted, actual: ratio(hits, actual)),
    describe=_describe,
    fits=("label",),
)
def macro_recall(
    predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...]
) -> np.ndarray:
    """Recall of each declared label, averaged with equal weight; 0 for a label not present.

    Settings, result and errors as for `macro_f1`.
    """
    return _counts(predictions, targets, labels)


def _correlation(means: np.ndarray) -> np.ndarray:
    """Gorodkin's R_K of mean counts (..., 3 * labels): failures to parse are one class more, never a target."""
    hits, predicted, actual = np.split(means, 3, axis=-1)
    scored = actual.sum(axis=-1)  # 1 up to rounding: every scored example has one target
    failed = scored - predicted.sum(axis=-1)
    covariance = hits.sum(axis=-1) * scored - (predicted * actual).sum(axis=-1)
    spread_predicted = scored**2 - (predicted**2).sum(axis=-1) - failed**2
    spread_actual = scored**2 - (actual**2).sum(axis=-1)
    # Exactly 0 where all answers, or all targets, are one class, but for the rounding of the sums. One example
    # of a second class among a million gives 2e-6.
    defined = (spread_predicted > 1e-12) & (spread_actual > 1e-12)
    product = np.where(defined, spread_predicted * spread_actual, 1.0)
    return np.where(defined, (covariance / np.sqrt(product)).clip(-1, 1), 0.0)  # but for rounding within


@METRICS.register(
    version=1,
    source="https://doi.org/10.1016/j.compbiolchem.2004.09.006",
    value=_correlation,
    describe=lambda settings: [*_describe(settings)[:-1], "undefined:0"],
    fits=("label",),
    limits=(-1.0, 1.0),
)
def mcc(predictions: Sequence[str | None], targets: Sequence[str], *, labels: tuple[str, ...]) -> np.ndarray:
    """Matthews correlation of answers with targets, in [-1, 1]: 0 is chance, whatever the shares of the labels.

    0 also where it is undefined: all answers, or all targets, are one label.

    Args:
        labels: all labels the task declares. A failure to parse counts as one more that no target has.
    Returns: as for `macro_f1`.
    Raises InputError as `macro_f1` does.
    Source: R_K of Gorodkin (2004), https://doi.org/10.1016/j.compbiolchem.2004.09.006; for two labels
        Matthews (1975).
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
