"""The section `merges`: recipes by name, settings, grids, searches, presets."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

from sabir.catalog import did_you_mean
from sabir.config.values import (
    DEFAULT_MERGES,
    MAX_MEMBERS,
    Grid,
    MergeConfig,
    Scalar,
    SearchConfig,
    Value,
)
from sabir.settings import Range, Reader, Text, shown
from sabir.strict_yaml import KeyPath


@dataclass(frozen=True)
class Member:
    """One merge to make: the name of the model and the settings it has there."""

    name: str
    settings: Mapping[str, Value]


def members(merge: MergeConfig) -> list[Member]:
    """The models one entry of `merges` stands for: one, or one per point of its grid."""
    grids = {k: v.values for k, v in sorted(merge.settings.items()) if isinstance(v, Grid)}
    single = {k: v for k, v in merge.settings.items() if not isinstance(v, Grid)}
    found = []
    for values in itertools.product(*grids.values()):
        point = dict(zip(grids, values, strict=True))
        inside = ",".join(f"{name}={_written(value)}" for name, value in point.items())
        name = f"merged/{merge.name}" + (f"[{inside}]" if inside else "")
        found.append(Member(name, dict(sorted({**single, **point}.items()))))
    return found


_OWN_KEYS = ("recipe", "method", "space", "weights", "rank", "dialect", "dtype", "search")
_PRESET_KEYS = ("preset", "rank", "dtype")
_RANK = Annotated[int, Range(ge=1)] | Literal["exact", "serve", "fold"] | None


def read_merges(
    reader: Reader, given: Mapping[str, Any], languages: Collection[str]
) -> dict[str, MergeConfig]:
    merges = given.get("merges")
    if merges is None:
        return {name: _default_merge(name) for name in DEFAULT_MERGES}
    if isinstance(merges, str):
        merges = [merges]
    if isinstance(merges, list):
        merges = _by_own_names(reader, merges)
    else:
        merges = reader.mapping(given, ("merges",))
    read: dict[str, MergeConfig] = {}
    for name in merges:
        for merge in _entry(reader, name, merges, languages):
            if merge.name != name and (merge.name in read or merge.name in merges):
                fix = "Give your own entry another name."
                reader.wrong(("merges", name), f"its preset has a merge named {merge.name!r} too.", fix)
            read[merge.name] = merge
    return read


def _by_own_names(reader: Reader, names: Sequence[Any]) -> dict[str, Any]:
    """A list of recipes and presets, each under its own name."""
    for place, name in enumerate(names):
        if not isinstance(name, str):
            fix = "A list holds names; write settings as `name: {method: ties, density: 0.5}`."
            reader.wrong(("merges", place), f"{shown(name)} is no name of a recipe.", fix)
        elif name in names[:place]:
            reader.wrong(("merges", place), f"{name!r} stands there twice.", "Keep one of the two.")
    return {name: name for name in names if isinstance(name, str)}


def _entry(
    reader: Reader, name: str, merges: Mapping[str, Any], languages: Collection[str]
) -> list[MergeConfig]:
    """The merges that one entry stands for: one, or the rows of a preset."""
    path: KeyPath = ("merges", name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        reader.wrong(path, f"{shown(name)} cannot name a merge.", "Use letters, digits, - and _.")
    given = merges[name]
    if isinstance(given, str):
        given = {"preset" if _is_preset(given) else "recipe": given}
    elif given is not None and not isinstance(given, dict):
        reader.mapping(merges, path)
        return []
    given = given or {}
    if "preset" in given:
        return _preset(reader, given, path, languages)
    merge = _merge(reader, name, given, path, languages)
    return [] if merge is None else [merge]


def _is_preset(name: str) -> bool:
    from sabir.merging.published import PRESETS, RECIPES

    return name in PRESETS and name not in RECIPES


def _preset(
    reader: Reader, given: Mapping[str, Any], path: KeyPath, languages: Collection[str]
) -> list[MergeConfig]:
    """The rows of a published set of merges, each an entry of its own."""
    from sabir.merging.published import PRESETS

    reader.refuse_unknown(given, _PRESET_KEYS, path, "a preset")
    preset = reader.one(given, "preset", Text, path, None)
    if preset not in PRESETS:
        if preset is not None:
            fix = f"Known are: {', '.join(PRESETS)}.{did_you_mean(preset, PRESETS)}"
            reader.wrong((*path, "preset"), f"no such preset: {preset!r}.", fix)
        return []
    rank = reader.one(given, "rank", _RANK, path, None)
    dtype = reader.one(given, "dtype", Text, path, None)
    merges = []
    for name, (recipe, settings, choices) in PRESETS[preset].items():
        values = {k: Grid(tuple(v)) if isinstance(v, list | tuple) else v for k, v in settings.items()}
        weights: Literal["rows"] | None = "rows" if choices.get("weights") == "rows" else None
        merge = MergeConfig(
            name, recipe, None, None, values, weights, rank, dialect=choices.get("dialect"), dtype=dtype
        )
        if (checked := _checked_merge(reader, merge, path, languages)) is not None:
            merges.append(checked)
    return merges


def _merge(
    reader: Reader, name: str, given: Mapping[str, Any], path: KeyPath, languages: Collection[str]
) -> MergeConfig | None:
    before = len(reader.errors)
    if ("recipe" in given) == ("method" in given):
        found = "recipe: and method: are both given." if given else "nothing is given."
        found = "neither recipe: nor method: is given." if given and "recipe" not in given else found
        fix = f"Write one, such as `{name}: {{method: ties}}`; see `sabir list recipes`."
        reader.wrong(path, found, fix)
    settings = _merge_settings(reader, given, path)
    search = None
    if given.get("search") is not None:
        search = reader.section(SearchConfig(), given, (*path, "search"))
        for key in (key for key, value in settings.items() if isinstance(value, Grid)):
            fix = "Leave the setting out, so that the search looks for it, or leave out search:."
            reader.wrong((*path, key), "a grid and a search do not go together.", fix)
    merge = MergeConfig(
        name=name,
        recipe=reader.one(given, "recipe", Text, path, None),
        method=reader.one(given, "method", Text, path, None),
        space=reader.one(given, "space", Text, path, None),
        settings=settings,
        weights=_weights(reader, given, path, languages),
        rank=reader.one(given, "rank", _RANK, path, None),
        dialect=reader.one(given, "dialect", Text, path, None),
        dtype=reader.one(given, "dtype", Text, path, None),
        search=search,
    )
    if len(reader.errors) > before:
        return None
    return _checked_merge(reader, merge, path, languages)


def _merge_settings(reader: Reader, given: Mapping[str, Any], path: KeyPath) -> dict[str, Value | Grid]:
    settings: dict[str, Value | Grid] = {}
    for name, value in given.items():
        at = (*path, name)
        if name in _OWN_KEYS:
            continue
        if isinstance(value, dict) and "grid" in value:
            values = value["grid"]
            if len(value) > 1:
                reader.wrong(at, "a grid stands alone.", "Write {grid: [0.2, 0.5]} and nothing else.")
            elif not isinstance(values, list) or not values or not all(isinstance(v, Scalar) for v in values):
                reader.wrong(at, f"{shown(values)} is no grid.", "Expected values: {grid: [0.2, 0.5]}.")
            elif len(set(values)) < len(values):
                reader.wrong(at, f"{shown(values)} names a value twice.", "Keep one of the two.")
            else:
                settings[name] = Grid(tuple(values))
        elif isinstance(value, Scalar) or (isinstance(value, dict) and value):
            settings[name] = value
        else:
            fix = "To try several, write {grid: [0.2, 0.5]}."
            reader.wrong(at, f"{shown(value)} is not a single value.", fix)
    return settings


def _weights(
    reader: Reader, given: Mapping[str, Any], path: KeyPath, languages: Collection[str]
) -> dict[str, Value] | Literal["rows"] | None:
    if given.get("weights") is None:
        return None
    if isinstance(given["weights"], str):
        return reader.one(given, "weights", Literal["rows"], path, None)
    path = (*path, "weights")
    written = reader.mapping(given, path)
    hints = {name: Any if isinstance(written.get(name), dict) else float for name in languages}
    return reader.settings(written, hints, path, "'weights'")


def _checked_merge(
    reader: Reader, merge: MergeConfig, path: KeyPath, languages: Collection[str]
) -> MergeConfig | None:
    """The merge with its settings as the method takes them (1 for a float is 1.0): names depend on it."""
    count = math.prod(len(v.values) for v in merge.settings.values() if isinstance(v, Grid))
    if count > MAX_MEMBERS:
        reader.wrong(path, f"its grid has {count} members.", f"At most {MAX_MEMBERS} are tried in one run.")
        return None
    wrong = False
    taken: dict[str, Value] = {}
    points: dict[tuple[str, Scalar], Scalar] = {}
    for member in members(merge):
        checked = reader.attempt(partial(_check_recipe, merge, member.settings, languages), path)
        if checked is None:
            wrong = True
            continue
        taken |= checked
        for name, value in merge.settings.items():
            if isinstance(value, Grid):
                points[name, member.settings[name]] = checked[name]  # type: ignore[index, assignment]
    if merge.search is not None and languages and not wrong:
        wrong = reader.attempt(partial(merge.space_of_search, languages), path) is None
    if wrong:
        return None
    settings = {
        name: Grid(tuple(points[name, one] for one in value.values))
        if isinstance(value, Grid)
        else taken[name]
        for name, value in merge.settings.items()
    }
    return replace(merge, settings=settings)


def _check_recipe(
    merge: MergeConfig, settings: Mapping[str, Value], languages: Collection[str], where: str
) -> Mapping[str, Value]:
    """Hold one member against the catalogues of merging; its settings with the types the method declares."""
    from sabir.merging.recipe import adapter_weights

    recipe = merge.made(settings, where)
    if languages:
        adapter_weights(recipe, list(languages), where)
    return recipe.settings


def _default_merge(name: str) -> MergeConfig:
    from sabir.merging.published import RECIPES

    return MergeConfig(name, name, None, None, dict(RECIPES[name].recommended), None, None)


def _written(value: Scalar) -> str:
    """A setting as it stands in a model's name: floats by repr, booleans as YAML has them."""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
