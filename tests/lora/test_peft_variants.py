"""Every kind of adapter we say we read, as PEFT itself saves, applies and loads it, on tiny models."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sabir.errors import InputError
from sabir.lora.checks import base_linear_shapes, check_fits, check_mergeable, check_supported
from sabir.lora.files import open_adapter
from sabir.lora.fold import fold
from sabir.lora.write import target_names, write_adapter

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}


def llama(**config):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, **config))


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))


def classifier():
    return transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**LLAMA, num_labels=3))


# name: (base model, LoRA's choices)
VARIANTS = {
    "plain": (llama, {"target_modules": ["q_proj", "down_proj"]}),
    "rslora": (llama, {"target_modules": ["q_proj"], "use_rslora": True, "lora_alpha": 5}),
    "patterns": (
        llama,
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {r"layers\.1\..*q_proj": 3, "q_proj": 7},
        },
    ),
    "rslora and patterns": (
        llama,
        {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "rank_pattern": {"v_proj": 3}},
    ),
    "embedding": (llama, {"target_modules": ["embed_tokens", "q_proj"], "lora_alpha": 3}),
    "embedding, rslora": (llama, {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True}),
    "tied embeddings": (
        lambda: llama(tie_word_embeddings=True),
        {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    ),
    "conv1d": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "use_rslora": True}),
    "some layers": (llama, {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    "orthogonal start": (llama, {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"}),
}


def trained(folder, make_model, *, dtype=torch.float32, seed=0, task_type="CAUSAL_LM", **choices):
    """A base and an adapter that PEFT saved, its factors random; and the model as it is in memory."""
    torch.manual_seed(0)
    base = make_model().to(dtype)
    if not (folder / "base").exists():
        base.save_pretrained(folder / "base")
    base = type(base).from_pretrained(folder / "base", dtype=dtype)
    torch.manual_seed(seed)
    choices.setdefault("init_lora_weights", False)
    config = peft.LoraConfig(task_type=task_type, **{"r": 4, "lora_alpha": 8, **choices})
    model = peft.get_peft_model(base, config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_()
    model.save_pretrained(folder / f"adapter{seed}")
    return open_adapter(folder / f"adapter{seed}"), model.eval()


def deltas_of_peft(model):
    """What PEFT adds to each base weight, in float64 and as stored there."""
    found = {}
    for name, module in model.double().named_modules():
        if hasattr(module, "get_delta_weight") and getattr(module, "r", None):
            found[name.removeprefix("base_model.model.")] = module.get_delta_weight("default")
    return found


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(20)[None]).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_read_is_the_delta_weight_of_peft(variant, dtype, tmp_path):
    make_model, choices = VARIANTS[variant]
    adapter, model = trained(tmp_path, make_model, dtype=dtype, **choices)
    check_supported(adapter)
    check_fits(adapter, base_linear_shapes(tmp_path / "base"))
    assert {place.dtype for place in adapter.tensors.values()} == {
        "F32" if dtype == torch.float32 else "BF16"
    }
    theirs = deltas_of_peft(model)
    assert set(adapter.modules) == set(theirs)
    for module, delta in theirs.items():
        turned = module in adapter.embeddings or adapter.fan_in_fan_out
        ours = adapter.read(module).delta()
        # float32 rounds B times the scale once and the product once
        assert torch.allclose(ours.T.double() if turned else ours.double(), delta, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_peft_loads_and_it_gives_the_same_forward(variant, tmp_path):
    make_model, choices = VARIANTS[variant]
    adapter, model = trained(tmp_path, make_model, **choices)
    base = type(model.get_base_model()).from_pretrained(tmp_path / "base")
    expected, without = logits(model), logits(base)
    out = write_adapter(
        tmp_path / "out",
        ((module, adapter.read(module)) for module in adapter.modules),
        shapes=adapter.shapes,
        rank=max(adapter.ranks.values()),
        base_model=str(tmp_path / "base"),
        targets=target_names(adapter.shapes, adapters=[adapter]),
        embeddings=adapter.embeddings,
        fan_in_fan_out=adapter.fan_in_fan_out,
    )
    again = logits(peft.PeftModel.from_pretrained(base, out.path))
    assert torch.allclose(again, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(again, without, atol=1e-2)


def test_a_classification_head_is_written_as_peft_loads_it(tmp_path):
    pair = [
        trained(tmp_path, classifier, seed=seed, task_type="SEQ_CLS", target_modules=["q_proj"])
        for seed in (1, 2)
    ]
    adapters = {name: adapter for name, (adapter, _) in zip("ab", pair, strict=True)}
    for adapter in adapters.values():
        check_supported(adapter)
        check_fits(adapter, base_linear_shapes(tmp_path / "base"))
    check_mergeable(adapters)
    first, second = adapters.values()
    assert set(first.saved) == {"score.weight"}
    head = (first.read_saved("score.weight") + second.read_saved("score.weight")) / 2
    out = write_adapter(
        tmp_path / "out",
        ((module, first.read(module)) for module in first.modules),
        shapes=first.shapes,
        rank=4,
        base_model=str(tmp_path / "base"),
        targets=target_names(first.shapes, adapters=adapters.values()),
        task_type="SEQ_CLS",
        saved=[("score.weight", head)],
        saved_shapes={name: place.shape for name, place in first.saved.items()},
    )
    check_mergeable({**adapters, "out": out})
    base = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(base, out.path)
    model = pair[0][1]
    with torch.no_grad():
        model.get_base_model().score.modules_to_save["default"].weight.copy_(head)
    assert torch.allclose(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)
    assert torch.equal(loaded.get_base_model().score.modules_to_save["default"].weight, head)


def test_what_peft_saves_with_a_resized_vocabulary_is_understood(tmp_path):
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    for name, choices in (
        ("whole", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("silent", {}),
    ):
        base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
        base.resize_token_embeddings(70)
        config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", **choices)
        peft.get_peft_model(base, config).save_pretrained(tmp_path / name)
    whole = open_adapter(tmp_path / "whole")
    check_supported(whole)
    assert set(whole.saved) == {"lm_head.weight", "model.embed_tokens.weight"}
    with pytest.raises(InputError, match="vocabularies are of different size"):
        check_fits(whole, base_linear_shapes(tmp_path / "base"))
    with pytest.raises(InputError, match="because the vocabulary was changed"):
        check_supported(open_adapter(tmp_path / "silent"))


@pytest.mark.parametrize(
    ("make_model", "choices"),
    [
        (llama, {"target_modules": ["q_proj", "o_proj", "down_proj"], "use_rslora": True}),
        (llama, {"target_modules": ["embed_tokens", "lm_head", "up_proj"]}),
        (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    ],
)
def test_a_folded_model_answers_as_base_and_adapter_do(make_model, choices, tmp_path):
    adapter, model = trained(tmp_path, make_model, **choices)
    base = type(model.get_base_model()).from_pretrained(tmp_path / "base")
    base.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    shards = sorted(path.name for path in (tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) >= 3
    fold(
        tmp_path / "sharded",
        tmp_path / "out",
        ((module, adapter.read(module).delta()) for module in adapter.modules),
        embeddings=adapter.embeddings,
        fan_in_fan_out=adapter.fan_in_fan_out,
        shapes=adapter.shapes,
    )
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards
    folded = type(model.get_base_model()).from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(folded), logits(model), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(folded), logits(base), atol=1e-2)


def test_a_folded_classifier_answers_as_base_and_adapter_do(tmp_path):
    adapter, model = trained(tmp_path, classifier, task_type="SEQ_CLS", target_modules=["q_proj"])
    fold(
        tmp_path / "base",
        tmp_path / "out",
        ((module, adapter.read(module).delta()) for module in adapter.modules),
        saved=((name, adapter.read_saved(name)) for name in adapter.saved),
    )
    folded = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(folded), logits(model), rtol=1e-5, atol=1e-5)


def test_a_type_named_in_the_configuration_is_the_one_it_loads_in(tmp_path):
    adapter, _ = trained(tmp_path, llama, target_modules=["q_proj"])
    deltas = [(module, adapter.read(module).delta()) for module in adapter.modules]
    fold(tmp_path / "base", tmp_path / "out", deltas, dtype="bfloat16")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    base = load_file(tmp_path / "base" / "model.safetensors")
    module, delta = deltas[0]
    name = f"{module}.weight"
    assert torch.equal(
        load_file(tmp_path / "out" / "model.safetensors")[name], (base[name] + delta).bfloat16()
    )
