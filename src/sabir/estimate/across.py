"""Estimates without labels, with intervals from how far off the same method is on segments that are labelled.

What errors of texts say of each other within a segment says little about the next segment: "± 3 sampling errors"
holds the truth in a quarter to two thirds of cases. So each labelled segment of the reference is estimated as if it had
no labels, from the others, and an interval is as wide as those estimates were off. A language that the reference lacks
is like leaving a whole language out, a domain that it lacks like leaving a whole domain out.

What was learnt of a language itself may no longer hold, and no left-out segment tells how much that matters. So the
interval of a known language also holds what it would be if its name were unknown. Simulated at 90 % after the error of
a language has become that of another one: some 0.79 to 0.98, without this 0.77 to 0.94 (2026-11-21). The price: where
a known language has not changed, the interval holds the truth more often, 0.88 to 0.97 with 20 or 50 texts, 0.94 to
1.00 with 200 or more (2026-11-22). Its level is "at least", not "about".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sabir.estimate import flags
from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.estimate.folds import OF_INTERVALS, apart
from sabir.estimate.means import share

Predict = Callable[[Evidence], np.ndarray]  # (S,) the error in each segment, NaN where it cannot say
Fit = Callable[[Evidence], Predict]

FEWEST_FOR_T = 4  # parts left out; three residuals around a fit of two parameters say nothing


def across_segments(
    name: str,
    fit: Fit,
    reference: Evidence,
    production: Evidence,
    *,
    level: float,
    beware: Sequence[Sequence[str]] | None = None,
    truth: Predict | None = None,
) -> list[Estimate]:
    """The error in each segment of production as `fit` sees it, with a prediction interval across segments.

    The interval is for the mean error of these texts, had they been labelled. Leave-one-out residuals are not
    independent of each other, so its level is approximate where the language is new; where it is known and has not
    changed, the truth lies inside at least as often as the level says. tests/estimate simulates both.

    Args:
        name: the estimator's.
        fit: takes labelled evidence; what it gives takes evidence whose labels are hidden.
        production: its labels, if it has any, are not looked at.
        beware: flags of the estimator's own, per segment of production; those of `flags.general` come by themselves.
        truth: what is estimated, of labelled evidence; None: the mean error.
    """
    hidden = production.without_labels()
    predict = fit(reference)
    points, unnamed = predict(hidden), predict(_unnamed(hidden))
    left_out: dict[str, _Residuals] = {}
    estimates = []
    labelled = production.total(production.counts * production.labelled)
    general = flags.general(reference, production)
    for place, segment in enumerate(production.segments):
        part = part_left_out(reference, segment)
        if part not in left_out:
            left_out[part] = _residuals(fit, reference, part, truth)
        point, stranger = _known(points[place]), _known(unnamed[place])
        low, high, how = left_out[part].interval(point, stranger, production.effective_n[place], level)
        estimates.append(
            Estimate(
                segment,
                name,
                point,
                low,
                high,
                level,
                n=round(production.n[place]),
                n_labelled=round(labelled[place]),
                how=how,
                flags=(*general[place], *(beware[place] if beware is not None else ())),
            )
        )
    return estimates


def part_left_out(reference: Evidence, segment: Segment) -> str:
    """What must be left out of the reference to be as far from the rest as this segment is from the whole.

    Gives "languages", "domains", "languages and domains" or "segments".
    """
    known = reference.take(reference.labelled).segments
    languages, domains = {one.language for one in known}, {one.domain for one in known}
    lacks_language = segment.language not in languages
    lacks_domain = segment.domain not in domains and segment.domain != "" and domains != {""}
    if lacks_language:
        return "languages and domains" if lacks_domain else "languages"
    return "domains" if lacks_domain else "segments"


def predicted_apart(fit: Fit, rest: Evidence, held: Evidence) -> np.ndarray:
    """(S,) the error in each segment of held, by a fit to the rest that has seen none of held's texts.

    The halves of parallel sets (see `folds.apart`) are averaged by their weight.
    """
    hidden = held.without_labels()
    sums, weights = np.zeros((2, len(held.segments)))
    for reference, mine in apart(rest, hidden, coin=OF_INTERVALS):
        part = hidden.take(mine)
        found = fit(reference)(part)
        places = np.array([held.segments.index(segment) for segment in part.segments])
        weight = np.where(np.isnan(found), 0.0, part.total(part.weights))
        sums[places] += np.nan_to_num(found) * weight
        weights[places] += weight
    return np.divide(sums, weights, out=np.full(len(sums), np.nan), where=weights > 0)


@dataclass(frozen=True)
class _Residuals:
    """How far off estimates of left-out segments were.

    Args:
        part: what was left out, for people; parts: how many of those have labels.
        estimated, true: (K,) errors of the segments that could be estimated.
        group: (K,) with which part each was left out; residuals of one part are not independent.
        within: variance of the error of single texts within segments.
        sampling: mean over segments of within / n: the share of the squared residuals that few texts make.
    """

    part: str
    parts: int
    estimated: np.ndarray
    true: np.ndarray
    group: np.ndarray
    within: float
    sampling: float

    def interval(
        self, point: float | None, unnamed: float | None, n: float, level: float
    ) -> tuple[float | None, float | None, str]:
        """Around the points of n texts with their language and without; None, None where none can be given.

        Last, how it was made.

        Beyond all that was estimated on the reference the outer bound is further off by as far as the point is beyond:
        estimates are drawn towards what was seen, so the truth lies rather outwards.
        """
        if point is None:
            return None, None, "nothing to estimate it from"
        groups = len(np.unique(self.group))
        if groups < FEWEST_FOR_T:
            if self.parts < FEWEST_FOR_T:
                return None, None, f"too few labelled {self.part} ({self.parts}; at least {FEWEST_FOR_T})"
            some = f"of {self.parts} labelled {self.part} {groups} could be estimated"
            return None, None, f"{some}; at least {FEWEST_FOR_T} are needed"
        from scipy.special import stdtrit

        t = float(stdtrit(groups - 2, (1 + level) / 2))
        smaller = max(0.0, self.within / n - self.sampling)
        rank = (groups + 1) * level
        if rank <= groups + 1e-9:
            square = self._ranked(rank) ** 2 + t**2 * smaller
            how = f"residuals of {groups} labelled {self.part}, each left out in turn"
        else:
            square = t**2 * (float(np.mean((self.true - self.estimated) ** 2)) + smaller)
            how = f"regression-t over {groups} labelled {self.part}"
        below, above = (max(0.0, one) for one in (self.estimated.min() - point, point - self.estimated.max()))
        lowest, highest = (f(point, point if unnamed is None else unnamed) for f in (min, max))
        low, high = (
            lowest - math.sqrt(square + (t * below) ** 2),
            highest + math.sqrt(square + (t * above) ** 2),
        )
        return share(low), share(high), how

    def _ranked(self, rank: float) -> float:
        """The size of a residual that has this rank among those of the parts, each of which counts as one."""
        sizes = np.abs(self.true - self.estimated)
        order = np.argsort(sizes)
        _, place, members = np.unique(self.group, return_inverse=True, return_counts=True)
        return float(np.interp(rank, np.cumsum(1 / members[place][order]), sizes[order]))


def _residuals(fit: Fit, reference: Evidence, part: str, truth: Predict | None) -> _Residuals:
    labelled = reference.take(reference.labelled)
    names, errors = labelled.segments, labelled.error
    if errors is None or not len(labelled):
        return _Residuals(part, 0, np.zeros(0), np.zeros(0), np.zeros(0), 0.0, 0.0)
    left_out_with = _groups(names, part)
    parts = sorted(set(left_out_with))
    found: list[tuple[float, float, int, float]] = []
    for number, key in enumerate(parts if len(parts) >= FEWEST_FOR_T else ()):
        mine = np.array([one == key for one in left_out_with])
        out = _gone(names, mine, part)
        held, rest = labelled.take(mine[labelled.segment]), labelled.take(~out[labelled.segment])
        if held.error is not None and len(rest):
            estimated = predicted_apart(fit, rest, held)
            true = truth(held) if truth else held.mean(held.error)
            found += zip(estimated, true, [number] * len(estimated), held.effective_n, strict=True)
    known = [one for one in found if not np.isnan(one[:2]).any()]
    estimated, true, group, sizes = np.array(known).reshape(-1, 4).T
    means = labelled.mean(errors)
    squares = labelled.counts * (errors - means[labelled.segment]) ** 2
    within = float(squares.sum() / max(1.0, labelled.counts.sum() - len(means)))
    sampling = float(np.mean(within / sizes)) if len(sizes) else 0.0
    return _Residuals(part, len(parts), estimated, true, group, within, sampling)


def _unnamed(evidence: Evidence) -> Evidence:
    """The same of languages that no reference has."""
    return replace(
        evidence, segments=tuple(replace(one, language=f"?{one.language}") for one in evidence.segments)
    )


def _groups(names: Sequence[Segment], part: str) -> list[tuple[str, ...]]:
    """What each segment is left out with."""
    if part == "languages":
        return [(one.language,) for one in names]
    if part == "domains":
        return [(one.domain,) for one in names]
    if part == "languages and domains":
        return [(one.language, one.domain) for one in names]
    return [(one.language, one.domain, one.window) for one in names]


def _gone(names: Sequence[Segment], mine: np.ndarray, part: str) -> np.ndarray:
    """(S,) which segments go from the rest when those of `mine` are left out."""
    if part != "languages and domains":
        return mine
    held = [name for name, chosen in zip(names, mine, strict=True) if chosen]
    languages, domains = {one.language for one in held}, {one.domain for one in held}
    return np.array([name.language in languages or name.domain in domains for name in names])


def _known(value: float) -> float | None:
    return None if np.isnan(value) else share(float(value))
