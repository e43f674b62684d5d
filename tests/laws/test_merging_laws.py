"""What every merge method must keep, over methods x spaces x dialects x adapter sets."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from problems import PROBLEMS, SHAPES, random_factors, save_peft, with_digest
from sabir.merging import ops, order, tiles
from sabir.merging.choices import make_recipe
from sabir.merging.methods import METHODS
from sabir.merging.recipe import Recipe, merge
from sabir.merging.spaces import SPACES

FULL = 99  # above every min(O, I): nothing is cut
NAMES = ("de", "fr", "ja")


@dataclass(frozen=True)
class Case:
    """A merge: what `make_recipe` takes."""

    method: str
    space: str = "delta"
    settings: Mapping[str, Any] = field(default_factory=dict)
    dialect: str = "sabir"

    def recipe(self, *, weights: Any = None, **settings: Any) -> Recipe:
        rank = None if SPACES.get(self.space).facts["keeps_rank"] else FULL
        return make_recipe(
            self.method,
            space=self.space,
            settings={**self.settings, **settings},
            weights=weights,
            rank=rank,
            dialect=self.dialect,
        )

    def __str__(self) -> str:
        said = [f"{key}={value}" for key, value in self.settings.items()]
        return "-".join(
            [self.method, self.space, *said, *([] if self.dialect == "sabir" else [self.dialect])]
        )


ENTRYWISE = (
    ("ties", {"density": 0.4}),
    ("ties", {"density": 0.4, "trim_over": "module"}),
    ("magnitude", {"density": 0.4}),
    ("dare", {"density": 0.5}),
    ("dare_ties", {"density": 0.5, "trim_density": 0.7}),
    ("della", {"density": 0.5}),
    ("della_linear", {"density": 0.5}),
    ("breadcrumbs", {"density": 0.6, "outliers": 0.1}),
    ("breadcrumbs_ties", {"density": 0.6, "outliers": 0.1}),
    ("sce", {"density": 0.5}),
)
SPECTRAL = ("tsv", "iso_c", "iso_cts")
OF_PROGRAMS = (
    *(
        Case(m, s, {"density": 0.5}, "paper")
        for m, s in (("ties", "delta"), ("ties", "knots"), ("dare_ties", "delta"), ("dare_ties", "knots"))
    ),
    *(
        Case(m, "delta", {"density": 0.5}, "mergekit")
        for m in ("ties", "dare", "dare_ties", "della", "breadcrumbs", "sce")
    ),
    *(Case(m, "delta", {"density": 0.5}, "peft") for m in ("ties", "dare_ties", "magnitude")),
    Case("linear", "factors", {}, "peft"),
    *(Case(m, "factors", {"density": 0.5}, "peft") for m in ("ties", "dare", "dare_ties", "magnitude")),
)
CASES = (
    Case("linear"),
    Case("linear", "compressed"),
    *(Case(m, s, x) for s in ("delta", "knots", "core", "compressed") for m, x in ENTRYWISE),
    *(Case(m, s) for s in ("core", "compressed") for m in SPECTRAL),
    *OF_PROGRAMS,
)


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    """Adapters of a problem, made once each."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = PROBLEMS[name](tmp_path_factory.mktemp("problem") / "adapters")
        return dict(made[name])

    return get


def fits(case: Case, name: str) -> bool:
    """Factors are merged apart only where all ranks are equal, and coordinates exist where sigmas differ."""
    if case.space == "factors":
        return name not in ("unequal ranks", "patterns")
    return case.space == "delta" or name != "orthogonal"


def deltas(recipe, adapters, **how):
    return {module: lowrank.delta() for module, lowrank in merge(recipe, adapters, **how)}


def bits(recipe, adapters, **how):
    merged = merge(recipe, adapters, **how)
    return {module: (x.b.numpy().tobytes(), x.a.numpy().tobytes()) for module, x in merged}


def size(delta) -> float:
    return float(torch.linalg.vector_norm(delta.double()))


def assert_close(got, expected, share=2e-6):
    assert got.keys() == expected.keys()
    largest = max(map(size, expected.values()))
    for module in expected:
        # what cancels exactly in one may leave a float64 rounding in the other
        allowed = share * size(expected[module]) + 1e-14 * largest
        assert size(got[module] - expected[module]) <= allowed, module


