"""The loop of a merge: what is known beforehand, what is told after, and what happens when it breaks off."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from problems import PROBLEMS, SHAPES, random_factors, save_peft
from sabir.errors import InputError
from sabir.lora.lowrank import LowRank
from sabir.merging.choices import make_recipe
from sabir.merging.methods import METHODS
from sabir.merging.recipe import merge

FULL = 99
EVERYWHERE = [
    (method, space)
    for method in METHODS.names()
    for space in ("delta", "knots", "core", "compressed")
    if not (method == "linear" and space in ("knots", "core"))
    and not (METHODS.get(method).facts.get("matrix") and space in ("delta", "knots"))
]
everywhere = pytest.mark.parametrize(("method", "space"), EVERYWHERE)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = PROBLEMS[name](tmp_path_factory.mktemp("problem") / "adapters")
        return made[name]

    return get


def size(x) -> float:
    return float(torch.linalg.vector_norm(x.double()))


# -- ranks ---------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("rank", [None, 1, 2, 5, FULL, "serve"])
def test_the_rank_is_known_before_anything_is_read(method, space, rank, problem):
    for name in ("random", "different modules"):
        adapters = problem(name)
        merged = merge(make_recipe(method, space=space, rank=rank), adapters)
        known = merged.rank
        shapes = merged.shapes
        ranks = {module: x.rank for module, x in merged}
        assert max(ranks.values()) == known
        for module, of_module in ranks.items():
            brought = [a.ranks.get(module, 0) for a in adapters.values()]
            if isinstance(rank, int):
                full = space == "delta" and method != "linear"
                assert of_module == min(rank, *shapes[module], *([] if full else [sum(brought)]))
            elif space == "compressed":
                assert of_module == min(max(brought), *shapes[module])
            else:
                assert min(sum(brought), *shapes[module]) <= of_module <= sum(brought)


@pytest.mark.parametrize("name", ["identical", "one zero", "opposite"])
@pytest.mark.parametrize("space", ["knots", "core", "compressed"])
def test_where_directions_are_missing_the_rank_is_a_bound(name, space, problem):
    merged = merge(make_recipe("ties", space=space), problem(name))
    assert all(x.rank <= merged.rank for _, x in merged)


@pytest.mark.parametrize(
    ("method", "space"), [("linear", "delta"), ("ties", "knots"), ("ties", "core"), ("iso_c", "core")]
)
def test_adapters_of_more_rank_than_a_module_has_sides_give_no_more_than_it_has(method, space, tmp_path):
    shapes = {"layers.0.k_proj": (6, 5), "layers.1.k_proj": (5, 7)}
    adapters = {n: save_peft(tmp_path / n, random_factors(i, shapes=shapes)) for i, n in enumerate("abc")}
    merged = merge(make_recipe(method, space=space), adapters)
    results = dict(merged)
    assert merged.rank == 5
    assert max(x.rank for x in results.values()) == 5
    cut_to_all = dict(merge(make_recipe(method, space=space, rank=FULL), adapters))
    for module, lowrank in results.items():
        expected = cut_to_all[module].delta()
        assert size(lowrank.delta() - expected) < 2e-6 * size(expected)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Three adapters of rank 256: together more than any server takes."""
    folder, shapes = tmp_path_factory.mktemp("wide"), {"layers.0.q_proj": (640, 620)}
    return {n: save_peft(folder / n, random_factors(i, rank=256, shapes=shapes)) for i, n in enumerate("abc")}


def test_to_serve_is_at_most_what_servers_take(wide):
    merged = merge(make_recipe("linear", rank="serve", weights={"a": 1.0, "b": 1.0, "c": 0.1}), wide)
    assert (merged.rank, merged.uncut_rank) == (512, 620)
    ((module, lowrank),) = merged
    assert lowrank.rank == 512
    exact = sum(w * wide[n].read(module).delta().double() for n, w in (("a", 1.0), ("b", 1.0), ("c", 0.1)))
    sigma = torch.linalg.svdvals(exact).square()
    kept = float(sigma[:512].sum() / sigma.sum())
    assert merged.energy_kept == pytest.approx(kept, rel=1e-6)
    assert 0.9 < kept < 1
    basis = torch.linalg.qr(lowrank.b.double()).Q
    for name, share in merged.energy_kept_by_adapter.items():
        own = wide[name].read(module).delta().double()
        assert share == pytest.approx((size(basis.T @ own) / size(own)) ** 2, rel=1e-6)
    # what hardly weighs is what is cut
    shares = merged.energy_kept_by_adapter
    assert shares["c"] < min(shares["a"], shares["b"]) <= 1.0


