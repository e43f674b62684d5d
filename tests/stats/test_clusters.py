"""Examples of one source are drawn together: intervals hold, and without clusters nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from sabir import stats
from sabir.metrics import METRICS
from sabir.power import detectable

MACRO_F1 = METRICS.get("macro_f1").facts["value"]


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


# What the same seeds gave before clusters were known: score, low, high and, of pairs, p.
BEFORE = {
    "shares": (
        (0.675, 0.5201774618987768, 0.799154977682173),
        (0.10000000000000009, -0.13108968856377853, 0.3197693505952661, 0.40487289428710915),
        (0.625, 0.5161490571957001, 0.7185256223414446),
        (0.17500000000000004, -0.0138022701559265, 0.3440972311386714, 0.08891108891108891),
    ),
    "graded": (
        (0.5099362435772988, 0.37507888742354006, 0.6304349851784737),
        (0.09008488526998132, -0.08689091708652033, 0.2724832721868606, 0.29270729270729273),
        (0.46489380094230814, 0.3691703904796479, 0.5578799308392131),
        (0.08405244574591439, -0.028287669358762965, 0.19691054949336617, 0.0979020979020979),
    ),
    "counts": (
        (1.0126436781609196, 0.7137384016505736, 1.4247963564521555),
        (-0.11340674200714762, -0.5076136351003477, 0.2892371173987936, 0.5444555444555444),
        (1.0693470491644934, 0.8713958020436513, 1.3371288788143987),
        (-0.2191704329271575, -0.5288668698425568, 0.10214430141568026, 0.16783216783216784),
    ),
}


def inputs() -> dict[str, tuple]:
    rng = np.random.default_rng(12)
    return {
        "shares": (*(rng.random((2, 40, 1)) < 0.7).astype(float), mean),
        "graded": (*rng.random((2, 25, 1)), mean),
        "counts": (*(rng.random((2, 30, 6)) < 0.5).astype(float), MACRO_F1),
    }


@pytest.mark.parametrize("kind", list(BEFORE))
def test_clusters_of_one_example_change_nothing(kind):
    a, b, value = inputs()[kind]
    own = [f"source {i}" for i in range(len(a))]
    pairs = [(a, b), (a[:20], b[5:25])]
    keys = [[(group, i) for i in range(len(rows))] for group, (rows, _) in enumerate(pairs)]
    macro_keys = [[(group, i) for i in range(len(a))] for group in range(2)]
    for clusters, of_groups, of_pairs in ((None, None, None), (own, macro_keys, keys)):
        one = stats.bootstrap(a, value, seed=1, clusters=clusters)
        pair = stats.paired_difference(a, b, value, seed=1, clusters=clusters)
        macro = stats.bootstrap_macro([a, b], value, seed=1, keys=of_groups)
        macro_pair = stats.paired_macro(pairs, value, seed=1, keys=of_pairs)
        found = (
            (one.value, one.low, one.high),
            (pair.difference, pair.low, pair.high, pair.p),
            (macro.value, macro.low, macro.high),
            (macro_pair.difference, macro_pair.low, macro_pair.high, macro_pair.p),
        )
        for ours, before in zip(found, BEFORE[kind], strict=True):
            assert ours == pytest.approx(
                before, rel=1e-12, abs=1e-15
            )  # sums in another order, on another machine
        assert (one.groups, pair.groups, macro.groups) == (len(a), len(a), 2 * len(a))
        if clusters is None:
            plain = found
    assert found == plain  # to the last bit


# -- coverage: nominal 0.95, with a standard error of 0.007 at 1,000 trials and 0.011 at 400 ------------------


def clustered_answers(
    rng: np.random.Generator, groups: int, sizes: list[int], share: float, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, (n, 1), and the sources; shares of sources are beta, so that `alike` is their correlation."""
    size = rng.choice(sizes, groups)
    source = np.repeat(np.arange(groups), size)
    of_source = np.full(groups, share)
    if alike:
        of_source = rng.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, groups)
    return (rng.random(len(source)) < of_source[source]).astype(float)[:, None], source


EVEN, UNEVEN = [4], [1, 1, 1, 10]


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN])
@pytest.mark.parametrize("alike", [0.0, 0.3, 0.7])
@pytest.mark.parametrize(("groups", "share"), [(3, 0.7), (10, 0.9), (30, 0.7), (30, 0.9), (100, 0.97)])
def test_interval_of_accuracy_over_clusters_covers(groups, share, alike, sizes):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(600):
        rows, source = clustered_answers(rng, groups, sizes, share, alike)
        found = stats.bootstrap(rows, mean, seed=0, clusters=source)
        held += found.low <= share <= found.high
    # 0.95 less Wilson's swing (see test_stats) and three standard errors of 600 trials.
    assert held / 600 >= 0.92 - 0.027


