"""Whether a model is worse than the one in use, from both models' answers to the same texts without labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sabir.estimate.agreement import disagreement
from sabir.estimate.calibration import Curve
from sabir.estimate.evidence import Evidence
from sabir.estimate.means import mean_of
from sabir.stats import holm

FLAT = 1e-3  # of error, from no disagreement to the fullest; a logistic fit without an error ends near it, not at 0


def worse(before: Evidence, now: Evidence, curve: Curve) -> list[float | None]:
    """Per segment, how likely chance alone makes the expected errors of `now` so much larger than those of `before`.

    The texts are the same, so each is held against itself: a one-sided t-test of the mean difference, corrected over
    the segments (Holm). None where a segment has fewer than two texts that both models and a member have answered.

    Args:
        before, now: of the same texts in the same order, held against the same members.
        curve: of the model in use: by it both are read, so that what labels would say of the new one plays no part.
    Raises ValueError for evidence of other texts.
    """
    return holm([_risen(now, risen(before, now, curve), place) for place in range(len(now.segments))])


def risen(before: Evidence, now: Evidence, curve: Curve) -> np.ndarray:
    """(n,) by how much the expected error of each text is larger; NaN where not both are known. As in `worse`.

    Where the curve does not tell one disagreement from another (the model in use is nearly always right), it is the
    disagreement itself that is read: where members that are right disagree with the new model, it is wrong.
    """
    if before.segments != now.segments or not np.array_equal(before.segment, now.segment):
        raise ValueError("before and now are of other texts; expected the same, in the same order")
    read: Callable[[Evidence], np.ndarray] = curve.rows if tells(curve) else _raw
    return read(now) - read(before)


def tells(curve: Curve) -> bool:
    """Whether the curve tells one disagreement from another: from its lowest to its highest the error rises at all."""
    return bool(len(curve.log_odds)) and float(np.ptp(1 / (1 + np.exp(-curve.log_odds)))) > FLAT


def _risen(now: Evidence, rise: np.ndarray, place: int) -> float | None:
    from scipy.special import stdtr

    mine = (now.segment == place) & ~np.isnan(rise)
    if mine.sum() < 2:
        return None
    keys = None if now.keys is None else now.keys[mine]
    mean = mean_of(rise[mine], weights=now.weights[mine], keys=keys)
    if mean.variance == 0 or mean.units <= 1:
        return 1.0 if mean.value <= 0 or mean.units <= 1 else 0.0
    return float(stdtr(mean.units - 1, -mean.value / math.sqrt(mean.variance)))


def _raw(evidence: Evidence) -> np.ndarray:
    if evidence.agreement is None:
        return np.full(len(evidence), np.nan)
    return disagreement(evidence.agreement)
