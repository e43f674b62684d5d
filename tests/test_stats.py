"""Intervals hold what they promise, differences are paired, and verdicts follow from bounds."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from math import comb

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.special import stdtrit

from sabir import stats
from sabir.metrics import METRICS
from sabir.stats import resampling

MACRO_F1 = METRICS.get("macro_f1").facts["value"]


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def column(values) -> np.ndarray:
    return np.asarray(values, dtype=float)[:, None]


def label_counts(predicted: np.ndarray, actual: np.ndarray, labels: int) -> np.ndarray:
    """Macro F1's statistics by hand; class number `labels` is a failure to parse."""
    one_hot = np.eye(labels + 1)[:, :labels]
    hits = (predicted == actual)[:, None] * one_hot[actual]
    return np.concatenate([hits, one_hot[predicted], one_hot[actual]], axis=1)


# -- coverage, by simulation -----------------------------------------------------------------------------
#
# Nominal 0.95. The share of `trials` intervals that hold the truth has a standard error of
# sqrt(0.95 * 0.05 / trials): 0.011 at 400 trials, 0.003 at 4,000. Bounds are three of them around what each
# method is known to reach; seeds are fixed, so a test never fails by chance.


def draw_labels(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of 3 uneven classes and the answers of two models that err on partly the same examples."""
    actual = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    luck, guess, own = rng.random(n), rng.integers(4, size=n), rng.random(n) < 0.5
    a = np.where(luck < np.array([0.8, 0.6, 0.5])[actual], actual, guess)
    other_luck = np.where(own, rng.random(n), luck)
    other_guess = np.where(own, rng.integers(4, size=n), guess)
    b = np.where(other_luck < np.array([0.7, 0.65, 0.6])[actual], actual, other_guess)
    return actual, a, b


def statistics_of_two(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    actual, a, b = draw_labels(rng, n)
    return label_counts(a, actual, 3), label_counts(b, actual, 3)


@pytest.fixture(scope="module")
def true_macro_f1() -> tuple[float, float]:
    a, b = statistics_of_two(np.random.default_rng(0), 500_000)
    return float(MACRO_F1(a.mean(axis=0))), float(MACRO_F1(b.mean(axis=0)))


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_interval_of_accuracy_covers(n, share):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(4000):
        found = stats.bootstrap((rng.random((n, 1)) < share).astype(float), mean, seed=0)
        held += found.low <= share <= found.high
    # Counts are whole: Wilson's coverage swings between 0.92 and 0.98 with n and share (Brown, Cai, DasGupta
    # 2001, https://doi.org/10.1214/ss/1009213286).
    assert 0.92 - 0.01 <= held / 4000 <= 0.99


@pytest.mark.parametrize("n", [10, 50, 200])
def test_interval_of_a_skewed_score_covers(n):
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(400):
        found = stats.bootstrap(rng.beta(0.5, 2, (n, 1)), mean, seed=seed)
        held += found.low <= 0.2 <= found.high
    # Skew costs any symmetric method some 0.03 at n = 10, as it does Student's interval; then 3 x 0.011.
    assert (0.88 if n == 10 else 0.915) <= held / 400 <= 0.985


def test_interval_of_macro_f1_covers(true_macro_f1):
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(400):
        found = stats.bootstrap(statistics_of_two(rng, 200)[0], MACRO_F1, seed=seed, resamples=500)
        held += found.low <= true_macro_f1[0] <= found.high
    assert 0.915 <= held / 400 <= 0.985


def test_interval_of_a_macro_f1_difference_covers(true_macro_f1):
    rng = np.random.default_rng(3)
    held, truth = 0, true_macro_f1[0] - true_macro_f1[1]
    for seed in range(400):
        found = stats.paired_difference(*statistics_of_two(rng, 200), MACRO_F1, seed=seed, resamples=500)
        held += found.low <= truth <= found.high
    assert 0.915 <= held / 400 <= 0.985


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.05, 0.05), (0.1, 0.02), (0.01, 0.01), (0.2, 0.1)])
def test_interval_of_an_accuracy_difference_covers(n, only_a, only_b):
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(1000):
        kind = rng.random((n, 1))
        both = rng.random((n, 1)) < 0.6
        a = np.where(kind < only_a, True, np.where(kind < only_a + only_b, False, both)).astype(float)
        b = np.where(kind < only_a, False, np.where(kind < only_a + only_b, True, both)).astype(float)
        found = stats.paired_difference(a, b, mean, seed=0)
        held += found.low <= only_a - only_b <= found.high
    # Conservative, up to 1.0, where hardly a pair differs; else 0.95 less 3 x 0.007, less 0.004 as above.
    assert held / 1000 >= 0.925


@pytest.mark.parametrize("n", [20, 50, 200])
def test_two_equally_good_models_are_told_apart_five_times_in_a_hundred(n):
    rng = np.random.default_rng(5)
    covered = rejected = 0
    for seed in range(400):
        common = rng.beta(1, 3, (n, 1))
        a, b = (np.clip(common + 0.1 * rng.standard_normal((n, 1)), 0, 1) for _ in range(2))
        found = stats.paired_difference(a, b, mean, seed=seed, resamples=500)
        covered += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    assert 0.915 <= covered / 400 <= 0.985
    assert 0.015 <= rejected / 400 <= 0.085  # 0.05, three standard errors either way


def test_interval_of_a_mean_over_languages_covers_when_some_are_all_right():
    shares = [0.5, 0.7, 0.9, 0.95, 0.99]
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(2000):
        groups = [(rng.random((20, 1)) < share).astype(float) for share in shares]
        found = stats.bootstrap_macro(groups, mean, seed=0)
        held += found.low <= np.mean(shares) <= found.high
    assert 0.935 <= held / 2000 <= 0.975


def test_paired_mean_over_languages_covers_and_rejects_as_often_as_it_says():
    rng = np.random.default_rng(7)
    held = rejected = 0
    for seed in range(300):
        pairs = []
        for n in (20, 40, 60):
            common = rng.beta(1, 3, (n, 1))
            pairs.append(tuple(np.clip(common + 0.1 * rng.standard_normal((n, 1)), 0, 1) for _ in range(2)))
        found = stats.paired_macro(pairs, mean, seed=seed, resamples=300)
        held += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    assert 0.91 <= held / 300 <= 0.99
    assert 0.01 <= rejected / 300 <= 0.09


# -- oracles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "n"), [(0, 3), (3, 3), (1, 10), (49, 50), (120, 200)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(right, n, level):
    found = stats.bootstrap(column([1] * right + [0] * (n - right)), mean, seed=0, level=level)
    theirs = scipy_stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (found.value, found.level, found.n) == (right / n, level, n)


def slow_tango(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The differences that a score test keeps, found by trying all, the nuisance share by trying all too."""
    kept = []
    for delta in np.linspace(-0.999, 0.999, 1999):
        share_b = np.linspace(max(0.0, -delta), (1 - delta) / 2, 4001)
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = sum(
                np.where(count > 0, count * np.log(np.maximum(share, 0)), 0.0)
                for count, share in (
                    (only_a, share_b + delta),
                    (only_b, share_b),
                    (n - only_a - only_b, 1 - delta - 2 * share_b),
                )
            )
        best = share_b[np.argmax(likelihood)]
        variance = n * (2 * best + delta * (1 - delta))
        gap = only_a - only_b - n * delta
        if gap**2 <= scipy_stats.norm.ppf(0.975) ** 2 * variance + 1e-9:
            kept.append(delta)
    return min(kept), max(kept)


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"), [(0, 0, 20), (1, 7, 21), (5, 5, 50), (9, 0, 30), (3, 12, 200)]
)
def test_paired_shares_interval_is_the_score_tests(only_a, only_b, n):
    a = column([1] * only_a + [0] * (n - only_a))
    b = column([0] * only_a + [1] * only_b + [0] * (n - only_a - only_b))
    found = stats.paired_difference(a, b, mean, seed=0)
    expected = slow_tango(only_a, only_b, n)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.0021)  # tried in steps of 0.001
    assert found.difference == pytest.approx((only_a - only_b) / n)


