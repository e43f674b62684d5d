"""Which language to retrain this month: what each policy says. Only the oracle sees labels of production."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sabir.estimate.advice import Cost, advise
from sabir.estimate.agreement import disagreements
from sabir.estimate.calibration import curve
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence
from sabir.estimate.sequence import drift
from sabir.project.alarms import drifted, flagged
from sabir.project.estimating import MARGIN, errors_by_language

LEVEL = 0.9
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class View:
    """What is known at a month's end.

    Args:
        reference: of the labelled test rows, by the adapters in use; production: of the month's texts, without labels.
        turn: languages in the order of round-robin, the next one first.
        arrived: labelled rows of the usual kinds that came since each language was last trained.
        training_s: what each language's last training took.
        gain: true gain in accuracy from retraining each language now; for the oracle alone.
    """

    reference: Evidence
    production: Evidence
    turn: list[str]
    arrived: Mapping[str, float]
    training_s: Mapping[str, float]
    gain: Mapping[str, float] = field(repr=False)

    @property
    def languages(self) -> list[str]:
        return [segment.language for segment in self.production.segments]


Choice = Callable[[View], list[str]]


@dataclass(frozen=True)
class Policy:
    """A way to choose; `members`: columns of the ensemble it asks, none of one that needs none."""

    name: str
    choose: Choice
    members: tuple[int, ...] = ()


def never(view: View) -> list[str]:
    return []


def everything(view: View) -> list[str]:
    return view.languages


def round_robin(view: View) -> list[str]:
    return view.turn[:1]


def most_new_data(view: View) -> list[str]:
    return [max(view.languages, key=lambda one: view.arrived[one])]


def confidence(view: View) -> list[str]:
    """The largest drop of the mean confidence below that on the labelled rows."""
    fall = _means(view.reference, view.reference.confidence) - _means(
        view.production, view.production.confidence
    )
    return _largest(view, fall)


def surely_less_confident(view: View) -> list[str]:
    """The same, but only where chance does not explain it."""
    reference, production = view.reference.confidence, view.production.confidence
    assert reference is not None
    assert production is not None
    p = drift(view.reference, view.production, 1 - reference, 1 - production)
    fall = _means(view.reference, reference) - _means(view.production, production)
    sure = np.array([one is not None and one <= FALSE_ALARMS for one in p])
    return _largest(view, np.where(sure, fall, -np.inf)) if sure.any() else []


def disagreement(view: View) -> list[str]:
    """The largest rise of raw disagreement above that on the labelled rows."""
    return _largest(view, disagreements(view.production) - disagreements(view.reference))


def calibrated(view: View) -> list[str]:
    """The largest expected gain per device second: calibrated disagreement's error above that of the labelled rows."""
    expected = view.production.mean(curve(view.reference).rows(view.production))
    known = errors_by_language(view.reference)
    rise = expected - np.array([known[one] for one in view.languages])
    seconds = np.array([view.training_s[one] for one in view.languages])
    return _largest(view, np.where(rise > 0, rise / seconds, rise))


def surely_worse(view: View) -> list[str]:
    """The same, but only where chance does not explain the rise."""
    read = curve(view.reference).rows
    p = drift(view.reference, view.production, read(view.reference), read(view.production))
    rise = view.production.mean(read(view.production)) - view.reference.mean(read(view.reference))
    seconds = np.array([view.training_s[one] for one in view.languages])
    sure = np.array([one is not None and one <= FALSE_ALARMS for one in p])
    return _largest(view, np.where(sure, rise / seconds, -np.inf)) if sure.any() else []


def advised(view: View) -> list[str]:
    """The first language that `sabir estimate` would advise to retrain, and none where it would advise none."""
    estimates = list(
        ESTIMATORS.get("calibrated-disagreement").function(view.reference, view.production, level=LEVEL)
    )
    estimates = flagged(estimates, drifted(view.reference, view.production), FALSE_ALARMS)
    known = errors_by_language(view.reference)
    advice = advise(
        estimates,
        {one: min(1.0, error + MARGIN) for one, error in known.items()},
        costs={one: Cost(seconds) for one, seconds in view.training_s.items()},
        reference_error=known,
    )
    return [one.language for one in advice if one.action == "retrain"][:1]


def oracle(view: View) -> list[str]:
    """The largest true gain per device second, and none where nothing is to be gained."""
    best = max(view.languages, key=lambda one: view.gain[one] / view.training_s[one])
    return [best] if view.gain[best] > 0 else []


def _means(evidence: Evidence, values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return evidence.mean(values)


def _largest(view: View, values: np.ndarray) -> list[str]:
    return [view.languages[int(np.argmax(values))]]
