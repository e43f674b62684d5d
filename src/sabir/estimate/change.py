"""Whether a model is worse than the one in use, from both models' answers to the same texts without labels."""

from __future__ import annotations

import math

import numpy as np

from sabir.estimate.calibration import Curve
from sabir.estimate.evidence import Evidence
from sabir.estimate.means import mean_of
from sabir.stats import holm


def worse(before: Evidence, now: Evidence, curve: Curve) -> list[float | None]:
    """Per segment, how likely chance alone makes the expected errors of `now` so much larger than those of `before`.

    The texts are the same, so each is held against itself: a one-sided t-test of the mean difference, corrected over
    the segments (Holm). None where a segment has fewer than two texts that both models and a member have answered.

    Args:
        before, now: of the same texts in the same order, held against the same members.
        curve: of the model in use: by it both are read, so that what labels would say of the new one plays no part.
    Raises ValueError for evidence of other texts.
    """
    if before.segments != now.segments or not np.array_equal(before.segment, now.segment):
        raise ValueError("before and now are of other texts; expected the same, in the same order")
    from scipy.special import stdtr

    rise = curve.rows(now) - curve.rows(before)
    found: list[float | None] = []
    for place in range(len(now.segments)):
        mine = (now.segment == place) & ~np.isnan(rise)
        if mine.sum() < 2:
            found.append(None)
            continue
        keys = None if now.keys is None else now.keys[mine]
        mean = mean_of(rise[mine], weights=now.weights[mine], keys=keys)
        if mean.variance == 0 or mean.units <= 1:
            found.append(1.0 if mean.value <= 0 or mean.units <= 1 else 0.0)
        else:
            found.append(float(stdtr(mean.units - 1, -mean.value / math.sqrt(mean.variance))))
    return holm(found)
