"""Intervals across segments hold the truth as often as they say, by simulation at a nominal 0.90."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from mistakes_of_models import evidence, languages

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Segment

TRIALS = 18  # references, each asked about 20 new segments
ERRORS = (0.02, 0.1, 0.3)


def held(name, reference, production):
    """The share of segments whose interval holds the error of their texts; and whose point ± 3 sampling errors does."""
    found = ESTIMATORS.get(name).function(reference, production.without_labels(), level=0.9)
    true = production.mean(production.error)
    low, point, high = np.array([(one.low, one.error, one.high) for one in found]).T
    band = 3 * np.sqrt(point * (1 - point) / production.n)
    return np.mean((low - 1e-9 <= true) & (true <= high + 1e-9)), np.mean(np.abs(true - point) <= band)


def renamed(production):
    return replace(production, segments=tuple(Segment(f"new{i:03}") for i in range(len(production.segments))))


@pytest.mark.parametrize("useful", [True, False], ids=["a useful proxy", "a useless proxy"])
@pytest.mark.parametrize("n", [20, 50, 200, 500])
@pytest.mark.parametrize("number", [5, 9, 18])
def test_intervals_of_calibrated_disagreement_cover(number, n, useful):
    rng = np.random.default_rng([number, n, useful])
    shares = []
    for trial in range(TRIALS):
        error = ERRORS[trial % 3]
        reference = evidence(rng, *languages(rng, number, error), n, useful=useful)
        production = renamed(evidence(rng, *languages(rng, 20, error), n, useful=useful))
        shares.append(held("calibrated-disagreement", reference, production)[0])
    # 0.88 less three standard errors of so many references
    assert np.mean(shares) >= 0.88 - 3 * np.std(shares) / math.sqrt(TRIALS)


@pytest.mark.parametrize("sizes", [(500, 20), (50, 500)], ids=["smaller", "larger"])
def test_intervals_cover_where_production_is_of_another_size(sizes):
    rng = np.random.default_rng(sizes)
    shares = []
    for trial in range(TRIALS):
        error = ERRORS[trial % 3]
        reference = evidence(rng, *languages(rng, 9, error), sizes[0], useful=False)
        production = renamed(evidence(rng, *languages(rng, 20, error), sizes[1], useful=False))
        shares.append(held("calibrated-disagreement", reference, production)[0])
    assert np.mean(shares) >= 0.88 - 3 * np.std(shares) / math.sqrt(TRIALS)


@pytest.mark.parametrize("number", [5, 9, 18])
def test_where_a_language_has_become_like_another_ours_covers_and_three_sampling_errors_do_not(number):
    """Errors and what mistakes are shared are drawn anew for languages that the reference knows."""
    rng = np.random.default_rng(number)
    ours, naive = np.array(
        [
            held(
                "calibrated-disagreement",
                evidence(rng, *languages(rng, number, 0.3), 500),
                evidence(rng, *languages(rng, number, 0.3), 500),
            )
            for _ in range(TRIALS)
        ]
    ).T
    assert 0.24 <= np.mean(naive) <= 0.66
    assert np.mean(ours) >= 0.88 - 3 * np.std(ours) / math.sqrt(TRIALS)


@pytest.mark.parametrize("name", ["disagreement", "constant"])
def test_intervals_of_estimates_that_are_off_cover_too(name):
    rng = np.random.default_rng(1)
    shares = []
    for trial in range(TRIALS):
        error = ERRORS[trial % 3]
        reference = evidence(rng, *languages(rng, 5, error), 200)
        production = renamed(evidence(rng, *languages(rng, 20, error), 200))
        shares.append(held(name, reference, production)[0])
    assert np.mean(shares) >= 0.88 - 3 * np.std(shares) / math.sqrt(TRIALS)
