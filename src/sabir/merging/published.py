"""The published recipes by name: rows of one table, what other tools call them, and presets of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sabir.merging.recipe import Recipe


@dataclass(frozen=True)
class Named:
    """A published recipe by its name.

    Args:
        recommended: settings reported to work well: where a search starts, and what a config without merges: takes.
    """

    recipe: Recipe
    source: str
    recommended: Mapping[str, float] = field(default_factory=dict)


TIES_START = {"density": 1.0, "scale": 0.5}
DARE_START = {"density": 0.2, "scale": 0.4}
TASK_ARITHMETIC = "https://arxiv.org/abs/2212.04089"
TIES = "https://arxiv.org/abs/2306.01708"
DARE = "https://arxiv.org/abs/2311.03099"
KNOTS = "https://arxiv.org/abs/2410.19735"
CORE = "https://arxiv.org/abs/2509.17786"
COMPRESSED = "https://arxiv.org/abs/2606.03723"

# The recommended settings of the TIES, DARE and KnOTS rows are the starting points KnOTS reports (table of
# hyperparameters); of the others they are the method's defaults, or those of their papers.
RECIPES: Mapping[str, Named] = MappingProxyType(
    {
        "average": Named(Recipe("linear"), TASK_ARITHMETIC),
        "task-arithmetic": Named(Recipe("linear", weights=1.0), TASK_ARITHMETIC, {"scale": 0.4}),
        "ties": Named(Recipe("ties"), TIES, TIES_START),
        "dare": Named(Recipe("dare"), DARE, {"density": 0.2}),
        "dare-ties": Named(Recipe("dare_ties"), DARE, DARE_START),
        "magnitude": Named(Recipe("magnitude"), "https://arxiv.org/abs/1506.02626", {"density": 0.2}),
        "della": Named(Recipe("della"), "https://arxiv.org/abs/2406.11617", {"density": 0.4, "scale": 0.5}),
        "breadcrumbs": Named(Recipe("breadcrumbs"), "https://arxiv.org/abs/2312.06795", {"density": 0.9}),
        "sce": Named(Recipe("sce"), "https://arxiv.org/abs/2408.07990", {"density": 0.1}),
        "ties-knots": Named(Recipe("ties", "knots"), KNOTS, TIES_START),
        "dare-ties-knots": Named(Recipe("dare_ties", "knots"), KNOTS, DARE_START),
        "ties-core": Named(Recipe("ties", "core"), CORE, TIES_START),
        "dare-ties-core": Named(Recipe("dare_ties", "core"), CORE, DARE_START),
        "tsv-core": Named(Recipe("tsv", "core"), "https://arxiv.org/abs/2412.00081"),
        "iso-c-core": Named(Recipe("iso_c", "core"), "https://arxiv.org/abs/2502.04959"),
        "iso-cts-core": Named(Recipe("iso_cts", "core"), "https://arxiv.org/abs/2502.04959"),
        "average-ctm": Named(Recipe("linear", "compressed"), COMPRESSED),
        "ties-ctm": Named(Recipe("ties", "compressed"), COMPRESSED, TIES_START),
        "dare-ties-ctm": Named(Recipe("dare_ties", "compressed"), COMPRESSED, DARE_START),
    }
)

# What others call the same: PEFT's combination types, mergekit's methods, the papers' letters.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "cat": "task-arithmetic",
        "svd": "task-arithmetic",
        "task_arithmetic": "task-arithmetic",
        "ties_svd": "ties",
        "dare_linear": "dare",
        "dare_linear_svd": "dare",
        "dare_ties_svd": "dare-ties",
        "magnitude_prune": "magnitude",
        "magnitude_prune_svd": "magnitude",
        "tsvm": "tsv-core",
        "knots-ties": "ties-knots",
        "knots-dare-ties": "dare-ties-knots",
        "TA": "task-arithmetic",
        "T": "ties",
        "DT": "dare-ties",
        "TS": "ties-knots",
        "DTS": "dare-ties-knots",
    }
)

# The eight merged models of arXiv 2601.16127: four recipes, two settings each. Which two is not published; the
# starting points KnOTS reports and one other density are ours.
_TIES_TWO = {"density": [0.2, 1.0], "scale": 0.5}
_DARE_TWO = {"density": [0.2, 0.5], "scale": 0.4}
_SCALES = {"scale": [1.0, 2.0, 3.0]}  # of the mean: n of n adapters is their sum
PRESETS: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, str]]]] = MappingProxyType(
    {
        "paper-eight": {
            "ties": ("ties", _TIES_TWO, {"dialect": "paper"}),
            "dare-ties": ("dare-ties", _DARE_TWO, {"dialect": "paper"}),
            "ties-knots": ("ties-knots", _TIES_TWO, {"dialect": "paper"}),
            "dare-ties-knots": ("dare-ties-knots", _DARE_TWO, {"dialect": "paper"}),
        },
        # What every other merge must beat: the mean, and the mean by training rows, with scales to choose among.
        "averages": {
            "average": ("average", _SCALES, {}),
            "weighted": ("average", _SCALES, {"weights": "rows"}),
        },
    }
)
