"""What macro F1 is made of, where labels are known, expected, or drawn again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sabir.estimate.evidence import Evidence

RESAMPLES = 1000
_CELLS = 2**21  # drawn at once, some 16 MiB


def labels_of(reference: Evidence, production: Evidence) -> int:
    """K: how many labels there are, by the probabilities, else by the highest that occurs."""
    for evidence in (production, reference):
        if evidence.probabilities is not None:
            return int(evidence.probabilities.shape[1])
    codes = [reference.answer, reference.truth, production.answer, production.truth]
    return 1 + max(int(one.max(initial=0)) for one in codes if one is not None)


def mistakes_of(reference: Evidence, labels: int) -> np.ndarray:
    """(K + 1, K) what the true label of a wrong answer is, by the answer, the last of which is no label."""
    counted = np.ones((labels + 1, labels))
    if reference.answer is not None and reference.truth is not None:
        known = (reference.truth >= 0) & (reference.truth != reference.answer)
        answers = np.where(reference.answer < 0, labels, reference.answer)
        np.add.at(counted, (answers[known], reference.truth[known]), reference.counts[known])
    counted[np.arange(labels), np.arange(labels)] = 0.0
    whole = counted.sum(axis=1, keepdims=True)
    return np.divide(counted, whole, out=np.zeros_like(counted), where=whole > 0)


def expected_labels(answers: np.ndarray, expected: np.ndarray, mistakes: np.ndarray) -> np.ndarray:
    """(n, K) the expected true label of each answer."""
    wrong = np.where(answers < 0, 1.0, expected)
    shares = wrong[:, None] * mistakes[answers]  # an answer of -1 takes the last row, that of no label
    named = np.flatnonzero(answers >= 0)
    shares[named, answers[named]] += 1 - wrong[named]
    return shares


def counts_of(answers: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(n, 3 K): hit, predicted, actual of each label, as macro F1 is made of."""
    predicted = (answers[:, None] == np.arange(shares.shape[1])).astype(float)
    return np.concatenate([predicted * shares, predicted, shares], axis=1)


def counts_of_cells(cells: np.ndarray) -> np.ndarray:
    """(..., 3 K) the same from a table of texts, (..., K, K + 1), by true label and answer; the last is no label."""
    labels = cells.shape[-2]
    hits = np.diagonal(cells[..., :labels], axis1=-2, axis2=-1)
    return np.concatenate([hits, cells[..., :labels].sum(axis=-2), cells.sum(axis=-1)], axis=-1)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """(...) the mean of all labels' F1, from counts or mean counts, (..., 3 K); 0 for one neither given nor true."""
    hits, predicted, actual = np.split(counts, 3, axis=-1)
    whole = predicted + actual
    found: np.ndarray = np.divide(2 * hits, whole, out=np.zeros(whole.shape), where=whole > 1e-12).mean(
        axis=-1
    )
    return found


@dataclass(frozen=True)
class Drawn:
    """Weighted means of labelled rows, of all and (resamples, ...) of such drawn with replacement; units drawn."""

    mean: np.ndarray
    means: np.ndarray
    units: int


def resampled_means(sums: np.ndarray, weights: np.ndarray, groups: np.ndarray | None) -> Drawn:
    """Weighted means of sums, (n, k), over weights, (n,); rows of one group, (n,), are drawn together."""
    rows = np.concatenate([sums, weights[:, None]], axis=1)
    if groups is not None:
        rows = np.stack([np.bincount(groups, column) for column in rows.T], axis=1)
    rng, units = np.random.default_rng(0), len(rows)
    most, found = max(1, _CELLS // units), []
    for start in range(0, RESAMPLES, most):
        size = min(most, RESAMPLES - start)
        # Which units, rather than how often each (a multinomial): four times as fast.
        drawn = rng.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        found.append(np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units) @ rows)
    totals = np.concatenate(found)
    whole = rows.sum(axis=0)
    return Drawn(whole[:-1] / whole[-1], totals[:, :-1] / totals[:, -1:], units)


@dataclass(frozen=True)
class Expected:
    """Texts without a label, of any number: the mean of what they are made of, and its covariance.

    Args:
        parts: (2 (K + 1),) per answer, the last of which is no label: the share of texts, and of those expected wrong.
        covariance: of these means.
        counts: (2 (K + 1), 3 K) from parts to mean counts.
    """

    parts: np.ndarray
    covariance: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(
        cls, production: Evidence, rows: np.ndarray, expected: np.ndarray, mistakes: np.ndarray
    ) -> Expected:
        assert production.answer is not None
        labels = mistakes.shape[1]
        answers = np.where(production.answer[rows] < 0, labels, production.answer[rows])
        wrong = np.where(answers == labels, 1.0, expected[rows])
        weights, counts = production.weights[rows], production.counts[rows]
        whole = weights.sum()
        parts = np.stack([np.bincount(answers, weights * x, labels + 1) for x in (1.0, wrong)]) / whole
        # Linearised, as in `means.mean_of`: sums of squared pulls, each answer's with itself and through the weights.
        each = weights**2 / counts / whole**2
        squares = [np.bincount(answers, each * x, labels + 1) for x in (1.0, wrong, wrong**2)]
        flat = parts.ravel()
        own = np.block(
            [[np.diag(squares[0]), np.diag(squares[1])], [np.diag(squares[1]), np.diag(squares[2])]]
        )
        crossed = np.outer(np.concatenate(squares[:2]), flat)
        covariance = own - crossed - crossed.T + each.sum() * np.outer(flat, flat)
        one_hot = np.eye(labels + 1, labels)
        right = np.concatenate([one_hot, one_hot, one_hot], axis=1)
        spread = np.concatenate([-one_hot, 0 * one_hot, mistakes - one_hot], axis=1)
        return cls(flat, covariance, np.concatenate([right, spread]))

    @property
    def mean(self) -> np.ndarray:
        """(3 K,) mean counts."""
        return self.parts @ self.counts

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        """(resamples,) macro F1 of as many such texts: their means are normal, however many they are."""
        drawn = rng.multivariate_normal(
            self.parts, self.covariance, size=RESAMPLES, method="eigh", check_valid="ignore"
        )
        return macro_f1(drawn @ self.counts)


def powered(own: np.ndarray, near: np.ndarray, far: np.ndarray) -> tuple[float, np.ndarray]:
    """λ, in [0, 1], by which the expected texts help most, and what they add to each resampled score.

    Args:
        own, near, far: (resamples,) scores of the labels, of what was expected of the same texts, and of the others.
    Source: prediction-powered bootstrap, Zrnic (2024), https://arxiv.org/abs/2405.18379, with power tuning.
    """
    spread = float(near.var(ddof=1) + far.var(ddof=1))
    factor = float(np.cov(own, near)[0, 1]) / spread if spread > 1e-18 else 0.0
    factor = min(1.0, max(0.0, factor))
    return factor, factor * (far - near)
