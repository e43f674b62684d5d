"""Disagreement as it is: how often the members of an ensemble say something else than the model."""

from __future__ import annotations

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.agreement import disagreements
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.flags import of_disagreement


@ESTIMATORS.register(
    "disagreement",
    source="https://arxiv.org/abs/2309.05619",
    needs=("agreement",),
    assumes="Members make no mistakes together, and are right where they disagree with the model.",
    answers=EVERY_ANSWER,
    metric="error",
)
def disagreement(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """1 - the mean agreement of the model with each member, taken as its error.

    Source: Du et al. (2023), https://arxiv.org/abs/2309.05619; Jiang et al. (2022), https://arxiv.org/abs/2106.13799
    """
    beware = of_disagreement(reference, production)
    return across_segments("disagreement", _fit, reference, production, level=level, beware=beware)


def _fit(reference: Evidence) -> Predict:
    return disagreements
