"""The whole plan of a config: which steps it takes, and which of them wait for the selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sabir.config import Config
from sabir.engine.steps import Graph, Step
from sabir.errors import InputError, raise_all
from sabir.facts import Facts
from sabir.lineage import Ancestor
from sabir.plan.released import Released, changes, released
from sabir.plan.steps import CONTINUED, Steps, speaks


@dataclass(frozen=True)
class Stale:
    """A combined baseline of older data, which stands in until `--with-baseline` asks for a new one.

    `continued` is what it takes to train it on with the new rows alone, or None when there is no such thing.
    """

    fingerprint: str
    note: str
    continued: Ancestor | None = None


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
    stale: Stale | None,
    release: Released | None = None,
) -> Plan:
    """The steps of a config.

    Args:
        selection: result of the `select` step if it is known: the chosen member of each recipe.
        stale: an older combined baseline to score in place of training a new one.
        release: the current one, which the selected merge is held against.
    Raises InputError when two languages or two merges are the same.
    """
    first = _until_selection(Steps(config, facts), stale, release)
    return (
        first if selection is None else selected(config, facts, first, selection=selection, release=release)
    )


def _until_selection(make: Steps, stale: Stale | None, release: Released | None) -> Plan:
    config = make.config
    steps = [make.data(language) for language in make.languages]
    steps += [make.adapter(language) for language in make.languages]
    models = ["base", *(f"adapter/{language}" for language in make.languages)]
    if config.baseline != "none":
        combined = make.combined()
        if stale is not None:
            combined = replace(combined, deps={}, pinned=stale.fingerprint, note=stale.note)
        steps.append(combined)
        models.append(combined.name)
        if stale is not None and stale.continued is not None and config.baseline == "continued":
            steps.append(make.continued(stale.continued))
            models.append(CONTINUED)
    recipes: dict[str, list[str]] = {}
    for merge in config.merges.values():
        for name, step in make.merged(merge):
            steps.append(step)
            recipes.setdefault(merge.name, []).append(name)
    everyone = [name for names in recipes.values() for name in names]
    if everyone and len(make.languages) > 1:
        steps.append(make.analysis())
    for model in everyone:
        steps += make.evaluation(model, "valid")
    later: list[Later] = []
    if everyone:
        steps.append(make.select(recipes))
        later = _later(make, recipes, release)
    models += [names[0] for names in recipes.values() if len(names) == 1]
    for model in models:
        steps += make.evaluation(model, "test")
    graph = Graph(steps)
    _refuse_twins(graph)
    return Plan(graph, tuple(later), tuple(everyone), tuple(models))


def _later(make: Steps, recipes: Mapping[str, list[str]], release: Released | None) -> list[Later]:
    grids = [recipe for recipe, names in recipes.items() if len(names) > 1]
    steps = [step for recipe in grids for step in make.evaluation(f"merged/{recipe}[*]", "test")]
    return [
        *(Later(step.name, step.kind, step.size) for step in steps),
        Later("comparisons", "judge", None),
        *([Later("changes", "changes", None)] if release is not None else []),
    ]


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
    make = Steps(config, facts)
    alone = [model for model in first.reported if model not in first.merges]
    models = [*alone, *(selection["best"][merge.name] for merge in config.merges.values())]
    steps = [
        step for model in models if model not in first.reported for step in make.evaluation(model, "test")
    ]
    steps.append(make.comparisons(selection, models))
    if release is not None and first.graph.fingerprints[selection["selected"]] != release.fingerprint:
        steps.append(released(make, release))
        steps += make.evaluation(release.model, "test")
        steps.append(changes(make, selection["selected"], release))
    graph = Graph(steps, on=first.graph)
    _refuse_twins(graph)
    return Plan(graph, (), first.merges, tuple(models))


def combined_graph(config: Config, facts: Facts) -> Graph | None:
    """The combined baseline and the rows it stands on, or None when the config asks for none."""
    make = Steps(config, facts)
    if config.baseline == "none":
        return None
    return Graph([*(make.data(language) for language in make.languages), make.combined()])


def comparison(config: Config, facts: Facts, a: str, b: str) -> Step:
    """The step that compares two models of the user's choice; it stands on their scores on the test rows.

    Raises InputError for two that answer in no common language.
    """
    make = Steps(config, facts)
    languages = [language for language in make.languages if speaks(a, language) and speaks(b, language)]
    if not languages:
        fix = "A language's own adapter is scored on its own language only."
        raise InputError("--compare", f"{a} and {b} have no language in common.", fix)
    return make.judged([[a, b]], languages)


def comparison_of(config: Config, facts: Facts, pairs: list[list[str]], language: str) -> Step:
    """The step that compares pairs of models on one language's test rows."""
    return Steps(config, facts).judged(pairs, [language])


def _refuse_twins(graph: Graph) -> None:
    """Refuse two languages with the same rows and two merges with the same settings: one step each."""
    seen: dict[str, str] = {}
    errors = []
    for step in graph:
        twin = seen.setdefault(graph.fingerprints[step.name], step.name)
        if twin == step.name:
            continue
        if step.kind == "data":
            one, other = (name.replace("data/", "data.") for name in (twin, step.name))
            errors.append(InputError(other, f"has the same rows as {one}.", "Give each language its own."))
        elif step.kind in ("merged", "search") and not step.name.startswith("release/"):
            one, other = (name.replace("merged/", "merges.") for name in (twin, step.name))
            errors.append(InputError(other, f"is the same merge as {one}.", "Keep one of the two."))
    raise_all(errors)
