"""Macro F1 from labels in the segment, helped by what is to be expected of the texts without."""

from __future__ import annotations

import numpy as np

from sabir.estimate.catalog import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.expected_counts import (
    Expected,
    counts_of,
    expected_labels,
    labels_of,
    macro_f1,
    mistakes_of,
    powered,
    resampled_means,
)
from sabir.estimate.flags import general
from sabir.estimate.guesses import expected_errors
from sabir.estimate.labels import standing_for
from sabir.estimate.means import FEWEST, groups_of, share
from sabir.estimate.ppi import FEWEST_OF_A_KIND
from sabir.stats import rare_labels
from sabir.stats.resampling import expanded_percentiles

NAME = "ppi-macro-f1"
FEWEST_FOR_INTERVAL = 50  # independent labels; a bootstrap of fewer is too narrow
FEWEST_FOR_HELP = 200  # labels, from which the expected texts help


@ESTIMATORS.register(
    NAME,
    source="https://arxiv.org/abs/2405.18379",
    needs=("answer", "truth", "labels"),
    assumes="The labelled texts of a segment are drawn at random from it, or with the known probabilities of --choose.",
    answers=("label",),
    metric="macro_f1",
)
def ppi_macro_f1(reference: Evidence, production: Evidence, *, level: float) -> list[Estimate]:
    """1 - macro F1 of some labelled texts of the segment, helped by all others (prediction-powered bootstrap).

    A text without a label counts as right with probability 1 - its expected error; the rest goes to the other labels as
    the reference's mistakes of the same answer do, each counted once more. Below 200 labels the labels alone.

    There is an interval from 50 labels on, with five errors and five right answers among them: of fewer, resamples vary
    too little. Simulated, four uneven labels, at 95 % and errors of 0.1 and 0.3: 50 labels cover 0.96 and 0.93, 200
    0.95 and 0.94, 500 0.95 and 0.94. At an error of 0.02 200 labels cover 0.97 in the 38 % of cases that have five
    errors, 500 0.94; 50 seldom have five (0.4 %), and then by bad luck: 0.45.
    """
    flags = general(reference, production)
    if production.answer is None or production.truth is None:
        return [
            Estimate(one, NAME, None, None, None, level, round(n), how="no labels", flags=flags[place])
            for place, (one, n) in enumerate(zip(production.segments, production.n, strict=True))
        ]
    labels = labels_of(reference, production)
    expected = expected_errors(reference, production)
    likely = None if expected is None else (expected, mistakes_of(reference, labels))
    return [
        _of_segment(production, place, labels, likely, level, flags[place])
        for place in range(len(production.segments))
    ]


def _of_segment(
    production: Evidence,
    place: int,
    labels: int,
    likely: tuple[np.ndarray, np.ndarray] | None,
    level: float,
    flags: tuple[str, ...],
) -> Estimate:
    """As the estimator; likely: (n,) expected errors of all rows and (K + 1, K) mistakes, see `mistakes_of`."""
    assert production.answer is not None
    assert production.truth is not None
    mine, segment = production.segment == place, production.segments[place]
    n = round(float(production.counts[mine].sum()))
    known = mine & (production.truth >= 0)
    of_texts = np.repeat(np.flatnonzero(known), production.counts[known].astype(int))
    if len(of_texts) < FEWEST:
        how = f"too few labels ({len(of_texts)}; at least {FEWEST})" if len(of_texts) else "no labels"
        return Estimate(segment, NAME, None, None, None, level, n, len(of_texts), how=how, flags=flags)
    others = mine if production.inclusion is not None else mine & ~known
    helped = likely if len(of_texts) >= FEWEST_FOR_HELP and others.any() else None
    score, resampled, units, factor = _bootstrapped(production, of_texts, others, labels, helped)
    how = f"bootstrap of {len(of_texts)} labels"
    if factor is not None:
        how = f"prediction-powered bootstrap from {len(of_texts)} labels, λ {factor:.2f}"
    wrong = int((production.answer[of_texts] != production.truth[of_texts]).sum())
    low, high = None, None
    if lacking := _lacking(units, wrong, len(of_texts) - wrong):
        how = f"{how}, no interval: {lacking}"
    else:
        low, high = (share(one) for one in expanded_percentiles(1 - resampled, units, level))
    rare = rare_labels(production.truth[of_texts].astype(str).tolist(), [str(one) for one in range(labels)])
    if rare:
        few = f"rare labels: {len(rare)} of {labels} have fewer than 5 labelled texts; too narrow an interval"
        flags = (*flags, few)
    error = share(1 - score)
    return Estimate(segment, NAME, error, low, high, level, n, len(of_texts), how=how, flags=flags)


def _lacking(units: int, wrong: int, right: int) -> str:
    """Of what there is too little for an interval; "" where there is enough."""
    if units < FEWEST_FOR_INTERVAL:
        return f"{units} independent labels, at least {FEWEST_FOR_INTERVAL} are needed"
    if min(wrong, right) < FEWEST_OF_A_KIND:
        kind = "errors" if wrong < right else "right answers"
        return f"{min(wrong, right)} {kind} among them, at least {FEWEST_OF_A_KIND} are needed"
    return ""


def _bootstrapped(
    production: Evidence,
    of_texts: np.ndarray,
    others: np.ndarray,
    labels: int,
    helped: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[float, np.ndarray, int, float | None]:
    """Macro F1 of the rows at of_texts and of resamples of them, the units drawn, and λ; None without help."""
    assert production.answer is not None
    assert production.truth is not None
    answers, weights = production.answer[of_texts], standing_for(production)[of_texts]
    sides = [counts_of(answers, (production.truth[of_texts][:, None] == np.arange(labels)).astype(float))]
    if helped is not None:
        expected, mistakes = helped
        sides.append(counts_of(answers, expected_labels(answers, expected[of_texts], mistakes)))
    groups = groups_of(None if production.keys is None else production.keys[of_texts], len(of_texts))
    drawn = resampled_means(np.concatenate(sides, axis=1) * weights[:, None], weights, groups)
    score, *guessed = np.split(drawn.mean, len(sides))
    scores, *all_guessed = np.split(drawn.means, len(sides), axis=1)
    if helped is None:
        return float(macro_f1(score)), macro_f1(scores), drawn.units, None
    rest = Expected.of(production, others, expected, mistakes)
    factor, change = powered(
        macro_f1(scores), macro_f1(all_guessed[0]), rest.resampled(np.random.default_rng(1))
    )
    gap = macro_f1(rest.mean) - macro_f1(guessed[0])
    return float(macro_f1(score) + factor * gap), macro_f1(scores) + change, drawn.units, factor
