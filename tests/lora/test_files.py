from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from adapters import save_embedding
from safetensors.torch import load_file, save_file

from problems import SHAPES, random_factors, save_peft
from sabir.errors import InputError
from sabir.lora import files
from sabir.lora.checks import check_supported
from sabir.lora.files import open_adapter

Q = "model.layers.0.self_attn.q_proj"


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


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"r": "x"}, f"r is 'x' for module '{Q}', which is no whole number above 0"),
        ({"r": math.inf}, "r is inf for module"),
        ({"r": -3, "use_rslora": True}, "r is -3 for module"),
        ({"r": 2.5}, "r is 2.5 for module"),
        ({"r": True}, "r is True for module"),
        ({"r": 0}, "r is 0 for module"),
        ({"rank_pattern": {"q_proj": None}}, "r is None for module"),
        ({"rank_pattern": {"(": 3}}, "rank_pattern cannot be used for module"),
        ({"rank_pattern": [3]}, "rank_pattern cannot be used for module"),
        ({"lora_alpha": math.nan}, f"lora_alpha is nan for module '{Q}', which is no finite number"),
        ({"lora_alpha": "6"}, "lora_alpha is '6' for module"),
        ({"lora_alpha": 10**400}, "which is no finite number"),
    ],
)
def test_a_rank_or_an_alpha_that_is_no_number_is_said_so(config, sentence, tmp_path):
    adapter = save_peft(tmp_path / "de", {Q: random_factors(1)[Q]}, **config)
    with pytest.raises(InputError) as caught:
        check_supported(adapter)
    assert sentence in str(caught.value)
    with pytest.raises(InputError, match="Save the adapter again"):
        adapter.read(Q)


@pytest.mark.parametrize("field", ["base_model_name_or_path", "revision", "task_type"])
def test_a_field_that_is_no_text_is_refused(field, tmp_path):
    with pytest.raises(InputError, match=f"{field} must be text, and is 5"):
        save_peft(tmp_path / "de", random_factors(1), **{field: 5})


def test_json_too_deep_is_refused_with_a_sentence(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    deep = b'{"a":' + b"[" * 99999
    (adapter.path / "adapter_model.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(InputError, match="is not a complete safetensors file"):
        open_adapter(adapter.path)
    (adapter.path / "adapter_config.json").write_bytes(deep)
    with pytest.raises(InputError, match="is not JSON"):
        open_adapter(adapter.path)


@pytest.mark.parametrize(
    "header",
    [
        '{"__metadata__": 5}',
        '{"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}',
    ],
)
def test_a_header_that_makes_no_sense_is_refused_with_a_sentence(header, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    weights = adapter.path / "adapter_model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(InputError, match="is not a complete safetensors file"):
        open_adapter(adapter.path)


def test_values_that_are_not_finite_are_refused_when_read(tmp_path):
    factors = random_factors(1)
    factors[Q][0][0, 0] = float("nan")
    adapter = save_peft(tmp_path / "de", factors)
    with pytest.raises(InputError, match=f"module '{Q}' holds NaN or infinite values"):
        adapter.read(Q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "config", [{"lora_alpha": 3}, {"lora_alpha": 6}, {"lora_alpha": 5, "use_rslora": True}]
)
def test_a_scaled_factor_is_rounded_once(dtype, config, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 7)  # so that blocks do not end where rows do
    factors = random_factors(1)
    adapter = save_peft(tmp_path / "de", factors, dtype=dtype, **config)
    for module, (b, a) in factors.items():
        read = adapter.read(module)
        stored = b.to(dtype).double().numpy()
        assert np.array_equal(read.b.numpy(), (stored * adapter.scale(module)).astype(np.float32))
        assert torch.equal(read.a, a.to(dtype).float())


def test_an_embedding_is_read_as_its_delta_times_scale(tmp_path):
    adapter = save_embedding(tmp_path / "de", dimensions=4, vocabulary=9, lora_alpha=6)
    check_supported(adapter)
    assert (adapter.embeddings, adapter.shapes["model.embed_tokens"]) == ({"model.embed_tokens"}, (4, 9))
    stored = load_file(adapter.path / "adapter_model.safetensors")
    name = "base_model.model.model.embed_tokens.lora_embedding"
    expected = 2.0 * stored[f"{name}_B"].double() @ stored[f"{name}_A"].double()
    assert torch.equal(adapter.read("model.embed_tokens").delta(), expected.float())


def test_what_peft_saved_of_the_base_is_no_part_of_the_content(tmp_path):
    one = save_embedding(tmp_path / "one")
    weights = one.path / "adapter_model.safetensors"
    plain, digest = load_file(weights), one.digest
    save_file({**plain, "base_model.model.model.embed_tokens.base_layer.weight": torch.ones(9, 4)}, weights)
    carrying = open_adapter(one.path)
    check_supported(carrying)
    assert carrying.copies
    assert carrying.digest == digest


def test_modules_trained_whole_are_read_by_their_name_in_the_base(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1), modules_to_save=["classifier", "score"])
    weights = adapter.path / "adapter_model.safetensors"
    head = {"score.weight": torch.randn(2, 12), "score.bias": torch.randn(2)}
    copy = {"base_model.model.score.original_module.weight": torch.zeros(2, 12)}
    save_file(
        {**load_file(weights), **copy, **{f"base_model.model.{n}": t for n, t in head.items()}}, weights
    )
    adapter = open_adapter(adapter.path)
    check_supported(adapter)
    assert set(adapter.saved) == set(head)
    assert all(torch.equal(adapter.read_saved(name), values) for name, values in head.items())
    head["score.bias"][0] = float("inf")
    save_file({**load_file(weights), "base_model.model.score.bias": head["score.bias"]}, weights)
    with pytest.raises(InputError, match=r"tensor 'score.bias' holds NaN or infinite values"):
        open_adapter(adapter.path).read_saved("score.bias")


def test_threads_read_and_hash_what_one_thread_does(tmp_path):
    shapes = {f"m.{i}.q_proj": (64, 48) for i in range(40)}
    adapters = [save_peft(tmp_path / str(i), random_factors(i, shapes=shapes)) for i in range(4)]
    alone = [[adapter.read(module) for module in adapter.modules] for adapter in adapters]
    digests = [open_adapter(adapter.path).digest for adapter in adapters]
    with ThreadPoolExecutor(8) as pool:
        for adapter, expected in zip(adapters, alone, strict=True):
            for one, two in zip(pool.map(adapter.read, adapter.modules), expected, strict=True):
                assert torch.equal(one.b, two.b)
                assert torch.equal(one.a, two.a)
        assert list(pool.map(lambda adapter: adapter.digest, adapters)) == digests


def test_a_file_cut_short_while_it_is_read_is_named(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    weights = adapter.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match="became shorter while it was read"):
        _ = [adapter.read(module) for module in adapter.modules]
