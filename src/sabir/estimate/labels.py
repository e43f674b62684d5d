"""Which texts to label, and whether numbers without labels may still be trusted once some are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sabir.estimate.evidence import Evidence
from sabir.estimate.means import ENOUGH, mean_of

_EXTREME = 0.05  # expected errors are taken for no smaller: the most certain rows are wrong now and then
_STRATA, _FEWEST_OF_STRATUM = 10, 2  # texts to be chosen from each
_EVERYWHERE = 0.1  # of the mean size is added to every row's: rows of next to no traffic are chosen too


@dataclass(frozen=True)
class Trust:
    """Whether the expected errors of n labelled texts are right on average.

    Args:
        holds: no difference is shown at the level asked for.
        gap: mean error less mean expected error.
        p: two-sided, of a t-test of the gap.
    """

    holds: bool
    gap: float
    p: float
    n: int


@dataclass(frozen=True)
class Choice:
    """Texts to label: their rows, rising, and with what probability every row of the evidence was to be chosen.

    Labels of these rows go into evidence with `inclusion`.
    """

    rows: np.ndarray
    inclusion: np.ndarray


def trusted(evidence: Evidence, expected: np.ndarray, *, alpha: float = 0.05) -> Trust | None:
    """Whether expected errors, (n,), agree on average with the labels of these rows; None below 500 labels.

    When they do not, what is estimated here without labels is wrong by about `gap`. Rows chosen with known
    probabilities weigh accordingly, rows of one key are not independent.
    """
    from scipy.special import stdtr

    known = evidence.labelled & ~np.isnan(expected)
    labels = round(float(evidence.counts[known].sum()))
    if labels < ENOUGH or evidence.error is None:
        return None
    off = mean_of(
        (evidence.error - expected)[known],
        weights=standing_for(evidence)[known],
        counts=evidence.counts[known],
        keys=None if evidence.keys is None else evidence.keys[known],
    )
    if off.variance == 0 or off.units <= 1:
        p = float(off.value == 0 or off.units <= 1)
    else:
        p = 2 * float(stdtr(off.units - 1, -abs(off.value) / math.sqrt(off.variance)))
    return Trust(p >= alpha, off.value, p, labels)


def standing_for(evidence: Evidence) -> np.ndarray:
    """(n,) how much traffic a labelled text of each row stands for: its own, over the chance of being chosen."""
    traffic = np.ones(len(evidence)) if evidence.weight is None else evidence.weight.astype(float)
    return traffic if evidence.inclusion is None else traffic / evidence.inclusion


def choose(evidence: Evidence, expected: np.ndarray, n: int, *, seed: int) -> Choice:
    """Which n texts to label, so that few labels say much of every segment and none is left without a chance.

    Likely right and likely wrong texts say less than doubtful ones: within a segment the probability is proportional to
    traffic * sqrt(p (1 - p)), p the expected error, plus a tenth of its mean. Segments share n by the root of the sum
    of that (between as many each, which serves the smallest language, and by traffic, which serves the mean of all).
    Rows are then taken at equal steps of probability along the segments, within them along ten strata of rising
    expected error, in random order within these: exactly n, the share of every segment and stratum to within one.
    (Without strata of random order only some N / n different sets of texts could be drawn, and intervals from them
    cover 0.89 to 1.00 for 0.95.) Never the n of the highest disagreement: those say nothing of the rest.

    Args:
        evidence: rows of one text each.
        expected: (n,) expected error of each row, as from `calibration.curve`; any order of doubt in [0, 1] will do.
        n: at most as many as there are rows.
    Raises ValueError for rows of several texts, and an n that is not from 1 to the number of rows.
    Source: power allocation, Bankier (1988), https://doi.org/10.1080/00031305.1988.10475556; systematic sampling with
        unequal probabilities, Madow (1949), https://doi.org/10.1214/aoms/1177729988.
    """
    if evidence.count is not None and (evidence.count != 1).any():
        raise ValueError("a row stands for several texts; to choose among texts give each a row of its own")
    if not 1 <= n <= len(evidence):
        raise ValueError(f"n is {n!r}; there are {len(evidence)} texts to choose from")
    rng = np.random.default_rng(seed)
    doubt = np.clip(np.nan_to_num(expected, nan=0.5), _EXTREME, 1 - _EXTREME)
    size = evidence.weights * np.sqrt(doubt * (1 - doubt))
    size = size + _EVERYWHERE * size.mean() if size.any() else np.ones(len(evidence))
    rows = evidence.total(np.ones(len(evidence)))
    shares = _capped(np.sqrt(evidence.total(size)) * (rows > 0), rows, n)
    inclusion = np.zeros(len(evidence))
    for place, share in enumerate(shares):
        mine = np.flatnonzero(evidence.segment == place)
        inclusion[mine] = _capped(size[mine], np.ones(len(mine)), share)
    by_doubt = np.lexsort((rng.random(len(evidence)), doubt, evidence.segment))
    before = np.cumsum(inclusion[by_doubt]) - inclusion[by_doubt]
    own = np.cumsum(shares) - shares  # what the segments before have
    step = np.maximum(_FEWEST_OF_STRATUM, shares / _STRATA)[evidence.segment[by_doubt]]
    stratum = np.floor((before - own[evidence.segment[by_doubt]]) / step + 1e-9)
    order = by_doubt[np.lexsort((rng.random(len(evidence)), stratum, evidence.segment[by_doubt]))]
    reached = np.cumsum(inclusion[order])
    reached *= n / reached[-1]  # but for rounding it is n
    taken = np.searchsorted(reached, rng.random() + np.arange(n), side="right")
    return Choice(np.sort(order[np.minimum(taken, len(order) - 1)]), inclusion)


def _capped(sizes: np.ndarray, caps: np.ndarray, total: float) -> np.ndarray:
    """Shares of the total in proportion to sizes, none above its cap; what is cut goes to the others."""
    shares = np.zeros(len(sizes))
    full = sizes <= 0
    while not full.all():
        left = total - caps[full & (sizes > 0)].sum()
        shares = np.where(full & (sizes > 0), caps, np.where(full, 0.0, sizes * left / sizes[~full].sum()))
        over = ~full & (shares > caps)
        if not over.any():
            break
        full |= over
    else:
        shares = np.where(sizes > 0, caps, 0.0)
    return shares