def test_paired_shares_interval_of_the_published_example():
    """Airway reactivity of 21 children before and after transplantation: 1 against 7, Tango's interval.

    Source: Fagerland, Lydersen, Laake (2014), https://doi.org/10.1002/sim.6148
    """
    a, b = column([1, *[0] * 20]), column([0, *[1] * 7, *[0] * 13])
    found = stats.paired_difference(a, b, mean, seed=0)
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=0.0005)  # printed to three digits


def test_models_that_agree_on_every_example_are_not_proven_equal():
    same = column([1, 0] * 10)
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    found = stats.paired_difference(same, same, mean, seed=0)
    assert (found.low, found.high) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)))
    assert (found.difference, found.p) == (0, 1)
    graded = column(np.linspace(0, 0.9, 20))
    assert stats.paired_difference(graded, graded, mean, seed=0).low == pytest.approx(found.low)


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 0), (3, 3), (4, 0), (2, 9), (30, 12)])
def test_p_of_paired_shares_is_mid_p_mcnemar(only_a, only_b):
    a, b = column([1] * only_a + [0] * only_b + [1] * 5), column([0] * only_a + [1] * only_b + [1] * 5)
    m, fewer = only_a + only_b, min(only_a, only_b)
    by_hand = 2 * (sum(comb(m, i) for i in range(fewer)) + comb(m, fewer) / 2) / 2**m
    assert stats.paired_difference(a, b, mean, seed=0).p == pytest.approx(min(1, by_hand))


