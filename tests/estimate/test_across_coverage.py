"""Intervals across segments hold the truth as often as they say, by simulation at a nominal 0.90."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from mistakes_of_models import evidence, languages

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Segment

TRIALS = {5: 8, 9: 6, 18: 4}  # references of so many languages, each asked about 20 new segments
ERRORS = (0.02, 0.1, 0.3)
SIZES = (20, 50, 200, 500)


def held(name, reference, production):
    """The share of segments whose interval holds the error of their texts; and whose point ± 3 sampling errors does."""
    found = ESTIMATORS.get(name).function(reference, production.without_labels(), level=0.9)
    true = production.mean(production.error)
    low, point, high = np.array([(one.low, one.error, one.high) for one in found]).T
    band = 3 * np.sqrt(point * (1 - point) / production.n)
    return np.mean((low - 1e-9 <= true) & (true <= high + 1e-9)), np.mean(np.abs(true - point) <= band)


def renamed(production):
    return replace(production, segments=tuple(Segment(f"new{i:03}") for i in range(len(production.segments))))


def cover(shares):
    """Whether shares of references, on average, are 0.88 or more, but for two standard errors of that average."""
    return np.mean(shares) >= 0.88 - 2 * np.std(shares, ddof=1) / math.sqrt(len(shares))


def test_shares_of_three_quarters_do_not_pass():
    assert not cover(np.random.default_rng(0).binomial(20, 0.76, 20) / 20)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("useful", [True, False], ids=["a useful proxy", "a useless proxy"])
@pytest.mark.parametrize("number", TRIALS)
def test_intervals_of_calibrated_disagreement_cover(number, useful, error):
    rng, shares = np.random.default_rng([number, useful, round(100 * error)]), []
    for n in SIZES * TRIALS[number]:
        reference = evidence(rng, *languages(rng, number, error), n, useful=useful)
        production = renamed(evidence(rng, *languages(rng, 20, error), n, useful=useful))
        shares.append(held("calibrated-disagreement", reference, production)[0])
    assert cover(shares)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("sizes", [(500, 20), (50, 500)], ids=["smaller", "larger"])
def test_intervals_cover_where_production_is_of_another_size(sizes, error):
    rng, shares = np.random.default_rng([*sizes, round(100 * error)]), []
    for _ in range(12):
        reference = evidence(rng, *languages(rng, 9, error), sizes[0], useful=False)
        production = renamed(evidence(rng, *languages(rng, 20, error), sizes[1], useful=False))
        shares.append(held("calibrated-disagreement", reference, production)[0])
    assert cover(shares)


@pytest.mark.parametrize("number", TRIALS)
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
            for _ in range(18)
        ]
    ).T
    assert 0.24 <= np.mean(naive) <= 0.66
    assert cover(ours)


@pytest.mark.parametrize("error", ERRORS)
def test_languages_that_are_known_and_have_not_changed_are_covered_at_least_as_often(error):
    rng, shares = np.random.default_rng(round(100 * error)), []
    for number, n in itertools.product(TRIALS, SIZES * 3):
        same = languages(rng, number, error)
        reference, production = evidence(rng, *same, n), evidence(rng, *same, n)
        shares.append(held("calibrated-disagreement", reference, production)[0])
    assert np.mean(shares) >= 0.88


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["disagreement", "constant"])
def test_intervals_of_estimates_that_are_off_cover_too(name, error):
    rng, shares = np.random.default_rng([1, round(100 * error)]), []
    for _ in range(12):
        reference = evidence(rng, *languages(rng, 5, error), 200)
        production = renamed(evidence(rng, *languages(rng, 20, error), 200))
        shares.append(held(name, reference, production)[0])
    assert cover(shares)
