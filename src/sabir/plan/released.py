"""Steps that stand on releases: the current one beside today's merge, and a merge with one adapter put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sabir.config import Config
from sabir.engine.steps import Dep, Graph, Known, Step
from sabir.facts import Facts
from sabir.plan.names import LIGHT, PRIORITY, VERSIONS
from sabir.plan.steps import Steps

BEFORE_SABIR = "0"  # the release that was in use before


@dataclass(frozen=True)
class Released:
    """A model that is or was in use, as a release names it.

    `recipe` and `languages` (the adapters' fingerprints) are those of a merge that can be made again; `recipe` is
    None for what cannot.
    """

    name: str
    kind: str
    fingerprint: str
    recipe: Mapping[str, Any] | None
    languages: Mapping[str, str]

    @property
    def model(self) -> str:
        return f"release/{self.name}"


def incumbent(steps: Steps) -> Step | None:
    """The step that takes in the model that was in use before sabir; None where none is named."""
    path, digest = steps.config.gate.incumbent, steps.facts.incumbent
    return None if path is None or digest is None else steps.adopted(f"release/{BEFORE_SABIR}", digest, path)


def before_sabir(config: Config, facts: Facts) -> Released | None:
    """Release 0, where the config names one."""
    step = incumbent(Steps(config, facts))
    if step is None:
        return None
    fingerprint = Graph([step]).fingerprints[step.name]
    return Released(BEFORE_SABIR, step.kind, fingerprint, None, {})


def released(steps: Steps, release: Released) -> Step:
    """A release's model: one that can be made again when it is lost, else an old result that must be there."""
    adapters: dict[str, Dep] = {one: Known(adapter) for one, adapter in release.languages.items()}
    made = incumbent(steps) if release.name == BEFORE_SABIR else None
    step = made or steps.merge(release.model, release.recipe or {}, adapters)
    if Graph([step]).fingerprints[step.name] == release.fingerprint:
        return step
    return replace(step, kind=release.kind, deps={}, pinned=release.fingerprint, note="an earlier release")


def changes(steps: Steps, model: str, release: Released) -> Step:
    """The model against a release: in every language, and in the mean over those that both serve."""
    served = sorted(set(steps.languages) & set(release.languages or steps.languages))
    deps: dict[str, Dep] = {}
    for role, name in (("a", model), ("b", release.model)):
        for language in steps.languages:
            deps[f"{role}/{language}"] = f"scores/{name}/{language}/test"
            deps[f"{role}-outputs/{language}"] = f"outputs/{name}/{language}/test"
    return Step(
        name="changes",
        kind="changes",
        run="sabir.work.judge:changes",
        version=VERSIONS["changes"],
        settings={
            "a": model,
            "b": release.model,
            "languages": sorted(steps.languages),
            "served": served,
            **steps.judging(),
        },
        deps=deps,
        priority=PRIORITY["changes"],
        preload=LIGHT,
    )


def against(
    config: Config, facts: Facts, planned: Graph, model: str, release: Released
) -> tuple[Graph, Step]:
    """The step that holds a model of the plan against a release, and the graph it stands in."""
    steps = Steps(config, facts)
    step = replace(changes(steps, model, release), name=f"changes/{model}")
    more = (
        []
        if release.model in planned
        else [released(steps, release), *steps.evaluation(release.model, "test")]
    )
    return Graph([*planned, *more, step]), step


def suspects(
    config: Config, facts: Facts, release: Released, parent: Released, language: str
) -> tuple[Graph, dict[str, str]]:
    """What it takes to find which adapter of a release made one language worse: the release's merge with one
    changed adapter at a time put back to what its parent had, answering the test rows of that language.

    Returns: the steps, and per suspect (a language, or "recipe") the model without it.
    """
    steps = Steps(config, facts)
    recipe = release.recipe or {}
    found = {}
    for name in sorted({*release.languages, *parent.languages}):
        before = parent.languages.get(name)
        if release.languages.get(name) != before:
            adapters = {**release.languages, name: before}
            found[name] = _merge(steps, f"blame/{release.name}/{name}", recipe, adapters)
    if parent.recipe != release.recipe:
        name = f"blame/{release.name}/recipe"
        found["recipe"] = _merge(steps, name, parent.recipe or {}, release.languages)
    planned = [steps.data(language), released(steps, release), *found.values()]
    for model in (release.model, *(step.name for step in found.values())):
        planned += [steps.outputs(model, language, "test"), steps.scores(model, language, "test")]
    return Graph(planned), {suspect: step.name for suspect, step in found.items()}


def _merge(steps: Steps, name: str, recipe: Mapping[str, Any], adapters: Mapping[str, str | None]) -> Step:
    """A merge of finished adapters; weights of languages that are not among them are left out."""
    deps: dict[str, Dep] = {one: Known(adapter) for one, adapter in adapters.items() if adapter}
    weights = recipe.get("weights")
    if isinstance(weights, Mapping):
        recipe = {**recipe, "weights": {one: weight for one, weight in weights.items() if one in deps}}
    return steps.merge(name, recipe, deps)
