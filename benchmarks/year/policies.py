"""Which language to retrain this month: what each policy says. Only the oracle sees labels of production."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pool import OTHERS

from sabir.estimate.advice import Advice, Cost, advise
from sabir.estimate.agreement import disagreement as of_rows
from sabir.estimate.calibration import curve
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence
from sabir.estimate.ppi import FEWEST
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
        labelled: the month's texts with 50 of a language labelled, which is counted.
        gain: true gain in accuracy from retraining each language now; for the oracle alone.
    """

    reference: Evidence
    production: Evidence
    turn: list[str]
    arrived: Mapping[str, float]
    training_s: Mapping[str, float]
    labelled: Callable[[str], Evidence]
    gain: Mapping[str, float]

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

    @property
    def asked(self) -> int:
        """Members that answer a text: a language's own adapter is none of the others."""
        return len(self.members) - bool(set(OTHERS) & set(self.members))


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
    return _largest(view, -_rise(view, _sure))


def surely_less_confident(view: View) -> list[str]:
    """The same, but only where chance does not explain it."""
    return _largest(view, -_rise(view, _sure), p=_risen(view, lambda evidence: 1 - _sure(evidence)))


def changed_confidence(view: View) -> list[str]:
    """The largest change of the mean confidence, up or down."""
    return _largest(view, np.abs(_rise(view, _sure)))


def disagreement(view: View) -> list[str]:
    """The largest rise of raw disagreement above that on the labelled rows."""
    return _largest(view, _rise(view, _disagreement))


def changed_disagreement(view: View) -> list[str]:
    """The largest change of raw disagreement, up or down."""
    return _largest(view, np.abs(_rise(view, _disagreement)))


def surely_changed(view: View) -> list[str]:
    """The same, but only where chance does not explain it."""
    p = 2 * np.minimum(
        _risen(view, _disagreement), _risen(view, lambda evidence: 1 - _disagreement(evidence))
    )
    return _largest(view, np.abs(_rise(view, _disagreement)), p=p)


def calibrated(view: View) -> list[str]:
    """The largest expected gain per device second: calibrated disagreement's error above that of the labelled rows."""
    expected = view.production.mean(curve(view.reference).rows(view.production))
    known = errors_by_language(view.reference)
    rise = expected - np.array([known[one] for one in view.languages])
    seconds = np.array([view.training_s[one] for one in view.languages])
    return _largest(view, np.where(rise > 0, rise / seconds, rise))


def advised(view: View) -> list[str]:
    """The first language that `sabir estimate` would advise to retrain, and none where it would advise none."""
    return _retrained(_advice(view, view.production))[:1]


def advised_with_labels(view: View) -> list[str]:
    """The same, where the language that it advises to label first, if it is the first of all, was labelled before."""
    first = _advice(view, view.production)[0]
    known = view.labelled(first.language) if first.action == "label" else view.production
    return _retrained(_advice(view, known))[:1]


def extrapolating(view: View) -> list[str]:
    """A language that `sabir estimate` flags as extrapolating: it disagrees more or less than any labelled segment."""
    return _extrapolating(_advice(view, view.production))[:1]


def extrapolating_with_labels(view: View) -> list[str]:
    """The same, if labels confirm it; without such a language nothing is labelled."""
    flagged_so = _extrapolating(_advice(view, view.production))[:1]
    return [one for one in flagged_so if one in _retrained(_advice(view, view.labelled(one)))]


def labels_in_turn(view: View) -> list[str]:
    """A language is labelled each month, in turn, and retrained if `sabir estimate --labels` advises it."""
    language = view.turn[0]
    found = _retrained(_advice(view, view.labelled(language)))
    if language not in found:
        view.turn.append(view.turn.pop(0))
    return [language] if language in found else []


def _advice(view: View, production: Evidence) -> Sequence[Advice]:
    """As `sabir estimate` makes it: languages with labels enough stand on these."""
    name = "calibrated-disagreement"
    found = list(ESTIMATORS.get(name).function(view.reference, production, level=LEVEL))
    if production.labelled.any():
        by_labels = ESTIMATORS.get("ppi").function(view.reference, production, level=LEVEL)
        found = [
            one if one.n_labelled >= FEWEST else other for one, other in zip(by_labels, found, strict=True)
        ]
    found = flagged(found, drifted(view.reference, production), FALSE_ALARMS)
    known = errors_by_language(view.reference)
    return advise(
        found,
        {one: min(1.0, error + MARGIN) for one, error in known.items()},
        costs={one: Cost(seconds) for one, seconds in view.training_s.items()},
        reference_error=known,
    )


def _extrapolating(advice: Sequence[Advice]) -> list[str]:
    return [one.language for one in advice if "extrapolating" in one.why]


def _retrained(advice: Sequence[Advice]) -> list[str]:
    return [one.language for one in advice if one.action == "retrain"]


def oracle(view: View) -> list[str]:
    """The largest true gain per device second, and none where nothing is to be gained."""
    best = max(view.languages, key=lambda one: view.gain[one] / view.training_s[one])
    return [best] if view.gain[best] > 0 else []


def _sure(evidence: Evidence) -> np.ndarray:
    assert evidence.confidence is not None
    return evidence.confidence


def _disagreement(evidence: Evidence) -> np.ndarray:
    assert evidence.agreement is not None
    return of_rows(evidence.agreement)


def _rise(view: View, values: Callable[[Evidence], np.ndarray]) -> np.ndarray:
    """By language, how far the mean over production lies above that over the labelled rows."""
    return view.production.mean(values(view.production)) - view.reference.mean(values(view.reference))


def _risen(view: View, values: Callable[[Evidence], np.ndarray]) -> np.ndarray:
    """By language, how likely chance alone makes it so."""
    found = drift(view.reference, view.production, values(view.reference), values(view.production))
    return np.array([1.0 if one is None else one for one in found])


def _largest(view: View, values: np.ndarray, *, p: np.ndarray | None = None) -> list[str]:
    """The language of the largest value; of those that chance does not explain, where p is given."""
    if p is not None:
        values = np.where(p <= FALSE_ALARMS, values, -np.inf)
    best = int(np.argmax(values))
    return [view.languages[best]] if np.isfinite(values[best]) else []
