"""Log-likelihood of each label after each prompt; the prompt is read once for all labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sabir.model.batches import by_length, left_padded


@torch.inference_mode()
def label_scores(
    model: Any,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> torch.Tensor:
    """Sum of the log-probabilities of each label's tokens, its end token included.

    The keys and values of a prompt are computed once and shared by the labels.

    Args:
        prompts: ids of each prompt, n of them.
        labels: ids of each answer, L of them, each closed by its end token.
        on_batch: called with the number of prompts done so far.
    Returns: (n, L) float32 on the CPU, in the order given.
    """
    device = next(model.parameters()).device
    width = max(len(label) for label in labels)
    filled = torch.tensor([[*label, *[pad_id] * (width - len(label))] for label in labels], device=device)
    real = torch.tensor([[1] * len(label) + [0] * (width - len(label)) for label in labels], device=device)
    scores = torch.empty(len(prompts), len(labels))
    done = 0
    for rows in by_length(prompts, batch_size):
        ids, mask = left_padded([prompts[row] for row in rows], pad_id, device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        first = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        start = first.logits[:, -1].float()  # (b, V)
        total = start[:, filled[:, 0]] - start.logsumexp(-1, keepdim=True)  # (b, L)
        if width > 1:
            total = total + _rest(model, first.past_key_values, mask, filled, real)
        scores[rows] = total.float().cpu()
        done += len(rows)
        on_batch(done)
    return scores


def _rest(
    model: Any, cache: Any, mask: torch.Tensor, filled: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Log-probability of each label after its first token, (b, L), from the cache of the prompts."""
    n, (n_labels, width) = len(mask), filled.shape
    # not batch_repeat_interleave: caches of hybrid models lack it (transformers 5.23)
    cache.reorder_cache(torch.arange(n, device=mask.device).repeat_interleave(n_labels))
    ids = filled[:, :-1].repeat(n, 1)  # (b L, width - 1)
    seen = mask.repeat_interleave(n_labels, dim=0)
    positions = seen.sum(1, keepdim=True) + torch.arange(width - 1, device=ids.device)
    full = torch.cat([seen, real[:, :-1].repeat(n, 1)], dim=1)
    out = model(
        input_ids=ids, attention_mask=full, position_ids=positions, past_key_values=cache, use_cache=True
    )
    logits = out.logits.float()  # (b L, width - 1, V)
    picked = logits.gather(-1, filled[:, 1:].repeat(n, 1).unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    return (picked * real[:, 1:].repeat(n, 1)).sum(1).view(n, n_labels)
