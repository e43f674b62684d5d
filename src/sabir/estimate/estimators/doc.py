"""Difference of confidence: the reference's error, and by how much less sure the model is than there."""

from __future__ import annotations

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import CHOSEN, ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.probabilities import flags_of_confidence, own_confidences


@ESTIMATORS.register(
    "doc",
    source="https://arxiv.org/abs/2107.03315",
    needs=("confidence",),
    assumes="Where the model is less sure by some points, it is as many points worse.",
    answers=CHOSEN,
    metric="error",
)
def doc(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """The reference's error + its mean confidence - that of production: of the same language where it is there.

    Source: difference of confidences, Guillory et al. (2021), https://arxiv.org/abs/2107.03315
    """
    beware = flags_of_confidence(reference, production)
    return across_segments("doc", _fit, reference, production, level=level, beware=beware)


def _fit(reference: Evidence) -> Predict:
    labelled = reference.take(reference.labelled)
    surplus, pooled = _surplus(labelled)
    return lambda evidence: np.clip(
        [surplus.get(one.language, pooled) for one in evidence.segments]
        - evidence.mean(own_confidences(evidence)),
        0,
        1,
    )


def _surplus(labelled: Evidence) -> tuple[dict[str, float], float]:
    """Error + mean confidence of each language's labelled texts, and of all."""
    if not len(labelled):
        return {}, float("nan")
    assert labelled.error is not None
    values = labelled.error + own_confidences(labelled)
    known = ~np.isnan(values)
    weights = np.where(known, labelled.weights, 0.0)
    values = np.where(known, values, 0.0)
    names, of_segment = np.unique([one.language for one in labelled.segments], return_inverse=True)
    group = of_segment[labelled.segment]
    whole, sums = np.bincount(group, weights), np.bincount(group, weights * values)
    own = {str(name): s / w for name, s, w in zip(names, sums, whole, strict=True) if w > 0}
    return own, float(sums.sum() / whole.sum()) if whole.sum() > 0 else float("nan")
