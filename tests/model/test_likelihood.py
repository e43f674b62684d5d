"""Label scores against a plain loop that reads every row alone, from its start, without a cache."""

from __future__ import annotations

import pytest
import torch

from model.tiny import ARCHITECTURES
from sabir.model.batches import by_length, left_padded
from sabir.model.likelihood import label_scores

END = 2
# different lengths; the second is the beginning of the third; the first two of one token and the end
LABELS = [[700, END], [701, END], [701, 702, END], [703, 704, 705, 706, END], [701, 702, 707, END]]


def prompts(count, *, low=1, high=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high, (count,), generator=generator).tolist()
    return [[1, *torch.randint(3, 8000, (n,), generator=generator).tolist()] for n in lengths]


@torch.no_grad()
def slow_scores(model, prompts, labels):
    """Oracle: one row at a time, no cache, no padding, float64 sums."""
    scores = torch.zeros(len(prompts), len(labels), dtype=torch.float64)
    for i, prompt in enumerate(prompts):
        for j, label in enumerate(labels):
            logits = model(input_ids=torch.tensor([prompt + label]), use_cache=False).logits[0].double()
            logs = logits.log_softmax(-1)
            scores[i, j] = sum(logs[len(prompt) + k - 1, token] for k, token in enumerate(label))
    return scores


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_a_plain_loop_for_every_architecture(models, architecture):
    model, rows = models(architecture), prompts(6)
    found = label_scores(model, rows, LABELS, pad_id=END, batch_size=4)
    expected = slow_scores(model, rows, LABELS)
    assert expected.std() > 0.5  # labels differ by far more than the tolerance
    # float32 sums of five terms of size 10
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_batch_size_and_order_change_no_score(models, architecture):
    model, rows = models(architecture), prompts(9, seed=1)
    alone = label_scores(model, rows, LABELS, pad_id=END, batch_size=1)
    for batch_size in (2, 4, 9):
        together = label_scores(model, rows, LABELS, pad_id=END, batch_size=batch_size)
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    turned = label_scores(model, rows[::-1], LABELS[::-1], pad_id=END, batch_size=4)
    torch.testing.assert_close(turned.flip(0, 1), alone, atol=1e-4, rtol=0)


def test_the_padding_token_changes_no_score(models):
    model, rows = models("llama"), prompts(5, seed=2)
    one, other = (label_scores(model, rows, LABELS, pad_id=pad, batch_size=5) for pad in (0, 4321))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_labels_of_one_token_need_no_second_pass(models):
    model, rows = models("llama"), prompts(3, seed=3)
    found = label_scores(model, rows, [[700], [701]], pad_id=END, batch_size=2)
    torch.testing.assert_close(found.double(), slow_scores(model, rows, [[700], [701]]), atol=1e-4, rtol=0)


def test_progress_counts_every_prompt(models):
    done = []
    label_scores(models("llama"), prompts(5), LABELS, pad_id=END, batch_size=2, on_batch=done.append)
    assert done == [2, 4, 5]


def test_padding_stands_on_the_left():
    ids, mask = left_padded([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_batches_hold_every_row_once_longest_first():
    rows = [[0] * n for n in (3, 1, 5, 3, 2)]
    assert list(by_length(rows, 2)) == [[2, 0], [3, 4], [1]]
    assert list(by_length([], 2)) == []