@pytest.mark.parametrize("space", ["knots", "core"])
def test_to_serve_cuts_an_election_too(space, wide):
    merged = merge(make_recipe("ties", space=space, rank="serve"), wide)
    ((_, lowrank),) = merged
    assert lowrank.rank == merged.rank == 512
    assert 0.5 < merged.energy_kept < 1
    assert all(0.5 < share < 1 for share in merged.energy_kept_by_adapter.values())


@pytest.mark.parametrize("space", ["delta", "knots", "core", "compressed"])
def test_to_serve_cuts_nothing_that_is_small_enough(space, problem):
    recipe, serve = (make_recipe("ties", space=space, rank=rank) for rank in (None, "serve"))
    merged = merge(serve, problem("random"))
    for (module, one), (other, two) in zip(merge(recipe, problem("random")), merged, strict=True):
        assert module == other
        assert size(one.delta() - two.delta()) < 2e-6 * size(one.delta())
    if space in ("knots", "core"):
        assert merged.energy_kept == pytest.approx(1.0)


# -- the whole delta, for folding ----------------------------------------------------------------------------


@everywhere
def test_the_dense_delta_is_that_of_the_factors_at_full_rank(method, space, problem):
    for name in ("half-opposite", "different modules"):
        adapters = problem(name)
        rank = None if space in ("core", "knots", "compressed") else FULL
        factored = merge(make_recipe(method, space=space, rank=rank), adapters)
        expected = {module: x.delta() for module, x in factored}
        folded = merge(make_recipe(method, space=space, rank="fold"), adapters)
        got = dict(folded.dense())
        assert list(got) == list(expected) == list(folded.shapes)
        for module, delta in got.items():
            assert delta.dtype == torch.float32
            assert delta.shape == folded.shapes[module]
            assert size(delta - expected[module]) <= 2e-6 * size(expected[module])
        assert folded.energy_kept == 1.0
        whole = dict.fromkeys(sorted(adapters), 1.0)  # but what was compressed away before is not folded
        kept = factored.energy_kept_by_adapter if space == "compressed" else whole
        assert folded.energy_kept_by_adapter == pytest.approx(kept)


def test_dense_deltas_tell_progress_too(problem):
    told = []
    recipe = make_recipe("ties", rank="fold")
    merged = merge(recipe, problem("random"), on_module=lambda done, total: told.append((done, total)))
    dict(merged.dense())
    assert told == [(1, 3), (2, 3), (3, 3)]


# -- modules and adapters that are not there -----------------------------------------------------------------


def test_modules_come_sorted_and_are_those_of_any_adapter(problem):
    adapters = problem("different modules")
    merged = merge(make_recipe("ties", rank=4), adapters)
    everyone = sorted({module for adapter in adapters.values() for module in adapter.modules})
    assert [module for module, _ in merged] == everyone == list(merged.shapes)


def test_an_adapter_without_a_module_counts_as_zero_in_a_mean(problem):
    adapters = problem("different modules")
    for module, lowrank in merge(make_recipe("linear"), adapters):
        expected = sum(a.read(module).delta().double() for a in adapters.values() if module in a.shapes) / 3
        assert size(lowrank.delta() - expected) < 1e-6 * size(expected)


@pytest.mark.parametrize("method", ["linear", "ties", "sce"])
def test_modules_of_none_but_an_adapter_of_weight_zero_are_zero(method, problem):
    adapters = problem("different modules")
    weights = {"de": 1.0, "fr": 1.0, "ja": 0.0}
    with_zero = dict(merge(make_recipe(method, rank=4, weights=weights), adapters))
    two = {name: adapters[name] for name in ("de", "fr")}
    absent = dict(merge(make_recipe(method, rank=4, weights={"de": 1.0, "fr": 1.0}), two))
    assert set(absent) < set(with_zero)
    for module, lowrank in with_zero.items():
        expected = absent[module].delta() if module in absent else torch.zeros(lowrank.shape)
        assert torch.equal(lowrank.delta(), expected)


