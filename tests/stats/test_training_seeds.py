"""Of several training seeds, intervals hold other seeds and other examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.special import ndtri

from sabir import stats
from sabir.metrics import METRICS
from sabir.power import detectable

MACRO_F1 = METRICS.get("macro_f1").facts["value"]


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def draw(
    rng: np.random.Generator, seeds: int, n: int, *, effect: float, alike: float, share: float | None = None
) -> np.ndarray:
    """(seeds, n, 1) scores of true mean 0.5, or right answers of true share `share`.

    Args:
        effect: the standard deviation over seeds of the true score, in those over examples of one score.
        alike: how much the seeds agree on which example is hard, a correlation.
    """
    own = rng.standard_normal((seeds, n))
    noise = np.sqrt(alike) * rng.standard_normal(n) + np.sqrt(1 - alike) * own
    latent = noise + effect * rng.standard_normal((seeds, 1))
    if share is None:
        return (0.5 + 0.1 * latent)[..., None]
    return (latent < ndtri(share) * np.sqrt(1 + effect**2)).astype(float)[..., None]


# -- coverage: nominal 0.95, three standard errors of 500 trials are 0.029 ---------------------------------

TRIALS, LEAST = 500, 0.95 - 0.029


@pytest.mark.parametrize("effect", [0.0, 0.05, 0.15, 0.5, 2.0])
@pytest.mark.parametrize("alike", [0.3, 0.9])
@pytest.mark.parametrize("n", [50, 200])
def test_interval_of_three_seeds_covers_and_is_not_absurdly_wide(n, alike, effect):
    rng = np.random.default_rng(0)
    held = rejected = width = 0.0
    for seed in range(TRIALS):
        rows = draw(rng, 3, n, effect=effect, alike=alike)
        found = stats.bootstrap(rows, mean, seed=seed, resamples=500)
        held += found.low <= 0.5 <= found.high
        width += (found.high - found.low) / TRIALS
        rejected += stats.paired_difference(rows, np.full((n, 1), 0.5), mean, seed=0, resamples=1).p <= 0.05
    assert held / TRIALS >= LEAST
    assert rejected / TRIALS <= 1 - LEAST
    error = 0.1 * np.sqrt(effect**2 / 3 + alike / n + (1 - alike) / (3 * n))
    # 1.96 standard errors either way for one who knew them; Student's with two degrees of freedom takes 4.3, and
    # the deviation of three seeds is on average 0.886 of the true one: 1.95 times as wide.
    assert width <= 2.1 * 2 * 1.96 * error


@pytest.mark.parametrize(
    ("effect", "share"), [(0.0, 0.8), (0.05, 0.9), (0.15, 0.8), (0.15, 0.97), (0.3, 0.6)]
)
@pytest.mark.parametrize("n", [50, 200])
def test_interval_of_the_accuracy_of_three_seeds_covers(n, effect, share):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(TRIALS):
        found = stats.bootstrap(draw(rng, 3, n, effect=effect, alike=0.7, share=share), mean, seed=0)
        held += found.low <= share <= found.high
        assert 0 <= found.low <= found.high <= 1
    assert held / TRIALS >= LEAST - 0.01  # Wilson's swing


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5])
def test_two_models_trained_three_times_each_are_told_apart_no_more_often_than_said(effect):
    rng = np.random.default_rng(2)
    held = rejected = 0
    for seed in range(TRIALS):
        a, b = (draw(rng, 3, 100, effect=effect, alike=0.7, share=0.8) for _ in range(2))
        found = stats.paired_difference(a, b, mean, seed=seed, resamples=200)
        held += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    assert held / TRIALS >= LEAST
    assert rejected / TRIALS <= 1 - LEAST


def test_examples_alone_do_not_cover_other_seeds():
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        rows = draw(rng, 3, 200, effect=0.3, alike=0.7)
        found = stats.bootstrap(rows.mean(axis=0), mean, seed=seed, resamples=200)
        held += found.low <= 0.5 <= found.high
    assert held / 200 < 0.7


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("effect", [0.0, 0.15, 1.0])
def test_mean_over_languages_of_three_seeds_covers(effect, parallel):
    """Seed s of all languages is one model: what it gains in one it gains in all."""
    rng = np.random.default_rng(4)
    held = rejected = 0
    keys = [[i if parallel else (language, i) for i in range(60)] for language in range(4)]
    for seed in range(TRIALS):
        model, text = effect * rng.standard_normal((3, 1, 1)), rng.standard_normal((1, 60, 1))
        groups = []
        for _ in range(4):
            hard = text if parallel else rng.standard_normal((1, 60, 1))
            groups.append(0.5 + 0.1 * (model + hard + 0.5 * rng.standard_normal((3, 60, 1))))
        found = stats.bootstrap_macro(groups, mean, seed=seed, resamples=100, keys=keys)
        held += found.low <= 0.5 <= found.high
        pairs = [(group, np.full((60, 1), 0.5)) for group in groups]
        rejected += stats.paired_macro(pairs, mean, seed=seed, resamples=1, keys=keys).p <= 0.05
    assert held / TRIALS >= LEAST
    assert rejected / TRIALS <= 1 - LEAST


def test_interval_of_the_macro_f1_of_three_seeds_covers():
    rng = np.random.default_rng(5)

    def counts(n: int, gain: np.ndarray) -> np.ndarray:
        actual, labels = rng.integers(3, size=n), np.eye(3)
        found = []
        luck = rng.random(n)
        for of_seed in gain:
            own = np.where(rng.random(n) < 0.5, luck, rng.random(n))
            guess = np.where(own < 0.7 + of_seed, actual, rng.integers(3, size=n))
            hits = (guess == actual)[:, None] * labels[actual]
            found.append(np.concatenate([hits, labels[guess], labels[actual]], axis=1))
        return np.stack(found)

    truth = float(
        MACRO_F1(counts(200_000, np.zeros(1))[0].mean(axis=0))
    )  # F1 is the share right here: linear
    held = 0
    for seed in range(TRIALS):
        rows = counts(120, 0.03 * rng.standard_normal(3))
        found = stats.bootstrap(rows, MACRO_F1, seed=seed, resamples=200)
        held += found.low <= truth <= found.high
    assert held / TRIALS >= LEAST


def test_a_drop_detectable_with_three_seeds_is_found_in_four_of_five_tries():
    rng = np.random.default_rng(6)

    def pair(drop: float) -> tuple[np.ndarray, np.ndarray]:
        text = rng.random((1, 100, 1))
        new, old = (
            text + 0.03 * rng.standard_normal((3, 1, 1)) + 0.2 * rng.standard_normal((3, 100, 1))
            for _ in "ab"
        )
        return new - drop, old

    pilots = [stats.paired_difference(*pair(0.0), mean, seed=seed, resamples=200) for seed in range(100)]
    drop = np.mean([detectable(pilot.low, pilot.high, 0.95) for pilot in pilots])
    found = [stats.paired_difference(*pair(drop), mean, seed=0, resamples=1) for _ in range(400)]
    assert (
        np.mean([one.p <= 0.05 and one.difference < 0 for one in found]) >= 0.8 - 0.06
    )  # three standard errors


# -- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shares", "graded", "counts"])
def test_one_seed_and_equal_seeds_are_as_without_seeds(kind):
    rng = np.random.default_rng(7)
    value = MACRO_F1 if kind == "counts" else mean
    a, b = rng.random((2, 30, 6 if kind == "counts" else 1))
    if kind != "graded":
        a, b = (a < 0.6).astype(float), (b < 0.6).astype(float)
    for copies in (1, 3):
        many_a, many_b = (np.stack([rows] * copies) for rows in (a, b))
        assert stats.bootstrap(many_a, value, seed=1) == stats.bootstrap(a, value, seed=1)
        assert stats.paired_difference(many_a, many_b, value, seed=1) == stats.paired_difference(
            a, b, value, seed=1
        )
        assert stats.bootstrap_macro([many_a, many_b], value, seed=1) == stats.bootstrap_macro(
            [a, b], value, seed=1
        )
        assert stats.paired_macro([(many_a, many_b)], value, seed=1) == stats.paired_macro(
            [(a, b)], value, seed=1
        )


def test_the_score_is_the_mean_of_the_seeds_scores():
    rng = np.random.default_rng(8)
    rows = (rng.random((3, 40, 6)) < 0.5).astype(float)
    each = [stats.bootstrap(one, MACRO_F1, seed=0).value for one in rows]
    assert stats.bootstrap(rows, MACRO_F1, seed=0).value == pytest.approx(np.mean(each))
    new, old = stats.values_of_pairs(rows, rows[:, ::-1], MACRO_F1)
    assert new == old == pytest.approx(np.mean(each))


def test_seeds_far_apart_on_endless_examples_give_students_interval():
    rng = np.random.default_rng(9)
    levels = np.array([0.4, 0.5, 0.63])
    rows = levels[:, None, None] + 1e-6 * rng.standard_normal((3, 2000, 1))
    found = stats.bootstrap(rows, mean, seed=0)
    theirs = scipy_stats.t.interval(0.95, 2, levels.mean(), scipy_stats.sem(levels))
    assert (found.low, found.high) == pytest.approx(theirs, abs=1e-4)
    p = stats.paired_difference(rows, np.zeros((2000, 1)), mean, seed=0).p
    assert p == pytest.approx(scipy_stats.ttest_1samp(levels, 0).pvalue, rel=1e-3)


def test_a_model_without_seeds_stands_beside_each_seed_of_the_other():
    rng = np.random.default_rng(10)
    seeds, base = (rng.random((3, 40, 1)) < 0.7).astype(float), (rng.random((40, 1)) < 0.6).astype(float)
    found = stats.paired_difference(seeds, base, mean, seed=0)
    assert found == stats.paired_difference(seeds, np.stack([base] * 3), mean, seed=0)
    assert found == stats.paired_difference(seeds, base[None], mean, seed=0)
    turned = stats.paired_difference(base, seeds, mean, seed=0)
    assert (turned.difference, turned.low, turned.high, turned.p) == pytest.approx(
        (-found.difference, -found.high, -found.low, found.p)
    )


def test_an_example_counts_where_every_seed_has_scored_it():
    rng = np.random.default_rng(11)
    rows = rng.random((3, 20, 1))
    holes = rows.copy()
    holes[1, 4], holes[2, 7] = np.nan, np.nan
    kept = [i for i in range(20) if i not in (4, 7)]
    assert stats.bootstrap(holes, mean, seed=0) == stats.bootstrap(rows[:, kept], mean, seed=0)
    found = stats.paired_difference(holes, rows, mean, seed=0)
    assert found.n == 18


def test_seeds_and_sources_together():
    rng = np.random.default_rng(12)
    source = np.repeat(np.arange(20), 5)
    of_source = rng.standard_normal((1, 20, 1))[:, source]
    rows = 0.5 + 0.1 * (of_source + 0.3 * rng.standard_normal((3, 100, 1)))
    together = stats.bootstrap(rows, mean, seed=0, clusters=source)
    alone = stats.bootstrap(rows, mean, seed=0)
    assert (together.groups, together.n) == (20, 100)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)  # sqrt(5) where a source is one text


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_tiny_test_sets_of_three_seeds_break_nothing(n):
    rng = np.random.default_rng(13)
    for rows in (rng.random((3, n, 1)), (rng.random((3, n, 1)) < 0.5).astype(float)):
        found = stats.bootstrap(rows, mean, seed=0)
        pair = stats.paired_difference(rows, 1 - rows, mean, seed=0)
        assert (found.value is None) == (pair.p is None) == (n == 0)
        if n:
            assert pair.p >= 2.0 ** (1 - n)
            assert found.low is None or found.low <= found.value <= found.high
        macro = stats.bootstrap_macro([rows, rows], mean, seed=0, keys=[range(n)] * 2)
        assert macro.value == found.value


def test_seeds_must_match():
    rng = np.random.default_rng(14)
    for wrong in (
        lambda: stats.paired_difference(rng.random((3, 9, 1)), rng.random((2, 9, 1)), mean, seed=0),
        lambda: stats.bootstrap_macro([rng.random((3, 9, 1)), rng.random((2, 9, 1))], mean, seed=0),
        lambda: stats.bootstrap(rng.random((1, 3, 9, 1)), mean, seed=0),
        lambda: stats.bootstrap(rng.random((0, 9, 1)), mean, seed=0),
    ):
        with pytest.raises(ValueError):
            wrong()
