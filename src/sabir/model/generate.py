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
    stop_ids: Sequence[int],
    pad_id: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """New ids after each prompt, greedily: at most `max_new_tokens`, the last one of `stop_ids` or not."""
    from transformers import GenerationConfig

    device = next(model.parameters()).device
    decoding = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
    )
    answers: list[list[int]] = [[] for _ in prompts]
    done = 0
    for rows in by_length(prompts, batch_size):
        ids, mask = left_padded([prompts[row] for row in rows], pad_id, device)
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=decoding)
        for row, new in zip(rows, out[:, ids.shape[1] :].tolist(), strict=True):
            stop = next((place for place, token in enumerate(new) if token in stop_ids), len(new))
            answers[row] = new[: stop + 1]  # what follows is padding
        done += len(rows)
        on_batch(done)
    return answers
