"""BERTScore: how near the tokens of an answer and of the target are in an encoder's space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sabir.metrics.catalog import METRICS, mean_value, scored_rows

if TYPE_CHECKING:
    import torch

_SOURCE = "https://arxiv.org/abs/1904.09675"


Read = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


class Encoder(Protocol):
    """A model that reads texts: unit vectors of their tokens (texts, tokens, size), which of them are no padding, and
    which count (both (texts, tokens)).

    `signature` says what it is, wherever it lies; `batch_size` pairs of texts are read at once.
    """

    @property
    def signature(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    def read(self, texts: Sequence[str]) -> Read: ...


def _describe(settings: dict[str, Any]) -> list[str]:
    return [settings["encoder"].signature, "idf:no|rescale:no|special:matched-not-counted|dtype:float32"]


@METRICS.register(version=1, source=_SOURCE, value=mean_value, describe=_describe, fits=("text",))
def bertscore_f1(
    predictions: Sequence[str | None], targets: Sequence[str], *, encoder: Encoder
) -> np.ndarray:
    """Nearness of an answer's tokens to the target's in an encoder's space, as F-measure of each example.

    No IDF weights and no rescaling: unrelated texts score far above 0, so only differences mean anything, and
    only between scores of one encoder and layer.

    Args:
        encoder: one for all languages, e.g. xlm-roberta-large at layer 17.
    Returns: (n, 1) in [0, 1], NaN for unscored; an empty answer scores 0.
    Raises InputError for an encoder that cannot be loaded.
    Source: https://arxiv.org/abs/1904.09675. As in bert-score, special tokens are there to be matched and count
        in no mean. Departs: a negative cosine counts 0 in every text; there only beside padding, so that the
        batch could change a score.
    """
    statistics = scored_rows(predictions, targets, 1)
    pairs = [
        (i, prediction, target)
        for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True))
        if prediction is not None and prediction.strip() and target.strip()
    ]
    if not pairs:
        return statistics
    pairs.sort(key=lambda pair: len(pair[1]) + len(pair[2]))  # little padding
    for start in range(0, len(pairs), encoder.batch_size):
        rows, answered, actual = zip(*pairs[start : start + encoder.batch_size], strict=True)
        statistics[list(rows), 0] = _f1(encoder.read(answered), encoder.read(actual)).cpu().numpy()
    return statistics


def _f1(answered: Read, actual: Read) -> torch.Tensor:
    """F of each pair of texts, float64 (pairs,), from what the encoder reads for either side."""
    import torch

    (vectors, there, counted), (gold_vectors, gold_there, gold_counted) = answered, actual
    near = torch.bmm(vectors, gold_vectors.transpose(1, 2)).clamp(0, 1)  # (pairs, tokens, gold tokens)
    near *= there[:, :, None] & gold_there[:, None, :]
    precision = _mean(near.amax(dim=2), counted)
    recall = _mean(near.amax(dim=1), gold_counted)
    both = precision + recall
    return torch.where(both > 0, 2 * precision * recall / both.clamp(min=1e-300), 0.0)


def _mean(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean over the counted tokens, in float64; 0 where there is none."""
    return (values * counted).double().sum(dim=1) / counted.sum(dim=1).clamp(min=1)
