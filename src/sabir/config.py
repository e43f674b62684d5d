"""YAML -> Config: one frozen value that says what to train, merge and judge.

Everything wrong is reported at once, each with its file, line and key path, before anything heavy is
imported. What a run may take from here into an identity is the planner's business; this file only reads.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from sabir.catalog import Entry, did_you_mean
from sabir.errors import raise_all
from sabir.languages import (
    LANGUAGE_FORM,
    LanguageConfig,
    LoraConfig,
    UpdateConfig,
    read_languages,
    read_update,
    resolved,
)
from sabir.settings import Filled, Range, Reader, Text, expected, parse_overrides, shown
from sabir.strict_yaml import KeyPath, load, read_text

if TYPE_CHECKING:
    from sabir.merging.recipe import Recipe
    from sabir.work.search import Space

Scalar = str | int | float | bool
Value = Scalar | Mapping[str, Any]  # a mapping is a value by module: {depth: [0.2, 1.0]}, {"*.mlp.*": 0.5}

DEFAULT_MERGES = ("average", "ties", "ties-knots")
"""The recipes tried, with their recommended settings, when a config names none."""

MAX_MEMBERS = 500  # a grid or budget beyond it is a slip: every member is merged and scored


@dataclass(frozen=True)
class TaskConfig:
    """The language task: a name of the catalogue and its settings as written (defaults are not filled in)."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """Several values of one setting, each tried with each of the others."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class SearchConfig:
    """An optimiser that looks for the settings and weights an entry leaves open, on the validation split.

    Args:
        method: of Optuna: its tree-structured Parzen estimator, Gaussian process, or chance.
        budget: merges that are made and scored.
        over: the settings to look for ("scale", "density", "weights", ...); None: all that are open.
    """

    method: Literal["tpe", "gp", "random"] = "tpe"
    budget: Annotated[int, Range(ge=1, le=MAX_MEMBERS)] = 30
    seed: Annotated[int, Range(ge=0)] = 0
    over: Annotated[tuple[Text, ...], Filled()] | None = None


@dataclass(frozen=True)
class MergeConfig:
    """One entry of `merges`: a recipe by name, or a method; what follows where it differs.

    A setting or a weight may be a value by module. With `search`, `settings` and `weights` are those that are
    fixed.
    """

    name: str
    recipe: str | None
    method: str | None
    space: str | None
    settings: Mapping[str, Value | Grid]
    weights: Mapping[str, Value] | None  # by language
    rank: int | Literal["exact", "serve", "fold"] | None
    dialect: str | None = None
    dtype: str | None = None
    search: SearchConfig | None = None

    def made(self, settings: Mapping[str, Any], where: str = "") -> Recipe:
        """The recipe of this entry with these settings. Raises InputError for what does not go together."""
        from sabir.merging.choices import make_recipe

        return make_recipe(
            self.recipe or self.method or "",
            space=self.space,
            settings=settings,
            weights=self.weights,
            rank=self.rank,
            dialect=self.dialect,
            dtype=self.dtype,
            where=where or f"merges.{self.name}",
        )

    def space_of_search(self, languages: Collection[str], where: str = "") -> Space:
        """What its search looks for, and where it starts. Raises InputError when that is nothing or unknown."""
        from sabir.work.search import open_space

        assert self.search is not None
        where = where or f"merges.{self.name}"
        return open_space(
            self.made(self.settings, where),
            list(languages),
            fixed=[*self.settings, *([] if self.weights is None else ["weights"])],
            over=self.search.over,
            where=f"{where}.search",
        )


@dataclass(frozen=True)
class Member:
    """One merge to make: the name of the model and the settings it has there."""

    name: str
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class SelectConfig:
    """How one merge is chosen among all, on the validation split; metric None is the task's first."""

    by: Literal["macro_mean"] = "macro_mean"
    metric: str | None = None


@dataclass(frozen=True)
class GateConfig:
    """When a new release may replace the current one.

    Args:
        max_drop: the largest drop of the mean over languages that one would accept.
        undecided: what becomes of a release of which the test rows cannot tell.
        incumbent: the model in use before sabir, an adapter's or a whole model's folder: release 0.
    """

    max_drop: Annotated[float, Range(ge=0, le=1)] = 0.02
    undecided: Literal["pass", "refuse"] = "pass"
    incumbent: Path | None = None


