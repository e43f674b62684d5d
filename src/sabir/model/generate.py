"""Greedy answers in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sabir.model.batches import by_length, left_padded


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_id: int,
    pad_id: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """New ids after each prompt, at most `max_new_tokens`, in the order given; greedy decoding."""
    from transformers import GenerationConfig

    device = next(model.parameters()).device
    decoding = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_id,
        pad_token_id=pad_id,
    )
    answers: list[list[int]] = [[] for _ in prompts]
    done = 0
    for rows in by_length(prompts, batch_size):
        ids, mask = left_padded([prompts[row] for row in rows], pad_id, device)
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=decoding)
        for row, new in zip(rows, out[:, ids.shape[1] :].tolist(), strict=True):
            answers[row] = new
        done += len(rows)
        on_batch(done)
    return answers