def test_permutation_p_is_near_that_of_all_permutations():
    rng = np.random.default_rng(8)
    a, b = rng.random((10, 1)), rng.random((10, 1)) * 0.7
    observed = abs((a - b).mean())
    swaps = np.array(list(itertools.product([1, -1], repeat=10)))
    exact = (np.abs(swaps @ (a - b)[:, 0] / 10) >= observed - 1e-12).mean()
    found = stats.paired_difference(a, b, mean, seed=0, resamples=2000).p
    four_standard_errors = 4 * math.sqrt(exact * (1 - exact) / 2000)
    assert found == pytest.approx(exact, abs=four_standard_errors)


def test_bootstrap_of_a_mean_matches_students_interval():
    rows = np.random.default_rng(9).normal(0.5, 0.1, (12, 1))
    found = stats.bootstrap(rows, mean, seed=0, resamples=2000)
    theirs = scipy_stats.t.interval(0.95, 11, rows.mean(), scipy_stats.sem(rows[:, 0]))
    # The tails of 12 draws are lighter than Student's, and 2,000 resamples leave some 3% on a bound.
    assert found.high - found.low == pytest.approx(theirs[1] - theirs[0], rel=0.12)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, then never falling: .04 .06 .06 .06.
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert stats.holm([]) == []


# -- laws ------------------------------------------------------------------------------------------------


def test_same_seed_same_interval():
    rows = np.random.default_rng(0).random((30, 1))
    assert stats.bootstrap(rows, mean, seed=3) == stats.bootstrap(rows, mean, seed=3)
    assert stats.bootstrap(rows, mean, seed=3) != stats.bootstrap(rows, mean, seed=4)


def test_chunks_change_nothing(monkeypatch):
    a, b = np.random.default_rng(0).random((2, 30, 1))
    whole = stats.bootstrap(a, mean, seed=3), stats.paired_difference(a, b, mean, seed=3)
    monkeypatch.setattr(resampling, "_CHUNK", 100)
    assert stats.bootstrap(a, mean, seed=3).low == pytest.approx(whole[0].low, abs=1e-12)
    assert stats.paired_difference(a, b, mean, seed=3).p == whole[1].p


