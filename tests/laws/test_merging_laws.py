"""What every merge method must keep, over methods x spaces x adapter sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from problems import PROBLEMS, SHAPES, random_factors, save_peft, with_digest
from sabir.merging import streaming
from sabir.merging.recipe import make_recipe, merge

FULL = 99
MERGES = [
    ("linear", "delta", {}),
    *(
        (method, space, settings)
        for space in ("delta", "knots")
        for method, settings in (
            ("ties", {}),
            ("ties", {"density": 0.4}),
            ("dare", {"density": 0.5}),
            ("dare_ties", {"density": 0.5}),
        )
    ),
]
every_merge = pytest.mark.parametrize(("method", "space", "settings"), MERGES)
every_problem = pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "orthogonal"])


def deltas(recipe, adapters):
    return {module: lowrank.delta() for module, lowrank in merge(recipe, adapters)}


def bits(recipe, adapters):
    return {module: (x.b.numpy().tobytes(), x.a.numpy().tobytes()) for module, x in merge(recipe, adapters)}


def assert_close(got, expected, share=2e-6):
    for module in expected:
        size = float(torch.linalg.vector_norm(expected[module]))
        assert float(torch.linalg.vector_norm(got[module] - expected[module])) <= share * size, module


@every_problem
@pytest.mark.parametrize(
    ("method", "space"),
    [("linear", "delta"), *((m, s) for m in ("ties", "dare", "dare_ties") for s in ("delta", "knots"))],
)
def test_one_adapter_of_weight_one_at_density_one_comes_back(problem, method, space, tmp_path):
    adapters = PROBLEMS[problem](tmp_path)
    settings = {} if method == "linear" else {"density": 1.0}
    for name, adapter in adapters.items():
        recipe = make_recipe(method, space=space, settings=settings, weights={name: 1.0})
        expected = {module: adapter.read(module).delta() for module in adapter.modules}
        assert_close(deltas(recipe, {name: adapter}), expected)


@every_merge
@every_problem
def test_the_order_of_adapters_changes_no_bit(problem, method, space, settings, tmp_path):
    adapters = PROBLEMS[problem](tmp_path)
    recipe = make_recipe(
        method, space=space, settings=settings, weights=dict(zip(adapters, (1.0, 2.0, 3.0), strict=False))
    )
    assert bits(recipe, adapters) == bits(recipe, dict(reversed(adapters.items())))


@every_merge
def test_weight_zero_is_absence(method, space, settings, tmp_path):
    adapters = PROBLEMS["unequal ranks"](tmp_path)
    weights = {"de": 1.0, "fr": 0.0, "ja": 2.0}
    with_zero = make_recipe(method, space=space, settings=settings, weights=weights)
    absent = make_recipe(method, space=space, settings=settings, weights={"de": 1.0, "ja": 2.0})
    assert bits(with_zero, adapters) == bits(absent, {name: adapters[name] for name in ("de", "ja")})


@every_merge
def test_a_scaled_input_gives_the_scaled_output(method, space, settings, tmp_path):
    recipe = make_recipe(method, space=space, settings=settings, rank=FULL)
    plain, scaled = {}, {}
    for i, name in enumerate(("de", "fr", "ja")):
        factors = random_factors(i)
        bigger = {module: (-4.0 * b, a) for module, (b, a) in factors.items()}
        plain[name] = with_digest(save_peft(tmp_path / f"{name}-1", factors), name)
        scaled[name] = with_digest(save_peft(tmp_path / f"{name}-4", bigger), name)
    expected = {module: -4.0 * delta for module, delta in deltas(recipe, plain).items()}
    assert_close(deltas(recipe, scaled), expected)


@every_merge
def test_another_factorisation_of_the_same_deltas_changes_nothing(method, space, settings, tmp_path):
    recipe = make_recipe(method, space=space, settings=settings, rank=FULL)
    plain, other = {}, {}
    for i, name in enumerate(("de", "fr", "ja")):
        factors = random_factors(i)
        # a power of two and a permutation: the same deltas to the last bit
        turned = {module: (4.0 * b.flip(1), a.flip(0) / 4.0) for module, (b, a) in factors.items()}
        plain[name] = with_digest(save_peft(tmp_path / f"{name}-1", factors), name)
        other[name] = with_digest(save_peft(tmp_path / f"{name}-2", turned), name)
    assert_close(deltas(recipe, other), deltas(recipe, plain))


def test_equal_adapters_of_weights_one_and_minus_one_give_zero(tmp_path):
    adapters = {name: save_peft(tmp_path / name, random_factors(1)) for name in ("de", "fr")}
    merged = merge(make_recipe("linear", weights={"de": 1.0, "fr": -1.0}), adapters)
    for lowrank in dict(merged).values():
        assert float(lowrank.delta().abs().max()) < 1e-15
    assert merged.energy_kept == 1.0


@every_merge
def test_tiles_and_memory_change_nothing(method, space, settings, tmp_path, monkeypatch):
    adapters = PROBLEMS["half-opposite"](tmp_path)
    recipe = make_recipe(method, space=space, settings=settings, rank=FULL)
    at_once = deltas(recipe, adapters)
    monkeypatch.setattr(streaming, "TILE_VALUES", 25)
    monkeypatch.setattr(streaming, "HELD_BYTES", 0)
    assert_close(deltas(recipe, adapters), at_once)


@every_merge
def test_the_number_of_threads_changes_no_bit(method, space, settings, tmp_path):
    shapes = {"layers.0.q_proj": (192, 160)}
    adapters = {
        n: save_peft(tmp_path / n, random_factors(i, rank=8, shapes=shapes)) for i, n in enumerate("ab")
    }
    recipe = make_recipe(method, space=space, settings=settings, rank=7)
    one = bits(recipe, adapters)
    torch.set_num_threads(2)
    try:
        assert bits(recipe, adapters) == one
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("space", ["delta", "knots"])
def test_the_mean_of_dare_over_seeds_is_its_input(space, tmp_path):
    adapters = PROBLEMS["random"](tmp_path)
    exact = {m: x.delta().double() for m, x in merge(make_recipe("linear"), adapters)}
    seeds = 100
    mean = {m: torch.zeros_like(d) for m, d in exact.items()}
    for seed in range(seeds):
        recipe = make_recipe("dare", space=space, settings={"density": 0.5, "seed": seed}, rank=FULL)
        for module, delta in deltas(recipe, adapters).items():
            mean[module] += delta / seeds
    for module, delta in exact.items():
        # one draw at density 0.5 errs by as much as its inputs, the mean of n draws by 1/sqrt(n) of it
        energies = [float(torch.linalg.vector_norm(a.read(module).delta()) ** 2) for a in adapters.values()]
        size = sum(energies) ** 0.5 / 3
        error = float(torch.linalg.vector_norm(mean[module] - delta))
        assert error < 2 * size / seeds**0.5
        assert error > 0.3 * size / seeds**0.5  # and the seeds do differ


@every_merge
def test_merging_again_after_one_change_is_merging_from_cold(method, space, settings, tmp_path):
    recipe = make_recipe(method, space=space, settings=settings)
    adapters = PROBLEMS["random"](tmp_path / "old")
    before = bits(recipe, adapters)
    adapters["de"] = save_peft(tmp_path / "new", random_factors(99))
    after = bits(recipe, adapters)
    cold = {
        "de": save_peft(tmp_path / "cold", random_factors(99)),
        "fr": adapters["fr"],
        "ja": adapters["ja"],
    }
    assert after == bits(recipe, cold)
    assert after != before


def test_module_by_module_is_all_at_once_for_an_untrimmed_merge(tmp_path):
    whole = {name: save_peft(tmp_path / "w" / name, random_factors(i)) for i, name in enumerate(("de", "fr"))}
    recipe = make_recipe("dare", settings={"density": 0.5}, rank=FULL)
    together = deltas(recipe, {n: with_digest(a, n) for n, a in whole.items()})
    for module, (rows, columns) in SHAPES.items():
        alone = {
            name: with_digest(save_peft(tmp_path / module / name, {module: random_factors(i)[module]}), name)
            for i, name in enumerate(("de", "fr"))
        }
        assert np.array_equal(deltas(recipe, alone)[module].numpy(), together[module].numpy()), (
            rows,
            columns,
        )
