from __future__ import annotations

import json

import pytest
import torch
from adapters import save_embedding, with_tensors
from safetensors.torch import load_file, save_file

from problems import SHAPES, random_factors, save_peft
from sabir.errors import InputError
from sabir.lora.checks import (
    REASONS,
    base_linear_shapes,
    check_fits,
    check_mergeable,
    check_supported,
    twins,
)
from sabir.lora.files import FEATURES, open_adapter

Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["score"]}, "the weights file holds none of them"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
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
    assert str(caught.value).startswith("de: this adapter cannot be merged: ")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "shape", "named"),
    [
        ("base_model.model.lm.lora_embedding_A", (3, 5), "no partner"),
        (f"base_model.model.{Q}.lora_magnitude_vector", (12,), "DoRA"),
        (f"base_model.model.{Q}.lora_B.bias", (12,), "is no LoRA factor"),
        ("base_model.model.score.weight", (2, 12), "is no LoRA factor"),
        ("base_model.model.conv.lora_A.weight", (3, 5, 1, 1), "LoRA on a convolution"),
    ],
)
def test_tensors_beside_the_factors_are_refused_by_name(tensor, shape, named, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    weights = adapter.path / "adapter_model.safetensors"
    save_file({**load_file(weights), tensor: torch.ones(shape)}, weights)
    with pytest.raises(InputError, match=named):
        check_supported(open_adapter(adapter.path))


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


def refusal(**adapters):
    with pytest.raises(InputError) as caught:
        check_mergeable(adapters)
    assert str(caught.value).startswith("adapters 'de' and 'ja': ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("use_dora", "rescales every row of the base weights, so its delta has full rank"),
        ("lora_bias", "shift the outputs"),
        ("kasa_config", "cuts singular values off the base weights"),
        ("arrow_config", "routes between several adapters"),
        ("monteclora_config", "drawn at random"),
        ("use_bdlora", "one layout of servers"),
        ("use_qalora", "pooled inputs"),
        ("alora_invocation_tokens", "only after certain tokens"),
    ],
)
def test_a_refusal_says_why(field, reason, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1), **{field: {"some": "thing"}})
    with pytest.raises(InputError, match=reason):
        check_supported(adapter)


def test_every_field_of_peft_that_changes_weights_is_supported_or_refused():
    """A new field of LoraConfig is looked at by a person before it is merged without a word."""
    peft = pytest.importorskip("peft")
    import dataclasses

    supported = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"}
    supported |= {"modules_to_save", "bias", "init_lora_weights", "peft_type"}  # each has its own check
    unchanging = {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"}
    unchanging |= {
        "inference_mode",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
    }
    unchanging |= {
        "lora_dropout",
        "megatron_config",
        "megatron_core",
        "runtime_config",
        "ensure_weight_tying",
    }
    unchanging |= {"loftq_config", "eva_config", "corda_config", "lora_ga_config"}  # of init_lora_weights
    unchanging |= {"velora_config", "qalora_group_size"}  # of the backward pass; of use_qalora
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields - supported - unchanging - set(REASONS) == set()


def test_every_feature_in_the_digest_has_its_reason():
    assert set(FEATURES) - {"fan_in_fan_out"} == set(REASONS)


def test_adapters_of_different_modules_may_be_merged(tmp_path):
    first, *others = SHAPES
    one = save_peft(tmp_path / "one", random_factors(1, shapes={first: SHAPES[first]}))
    two = save_peft(tmp_path / "two", random_factors(2, shapes={module: SHAPES[module] for module in others}))
    check_mergeable({"de": one, "ja": two, "fr": save_peft(tmp_path / "all", random_factors(3))})
    wrong = save_peft(tmp_path / "wrong", random_factors(3, shapes={first: (2, 2)}))
    with pytest.raises(InputError, match="adapters 'de' and 'fr': module"):
        check_mergeable({"de": one, "ja": two, "fr": wrong})


def test_the_bases_of_all_are_compared_even_if_the_first_names_none(tmp_path):
    adapters = {
        name: save_peft(tmp_path / name, random_factors(1), base_model_name_or_path=base)
        for name, base in (("x", None), ("de", "org/one"), ("ja", "org/two"))
    }
    assert "base model is 'org/one' in one and 'org/two' in the other" in refusal(**adapters)


def test_vocabularies_of_different_size_are_refused_by_that_word(tmp_path):
    de = save_embedding(tmp_path / "de", vocabulary=9)
    sentence = refusal(de=de, ja=save_embedding(tmp_path / "ja", vocabulary=11))
    assert (
        "vocabularies are of different size: module 'model.embed_tokens' has 9 tokens in one and 11"
        in sentence
    )
    heads = [
        save_peft(tmp_path / f"head{size}", random_factors(1, shapes={"lm_head": (size, 4)}))
        for size in (9, 11)
    ]
    assert "different size: module 'lm_head' has 9 tokens in one and 11" in refusal(de=heads[0], ja=heads[1])
    other_model = save_embedding(tmp_path / "wide", dimensions=5)
    assert "vocabularies" not in refusal(de=de, ja=other_model)
    saved = [
        with_tensors(
            save_peft(tmp_path / f"plain{size}", random_factors(1)),
            {"model.embed_tokens.weight": torch.ones(size, 4)},
            tmp_path / f"saved{size}",
            modules_to_save=["embed_tokens"],
        )
        for size in (9, 11)
    ]
    assert "of different size: 'model.embed_tokens.weight' of modules_to_save is (9, 4)" in refusal(
        de=saved[0], ja=saved[1]
    )
    with pytest.raises(InputError, match="vocabularies are of different size"):
        check_fits(saved[1], {**SHAPES, "model.embed_tokens": (9, 4)})


def test_adapters_with_different_tokenizers_are_refused(tmp_path):
    adapters = {name: save_peft(tmp_path / name, random_factors(1)) for name in ("fr", "de", "ja")}
    for name, token in (("de", "a"), ("ja", "b")):
        document = {"model": {"vocab": {token: 0}}}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(document))
    assert "their tokenizers differ in 2 tokens: 'a'" in refusal(**adapters)
    (tmp_path / "ja" / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"a": 0}}, "version": "1"})
    )
    check_mergeable(adapters)


