"""Recipes: a merge = space x method x weights x rank.

Importing this loads no torch, so that a config can be checked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sabir.catalog import Entry, did_you_mean, non_default
from sabir.errors import InputError
from sabir.lora.write import SERVED_RANKS
from sabir.merging import by_module
from sabir.merging.dialects import DIALECTS
from sabir.merging.methods import METHODS
from sabir.merging.spaces import SPACES

if TYPE_CHECKING:
    from sabir.lora.files import Adapter
    from sabir.merging.kept import Kept
    from sabir.merging.streaming import Merged

Weights = Mapping[str, Any] | float | None
Rank = int | str | None


@dataclass(frozen=True)
class Recipe:
    """How adapters become one.

    Args:
        method: a name of `METHODS`.
        space: a name of `SPACES`.
        settings: the method's keyword-only parameters, where given; numbers may differ by module (see `by_module`).
        weights: by adapter name, or one number for all; None takes the method's default.
        rank: of the result, in every module; "exact" and None take the sum of the ranks (in `compressed` space the
            largest), "serve" at most 512, and "fold" gives no adapter: the delta is added to the base, whole.
        dialect: a name of `DIALECTS`: whose rules hold where programs differ.
        dtype: of what is written, cast once at the end; None: float32, and of a folded model the base's own.
    """

    method: str
    space: str = "delta"
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights = None
    rank: Rank = None
    dialect: str = "sabir"
    dtype: str | None = None

    @property
    def equivalent(self) -> str:
        """The simpler recipe this one equals, as a sentence, or ""."""
        density = self.settings.get("density")
        without = {"dare": "linear", "dare_ties": "ties", "della": "ties", "della_linear": "linear"}
        without |= {"magnitude": "linear", "breadcrumbs": "linear", "breadcrumbs_ties": "ties"}
        simpler = without.get(self.method)
        if simpler == "ties" and self.method in DIALECTS[self.dialect].adds_up:
            return ""  # there they are summed, which "ties" never is
        if simpler and density == 1:
            trim = self.settings.get("trim_density", 1)
            then = "" if trim == 1 else f" at density {trim}"
            return f"At density 1 nothing is dropped: {self.method!r} is {simpler!r}{then}."
        even = {"breadcrumbs": "magnitude", "breadcrumbs_ties": "ties"}.get(self.method)
        if even and self.settings.get("outliers") == 0 and self.dialect == "sabir":
            return f"Without outliers {self.method!r} is {even!r} that trims each module."
        return ""

    def identity(self) -> dict[str, Any]:
        """What makes this merge differ from another: JSON-able, without defaults (see `from_identity`)."""
        entry = METHODS.get(self.method)
        defaults = {name: setting.default for name, setting in entry.settings.items()}
        chosen: dict[str, Any] = {"method": self.method}
        if self.space != own_space(entry):
            chosen["space"] = self.space
        if settings := non_default(self.settings, defaults):
            chosen["settings"] = dict(sorted(settings.items()))
        weights = self.weights
        if isinstance(weights, Mapping):
            weights = {
                name: weights[name] for name in sorted(weights) if weights[name] != entry.facts["weight"]
            }
        if weights not in (None, {}) and weights != entry.facts["weight"]:
            chosen["weights"] = weights
        if self.rank not in (None, "exact"):
            chosen["rank"] = self.rank
        if self.dialect != "sabir":
            chosen["dialect"] = self.dialect
        if self.dtype is not None and (self.dtype != "float32" or self.rank == "fold"):
            chosen["dtype"] = self.dtype
        return chosen


def own_space(entry: Entry) -> str:
    """The space a method merges in when none is named."""
    return "core" if entry.facts.get("matrix") else "delta"


def _only(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: settings[name]} if name in settings else {}


def adapter_weights(recipe: Recipe, names: Sequence[str], where: str = "") -> dict[str, Any]:
    """The weight of each adapter by name, a number or by module: as given, else the method's default.

    Raises InputError for a name that is no adapter, and where a weight is missing that has no default of
    its own (1/n is one only when nobody has another).
    """
    at = f"{where}.weights" if where else "weights"
    default = METHODS.get(recipe.method).facts["weight"]
    given = recipe.weights
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            known = f"Adapters are: {', '.join(names)}.{did_you_mean(unknown[0], names)}"
            raise InputError(f"{at}.{unknown[0]}", "no such adapter.", known)
        missing = [name for name in names if name not in given]
        if missing and default == "mean":
            raise InputError(
                at, f"no weight for {', '.join(map(repr, missing))}.", "Name every adapter; 0 leaves one out."
            )
        weights = {name: given.get(name, default) for name in names}
    else:
        each = given if given is not None else 1 / len(names) if default == "mean" else default
        weights = dict.fromkeys(names, each)
    if recipe.dialect == "paper" and len(set(map(str, weights.values()))) > 1:
        raise InputError(
            at, "'paper' weighs all adapters alike.", "Give all the same, or leave the dialect out."
        )
    if not any(map(by_module.anywhere, weights.values())):
        raise InputError(at, "every weight is 0.", "Give at least one adapter a weight.")
    return weights


def merge(
    recipe: Recipe,
    adapters: Mapping[str, Adapter],
    *,
    on_module: Callable[[int, int], None] | None = None,
    threads: int | None = None,
    kept: Kept | None = None,
) -> Merged:
    """The merge of adapters, computed module by module as it is iterated.

    Check them first: `check_supported` for each, `check_mergeable` for all.

    Args:
        adapters: by the name that weights use.
        on_module: called with (modules done, modules in total) after each module.
        threads: modules merged side by side; as many as torch uses when not given.
        kept: facts about single adapters from earlier merges.
    """
    from sabir.merging.streaming import Merged

    weights = adapter_weights(recipe, list(adapters))
    if len(adapters) == 1 and recipe.dialect == "peft":  # which takes "linear" then, whatever was asked
        recipe = replace(recipe, method="linear", settings=_only(recipe.settings, "scale"))
    compared = [name for name, weight in weights.items() if by_module.anywhere(weight)]
    if (
        len(compared) == 1
        and METHODS.get(recipe.method).facts.get("compares")
        and recipe.settings.get("density", 0) != 1
    ):
        raise InputError(
            "",
            f"{recipe.method!r} keeps what adapters differ in, and {compared[0]!r} is alone.",
            "Give two adapters or more, or density 1.",
        )
    settings = dict(recipe.settings)
    if isinstance(settings.get("density"), Mapping) and "trim_over" in METHODS.get(recipe.method).settings:
        settings["trim_over"] = "module"  # a share that differs by module is one of each module
    return Merged(
        adapters,
        method=METHODS.get(recipe.method),
        space=SPACES.get(recipe.space),
        dialect=DIALECTS[recipe.dialect],
        settings=settings,
        weights=weights,
        rank=recipe.rank if isinstance(recipe.rank, int) else None,
        cap=SERVED_RANKS[-1] if recipe.rank == "serve" else None,
        on_module=on_module,
        threads=threads,
        kept=kept,
    )
