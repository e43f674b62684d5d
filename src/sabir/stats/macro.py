"""The mean over several groups of examples (languages), each with equal weight, and the difference of two."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sabir.stats.resampling import permutation_p, swapped_differences
from sabir.stats.results import Bounds, Difference, Interval, Value, check_settings
from sabir.stats.samples import Keys, Sample, difference_of, pair_of, pulls, sample_of, score
from sabir.stats.seeds import Spread, spread_of, student_p, widened
from sabir.stats.single import (
    UNLIMITED,
    Settings,
    are_shares,
    difference_interval_of,
    interval_of,
    is_share,
)


def bootstrap_macro(
    groups: Sequence[np.ndarray],
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    keys: Sequence[Keys] | None = None,
) -> Interval:
    """The mean score over several groups (languages), each with equal weight, with its interval.

    Args:
        groups: statistics of each group, as in `bootstrap`. One group without a scored example leaves the mean
            unknown. Of several seeds, seed s of all groups is one model.
        keys: per group one key per example. Examples of one key, within a group (texts of one source) and in
            several (translations of one text), belong together: texts hard in one language are hard in the next,
            and a mean over parallel languages is known less well than over languages with texts of their own. One
            whose key is None stands alone. By default all do, and the groups are independent of one another.
    """
    check_settings(level, resamples)
    samples = [sample_of(group, of) for group, of in zip(groups, keys_of_groups(groups, keys), strict=True)]
    n = sum(sample.n for sample in samples)
    union = _Union.of(samples)
    if not all(sample.n for sample in samples):
        return Interval(None, None, None, level, n, union.units)
    found = [interval_of(each, value, Settings(seed + i, level, resamples)) for i, each in enumerate(samples)]
    limits = (0.0, 1.0) if all(is_share(each.rows, value) for each in samples) else UNLIMITED
    centre, bounds = _combined(union, found, value, level, limits)
    return Interval(centre, *bounds, level, n, union.units)


def paired_macro(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    keys: Sequence[Keys] | None = None,
) -> Difference:
    """How much better model a is than model b in the mean over several groups (languages).

    Interval as in `bootstrap_macro`; the p-value swaps answers within every group, and those of one key in all
    groups together.

    Args:
        pairs: per group the statistics of a and of b, as in `paired_difference`.
    """
    check_settings(level, resamples)
    samples = [pair_of(a, b, of) for (a, b), of in zip(pairs, keys_of_groups(pairs, keys), strict=True)]
    n = sum(sample.n for sample in samples)
    union = _Union.of(samples)
    if not all(sample.n for sample in samples):
        return Difference(None, None, None, None, n, union.units)
    found = [
        difference_interval_of(each, value, Settings(seed + i, level, resamples))
        for i, each in enumerate(samples)
    ]
    limits = (-1.0, 1.0) if all(are_shares(each, value) for each in samples) else UNLIMITED
    centre, bounds = _combined(union, found, difference_of(value), level, limits)
    p = macro_p_of(samples, value, Settings(seed, level, resamples))
    return Difference(centre, *bounds, p, n, union.units)


def macro_p_of(samples: Sequence[Sample], value: Value, settings: Settings) -> float:
    """Two-sided p-value of the mean of the differences between the two sides of each pair; each has an example."""
    union = _Union.of(samples)
    difference = difference_of(value)
    centre = math.fsum(float(score(difference, each.means())) for each in samples) / len(samples)
    differs = np.zeros(union.units, dtype=bool)
    for sample, place in zip(samples, union.places, strict=True):
        a, b = np.split(sample.sums, 2, axis=-1)
        differs[place[(a != b).any(axis=(1, 2))]] = True
    differing = int(differs.sum())
    if max(sample.seeds for sample in samples) > 1:
        p = student_p(centre, _spread(union, difference))
        return max(p, 2.0 ** (1 - differing)) if differing else 1.0
    swapped = [
        swapped_differences(
            [samples[i] for i in part],
            union.places_within(part),
            value,
            seed=settings.seed + part[0],
            resamples=settings.resamples,
        )
        for part in union.parts
    ]
    return permutation_p(np.concatenate(swapped, axis=1).mean(axis=1), centre, differing)


@dataclass(frozen=True)
class _Union:
    """The units of several samples, each counted once.

    Attributes:
        places: per sample the number of each of its units, below `units`.
        parts: which samples share units, directly or through others.
    """

    samples: Sequence[Sample]
    places: list[np.ndarray]
    units: int
    parts: list[list[int]]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Union:
        numbers: dict[Hashable, int] = {}
        owner: list[int] = []  # of each unit, the first sample that has it
        leader = list(range(len(samples)))

        def first(i: int) -> int:
            while leader[i] != i:
                i = leader[i]
            return i

        places = []
        for i, sample in enumerate(samples):
            keys = sample.keys if sample.keys is not None else [object() for _ in range(sample.groups)]
            place = []
            for key in keys:
                number = numbers.setdefault(key, len(numbers))
                if number == len(owner):
                    owner.append(i)
                elif first(owner[number]) != first(i):
                    low, high = sorted((first(owner[number]), first(i)))
                    leader[high] = low
                place.append(number)
            places.append(np.array(place, dtype=int))
        parts: dict[int, list[int]] = {}
        for i in range(len(samples)):
            parts.setdefault(first(i), []).append(i)
        return cls(samples, places, len(numbers), list(parts.values()))

    def places_within(self, part: Sequence[int]) -> list[np.ndarray]:
        """The numbers of the units of some samples, counted among these samples only."""
        places = [self.places[i] for i in part]
        _, numbers = np.unique(np.concatenate(places), return_inverse=True)
        return np.split(numbers, np.cumsum([len(place) for place in places])[:-1])


def _combined(
    union: _Union,
    found: Sequence[tuple[float, Bounds]],
    value: Value,
    level: float,
    limits: tuple[float, float],
) -> tuple[float, Bounds]:
    """Mean of the centres, with the distances to their bounds added as errors add that are so far alike.

    Source: MOVER, Zou and Donner (2008), https://doi.org/10.1002/sim.3095, also for correlated parts.
    """
    centre = math.fsum(middle for middle, _ in found) / len(found)
    below = [middle - low for middle, (low, _) in found if low is not None]
    above = [high - middle for middle, (_, high) in found if high is not None]
    if min(len(below), len(above)) < len(found):
        return centre, (None, None)
    reach = []
    for distances in (below, above):
        parts = [_added(union, part, distances, value) for part in union.parts]
        reach.append(math.hypot(*parts) / len(found))
    bounds = centre - reach[0], centre + reach[1]
    if max(sample.seeds for sample in union.samples) > 1:
        bounds = widened(centre, bounds, _spread(union, value), level, limits)
    return centre, bounds


def _added(union: _Union, part: Sequence[int], distances: Sequence[float], value: Value) -> float:
    """The distances of samples that share units, added by how alike the units pull their scores.

    Not less than if they were independent: that few texts pull against each other in two languages is luck. A
    samples whose units show no pull (all right, all wrong) may go with each other: what they have not shown yet is
    rare, and says nothing of the others.
    """
    independent = math.hypot(*(distances[i] for i in part))
    if len(part) == 1:
        return independent
    together, unknown = np.zeros(union.units), 0.0
    for i in part:
        pull = pulls(union.samples[i], value)
        length = float(np.linalg.norm(pull))
        if length > 1e-12:
            together[union.places[i]] += distances[i] * pull / length
        else:
            unknown += distances[i]
    return max(independent, math.hypot(float(np.linalg.norm(together)), unknown))


def _spread(union: _Union, value: Value) -> Spread:
    """Over seeds and units of the mean over samples."""
    count, seeds = len(union.samples), max(sample.seeds for sample in union.samples)
    if any(sample.seeds not in (1, seeds) for sample in union.samples):
        raise ValueError(
            f"groups have {sorted({s.seeds for s in union.samples})} seeds; expected as many in each"
        )
    together, by_seed, variances = np.zeros(union.units), np.zeros(seeds), []
    for sample, place in zip(union.samples, union.places, strict=True):
        pull = pulls(sample, value) / count
        together[place] += pull
        by_seed += value(sample.means()) / count
        variances.append(float((pull**2).sum()))
    freedom = union.units - 1.0
    if sum(variances) > 0:
        weights = [v**2 / max(1.0, s.equal_groups - 1) for v, s in zip(variances, union.samples, strict=True)]
        freedom = min(freedom, sum(variances) ** 2 / sum(weights))
    # Not less than of independent samples, as in `_added`.
    return spread_of(by_seed, max(sum(variances), float((together**2).sum())), freedom)


def keys_of_groups(groups: Sequence[object], keys: Sequence[Keys] | None) -> Sequence[Keys | None]:
    """Per group the keys of its examples, or None. Raises ValueError for no group, or not as many keys."""
    if not groups:
        raise ValueError("a mean over groups needs at least one group")
    if keys is None:
        return [None] * len(groups)
    if len(keys) != len(groups):
        raise ValueError(f"{len(keys)} lists of keys for {len(groups)} groups; each group has one")
    return keys
