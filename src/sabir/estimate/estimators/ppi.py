"""A few labels in the segment itself, and a guess at every text."""

from __future__ import annotations

import numpy as np

from sabir.estimate import labels
from sabir.estimate.catalog import ESTIMATORS, EVERY_ANSWER
from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.estimate.flags import general
from sabir.estimate.guesses import expected_errors
from sabir.estimate.means import FEWEST, share
from sabir.estimate.ppi import FOLDS, Guesses, from_labels


@ESTIMATORS.register(
    "ppi",
    source="https://arxiv.org/abs/2311.01453",
    needs=("labels",),
    assumes="The labelled texts of a segment are drawn at random from it, or with the known probabilities of --choose.",
    answers=EVERY_ANSWER,
    metric="error",
)
def ppi(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """Labels of some texts of the segment, helped by the expected errors of all (PPI++).

    Of a segment with fewer than 20 labels, or fewer than 5 errors or right answers, the labels alone. From 500 labels
    on it is also tested whether the expected errors were right here.
    """
    expected = expected_errors(reference, production)
    flags = general(reference, production)
    return [
        _of_segment(production, expected, place, level, flags[place])
        for place in range(len(production.segments))
    ]


def _of_segment(
    production: Evidence, expected: np.ndarray | None, place: int, level: float, flags: tuple[str, ...]
) -> Estimate:
    mine = production.segment == place
    segment: Segment = production.segments[place]
    n = round(float(production.counts[mine].sum()))
    known = mine & production.labelled
    of_texts = np.repeat(np.flatnonzero(known), production.counts[known].astype(int))
    if production.error is None or not len(of_texts):
        return Estimate(segment, "ppi", None, None, None, level, n, how="no labels", flags=flags)
    chosen = production.inclusion is not None
    guesses = np.zeros(len(production)) if expected is None else expected
    others = mine if chosen else mine & ~production.labelled
    found, how = from_labels(
        production.error[of_texts],
        guesses[of_texts],
        Guesses(
            guesses[others],
            counts=production.counts[others],
            weights=None if production.weight is None else production.weight[others],
        ),
        level=level,
        weights=labels.standing_for(production)[of_texts],
        keys=None if production.keys is None else production.keys[of_texts],
        folds=1 if chosen else FOLDS,
    )
    few = (f"few labels: {len(of_texts)}",) if len(of_texts) < FEWEST else ()
    with_factor = f", λ {found.factor:.2f}" if how == "PPI++" else ""
    return Estimate(
        segment,
        "ppi",
        share(found.mean),
        share(found.low),
        share(found.high),
        level,
        n,
        n_labelled=len(of_texts),
        how=f"{how} from {len(of_texts)} labels{with_factor}",
        flags=(*flags, *few, *(() if expected is None else _distrust(production, expected, known))),
    )


def _distrust(production: Evidence, expected: np.ndarray, known: np.ndarray) -> tuple[str, ...]:
    trust = labels.trusted(production.take(known), expected[known])
    if trust is None or trust.holds:
        return ()
    way = "below" if trust.gap > 0 else "above"
    return (f"not to be trusted without labels: expected errors are {abs(trust.gap):.3f} {way} the labels",)
