"""Recipes: a merge = space x method x weights x rank, checked before anything is read.

Importing this loads no torch, so that a config can be checked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from sabir.catalog import Entry, did_you_mean, non_default
from sabir.errors import InputError, raise_all
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
DTYPES = ("float32", "bfloat16", "float16")
SERVED_AT_MOST = 512  # the largest rank vLLM takes
RANK_WORDS = ("exact", "serve", "fold")


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
        if simpler and density == 1 and self.settings.get("trim_density", 1) == 1:
            return f"At density 1 nothing is dropped: {self.method!r} is {simpler!r}."
        return ""

    def identity(self) -> dict[str, Any]:
        """What makes this merge differ from another: JSON-able, without defaults (see `from_identity`)."""
        entry = METHODS.get(self.method)
        defaults = {name: setting.default for name, setting in entry.settings.items()}
        chosen: dict[str, Any] = {"method": self.method}
        if self.space != _own_space(entry):
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
CORE = "https://arxiv.org/abs/2509.17786"
COMPRESSED = "https://arxiv.org/abs/2606.03723"

# Where the recommended settings come from: the starting points KnOTS reports (table of hyperparameters).
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
PRESETS: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, str]]]] = MappingProxyType(
    {
        "paper-eight": {
            "ties": ("ties", _TIES_TWO, {"dialect": "paper"}),
            "dare-ties": ("dare-ties", _DARE_TWO, {"dialect": "paper"}),
            "ties-knots": ("ties-knots", _TIES_TWO, {"dialect": "paper"}),
            "dare-ties-knots": ("dare-ties-knots", _DARE_TWO, {"dialect": "paper"}),
        }
    }
)

# A setting of one name means one thing in every method.
_SHARE = (lambda x: 0 < x <= 1, "a share above 0, at most 1")
RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = MappingProxyType(
    {
        "density": _SHARE,
        "trim_density": _SHARE,
        "epsilon": (lambda x: 0 <= x < 0.5, "a number from 0 to below 0.5"),
        "outliers": (lambda x: 0 <= x < 1, "a share from 0 to below 1"),
        "common": (lambda x: 0 <= x <= 1, "a share from 0 to 1"),
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
    dialect: str | None = None,
    dtype: str | None = None,
    where: str = "",
) -> Recipe:
    """The recipe of a published name or of a method, with every choice checked.

    Args:
        name: a row of `RECIPES`, a name of `METHODS`, or what other tools call one (`ALIASES`).
        space: a name of `SPACES`; the row's own, or the method's, when not given.
        settings: the method's settings; its defaults stand for what is not given.
        where: the place in the user's world that errors name.
    Raises InputError, all that is wrong at once.
    """
    row = _row(name, where)
    if space is not None:
        SPACES.get(space, where=_at(where, "space"))
    if space is not None and name not in METHODS and space != row.space:
        raise InputError(
            _at(where, "space"),
            f"{name!r} is a merge in {row.space!r} space, got {space!r}.",
            "Leave it out.",
        )
    entry = METHODS.get(row.method, where=where)
    errors: list[InputError] = []
    checked = _settings(entry, settings or {}, name, where, errors)
    checked_weights = _weights(row.weights if weights is None else weights, where, errors)
    recipe = Recipe(
        row.method,
        space or row.space,
        checked,
        checked_weights,
        rank,
        dialect or row.dialect,
        dtype or row.dtype,
    )
    errors += _words(recipe, where)
    if not errors:
        errors += _combination(recipe, entry, where)
    raise_all(errors)
    return recipe


def from_identity(identity: Mapping[str, Any], where: str = "") -> Recipe:
    """The recipe that `Recipe.identity` wrote down."""
    given = dict(identity)
    return make_recipe(given.pop("method"), where=where, **given)


def _own_space(entry: Entry) -> str:
    return "core" if entry.facts.get("matrix") else "delta"


def _row(name: str, where: str) -> Recipe:
    """The recipe of a name; a method's own name stands before a row's and another tool's."""
    if name in METHODS:
        return Recipe(name, _own_space(METHODS.get(name)))
    name = ALIASES.get(name, name)
    if name in RECIPES:
        return RECIPES[name].recipe
    known = sorted({*RECIPES, *METHODS.names()})
    raise InputError(
        where,
        f"no such recipe or merge method: {name!r}.",
        f"Known are: {', '.join(known)}.{did_you_mean(name, [*known, *ALIASES])}",
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
        if choices := _choices(known[key].hint):
            if value not in choices:
                expected = f"expected {' or '.join(map(repr, choices))}, got {value!r}."
                errors.append(InputError(_at(where, key), expected, ""))
            checked[key] = value
            continue
        whole = known[key].hint is int
        wrong = _wrong_number(key, value, whole, _at(where, key))
        if wrong:
            errors.append(wrong)
            continue
        checked[key] = by_module.converted(value, int if whole else float)
    for key, setting in known.items():
        if setting.required and key not in given:
            errors.append(InputError(_at(where, key), f"{name!r} needs this setting.", ""))
    return checked


def _choices(hint: Any) -> tuple[str, ...]:
    """The words a setting may be, () for a number: of Literal["a", "b"], with or without None."""
    options = [hint, *get_args(hint)]
    return next((get_args(option) for option in options if get_origin(option) is Literal), ())


def _wrong_number(key: str, value: Any, whole: bool, at: str) -> InputError | None:
    fits, expected = RANGES.get(key, (math.isfinite, "a finite number"))
    if whole and isinstance(value, Mapping):
        return InputError(at, f"expected {expected} for all modules, got {value!r}.", "")
    try:
        single = list(by_module.leaves(value, at))
    except InputError as error:
        return error
    for place, one in single:
        number = isinstance(one, int if whole else int | float) and not isinstance(one, bool)
        if not number or not math.isfinite(one) or not fits(one):
            return InputError(place, f"expected {expected}, got {one!r}.", "")
    return None


def _weights(given: Weights, where: str, errors: list[InputError]) -> Weights:
    at = _at(where, "weights")
    if given is None:
        return None
    for key, value in given.items() if isinstance(given, Mapping) else [("", given)]:
        if wrong := _wrong_number("weights", value, False, _at(at, key) if key else at):
            errors.append(wrong)
            return None
    if isinstance(given, Mapping):  # whether any is left is known with the adapters: see `adapter_weights`
        return {key: by_module.converted(value, float) for key, value in given.items()} or None
    if given == 0:
        errors.append(InputError(at, "every weight is 0.", "Give at least one adapter a weight."))
    return float(given)


def _words(recipe: Recipe, where: str) -> list[InputError]:
    """Names and ranks that do not exist."""
    errors = []
    rank = recipe.rank
    number = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    if not (rank is None or rank in RANK_WORDS or number):
        words = ", ".join(map(repr, RANK_WORDS))
        errors.append(
            InputError(
                _at(where, "rank"), f"expected a whole number above 0 or one of {words}, got {rank!r}.", ""
            )
        )
    for key, value, known in (("dialect", recipe.dialect, DIALECTS), ("dtype", recipe.dtype, DTYPES)):
        if value is not None and value not in known:
            errors.append(
                InputError(
                    _at(where, key),
                    f"no such {key}: {value!r}.",
                    f"Known are: {', '.join(known)}.{did_you_mean(value, known)}",
                )
            )
    return errors


def _combination(recipe: Recipe, entry: Entry, where: str) -> list[InputError]:
    """What single choices do not show: a merge that equals another, one that makes no sense, a rank that cannot be."""
    space, rules = SPACES.get(recipe.space), DIALECTS[recipe.dialect]
    linear, matrix = entry.facts.get("linear"), entry.facts.get("matrix")
    errors: list[InputError] = []

    def refuse(key: str, message: str, fix: str) -> None:
        errors.append(InputError(_at(where, key), message, fix))

    if rules.methods is not None and recipe.method not in rules.methods:
        refuse(
            "dialect", f"{recipe.dialect!r} has no {recipe.method!r}.", f"It has: {', '.join(rules.methods)}."
        )
    elif rules.spaces is not None and recipe.space not in rules.spaces:
        refuse(
            "dialect",
            f"{recipe.dialect!r} does not merge in {recipe.space!r} space.",
            f"It does in: {', '.join(rules.spaces)}.",
        )
    elif recipe.space == "factors" and recipe.dialect != "peft":
        refuse(
            "space",
            "merging A and B apart is wrong by the cross terms B_i A_j; it is here to compare with PEFT.",
            "Use 'delta', 'knots' or 'core', or say dialect: peft.",
        )
    elif linear and recipe.space != "delta" and space.facts["lossless"]:
        refuse(
            "space",
            f"{recipe.method!r} gives the same result in {recipe.space!r} as in 'delta'.",
            "Leave the space out, so that one merge has one name.",
        )
    elif matrix and recipe.space == "delta":
        refuse(
            "space",
            f"{recipe.method!r} acts on singular directions, and a delta's null space has arbitrary ones.",
            "Leave the space out: it runs in 'core', which holds every direction the adapters have.",
        )
    elif matrix and recipe.space == "knots":
        refuse(
            "space",
            f"{recipe.method!r} gives the same result in 'knots' as in 'core'.",
            "Leave the space out, so that one merge has one name.",
        )
    if recipe.rank == "exact" and not linear and not space.facts["keeps_rank"]:
        refuse(
            "rank",
            f"{recipe.method!r} in {recipe.space!r} space has full rank: an exact adapter would be "
            "larger than the base's own layers.",
            "Give a number, merge in 'knots' or 'core' space, where the result is exact, or fold it into the base.",
        )
    errors += _settings_together(recipe, entry, where)
    return errors


def _settings_together(recipe: Recipe, entry: Entry, where: str) -> list[InputError]:
    """Settings that are right alone and wrong together."""
    errors: list[InputError] = []
    rules, settings = DIALECTS[recipe.dialect], recipe.settings
    over = settings.get("trim_over")
    if over == "adapter" and rules.trim_over == "module":
        message = f"{recipe.dialect!r} trims each module by itself."
        errors.append(InputError(_at(where, "trim_over"), message, "Leave it out, or leave the dialect out."))
    if over == "adapter" and isinstance(settings.get("density"), Mapping):
        message = "a density that differs by module trims each module by itself."
        errors.append(InputError(_at(where, "trim_over"), message, "Leave it out."))
    if isinstance(settings.get("trim_density"), Mapping):
        message = "the trim after the draw is over the whole adapter: expected one number."
        errors.append(InputError(_at(where, "trim_density"), message, ""))
    if settings.get("trim_density", 1) != 1 and recipe.dialect not in ("sabir", "paper"):
        message = f"{recipe.dialect!r} has no trim after the draw."
        errors.append(
            InputError(_at(where, "trim_density"), message, "Leave it out, or leave the dialect out.")
        )
    if "epsilon" in entry.settings:
        epsilon = settings.get("epsilon", entry.settings["epsilon"].default)
        density = settings.get("density", entry.settings["density"].default)
        densities, epsilons = ([one for _, one in by_module.leaves(x)] for x in (density, epsilon))
        outside = [one for one in densities if one != 1 and not max(epsilons) < one < 1 - max(epsilons)]
        if outside:
            message = f"density {outside[0]} ± epsilon {max(epsilons)} leaves the range from 0 to 1."
            errors.append(InputError(_at(where, "epsilon"), message, "Make epsilon smaller."))
    if (
        recipe.dialect == "paper"
        and isinstance(recipe.weights, Mapping)
        and len(set(map(str, recipe.weights.values()))) > 1
    ):
        message = "'paper' weighs all adapters alike."
        errors.append(InputError(_at(where, "weights"), message, "Leave them out, or leave the dialect out."))
    return errors


def _only(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: settings[name]} if name in settings else {}


def adapter_weights(recipe: Recipe, names: Sequence[str], where: str = "") -> dict[str, Any]:
    """The weight of each adapter by name, a number or by module: as given, else the method's default.

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
    if not any(one != 0 for weight in weights.values() for _, one in by_module.leaves(weight)):
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
    compared = [name for name, weight in weights.items() if any(one for _, one in by_module.leaves(weight))]
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
        cap=SERVED_AT_MOST if recipe.rank == "serve" else None,
        on_module=on_module,
        threads=threads,
        kept=kept,
    )
