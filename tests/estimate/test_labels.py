"""Which texts to label: known chances, small errors; and when numbers without labels are no longer trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.labels import choose, trusted

DE, JA, PT = Segment("de"), Segment("ja"), Segment("pt")


def texts(sizes: dict[Segment, int], **fields: np.ndarray) -> Evidence:
    return Evidence(tuple(sizes), np.repeat(np.arange(len(sizes)), list(sizes.values())), **fields)


def hard_and_easy(rng: np.random.Generator, n: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors, and the expected error of each text."""
    expected = rng.beta(error, 1 - error, n)
    return (rng.random(n) < expected).astype(float), expected


# -- choosing --------------------------------------------------------------------------------------------


def test_rows_are_chosen_as_often_as_their_inclusion_says():
    rng = np.random.default_rng(0)
    evidence = texts({DE: 60, JA: 25, PT: 3}, weight=rng.exponential(size=88))
    expected, trials = rng.random(88), 3000
    chosen = np.zeros(88)
    for seed in range(trials):
        choice = choose(evidence, expected, 30, seed=seed)
        assert len(set(choice.rows.tolist())) == 30
        chosen[choice.rows] += 1
    inclusion = choose(evidence, expected, 30, seed=0).inclusion
    assert inclusion.sum() == pytest.approx(30)
    z = (chosen - trials * inclusion) / np.sqrt(trials * np.maximum(inclusion * (1 - inclusion), 1e-4))
    assert np.abs(z).max() < 4  # of 88
    assert z.std() < 1.3


def test_every_row_has_a_chance_and_a_sure_one_at_most():
    rng = np.random.default_rng(1)
    weight = rng.exponential(size=500) ** 4
    weight[:50] = 0
    evidence = texts({DE: 480, JA: 20}, weight=weight)
    for n in (1, 7, 100, 499, 500):
        choice = choose(evidence, rng.random(500), n, seed=0)
        assert len(choice.rows) == n
        assert choice.inclusion.min() > 0
        assert choice.inclusion.max() <= 1 + 1e-9
    assert choice.inclusion == pytest.approx(1)


def test_sums_over_inclusion_are_unbiased_in_every_language():
    rng = np.random.default_rng(2)
    evidence = texts({DE: 900, JA: 300})
    errors, expected = hard_and_easy(rng, 1200, 0.2)
    totals = []
    for seed in range(1500):
        choice = choose(evidence, expected, 60, seed=seed)
        shares = np.zeros(1200)
        shares[choice.rows] = errors[choice.rows] / choice.inclusion[choice.rows]
        totals.append(evidence.total(shares))
    off = np.mean(totals, axis=0) - evidence.total(errors)
    assert np.abs(off / (np.std(totals, axis=0) / np.sqrt(1500))).max() < 3


def test_a_small_language_is_not_forgotten_and_a_large_one_gets_more():
    evidence = texts({DE: 10_000, JA: 100, PT: 1000})
    choice = choose(evidence, np.full(11_100, 0.2), 200, seed=0)
    per_language = np.bincount(evidence.segment[choice.rows], minlength=3)
    # By the root of their traffic: 100, 10 and 31.6 parts of 141.6.
    assert per_language.tolist() == pytest.approx([141.2, 14.1, 44.7], abs=1)


def test_the_doubtful_are_preferred_and_the_certain_not_left_out():
    expected = np.repeat([0.0, 0.5, 1.0], 400)
    choice = choose(texts({DE: 1200}), expected, 120, seed=3)
    per_kind = np.bincount((2 * expected[choice.rows]).astype(int), minlength=3)
    assert per_kind[1] > 1.5 * max(per_kind[0], per_kind[2])
    assert min(per_kind) >= 20


