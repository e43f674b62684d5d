from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from problems import SHAPES, random_factors, save_peft
from sabir.errors import InputError, StoreError
from sabir.lora import files
from sabir.lora.files import (
    base_linear_shapes,
    check_fits,
    check_mergeable,
    check_supported,
    open_adapter,
    served_rank,
    target_names,
    write_adapter,
)
from sabir.lora.lowrank import LowRank

Q = "model.layers.0.self_attn.q_proj"


def written(folder, adapter, **choices):
    return write_adapter(
        folder,
        ((module, adapter.read(module)) for module in adapter.modules),
        shapes=adapter.shapes,
        rank=max(adapter.ranks.values()),
        base_model="some/base",
        **choices,
    )


def test_an_opened_adapter_knows_its_modules_shapes_and_ranks(tmp_path):
    adapter = save_peft(
        tmp_path / "de", random_factors(1), base_model_name_or_path="some/base", revision="main"
    )
    assert adapter.modules == tuple(sorted(SHAPES))
    assert dict(adapter.shapes) == SHAPES
    assert set(adapter.ranks.values()) == {3}
    assert (adapter.base_model, adapter.revision) == ("some/base", "main")


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 3, "lora_alpha": 6}, 2.0),
        ({"r": 3, "lora_alpha": 6, "use_rslora": True}, 6 / math.sqrt(3)),
        ({"r": 8, "rank_pattern": {"q_proj": 3}, "lora_alpha": 6}, 2.0),
        ({"r": 3, "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 12}}, 4.0),
        ({"r": 3, "alpha_pattern": {"^q_proj": 12}, "lora_alpha": 6}, 2.0),
        ({"r": 3, "alpha_pattern": {"v_proj": 1, "q_proj": 9, "self_attn.q_proj": 30}}, 3.0),
        ({"r": 3, "lora_alpha": 6, "alpha_pattern": {"proj": 12}}, 2.0),
    ],
)
def test_the_scale_is_folded_in_once_by_the_rule_of_peft(config, scale, tmp_path):
    factors = {Q: random_factors(1)[Q]}
    adapter = save_peft(tmp_path / "de", factors, **config)
    check_supported(adapter)
    b, a = factors[Q]
    expected = scale * (b.double() @ a.double())
    assert float((adapter.read(Q).delta() - expected).abs().max()) < 1e-5
    assert adapter.scale(Q) == pytest.approx(scale)


def test_the_digest_is_of_the_content_not_of_the_place_or_the_spelling(tmp_path):
    one = save_peft(tmp_path / "a", random_factors(1), base_model_name_or_path="/here")
    moved = save_peft(tmp_path / "b", random_factors(1), base_model_name_or_path="/there", lora_dropout=0.1)
    patterned = save_peft(tmp_path / "c", random_factors(1), lora_alpha=9, alpha_pattern={".*": 3})
    assert one.digest == moved.digest == patterned.digest
    assert one.digest.startswith("sha256:")
    others = [
        save_peft(tmp_path / "d", random_factors(2)),
        save_peft(tmp_path / "e", random_factors(1), lora_alpha=9),
        save_peft(tmp_path / "f", random_factors(1), use_dora=True),
    ]
    assert len({adapter.digest for adapter in [one, *others]}) == 4