def test_unscored_examples_change_only_what_they_take_part_in():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 30, 2))
    hole = np.full((1, 2), np.nan)
    first = mean
    assert stats.bootstrap(np.vstack([hole, a]), first, seed=0) == stats.bootstrap(a, first, seed=0)
    other = rng.random((1, 2))
    assert stats.paired_difference(
        np.vstack([a, hole, other]), np.vstack([b, other, hole]), first, seed=0
    ) == stats.paired_difference(a, b, first, seed=0)


def test_both_models_are_resampled_alike():
    a = np.random.default_rng(0).random((40, 1))
    found = stats.paired_difference(a + 0.1, a, mean, seed=0)
    none = stats.paired_difference(a, a, mean, seed=0)  # no pair differs: the least that 40 rows leave open
    assert (found.low - 0.1, found.high - 0.1) == pytest.approx((none.low, none.high))
    assert 2.0**-39 <= found.p < 1e-6


def test_two_models_of_one_answer_each_are_not_known_to_be_equal():
    n = 40
    gold = np.arange(n) % 2
    recalls = []
    for said in (0, 1):  # per label: hit, predicted, actual
        columns = [
            np.stack([(gold == c) & (said == c), np.full(n, said == c), gold == c], axis=1) for c in (0, 1)
        ]
        recalls.append(
            np.concatenate([np.stack([c[:, i] for c in columns], axis=1) for i in range(3)], axis=1)
        )
    a, b = (each.astype(float) for each in recalls)

    def macro_recall(means):
        hits, _, actual = np.split(means, 3, axis=-1)
        return (hits / np.maximum(actual, 1e-9)).mean(axis=-1)

    assert not np.array_equal(a, b)
    found = stats.paired_difference(a, b, macro_recall, seed=0)
    assert found.difference == pytest.approx(0.0)
    assert found.low < -0.05 < 0.05 < found.high
    one = stats.bootstrap(a, macro_recall, seed=0)
    assert one.low < one.value < one.high


def test_swapping_the_models_turns_the_sign():
    a, b = statistics_of_two(np.random.default_rng(0), 60)
    ab, ba = (stats.paired_difference(*pair, MACRO_F1, seed=0) for pair in ((a, b), (b, a)))
    assert (ab.difference, ab.low, ab.high) == pytest.approx((-ba.difference, -ba.high, -ba.low))
    a, b = (rows[:, :3].sum(axis=1, keepdims=True) for rows in (a, b))
    ab, ba = (stats.paired_difference(*pair, mean, seed=0) for pair in ((a, b), (b, a)))
    assert (ab.difference, ab.low, ab.high, ab.p) == pytest.approx((-ba.difference, -ba.high, -ba.low, ba.p))


def test_a_mean_over_one_group_is_the_group():
    a, b = np.random.default_rng(0).random((2, 25, 1))
    one, several = stats.bootstrap(a, mean, seed=2), stats.bootstrap_macro([a], mean, seed=2)
    assert (several.value, several.low, several.high) == pytest.approx((one.value, one.low, one.high))
    one, several = stats.paired_difference(a, b, mean, seed=2), stats.paired_macro([(a, b)], mean, seed=2)
    assert (several.low, several.high, several.p) == pytest.approx((one.low, one.high, one.p))


def test_groups_weigh_equally_whatever_their_size():
    found = stats.bootstrap_macro([column([1.0] * 90), column([0.0] * 10)], mean, seed=0)
    assert (found.value, found.n) == (0.5, 100)


def test_a_perfect_macro_f1_of_a_few_examples_is_not_certain():
    actual = np.zeros(6, dtype=int)
    found = stats.bootstrap(label_counts(actual, actual, 1), MACRO_F1, seed=0)
    assert found.value == found.high == 1
    assert found.low == pytest.approx(scipy_stats.binomtest(6, 6).proportion_ci(method="wilson").low)


