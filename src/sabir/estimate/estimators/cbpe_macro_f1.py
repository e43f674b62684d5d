"""Macro F1 by calibrated confidence: from how many answers of each label are to be expected right and wrong."""

from __future__ import annotations

import numpy as np

from sabir.estimate.across import Predict, across_segments
from sabir.estimate.catalog import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.expected_counts import counts_of_cells, macro_f1
from sabir.estimate.probabilities import calibrated, flags_of_confidence


@ESTIMATORS.register(
    "cbpe-macro-f1",
    source="https://arxiv.org/abs/2401.08348",
    needs=("probabilities", "answer", "truth"),
    assumes="Answers that are as sure are right as often as on the reference; only how sure they are has changed.",
    answers=("label",),
    metric="macro_f1",
)
def cbpe_macro_f1(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """1 - macro F1 of the confusion counts that calibrated probabilities let expect.

    Source: confidence-based performance estimation, Białek et al. (2024), https://arxiv.org/abs/2401.08348
    """
    beware = flags_of_confidence(reference, production)
    return across_segments(
        "cbpe-macro-f1", _fit, reference, production, level=level, beware=beware, truth=_truth
    )


def _fit(reference: Evidence) -> Predict:
    rows = calibrated(reference)
    return lambda evidence: _one_less_macro_f1(evidence, rows(evidence))


def _truth(evidence: Evidence) -> np.ndarray:
    assert evidence.probabilities is not None
    assert evidence.truth is not None
    labels = evidence.probabilities.shape[1]
    return _one_less_macro_f1(evidence, (evidence.truth[:, None] == np.arange(labels)).astype(float))


def _one_less_macro_f1(evidence: Evidence, shares: np.ndarray) -> np.ndarray:
    """(S,) where each row's true label is spread as these shares, (n, K), say."""
    assert evidence.answer is not None
    labels = shares.shape[1]
    # an answer that is no label has a column of its own
    answers = np.where(evidence.answer < 0, labels, evidence.answer)
    cells = np.zeros((len(evidence.segments), labels + 1, labels))
    known = ~np.isnan(shares).any(axis=1)
    weighted = (shares * evidence.weights[:, None])[known]
    np.add.at(cells, (evidence.segment[known], answers[known]), weighted)
    some = cells.any(axis=(1, 2))
    return np.where(some, 1 - macro_f1(counts_of_cells(cells.swapaxes(1, 2))), np.nan)
