"""Estimates held against the truth: one row a segment, what its test set is too small to show, what is near chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.expected_counts import counts_of_cells, macro_f1

Chance = Mapping[Segment, float] | float | None

NEAR = 0.95  # of the error of chance; with answers that are texts chance is wrong throughout: a score of 0.05
_ONE_SIDED = 1.645  # standard errors, 95 %
_RESAMPLES = 200


@dataclass(frozen=True)
class Judged:
    """One estimate of a segment that was left out, beside its true error.

    Args:
        members: the kind of members that it looked at; None where it looks at none.
        fold: what was left out with the segment, "language" or "domain".
        metric: what is estimated, see `catalog`.
        estimated, low, high: None where the estimator said nothing.
        true: the error of the segment's rows.
        n: those rows; labels: those that the estimator was shown the labels of.
        sampling: how far the true error of n rows lies, on average, from that of ever more rows of their kind.
        near_chance: whether the model's error is not clearly below that of answering by chance.
        informed: whether the estimate could tell this language from others, by its texts or by other domains of it; one
            that could not ranks nothing.
        how: by what the interval was made, or why there is none.
        part: which of several studies; replicate: which of its trainings.
    """

    segment: Segment
    estimator: str
    members: str | None
    fold: str
    metric: str
    estimated: float | None
    true: float
    low: float | None
    high: float | None
    n: int
    labels: int = 0
    sampling: float = 0.0
    near_chance: bool = False
    informed: bool = True
    how: str = ""
    part: str = ""
    replicate: int = 0

    @property
    def off(self) -> float | None:
        """How far the estimate is from the truth."""
        return None if self.estimated is None else abs(self.estimated - self.true)

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the truth; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= self.true <= self.high


@dataclass(frozen=True)
class Truth:
    """What is known of labelled segments.

    Args:
        true: (S,) their error by the metric.
        sampling: (S,) as in `Judged`.
        near_chance: (S,) bool, likewise.
    """

    true: np.ndarray
    sampling: np.ndarray
    near_chance: np.ndarray


def truth_of(evidence: Evidence, metric: str, chance: Chance = None) -> Truth:
    """The truth of each segment of evidence that is labelled throughout.

    Args:
        metric: "error" or "macro_f1".
        chance: the error of answering by chance, of each segment or of all; None: 1, as of texts.
    """
    assert evidence.error is not None
    mean, n = evidence.mean(evidence.error), evidence.effective_n
    squares = evidence.mean((evidence.error - mean[evidence.segment]) ** 2) * n
    # One degree of freedom from all segments together: ten rows without an error do not prove that there is none.
    variance = (squares + squares.sum() / max(1.0, n.sum() - len(n))) / n
    of_mean = np.sqrt(variance / n)
    by_chance = np.array([_chance_of(segment, chance) for segment in evidence.segments])
    near = mean + _ONE_SIDED * of_mean >= NEAR * by_chance
    if metric == "error":
        return Truth(mean, of_mean * math.sqrt(2 / math.pi), near)
    cells = [_confusion(evidence, place) for place in range(len(evidence.segments))]
    true = np.array([1 - macro_f1(counts_of_cells(each)) for each in cells])
    rng = np.random.default_rng(0)
    drawn = [
        1
        - macro_f1(counts_of_cells(rng.multinomial(n, each.ravel() / n, _RESAMPLES).reshape(-1, *each.shape)))
        for each, n in ((each, int(each.sum())) for each in cells)
    ]
    sampling = np.array([np.abs(many - one).mean() for many, one in zip(drawn, true, strict=True)])
    return Truth(true, sampling, near)


def _confusion(evidence: Evidence, place: int) -> np.ndarray:
    assert evidence.truth is not None
    assert evidence.answer is not None
    given = [] if evidence.probabilities is None else [evidence.probabilities.shape[1]]
    labels = max([*given, int(max(evidence.truth.max(), evidence.answer.max())) + 1])
    mine = (evidence.segment == place) & (evidence.truth >= 0)
    answers = np.where(evidence.answer < 0, labels, evidence.answer)
    cells = np.zeros((labels, labels + 1))
    np.add.at(cells, (evidence.truth[mine], answers[mine]), evidence.counts[mine])
    return cells


def _chance_of(segment: Segment, chance: Chance) -> float:
    if isinstance(chance, Mapping):
        return chance.get(segment, 1.0)
    return 1.0 if chance is None else chance