def three(folder, change=lambda b, a: (b, a), first=0):
    """The random problem, its factors changed and the digests by name: the draws stay as they are."""
    adapters = {}
    for i, name in enumerate(NAMES):
        factors = {module: change(b, a) for module, (b, a) in random_factors(first + i).items()}
        adapters[name] = with_digest(save_peft(folder / name, factors), name)
    return adapters


def test_every_method_and_every_space_stands_under_these_laws():
    assert {case.method for case in CASES} == set(METHODS.names())
    assert {case.space for case in CASES} == set(SPACES.names())


# -- adapters ------------------------------------------------------------------------------------------------

ALONE = [
    replace(case, settings=case.settings and {"density": 1.0})
    for case in CASES
    if case.method not in ("iso_c", "iso_cts") and case.settings.get("trim_over") is None
]


def cuts_small_directions(case: Case) -> bool:
    """The paper's KnOTS cuts singular values at an absolute 1e-5, so it does not scale: its trap, its dialect."""
    return case.dialect == "paper" and case.space == "knots"


@over(ALONE)
def test_one_adapter_of_weight_one_at_density_one_comes_back(case, problem):
    for name in ("random", "unequal ranks", "one zero", "tiny", "bf16", "rslora", "patterns", "real"):
        if name == "tiny" and cuts_small_directions(case):
            continue
        for language, adapter in problem(name).items() if fits(case, name) else ():
            expected = {module: adapter.read(module).delta() for module in adapter.modules}
            assert_close(deltas(case.recipe(weights={language: 1.0}), {language: adapter}), expected)


@pytest.mark.parametrize("space", ["core", "compressed"])
@pytest.mark.parametrize("method", ["iso_c", "iso_cts"])
def test_one_adapter_alone_is_flattened_along_its_own_directions(method, space, problem):
    for name in ("random", "unequal ranks", "rslora", "real"):
        for language, adapter in problem(name).items():
            got = deltas(Case(method, space).recipe(), {language: adapter})
            for module in adapter.modules:
                u, sigma, vt = torch.linalg.svd(adapter.read(module).delta().double(), full_matrices=False)
                real = adapter.ranks[module]
                flat = sigma[:real].mean() * u[:, :real] @ vt[:real]
                assert size(got[module] - flat) <= 1e-5 * size(flat)


@over(CASES)
def test_the_order_of_adapters_changes_no_bit(case, problem):
    for name in ("identical", "half-opposite", "unequal ranks", "different modules", "bf16"):
        if fits(case, name):
            adapters = problem(name)
            weights = dict(zip(adapters, (1.0, 2.0, 3.0), strict=False)) if case.dialect != "paper" else None
            recipe = case.recipe(weights=weights)
            assert bits(recipe, adapters) == bits(recipe, dict(reversed(adapters.items()))), name


@over([case for case in CASES if case.dialect != "paper"])
def test_weight_zero_is_absence(case, problem):
    adapters = problem("random" if case.space == "factors" else "unequal ranks")
    with_zero = case.recipe(weights={"de": 1.0, "fr": 0.0, "ja": 2.0})
    absent = case.recipe(weights={"de": 1.0, "ja": 2.0})
    assert bits(with_zero, adapters) == bits(absent, {name: adapters[name] for name in ("de", "ja")})


def test_equal_adapters_of_weights_one_and_minus_one_give_zero(tmp_path):
    adapters = {name: save_peft(tmp_path / name, random_factors(1)) for name in ("de", "fr")}
    merged = merge(make_recipe("linear", weights={"de": 1.0, "fr": -1.0}), adapters)
    for lowrank in dict(merged).values():
        assert float(lowrank.delta().abs().max()) < 1e-15
    assert merged.energy_kept == 1.0


@over([case for case in CASES if not (case.method == "sce" and case.dialect == "mergekit")])
@pytest.mark.parametrize("factor", [-4.0, 1e-6])
def test_a_scaled_input_gives_the_scaled_output(case, factor, tmp_path):
    # mergekit's sce weighs alike what has a mean square below 1e-6: that floor is not scaled, and not here
    if factor < 1 and factor > 0 and cuts_small_directions(case):
        factor = 1e-2
    plain, scaled = three(tmp_path / "1"), three(tmp_path / "c", lambda b, a: (factor * b, a))
    expected = {module: factor * delta for module, delta in deltas(case.recipe(), plain).items()}
    # rounded factors shift an entry by some 1e-7, and singular directions by that over their gaps
    assert_close(deltas(case.recipe(), scaled), expected, share=2e-5)


