"""What another model's answers, taken for the truth, say of errors, and how well they tell right from wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.flags import general
from sabir.estimate.means import mean_of

_CHANCE = 0.01  # how often a judge that tells nothing may pass
_MISSING = 0.1  # of a segment's texts; more without a judgement are worth a word


@dataclass(frozen=True)
class Judge:
    """How a judge rates wholly wrong and wholly right answers.

    Args:
        of_wrong, of_right: its mean judgement of them: 1 - q0 and q1, where answers are right or wrong.
        p: one-sided, of a judge that rates right answers no higher than wrong ones.
        n: labelled texts that it judged.
    """

    of_wrong: float
    of_right: float
    p: float
    n: int

    @property
    def tells(self) -> bool:
        """Whether it is better than chance beyond doubt: q0 + q1 > 1."""
        return self.of_right > self.of_wrong and self.p <= _CHANCE

    def error(self, judgement: np.ndarray) -> np.ndarray:
        """The mean error of texts whose mean judgement this is: 1 - (p + q0 - 1) / (q0 + q1 - 1), in [0, 1]."""
        return np.clip((self.of_right - judgement) / (self.of_right - self.of_wrong), 0.0, 1.0)


def judge_of(reference: Evidence) -> Judge | None:
    """How the judge rated the labelled texts of the reference; None where there is nothing to tell it by.

    That is where it rated fewer than three, or all are equally right. Where errors come in degrees, its judgement is
    taken for a straight line in them, by least squares of judgement over error. (Error over judgement would carry the
    reference's share of errors into segments that have another.) For errors of 0 and 1 the line goes through the two
    means: specificity and sensitivity.

    Source: Rogan and Gladen (1978), https://doi.org/10.1093/oxfordjournals.aje.a112510; the line, as in classical
        calibration, Osborne (1991), https://doi.org/10.2307/1403690
    """
    from scipy.special import stdtr

    if reference.judged is None or reference.error is None:
        return None
    known = reference.labelled & ~np.isnan(reference.judged)
    errors, judged = reference.error[known], reference.judged[known]
    counts = reference.counts[known]
    texts = float(counts.sum())
    if texts < 3 or np.ptp(errors) == 0:
        return None
    about, centre = np.average(errors, weights=counts), np.average(judged, weights=counts)
    spread = float((counts * (errors - about) ** 2).sum())
    slope = float((counts * (errors - about) * (judged - centre)).sum()) / spread
    left = judged - centre - slope * (errors - about)
    # The slope is the mean of these; texts of one key are not independent. At least the spread of all residuals alike:
    # a class of two texts that are judged alike by chance has none of its own.
    pulls = (errors - about) * left * texts / spread
    keys = None if reference.keys is None else reference.keys[known]
    own = mean_of(pulls, counts=counts, keys=keys)
    alike = float((counts * left**2).sum()) / max(1.0, texts - 2) / spread
    variance = max(own.variance, alike)
    if variance <= 1e-18:
        p = float(slope >= 0)
    else:
        p = float(stdtr(max(1.0, own.units - 2), slope / math.sqrt(variance)))
    at_right = float(centre - slope * about)
    return Judge(at_right + slope, at_right, p, round(texts))


def judged_shares(evidence: Evidence) -> np.ndarray:
    """(S,) the mean judgement of each segment's texts, NaN where there is none."""
    if evidence.judged is None:
        return np.full(len(evidence.segments), np.nan)
    return evidence.mean(evidence.judged)


def flags_of_judgements(production: Evidence) -> Sequence[tuple[str, ...]]:
    """Per segment, a word where the judge has said nothing about a tenth of the texts or more."""
    if production.judged is None:
        return [()] * len(production.segments)
    missing = production.total(production.counts * np.isnan(production.judged)) / production.n
    return [
        (f"not judged: {share:.0%} of the texts",) if share >= _MISSING else () for share in missing.tolist()
    ]


def refused(
    name: str, judge: Judge | None, reference: Evidence, production: Evidence, level: float
) -> list[Estimate]:
    """No estimate of any segment, and why: the judge is at chance, or nobody can say."""
    how = "the reference has no right and wrong answers that were judged"
    if judge is not None:
        how = (
            f"the judge is no better than chance: on {judge.n} labelled texts it rates right answers "
            f"{judge.of_right:.2f} and wrong ones {judge.of_wrong:.2f}"
        )
    labelled = production.total(production.counts * production.labelled)
    return [
        Estimate(segment, name, None, None, None, level, round(n), round(k), how=how, flags=flags)
        for segment, n, k, flags in zip(
            production.segments, production.n, labelled, general(reference, production), strict=True
        )
    ]
