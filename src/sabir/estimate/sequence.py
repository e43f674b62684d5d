"""Watching a stream: alarms that stay right however often one looks, and drift against what was labelled.

A bet against "the error is at most b" starts with capital 1 and cannot grow on average while that is true; capital of
1 / alpha is then as rare as alpha, whenever one looks (Ville). Since errors may rise after months of calm, part of the
capital is held back for a bet that begins with each window: 6 / (π² t²) for the t-th, in all 1.

Source: betting, Waudby-Smith and Ramdas (2024), https://arxiv.org/abs/2010.09686; bets that begin later, Shin, Ramdas
and Rinaldo (2024), https://arxiv.org/abs/2203.03532. Departs: a mixture over constant stakes in place of predicted
ones, so that a row may stand for many texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sabir.estimate.corrections import benjamini_hochberg
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.means import FEWEST, Mean, mean_of
from sabir.stats import holm

# Shares of the capital that are put on "more than b": the best one is (error - b) / (1 - b), so from 0.5 points above a
# budget to all of it. More of them gain nothing: half way between two the growth is 4 % less than it could be.
_STAKES = np.geomspace(0.005, 0.9, 14)
_PERMUTATIONS = 2000


@dataclass(frozen=True)
class Stream:
    """How the bets against "the error is at most the budget" stand: all that later looks need of earlier texts.

    Args:
        budget: in [0, 1].
        looks: windows seen.
        capital: the logarithm of each stake's, see `after`.
    """

    budget: float
    looks: int = 0
    capital: tuple[float, ...] = (-math.inf,) * len(_STAKES)

    @property
    def p(self) -> float:
        """At most this likely, at any time, while the error is within the budget: 1 over the capital."""
        capital = float(np.logaddexp.reduce(self.capital)) - math.log(len(self.capital))
        return math.exp(min(0.0, -capital))

    def after(self, values: np.ndarray, counts: np.ndarray | None = None) -> Stream:
        """The stream after one window more. Every text is one bet, whatever traffic it stands for.

        Args:
            values: (n,) in [0, 1], independent; may be none.
            counts: (n,) texts of each row; None: 1.
        """
        grown = np.logaddexp(self.capital, math.log(_held_for(self.looks + 1)))
        grown = grown + _growth(values, counts, self.budget)
        return Stream(self.budget, self.looks + 1, tuple(float(one) for one in grown))


@dataclass(frozen=True)
class Alarm:
    """Whether a segment's error is shown to be above its budget, at the window that the segment names.

    Args:
        p: at most this likely under any error within the budget, all looks up to here together and corrected over the
            streams; an alarm is p <= the share of false alarms borne.
        stream: to go on from at the next window.
    """

    segment: Segment
    raised: bool
    p: float
    stream: Stream


def alarms(
    evidence: Evidence,
    values: np.ndarray,
    budgets: Mapping[Segment, float],
    *,
    false_alarms: float,
    earlier: Mapping[Segment, Stream] | None = None,
) -> list[Alarm]:
    """Per segment, in their order, whether its stream's error is shown to be above budget by its window.

    A stream is a language and domain over its windows; the names of windows sort in time. While no stream is above its
    budget, an alarm ever comes with probability `false_alarms` at most, over all streams and looks together; when some
    are, at most this share of the alarms of any one look is false in expectation (e-BH).

    Every text is one bet, whatever its `weight`: what is held against the budget is the error of texts, not of traffic.
    (Bets by traffic would be few large ones where traffic is uneven.)

    Args:
        values: (n,) of the rows, in [0, 1], independent given the past: errors of labelled ones, NaN of others, held
            against the budget; or expected errors of all, held against the budget and as much more as those may be too
            large in this segment (for a calibrated curve: error - low of its estimate).
        budgets: of each stream, a segment without window.
        earlier: streams to go on from; one of another budget begins anew.
    Source: see above; over streams see `corrections.benjamini_hochberg`.
    """
    known = ~np.isnan(values)
    before = earlier or {}
    streams = {of: Stream(budget) for of, budget in budgets.items()}
    streams |= {of: one for of, one in before.items() if of in budgets and one.budget == budgets[of]}
    found: dict[Segment, Alarm] = {}
    for window in sorted({one.window for one in evidence.segments}):
        here = [place for place, one in enumerate(evidence.segments) if one.window == window]
        for place in here:
            mine = known & (evidence.segment == place)
            of = _stream_of(evidence.segments[place])
            streams[of] = streams[of].after(values[mine], evidence.counts[mine])
        names = sorted(streams)
        corrected = benjamini_hochberg([streams[of].p for of in names])
        p = dict(zip(names, corrected, strict=True))
        for place in here:
            segment = evidence.segments[place]
            of = _stream_of(segment)
            likely = p[of]
            assert likely is not None
            found[segment] = Alarm(segment, likely <= false_alarms, likely, streams[of])
    return [found[segment] for segment in evidence.segments]


def drift(
    reference: Evidence,
    production: Evidence,
    reference_values: np.ndarray,
    production_values: np.ndarray,
) -> list[float | None]:
    """Per segment of production, the p-value that its values have risen above those of the reference by chance alone.

    One-sided, corrected over the segments (Holm). Against the reference's rows of its language and domain, else of its
    language; None where there are none. A Welch test of means with at least the variance that both sets have together
    (alone it is deceived by sets in which all values happen to be equal); by permutation, mid-p, below 20 texts. Means
    are by traffic (`weight`), within each set.

    Args:
        reference_values, production_values: (n,) of their rows, such as expected errors by one curve; NaN: left out.
    """
    found = []
    for place, segment in enumerate(production.segments):
        same = [one.language == segment.language for one in reference.segments]
        closer = [
            alike and one.domain == segment.domain
            for alike, one in zip(same, reference.segments, strict=True)
        ]
        of_segments = np.array(closer if any(closer) else same, dtype=bool)
        here = production.segment == place
        there = of_segments[reference.segment] if len(of_segments) else np.zeros(len(reference), bool)
        found.append(
            _risen(
                _Values.of(reference, reference_values, there),
                _Values.of(production, production_values, here),
            )
        )
    return holm(found)


@dataclass(frozen=True)
class _Values:
    """Some rows: (n,) values, texts of each, and what each of its texts weighs, 1 on average; the mean.

    Args:
        units: as many texts of equal weight say as much, if all are independent (Kish).
    """

    values: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    mean: Mean
    units: float

    @classmethod
    def of(cls, evidence: Evidence, values: np.ndarray, mine: np.ndarray) -> _Values:
        mine = mine & ~np.isnan(values) & (evidence.weights > 0)
        counts, keys = evidence.counts[mine], None if evidence.keys is None else evidence.keys[mine]
        weights = evidence.weights[mine] / counts
        if len(counts):
            weights = weights / np.average(weights, weights=counts)
        mean = mean_of(values[mine], weights=weights, counts=counts, keys=keys)
        return cls(
            values[mine],
            counts,
            weights,
            mean,
            mean_of(values[mine], weights=weights, counts=counts).units,
        )

    @property
    def texts(self) -> int:
        return round(float(self.counts.sum()))


def _risen(before: _Values, now: _Values) -> float | None:
    from scipy.special import stdtr

    if not before.texts or not now.texts or before.texts + now.texts < 3:
        return None
    if min(before.texts, now.texts) < FEWEST:
        return _permuted(before, now)
    if min(before.mean.units, now.mean.units) <= 1:  # all of one key
        return 1.0
    values, counts, weights = _both(before, now)
    together = mean_of(values, weights=weights, counts=counts)
    parts = before.mean.variance, now.mean.variance
    variance = max(sum(parts), together.variance * together.units * (1 / before.units + 1 / now.units))
    if variance == 0:
        return 1.0
    freedom = (
        sum(parts) ** 2 / (parts[0] ** 2 / (before.mean.units - 1) + parts[1] ** 2 / (now.mean.units - 1))
        if sum(parts)
        else before.mean.units + now.mean.units - 2
    )
    return float(stdtr(freedom, (before.mean.value - now.mean.value) / math.sqrt(variance)))


def _permuted(before: _Values, now: _Values) -> float:
    """Mid-p of the difference of means among those of two sets as large drawn from both."""
    values, counts, weights = _both(before, now)
    small, rises = (now, 1.0) if now.texts <= before.texts else (before, -1.0)
    drawn = _distinct(np.random.default_rng(0), round(float(counts.sum())), small.texts)
    rows = np.searchsorted(np.cumsum(counts), drawn, side="right")
    traffic, sums = weights[rows].sum(axis=1), (weights * values)[rows].sum(axis=1)
    others, other_sums = counts @ weights - traffic, counts @ (weights * values) - sums
    found = rises * (sums / traffic - other_sums / others)
    seen = now.mean.value - before.mean.value
    above, level = (found > seen + 1e-9).sum(), (np.abs(found - seen) <= 1e-9).sum()
    return float((above + (level + 1) / 2) / (_PERMUTATIONS + 1))  # the order seen is one of them


def _both(before: _Values, now: _Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, counts and weights of both as one."""
    return (
        np.append(before.values, now.values),
        np.append(before.counts, now.counts),
        np.append(before.weights, now.weights),
    )


def _distinct(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """(permutations, k) places of n, none twice in a row, every set as likely (Floyd)."""
    chosen = np.full((_PERMUTATIONS, k), -1)
    for place, last in enumerate(range(n - k, n)):
        one = rng.integers(last + 1, size=_PERMUTATIONS)
        taken = (chosen[:, :place] == one[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, last, one)
    return chosen


def _growth(values: np.ndarray, counts: np.ndarray | None, budget: float) -> np.ndarray:
    """(stakes,) how the logarithm of the capital grows when these values come."""
    over = values / max(budget, 1e-9) - 1  # a budget of 0 is passed by the first error
    counted = np.ones(len(values)) if counts is None else counts
    return np.array([np.log1p(stake * over) @ counted for stake in _STAKES])


def _held_for(look: int) -> float:
    """The share of the capital that is held back for bets that begin with this look, the first being 1."""
    return 6 / (math.pi * look) ** 2


def _stream_of(segment: Segment) -> Segment:
    return Segment(segment.language, segment.domain)
