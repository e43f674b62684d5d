"""From what a user writes to a recipe, with every choice checked before anything is read.

Importing this loads no torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from sabir.catalog import Entry, did_you_mean
from sabir.errors import InputError, raise_all
from sabir.merging import by_module
from sabir.merging.dialects import DIALECTS
from sabir.merging.methods import METHODS
from sabir.merging.published import ALIASES, PRESETS, RECIPES
from sabir.merging.recipe import Rank, Recipe, Weights, own_space
from sabir.merging.spaces import SPACES

DTYPES = ("float32", "bfloat16", "float16")
RANK_WORDS = ("exact", "serve", "fold")

# A setting of one name means one thing in every method.
MOST = sys.float_info.max
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


def _row(name: str, where: str) -> Recipe:
    """The recipe of a name; a method's own name stands before a row's and another tool's."""
    if name in METHODS:
        return Recipe(name, own_space(METHODS.get(name)))
    name = ALIASES.get(name, name)
    if name in RECIPES:
        return RECIPES[name].recipe
    if name in PRESETS:
        rows = ", ".join(PRESETS[name])
        raise InputError(
            where, f"{name!r} is a preset of several merges ({rows}).", "Put it under merges: in a config."
        )
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
        if not number or abs(one) > MOST or not math.isfinite(one) or not fits(one):
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
    if over not in (None, rules.trim_over) and recipe.dialect != "sabir" and "outliers" not in settings:
        of = {"module": "each module by itself", "adapter": "over the whole adapter"}[rules.trim_over]
        message = f"{recipe.dialect!r} trims {of}."
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
    return errors
