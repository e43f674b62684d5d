"""Average confidence: how sure the model says it is."""

from __future__ import annotations

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import CHOSEN, ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.probabilities import flags_of_confidence, own_confidences


@ESTIMATORS.register(
    "confidence",
    source="https://arxiv.org/abs/1610.02136",
    needs=("confidence",),
    assumes="The model is as often right as it says.",
    answers=CHOSEN,
    metric="error",
)
def confidence(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """1 - the mean probability that the model gives its own answer; labels only tell how far off that is.

    Source: average confidence, Hendrycks and Gimpel (2017), https://arxiv.org/abs/1610.02136
    """
    beware = flags_of_confidence(reference, production)
    return across_segments("confidence", _fit, reference, production, level=level, beware=beware)


def _fit(reference: Evidence) -> Predict:
    return _unsure


def _unsure(evidence: Evidence) -> np.ndarray:
    return 1 - evidence.mean(own_confidences(evidence))
