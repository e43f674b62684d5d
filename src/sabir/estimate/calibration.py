"""What a disagreement means here: the error of texts whose disagreement it is, learnt from labelled ones.

Members that make the same mistakes disagree too little, and by how much differs from task to task. So the curve from a
text's disagreement to its expected error is fitted on the reference: any rising curve (isotonic regression) where there
are texts enough, else a logistic one. Beside it each language has an offset, drawn towards 0 as far as its texts and
the spread among languages leave it open; a language that the reference lacks has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sabir.estimate.agreement import disagreement
from sabir.estimate.evidence import Evidence
from sabir.estimate.means import ENOUGH

_STEEP = 10.0  # the slope's prior spread: log-odds from no to full disagreement; without it separable rows have no fit
_ROUNDS = 100  # of Newton, and of the variance among languages in turn
_STILL = 1e-4  # log-odds; less moves no error in its fourth digit


@dataclass(frozen=True)
class Curve:
    """From disagreement to error.

    Args:
        at: (k,) disagreements, rising; log_odds: (k,) those of an error there. In between the line between two.
        offsets: what each language's log-odds lie above the curve.
    """

    at: np.ndarray
    log_odds: np.ndarray
    offsets: Mapping[str, float]

    def rows(self, evidence: Evidence) -> np.ndarray:
        """(n,) the expected error of each row; NaN where no member has an answer."""
        if evidence.agreement is None:
            return np.full(len(evidence), np.nan)
        seen = disagreement(evidence.agreement)
        offsets = np.array([self.offsets.get(segment.language, 0.0) for segment in evidence.segments])
        if not len(self.at):
            return np.full(len(evidence), np.nan)
        return _share(np.interp(seen, self.at, self.log_odds) + offsets[evidence.segment])


def curve(reference: Evidence) -> Curve:
    """The curve of the labelled rows of the reference that have a disagreement; an empty one where there are none.

    Source: isotonic regression as in Zadrozny and Elkan (2002), https://doi.org/10.1145/775047.775151; offsets by
        the evidence for a variance among languages, MacKay (1992), https://doi.org/10.1162/neco.1992.4.3.415
    """
    nothing = Curve(np.zeros(0), np.zeros(0), {})
    if reference.agreement is None:
        return nothing
    seen = disagreement(reference.agreement)
    usable = ~np.isnan(seen) & reference.labelled & (reference.weights > 0)
    labelled, seen = reference.take(usable), seen[usable]
    if labelled.error is None or not len(labelled):
        return nothing
    languages, of_segment = np.unique([one.language for one in labelled.segments], return_inverse=True)
    texts = labelled.counts.sum()
    weights = labelled.weights * texts / labelled.weights.sum()
    cells = _cells(seen, labelled.error, weights, of_segment[labelled.segment], len(languages))
    at, log_odds, offsets = _any_shape(cells) if texts >= ENOUGH else _logistic(cells)
    return Curve(at, log_odds, dict(zip(languages.tolist(), offsets.tolist(), strict=True)))


@dataclass(frozen=True)
class _Cells:
    """Labelled rows of one language and one disagreement together.

    Args:
        seen: their disagreement; error, square: the means of their errors and of those squared; weight: together as
            many as there are texts; language: its number, of `languages`.
    """

    seen: np.ndarray
    error: np.ndarray
    square: np.ndarray
    weight: np.ndarray
    language: np.ndarray
    languages: int

    @property
    def furthest(self) -> float:
        """The log-odds beyond which this many texts can tell nothing: half a mistake."""
        return float(np.log(2 * self.weight.sum() + 1))

    def total(self, values: np.ndarray) -> np.ndarray:
        """(L,) the weighted sum of values, (n,), over the rows of each language."""
        return np.bincount(self.language, values * self.weight, minlength=self.languages)

    def graded(self, share: np.ndarray) -> float:
        """The variance of the errors around share in parts of that of errors of 0 or 1; less for graded ones."""
        around = (self.weight * (self.square - 2 * share * self.error + share**2)).sum()
        return float(np.clip(around / (self.weight * share * (1 - share)).sum(), 0.01, 1.0))


def _cells(
    seen: np.ndarray, error: np.ndarray, weight: np.ndarray, language: np.ndarray, languages: int
) -> _Cells:
    values, of_value = np.unique(seen, return_inverse=True)
    cells, of_cell = np.unique(language * len(values) + of_value, return_inverse=True)
    weights, sums, squares = (np.bincount(of_cell, weight * one) for one in (1.0, error, error**2))
    return _Cells(
        values[cells % len(values)],
        sums / weights,
        squares / weights,
        weights,
        cells // len(values),
        languages,
    )


def _any_shape(cells: _Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from scipy.optimize import isotonic_regression

    at, places = np.unique(cells.seen, return_inverse=True)
    weights = np.bincount(places, cells.weight)
    means = np.bincount(places, cells.weight * cells.error) / weights
    log_odds = _log_odds(isotonic_regression(means, weights=weights).x, cells.furthest)
    around = _Offsets(np.zeros(cells.languages), 1.0)
    for _ in range(_ROUNDS):
        before, around = around, around.improved(cells, log_odds[places])
        if around.stands_as(before):
            break
    return at, log_odds, around.of_language


def _logistic(cells: _Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    limit = cells.furthest
    mean = float(np.average(cells.error, weights=cells.weight))
    start, slope = float(_log_odds(np.array(mean), limit)), 0.0
    around = _Offsets(np.zeros(cells.languages), 1.0)
    for _ in range(_ROUNDS):
        share = _share(start + slope * cells.seen + around.of_language[cells.language])
        off, steep = cells.weight * (cells.error - share), cells.weight * share * (1 - share) + 1e-12
        gradient = np.array([off.sum(), (off * cells.seen).sum() - slope / _STEEP**2])
        both = (steep * cells.seen).sum()
        hessian = np.array([[steep.sum(), both], [both, (steep * cells.seen**2).sum() + 1 / _STEEP**2]])
        step = np.clip(np.linalg.solve(hessian, gradient), -1.0, 1.0)
        if slope + step[1] < 0:  # more disagreement never means fewer mistakes
            step = np.array([np.clip(gradient[0] / hessian[0, 0], -1.0, 1.0), -slope])
        slope += step[1]
        start = float(np.clip(start + step[0], -limit - slope, limit))
        before, around = around, around.improved(cells, start + slope * cells.seen)
        if np.abs(step).max() < _STILL and around.stands_as(before):
            break
    at = np.array([0.0, 1.0])
    return at, start + slope * at, around.of_language


@dataclass(frozen=True)
class _Offsets:
    """(L,) what languages lie above the curve, and the variance among languages that they were drawn towards 0 by."""

    of_language: np.ndarray
    variance: float

    def improved(self, cells: _Cells, log_odds: np.ndarray) -> _Offsets:
        """A step of Newton towards the likeliest offsets around a curve, and the variance that they show.

        One language alone does not differ from itself.
        """
        if cells.languages == 1:
            return self
        share = _share(log_odds + self.of_language[cells.language])
        graded = cells.graded(share)
        known = cells.total(share * (1 - share)) / graded + 1 / self.variance
        step = (cells.total(cells.error - share) / graded - self.of_language / self.variance) / known
        offsets = self.of_language + np.clip(step, -1.0, 1.0)
        told_apart = cells.languages - (1 / known).sum() / self.variance
        return _Offsets(offsets, float(np.clip((offsets**2).sum() / told_apart, 1e-4, 4.0)))

    def stands_as(self, before: _Offsets) -> bool:
        moved = np.append(self.of_language - before.of_language, self.variance - before.variance)
        return bool(np.abs(moved).max() < _STILL)


def _share(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def _log_odds(share: np.ndarray, limit: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.clip(np.log(share) - np.log1p(-share), -limit, limit)