@dataclass(frozen=True)
class ServeConfig:
    """Where the current release lies for a server, and in which form; folder None: `serve` in the store."""

    folder: Path | None = None
    form: Literal["adapter", "model"] = "adapter"


@dataclass(frozen=True)
class PricesConfig:
    """What a device hour costs; None: the tables count hours only."""

    usd_per_hour: Annotated[float, Range(gt=0)] | None = None


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs: never part of any identity. None: chosen on the spot."""

    backend: Literal["local", "inline", "ray"] = "local"
    workers: Annotated[int, Range(ge=1)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    store: Path = Path(".sabir")
    micro_batch: Annotated[int, Range(ge=1)] | None = None  # rows on the device at once
    address: str | None = None  # of a Ray cluster; None: one is started on this machine
    memory_gib: Annotated[float, Range(gt=0)] | None = None  # that Ray sets aside for a job


@dataclass(frozen=True)
class EvaluationConfig:
    """How answers are scored: rows at once, level of the intervals, bootstrap resamples."""

    batch_size: Annotated[int, Range(ge=1)] = 16
    level: Annotated[float, Range(gt=0, lt=1)] = 0.95
    resamples: Annotated[int, Range(ge=100)] = 1000


@dataclass(frozen=True)
class Config:
    """All a run needs to know. Paths are absolute, taken from the folder the file stands in."""

    path: Path
    folder: Path
    base: str  # "embedded", a folder, or a hub name "org/name", perhaps with "@revision"; as written
    task: TaskConfig
    languages: Mapping[str, LanguageConfig]
    lora: LoraConfig
    update: UpdateConfig
    baseline: Literal["none", "combined", "continued"]
    merges: Mapping[str, MergeConfig]
    select: SelectConfig
    gate: GateConfig
    serve: ServeConfig
    prices: PricesConfig
    run: RunConfig
    evaluate: EvaluationConfig


def load_config(path: str | Path, *, overrides: Mapping[str, str] | Sequence[str] = ()) -> Config:
    """The config in a YAML file, checked: names, types, ranges, and that its files exist.

    Args:
        path: the file.
        overrides: settings from the command line, {"lora.epochs": "5"} or ["lora.epochs=5"]; a value is
            read as YAML.
    Raises InputErrors with everything that is wrong in one go.
    """
    given, lines = load(read_text(path), where=str(path))
    reader = Reader(str(path), lines)
    for key_path, value in parse_overrides(overrides):
        reader.override(given, key_path, value)
    reader.refuse_unusable_numbers(given, ())
    raise_all(reader.errors)
    file = Path(os.path.abspath(path))
    config = _config(reader, given, file)
    raise_all(reader.errors)
    return config


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


# --- reading, section by section -------------------------------------------------------------------------


def _config(reader: Reader, given: dict[str, Any], file: Path) -> Config:
    reader.refuse_unknown(given, _SECTIONS, (), "a config")
    for name in _MISSING:
        if given.get(name) is None:
            reader.wrong((name,), "it is missing.", _MISSING[name])
    folder = file.parent
    lora = reader.section(LoraConfig(), given, ("lora",))
    update = read_update(reader, UpdateConfig(), given, ("update",))
    languages = read_languages(reader, given, folder, lora, update)
    baseline = reader.one(given, "baseline", Literal["none", "combined", "continued"], (), "none")
    run = reader.section(RunConfig(), given, ("run",))
    run = replace(run, store=resolved(folder, str(run.store)))
    return Config(
        path=file,
        folder=folder,
        base=_base(reader, given, folder),
        task=_task(reader, given),
        languages=languages,
        lora=lora,
        update=update,
        baseline=baseline,
        merges=_merges(reader, given, list(languages)),
        select=reader.section(SelectConfig(), given, ("select",)),
        gate=_gate(reader, given, folder),
        serve=_serve(reader, given, folder),
        prices=reader.section(PricesConfig(), given, ("prices",)),
        run=run,
        evaluate=reader.section(EvaluationConfig(), given, ("evaluate",)),
    )


_SECTIONS = (
    *("base", "task", "data", "lora", "update", "baseline", "merges"),
    *("select", "gate", "serve", "prices", "run", "evaluate"),
)
_MISSING = {
    "base": "Write `base: embedded`, a folder, or a hub name such as Qwen/Qwen3-0.6B.",
    "task": "Write `task: summarization`, or {name: classification, labels: [...]}.",
    "data": LANGUAGE_FORM,
}


def _base(reader: Reader, given: Mapping[str, Any], folder: Path) -> str:
    base = reader.one(given, "base", Text, (), "") if given.get("base") is not None else ""
    if not base or base == "embedded" or os.path.isdir(resolved(folder, base)):
        return base
    if base.startswith((".", "/", "~")):
        reader.wrong(("base",), f"{shown(base)} is no folder.", f"Looked in {resolved(folder, base)}.")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", base):
        reader.wrong(
            ("base",),
            f"{shown(base)} is neither a folder nor a hub name such as Qwen/Qwen3-0.6B.",
            f"'embedded' is the base that ships with sabir.{did_you_mean(base, ['embedded'])}",
        )
    return base


def _gate(reader: Reader, given: Mapping[str, Any], folder: Path) -> GateConfig:
    gate = reader.section(GateConfig(), given, ("gate",))
    if gate.incumbent is None:
        return gate
    place = resolved(folder, str(gate.incumbent))
    if not any((place / name).is_file() for name in ("adapter_config.json", "config.json")):
        fix = f"Looked for adapter_config.json or config.json in {place}."
        reader.wrong(
            ("gate", "incumbent"), f"{shown(str(gate.incumbent))} holds no adapter and no model.", fix
        )
    return replace(gate, incumbent=place)


def _serve(reader: Reader, given: Mapping[str, Any], folder: Path) -> ServeConfig:
    serve = reader.section(ServeConfig(), given, ("serve",))
    return serve if serve.folder is None else replace(serve, folder=resolved(folder, str(serve.folder)))


def _task(reader: Reader, given: Mapping[str, Any]) -> TaskConfig:
    task = given.get("task")
    if isinstance(task, str):
        task = {"name": task}
    elif not isinstance(task, dict):
        reader.mapping(given, ("task",))
        return TaskConfig("", {})
    if "name" not in task:
        reader.wrong(("task", "name"), "it is missing.", "Write it, such as `name: classification`.")
    name = reader.one(task, "name", Text, ("task",), "")
    if not name:
        return TaskConfig("", {})
    entry = reader.attempt(partial(_task_entry, name), ("task", "name"))
    if entry is None:
        return TaskConfig(name, {})
    known = entry.settings
    written = {key: value for key, value in task.items() if key != "name"}
    before = len(reader.errors)
    hints = {key: setting.hint for key, setting in known.items()}
    settings = reader.settings(written, hints, ("task",), repr(name))
    for key, setting in known.items():
        if setting.required and key not in written:
            reader.wrong(("task", key), "it is missing.", f"{name!r} needs {expected(setting.hint)} here.")
    if len(reader.errors) == before:
        reader.attempt(partial(_check_task, name, settings), ("task",))
    return TaskConfig(name, settings)


def _task_entry(name: str, where: str) -> Entry:
    from sabir.tasks import TASKS

    return TASKS.get(name, where=where)


def _check_task(name: str, settings: Mapping[str, Any], where: str) -> None:
    """What only the task itself can say about its settings (labels named twice)."""
    from sabir.tasks import make_task

    make_task(name, settings, where=where)


# --- merges ----------------------------------------------------------------------------------------------

_OWN_KEYS = ("recipe", "method", "space", "weights", "rank", "dialect", "dtype", "search")
_PRESET_KEYS = ("preset", "rank", "dtype")
_RANK = Annotated[int, Range(ge=1)] | Literal["exact", "serve", "fold"] | None


def _merges(reader: Reader, given: Mapping[str, Any], languages: Collection[str]) -> dict[str, MergeConfig]:
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
        merge = MergeConfig(
            name, recipe, None, None, values, None, rank, dialect=choices.get("dialect"), dtype=dtype
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
) -> dict[str, Value] | None:
    if given.get("weights") is None:
        return None
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