def test_layers_are_counted_over_the_adapters_that_take_part(tmp_path):
    shapes = {f"layers.{i}.q_proj": (6, 5) for i in range(4)}
    two, four = list(shapes)[:2], list(shapes)
    adapters = {
        name: save_peft(tmp_path / name, random_factors(i, shapes={m: shapes[m] for m in modules}))
        for i, (name, modules) in enumerate((("a", two), ("b", two), ("deep", four)))
    }
    gradient = {"scale": {"depth": [1.0, 2.0]}}
    with_zero = make_recipe("linear", settings=gradient, weights={"a": 1.0, "b": 1.0, "deep": 0.0})
    absent = make_recipe("linear", settings=gradient, weights={"a": 1.0, "b": 1.0})
    pair = dict(merge(absent, {name: adapters[name] for name in "ab"}))
    for module, lowrank in merge(with_zero, adapters):
        if module in pair:
            assert torch.equal(lowrank.delta(), pair[module].delta())


# -- energies ------------------------------------------------------------------------------------------------


def diagonal(folder, *sigmas):
    """An adapter of one module whose delta is diagonal."""
    rows, n = 6, len(sigmas)
    b, a = torch.zeros(rows, n), torch.zeros(n, rows)
    for i, sigma in enumerate(sigmas):
        b[i, i], a[i, i] = sigma, 1.0
    return save_peft(folder, {"layers.0.q_proj": (b, a)})


def test_energy_by_hand(tmp_path):
    adapters = {"a": diagonal(tmp_path / "a", 3.0, 0.0, 0.0), "b": diagonal(tmp_path / "b", 0.0, 2.0, 1.0)}
    merged = merge(make_recipe("linear", rank=1, weights={"a": 1.0, "b": 1.0}), adapters)
    assert merged.energy_kept is merged.energy_kept_by_adapter is None
    dict(merged)
    assert merged.energy_kept == pytest.approx(9 / 14)
    assert merged.energy_kept_by_adapter == pytest.approx({"a": 1.0, "b": 0.0})
    merged = merge(make_recipe("linear", rank=2, weights={"a": 1.0, "b": 1.0}), adapters)
    dict(merged)
    assert merged.energy_kept == pytest.approx(13 / 14)
    assert merged.energy_kept_by_adapter == pytest.approx({"a": 1.0, "b": 0.8})
    # a smaller weight, and it is the other one that is cut; its own energy is measured unweighted
    merged = merge(make_recipe("linear", rank=1, weights={"a": 0.5, "b": 1.0}), adapters)
    dict(merged)
    assert merged.energy_kept == pytest.approx(4 / 7.25)
    assert merged.energy_kept_by_adapter == pytest.approx({"a": 0.0, "b": 0.8})


def test_energies_of_modules_add_up(tmp_path):
    def one(name, first, second):
        factors = {
            f"layers.{i}.q_proj": (torch.eye(4)[:, :2] * torch.tensor(row), torch.eye(4)[:2])
            for i, row in enumerate((first, second))
        }
        return save_peft(tmp_path / name, factors)

    adapters = {"a": one("a", [2.0, 0.0], [0.0, 1.0]), "b": one("b", [0.0, 1.0], [5.0, 0.0])}
    merged = merge(make_recipe("linear", rank=1, weights=1.0), adapters)
    dict(merged)
    assert merged.energy_kept == pytest.approx((4 + 25) / (4 + 1 + 1 + 25))
    assert merged.energy_kept_by_adapter == pytest.approx({"a": 4 / 5, "b": 25 / 26})


def test_what_compression_lost_of_each_adapter_is_told(problem):
    merged = merge(make_recipe("linear", space="compressed", rank=2), problem("random"))
    dict(merged)
    assert all(0 < share < 0.95 for share in merged.energy_kept_by_adapter.values())


def test_an_adapter_of_weight_zero_has_no_energy_to_tell(problem):
    weights = {"de": 1.0, "fr": 0.0, "ja": 1.0}
    merged = merge(make_recipe("ties", rank=2, weights=weights), problem("random"))
    dict(merged)
    assert list(merged.energy_kept_by_adapter) == ["de", "ja"]


# -- breaking off --------------------------------------------------------------------------------------------


def damaged(folder, module):
    """An adapter with one NaN, in one module."""
    factors = random_factors(5)
    factors[module][0][1, 1] = float("nan")
    return save_peft(folder, factors)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("module", list(SHAPES))