def turned(b, a):
    """A power of two and a permutation: the same deltas to the last bit."""
    return 4.0 * b.flip(1), a.flip(0) / 4.0


def mixed(b, a):
    """A well-conditioned change of the inner basis, to float32 rounding."""
    q = torch.linalg.qr(
        torch.randn(b.shape[1], b.shape[1], generator=torch.Generator().manual_seed(5)).double()
    )
    inner = q.Q * torch.linspace(0.5, 2.0, b.shape[1], dtype=torch.float64)
    return (b.double() @ inner).float(), torch.linalg.solve(inner, a.double()).float()


@over([case for case in CASES if case.space != "factors"])
@pytest.mark.parametrize(("change", "share"), [(turned, 2e-6), (mixed, 2e-5)])
def test_another_factorisation_of_the_same_deltas_changes_nothing(case, change, share, tmp_path):
    plain, other = three(tmp_path / "1"), three(tmp_path / "2", change)
    assert_close(deltas(case.recipe(), other), deltas(case.recipe(), plain), share)


def test_factors_merged_apart_do_depend_on_the_factorisation(tmp_path):
    recipe = Case("linear", "factors", {}, "peft").recipe()
    plain = deltas(recipe, three(tmp_path / "1"))
    other = deltas(recipe, three(tmp_path / "2", lambda b, a: (b.flip(1), a.flip(0))))
    assert_close(other, plain)  # all turned alike: no difference
    adapters = {
        **three(tmp_path / "3"),
        "ja": three(tmp_path / "4", lambda b, a: (b.flip(1), a.flip(0)))["ja"],
    }
    other = deltas(recipe, adapters)
    assert all(size(other[m] - plain[m]) > 0.1 * size(plain[m]) for m in SHAPES)


# -- how it is computed --------------------------------------------------------------------------------------


def whole_numbers(folder):
    """Factors of small whole numbers: every product is exact however it is tiled, and very many are equal."""
    generator = torch.Generator().manual_seed(3)
    adapters = {}
    for name in NAMES:
        factors = {
            module: tuple(
                torch.randint(-2, 3, shape, generator=generator).float()
                for shape in ((rows, 3), (3, columns))
            )
            for module, (rows, columns) in SHAPES.items()
        }
        adapters[name] = save_peft(folder / name, factors)
    return adapters


@over([case for case in CASES if case.space == "delta"])
def test_tiles_change_no_bit_of_what_is_exact(case, tmp_path, monkeypatch):
    adapters = whole_numbers(tmp_path)
    at_once = bits(case.recipe(), adapters)
    for values, rows in ((1, 1), (25, 1), (40, 5)):
        monkeypatch.setattr(tiles, "TILE_VALUES", values)
        monkeypatch.setattr(tiles, "LEAST_ROWS", rows)
        assert bits(case.recipe(), adapters) == at_once


@over(CASES)
def test_tiles_change_nothing(case, problem, monkeypatch):
    for name in ("half-opposite", "different modules"):
        adapters = problem(name)
        at_once = deltas(case.recipe(), adapters)
        with monkeypatch.context() as patch:
            patch.setattr(tiles, "TILE_VALUES", 25)
            patch.setattr(tiles, "LEAST_ROWS", 1)
            assert_close(deltas(case.recipe(), adapters), at_once)


@over(CASES)
def test_memory_changes_no_bit(case, problem, monkeypatch):
    adapters = problem("half-opposite")
    held = bits(case.recipe(), adapters)
    for room in (0, 3000):  # nothing is held; something is
        monkeypatch.setattr(tiles, "HELD_BYTES", room)
        assert bits(case.recipe(), adapters) == held


TRIMS = [
    case
    for case in CASES
    if case.method in ("ties", "magnitude", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "sce")
]


