"""Log-likelihood of each answer a prompt may have; the prompt is read once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from sabir.model.batches import left_padded

LOGITS = 1 << 28  # values of all options at once, 1 GiB in float32: few rows at a time where options are long

Ids = Sequence[int]


@torch.inference_mode()
def option_scores(
    model: Any,
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    *,
    pad_id: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[list[float]]:
    """Sum of the log-probabilities of each option's tokens, its end token included.

    The keys and values of a prompt are computed once and shared by its options, and those of what several options
    begin with likewise.

    Args:
        prompts: ids of each prompt, n of them.
        options: ids of the answers to each prompt, at least one, each closed by its end token; labels that all
            prompts share are the same tuple n times.
        batch_size: prompts at once, at most.
        on_batch: called with the number of prompts done so far.
    Returns: a list per prompt with a number per option, in the order given.
    """
    device = next(model.parameters()).device
    found: list[list[float]] = [[] for _ in prompts]
    done = 0
    for rows in _batches(prompts, options, batch_size, model.config.get_text_config().vocab_size):
        ids, mask = left_padded([prompts[row] for row in rows], pad_id, device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        first = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        cache, trees = first.past_key_values, [_tree(_frozen(options[row])) for row in rows]
        logs = _Logs(first.logits, trees)
        if any(map(len, trees)):
            rest = _side_by_side if _takes_any_mask(model, cache) else _one_by_one
            rest(model, cache, mask, trees, logs)
        for row, scores in zip(rows, logs.by_row(), strict=True):
            found[row] = scores
        done += len(rows)
        on_batch(done)
    return found


def _batches(
    prompts: Sequence[Ids], options: Sequence[Sequence[Ids]], batch_size: int, vocabulary: int
) -> Iterator[list[int]]:
    """Indices of rows of like length, longest first, those whose options are much longer apart."""
    sizes = [len(one) * max(map(len, one)) for one in options]
    order = sorted(range(len(prompts)), key=lambda i: (-sizes[i].bit_length(), -len(prompts[i]), i))
    start = 0
    while start < len(order):
        at_most = max(1, LOGITS // (vocabulary << sizes[order[start]].bit_length()))
        end = start + min(batch_size, at_most)
        yield order[start:end]
        start = end


# --- what is read after a prompt -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """The options of a prompt as a tree whose nodes are the tokens to read after it, parents first.

    Args:
        tokens, depths: of each node, (N,); what follows the prompt has depth 0.
        sees: (N, N), which nodes a node stands below, itself among them.
        options: by option, each of its tokens after the place that foretells it: a node, or -1 for the prompt.
    """

    tokens: torch.Tensor
    depths: torch.Tensor
    sees: torch.Tensor
    options: tuple[tuple[tuple[int, int], ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)


@lru_cache(maxsize=256)  # labels are shared by all rows
def _tree(options: tuple[tuple[int, ...], ...]) -> _Tree:
    nodes: dict[tuple[int, ...], int] = {}  # by the path to it
    parents: list[int] = []
    foretold = []
    for option in options:
        at, steps = -1, []
        for depth, token in enumerate(option):
            steps.append((at, token))
            if depth + 1 == len(option):  # nothing follows it
                break
            path = option[: depth + 1]
            if path not in nodes:
                nodes[path] = len(nodes)
                parents.append(at)
            at = nodes[path]
        foretold.append(tuple(steps))
    sees = torch.eye(len(nodes), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    tokens = torch.tensor([path[-1] for path in nodes], dtype=torch.long)
    return _Tree(tokens, sees.sum(1) - 1, sees, tuple(foretold))


def _frozen(options: Sequence[Ids]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(option) for option in options)


class _Logs:
    """Collects log-probabilities of a batch: one sum per option, in float64.

    Args:
        logits: (b, 1, V), after the prompts.
    """

    def __init__(self, logits: torch.Tensor, trees: Sequence[_Tree]):
        self.counts = [len(tree.options) for tree in trees]
        self.sums = torch.zeros(sum(self.counts), dtype=torch.float64, device=logits.device)
        self.edges = []  # (row, place, token, option)
        option = 0
        for row, tree in enumerate(trees):
            for steps in tree.options:
                self.edges += [(row, place, token, option) for place, token in steps]
                option += 1
        self.add(logits, [(row, 0, token, option) for row, at, token, option in self.edges if at == -1])

    def add(self, logits: torch.Tensor, found: Sequence[tuple[int, int, int, int]]) -> None:
        """Add the log-probability of each (row, place, token) of some logits (b, n, V) to its option's sum."""
        row, place, token, option = torch.tensor(found, device=logits.device).unbind(1)
        logits = logits.float()
        logs = logits[row, place, token] - logits.logsumexp(-1)[row, place]
        self.sums.index_add_(0, option, logs.double())

    def by_row(self) -> list[list[float]]:
        """The sums, rounded to float32: what lies beyond depends on the batch."""
        return [one.tolist() for one in self.sums.float().cpu().split(self.counts)]


