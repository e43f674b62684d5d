"""Which language to retrain or to label first, from estimates, budgets and costs.

The errors of segments are known badly, and the largest of several estimates is mostly too large. They are first shrunk
to what all segments have in common, each by the width of its interval (empirical Bayes): where they differ no
more than their intervals allow nothing stands out, of one far from the others most is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sabir.estimate.evidence import Estimate

LABELS = 50  # asked for at a time
FEWEST_SHRUNK = 4  # of three segments nobody can tell what they have in common
DOUBTS = frozenset(  # how flags begin that make an estimate doubtful
    ("small", "no reference", "unseen language", "unseen domain", "extrapolating", "nothing to learn from")
)
DRIFTS = ("drift", "worse")  # likewise
Action = Literal["retrain", "label", "wait"]


@dataclass(frozen=True)
class Cost:
    """What retraining one language takes; None where it is not known."""

    device_s: float | None = None
    usd: float | None = None


@dataclass(frozen=True)
class Advice:
    """What to do about one language.

    Args:
        p_over_budget: the probability, after shrinkage, that its error is over the budget; None without an interval.
        expected_gain: errors that retraining is expected to spare, per text of all production: the language's share
            of the traffic times the mean of what its error exceeds the reference by; of `label` only as far as the
            error is over the budget too. None where error or reference are not known.
        estimated_usd, estimated_device_s: of the action itself; None where not known.
        labels: how many to make; 0 but for `label`.
        why: a sentence.
    """

    action: Action
    language: str
    p_over_budget: float | None
    expected_gain: float | None
    estimated_usd: float | None
    estimated_device_s: float | None
    labels: int
    why: str


def advise(
    estimates: Sequence[Estimate],
    budgets: Mapping[str, float],
    *,
    costs: Mapping[str, Cost] | None = None,
    reference_error: Mapping[str, float] | None = None,
    traffic: Mapping[str, float] | None = None,
    usd_per_label: float | None = None,
    labels: int = LABELS,
) -> tuple[Advice, ...]:
    """What to do about each language, the largest gain per unit of cost first; what can wait comes last.

    Retrain: the error is over the budget with a probability of at least the estimates' level, or the whole interval
    of a segment is; or it is more likely over than not, and disagreement says that it has changed. Wait: it is
    within, as surely. Label: all else; and where few texts, a language or domain that nothing labelled is like, or a
    disagreement beyond what was labelled make the estimate itself doubtful (which does not keep an error whose whole
    interval is over the budget from being mended). Gains are ranked per US dollar where every cost is known, else per
    device second, else alone; labels count with the retraining that they may lead to, as far as that is likely.

    Args:
        estimates: of one window, a segment each; several of a language (domains) are averaged by their texts.
        budgets: the largest error one would bear, by language.
        reference_error: what a retrained language would have: that of the labelled test rows.
        traffic: by language, in any unit; None: as many texts as were estimated.
        labels: made at a time.
    Raises ValueError for a language without a budget.
    """
    languages = _languages(estimates)
    if missing := sorted(set(languages) - set(budgets)):
        raise ValueError(f"no budget for {', '.join(missing)}; expected one for every language estimated")
    references = reference_error or {}
    beliefs = _shrunk(languages, references)
    shares = {
        name: float(one.n) if traffic is None else traffic.get(name, 0.0) for name, one in languages.items()
    }
    whole = sum(shares.values())
    found = []
    for name, one in languages.items():
        belief, budget, reference = beliefs.get(name), budgets[name], references.get(name)
        p = None if belief is None else belief.over(budget)
        action, why = _decided(one, p, budget)
        gain = None
        if belief is not None and reference is not None and whole:
            over = max(budget, reference) if action == "label" else reference
            gain = shares[name] / whole * belief.excess(reference, over)
        cost = (costs or {}).get(name, Cost())
        wanted = min(labels, one.n) if action == "label" else 0
        of_labels = None if usd_per_label is None else wanted * usd_per_label
        own = {"retrain": cost, "label": Cost(0.0, of_labels), "wait": Cost(0.0, 0.0)}[action]
        advice = Advice(action, name, p, gain, own.usd, own.device_s, wanted, _sentence(one, budget, p, why))
        found.append((advice, _with_retraining(advice, own, cost)))
    return _ordered(found)


@dataclass(frozen=True)
class _Language:
    """The segments of a language, and their error as one."""

    segments: tuple[Estimate, ...]

    @property
    def n(self) -> int:
        return sum(one.n for one in self.segments)

    @property
    def told(self) -> list[Estimate]:
        return [one for one in self.segments if one.error is not None]

    @property
    def error(self) -> float | None:
        """The mean by texts of what is known; None where nothing is."""
        return _by_texts([(one, one.error) for one in self.told if one.error is not None])

    @property
    def deviation(self) -> float | None:
        """Of that, as if all of a language were wrong together; None where a segment has no interval."""
        deviations = [(one, _deviation(one)) for one in self.told]
        known = [(one, each) for one, each in deviations if each is not None]
        return _by_texts(known) if len(known) == len(deviations) else None

    @property
    def flags(self) -> list[str]:
        return list(dict.fromkeys(flag for one in self.segments for flag in one.flags))

    @property
    def doubts(self) -> list[str]:
        return [flag for flag in self.flags if flag.partition(":")[0] in DOUBTS]

    def alarming(self, budget: float) -> list[Estimate]:
        """Segments whose whole interval is over the budget."""
        return [one for one in self.segments if one.low is not None and one.low > budget]


@dataclass(frozen=True)
class _Belief:
    """What is thought of an error: a normal distribution."""

    mean: float
    deviation: float

    def over(self, budget: float) -> float:
        """The probability that it is larger."""
        return _upper(self._standard(budget))

    def excess(self, reference: float, over: float) -> float:
        """The mean of what it exceeds the reference by, counted as 0 where it is not over `over`."""
        bound = self._standard(over)
        density = math.exp(-bound * bound / 2) / math.sqrt(2 * math.pi)
        return self.deviation * density + (self.mean - reference) * _upper(bound)

    def _standard(self, bound: float) -> float:
        return (bound - self.mean) / self.deviation


def _languages(estimates: Sequence[Estimate]) -> dict[str, _Language]:
    groups: dict[str, list[Estimate]] = {}
    for one in estimates:
        groups.setdefault(one.segment.language, []).append(one)
    return {name: _Language(tuple(group)) for name, group in groups.items()}


def _shrunk(languages: Mapping[str, _Language], references: Mapping[str, float]) -> dict[str, _Belief]:
    """What is thought of each language's error after shrinkage; those without an interval are left out.

    Where every one has a reference, what is shrunk is how far it is from it: languages differ, drift is what they may
    have in common.
    Source: Morris (1983), https://doi.org/10.1080/01621459.1983.10477920, section 5, of a common mean. Simulated for 8
        languages with a budget one deviation above their mean, over which none is: said to be over it 0.24 without
        shrinkage, 0.14 with it.
    """
    known = {
        name: (one.error, max(one.deviation, 1e-6))
        for name, one in languages.items()
        if one.error is not None and one.deviation is not None
    }
    k = len(known)
    if k < FEWEST_SHRUNK:
        return {name: _Belief(*each) for name, each in known.items()}
    about = np.array([references[name] if set(known) <= set(references) else 0.0 for name in known])
    found, variance = (
        np.array([error for error, _ in known.values()]) - about,
        np.array([deviation**2 for _, deviation in known.values()]),
    )
    apart, mean = _between(found, variance)
    shrunk = (k - 3) / (k - 1) * variance / (variance + apart)
    unsure = 2 / (k - 3) * shrunk**2 * (variance.mean() + apart) / (variance + apart)
    means = about + found - shrunk * (found - mean)
    deviations = np.sqrt(variance * (1 - (k - 1) / k * shrunk) + unsure * (found - mean) ** 2)
    return {name: _Belief(float(m), float(d)) for name, m, d in zip(known, means, deviations, strict=True)}


def _between(found: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """The variance of true values between segments, at least 0, and their mean."""
    k, apart, mean = len(found), 0.0, float(found.mean())
    for _ in range(100):
        weights = 1 / (variance + apart)
        mean = float(np.average(found, weights=weights))
        before = apart
        apart = max(0.0, float(np.average(k / (k - 1) * (found - mean) ** 2 - variance, weights=weights)))
        if abs(apart - before) < 1e-12:
            break
    return apart, mean


def _decided(one: _Language, p: float | None, budget: float) -> tuple[Action, str]:
    """What to do, and what decides it."""
    level = one.segments[0].level
    if alarming := one.alarming(budget):
        domains = dict.fromkeys(each.segment.domain for each in alarming if each.segment.domain)
        where = f" in {', '.join(domains)}" if len(alarming) < len(one.segments) and domains else ""
        return "retrain", f"even the lower end of its interval is over{where}"
    if one.error is None:
        return "label", "nothing can be said without labels"
    drifted = [flag for flag in one.flags if flag.partition(":")[0] in DRIFTS]
    if drifted and p is not None and p >= 0.5:
        return "retrain", f"more likely over than not, and it has changed ({drifted[0]})"
    if p is None:
        return "label", f"it has no interval ({one.told[0].how or 'none was given'})"
    if one.doubts:
        return "label", f"the estimate is doubtful ({'; '.join(one.doubts)})"
    if p >= level:
        return "retrain", "that is sure enough"
    if p <= 1 - level:
        return "wait", "that can wait"
    return "label", "that is undecided"


def _sentence(one: _Language, budget: float, p: float | None, why: str) -> str:
    error = "unknown" if one.error is None else f"{one.error:.3f}"
    chance = "" if p is None else f", over it with probability {p:.2f}"
    return f"error {error}, budget {budget:.3f}{chance}: {why}"


def _with_retraining(advice: Advice, own: Cost, retraining: Cost) -> Cost:
    """What the gain costs in all: labels lead to retraining with the probability that it is needed."""
    if advice.action != "label":
        return own

    def together(name: str) -> float | None:
        first, then = getattr(own, name), getattr(retraining, name)
        return None if None in (first, then, advice.p_over_budget) else first + advice.p_over_budget * then

    return Cost(together("device_s"), together("usd"))


def _ordered(found: Sequence[tuple[Advice, Cost]]) -> tuple[Advice, ...]:
    """The largest gain per unit of cost first, then what gain is not known of, then what can wait."""
    ranked = [
        (advice, cost)
        for advice, cost in found
        if advice.action != "wait" and advice.expected_gain is not None
    ]
    unit = next(
        (name for name in ("usd", "device_s") if all(getattr(cost, name) for _, cost in ranked)), None
    )

    def worth(each: tuple[Advice, Cost]) -> float:
        gain = each[0].expected_gain
        assert gain is not None
        return gain / float(getattr(each[1], unit)) if unit else gain

    first = [advice for advice, _ in sorted(ranked, key=worth, reverse=True)]
    unknown = [advice for advice, _ in found if advice.action != "wait" and advice.expected_gain is None]
    waiting = [advice for advice, _ in found if advice.action == "wait"]
    return (*first, *unknown, *sorted(waiting, key=lambda one: -(one.p_over_budget or 0.0)))


def _deviation(one: Estimate) -> float | None:
    """The standard deviation that an interval amounts to, by its longer side: the other may be cut at 0."""
    if one.error is None or one.low is None or one.high is None:
        return None
    from scipy.special import ndtri

    return max(one.error - one.low, one.high - one.error) / float(ndtri((1 + one.level) / 2))


def _by_texts(values: Sequence[tuple[Estimate, float]]) -> float | None:
    whole = sum(one.n for one, _ in values)
    return sum(one.n * value for one, value in values) / whole if whole else None


def _upper(standard: float) -> float:
    return math.erfc(standard / math.sqrt(2)) / 2
