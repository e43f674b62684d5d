"""Disagreement, read as an error by a curve that labelled texts gave it."""

from __future__ import annotations

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.calibration import curve
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.flags import of_disagreement


@ESTIMATORS.register(
    "calibrated-disagreement",
    source="https://arxiv.org/abs/2309.05619",
    needs=("agreement",),
    assumes="A text on which the members disagree so much is as often wrong here as it was on the labelled texts.",
    answers=EVERY_ANSWER,
    metric="error",
)
def calibrated_disagreement(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """The mean of each text's expected error, by its members' disagreement and a curve fitted on the reference.

    Source: disagreement as a proxy, Du et al. (2023), https://arxiv.org/abs/2309.05619. Departs: calibrated, see
        `calibration`.
    """
    beware = of_disagreement(reference, production)
    return across_segments("calibrated-disagreement", _fit, reference, production, level=level, beware=beware)


def _fit(reference: Evidence) -> Predict:
    fitted = curve(reference)
    return lambda evidence: evidence.mean(fitted.rows(evidence))
