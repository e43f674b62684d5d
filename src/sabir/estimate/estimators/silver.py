"""Silver labels: a judge's answers taken for the truth."""

from __future__ import annotations

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.silver import flags_of_judgements, judge_of, judged_shares, refused


@ESTIMATORS.register(
    "silver",
    source="https://arxiv.org/abs/2309.05619",
    needs=("judged",),
    assumes="The judge is right, or errs as often one way as the other.",
    answers=EVERY_ANSWER,
    metric="error",
)
def silver(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """1 - the mean agreement of answers with the judge's; nothing by a judge that does not tell right from wrong on the
    labelled texts.
    """
    judge = judge_of(reference)
    if judge is not None and not judge.tells:
        return refused("silver", judge, reference, production, level)
    return across_segments(
        "silver", _fit, reference, production, level=level, beware=flags_of_judgements(production)
    )


def _fit(reference: Evidence) -> Predict:
    return lambda evidence: 1 - judged_shares(evidence)