def test_interval_without_the_clusters_does_not_cover():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(600):
        rows, _ = clustered_answers(rng, 30, [10], 0.7, 0.5)
        found = stats.bootstrap(rows, mean, seed=0)
        held += found.low <= 0.7 <= found.high
    assert held / 600 < 0.75


@pytest.mark.parametrize("sizes", [EVEN, [2, 2, 2, 20]])
@pytest.mark.parametrize("alike", [0.0, 0.7])
@pytest.mark.parametrize("groups", [2, 3, 5, 12, 40])
def test_interval_of_a_graded_score_over_clusters_covers(groups, alike, sizes):
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(400):
        source = np.repeat(np.arange(groups), rng.choice(sizes, groups))
        noise = rng.standard_normal(len(source))
        rows = 0.5 + 0.1 * (alike * rng.standard_normal(groups)[source] + (1 - alike) * noise)[:, None]
        found = stats.bootstrap(rows, mean, seed=seed, resamples=300, clusters=source)
        held += found.low <= 0.5 <= found.high
    assert held / 400 >= 0.95 - 0.033


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN])
@pytest.mark.parametrize("alike", [0.0, 0.7])
@pytest.mark.parametrize("groups", [3, 12, 60])
def test_models_equally_good_on_clusters_are_told_apart_no_more_often_than_said(groups, alike, sizes):
    rng = np.random.default_rng(2)
    held = rejected = 0
    for seed in range(500):
        source = np.repeat(np.arange(groups), rng.choice(sizes, groups))
        of_source, of_row = rng.integers(5, size=groups)[source], rng.integers(5, size=len(source))
        kind = np.where(rng.random(len(source)) < alike, of_source, of_row)  # 0: only a right, 1: only b
        common = rng.random(len(source)) < 0.6
        a = np.where(kind == 0, 1, np.where(kind == 1, 0, common)).astype(float)[:, None]
        b = np.where(kind == 1, 1, np.where(kind == 0, 0, common)).astype(float)[:, None]
        found = stats.paired_difference(a, b, mean, seed=seed, resamples=300, clusters=source)
        held += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    assert held / 500 >= 0.95 - 0.029
    assert rejected / 500 <= 0.05 + 0.029


def test_macro_f1_over_clusters_covers():
    rng = np.random.default_rng(3)

    def draw(groups: int) -> tuple[np.ndarray, np.ndarray]:
        source = np.repeat(np.arange(groups), rng.choice([2, 6], groups))
        actual = np.where(rng.random(len(source)) < 0.5, rng.integers(3, size=groups)[source], 0)
        luck = np.where(rng.random(len(source)) < 0.6, rng.random(groups)[source], rng.random(len(source)))
        guess = np.where(luck < 0.7, actual, rng.integers(3, size=len(source)))
        labels = np.eye(3)
        hits = (guess == actual)[:, None] * labels[actual]
        return np.concatenate([hits, labels[guess], labels[actual]], axis=1), source

    truth = float(MACRO_F1(draw(100_000)[0].mean(axis=0)))
    held = plain = 0
    for seed in range(300):
        rows, source = draw(60)
        found = stats.bootstrap(rows, MACRO_F1, seed=seed, resamples=300, clusters=source)
        held += found.low <= truth <= found.high
        found = stats.bootstrap(rows, MACRO_F1, seed=seed, resamples=300)
        plain += found.low <= truth <= found.high
    assert held / 300 >= 0.95 - 0.038
    assert plain / 300 < 0.9  # more than four standard errors short


# -- what clusters are -----------------------------------------------------------------------------------


def test_copies_of_a_test_set_are_worth_one():
    rng = np.random.default_rng(4)
    rows = (rng.random((60, 1)) < 0.8).astype(float)
    once = stats.bootstrap(rows, mean, seed=0)
    copied = stats.bootstrap(np.repeat(rows, 7, axis=0), mean, seed=0, clusters=np.repeat(np.arange(60), 7))
    assert copied.groups == 60
    assert copied.n == 420
    # The same but for Student's 59 degrees of freedom instead of the normal interval.
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.04)
    graded = rng.random((60, 1))
    once = stats.bootstrap(graded, mean, seed=0)
    copied = stats.bootstrap(np.repeat(graded, 7, axis=0), mean, seed=0, clusters=np.repeat(np.arange(60), 7))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_the_mean_is_over_rows_not_over_clusters():
    rows = np.array([[1.0]] * 9 + [[0.0]])
    assert stats.bootstrap(rows, mean, seed=0, clusters=[1] * 9 + [2]).value == pytest.approx(0.9)


