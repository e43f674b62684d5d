"""The whole plan of a config: which steps it takes, and which of them wait for the selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sabir.config import Config
from sabir.engine.steps import Graph, Step
from sabir.errors import InputError, raise_all
from sabir.facts import Facts
from sabir.lineage import Ancestor
from sabir.names import BASE, COMBINED, CONTINUED, OWN, TRANSLATED, UNSEEN
from sabir.plan.names import has_seeds, speaks
from sabir.plan.released import Released, changes, released
from sabir.plan.rivals import large_combined, rivals, scaled, stress_rows, stress_splits, translated_rows
from sabir.plan.steps import Steps

LARGE = f"{COMBINED}[rank="  # how the names of combined adapters as large as a merge begin
LARGE_SELECT = "select/combined"


@dataclass(frozen=True)
class Stale:
    """A combined baseline of older data, which stands in until `--with-baseline` asks for a new one.

    `continued` is what it takes to train it on with the new rows alone, or None when there is no such thing. `name`
    is what it was called, where today's would be of another rank.
    """

    fingerprint: str
    note: str
    continued: Ancestor | None = None
    name: str | None = None


@dataclass(frozen=True)
class Later:
    """A step that waits for the selection: what stands there is planned when it is known."""

    name: str
    kind: str
    size: float | None


@dataclass(frozen=True)
class Plan:
    """The steps that are known, those that wait for the selection, and the models by name."""

    graph: Graph
    later: tuple[Later, ...]
    merges: tuple[str, ...]
    reported: tuple[str, ...]


def plan(
    config: Config,
    facts: Facts,
    *,
    selection: Mapping[str, Any] | None,
    stale: Mapping[str, Stale],
    release: Released | None = None,
) -> Plan:
    """The steps of a config.

    Args:
        selection: what `selection_of` gives, if it is known: the chosen member of each recipe.
        stale: by name, older combined adapters to score in place of training new ones.
        release: the current one, which the selected merge is held against.
    Raises InputError when two languages or two merges are the same.
    """
    first = _until_selection(config, facts, stale, release)
    return (
        first if selection is None else selected(config, facts, first, selection=selection, release=release)
    )


def _until_selection(
    config: Config, facts: Facts, stale: Mapping[str, Stale], release: Released | None
) -> Plan:
    makes = [Steps(config, facts, nth) for nth in range(1, config.seeds + 1)]
    first = makes[0]
    steps = [first.data(language) for language in first.languages]
    steps += [*stress_rows(first), *translated_rows(first)]
    recipes: dict[str, list[str]] = {}
    large: list[str] = []
    models = [BASE, *(f"adapter/{language}" for language in first.languages), *rivals(first)]
    for make in makes:
        steps += [make.adapter(language) for language in make.languages if _is_trained(make, language)]
        for step in _combined(make, stale):
            steps.append(step)
            if make is first and not step.name.startswith(LARGE):
                models.append(step.name)
            elif step.name.startswith(LARGE):
                candidates = [step, *scaled(make, step)]
                steps += candidates[1:]
                large = large or [one.name for one in candidates]
        for merge in config.merges.values():
            for name, step in make.merged(merge):
                steps.append(step)
                if make is first:
                    recipes.setdefault(merge.name, []).append(name)
    everyone = [name for names in recipes.values() for name in names]
    if everyone and len(first.languages) > 1:
        steps.append(first.analysis())
    for model in (*everyone, *large):
        steps += _evaluations(makes, model, "valid")
    later: list[Later] = []
    if large:
        steps.append(first.select({"combined": large}, LARGE_SELECT))
        later += _latest(first, [LARGE + "*]"])
    if everyone:
        steps.append(first.select(recipes))
        later += _later(first, recipes, release)
    models += [names[0] for names in recipes.values() if len(names) == 1]
    for model in models:
        steps += _evaluations(makes, model, "test")
    for split in stress_splits(first):
        for model in models:
            steps += _under_stress(first, model, split)
    graph = Graph(steps)
    _refuse_twins(graph, config)
    return Plan(graph, tuple(later), tuple(everyone), tuple(models))


def _is_trained(make: Steps, language: str) -> bool:
    """An adapter that was brought or is held is there once; those trained here, once for each training."""
    return make.nth == 1 or not make.is_one(language)


def _combined(make: Steps, stale: Mapping[str, Stale]) -> Iterator[Step]:
    """The combined adapters of one training, each new or as it was on older data."""
    config = make.config
    wanted = [make.combined()] if config.baseline != "none" else []
    wanted += [large_combined(make)] if config.rivals.merged_rank else []
    for step in wanted:
        old = stale.get(step.name)
        yield (
            step
            if old is None
            else replace(step, name=old.name or step.name, deps={}, pinned=old.fingerprint, note=old.note)
        )
        if old is not None and old.continued is not None and config.baseline == "continued":
            yield make.continued(old.continued)


def _evaluations(makes: Sequence[Steps], model: str, split: str) -> Iterator[Step]:
    """Answers and scores of a model, and of the same one of the other trainings."""
    yield from makes[0].evaluation(model, split)
    for make in makes[1:]:
        one = make.is_one(model.partition("/")[2])
        if has_seeds(model) and model != CONTINUED and not one:
            yield from make.evaluation(f"{model}{make.ending}", split)


def _under_stress(make: Steps, model: str, split: str) -> Iterator[Step]:
    """Answers and scores on another test set, of the models that can be asked there."""
    if model == TRANSLATED or (split == UNSEEN and model.startswith(f"{BASE}[")):
        return  # nothing is translated there, and there are no rows to take examples from
    yield from make.evaluation(model, split)


def _later(make: Steps, recipes: Mapping[str, list[str]], release: Released | None) -> list[Later]:
    grids = [recipe for recipe, names in recipes.items() if len(names) > 1]
    return [
        *_latest(make, [f"merged/{recipe}[*]" for recipe in grids]),
        Later("comparisons", "judge", None),
        *([Later("changes", "changes", None)] if release is not None else []),
    ]


def _latest(make: Steps, models: Sequence[str]) -> list[Later]:
    splits = ["test", *stress_splits(make)]
    steps = [step for model in models for split in splits for step in make.evaluation(model, split)]
    return [Later(step.name, step.kind, step.size) for step in steps]


def selection_of(first: Plan, result: Callable[[str], Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """What was chosen among candidates: `selected` and `best` by recipe, `combined` the combined adapter's scale.

    None before all of it is known.

    Args:
        result: what the store knows of a step of the plan.
    """
    found = {name: result(name) for name in ("select", LARGE_SELECT) if name in first.graph}
    if "select" not in found or any(one is None for one in found.values()):
        return None
    large = found.get(LARGE_SELECT)
    return {**(found["select"] or {}), "combined": large["selected"] if large else None}


def selected(
    config: Config,
    facts: Facts,
    first: Plan,
    *,
    selection: Mapping[str, Any],
    release: Released | None = None,
) -> Plan:
    """A plan without a selection, gone on with when the selection is known: the same steps, and what was `later`."""
    if not first.merges:
        return first
    makes = [Steps(config, facts, nth) for nth in range(1, config.seeds + 1)]
    make = makes[0]
    alone = [model for model in first.reported if model not in first.merges]
    large = [selection["combined"]] if selection.get("combined") else []
    models = [*alone, *large, *(selection["best"][merge.name] for merge in config.merges.values())]
    steps: list[Step] = []
    for model in models:
        if model not in first.reported:
            steps += _evaluations(makes, model, "test")
            for split in stress_splits(make):
                steps += _under_stress(make, model, split)
    steps.append(_comparisons(make, selection, models))
    if release is not None and first.graph.fingerprints[selection["selected"]] != release.fingerprint:
        steps.append(released(make, release))
        steps += make.evaluation(release.model, "test")
        steps.append(changes(make, selection["selected"], release))
    graph = Graph(steps, on=first.graph)
    _refuse_twins(graph, config)
    return Plan(graph, (), first.merges, tuple(models))


def _comparisons(make: Steps, selection: Mapping[str, Any], models: Sequence[str]) -> Step:
    """The selected merge against everything else, and everything else against the combined adapter."""
    chosen = selection["selected"]
    merges = set(selection["best"].values())
    combined = [model for model in (COMBINED, CONTINUED) if model in models]
    rest = [model for model in models if model not in merges and not model.startswith("adapter/")]
    large = [model for model in models if model.startswith(LARGE)]
    others = sorted(merges - {chosen})
    pairs = [[chosen, model] for model in (*combined, *large, OWN, *rest, *others)]
    if COMBINED in models:
        pairs += [[model, COMBINED] for model in (*large, OWN, *rest, *others)]
    own = [model for model in models if model.startswith("adapter/") and model not in (*combined, *large)]
    ranked = [model for model in models if model not in own]
    return make.judged(pairs, make.languages, [*ranked, *([OWN] if own else [])])


def combined_graph(config: Config, facts: Facts) -> Graph | None:
    """The combined adapters of every training and the rows they stand on, or None when the config asks for none."""
    makes = [Steps(config, facts, nth) for nth in range(1, config.seeds + 1)]
    steps = [step for make in makes for step in _combined(make, {})]
    if not steps:
        return None
    return Graph([*(makes[0].data(language) for language in makes[0].languages), *steps])


def comparison(config: Config, facts: Facts, a: str, b: str, metric: str | None = None) -> Step:
    """The step that compares two models of the user's choice; it stands on their scores on the test rows.

    Raises InputError for two that answer in no common language.
    """
    make = Steps(config, facts)
    languages = [language for language in make.languages if speaks(a, language) and speaks(b, language)]
    if not languages:
        fix = "A language's own adapter is scored on its own language only."
        raise InputError("--compare", f"{a} and {b} have no language in common.", fix)
    return make.judged([[a, b]], languages, metric=metric)


def comparison_of(config: Config, facts: Facts, pairs: list[list[str]], language: str) -> Step:
    """The step that compares pairs of models on one language's test rows."""
    return Steps(config, facts).judged(pairs, [language], floor=None)


def _refuse_twins(graph: Graph, config: Config) -> None:
    """Refuse two languages with the same rows and two merges with the same settings: one step each.

    Merges weighted by rows may turn out to be the plain ones: that is the data's doing.
    """
    by_rows = tuple(f"merged/{merge.name}" for merge in config.merges.values() if merge.weights == "rows")
    seen: dict[str, str] = {}
    errors = []
    for step in graph:
        twin = seen.setdefault(graph.fingerprints[step.name], step.name)
        if twin == step.name:
            continue
        if step.kind == "data":
            one, other = (name.replace("data/", "data.") for name in (twin, step.name))
            errors.append(InputError(other, f"has the same rows as {one}.", "Give each language its own."))
        elif step.kind in ("merged", "search") and not step.name.startswith(("release/", *by_rows)):
            one, other = (name.replace("merged/", "merges.") for name in (twin, step.name))
            errors.append(InputError(other, f"is the same merge as {one}.", "Keep one of the two."))
    raise_all(errors)