def _takes_any_mask(model: Any, cache: Any) -> bool:
    """Whether tokens may stand side by side after a prompt, each seeing what its own mask says and no more.

    Not so where places are counted otherwise than by rotation, or not every layer sees the whole prompt.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = model.config.get_text_config()
    return (
        type(cache) is DynamicCache
        and all(type(layer) is DynamicLayer for layer in cache.layers)
        and config._attn_implementation in ("sdpa", "eager")
        and bool(getattr(config, "rope_parameters", None))
        and not getattr(config, "alibi", False)
    )


def _side_by_side(model: Any, cache: Any, mask: torch.Tensor, trees: Sequence[_Tree], logs: _Logs) -> None:
    """Read the trees of all rows in one pass: a node sees its prompt, the nodes above it and itself.

    Source: tree attention of https://arxiv.org/abs/2305.09781, section 4.2.
    """
    device, width = mask.device, max(map(len, trees))
    ids = torch.zeros(len(trees), width, dtype=torch.long)
    depths = torch.zeros(len(trees), width, dtype=torch.long)
    sees = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)  # (b, N, N): what fills up sees itself
    for row, tree in enumerate(trees):
        n = len(tree)
        ids[row, :n], depths[row, :n], sees[row, :n, :n] = tree.tokens, tree.depths, tree.sees
    seen = torch.cat(
        [mask.bool().unsqueeze(1).expand(-1, width, -1), sees.to(device)], dim=-1
    )  # (b, N, T + N)
    dtype = cache.layers[0].keys.dtype  # attention takes no other
    barred = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    out = model(
        input_ids=ids.to(device),
        attention_mask=barred.unsqueeze(1),
        position_ids=mask.sum(1, keepdim=True) + depths.to(device),
        past_key_values=cache,
        use_cache=True,
    )
    logs.add(out.logits, [edge for edge in logs.edges if edge[1] >= 0])


def _one_by_one(model: Any, cache: Any, mask: torch.Tensor, trees: Sequence[_Tree], logs: _Logs) -> None:
    """Read each option in a row of its own, behind a copy of its prompt's keys and values."""
    device = mask.device
    options = [(row, steps) for row, tree in enumerate(trees) for steps in tree.options]
    width = max(len(steps) for _, steps in options) - 1
    read = [[token for _, token in steps[:-1]] for _, steps in options]
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in read], device=device)
    real = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in read], device=device)
    of = torch.tensor([row for row, _ in options], device=device)
    cache.reorder_cache(
        of
    )  # not batch_repeat_interleave: caches of hybrid models lack it (transformers 5.23)
    seen = mask[of]
    out = model(
        input_ids=ids,
        attention_mask=torch.cat([seen, real], dim=1),
        position_ids=seen.sum(1, keepdim=True) + torch.arange(width, device=device),
        past_key_values=cache,
        use_cache=True,
    )
    found = [
        (option, place, token, option)
        for option, (_, steps) in enumerate(options)
        for place, (_, token) in enumerate(steps[1:])
    ]
    logs.add(out.logits, found)
