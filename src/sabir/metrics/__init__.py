"""Metrics: answers and targets to numbers, one row of statistics per example.

`measure` is what callers use; `METRICS` is the catalogue. The heavy packages are imported inside the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sabir.catalog import Entry
from sabir.errors import InputError
from sabir.metrics import bertscore as _bertscore  # noqa: F401  importing registers
from sabir.metrics import choices as _choices  # noqa: F401
from sabir.metrics import chrf as _chrf  # noqa: F401
from sabir.metrics import keyphrases as _keyphrases  # noqa: F401
from sabir.metrics import labels as _labels  # noqa: F401
from sabir.metrics import overlap as _overlap  # noqa: F401
from sabir.metrics.bertscore import Encoder
from sabir.metrics.catalog import METRICS, limits
from sabir.metrics.words import primary_language, splitter_missing

__all__ = [
    "METRICS",
    "Measured",
    "fitting",
    "limits",
    "measure",
    "missing_package",
    "needs",
    "signature",
]


@dataclass(frozen=True)
class Measured:
    """What a metric found: everything that a value, an interval or a paired difference needs.

    Attributes:
        statistics: (n, k) float64, one row per example, all NaN where unscored or undefined; kept, so that
            differences can be paired later.
        value: maps means of the statistics over examples, (..., k), to scores, (...): in [0, 1], and in [-1, 1]
            for `mcc`.
        signature: metric, words, normalisation, stemmer, labels, encoder, with versions; no score without it.
        unscored: how many examples have no prediction.
        undefined: how many have one, and the metric leaves them out by its definition (F1 of absent keyphrases
            where the gold answer has none).
    """

    statistics: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    signature: str
    unscored: int
    undefined: int


def measure(
    name: str,
    predictions: Sequence[str | None],
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    language: str | None = None,
    sources: Sequence[str] | None = None,
    scores: Sequence[Mapping[str, float] | None] | None = None,
    encoder: Encoder | None = None,
) -> Measured:
    """Score answers by the metric of that name. What it does not need, it does not see.

    Args:
        predictions: one answer per example; None where there is none (unscored). An answer that could not be
            read is a string all the same: it is wrong, not unscored.
        labels: the task's declared labels, for metrics over labels.
        language: BCP-47, for metrics over words and phrases.
        sources: the input texts, one per example, for keyphrases present in them and absent from them.
        scores: per example the log-likelihood of each option, None where there is none; for `accuracy_per_byte`.
        encoder: for BERTScore.
    Raises InputError for an unknown metric, or one that needs what is not given (see `needs`).
    """
    entry = METRICS.get(name, where="metrics")
    settings = _settings(entry, labels, language, sources, scores, encoder)
    statistics = entry.function(predictions, targets, **settings)
    unscored = sum(prediction is None for prediction in predictions)
    left_out = int(np.isnan(statistics).all(axis=1).sum())
    found = _signature(entry, settings)
    return Measured(statistics, entry.facts["value"], found, unscored, left_out - unscored)


def signature(
    name: str,
    *,
    labels: Sequence[str] | None = None,
    language: str | None = None,
    sources: Sequence[str] | None = None,
    scores: Sequence[Mapping[str, float] | None] | None = None,
    encoder: Encoder | None = None,
) -> str:
    """What a score by that metric stands on, in one line, with the versions installed here.

    Arguments and errors as for `measure`; of `sources` and `scores` only whether they are there matters: () does.
    """
    entry = METRICS.get(name, where="metrics")
    return _signature(entry, _settings(entry, labels, language, sources, scores, encoder))


def fitting(kind: str) -> list[str]:
    """The metrics that can judge answers of that kind: "label", "choice", "text" or "phrases"."""
    return [entry.name for entry in METRICS if kind in entry.facts["fits"]]


def needs(name: str) -> frozenset[str]:
    """What `measure` must be given for that metric: of "labels", "language", "sources", "scores", "encoder".

    Raises InputError for an unknown metric.
    """
    entry = METRICS.get(name, where="metrics")
    return frozenset(setting.name for setting in entry.settings.values() if setting.required)


def missing_package(name: str, language: str) -> str | None:
    """The command that installs the word splitter which that metric lacks here for that language, or None.

    Without it the metric still gives a score, over characters (Japanese, Chinese) or syllables (Thai); its
    signature tells the two apart, and they are not to be compared.
    Raises InputError for an unknown metric.
    """
    entry = METRICS.get(name, where="metrics")
    if not entry.facts.get("splits_words") or splitter_missing(language) is None:
        return None
    return f"pip install 'sabir[{primary_language(language)}]'"


def _signature(entry: Entry, settings: dict[str, Any]) -> str:
    return "|".join([entry.name, f"v:{entry.facts['version']}", *entry.facts["describe"](settings)])


def _settings(
    entry: Entry,
    labels: Sequence[str] | None,
    language: str | None,
    sources: Sequence[str] | None,
    scores: Sequence[Mapping[str, float] | None] | None,
    encoder: Encoder | None,
) -> dict[str, Any]:
    """The settings this metric takes. Raises InputError when one that it needs is absent."""
    given = {
        "labels": None if labels is None else tuple(labels),
        "language": language,
        "sources": sources,
        "scores": scores,
        "encoder": encoder,
    }
    for name, setting in entry.settings.items():
        if setting.required and given.get(name) is None:
            raise InputError(
                f"metric {entry.name!r}",
                f"it needs {name!r}, and this task has none.",
                f"Give the task {name!r}, or choose another metric.",
            )
    return {name: given[name] for name in entry.settings if given.get(name) is not None}
