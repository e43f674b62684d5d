"""The drop that a test set is said to show is the one it shows, by simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from sabir import power, stats


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


# Power by simulation: the share of `trials` test sets in which a true drop of the size said to be detectable
# comes out significant. Nominal 0.8, with a standard error of sqrt(0.8 * 0.2 / trials): 0.013 at 1,000 trials.


def answers_that_differ(
    rng: np.random.Generator, n: int, *, drop: float, differing: float
) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of a new and an old model: on a share `differing` only one is right, `drop` more often the old."""
    kind, both = rng.random((n, 1)), rng.random((n, 1)) < 0.6
    only_new, only_old = (differing - drop) / 2, (differing + drop) / 2
    new = np.where(kind < only_new, True, np.where(kind < only_new + only_old, False, both))
    old = np.where(kind < only_new, False, np.where(kind < only_new + only_old, True, both))
    return new.astype(float), old.astype(float)


def is_found(found: stats.Difference, tests: int) -> bool:
    return found.p <= 0.05 / tests and found.difference < 0


@pytest.mark.parametrize("tests", [1, 5])
@pytest.mark.parametrize(("n", "differing"), [(100, 0.4), (200, 0.2), (500, 0.2), (500, 0.4)])
def test_the_drop_detectable_from_n_is_found_in_four_of_five_test_sets(n, differing, tests):
    drop = power.detectable_from_n(n, differing=differing, tests=tests)
    rng = np.random.default_rng(0)
    found = [
        is_found(
            stats.paired_difference(
                *answers_that_differ(rng, n, drop=drop, differing=differing), mean, seed=0
            ),
            tests,
        )
        for _ in range(1000)
    ]
    # The formula is of large samples: with some 40 pairs that differ, at a fifth of the level, McNemar's test finds
    # up to 0.05 more (0.847 at n = 200, 5 tests). Else three standard errors.
    assert 0.8 - 0.04 <= np.mean(found) <= 0.8 + 0.04 + 0.05


@pytest.mark.parametrize("tests", [1, 5])
def test_the_drop_detectable_from_an_interval_is_found_in_four_of_five_test_sets(tests):
    rng, n, noise = np.random.default_rng(1), 100, 0.2

    def scores(drop: float) -> tuple[np.ndarray, np.ndarray]:
        common = rng.random((n, 1))
        new, old = (common + noise * rng.standard_normal((n, 1)) for _ in range(2))
        return new - drop, old

    pilots = [stats.paired_difference(*scores(0.0), mean, seed=seed, resamples=500) for seed in range(40)]
    drops = [power.detectable(pilot.low, pilot.high, 0.95, tests=tests) for pilot in pilots]
    found = [
        is_found(stats.paired_difference(*scores(np.mean(drops)), mean, seed=seed, resamples=999), tests)
        for seed in range(400)
    ]
    # 0.8 give or take three standard errors of 400 trials (0.02); Student's interval is a little wide at n = 100.
    assert 0.74 <= np.mean(found) <= 0.86


def test_what_is_detectable_from_n_agrees_with_what_is_from_an_interval():
    rng = np.random.default_rng(2)
    for n, differing in ((200, 0.2), (500, 0.4)):
        pairs = [answers_that_differ(rng, n, drop=0.0, differing=differing) for _ in range(200)]
        found = [stats.paired_difference(*pair, mean, seed=0) for pair in pairs]
        drops = [power.detectable(each.low, each.high, 0.95) for each in found]
        # Connor's variance is that of the drop itself, less than that of no drop: a few hundredths of it.
        assert np.mean(drops) == pytest.approx(power.detectable_from_n(n, differing=differing), rel=0.03)


def test_detectable_from_n_solves_connors_formula():
    for n, differing, tests, wanted in ((200, 0.2, 1, 0.8), (1000, 0.05, 5, 0.9), (60, 0.5, 20, 0.8)):
        drop = power.detectable_from_n(n, differing=differing, tests=tests, power=wanted)
        share = max(differing, drop)
        z, z_power = scipy_stats.norm.ppf([1 - 0.05 / tests / 2, wanted])
        needed = ((z * math.sqrt(share) + z_power * math.sqrt(share - drop**2)) / drop) ** 2
        assert needed == pytest.approx(n)


def test_more_rows_show_smaller_drops_and_more_tests_larger_ones():
    drops = [power.detectable_from_n(n) for n in (20, 50, 200, 500, 5000)]
    assert drops == sorted(drops, reverse=True)
    assert power.detectable_from_n(200, tests=5) > power.detectable_from_n(200)
    assert power.detectable(-0.02, 0.02, 0.95, tests=5) > power.detectable(-0.02, 0.02, 0.95)
    assert power.detectable(-0.02, 0.02, 0.95, power=0.9) > power.detectable(-0.02, 0.02, 0.95)
    level = power.detectable(-0.02, 0.02, 0.95)
    assert level == pytest.approx(0.02 * (1.959964 + 0.841621) / 1.959964)


def test_too_few_rows_show_no_drop_at_all():
    assert power.detectable_from_n(0) is None
    assert power.detectable_from_n(3) is None
    assert power.detectable(None, None, 0.95) is None
    assert power.detectable(-0.9, 0.9, 0.95) is None


def test_misuse_of_power_is_refused():
    for wrong in (
        lambda: power.detectable(-0.1, 0.1, 95),
        lambda: power.detectable(-0.1, 0.1, 0.95, power=0.2),
        lambda: power.detectable(-0.1, 0.1, 0.95, tests=0),
        lambda: power.detectable_from_n(100, differing=0.0),
        lambda: power.detectable_from_n(100, differing=20),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_importing_it_imports_no_numpy():
    code = "import sys, sabir.power; print(any(m in sys.modules for m in ('numpy', 'scipy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
