"""Rows of unequal length into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


def by_length(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows in batches, longest first: little padding, and the first takes the most memory."""
    order = sorted(range(len(rows)), key=lambda row: (-len(rows[row]), row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def left_padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (b, t) filled up on the left, and their attention mask (b, t)."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
