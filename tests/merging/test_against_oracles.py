"""Every method in every space equals its definition on dense float64 matrices."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from oracles.merging import DEFAULTS, SPECTRAL, dense_delta, merge_dense
from problems import PROBLEMS, random_factors, save_peft
from sabir.merging.choices import make_recipe
from sabir.merging.recipe import merge

FULL = 99  # above every min(O, I): nothing is cut
SPACES = ("delta", "knots", "core", "compressed")
CHOICES = [
    ("linear", {"scale": 1.5}),
    ("ties", {}),
    ("ties", {"density": 0.3, "scale": 0.5}),
    ("ties", {"density": 0.3, "trim_over": "module"}),
    ("magnitude", {"density": 0.4, "scale": 1.5}),
    ("magnitude", {"density": 0.4, "trim_over": "module"}),
    ("dare", {"density": 0.5, "seed": 3}),
    ("dare_ties", {"density": 0.6, "seed": 4, "scale": 2.0}),
    ("dare_ties", {"density": 0.6, "trim_density": 0.4, "seed": 4}),
    ("della", {"density": 0.5, "epsilon": 0.3, "seed": 5}),
    ("della", {"density": 1.0}),
    ("della_linear", {"density": 0.4, "scale": 0.7}),
    ("breadcrumbs", {"density": 0.6, "outliers": 0.1}),
    ("breadcrumbs", {"density": 0.97, "outliers": 0.05}),
    ("breadcrumbs", {"density": 0.5, "outliers": 0.05, "trim_over": "adapter"}),
    ("breadcrumbs_ties", {"density": 0.6, "outliers": 0.05, "scale": 0.5}),
    ("sce", {"density": 0.3, "scale": 2.0}),
    ("sce", {"density": 1.0}),
    ("tsv", {"scale": 1.5}),
    ("iso_c", {"scale": 1.5}),
    ("iso_cts", {}),
    ("iso_cts", {"common": 0.5, "scale": 0.5}),
]
WITH_DEFAULTS = [(method, {}) for method in DEFAULTS if (method, {}) not in CHOICES]
SUMMING = ("linear", "dare", "magnitude", "della_linear", "breadcrumbs")  # their weights default to 1/n


def spaces(method: str) -> tuple[str, ...]:
    if method == "linear":
        return ("delta", "compressed")  # the other two are lossless, and refused as the same
    return ("core",) if method in SPECTRAL else SPACES


@pytest.fixture(scope="session")
def problem_sets(tmp_path_factory):
    """Adapters of a problem and their dense deltas, made once each."""
    made = {}

    def get(problem: str):
        if problem not in made:
            adapters = PROBLEMS[problem](tmp_path_factory.mktemp("problem") / "adapters")
            made[problem] = adapters, {name: dense_delta(a.path) for name, a in adapters.items()}
        return made[problem]

    return get


def largest_ranks(adapters, weights=None) -> dict[str, int]:
    """The largest rank a module has in an adapter of weight other than 0."""
    ranks: dict[str, int] = {}
    for name, adapter in adapters.items():
        for module, rank in adapter.ranks.items() if weights is None or weights[name] != 0 else ():
            ranks[module] = max(rank, ranks.get(module, 0))
    return ranks


def relative_error(got: torch.Tensor, expected: np.ndarray) -> float:
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(got.double().numpy() - expected) / size) if size else float(got.abs().max())


def check(method, space, settings, given, adapters, dense, *, rank=None, share=1e-6):
    """Merge, and compare with the oracle; `given` weights or None for the defaults."""
    default = 1 / len(adapters) if method in SUMMING else 1.0
    expected = merge_dense(
        dense,
        method,
        space,
        weights=given or dict.fromkeys(adapters, default),
        digests={name: adapter.digest for name, adapter in adapters.items()},
        rank=dict.fromkeys(largest_ranks(adapters), rank) if rank else largest_ranks(adapters, given),
        settings=settings,
    )
    asked = FULL if space == "delta" else rank
    merged = merge(make_recipe(method, space=space, settings=settings, weights=given, rank=asked), adapters)
    results = dict(merged)
    assert list(results) == sorted(expected)
    inputs = max(np.linalg.norm(delta) for deltas in dense.values() for delta in deltas.values())
    for module, lowrank in results.items():
        # float32 output: 1e-6 of the result, or a float64 rounding of what cancelled
        error = np.linalg.norm(lowrank.delta().double().numpy() - expected[module])
        allowed = max(share * np.linalg.norm(expected[module]), 1e-14 * inputs)
        assert error <= allowed, (module, error, allowed)
    assert merged.energy_kept == pytest.approx(1.0)
    return expected


@pytest.mark.parametrize(
    ("problem", "method", "settings", "space"),
    [
        (problem, method, settings, space)
        for problem in PROBLEMS
        for method, settings in CHOICES
        for space in spaces(method)
        if space == "delta" or problem != "orthogonal"  # equal singular values: coordinates are not defined
    ],
)
def test_merge_equals_its_dense_definition(problem, method, settings, space, problem_sets):
    check(method, space, settings, None, *problem_sets(problem))


@pytest.mark.parametrize(
    ("method", "settings", "space"),
    [(method, settings, space) for method, settings in WITH_DEFAULTS for space in spaces(method)],
)
def test_settings_not_given_are_those_of_the_table(method, settings, space, problem_sets):
    check(method, space, settings, None, *problem_sets("real"))


@pytest.mark.parametrize("problem", ["half-opposite", "unequal ranks", "different modules", "real"])
@pytest.mark.parametrize(
    ("method", "settings", "space", "values"),
    [
        (method, settings, space, values)
        for method, settings in CHOICES
        for space in spaces(method)
        for values in ((0.5, 1.5, 2.0), (1.0, -0.5, 0.75), (1.0, 2.0, 0.0))
        if method != "sce" or min(values) >= 0  # it finds its own weights; a negative factor has no meaning
    ],
)
def test_weights_count_as_they_are_defined(problem, method, settings, space, values, problem_sets):
    adapters, dense = problem_sets(problem)
    check(method, space, settings, dict(zip(adapters, values, strict=False)), adapters, dense)


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "sce"])
def test_compression_to_a_rank_is_its_dense_definition(method, rank, problem_sets):
    settings = {} if method == "linear" else {"density": 0.5}
    adapters, dense = problem_sets("random")
    check(method, "compressed", settings, None, adapters, dense, rank=rank)


DEEP = {
    f"model.layers.{layer}.{module}": shape
    for layer in (0, 1, 3)
    for module, shape in (("self_attn.q_proj", (8, 9)), ("mlp.up_proj", (10, 7)))
}
BY_MODULE = [
    ("linear", "delta", {"scale": {"depth": [0.5, 1.0, 2.0]}}),
    ("dare", "delta", {"density": {"depth": [0.3, 0.9]}, "seed": 1}),
    ("dare_ties", "knots", {"density": {"*.mlp.*": 0.4, "*": 0.7}, "scale": {"depth": [1.0, 2.0]}}),
    ("ties", "knots", {"density": {"depth": [0.2, 0.8]}, "trim_over": "module"}),
    ("ties", "delta", {"density": {"q_proj": 0.3, "*": 1.0}, "trim_over": "module"}),
    (
        "magnitude",
        "core",
        {"density": {"layers.0.*": 0.3, "*": {"depth": [0.3, 0.6]}}, "trim_over": "module"},
    ),
    ("della", "core", {"density": {"depth": [0.4, 0.5]}, "epsilon": {"q_proj": 0.1, "*": 0.3}}),
    ("breadcrumbs", "compressed", {"density": {"depth": [0.9, 0.5]}, "outliers": {"q_proj": 0.0, "*": 0.2}}),
    ("sce", "delta", {"density": {"self_attn.q_proj": 0.2, "*up_proj": 0.5}}),
    ("tsv", "core", {"scale": {"*layers.3*": 0.5, "*": 1.0}}),
    ("iso_cts", "core", {"common": {"depth": [0.4, 0.9]}}),
]
WEIGHTS_BY_MODULE = [
    None,
    {"de": {"depth": [0.2, 1.0]}, "fr": 1.0, "ja": {"q_proj": 0.5, "*": {"depth": [1.0, 0.5, 2.0]}}},
    {"de": 1.0, "fr": {"q_proj": 0.0, "*": 1.0}, "ja": {"depth": [0.0, 1.0]}},  # absent in some modules
]


@pytest.mark.parametrize("weights", WEIGHTS_BY_MODULE, ids=["default", "by module", "zero in some"])
@pytest.mark.parametrize(("method", "space", "settings"), BY_MODULE)
def test_values_by_module_are_taken_where_they_hold(method, space, settings, weights, tmp_path):
    adapters = {
        name: save_peft(tmp_path / name, random_factors(100 + i, shapes=DEEP))
        for i, name in enumerate(("de", "fr", "ja"))
    }
    dense = {name: dense_delta(adapter.path) for name, adapter in adapters.items()}
    expected = check(method, space, settings, weights, adapters, dense)
    plain = {
        key: value if not isinstance(value, dict) else {"density": 0.5}.get(key, 0.2)
        for key, value in settings.items()
    }
    default = 1 / 3 if method in SUMMING else 1.0
    same = merge_dense(
        dense,
        method,
        space,
        weights=dict.fromkeys(adapters, default),
        digests={name: adapter.digest for name, adapter in adapters.items()},
        rank=largest_ranks(adapters),
        settings=plain,
    )
    assert any(not np.allclose(same[m], expected[m]) for m in expected)  # the values by module did count


@pytest.mark.parametrize("method", ["ties", "dare_ties", "magnitude", "sce"])
@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("space", ["delta", "knots", "core"])
def test_a_cut_merge_is_the_best_of_its_rank_and_says_what_energy_it_kept(method, rank, space, problem_sets):
    adapters, _ = problem_sets("random")
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


@pytest.mark.parametrize("problem", ["random", "different modules"])
def test_energy_kept_by_adapter_is_its_share_in_the_outputs_the_result_can_write_to(problem, problem_sets):
    adapters, dense = problem_sets(problem)
    merged = merge(make_recipe("ties", rank=2), adapters)
    results = dict(merged)
    for name in adapters:
        kept = total = 0.0
        for module, delta in dense[name].items():
            q = np.linalg.qr(results[module].b.double().numpy())[0]
            kept, total = kept + np.linalg.norm(q.T @ delta) ** 2, total + np.linalg.norm(delta) ** 2
        assert merged.energy_kept_by_adapter[name] == pytest.approx(kept / total, rel=1e-6)
        assert 0 < merged.energy_kept_by_adapter[name] < 1


FOLDED = [
    ("linear", "delta"),
    ("ties", "delta"),
    ("dare_ties", "knots"),
    ("tsv", "core"),
    ("sce", "compressed"),
]


@pytest.mark.parametrize(("method", "space"), FOLDED)
def test_what_is_folded_is_the_whole_merge(method, space, problem_sets):
    adapters, dense = problem_sets("different modules")
    weights = dict.fromkeys(adapters, 0.5)
    expected = merge_dense(
        dense,
        method,
        space,
        weights=weights,
        digests={name: adapter.digest for name, adapter in adapters.items()},
        rank=largest_ranks(adapters),
    )
    folded = dict(merge(make_recipe(method, space=space, rank="fold", weights=weights), adapters).dense())
    assert sorted(folded) == sorted(expected)
    for module, delta in folded.items():
        assert delta.dtype == torch.float32
        assert relative_error(delta, expected[module]) < 1e-6


@pytest.mark.parametrize("size", [1.0, 0.0], ids=["random", "zero"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 1), (1, 5)], ids=str)
@pytest.mark.parametrize("density", [None, 0.01], ids=["density by default", "less than one entry kept"])
def test_the_smallest_modules_are_merged_as_defined(density, shape, size, tmp_path):
    shapes = {"layers.0.q_proj": shape}
    adapters = {
        name: save_peft(tmp_path / name, random_factors(i, rank=1, size=size, shapes=shapes))
        for i, name in enumerate(("de", "fr", "ja"))
    }
    dense = {name: dense_delta(adapter.path) for name, adapter in adapters.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method, known in DEFAULTS.items():
            settings = {"density": density} if density and "density" in known else {}
            if settings and "epsilon" in known:
                settings["epsilon"] = density / 2
            for space in spaces(method):
                check(method, space, settings, None, adapters, dense)