@pytest.mark.parametrize(
    ("method", "space"), [("linear", "delta"), ("ties", "delta"), ("ties", "knots"), ("sce", "core")]
)
def test_a_value_that_is_no_number_ends_the_merge_and_every_thread(method, space, module, threads, tmp_path):
    adapters = {"de": save_peft(tmp_path / "de", random_factors(1)), "fr": damaged(tmp_path / "fr", module)}
    before, torch_threads = threading.active_count(), torch.get_num_threads()
    settings = {} if method == "linear" else {"density": 0.5}
    recipe = make_recipe(method, space=space, rank=3, settings=settings)
    told = []
    merged = merge(recipe, adapters, threads=threads, on_module=lambda done, total: told.append(done))
    with pytest.raises(InputError) as caught:
        dict(merged)
    assert str(tmp_path / "fr") in str(caught.value)
    assert f"module {module!r} holds NaN or infinite values." in str(caught.value)
    assert threading.active_count() == before
    assert torch.get_num_threads() == torch_threads
    assert len(told) <= sorted(SHAPES).index(module)
    assert merged.energy_kept is None
    with pytest.raises(InputError):
        dict(merge(make_recipe(method, space=space, rank="fold", settings=settings), adapters).dense())
    assert threading.active_count() == before


def test_a_merge_that_is_left_in_the_middle_leaves_no_thread_and_can_be_begun_again(problem):
    before = threading.active_count()
    merged = merge(make_recipe("ties", rank=3, settings={"density": 0.5}), problem("random"), threads=3)
    started = iter(merged)
    next(started)
    started.close()
    assert threading.active_count() == before
    assert merged.energy_kept is None
    whole = dict(merged)
    again = dict(merge(make_recipe("ties", rank=3, settings={"density": 0.5}), problem("random")))
    assert all(torch.equal(whole[m].b, again[m].b) and torch.equal(whole[m].a, again[m].a) for m in again)


def test_two_merges_at_once_leave_torch_as_it_was(problem):
    torch.set_num_threads(2)
    try:
        one, two = (iter(merge(make_recipe("ties", rank=3), problem("random"))) for _ in range(2))
        next(one), next(two)
        list(one), list(two)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_modules_are_merged_only_a_little_ahead(tmp_path, monkeypatch):
    shapes = {f"layers.{i}.q_proj": (6, 5) for i in range(20)}
    adapters = {n: save_peft(tmp_path / n, random_factors(i, shapes=shapes)) for i, n in enumerate("ab")}
    read = []
    whole = type(adapters["a"]).read
    monkeypatch.setattr(type(adapters["a"]), "read", lambda self, m: read.append(m) or whole(self, m))
    merged = iter(merge(make_recipe("linear"), adapters, threads=2))
    next(merged)
    time.sleep(0.2)  # time enough to read them all
    merged.close()
    assert len(set(read)) <= 4


def test_a_pattern_that_leaves_a_module_out_is_told_before_anything_is_read(problem, monkeypatch):
    adapters = problem("random")
    monkeypatch.setattr(type(adapters["de"]), "read", lambda *_: pytest.fail("read"))
    recipe = make_recipe("ties", rank=3, settings={"scale": {"q_proj": 0.5}})
    with pytest.raises(InputError, match=r"no pattern matches module 'model.layers.0.mlp.up_proj'"):
        merge(recipe, adapters)


def test_results_are_float32_and_finite(problem):
    for name in ("tiny", "one zero", "identical"):
        for _, lowrank in merge(make_recipe("dare_ties", space="knots"), problem(name)):
            assert isinstance(lowrank, LowRank)
            assert lowrank.b.dtype == lowrank.a.dtype == torch.float32
            assert np.isfinite(lowrank.delta().numpy()).all()


def test_a_scale_that_training_wrote_down_counts_once(tmp_path):
    factors = random_factors(3)
    adapter = save_peft(tmp_path / "a", factors, lora_alpha=12)
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == 3
    for space in ("delta", "knots", "core", "compressed"):
        recipe = make_recipe("ties", space=space, rank=FULL)
        for module, lowrank in merge(recipe, {"a": adapter}):
            b, a = factors[module]
            expected = 4.0 * b.double() @ a.double()
            assert size(lowrank.delta() - expected) < 2e-6 * size(expected)


def test_a_merge_left_early_stops_whoever_still_walks_and_can_be_done_again(problem):
    adapters = problem("random")
    merged = merge(make_recipe("ties", space="knots"), adapters, threads=2)
    whole = {module: x.delta() for module, x in merged}
    walked = iter(merged)
    next(walked)
    walked.close()
    with pytest.raises(CancelledError):
        next(merged._tiles.tiles(merged._tiles.units[0], range(3)))
    assert all(torch.equal(x.delta(), whole[module]) for module, x in merged)