def test_embeddings_saved_because_the_vocabulary_changed_are_refused(tmp_path):
    adapter = with_tensors(
        save_peft(tmp_path / "plain", random_factors(1)),
        {"model.embed_tokens.weight": torch.ones(9, 4)},
        tmp_path / "de",
    )
    with pytest.raises(InputError, match="embeddings saved whole, because the vocabulary was changed"):
        check_supported(adapter)


def test_base_weights_carried_along_must_be_the_same(tmp_path):
    plain = [save_embedding(tmp_path / f"plain{i}", seed=i) for i in range(3)]
    base = {"model.embed_tokens.base_layer.weight": torch.randn(9, 4)}
    de, ja = (with_tensors(plain[i], base, tmp_path / str(i)) for i in range(2))
    check_mergeable({"de": de, "ja": ja, "fr": plain[2]})
    base["model.embed_tokens.base_layer.weight"][8, 3] += 1
    sentence = refusal(de=de, ja=with_tensors(plain[2], base, tmp_path / "2"))
    assert "the base weights they carry along differ: 'model.embed_tokens.base_layer.weight'" in sentence


def test_modules_trained_whole_must_be_the_same_in_all(tmp_path):
    plain = save_peft(tmp_path / "plain", random_factors(1))

    def headed(name, **shapes):
        tensors = {f"{module}.weight": torch.ones(shape) for module, shape in shapes.items()}
        return with_tensors(plain, tensors, tmp_path / name, modules_to_save=list(shapes))

    de = headed("de", score=(2, 4))
    check_mergeable({"de": de, "ja": headed("same", score=(2, 4))})
    assert "'score.weight' of modules_to_save is only in 'de'; it is no delta" in refusal(de=de, ja=plain)
    sentence = refusal(de=de, ja=headed("three", score=(3, 4)))
    assert "'score.weight' of modules_to_save is (2, 4) in one and (3, 4) in the other" in sentence
    assert "the same labels" in sentence


def test_adapters_of_bases_stored_differently_are_refused(tmp_path):
    de, ja = (
        save_peft(tmp_path / name, random_factors(1), fan_in_fan_out=turned)
        for name, turned in (("de", True), ("ja", False))
    )
    check_supported(de)
    assert "fan_in_fan_out is True in one and False in the other" in refusal(de=de, ja=ja)


def test_an_embedding_and_a_linear_layer_of_one_name_are_refused(tmp_path):
    linear = save_peft(tmp_path / "l", random_factors(1, shapes={"model.embed_tokens": (4, 9)}))
    sentence = refusal(de=linear, ja=save_embedding(tmp_path / "e"))
    assert "is an embedding in one and a linear layer in the other" in sentence


def test_a_base_that_stores_the_transpose_fits_where_it_should(tmp_path):
    embedding = save_embedding(tmp_path / "e", dimensions=4, vocabulary=9)
    check_fits(embedding, {"model.embed_tokens": (9, 4)})
    with pytest.raises(InputError, match=r"is \(9, 4\) here and \(4, 9\) in the base"):
        check_fits(embedding, {"model.embed_tokens": (4, 9)})
    shapes = {"transformer.h.0.c_attn": (12, 4), "lm_head": (9, 4)}
    conv = save_peft(tmp_path / "c", random_factors(1, shapes=shapes), fan_in_fan_out=True)
    check_fits(conv, {"transformer.h.0.c_attn": (4, 12), "lm_head": (9, 4)})  # the head is linear
    check_fits(conv, {"h.0.c_attn": (4, 12), "lm_head": (9, 4)})  # saved without the head's prefix
    with pytest.raises(InputError, match=r"is \(4, 12\) here and \(4, 16\) in the base"):
        check_fits(conv, {"transformer.h.0.c_attn": (4, 16), "lm_head": (9, 4)})
    with pytest.raises(InputError, match="'lm_head' is not in the base model"):
        check_fits(conv, {"transformer.h.0.c_attn": (4, 12)})
    check_fits(conv, {"transformer.h.0.c_attn": (4, 12), "transformer.wte": (9, 4)})  # the head is tied
    del shapes["lm_head"]
    with pytest.raises(InputError, match=r"is \(12, 4\) here and \(4, 12\) in the base"):
        check_fits(
            save_peft(tmp_path / "l", random_factors(1, shapes=shapes)), {"transformer.h.0.c_attn": (4, 12)}
        )


def test_the_same_adapter_twice_is_seen_by_its_content(tmp_path):
    adapters = {name: save_peft(tmp_path / name, random_factors(i)) for i, name in enumerate(("a", "b"))}
    adapters["c"] = save_peft(tmp_path / "c", random_factors(0), base_model_name_or_path="/elsewhere")
    assert twins(adapters) == [("a", "c")]


def test_a_base_saved_as_a_pickle_is_not_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="is saved as a pickle"):
        base_linear_shapes(tmp_path)
