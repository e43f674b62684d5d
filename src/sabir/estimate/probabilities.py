"""Probabilities of answers, and how far they can be trusted: scaled by a temperature, or by how often they came true.

A model says how sure it is by the log-likelihoods of its options. These are brought to scale on labelled texts: by one
temperature a language, which keeps the order of a text's options, and from 500 texts on by a rising curve per label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sabir.estimate.evidence import Evidence
from sabir.estimate.means import ENOUGH

_LEAST = 1e-6  # what is less counts as this: a probability rounded to 0 is no proof
_FURTHEST = 3.0  # of the log of a temperature: 20 times as hot, or as cold
_POOL, _LANGUAGE = 1.0, 0.3  # spread of that log around 0, and of a language's around the pool's
_ROUNDS, _SETTLED = 30, 1e-9  # of Newton's method, and the step after which it ends; some ten are enough


def softmax(log_likelihoods: np.ndarray) -> np.ndarray:
    """The probability of each option, among the options that there are.

    Args:
        log_likelihoods: (n, K); -inf for an option that a row does not have.
    Returns: (n, K), rows sum to 1.
    """
    shifted = np.exp(log_likelihoods - log_likelihoods.max(axis=1, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def tempered(probabilities: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """(n, K) what the softmax of logits divided by a temperature, (n,), would have been."""
    return softmax(_logits(probabilities) / temperature[:, None])


@dataclass(frozen=True)
class Temperatures:
    """By how much a model is too sure (above 1) or not sure enough: of all languages, and of each.

    Languages with few labelled texts are near the pool.
    """

    pooled: float
    languages: Mapping[str, float]

    def rows(self, evidence: Evidence) -> np.ndarray:
        """(n,) that of each row's language; the pool's where the reference lacked the language."""
        of_segments = [self.languages.get(one.language, self.pooled) for one in evidence.segments]
        return np.array(of_segments)[evidence.segment]


def temperatures(reference: Evidence) -> Temperatures:
    """The temperatures at which labelled texts are likeliest; 1 where none is labelled.

    By the probabilities of labels where these and the gold labels are known, else by the probability of the model's own
    answer, held against how right it was.

    Source: Guo et al. (2017), https://arxiv.org/abs/1706.04599. Departs: the log of the pool's temperature has a normal
        prior around 0 (spread 1), that of a language one around the pool's (spread 0.3).
    """
    shares, targets = _shares(reference), _targets(reference)
    known = ~(np.isnan(shares).any(axis=1) | np.isnan(targets).any(axis=1))
    names, of_segment = np.unique([one.language for one in reference.segments], return_inverse=True)
    logits, targets, counts = _logits(shares[known]), targets[known], reference.counts[known]
    languages = of_segment[reference.segment[known]]
    together = np.zeros(len(logits), dtype=int)
    pooled = _coldness(logits, targets, counts, together, np.zeros(1), _POOL)
    own = _coldness(logits, targets, counts, languages, np.repeat(pooled, len(names)), _LANGUAGE)
    return Temperatures(
        float(np.exp(-pooled[0])), dict(zip(names.tolist(), np.exp(-own).tolist(), strict=True))
    )


def _coldness(
    logits: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    group: np.ndarray,
    prior: np.ndarray,
    spread: float,
) -> np.ndarray:
    """(G,) per group the log of the inverse temperature at which its targets are likeliest.

    Args:
        logits, targets: (n, K); targets are shares that sum to 1.
        group: (n,) int; prior: (G,), the log that a group without texts has; spread: around it.
    """
    groups = len(prior)
    wanted = (targets * logits).sum(axis=1)
    found = prior.copy()
    for _ in range(_ROUNDS):
        inverse = np.exp(found)
        shares = softmax(logits * inverse[group][:, None])
        mean = (shares * logits).sum(axis=1)
        variance = (shares * logits**2).sum(axis=1) - mean**2
        slope = inverse * np.bincount(group, counts * (mean - wanted), minlength=groups)
        bend = inverse**2 * np.bincount(group, counts * variance, minlength=groups)
        step = (slope + (found - prior) / spread**2) / (bend + 1 / spread**2)
        found = np.clip(found - np.clip(step, -1.0, 1.0), -_FURTHEST, _FURTHEST)
        if np.abs(step).max() < _SETTLED:
            break
    return found


def confidences(reference: Evidence) -> Callable[[Evidence], np.ndarray]:
    """What gives each row's probability of the model's own answer, (n,), at its language's temperature."""
    scale = temperatures(reference)
    return lambda evidence: _own(evidence, tempered(_shares(evidence), scale.rows(evidence)))


