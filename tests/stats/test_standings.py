"""Which models are marked best and tied, and that the truly best is among them."""

from __future__ import annotations

import numpy as np
import pytest

from sabir import stats
from sabir.metrics import METRICS
from sabir.stats import Standing

MACRO_F1 = METRICS.get("macro_f1").facts["value"]


def mean(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def answers(rng: np.random.Generator, n: int, shares: dict[str, float]) -> dict[str, np.ndarray]:
    """Right answers of models that find partly the same examples hard."""
    text = rng.random(n)
    return {
        name: (np.where(rng.random(n) < 0.5, text, rng.random(n)) < share).astype(float)[:, None]
        for name, share in shares.items()
    }


@pytest.mark.parametrize("gap", [0.0, 0.03])
@pytest.mark.parametrize("kind", ["shares", "graded"])
def test_the_truly_best_of_eight_models_is_among_best_and_tied(kind, gap):
    rng, kept, trials = np.random.default_rng(0), 0, 300
    for seed in range(trials):
        models = answers(rng, 150, {f"m{i}": 0.75 - gap * (i > 0) for i in range(8)})
        if kind == "graded":
            models = {name: 0.5 * rows + 0.1 * rng.random(rows.shape) for name, rows in models.items()}
        found = stats.standings(models, mean, seed=seed, resamples=200)
        kept += "m0" in (found.best, *found.tied)
    assert kept / trials >= 0.95 - 0.038  # three standard errors


def test_the_truly_best_over_parallel_languages_is_among_best_and_tied():
    rng, kept, trials = np.random.default_rng(1), 0, 150
    for seed in range(trials):
        by_language = [answers(rng, 60, {f"m{i}": 0.75 for i in range(5)}) for _ in range(3)]
        by_model = {name: [of[name] for of in by_language] for name in by_language[0]}
        found = stats.standings_macro(by_model, mean, seed=seed, resamples=200, keys=[range(60)] * 3)
        kept += "m0" in (found.best, *found.tied)
    assert kept / trials >= 0.95 - 0.054


def test_clearly_worse_models_are_not_tied():
    rng = np.random.default_rng(2)
    drawn = answers(rng, 400, {"bad": 0.4, "good": 0.9, "worse": 0.6})
    as_good = drawn["good"].copy()
    as_good[np.flatnonzero(as_good[:, 0] == 1)[:6]] = 0
    as_good[np.flatnonzero(drawn["good"][:, 0] == 0)[:5]] = 1
    models = {"bad": drawn["bad"], "good": drawn["good"], "as good": as_good, "worse": drawn["worse"]}
    assert stats.standings(models, mean, seed=0) == Standing("good", ("as good",))
    macro = {name: [rows, rows[::-1]] for name, rows in models.items()}
    assert stats.standings_macro(macro, mean, seed=0) == Standing("good", ("as good",))


def test_the_tied_are_those_that_holm_does_not_reject():
    rng = np.random.default_rng(3)
    models = {}
    actual, labels = rng.integers(2, size=100), np.eye(2)
    for i, right in enumerate((0.6, 0.85, 0.84, 0.85, 0.5, 0.7)):
        guess = np.where(rng.random(100) < right, actual, 1 - actual)
        hits = (guess == actual)[:, None] * labels[actual]
        models[f"m{i}"] = np.concatenate([hits, labels[guess], labels[actual]], axis=1)
    found = stats.standings(models, MACRO_F1, seed=0)
    scores = {name: stats.bootstrap(rows, MACRO_F1, seed=0).value for name, rows in models.items()}
    best = max(scores, key=scores.get)
    others = [name for name in models if name != best]
    p = [stats.paired_difference(models[name], models[best], MACRO_F1, seed=0).p for name in others]
    tied = [name for name, corrected in zip(others, stats.holm(p), strict=True) if corrected > 0.05]
    assert found == Standing(best, tuple(tied))
    assert 0 < len(tied) < 5  # a case that tells


def test_of_equal_scores_the_first_given_is_best_and_ties_keep_their_order():
    rows = (np.random.default_rng(4).random((20, 1)) < 0.5).astype(float)
    assert stats.standings({"z": rows, "a": rows, "m": rows}, mean, seed=0) == Standing("z", ("a", "m"))
    assert stats.standings({"m": rows, "z": rows, "a": rows}, mean, seed=0) == Standing("m", ("z", "a"))


def test_models_are_ranked_on_the_rows_that_all_have_scored():
    easy, hard = np.ones((50, 1)), np.zeros((50, 1))
    full = np.concatenate([easy, hard])
    dodger = np.concatenate([0.9 * easy, np.full((50, 1), np.nan)])  # did not answer the hard ones
    assert stats.standings({"dodger": dodger, "full": full}, mean, seed=0) == Standing("full", ())
    clusters = [i // 2 for i in range(100)]
    assert stats.standings({"dodger": dodger, "full": full}, mean, seed=0, clusters=clusters).best == "full"


def test_a_model_without_a_scored_row_is_neither_best_nor_tied():
    rows, holes = np.array([[1.0], [0.0], [1.0]]), np.full((3, 1), np.nan)
    assert stats.standings({"silent": holes, "other": rows}, mean, seed=0) == Standing("other", ())
    assert stats.standings({"silent": holes}, mean, seed=0) == Standing(None, ())
    assert stats.standings({}, mean, seed=0) == Standing(None, ())
    by_model = {"half": [rows, holes], "whole": [rows, rows]}
    assert stats.standings_macro(by_model, mean, seed=0) == Standing("whole", ())
    apart = {"a": np.array([[1.0], [np.nan]]), "b": np.array([[np.nan], [1.0]])}
    assert stats.standings(apart, mean, seed=0) == Standing(None, ())


def test_three_rows_tie_everyone():
    models = {"a": np.array([[1.0], [1.0], [1.0]]), "b": np.zeros((3, 1))}
    assert stats.standings(models, mean, seed=0) == Standing("a", ("b",))


def test_models_of_several_seeds_stand_beside_models_of_one():
    rng = np.random.default_rng(5)
    once = answers(rng, 200, {"base": 0.5, "merged": 0.8})
    shaky = np.stack([answers(rng, 200, {"x": share})["x"] for share in (0.95, 0.6, 0.9)])
    found = stats.standings({**once, "shaky": shaky}, mean, seed=0)
    assert found.best == "shaky"
    assert found.tied == ("base", "merged")  # three seeds so far apart prove nothing
    steady = np.stack([answers(rng, 200, {"x": 0.9})["x"] for _ in range(3)])
    assert "base" not in stats.standings({**once, "steady": steady}, mean, seed=0).tied


def test_rankings_need_the_same_examples():
    rows = np.ones((3, 1))
    for wrong in (
        lambda: stats.standings({"a": rows, "b": rows[:2]}, mean, seed=0),
        lambda: stats.standings_macro({"a": [rows], "b": [rows, rows]}, mean, seed=0),
        lambda: stats.standings_macro({"a": []}, mean, seed=0),
        lambda: stats.standings({"a": rows}, mean, seed=0, level=95),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_labels_with_few_rows_are_named_in_the_order_declared():
    targets = ["a"] * 10 + ["b"] * 4 + ["d"] * 5
    assert stats.rare_labels(targets, ["d", "c", "b", "a"]) == ["c", "b"]
    assert stats.rare_labels(targets, ["a", "b", "c", "d"], fewer_than=11) == ["a", "b", "c", "d"]
    assert stats.rare_labels(targets, ["a", "d"]) == []
