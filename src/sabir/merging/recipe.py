"""Recipes: a merge = space x method x weights x rank, checked before anything is read.

Importing this loads no torch, so that a config can be checked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sabir.catalog import Entry, did_you_mean, non_default
from sabir.errors import InputError, raise_all
from sabir.merging.methods import METHODS
from sabir.merging.spaces import SPACES

if TYPE_CHECKING:
    from sabir.lora.files import Adapter
    from sabir.merging.streaming import Merged

Weights = Mapping[str, float] | float | None
Rank = int | str | None


@dataclass(frozen=True)
class Recipe:
    """How adapters become one.

    Args:
        method: a name of `METHODS`.
        space: a name of `SPACES`.
        settings: the method's keyword-only parameters, where given.
        weights: by adapter name, or one number for all; None takes the method's default.
        rank: of the result, in every module; "exact" and None take the sum of the ranks.
    """

    method: str
    space: str = "delta"
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights = None
    rank: Rank = None

    @property
    def equivalent(self) -> str:
        """The simpler recipe this one equals, as a sentence, or ""."""
        without_drop = {"dare": "linear", "dare_ties": "ties"}.get(self.method)
        if without_drop and self.settings.get("density") == 1:
            return f"At density 1 nothing is dropped: {self.method!r} is {without_drop!r}."
        return ""

    def identity(self) -> dict[str, Any]:
        """What makes this merge differ from another: JSON-able, without defaults (see `from_identity`)."""
        entry = METHODS.get(self.method)
        defaults = {name: setting.default for name, setting in entry.settings.items()}
        chosen: dict[str, Any] = {"method": self.method}
        if self.space != "delta":
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
        if isinstance(self.rank, int):
            chosen["rank"] = self.rank
        return chosen


@dataclass(frozen=True)
class Named:
    """A published recipe by its name.

    Args:
        recommended: settings reported to work well: where a search may start, never set by themselves.
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

# Where the recommended settings come from: the starting points KnOTS reports (table of hyperparameters).
RECIPES: Mapping[str, Named] = MappingProxyType(
    {
        "average": Named(Recipe("linear"), TASK_ARITHMETIC),
        "task-arithmetic": Named(Recipe("linear", weights=1.0), TASK_ARITHMETIC, {"scale": 0.4}),
        "ties": Named(Recipe("ties"), TIES, TIES_START),
        "dare": Named(Recipe("dare"), DARE, {"density": 0.2}),
        "dare-ties": Named(Recipe("dare_ties"), DARE, DARE_START),
        "ties-knots": Named(Recipe("ties", "knots"), KNOTS, TIES_START),
        "dare-ties-knots": Named(Recipe("dare_ties", "knots"), KNOTS, DARE_START),
    }
)

# A setting of one name means one thing in every method.
RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = MappingProxyType(
    {
        "density": (lambda x: 0 < x <= 1, "a share above 0, at most 1"),
        "seed": (lambda x: x >= 0, "a whole number, 0 or more"),
    }
)


def make_recipe(
    name: str,
    *,
    space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: Weights = None,
    rank: Rank = None,
    where: str = "",
) -> Recipe:
    """The recipe of a published name or of a method, with every choice checked.

    Args:
        name: a row of `RECIPES` or a name of `METHODS`.
        space: a name of `SPACES`; the row's own, or "delta", when not given.
        settings: the method's settings; its defaults stand for what is not given.
        where: the place in the user's world that errors name.
    Raises InputError, all that is wrong at once.
    """
    row = _row(name, where)
    if space is not None:
        SPACES.get(space, where=_at(where, "space"))
    if space is not None and name in RECIPES and name not in METHODS and space != row.space:
        raise InputError(
            _at(where, "space"),
            f"{name!r} is a merge in {row.space!r} space, got {space!r}.",
            "Leave it out.",
        )
    entry = METHODS.get(row.method, where=where)
    errors: list[InputError] = []
    checked = _settings(entry, settings or {}, name, where, errors)
    checked_weights = _weights(row.weights if weights is None else weights, where, errors)
    recipe = Recipe(row.method, space or row.space, checked, checked_weights, rank)
    errors += _combination(recipe, entry, where)
    raise_all(errors)
    return recipe


def from_identity(identity: Mapping[str, Any], where: str = "") -> Recipe:
    """The recipe that `Recipe.identity` wrote down."""
    given = dict(identity)
    return make_recipe(given.pop("method"), where=where, **given)


