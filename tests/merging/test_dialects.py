"""`dialect: peft`, `mergekit` and `paper` equal those programs' own output on the same adapters.

Random draws keep our generator in every dialect, so a program is given our mask where it would draw its own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from oracles.merging import coins, dense_delta, keep_probability
from oracles.paper import paper_merge
from problems import PROBLEMS, SHAPES, random_factors, save_peft
from sabir.lora.files import Adapter, open_adapter
from sabir.merging.choices import make_recipe
from sabir.merging.recipe import merge

FULL = 99  # above every min(O, I): nothing is cut
# Both sides work in float32: some ten roundings of 6e-8 each on the way to an entry.
ROUNDING = 2e-6


def ours(
    method: str, space: str, dialect: str, adapters, *, settings=None, weights=None, rank=FULL
) -> dict[str, np.ndarray]:
    recipe = make_recipe(
        method,
        space=space,
        dialect=dialect,
        settings=settings or {},
        weights=weights,
        rank=rank if space in ("delta", "compressed") else None,
    )
    return {module: lowrank.delta().double().numpy() for module, lowrank in merge(recipe, adapters)}


def assert_equal(got, expected, share=ROUNDING):
    assert sorted(got) == sorted(expected)
    largest = max(np.linalg.norm(theirs) for theirs in expected.values())
    assert largest > 0
    for module, theirs in expected.items():
        # what cancels exactly there may leave a float64 rounding here
        allowed = share * np.linalg.norm(theirs) + 1e-14 * largest
        assert np.linalg.norm(got[module] - theirs) <= allowed, module


def mask(adapter: Adapter, seed: int, place: str, chance) -> torch.Tensor:
    """Our draw for an adapter: True where it keeps, in the shape of `chance` (an array or (shape, density))."""
    shape, chance = chance if isinstance(chance, tuple) else (chance.shape, chance)
    draws = coins(seed, adapter.digest, place, math.prod(shape)).reshape(shape)
    return torch.from_numpy(draws < chance)


# -- PEFT ---------------------------------------------------------------------------------------------------

EQUAL_RANKS = {
    "de": {"r": 4, "lora_alpha": 8},
    "fr": {"r": 4, "lora_alpha": 3, "use_rslora": True},
    "ja": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]},
}
MIXED_RANKS = {**EQUAL_RANKS, "fr": {"r": 2, "lora_alpha": 3, "use_rslora": True}, "ja": {"r": 6}}
WEIGHTS = {"de": 0.7, "fr": 1.5, "ja": -0.4}


class InPeft:
    """A PEFT model with an adapter for each config, B of opposite numbers made random, saved to a folder."""

    def __init__(self, folder: Path, configs: dict[str, dict], opposite: bool = False):
        from peft import LoraConfig, get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
        base = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1))
        model = None
        for name, config in configs.items():
            lora = LoraConfig(**{"target_modules": ["q_proj", "v_proj", "down_proj"], **config})
            if model is None:
                model = get_peft_model(base, lora, adapter_name=name)
            else:
                model.add_adapter(name, lora)
        self.model = model
        first, *others = configs
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.copy_(0.1 * torch.randn_like(parameter))
            for name, parameter in model.named_parameters() if opposite else ():
                if f".{others[0]}." in name and ".lora_" in name:
                    one = model.get_parameter(name.replace(f".{others[0]}.", f".{first}."))
                    parameter.copy_(-one if ".lora_B." in name else one)
        model.save_pretrained(str(folder))
        self.adapters = {name: open_adapter(folder / name) for name in configs}

    def layers(self):
        from peft.tuners.lora import LoraLayer

        for name, layer in self.model.base_model.model.named_modules():
            if isinstance(layer, LoraLayer):
                yield name, layer

    def merged(
        self, combination: str, weights, monkeypatch, *, seed: int, **settings
    ) -> dict[str, np.ndarray]:
        """What add_weighted_adapter makes, as B A: it keeps the first adapter's use_rslora, so that the scale
        it would be served with is √rank too large where that is set; alpha = rank says 1."""
        from peft.utils import merge_utils

        places = {}
        for module, layer in self.layers():
            for name, adapter in self.adapters.items():
                if name in layer.lora_A:
                    whole = layer.get_delta_weight(name)
                    for factor, tensor in (
                        ("", whole),
                        (".lora_A", layer.lora_A[name].weight),
                        (".lora_B", layer.lora_B[name].weight),
                    ):
                        places[tensor.detach().numpy().tobytes()] = (adapter, module + factor)
        original, draw = merge_utils.random_pruning, []

        def random_pruning(tensor, density, rescale):
            adapter, place = places[tensor.detach().numpy().tobytes()]
            draw.append(mask(adapter, seed, place, (tuple(tensor.shape), density)).float())
            return original(tensor, density, rescale)

        monkeypatch.setattr(merge_utils, "random_pruning", random_pruning)
        monkeypatch.setattr(torch, "bernoulli", lambda chances: draw.pop())
        self.model.add_weighted_adapter(
            list(weights), list(weights.values()), "merged", combination, svd_full_matrices=False, **settings
        )
        assert not draw
        found = {
            module: (layer.lora_B["merged"].weight @ layer.lora_A["merged"].weight).detach().double().numpy()
            for module, layer in self.layers()
        }
        self.model.delete_adapter("merged")
        return found


PEFT_METHODS = {
    "linear": [{}],
    "ties": [{"density": 0.3}, {"density": 1.0}],
    "dare_linear": [{"density": 0.5}, {"density": 1.0}],
    "dare_ties": [{"density": 0.6}],
    "magnitude_prune": [{"density": 0.4}, {"density": 1.0}],
}
IN_SABIR = {"dare_linear": "dare", "magnitude_prune": "magnitude"}
PEFT_CASES = [(name, chosen) for name, every in PEFT_METHODS.items() for chosen in every]


@pytest.mark.parametrize("weights", [WEIGHTS, dict.fromkeys(WEIGHTS, 1.0)], ids=["weighted", "equal"])
@pytest.mark.parametrize(("combination", "settings"), PEFT_CASES)
class TestPeft:
    def test_delta_space_equals_the_svd_combinations(
        self, combination, settings, weights, tmp_path, monkeypatch
    ):
        peft = InPeft(tmp_path, MIXED_RANKS)
        method = IN_SABIR.get(combination, combination)
        name = "svd" if combination == "linear" else f"{combination}_svd"
        expected = peft.merged(name, weights, monkeypatch, seed=5, svd_rank=16, **settings)
        seed = {"seed": 5} if "dare" in method else {}
        found = ours(
            method, "delta", "peft", peft.adapters, settings={**settings, **seed}, weights=weights, rank=16
        )
        assert_equal(found, expected)

    def test_factors_space_equals_the_plain_combinations(
        self, combination, settings, weights, tmp_path, monkeypatch
    ):
        peft = InPeft(tmp_path, EQUAL_RANKS)
        method = IN_SABIR.get(combination, combination)
        expected = peft.merged(combination, weights, monkeypatch, seed=6, **settings)
        seed = {"seed": 6} if "dare" in method else {}
        found = ours(method, "factors", "peft", peft.adapters, settings={**settings, **seed}, weights=weights)
        assert_equal(found, expected)


def test_peft_cuts_to_the_same_rank(tmp_path, monkeypatch):
    peft = InPeft(tmp_path, MIXED_RANKS)
    expected = peft.merged("ties_svd", WEIGHTS, monkeypatch, seed=0, svd_rank=5, density=0.4)
    found = ours("ties", "delta", "peft", peft.adapters, settings={"density": 0.4}, weights=WEIGHTS, rank=5)
    # a cut float32 SVD turns by its rounding over the gap at the cut, some tens of times more than a sum
    assert_equal(found, expected, share=1e-5)


def test_one_adapter_alone_is_not_pruned_by_peft(tmp_path, monkeypatch):
    peft = InPeft(tmp_path, {"de": {"r": 4, "lora_alpha": 6}})
    expected = peft.merged("ties_svd", {"de": 0.5}, monkeypatch, seed=0, density=0.3)
    found = ours("ties", "delta", "peft", peft.adapters, settings={"density": 0.3}, weights={"de": 0.5})
    assert_equal(found, expected)


@pytest.mark.parametrize("space", ["delta", "factors"])
def test_a_zero_sum_is_positive_to_peft(space, tmp_path, monkeypatch):
    peft = InPeft(tmp_path, {name: {"r": 4, "lora_alpha": 4} for name in ("de", "fr")}, opposite=True)
    weights = {"de": 1.0, "fr": 0.5}
    name, cut = ("ties_svd", {"svd_rank": 16}) if space == "delta" else ("ties", {})
    expected = peft.merged(name, weights, monkeypatch, seed=0, density=0.5, **cut)
    found = ours("ties", space, "peft", peft.adapters, settings={"density": 0.5}, weights=weights)
    assert_equal(found, expected)


# -- mergekit -----------------------------------------------------------------------------------------------

MERGEKIT_CASES = [
    ("task_arithmetic", "linear", {}),
    ("ties", "ties", {"density": 0.3}),
    ("ties", "ties", {"density": 1.0}),
    ("dare_linear", "dare", {"density": 0.5}),
    ("dare_ties", "dare_ties", {"density": 0.6}),
    ("della", "della", {"density": 0.5, "epsilon": 0.2}),
    ("della_linear", "della_linear", {"density": 0.4, "epsilon": 0.15}),
    ("dare_ties", "dare_ties", {"density": 1.0}),
    ("della", "della", {"density": 1.0}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.6, "outliers": 0.05}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.97, "outliers": 0.05}),
    ("breadcrumbs_ties", "breadcrumbs_ties", {"density": 0.5, "outliers": 0.1}),
    ("sce", "sce", {"density": 0.3}),
    ("sce", "sce", {"density": 1.0}),
]
GRID = 2.0**-7


def _on_a_grid(folder: Path) -> dict[str, Adapter]:
    """Factors that are multiples of 2^-7, so that base + delta - base is exact in float32."""
    adapters = {}
    for i, name in enumerate(("de", "fr", "ja")):
        factors = {
            m: ((b / GRID).round() * GRID, (a / GRID).round() * GRID)
            for m, (b, a) in random_factors(80 + i).items()
        }
        adapters[name] = save_peft(folder / name, factors)
    return adapters


MERGEKIT_PROBLEMS = {
    "grid": _on_a_grid,
    **{
        name: PROBLEMS[name]
        for name in ("random", "half-opposite", "different modules", "one zero", "tiny", "bf16", "real")
    },
}


@pytest.mark.parametrize("problem", MERGEKIT_PROBLEMS)
@pytest.mark.parametrize(
    ("name", "method", "settings", "values"),
    [
        (*case, values)
        for case in MERGEKIT_CASES
        for values in ((1.0, 1.0, 1.0), (0.7, 1.5, 0.4), (1.0, -0.5, 0.8))
        if case[0] != "sce" or values == (1.0, 1.0, 1.0)  # mergekit's takes no weights
    ],
)
def test_mergekit_merges_a_tensor_to_the_same(name, method, settings, values, problem, tmp_path, monkeypatch):
    registry = pytest.importorskip(
        "mergekit.merge_methods.registry", reason="compared with mergekit's own code"
    )
    from mergekit.merge_methods.base import ParameterScope, TensorGroup

    adapters = MERGEKIT_PROBLEMS[problem](tmp_path)
    weights = dict(zip(adapters, values, strict=False))
    deltas = {n: dense_delta(adapter.path) for n, adapter in adapters.items()}
    shapes = {m: d.shape for each in deltas.values() for m, d in each.items()}
    generator = torch.Generator().manual_seed(0)
    bases, expected, draw = {}, {}, []
    monkeypatch.setattr(torch, "bernoulli", lambda chances: draw.pop(0).to(chances.dtype))
    for module, shape in shapes.items():
        if problem == "grid":
            bases[module] = (torch.randn(shape, generator=generator) / GRID**2).round() * GRID**2
        else:
            bases[module] = torch.zeros(shape)
        dense = {n: each.get(module, np.zeros(shape)) for n, each in deltas.items()}
        density = settings.get("density", 1.0)
        drops = density < 1 and ("dare" in method or "della" in method)
        for n, adapter in adapters.items() if drops else ():
            chance = np.full(shape, density)
            if "della" in method:
                chance = keep_probability(dense[n], density, settings["epsilon"])
            draw.append(mask(adapter, 7, module, chance))
        tensors = [bases[module] + torch.from_numpy(d).float() for d in dense.values()]
        group = TensorGroup.from_tensors([bases[module], *tensors], ids=["base", *adapters], base_index=0)
        merger = registry.get(name)
        given = {"gamma" if k == "outliers" else k: v for k, v in settings.items()}
        if method == "sce":
            chosen = {"int8_mask": False, "select_topk": settings["density"]}
        else:
            chosen = {}
            for spec in merger.spec.parameters:
                value = given.get(spec.name, spec.default)
                chosen[spec.name] = (
                    value if spec.scope == ParameterScope.SHARED else dict.fromkeys(adapters, value)
                )
            chosen |= {"weight": weights, "lambda": 1.25}
        merged = merger.merge_group(group, **chosen)
        expected[module] = (merged.double() - bases[module].double()).numpy()
        assert not draw
    scale = {} if method == "sce" else {"scale": 1.25}
    seed = {"seed": 7} if "dare" in method or "della" in method else {}
    found = ours(
        method, "delta", "mergekit", adapters, settings={**settings, **scale, **seed}, weights=weights
    )
    assert sorted(found) == sorted(expected)
    for module, theirs in expected.items():
        # the sum they return is rounded once more, beside the base; what cancels leaves a float64 rounding
        size = np.linalg.norm(theirs) + np.linalg.norm(bases[module])
        inputs = max(np.linalg.norm(each[module]) for each in deltas.values() if module in each)
        assert np.linalg.norm(found[module] - theirs) <= ROUNDING * size + 1e-14 * inputs, module


@pytest.mark.parametrize(
    ("name", "method", "settings"),
    [case for case in MERGEKIT_CASES if not ("dare" in case[0] or "della" in case[0])],
)
def test_a_folded_merge_equals_mergekits_own_run(name, method, settings, tmp_path):
    merge_module = pytest.importorskip("mergekit.merge", reason="compared with mergekit's own run")
    from mergekit.config import MergeConfiguration
    from mergekit.options import MergeOptions
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, dtype="float32")
    model = LlamaForCausalLM(config)
    fine = 2.0**-11
    with (
        torch.no_grad()
    ):  # a grid on which base + delta is exact, and so fine that hardly two sizes are equal
        for parameter in model.parameters():
            parameter.copy_((parameter / (fine * GRID)).round() * fine * GRID)
    base = tmp_path / "base"
    model.save_pretrained(base)
    held = load_file(base / "model.safetensors")
    linear = {n.removesuffix(".weight"): tuple(t.shape) for n, t in held.items() if "_proj" in n}
    adapters = {}
    for i, language in enumerate(("de", "fr", "ja")):
        factors = {
            m: ((b / 16 / fine).round() * fine, (a / GRID).round() * GRID)
            for m, (b, a) in random_factors(90 + i, shapes=linear).items()
        }
        adapters[language] = save_peft(tmp_path / "adapters" / language, factors)
        delta = dense_delta(adapters[language].path)
        folded = tmp_path / "folded" / language
        model.config.save_pretrained(folded)
        tensors = {
            n: t + torch.from_numpy(delta[n.removesuffix(".weight")]).float() if "_proj" in n else t
            for n, t in held.items()
        }
        save_file(tensors, folded / "model.safetensors", metadata={"format": "pt"})
    weights = {"de": 0.5, "fr": 1.5, "ja": 1.0} if method != "sce" else None
    renamed = {"outliers": "gamma", "density": "select_topk" if method == "sce" else "density"}
    of_each = {renamed[k]: v for k, v in settings.items()} if method != "sce" else {}
    document = {
        "merge_method": name,
        "base_model": str(base),
        "models": [
            {
                "model": str(tmp_path / "folded" / n),
                "parameters": {**of_each, **({"weight": weights[n]} if weights else {})},
            }
            for n in adapters
        ],
        "parameters": {"select_topk": settings["density"]} if method == "sce" else {"lambda": 1.25},
        "dtype": "float32",
    }
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
    merge_module.run_merge(MergeConfiguration.model_validate(document), str(theirs), options)
    fold_module = pytest.importorskip("sabir.lora.fold", reason="folding is not there yet")
    scale = {} if method == "sce" else {"scale": 1.25}
    recipe = make_recipe(
        method, dialect="mergekit", settings={**settings, **scale}, weights=weights, rank="fold"
    )
    fold_module.fold(base, mine, merge(recipe, adapters).dense())

    def weights_in(folder: Path) -> dict[str, torch.Tensor]:
        return {n: t for shard in sorted(folder.glob("*.safetensors")) for n, t in load_file(shard).items()}

    found, expected = weights_in(mine), weights_in(theirs)
    assert sorted(found) == sorted(expected) == sorted(held)
    for tensor, t in expected.items():
        assert torch.linalg.vector_norm(found[tensor] - t) <= ROUNDING * torch.linalg.vector_norm(t), tensor
        assert ("_proj" in tensor) == (not torch.equal(t, held[tensor])), tensor
    assert json.loads((mine / "config.json").read_text())["model_type"] == "llama"


# -- the papers' notebooks ----------------------------------------------------------------------------------

PAPER_CASES = [
    ("linear", {}, "delta"),  # in knots it is the same, and refused as such
    *(
        (method, settings, space)
        for space in ("delta", "knots")
        for method, settings in (
            ("ties", {"density": 0.3}),
            ("ties", {"density": 1.0, "scale": 0.5}),
            ("dare", {"density": 0.5, "scale": 2.0}),
            ("dare_ties", {"density": 0.6}),
            ("dare_ties", {"density": 0.5, "trim_density": 0.3}),
        )
    ),
]


PAPER_PROBLEMS = ["random", "half-opposite", "opposite", "unequal ranks", "one zero", "tiny", "bf16", "real"]
NOTHING_LEFT = [
    ("opposite", "linear", "delta"),
    *(("tiny", m, "knots") for m in ("ties", "dare", "dare_ties")),
]


@pytest.mark.parametrize(
    ("method", "settings", "space", "problem"),
    [
        (method, settings, space, problem)
        for problem in PAPER_PROBLEMS
        for method, settings, space in PAPER_CASES
        if (problem, method, space) not in NOTHING_LEFT
    ],
)
def test_the_published_algorithm_gives_the_same(method, settings, space, problem, tmp_path):
    adapters = PROBLEMS[problem](tmp_path)
    dense = {name: dense_delta(adapter.path) for name, adapter in adapters.items()}
    deltas = {n: {m: torch.from_numpy(d) for m, d in each.items()} for n, each in dense.items()}
    masks = None
    if "dare" in method:
        modules = next(iter(deltas.values()))
        masks = {}
        for module in modules:
            rows, columns = modules[module].shape
            if space == "knots":
                wide = np.concatenate([each[module] for each in dense.values()], axis=1)
                rows = np.linalg.matrix_rank(wide)
            for name, adapter in adapters.items():
                masks[name, module] = mask(adapter, 3, module, ((rows, columns), settings["density"]))
    expected = paper_merge(deltas, method, space, masks=masks, **settings)
    seed = {"seed": 3} if "dare" in method else {}
    found = ours(
        method, space, "paper", adapters, settings={**settings, **seed}, weights=dict.fromkeys(adapters, 1.0)
    )
    assert_equal(found, {module: delta.numpy() for module, delta in expected.items()})


def test_the_published_trim_keeps_one_entry_more_than_ours(tmp_path):
    shapes = {"model.layers.0.self_attn.q_proj": SHAPES["model.layers.0.self_attn.q_proj"]}
    adapter = save_peft(tmp_path / "de", random_factors(1, shapes=shapes))
    kept = {}
    for dialect in ("sabir", "paper"):
        [delta] = ours("ties", "delta", dialect, {"de": adapter}, settings={"density": 0.25}).values()
        kept[dialect] = int((np.abs(delta) > 1e-6).sum())
    assert kept == {"sabir": 30, "paper": 31}


def test_the_published_absolute_cut_drops_small_adapters_and_ours_does_not(tmp_path):
    adapters = PROBLEMS["tiny"](tmp_path)  # all singular values below 1e-5
    for dialect, kept in (("paper", False), ("sabir", True)):
        found = ours("ties", "knots", dialect, adapters, settings={"density": 0.5})
        assert all(bool(delta.any()) is kept for delta in found.values())
