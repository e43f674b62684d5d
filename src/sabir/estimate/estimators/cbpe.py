"""Calibrated confidence: how often answers that are as sure as these came true."""

from __future__ import annotations

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import CHOSEN, ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.probabilities import calibrated_confidences, flags_of_confidence


@ESTIMATORS.register(
    "cbpe",
    source="https://arxiv.org/abs/2401.08348",
    needs=("confidence",),
    assumes="Answers that are as sure are right as often as on the reference; only how sure they are has changed.",
    answers=CHOSEN,
    metric="error",
)
def cbpe(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """1 - the mean calibrated probability of the model's own answer.

    Source: confidence-based performance estimation, Białek et al. (2024), https://arxiv.org/abs/2401.08348
    """
    beware = flags_of_confidence(reference, production)
    return across_segments("cbpe", _fit, reference, production, level=level, beware=beware)


def _fit(reference: Evidence) -> Predict:
    rows = calibrated_confidences(reference)
    return lambda evidence: 1 - evidence.mean(rows(evidence))