@over(TRIMS)
def test_what_a_sample_says_of_thresholds_changes_no_bit(case, problem, monkeypatch):
    for name in ("bf16", "unequal ranks" if case.space == "delta" else "random"):
        adapters = problem(name)
        sorted_out = bits(case.recipe(), adapters)
        with monkeypatch.context() as patch:
            patch.setattr(order, "TAKE_ALL", 10)
            patch.setattr(order, "SAMPLE", 40)
            assert bits(case.recipe(), adapters) == sorted_out
            for misled in (0.0, 1e-3, 1e9):
                patch.setattr(tiles.Tiles, "sampled", lambda *_, m=misled: np.full(20, m, np.float32))
                assert bits(case.recipe(), adapters) == sorted_out


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Large enough for linear algebra on two threads."""
    shapes = {f"layers.{layer}.q_proj": (96, 80) for layer in range(3)} | {"layers.3.q_proj": (192, 160)}
    folder = tmp_path_factory.mktemp("larger")
    return {n: save_peft(folder / n, random_factors(i, rank=8, shapes=shapes)) for i, n in enumerate(NAMES)}


@over(CASES)
def test_the_number_of_threads_changes_no_bit(case, larger):
    one = bits(case.recipe(), larger, threads=1)
    assert bits(case.recipe(), larger, threads=3) == one
    torch.set_num_threads(2)
    try:
        assert bits(case.recipe(), larger) == one
        assert torch.get_num_threads() == 2  # as it was left
    finally:
        torch.set_num_threads(1)


SEEDED = """
import sys
from pathlib import Path
from sabir.lora.files import open_adapter
from sabir.merging.choices import make_recipe
from sabir.merging.recipe import merge
import hashlib
adapters = {folder.name: open_adapter(folder) for folder in sorted(Path(sys.argv[1]).iterdir())}
content = hashlib.sha256()
for name, space in %r:
    for module, x in merge(make_recipe(name, space=space, rank=8 if space == "delta" else None), adapters):
        content.update(module.encode() + x.b.numpy().tobytes() + x.a.numpy().tobytes())
