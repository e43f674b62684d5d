"""Bases and adapters from folders."""

from __future__ import annotations

import logging
import shutil
import warnings

import pytest
import torch

from model.tiny import TINY_BASE, save_adapter
from sabir.model.loading import adapted, load_base, load_tokenizer

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