def test_an_adapter_retrained_at_the_same_path_is_another_one(tmp_path):
    old = save_peft(tmp_path / "de", random_factors(1))
    before = old.digest
    save_file(
        {name: t + 1 for name, t in load_file(old.path / "adapter_model.safetensors").items()},
        old.path / "adapter_model.safetensors",
    )
    assert open_adapter(old.path).digest != before


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 4]]}, "layer_replication"),
        ({"target_parameters": ["experts.gate"]}, "target_parameters"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"r": 16}, "has rank 3, but adapter_config.json says 16"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(config, named, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1), **config)
    with pytest.raises(InputError) as caught:
        check_supported(adapter, "de")
    assert str(caught.value).startswith("de: this adapter cannot be merged yet:")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "shape", "named"),
    [
        ("base_model.model.lm.lora_embedding_A", (3, 5), "LoRA on an embedding"),
        (f"base_model.model.{Q}.lora_magnitude_vector", (12,), "DoRA"),
        (f"base_model.model.{Q}.lora_B.bias", (12,), "is no LoRA factor"),
        ("base_model.model.score.weight", (2, 12), "is no LoRA factor"),
        ("base_model.model.conv.lora_A.weight", (3, 5, 1, 1), "no partner"),
    ],
)
def test_tensors_beside_the_factors_are_refused_by_name(tensor, shape, named, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    weights = adapter.path / "adapter_model.safetensors"
    save_file({**load_file(weights), tensor: torch.ones(shape)}, weights)
    with pytest.raises(InputError, match=named):
        check_supported(open_adapter(adapter.path))


def test_a_damaged_folder_is_refused_with_a_sentence(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    weights = adapter.path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-8], whole[:30], whole[:3], b"", b"\xff" * 100, b"\x02" + bytes(7) + b"[]"):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match="is not a complete safetensors file"):
            open_adapter(adapter.path)
    weights.rename(adapter.path / "adapter_model.bin")
    with pytest.raises(InputError, match="is a pickle"):
        open_adapter(adapter.path)
    (adapter.path / "adapter_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no adapter_model.safetensors"):
        open_adapter(adapter.path)
    (adapter.path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        open_adapter(adapter.path)
    with pytest.raises(InputError, match="no such folder"):
        open_adapter(tmp_path / "nowhere")


def test_values_that_are_not_finite_are_refused_when_read(tmp_path):
    factors = random_factors(1)
    factors[Q][0][0, 0] = float("nan")
    adapter = save_peft(tmp_path / "de", factors)
    with pytest.raises(InputError, match=f"module '{Q}' holds NaN or infinite values"):
        adapter.read(Q)


def test_adapters_that_do_not_belong_together_are_refused(tmp_path):
    def adapter(name, **choices):
        shapes = {**SHAPES, **choices.pop("shapes", {})}
        return save_peft(tmp_path / name, random_factors(1, shapes=shapes), **choices)

    base = {"base_model_name_or_path": "Qwen/Qwen3-0.6B"}
    de = adapter("de", **base, revision="a" * 40)
    check_mergeable(
        {"de": de, "fr": adapter("fr", **base), "here": adapter("h", base_model_name_or_path="/x")}
    )
    wrong = {
        "shape": (
            adapter("s", shapes={Q: (14, 10)}),
            f"module '{Q}' is (12, 10) in one and (14, 10) in the other",
        ),
        "more": (adapter("m", shapes={"model.x": (4, 4)}), "module 'model.x' is only in 'ja'"),
        "base": (
            adapter("b", base_model_name_or_path="meta/Llama"),
            "base model is 'Qwen/Qwen3-0.6B' in one and 'meta/Llama' in the other",
        ),
        "revision": (adapter("r", **base, revision="b" * 40), "at revision"),
        "cached": (
            adapter("c", base_model_name_or_path=f"/c/hub/models--Qwen--Qwen3-0.6B/snapshots/{'b' * 40}"),
            "at revision",
        ),
    }
    for other, sentence in wrong.values():
        with pytest.raises(InputError) as caught:
            check_mergeable({"de": de, "ja": other})
        assert str(caught.value).startswith("adapters 'de' and 'ja': ")
        assert sentence in str(caught.value)


def test_an_adapter_is_held_against_its_base_by_headers_alone(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    weights = {f"{module}.weight": torch.zeros(shape) for module, shape in SHAPES.items()}
    shards = {name: f"model-{i}.safetensors" for i, name in enumerate(weights)}
    for name, shard in shards.items():
        save_file({name: weights[name]}, base / shard)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    shapes = base_linear_shapes(base)
    assert shapes == SHAPES
    adapter = save_peft(tmp_path / "de", random_factors(1))
    check_fits(adapter, shapes)
    with pytest.raises(InputError, match=r"is \(12, 10\) here and \(12, 11\) in the base model"):
        check_fits(adapter, {**shapes, Q: (12, 11)})
    with pytest.raises(InputError, match="is not in the base model"):
        check_fits(adapter, {})


def test_the_canonical_adapter_reads_back_and_says_its_rank_plainly(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1), lora_alpha=5, use_rslora=True)
    out = written(tmp_path / "out", adapter)
    assert set(out.ranks.values()) == {8}
    assert (out.config["r"], out.config["lora_alpha"], out.config["use_rslora"]) == (8, 8, False)
    for module in adapter.modules:
        assert torch.equal(out.read(module).delta(), adapter.read(module).delta())
    assert set(written(tmp_path / "exact", adapter, pad_to_served=False).ranks.values()) == {3}
    half = written(tmp_path / "half", adapter, dtype="bfloat16")
    assert torch.equal(half.read(Q).a, torch.cat([adapter.read(Q).a.bfloat16().float(), torch.zeros(5, 10)]))
    assert load_file(out.path / "adapter_model.safetensors").keys() == dict(out.tensors).keys()


def test_the_same_deltas_give_the_same_bytes_in_any_order(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    one = written(tmp_path / "one", adapter)
    two = write_adapter(
        tmp_path / "two",
        [(module, adapter.read(module)) for module in reversed(adapter.modules)],
        shapes=dict(reversed(adapter.shapes.items())),
        rank=3,
        base_model="some/base",
    )
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_half_written_is_left(error, existing, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "notes.txt").write_text("mine")

    def breaks():
        yield Q, adapter.read(Q)
        raise error

    with pytest.raises((RuntimeError, StoreError)):
        write_adapter(out, breaks(), shapes=adapter.shapes, rank=3, base_model=None)
    assert [path.name for path in out.glob("*")] == (["notes.txt"] if existing else [])
    assert out.exists() == existing


def test_a_folder_that_holds_an_adapter_is_not_written_over(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    with pytest.raises(InputError, match="holds an adapter already"):
        written(adapter.path, adapter)


def test_served_ranks_are_those_vllm_takes():
    assert [served_rank(r) for r in (1, 8, 9, 80, 320, 321, 768)] == [8, 8, 16, 128, 320, 512, 768]


def test_target_names_are_short_only_where_all_modules_of_that_name_are_meant(tmp_path):
    wanted = ["layers.0.q_proj", "layers.1.q_proj", "layers.0.up_proj"]
    base = [*wanted, "layers.1.up_proj"]
    assert target_names(wanted, base_modules=base) == ["layers.0.up_proj", "q_proj"]
    assert target_names(wanted) == sorted(wanted)
    shapes = {name: (4, 4) for name in wanted}
    all_of_them = save_peft(tmp_path / "a", random_factors(1, shapes=shapes))
    some_layers = save_peft(tmp_path / "b", random_factors(1, shapes=shapes), layers_to_transform=[0])
    assert target_names(wanted, adapters=[all_of_them]) == ["q_proj", "up_proj"]
    assert target_names(wanted, adapters=[some_layers]) == sorted(wanted)


def test_a_module_of_rank_zero_is_written_as_zeros(tmp_path):
    empty = LowRank(torch.zeros(4, 0), torch.zeros(0, 6))
    out = write_adapter(tmp_path / "o", [("m", empty)], shapes={"m": (4, 6)}, rank=0, base_model=None)
    assert float(out.read("m").delta().abs().sum()) == 0
    assert files.CONFIG in {path.name for path in out.path.iterdir()}