@pytest.mark.parametrize(("error", "at_least"), [(0.05, 0.25), (0.1, 0.25), (0.2, 0.25)])
def test_chosen_labels_say_more_than_as_many_drawn_plainly_and_their_intervals_cover(error, at_least):
    rng, n = np.random.default_rng(4), 200
    errors, expected = hard_and_easy(rng, 3000, error)
    ppi = ESTIMATORS.get("ppi").function
    evidence = texts({DE: 3000}, confidence=1 - expected)
    plain, chosen, held, trials = [], [], 0, 300
    for seed in range(trials):
        plain.append(errors[rng.permutation(3000)[:n]].mean())
        choice = choose(evidence, expected, n, seed=seed)
        known = np.full(3000, np.nan)
        known[choice.rows] = errors[choice.rows]
        (found,) = ppi(evidence, replace(evidence, error=known, inclusion=choice.inclusion), level=0.95)
        chosen.append(found.error)
        held += found.low <= errors.mean() <= found.high
    # A standard deviation of 300 is known to 4 %, the ratio of two to 6 %; the ratio is 0.5 to 0.65.
    assert np.std(chosen) < (1 - at_least) * np.std(plain)
    assert abs(np.mean(chosen) - errors.mean()) < 0.2 * np.std(chosen)
    assert held / trials >= 0.93 - 0.025


def test_rows_of_several_texts_and_too_many_labels_are_refused():
    with pytest.raises(ValueError, match="stands for several texts"):
        choose(texts({DE: 3}, count=np.array([1, 2, 1])), np.zeros(3), 1, seed=0)
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"n is {n}; there are 3 texts"):
            choose(texts({DE: 3}), np.zeros(3), n, seed=0)


# -- trust -----------------------------------------------------------------------------------------------


def test_right_expectations_are_trusted_and_wrong_ones_are_not():
    rng, doubted, caught, trials = np.random.default_rng(5), 0, 0, 1000
    for _ in range(trials):
        errors, expected = hard_and_easy(rng, 500, 0.15)
        evidence = texts({DE: 500}, error=errors)
        doubted += not trusted(evidence, expected).holds
        worse = np.where(rng.random(500) < 0.08, 1.0, errors)  # 6.8 points of mistakes that nobody expected
        caught += not trusted(replace(evidence, error=worse), expected).holds
    assert 0.05 - 0.021 < doubted / trials < 0.05 + 0.021  # three standard errors
    assert caught / trials > 0.95


def test_texts_of_one_source_are_no_more_labels_than_sources():
    rng, doubted, trials = np.random.default_rng(6), 0, 600
    keys = np.repeat(np.arange(125), 4)
    for _ in range(trials):
        errors = np.repeat(rng.random(125) < 0.2, 4).astype(float)
        doubted += not trusted(texts({DE: 500}, error=errors, keys=keys), np.full(500, 0.2)).holds
    assert doubted / trials < 0.05 + 0.027


def test_fewer_than_500_labels_decide_nothing():
    errors = np.where(np.arange(600) < 499, 1.0, np.nan)
    assert trusted(texts({DE: 600}, error=errors), np.zeros(600)) is None
    assert trusted(texts({DE: 600}), np.zeros(600)) is None
    counted = texts({DE: 2}, error=np.array([0.0, 1.0]), count=np.array([250, 250]))
    found = trusted(counted, np.array([0.1, 0.1]))
    assert (found.holds, found.n, found.gap) == (False, 500, pytest.approx(0.4))


def test_rows_count_for_what_they_stand_for():
    rng = np.random.default_rng(7)
    evidence = texts({DE: 6000})
    errors, expected = hard_and_easy(rng, 6000, 0.2)
    choice = choose(evidence, expected, 600, seed=0)
    known = np.full(6000, np.nan)
    known[choice.rows] = errors[choice.rows]
    chosen = replace(evidence, error=known, inclusion=choice.inclusion)
    # The chosen are the doubtful ones; a constant is right for all texts, and not for the mean of the chosen.
    assert trusted(chosen, np.full(6000, errors.mean())).holds
    assert abs(known[choice.rows].mean() - errors.mean()) > 0.05
