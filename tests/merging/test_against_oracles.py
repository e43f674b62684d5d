"""Every method in every space equals its definition on dense float64 matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.merging import dense_delta, merge_dense
from problems import PROBLEMS
from sabir.merging.recipe import make_recipe, merge

FULL = 99  # above every min(O, I): nothing is cut
METHODS = [
    ("linear", {"scale": 1.5}),
    ("ties", {}),
    ("ties", {"density": 0.3, "scale": 0.5}),
    ("dare", {"density": 0.5, "seed": 3}),
    ("dare_ties", {"density": 0.6, "seed": 4, "scale": 2.0}),
]
WEIGHTED = ("random", "half-opposite", "unequal ranks")
CASES = [
    (problem, method, settings, space)
    for problem in PROBLEMS
    for method, settings in METHODS
    for space in ("delta", "knots")
    if not (method == "linear" and space == "knots")
    and not (problem == "orthogonal" and space == "knots")  # equal singular values: knots is not defined
]


def relative_error(got: torch.Tensor, expected: np.ndarray) -> float:
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(got.double().numpy() - expected) / size) if size else float(got.abs().max())


@pytest.mark.parametrize(
    ("problem", "method", "settings", "space", "weighted"),
    [
        (*case, weighted)
        for case in CASES
        for weighted in (False, True)
        if not weighted or case[0] in WEIGHTED
    ],
)
def test_merge_equals_its_dense_definition(problem, method, settings, space, weighted, tmp_path):
    adapters = PROBLEMS[problem](tmp_path)
    names = list(adapters)
    given = dict(zip(names, (0.5, 1.5, 2.0), strict=False)) if weighted else None
    recipe = make_recipe(method, space=space, settings=settings, weights=given, rank=FULL)
    default = 1 / len(names) if method in ("linear", "dare") else 1.0
    weights = [given[name] if given else default for name in names]
    each = [dense_delta(adapters[name].path) for name in names]
    expected = merge_dense(
        {module: [delta[module] for delta in each] for module in each[0]},
        method,
        space,
        weights,
        [adapters[name].digest for name in names],
        **settings,
    )
    merged = merge(recipe, adapters)
    results = dict(merged)
    assert sorted(results) == sorted(expected)
    inputs = max(np.linalg.norm(delta) for adapter in each for delta in adapter.values())
    for module, lowrank in results.items():
        # float32 output: 1e-6 of the result, or a float64 rounding of what cancelled
        error = np.linalg.norm(lowrank.delta().double().numpy() - expected[module])
        assert error <= max(1e-6 * np.linalg.norm(expected[module]), 1e-14 * inputs), module
    assert merged.energy_kept == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("space", ["delta", "knots"])
def test_a_cut_merge_is_the_best_of_its_rank_and_says_what_energy_it_kept(method, rank, space, tmp_path):
    adapters = PROBLEMS["random"](tmp_path)
    full = dict(merge(make_recipe(method, space=space, rank=FULL), adapters))
    cut = merge(make_recipe(method, space=space, rank=rank), adapters)
    kept = total = 0.0
    for module, lowrank in cut:
        u, sigma, vt = np.linalg.svd(full[module].delta().double().numpy())
        best = u[:, :rank] * sigma[:rank] @ vt[:rank]
        assert relative_error(lowrank.delta(), best) < 1e-5  # float32 factors of a product with gaps in sigma
        kept, total = kept + (sigma[:rank] ** 2).sum(), total + (sigma**2).sum()
    assert cut.rank == rank
    assert cut.energy_kept == pytest.approx(kept / total, rel=1e-5)


def test_energy_kept_by_adapter_is_its_share_in_the_outputs_the_result_can_write_to(tmp_path):
    adapters = PROBLEMS["random"](tmp_path)
    merged = merge(make_recipe("ties", rank=2), adapters)
    results = dict(merged)
    for name, adapter in adapters.items():
        kept = total = 0.0
        for module, delta in dense_delta(adapter.path).items():
            q = np.linalg.qr(results[module].b.double().numpy())[0]
            kept, total = kept + np.linalg.norm(q.T @ delta) ** 2, total + np.linalg.norm(delta) ** 2
        assert merged.energy_kept_by_adapter[name] == pytest.approx(kept / total, rel=1e-6)
        assert 0 < merged.energy_kept_by_adapter[name] < 1