def calibrated(reference: Evidence) -> Callable[[Evidence], np.ndarray]:
    """What gives each row's probability of each label, (n, K), so that they come true as often as they say.

    From 500 labelled texts on by a rising curve per label, at their languages' temperatures, and rows sum to 1 again.
    Of rows without probabilities of labels, K is 2: the model's own answer is right, or not.

    Source: Zadrozny and Elkan (2002), https://doi.org/10.1145/775047.775151
    """
    scale = temperatures(reference)
    shares, targets = tempered(_shares(reference), scale.rows(reference)), _targets(reference)
    known = ~(np.isnan(shares).any(axis=1) | np.isnan(targets).any(axis=1))
    counts = reference.counts[known]
    if counts.sum() < ENOUGH:
        return lambda evidence: tempered(_shares(evidence), scale.rows(evidence))
    curves = [_rising(shares[known, k], targets[known, k], counts) for k in range(shares.shape[1])]

    def rows(evidence: Evidence) -> np.ndarray:
        given = tempered(_shares(evidence), scale.rows(evidence))
        found = np.stack([curve(given[:, k]) for k, curve in enumerate(curves)], axis=1)
        whole = found.sum(axis=1, keepdims=True)
        return np.divide(found, whole, out=given, where=whole > 0)  # curves may all be 0 where no text was

    return rows


def own_confidences(evidence: Evidence) -> np.ndarray:
    """(n,) the model's probability of its own answer as it gave it; NaN where it gave none."""
    return _own(evidence, _shares(evidence))


def calibrated_confidences(reference: Evidence) -> Callable[[Evidence], np.ndarray]:
    """What gives each row's probability of the model's own answer, (n,), as `calibrated` does."""
    rows = calibrated(reference)
    return lambda evidence: _own(evidence, rows(evidence))


def flags_of_confidence(reference: Evidence, production: Evidence) -> list[tuple[str, ...]]:
    """Per segment of production, where the model is more or less sure than in any labelled one, by more than chance."""
    labelled = reference.take(reference.labelled)
    seen = labelled.mean(own_confidences(labelled)) if len(labelled) else np.empty(0)
    seen = seen[~np.isnan(seen)]
    if not len(seen):
        return [()] * len(production.segments)
    rows = own_confidences(production)
    here = production.mean(rows)
    spread = 2 * np.sqrt(
        production.mean((rows - here[production.segment]) ** 2) / np.maximum(1.0, production.effective_n - 1)
    )
    said = f"on labelled segments {seen.min():.2f} to {seen.max():.2f}"
    return [
        (f"extrapolating: mean confidence {mean:.2f}, {said}",) if beyond else ()
        for mean, beyond in zip(
            here, (here - spread > seen.max()) | (here + spread < seen.min()), strict=True
        )
    ]


def _rising(at: np.ndarray, values: np.ndarray, counts: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from scipy.optimize import isotonic_regression

    places, inverse = np.unique(at, return_inverse=True)
    weights = np.bincount(inverse, counts)
    fitted = isotonic_regression(np.bincount(inverse, counts * values) / weights, weights=weights).x
    return lambda new: np.interp(new, places, fitted)


def _of_labels(evidence: Evidence) -> bool:
    """Whether the probabilities of labels, and which one the model chose, are known."""
    return evidence.probabilities is not None and evidence.answer is not None


def _shares(evidence: Evidence) -> np.ndarray:
    """(n, K) probabilities of labels; where they are not known (n, 2), of the answer being right, or not."""
    if _of_labels(evidence):
        assert evidence.probabilities is not None
        return evidence.probabilities
    if evidence.confidence is None:
        raise ValueError(
            "the evidence has neither confidence nor probabilities with answers; expected one of them"
        )
    return np.stack([evidence.confidence, 1 - evidence.confidence], axis=1)


def _targets(evidence: Evidence) -> np.ndarray:
    """What `_shares` should have been: (n, K), NaN in rows that are not labelled."""
    if not _of_labels(evidence):
        right = np.full(len(evidence), np.nan) if evidence.error is None else 1 - evidence.error
        return np.stack([right, 1 - right], axis=1)
    assert evidence.probabilities is not None
    if evidence.truth is None:
        return np.full(evidence.probabilities.shape, np.nan)
    targets = np.where(evidence.truth[:, None] < 0, np.nan, 0.0) + np.zeros(evidence.probabilities.shape)
    rows = np.flatnonzero(evidence.truth >= 0)
    targets[rows, evidence.truth[rows]] = 1.0
    return targets


def _own(evidence: Evidence, shares: np.ndarray) -> np.ndarray:
    """(n,) the share of the model's own answer; 0 where its answer is no label."""
    if not _of_labels(evidence):
        return shares[:, 0]
    assert evidence.answer is not None
    own = shares[np.arange(len(shares)), evidence.answer]
    return np.where(evidence.answer < 0, 0.0 * own, own)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, _LEAST))
