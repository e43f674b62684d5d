"""The catalogue of metrics, and what a metric is.

A metric is a function `(predictions, targets, *, settings) -> statistics`: a float64 array (n, k), one row
per example, all NaN where the prediction is None (unscored) and where the metric says nothing of an example
by its definition (undefined: F1 of absent keyphrases where the gold answer has none). Its keyword-only
parameters say what else it needs, by these names: `labels`, `language`, `sources` (the input texts), `scores`
(per example the log-likelihood of each option), `encoder`. Facts registered beside it:

- `value`: maps the means of the statistics over examples, (..., k), to scores, (...), in [0, 1]; for `mcc`
  in [-1, 1]. With it one mechanism (`sabir.stats`) serves values, intervals and paired differences of all.
- `describe`: maps the metric's settings to the parts of its signature.
- `version`: raised when scores change.
- `fits`: the kinds of answer it can judge, of "label", "choice", "text", "phrases".
- `limits`: the ends of the scale, where they are not 0 and 1.
- `splits_words`: True where the score depends on a word splitter that may not be installed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sabir.catalog import Catalog

METRICS = Catalog("metric")


def limits(metric: str) -> tuple[float, float]:
    """The ends of a metric's scale."""
    return METRICS.get(metric).facts.get("limits", (0.0, 1.0))


def scored_rows(predictions: Sequence[str | None], targets: Sequence[str], columns: int) -> np.ndarray:
    """Statistics to fill in: zero for every example that has a prediction, NaN for the unscored ones.

    Raises ValueError when there are not as many targets as predictions.
    """
    same_length(predictions, targets, "targets")
    statistics = np.zeros((len(targets), columns))
    statistics[[prediction is None for prediction in predictions]] = np.nan
    return statistics


def same_length(predictions: Sequence[object], others: Sequence[object], what: str) -> None:
    """Raises ValueError when there are not as many of the others as predictions."""
    if len(predictions) != len(others):
        raise ValueError(f"{len(predictions)} predictions for {len(others)} {what}")


def mean_value(means: np.ndarray) -> np.ndarray:
    """The `value` of a metric that is a mean of per-example scores: (..., 1) -> (...)."""
    return means[..., 0]


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
