"""Agreement on the line: models that agree less somewhere are worse there, along the same line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.estimate.flags import of_disagreement

FEWEST_MODELS = 3
STRAIGHT = 0.95  # R² of the line above which it is trusted
RANGE = (0.05, 0.98)  # agreements outside are at the ends of the scale, where a probit magnifies noise


@ESTIMATORS.register(
    "agreement-on-the-line",
    source="https://arxiv.org/abs/2404.01542",
    needs=("agreement", "pairs", "member_error"),
    assumes="Accuracy and agreement, as probits, lie on lines of one slope from the reference to production.",
    answers=EVERY_ANSWER,
    metric="error",
)
def agreement_on_the_line(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """The accuracy that follows from the reference's along the line on which agreements of all pairs lie.

    Needs three models at least, the model in use among them. Nothing is said where the agreements of their pairs lie on
    no line (R² of 0.95 or less); pairs that agree on less than 0.05 or more than 0.98 of texts are left out. The line
    leads from the labelled texts of the same language where the reference has it, else from all.

    Source: ALine-D of Baek et al. (2022), https://arxiv.org/abs/2206.13089; its limits as in
        https://arxiv.org/abs/2404.01542
    """
    beware = of_disagreement(reference, production)
    found = across_segments("agreement-on-the-line", _fit, reference, production, level=level, beware=beware)
    line = _lines(reference)
    return [
        replace(one, how=line(production, place)[1]) if one.error is None else one
        for place, one in enumerate(found)
    ]


@dataclass(frozen=True)
class Standing:
    """Mean agreement of each pair of models, (P,), in the order (0, 1), (0, 2), ..., and accuracy of each, (m,)."""

    agreement: np.ndarray
    accuracy: np.ndarray


def along_the_line(before: Standing, agreement: np.ndarray) -> tuple[float | None, str]:
    """The accuracy of the first model where pairs agree so, (P,); None, and in words why, where there is no line.

    Args:
        before: where accuracy is known; strictly within 0 and 1, or NaN.
    """
    from scipy.special import ndtr, ndtri

    known = ~np.isnan(before.accuracy)
    if known.sum() < FEWEST_MODELS:
        return None, f"no line through {int(known.sum())} models; at least {FEWEST_MODELS} are needed"
    pairs = np.array(list(combinations(range(len(known)), 2)))
    both = np.stack([before.agreement, agreement])
    kept = ((both >= RANGE[0]) & (both <= RANGE[1])).all(axis=0) & known[pairs].all(axis=1)
    if kept.sum() < FEWEST_MODELS:
        of = f"{int(kept.sum())} of {len(kept)} pairs of models"
        return None, f"no line: only {of} agree on {RANGE[0]:g} to {RANGE[1]:g} of texts both here and there"
    x, y = ndtri(both[:, kept])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, "no line: all pairs of models agree alike"
    straight = float(np.corrcoef(x, y)[0, 1] ** 2)
    slope = float(np.cov(x, y)[0, 1] / np.var(x, ddof=1))
    if straight <= STRAIGHT or slope <= 0:
        return None, f"no line through the agreements of {len(x)} pairs of models (R² {straight:.2f})"
    # Half of each row's two unknown probits of accuracy; what the line says of their mean stands on the right.
    means = np.zeros((len(x), len(known)))
    means[np.arange(len(x))[:, None], pairs[kept]] = 0.5
    if not _settles_the_first(means):
        return None, "no line: the pairs that are left do not tie the model in use to two others"
    right = y + slope * (means @ ndtri(np.where(known, before.accuracy, 0.5)) - x)
    solution = np.linalg.lstsq(means, right, rcond=None)[0]
    return float(ndtr(solution[0])), f"along the agreements of {len(x)} pairs of models (R² {straight:.2f})"


def _settles_the_first(means: np.ndarray) -> bool:
    """Whether values of these means, (pairs, models), determine the first model's."""
    first = np.eye(means.shape[1])[0]
    return bool(np.allclose(np.linalg.pinv(means) @ means @ first, first))


def _fit(reference: Evidence) -> Predict:
    line = _lines(reference)

    def predict(evidence: Evidence) -> np.ndarray:
        accuracies = (line(evidence, place)[0] for place in range(len(evidence.segments)))
        return np.array([np.nan if one is None else 1 - one for one in accuracies])

    return predict


def _lines(reference: Evidence) -> Callable[[Evidence, int], tuple[float | None, str]]:
    """What gives the accuracy in a segment of evidence, and how or why not."""
    labelled = reference.take(reference.labelled)
    standings: dict[str | None, Standing] = {}
    if len(labelled):
        standings[None] = _standing(labelled)
        for name in {one.language for one in labelled.segments}:
            of_language = np.array([one.language == name for one in labelled.segments])
            standings[name] = _standing(labelled.take(of_language[labelled.segment]))

    def along(evidence: Evidence, place: int) -> tuple[float | None, str]:
        if not standings:
            return None, "no line: the reference has no labelled texts"
        language = evidence.segments[place].language
        before = standings.get(language, standings[None])
        there = _of_one(evidence.take(evidence.segment == place))
        return along_the_line(before, np.array([there.mean(column)[0] for column in _columns(there)]))

    return along


def _standing(labelled: Evidence) -> Standing:
    one = _of_one(labelled)
    assert one.error is not None
    assert one.member_error is not None
    right = 1 - np.column_stack([one.error, one.member_error])
    accuracy = np.array([one.mean(column)[0] for column in right.T])
    half = 0.5 / max(1.0, float(one.n[0]))  # no accuracy is proved to be 0 or 1
    agreement = np.array([one.mean(column)[0] for column in _columns(one)])
    return Standing(agreement, np.clip(accuracy, half, 1 - half))


def _columns(evidence: Evidence) -> list[np.ndarray]:
    """The agreement of each pair of models, the model in use being the first."""
    assert evidence.agreement is not None
    pairs = [] if evidence.pairs is None else list(evidence.pairs.T)
    return [*evidence.agreement.T, *pairs]


def _of_one(evidence: Evidence) -> Evidence:
    """The same as one segment."""
    return replace(evidence, segments=(Segment(""),), segment=np.zeros(len(evidence), dtype=int))
