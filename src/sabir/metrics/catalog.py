"""The catalogue of metrics, and what a metric is.

A metric is a function `(predictions, targets, *, settings) -> statistics`: a float64 array (n, k), one row
per example, all NaN where the prediction is None (unscored). Three facts are registered beside it:

- `value`: maps the means of the statistics over examples, (..., k), to scores in [0, 1], (...). With it one
  mechanism (`sabir.stats`) serves values, intervals and paired differences of every metric.
- `describe`: maps the metric's settings to the parts of its signature.
- `version`: raised when scores change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sabir.catalog import Catalog

METRICS = Catalog("metric")


def scored_rows(predictions: Sequence[str | None], targets: Sequence[str], columns: int) -> np.ndarray:
    """Statistics to fill in: zero for every example that has a prediction, NaN for the unscored ones.

    Raises ValueError when there are not as many targets as predictions.
    """
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    statistics = np.zeros((len(targets), columns))
    statistics[[prediction is None for prediction in predictions]] = np.nan
    return statistics


def mean_value(means: np.ndarray) -> np.ndarray:
    """The `value` of a metric that is a mean of per-example scores: (..., 1) -> (...)."""
    return means[..., 0]