def test_a_row_without_a_source_stands_alone():
    rng = np.random.default_rng(5)
    rows = rng.random((20, 1))
    named = [None if i >= 6 else i // 2 for i in range(20)]
    spelt = [("alone", i) if i >= 6 else i // 2 for i in range(20)]
    assert stats.bootstrap(rows, mean, seed=0, clusters=named) == stats.bootstrap(
        rows, mean, seed=0, clusters=spelt
    )
    assert stats.bootstrap(rows, mean, seed=0, clusters=[None] * 20) == stats.bootstrap(rows, mean, seed=0)


def test_order_of_rows_does_not_matter_within_clusters():
    rng = np.random.default_rng(6)
    rows, source = rng.random((24, 1)), np.repeat(np.arange(12), 2)
    swapped = np.arange(24).reshape(12, 2)[:, ::-1].ravel()
    one = stats.bootstrap(rows, mean, seed=0, clusters=source)
    other = stats.bootstrap(rows[swapped], mean, seed=0, clusters=source)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_unscored_rows_leave_their_cluster():
    rng = np.random.default_rng(7)
    rows = rng.random((12, 1))
    holes = np.vstack([rows, [[np.nan]], [[np.nan]]])
    source = [i // 3 for i in range(12)]
    found = stats.bootstrap(holes, mean, seed=0, clusters=[*source, 0, "never scored"])
    assert found == stats.bootstrap(rows, mean, seed=0, clusters=source)
    assert found.groups == 4


def test_one_source_of_all_examples_has_a_value_and_no_bounds():
    for rows in (np.array([[1.0], [0.0], [1.0]]), np.array([[0.2], [0.5], [0.9]]), np.ones((3, 1))):
        found = stats.bootstrap(rows, mean, seed=0, clusters=["book"] * 3)
        assert found == stats.Interval(float(rows.mean()), None, None, 0.95, 3, 1)
        pair = stats.paired_difference(rows, 1 - rows, mean, seed=0, clusters=["book"] * 3)
        assert (pair.low, pair.high, pair.p, pair.groups) == (None, None, 1.0, 1)


def test_two_sources_say_next_to_nothing():
    source = np.repeat([0, 1], 50)
    right = np.concatenate([np.ones(45), np.zeros(5), np.ones(40), np.zeros(10)])[:, None]
    found = stats.bootstrap(right, mean, seed=0, clusters=source)
    assert found.high - found.low > 0.6
    assert found.high <= 1
    graded = stats.bootstrap(0.5 * right, mean, seed=0, clusters=source)
    t = scipy_stats.t.ppf(0.975, 1)
    assert graded.high - graded.low == pytest.approx(
        2 * t * 0.025
    )  # Student's, of the two means 0.45 and 0.40


def test_clusters_all_right_are_one_example_each():
    found = stats.bootstrap(np.ones((30, 1)), mean, seed=0, clusters=np.repeat(np.arange(6), 5))
    theirs = scipy_stats.binomtest(6, 6).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, 1.0))
    pair = stats.paired_difference(
        np.ones((30, 1)), np.ones((30, 1)), mean, seed=0, clusters=np.repeat(np.arange(6), 5)
    )
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    assert (pair.low, pair.high) == pytest.approx((-z2 / (6 + z2), z2 / (6 + z2)))


def test_clusters_must_be_as_many_as_the_rows():
    rows = np.ones((3, 1))
    for wrong in (
        lambda: stats.bootstrap(rows, mean, seed=0, clusters=[1, 2]),
        lambda: stats.paired_difference(rows, rows, mean, seed=0, clusters=[1]),
        lambda: stats.bootstrap_macro([rows], mean, seed=0, keys=[[1, 2, 3], [1]]),
    ):
        with pytest.raises(ValueError):
            wrong()


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_a_tiny_test_set_shows_no_small_drop_and_breaks_nothing(rows):
    rng = np.random.default_rng(8)
    for statistics, value in ((np.ones((rows, 1)), mean), (rng.random((rows, 6)), MACRO_F1)):
        other = statistics[::-1] * 0
        for clusters in (None, [0] * rows, list(range(rows))):
            found = stats.paired_difference(statistics, other, value, seed=0, clusters=clusters)
            single = stats.bootstrap(statistics, value, seed=0, clusters=clusters)
            assert (single.value is None) == (rows == 0)
            assert found.p is None or found.p > 0.05
            if statistics.shape[1] == 1:
                drop = detectable(found.low, found.high, 0.95)
                assert drop is None or drop > 0.75
