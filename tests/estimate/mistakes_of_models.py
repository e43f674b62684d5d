"""Simulated classifiers that make some of their mistakes together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sabir.estimate.agreement import of_labels
from sabir.estimate.evidence import Evidence, Segment

LABELS = 3


def answers(rng: np.random.Generator, n: int, error: float, shared: float, models: int) -> np.ndarray:
    """(n, models) labels; 0 is right. A share of the mistakes is made by all alike, the rest by each alone."""
    alone = error * (1 - shared) / (1 - error * shared)
    found = np.where(rng.random((n, models)) < alone, rng.integers(1, LABELS, (n, models)), 0)
    together = rng.random(n) < error * shared
    return np.where(together[:, None], rng.integers(1, LABELS, n)[:, None], found)


def evidence(
    rng: np.random.Generator, errors: Sequence[float], shared: Sequence[float], n: int, *, useful: bool = True
) -> Evidence:
    """A language each of n labelled texts, with five members; where these are not useful they agree by lot."""
    columns = [answers(rng, n, *one, models=6) for one in zip(errors, shared, strict=True)]
    found = np.concatenate(columns)
    agreement = of_labels(found[:, 0], found[:, 1:])
    if not useful:
        agreement = (rng.random(agreement.shape) < 0.8).astype(float)
    return Evidence(
        tuple(Segment(f"x{place:03}") for place in range(len(errors))),
        np.repeat(np.arange(len(errors)), n),
        agreement=agreement,
        error=(found[:, 0] != 0).astype(float),
    )


def languages(rng: np.random.Generator, number: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """(number,) errors of languages around this one, log-odds with a spread of 0.5; and shares of shared mistakes."""
    log_odds = np.log(error / (1 - error)) + 0.5 * rng.standard_normal(number)
    return 1 / (1 + np.exp(-log_odds)), rng.uniform(0.1, 0.7, number)
