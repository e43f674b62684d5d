"""Where programs that merge differ under one name: seven questions, and four sets of answers.

`sabir` is ours. The others give what those programs give on the same input and, where chance enters, on the
same draw: masks come from our own counter-based generator in every dialect, as theirs cannot be repeated.
Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

TrimOver = Literal["adapter", "module"]


@dataclass(frozen=True)
class Dialect:
    """One program's answers.

    Args:
        trim_over: what a density is a share of: the whole adapter, or each module.
        extra: how many entries are kept beyond floor(density * N).
        exactly: of equal entries at the edge, only so many as the count has room for are kept (the first by
            position); else all of them.
        floats: floor(density * N) is taken of the float product, so 0.29 of 100 keeps 28 (their arithmetic).
        at_least: entries kept however small the density.
        weighted_votes: signs are elected on the weighted entries.
        majority: a zero sum takes the majority sign of the whole merge; else it counts as positive.
        divide: what the mean of agreeing entries divides by: the sizes of their weights, the weights with
            their signs, or their count.
        adds_up: methods whose agreeing entries are added up, not averaged.
        same_size: a random draw is rescaled by the one number per module that restores the sum of magnitudes;
            else each entry by 1 / its own chance.
        none: the majority sign where there is none.
        least_sigma: singular directions up to this size are cut, whatever the largest; 0: relative to it.
        least_energy: SCE weighs all adapters alike where the sum of their mean squares is no larger.
        methods, spaces: what that program has; None: all.
    """

    trim_over: TrimOver
    extra: int
    exactly: bool
    floats: bool
    at_least: int
    weighted_votes: bool
    majority: bool
    divide: Literal["sizes", "weights", "count"]
    same_size: bool
    adds_up: tuple[str, ...] = ()
    none: float = 0.0
    least_sigma: float = 0.0
    least_energy: float = 0.0
    methods: tuple[str, ...] | None = None
    spaces: tuple[str, ...] | None = None
    source: str = ""


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "sabir": Dialect(
            trim_over="adapter",
            extra=0,
            exactly=False,
            floats=False,
            at_least=1,
            weighted_votes=True,
            majority=True,
            divide="sizes",
            same_size=False,
        ),
        "paper": Dialect(
            trim_over="adapter",
            extra=1,
            exactly=False,
            floats=True,
            at_least=1,
            weighted_votes=False,
            majority=True,
            divide="count",
            same_size=False,
            none=-1.0,
            least_sigma=1e-5,
            methods=("linear", "ties", "dare", "dare_ties"),
            spaces=("delta", "knots"),
            source="https://arxiv.org/abs/2410.19735",
        ),
        "mergekit": Dialect(
            trim_over="module",
            extra=0,
            exactly=True,
            floats=True,
            at_least=1,
            weighted_votes=True,
            majority=False,
            divide="weights",
            same_size=True,
            adds_up=("dare_ties", "breadcrumbs_ties"),
            least_energy=1e-6,
            methods=(
                *("linear", "ties", "dare", "dare_ties", "della", "della_linear"),
                *("breadcrumbs", "breadcrumbs_ties", "sce"),
            ),
            spaces=("delta",),
            source="https://github.com/arcee-ai/mergekit",
        ),
        "peft": Dialect(
            trim_over="module",
            extra=0,
            exactly=True,
            floats=True,
            at_least=0,
            weighted_votes=False,
            majority=False,
            divide="count",
            same_size=False,
            methods=("linear", "ties", "dare", "dare_ties", "magnitude"),
            spaces=("delta", "factors"),
            source="https://github.com/huggingface/peft",
        ),
    }
)
