"""Greedy decoding against a plain loop, whatever the batch."""

from __future__ import annotations

import warnings

import pytest
import torch

from model.test_likelihood import prompts
from model.tiny import save_base
from sabir.model.generate import generate
from sabir.model.loading import load_base

END = 2


@torch.no_grad()
def slow_answer(model, prompt, stop_ids, max_new_tokens):
    """Oracle: the likeliest token, one at a time, without a cache."""
    new: list[int] = []
    while len(new) < max_new_tokens and not (new and new[-1] in stop_ids):
        new.append(int(model(input_ids=torch.tensor([prompt + new])).logits[0, -1].argmax()))
    return new


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma"])
def test_answers_are_the_greedy_ones_whatever_the_batch(models, architecture):
    model, rows = models(architecture), prompts(5)
    expected = [slow_answer(model, row, [END], 6) for row in rows]
    for batch_size in (1, 3, 5):
        found = generate(model, rows, max_new_tokens=6, stop_ids=[END], pad_id=END, batch_size=batch_size)
        assert found == expected


def test_answers_end_at_the_first_stop_token_and_hold_no_padding(models):
    model, rows = models("llama"), prompts(5, seed=4)
    free = [slow_answer(model, row, [], 8) for row in rows]
    stops = [free[0][0], free[1][3]]  # one answer ends at once, another later
    found = generate(model, rows, max_new_tokens=8, stop_ids=stops, pad_id=stops[0], batch_size=5)
    assert found == [slow_answer(model, row, stops, 8) for row in rows]
    assert len(found[0]) == 1
    assert len({len(answer) for answer in found}) > 1


@pytest.mark.parametrize("limit", [1, 5])
def test_no_answer_is_longer_than_allowed(models, limit):
    found = generate(models("llama"), prompts(3), max_new_tokens=limit, stop_ids=[], pad_id=END, batch_size=2)
    assert [len(answer) for answer in found] == [limit] * 3


def test_the_bases_own_decoding_settings_do_not_enter(tmp_path, models):
    from transformers import GenerationConfig

    folder = save_base(tmp_path / "base", "llama")
    GenerationConfig(
        do_sample=True, temperature=0.6, top_k=20, top_p=0.9, repetition_penalty=9.0, eos_token_id=[5]
    ).save_pretrained(folder)
    given = dict(max_new_tokens=12, stop_ids=[END], pad_id=END, batch_size=3)
    rows = prompts(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = generate(load_base(folder, device="cpu"), rows, **given)
    assert found == generate(models("llama"), rows, **given)


def test_decoding_says_nothing(models, capfd, caplog):
    generate(models("llama"), prompts(3), max_new_tokens=3, stop_ids=[END], pad_id=END, batch_size=2)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
