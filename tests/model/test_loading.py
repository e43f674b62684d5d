"""Bases and adapters from folders."""

from __future__ import annotations

import gc
import logging
import shutil
import warnings
import weakref

import pytest
import torch

from model.tiny import TINY_BASE, save_adapter, save_base
from sabir.model import loading
from sabir.model.loading import Models, adapted, load_base, load_tokenizer

IDS = torch.tensor([[1, 40, 41, 42]])


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma"])
def test_an_adapter_changes_the_output_and_leaves_the_base_as_it_was(bases, models, tmp_path, architecture):
    base = models(architecture)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    bare = base(input_ids=IDS).logits
    answers = []
    for seed in (1, 2):
        folder = save_adapter(tmp_path / str(seed), bases[architecture], seed=seed)
        with adapted(base, folder) as model:
            answers.append(model(input_ids=IDS).logits)
    assert not torch.allclose(answers[0], bare, atol=0.1)
    assert not torch.allclose(answers[0], answers[1], atol=0.1)
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(base(input_ids=IDS).logits, bare)


def test_the_adapter_is_taken_off_after_an_error_too(bases, models, tmp_path):
    base = models("llama")
    bare = base(input_ids=IDS).logits
    folder = save_adapter(tmp_path / "a", bases["llama"], seed=1)
    with pytest.raises(KeyError), adapted(base, folder):
        raise KeyError
    assert torch.equal(base(input_ids=IDS).logits, bare)


def test_no_adapter_is_the_base_itself(models):
    with adapted(models("llama"), None) as model:
        assert model is models("llama")


def test_loading_is_silent_and_warns_of_nothing(bases, tmp_path, capfd, caplog):
    folders = [save_adapter(tmp_path / str(seed), bases["llama"], seed=seed) for seed in (1, 2)]
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        base = load_base(bases["llama"], device="cpu")
        load_tokenizer(bases["llama"])
        for folder in folders:
            with adapted(base, folder) as model:
                model(input_ids=IDS)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_tokenizer_without_a_pad_token_gets_one(tmp_path):
    for path in TINY_BASE.glob("tokenizer*.json"):
        shutil.copyfile(path, tmp_path / path.name)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"pad_token": "<pad>",', ""))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.padding_side == "left"


def trained(folder, base, **lora):
    """An adapter of PEFT's own making, all its weights moved, and what the model with it answers."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_base(base, device="cpu"), LoraConfig(r=2, task_type="CAUSAL_LM", **lora))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.eval().save_pretrained(folder)
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
)
def test_what_an_adapter_trained_beside_linear_layers_is_loaded_and_taken_off_again(tmp_path, lora, tied):
    base = save_base(tmp_path / "base", "llama", tie_word_embeddings=tied)
    expected = trained(tmp_path / "adapter", base, **lora)
    model = load_base(base, device="cpu")
    bare = model(input_ids=IDS).logits
    assert not torch.allclose(expected, bare, atol=0.1)
    for _ in range(2):
        with adapted(model, tmp_path / "adapter") as with_it:
            torch.testing.assert_close(with_it(input_ids=IDS).logits, expected)
        assert torch.equal(model(input_ids=IDS).logits, bare)


def test_a_whole_model_takes_the_place_of_the_base_and_one_is_in_memory_at_a_time(
    tmp_path, bases, monkeypatch
):
    whole = save_base(tmp_path / "whole", "qwen3")
    adapter = save_adapter(tmp_path / "adapter", bases["llama"], seed=1)
    alive = []

    def counted(folder, *, device):
        assert not any(model() for model in alive), "the one before is gone"
        model = load_base(folder, device=device)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(loading, "load_base", counted)
    models = Models(bases["llama"], device="cpu")
    found = []
    for folder in (None, adapter, whole, adapter):
        with models.at(folder) as model:
            found.append((model.config.model_type, model(input_ids=IDS).logits))
        del model
        gc.collect()
    assert [kind for kind, _ in found] == ["llama", "llama", "qwen3", "llama"]
    assert len(alive) == 3, "the adapter found the base loaded"
    assert torch.equal(found[1][1], found[3][1])
