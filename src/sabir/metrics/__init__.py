"""Metrics: answers and targets to numbers, one row of statistics per example.

`measure` is what callers use; `METRICS` is the catalogue. The heavy packages are imported inside the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sabir.catalog import Entry
from sabir.errors import InputError
from sabir.metrics import labels as _labels  # noqa: F401  importing registers
from sabir.metrics import overlap as _overlap  # noqa: F401
from sabir.metrics.catalog import METRICS

__all__ = ["METRICS", "Measured", "measure", "signature"]


@dataclass(frozen=True)
class Measured:
    """What a metric found: everything that a value, an interval or a paired difference needs.

    Attributes:
        statistics: (n, k) float64, one row per example, all NaN where unscored; kept, so that differences can
            be paired later.
        value: maps means of the statistics over examples, (..., k), to scores in [0, 1], (...).
        signature: metric, words, normalisation, stemmer, labels, with versions; no score without it.
        unscored: how many examples have no prediction.
    """

    statistics: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    signature: str
    unscored: int


def measure(
    name: str,
    predictions: Sequence[str | None],
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    language: str | None = None,
) -> Measured:
    """Score answers by the metric of that name.

    Args:
        predictions: one answer per example; None where there is none (unscored). An answer that could not be
            read is a string all the same: it is wrong, not unscored.
        labels: the task's declared labels, for metrics over labels; others do not see it.
        language: BCP-47, for metrics over words; others do not see it.
    Raises InputError for an unknown metric, or one that needs labels or a language not given.
    """
    entry = METRICS.get(name, where="metrics")
    settings = _settings(entry, labels, language)
    statistics = entry.function(predictions, targets, **settings)
    unscored = int(np.isnan(statistics).all(axis=1).sum())
    return Measured(statistics, entry.facts["value"], _signature(entry, settings), unscored)


def signature(name: str, *, labels: Sequence[str] | None = None, language: str | None = None) -> str:
    """What a score by that metric stands on, in one line, with the versions installed here.

    Arguments and errors as for `measure`.
    """
    entry = METRICS.get(name, where="metrics")
    return _signature(entry, _settings(entry, labels, language))


def _signature(entry: Entry, settings: dict[str, Any]) -> str:
    return "|".join([entry.name, f"v:{entry.facts['version']}", *entry.facts["describe"](settings)])


def _settings(entry: Entry, labels: Sequence[str] | None, language: str | None) -> dict[str, Any]:
    """The settings this metric takes. Raises InputError when one that it needs is absent."""
    given = {"labels": None if labels is None else tuple(labels), "language": language}
    for name, setting in entry.settings.items():
        if setting.required and given.get(name) is None:
            raise InputError(
                f"metric {entry.name!r}",
                f"it needs {name!r}, and this task has none.",
                f"Give the task {name!r}, or choose another metric.",
            )
    return {name: given[name] for name in entry.settings if given.get(name) is not None}
