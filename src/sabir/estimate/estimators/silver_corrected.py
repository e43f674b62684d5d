"""Silver labels, corrected by how often the judge is wrong about right and about wrong answers."""

from __future__ import annotations

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.silver import flags_of_judgements, judge_of, judged_shares, refused


@ESTIMATORS.register(
    "silver-corrected",
    source="https://doi.org/10.1093/oxfordjournals.aje.a112510",
    needs=("judged",),
    assumes="The judge errs about right and about wrong answers as often as on the reference.",
    answers=EVERY_ANSWER,
    metric="error",
)
def silver_corrected(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """The error that makes a judge with this sensitivity and specificity say "right" as often as it did.

    Refused for a judge that is no better than chance on the reference.
    """
    judge = judge_of(reference)
    if judge is None or not judge.tells:
        return refused("silver-corrected", judge, reference, production, level)
    return across_segments(
        "silver-corrected",
        _fit,
        reference,
        production,
        level=level,
        beware=flags_of_judgements(production),
    )


def _fit(reference: Evidence) -> Predict:
    judge = judge_of(reference)
    if judge is None or not judge.tells:
        return lambda evidence: np.full(len(evidence.segments), np.nan)
    return lambda evidence: judge.error(judged_shares(evidence))
