"""As good as on the labelled texts: what any estimate must beat."""

from __future__ import annotations

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence


@ESTIMATORS.register(
    "constant",
    needs=("error",),
    assumes="Nothing has changed since the texts were labelled.",
    answers=EVERY_ANSWER,
    metric="error",
)
def constant(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """The error on the labelled texts of the same language and domain, else of the same language, else of all."""
    return across_segments("constant", _fit, reference, production, level=level)


def _fit(reference: Evidence) -> Predict:
    labelled = reference.take(reference.labelled)
    languages = np.array([one.language for one in labelled.segments])[labelled.segment]
    domains = np.array([one.domain for one in labelled.segments])[labelled.segment]

    def predict(evidence: Evidence) -> np.ndarray:
        found = []
        for segment in evidence.segments:
            same = languages == segment.language
            nearest = (same & (domains == segment.domain), same, np.ones(len(labelled), bool))
            found.append(_mean(labelled, next((rows for rows in nearest if rows.any()), same)))
        return np.array(found)

    return predict


def _mean(labelled: Evidence, rows: np.ndarray) -> float:
    weights = labelled.weights[rows]
    if labelled.error is None or weights.sum() == 0:
        return np.nan
    return float(np.average(labelled.error[rows], weights=weights))