def _row(name: str, where: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name].recipe
    if name in METHODS:
        return Recipe(name)
    known = sorted({*RECIPES, *METHODS.names()})
    raise InputError(
        where,
        f"no such recipe or merge method: {name!r}.",
        f"Known are: {', '.join(known)}.{did_you_mean(name, known)}",
    )


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _settings(
    entry: Entry, given: Mapping[str, Any], name: str, where: str, errors: list[InputError]
) -> dict[str, Any]:
    """The settings with the types the method declares; what is wrong goes to `errors`."""
    known, checked = entry.settings, {}
    for key, value in given.items():
        if key not in known:
            takes = f"{name!r} takes: {', '.join(sorted(known))}.{did_you_mean(key, known)}"
            errors.append(InputError(_at(where, key), "no such setting.", takes))
            continue
        whole = known[key].hint is int
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        fits, expected = RANGES.get(key, (math.isfinite, "a finite number"))
        if not number or not math.isfinite(value) or not fits(value):
            errors.append(InputError(_at(where, key), f"expected {expected}, got {value!r}.", ""))
            continue
        checked[key] = value if whole else float(value)
    for key, setting in known.items():
        if setting.required and key not in given:
            errors.append(InputError(_at(where, key), f"{name!r} needs this setting.", ""))
    return checked


def _weights(given: Weights, where: str, errors: list[InputError]) -> Weights:
    at = _at(where, "weights")
    if given is None:
        return None
    for key, value in given.items() if isinstance(given, Mapping) else [("", given)]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            errors.append(
                InputError(_at(at, key) if key else at, f"expected a finite number, got {value!r}.", "")
            )
            return None
    if isinstance(given, Mapping):
        if given and not any(given.values()):
            errors.append(InputError(at, "every weight is 0.", "Give at least one adapter a weight."))
        return {key: float(value) for key, value in given.items()} or None
    if given == 0:
        errors.append(InputError(at, "every weight is 0.", "Give at least one adapter a weight."))
    return float(given)


def _combination(recipe: Recipe, entry: Entry, where: str) -> list[InputError]:
    """What single choices do not show: a merge that equals another, a rank that cannot be."""
    space, rank = SPACES.get(recipe.space), recipe.rank
    errors = []
    if entry.facts["linear"] and recipe.space != "delta":
        errors.append(
            InputError(
                _at(where, "space"),
                f"{recipe.method!r} gives the same result in {recipe.space!r} as in 'delta'.",
                "Leave the space out, so that one merge has one name.",
            )
        )
    if not (
        rank is None or rank == "exact" or (isinstance(rank, int) and not isinstance(rank, bool) and rank > 0)
    ):
        errors.append(
            InputError(_at(where, "rank"), f"expected a whole number above 0 or 'exact', got {rank!r}.", "")
        )
    if rank == "exact" and not entry.facts["linear"] and not space.facts["keeps_rank"]:
        errors.append(
            InputError(
                _at(where, "rank"),
                f"{recipe.method!r} in {recipe.space!r} space has full rank: an exact adapter would be "
                "larger than the base's own layers.",
                "Give a number, or merge in 'knots' space, where the result is exact.",
            )
        )
    return errors


def adapter_weights(recipe: Recipe, names: Sequence[str], where: str = "") -> dict[str, float]:
    """The weight of each adapter by name: as given, else the method's default.

    Raises InputError for a name that is no adapter, and where a weight is missing that has no default of
    its own (1/n is one only when nobody has another).
    """
    at = _at(where, "weights")
    default = METHODS.get(recipe.method).facts["weight"]
    given = recipe.weights
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            known = f"Adapters are: {', '.join(names)}.{did_you_mean(unknown[0], names)}"
            raise InputError(_at(at, unknown[0]), "no such adapter.", known)
        missing = [name for name in names if name not in given]
        if missing and default == "mean":
            raise InputError(
                at, f"no weight for {', '.join(map(repr, missing))}.", "Name every adapter; 0 leaves one out."
            )
        weights = {name: given.get(name, default) for name in names}
    else:
        each = given if given is not None else 1 / len(names) if default == "mean" else default
        weights = dict.fromkeys(names, each)
    if not any(weights.values()):
        raise InputError(at, "every weight is 0.", "Give at least one adapter a weight.")
    return weights


def merge(
    recipe: Recipe,
    adapters: Mapping[str, Adapter],
    *,
    on_module: Callable[[int, int], None] | None = None,
) -> Merged:
    """The merge of adapters, computed module by module as it is iterated.

    Check them first: `check_supported` for each, `check_mergeable` for all.

    Args:
        adapters: by the name that weights use.
        on_module: called with (modules done, modules in total) after each module.
    """
    from sabir.merging.streaming import Merged

    return Merged(
        adapters,
        method=METHODS.get(recipe.method),
        space=SPACES.get(recipe.space),
        settings=recipe.settings,
        weights=adapter_weights(recipe, list(adapters)),
        rank=recipe.rank if isinstance(recipe.rank, int) else None,
        on_module=on_module,
    )