print(content.hexdigest())
"""
HASHED = [("dare_ties", "delta"), ("ties", "knots"), ("sce", "delta"), ("della", "core"), ("iso_cts", "core")]


def test_the_seed_of_hashes_changes_no_bit(tmp_path):
    adapters = PROBLEMS["different modules"](tmp_path)
    content = hashlib.sha256()
    for name, space in HASHED:
        recipe = make_recipe(name, space=space, rank=8 if space == "delta" else None)
        for module, x in merge(recipe, adapters):
            content.update(module.encode() + x.b.numpy().tobytes() + x.a.numpy().tobytes())
    other = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    command = [sys.executable, "-c", SEEDED % HASHED, str(tmp_path)]
    said = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": other}, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == content.hexdigest()


# -- chance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["delta", "knots", "core", "compressed"])
@pytest.mark.parametrize("method", ["dare", "della_linear"])
def test_the_mean_over_seeds_of_a_draw_is_its_input(method, space, problem):
    adapters, seeds = problem("random"), 100
    exact = deltas(Case("linear", "compressed" if space == "compressed" else "delta").recipe(), adapters)
    norm = sum(size(delta) ** 2 for delta in exact.values())
    along, apart = [], []
    mean = {module: torch.zeros_like(delta, dtype=torch.float64) for module, delta in exact.items()}
    for seed in range(seeds):
        drawn = deltas(Case(method, space, {"density": 0.5}).recipe(seed=seed), adapters, threads=1)
        along.append(sum(float((drawn[m].double() * exact[m].double()).sum()) for m in exact) / norm)
        apart.append(sum(size(drawn[m] - exact[m]) ** 2 for m in exact))
        for module, delta in drawn.items():
            mean[module] += delta.double() / seeds
    # how far the sum of many draws is from what it stands for, beside how far one draw is
    spread = torch.tensor(along).std().item() / seeds**0.5
    assert abs(sum(along) / seeds - 1) < 4 * spread
    assert spread < 0.03  # a bias of some 10 % would be seen
    error = sum(size(mean[m] - exact[m]) ** 2 for m in exact)
    # a mean of n errs n times less, and the seeds do differ; `compressed` has 9 entries a module, so no closer
    assert 0.25 < error / (sum(apart) / seeds / seeds) < 4


@pytest.mark.parametrize("method", ["linear", "magnitude", "dare", "della_linear", "breadcrumbs"])
def test_what_is_summed_does_not_depend_on_who_else_is_in_the_sum(method, problem):
    adapters = problem("random")
    case = Case(method, "delta", {} if method == "linear" else {"density": 0.5})
    parts = [{"de": adapters["de"]}, {name: adapters[name] for name in ("fr", "ja")}]
    one, two = (deltas(case.recipe(weights=1.0), part) for part in parts)
    together = deltas(case.recipe(weights=1.0), adapters)
    assert_close(together, {module: one[module] + two[module] for module in together})


@pytest.mark.parametrize("method", ["dare", "dare_ties", "della", "della_linear"])
@pytest.mark.parametrize("space", ["delta", "knots", "core"])
def test_a_new_german_leaves_the_draws_of_the_others_as_they_were(
    method, space, problem, tmp_path, monkeypatch
):
    drawn = {}
    draw = ops.coins

    def spy(*, digest, module, start, **rest):
        coins = draw(digest=digest, module=module, start=start, **rest)
        drawn[digest, module, start] = coins.tobytes()
        return coins

    monkeypatch.setattr(ops, "coins", spy)
    adapters = problem("random")
    recipe = Case(method, space, {"density": 0.5}).recipe()
    old = adapters["de"].digest
    bits(recipe, adapters)
    before = {place: coins for place, coins in drawn.items() if place[0] != old}
    assert len(before) < len(drawn)
    drawn.clear()
    retrained = save_peft(tmp_path / "new", random_factors(77))
    bits(recipe, {**adapters, "de": retrained})
    assert before == {place: coins for place, coins in drawn.items() if place[0] != retrained.digest}
    drawn.clear()
    bits(recipe, {name: adapters[name] for name in ("fr", "ja")})
    assert before.keys() == drawn.keys()
    for place, coins in drawn.items():  # a space of fewer adapters may have fewer positions
        assert before[place].startswith(coins)


# -- modules, and changes ------------------------------------------------------------------------------------

# Without a fact about the whole adapter; none of the random deltas leaves a sign to the majority of all.
BY_ITSELF = [
    case
    for case in CASES
    if case.dialect in ("mergekit", "peft")
    or case.settings.get("trim_over") == "module"
    or (case.dialect == "sabir" and case.method not in ("ties", "magnitude", "dare_ties"))
]


@over(BY_ITSELF)
def test_module_by_module_is_all_at_once(case, tmp_path):
    together = bits(case.recipe(), three(tmp_path / "all"))
    for module in SHAPES:
        alone = {
            name: with_digest(save_peft(tmp_path / module / name, {module: random_factors(i)[module]}), name)
            for i, name in enumerate(NAMES)
        }
        assert bits(case.recipe(), alone) == {module: together[module]}


def test_a_share_of_the_whole_adapter_is_none_of_each_module(problem):
    over_adapter = deltas(Case("ties", "delta", {"density": 0.4}).recipe(), problem("real"))
    of_module = deltas(
        Case("ties", "delta", {"density": 0.4, "trim_over": "module"}).recipe(), problem("real")
    )
    assert any(not torch.equal(over_adapter[module], of_module[module]) for module in of_module)


@over(CASES)
def test_merging_again_after_one_change_is_merging_from_cold(case, problem, tmp_path):
    adapters = problem("random")
    before = bits(case.recipe(), adapters)
    changed = {**adapters, "de": save_peft(tmp_path / "new", random_factors(99))}
    after = bits(case.recipe(), changed)
    cold = {name: save_peft(tmp_path / name, random_factors(seed)) for name, seed in (("fr", 1), ("ja", 2))}
    cold["de"] = save_peft(tmp_path / "cold", random_factors(99))
    assert after == bits(case.recipe(), cold)
    assert all(after[module] != before[module] for module in SHAPES)
    assert bits(case.recipe(), adapters) == before


@over(CASES)
def test_one_merge_walked_twice_gives_the_same_bits(case, problem):
    merged = merge(case.recipe(), problem("half-opposite"))
    twice = [
        [(module, x.b.numpy().tobytes(), x.a.numpy().tobytes()) for module, x in merged] for _ in range(2)
    ]
    assert twice[0] == twice[1]
