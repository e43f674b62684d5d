"""Average thresholded confidence: the share of texts of which the model is less sure than some threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import CHOSEN, ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.probabilities import confidences, flags_of_confidence


@ESTIMATORS.register(
    "atc",
    source="https://arxiv.org/abs/2201.04234",
    needs=("confidence",),
    assumes="Texts below one and the same confidence are wrong, as many as there are; confidence is continuous.",
    answers=CHOSEN,
    metric="error",
)
def atc(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """The share of texts below the confidence below which lie as many texts of the reference as are wrong there.

    Confidence is scaled by a temperature per language; the threshold is the language's own where the reference has it.

    Source: Garg et al. (2022), https://arxiv.org/abs/2201.04234. Departs: where texts of the reference tie at the
        threshold, the same part of those that tie there counts as wrong, so that the reference gets its own error.
    """
    beware = flags_of_confidence(reference, production)
    return across_segments("atc", _fit, reference, production, level=level, beware=beware)


@dataclass(frozen=True)
class Threshold:
    """Scores below `at` count as wrong, and this `part` of those that are equal to it."""

    at: float
    part: float

    def wrong(self, scores: np.ndarray) -> np.ndarray:
        """(n,) how far each counts as wrong, in [0, 1]; NaN where there is no score."""
        if math.isnan(self.at):
            return np.full(len(scores), np.nan)
        return np.where(np.isnan(scores), np.nan, (scores < self.at) + self.part * (scores == self.at))


def threshold(scores: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> Threshold:
    """The threshold by which scores, (n,), have the mean error of errors, (n,); at NaN for no scores.

    Below every score whatsoever where nothing is wrong, above all where everything is.
    """
    whole = weights.sum()
    if not whole > 0:
        return Threshold(math.nan, 0.0)
    wrong = float((weights * errors).sum())
    if wrong <= 0:
        return Threshold(-math.inf, 0.0)
    if wrong >= whole:
        return Threshold(math.inf, 0.0)
    values, places = np.unique(scores, return_inverse=True)
    mass = np.bincount(places, weights)
    below = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    place = int(np.searchsorted(below, wrong, side="right")) - 1  # the last value below which lie no more
    return Threshold(float(values[place]), float(min(1.0, (wrong - below[place]) / mass[place])))


def _fit(reference: Evidence) -> Predict:
    labelled = reference.take(reference.labelled)
    if not len(labelled):
        return lambda evidence: np.full(len(evidence.segments), np.nan)
    assert labelled.error is not None
    score = confidences(labelled)
    scores = score(labelled)
    known = ~np.isnan(scores)
    scores, errors, weights = scores[known], labelled.error[known], labelled.weights[known]
    languages = np.array([one.language for one in labelled.segments])[labelled.segment[known]]
    pooled = threshold(scores, errors, weights)
    own = {
        str(name): threshold(scores[mine], errors[mine], weights[mine])
        for name in np.unique(languages)
        for mine in (languages == name,)
    }

    def predict(evidence: Evidence) -> np.ndarray:
        given = score(evidence)
        wrong = np.full(len(evidence), np.nan)
        for place, segment in enumerate(evidence.segments):
            mine = evidence.segment == place
            wrong[mine] = own.get(segment.language, pooled).wrong(given[mine])
        return evidence.mean(wrong)

    return predict