def test_a_test_set_of_three_says_so():
    found = stats.bootstrap(column([0.2, 0.5, 0.9]), mean, seed=0)
    half = stdtrit(2, 0.975) * np.std([0.2, 0.5, 0.9], ddof=1) / 3**0.5  # Student's, which knows of three
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=0.05)
    shares = stats.bootstrap(column([1, 1, 0]), mean, seed=0)
    assert shares.high - shares.low > 0.7


def test_the_scores_of_pairs_differ_by_the_paired_difference():
    rng = np.random.default_rng(3)
    a, b = statistics_of_two(rng, 50)
    a[3], b[7] = np.nan, np.nan
    new, old = stats.values_of_pairs(a, b, MACRO_F1)
    assert new - old == pytest.approx(stats.paired_difference(a, b, MACRO_F1, seed=0).difference)
    kept = [i for i in range(50) if i not in (3, 7)]
    assert new == stats.bootstrap(a[kept], MACRO_F1, seed=0).value
    holes = np.full((4, 1), np.nan)
    assert stats.values_of_pairs(holes, np.ones((4, 1)), mean) == (None, None)


# -- what cannot be known, and misuse --------------------------------------------------------------------


def test_nothing_scored_is_unknown_not_zero():
    empty, holes = np.zeros((0, 1)), np.full((4, 1), np.nan)
    for rows in (empty, holes):
        assert stats.bootstrap(rows, mean, seed=0) == stats.Interval(None, None, None, 0.95, 0)
        found = stats.paired_difference(rows, rows, mean, seed=0)
        assert found == stats.Difference(None, None, None, None, 0)
    full = column([0.1, 0.4])
    assert stats.bootstrap_macro([full, holes], mean, seed=0) == stats.Interval(None, None, None, 0.95, 2)
    assert stats.paired_macro([(full, full), (holes, holes)], mean, seed=0).difference is None


def test_one_example_has_a_value_and_no_bounds():
    assert stats.bootstrap(column([0.4]), mean, seed=0) == stats.Interval(0.4, None, None, 0.95, 1)
    found = stats.paired_difference(column([0.4]), column([0.3]), mean, seed=0)
    assert (found.low, found.high, found.p) == (None, None, 1.0)
    assert stats.bootstrap_macro([column([0.4]), column([0.4, 0.5])], mean, seed=0).low is None


def test_misuse_is_refused():
    rows = column([0.1, 0.2])
    for wrong in (
        lambda: stats.bootstrap(rows, mean, seed=0, resamples=2001),
        lambda: stats.bootstrap(rows, mean, seed=0, level=95),
        lambda: stats.bootstrap(rows[:, 0], mean, seed=0),
        lambda: stats.bootstrap(np.array([[0.1, np.nan]]), mean, seed=0),
        lambda: stats.paired_difference(rows, rows[:1], mean, seed=0),
        lambda: stats.bootstrap_macro([], mean, seed=0),
        lambda: stats.paired_macro([], mean, seed=0),
        lambda: stats.verdict(0.0, 0.1, -0.1),
    ):
        with pytest.raises(ValueError):
            wrong()


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (0.01, 0.05, 0.02, "better"),
        (-0.01, 0.05, 0.02, "not worse"),
        (-0.015, -0.005, 0.02, "not worse"),  # a sure loss, smaller than one minds
        (-0.05, -0.01, 0.02, "worse"),
        (-0.05, -0.03, 0.02, "worse"),
        (-0.05, 0.05, 0.02, "undecided"),
        (-0.02, 0.05, 0.02, "undecided"),  # the bound itself is not enough
        (0.0, 0.05, 0.0, "undecided"),
        (-0.01, -0.005, 0.0, "worse"),
        (None, None, 0.02, "undecided"),
    ],
)
def test_verdict(low, high, margin, said):
    assert stats.verdict(low, high, margin) == said


def test_importing_stats_imports_no_scipy():
    code = "import sys, sabir.stats; print(any(m in sys.modules for m in ('scipy', 'sklearn', 'torch')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
