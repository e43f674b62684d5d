"""Accuracy where the options are each example's own and their lengths differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sabir.errors import InputError
from sabir.metrics.catalog import METRICS, mean_value, same_length, scored_rows


def _describe(settings: dict[str, Any]) -> list[str]:
    return ["score:loglikelihood", "per:utf8-byte", "ties:first"]


@METRICS.register(
    version=1,
    source="https://blog.eleuther.ai/multiple-choice-normalization/",
    value=mean_value,
    describe=_describe,
    fits=("choice",),
)
def accuracy_per_byte(
    predictions: Sequence[str | None],
    targets: Sequence[str],
    *,
    scores: Sequence[Mapping[str, float] | None],
) -> np.ndarray:
    """Share of examples where the option of highest log-likelihood per UTF-8 byte is the target.

    `accuracy` takes the likeliest option, which favours short ones. Bytes and not characters: a character of
    Japanese says more than one of German. Of equal options the first one counts.

    Args:
        scores: per example each option's log-likelihood (natural logarithm, all tokens summed); None where
            there is no prediction.
    Returns: (n, 1), 1.0 for right, 0.0 for wrong, NaN for unscored.
    Raises InputError for a target that is none of the options, and for an empty option.
    Source: byte-length normalisation, https://blog.eleuther.ai/multiple-choice-normalization/
    """
    statistics = scored_rows(predictions, targets, 1)
    same_length(predictions, scores, "scores")
    for i, (prediction, target, options) in enumerate(zip(predictions, targets, scores, strict=True)):
        if prediction is None:
            continue
        if not options or any(math.isnan(score) for score in options.values()):
            raise ValueError(f"example {i} has a prediction, and the scores {options!r}")
        if target not in options or "" in options:
            listed = ", ".join(map(repr, options))
            raise InputError(
                f"example {i}",
                f"the target is {target!r}, the options are {listed}.",
                "The target must be one of the options, and none of them empty.",
            )
        best = max(options, key=lambda option: options[option] / len(option.encode()))
        statistics[i, 0] = best == target
    return statistics
