"""From a config to steps: the only file that knows both the engine and the work.

    data/<language> -> adapter/<language> -> merged/<recipe> -> outputs -> scores -> select -> comparisons

A merge whose settings are searched stands on the validation rows too; the analysis of the adapters on nothing else.

What stands on the selection (the test answers of a grid's best member, the comparisons) is planned when the
selection is known; until then it is listed as `later`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sabir.catalog import non_default
from sabir.config import Config, LoraConfig, MergeConfig, SearchConfig, members
from sabir.engine.steps import Dep, Graph, Part, Step
from sabir.errors import InputError, raise_all
from sabir.facts import Facts

OWN = "adapter/<language>"  # in a comparison: each language's own adapter
PRELOAD = "sabir.work.preload"  # torch, transformers, peft
LIGHT = "sabir.work.judge"  # numpy and the metrics
CHECKPOINT_EVERY_S = 120.0
PRIORITY = {
    "data": 0,
    "adapter": 1,
    "adopted": 1,
    "merged": 2,
    "search": 3,
    "outputs": 4,
    "scores": 5,
    "macro": 6,
    "select": 7,
    "judge": 8,
    "analysis": 9,
}

# Raise a version when the same settings and inputs give another result.
VERSIONS = {
    "data": 1,
    "adapter": 1,
    "adopted": 1,
    "merged": 2,
    "search": 1,
    "outputs": 1,
    "scores": 1,
    "macro": 1,
    "select": 1,
    "judge": 1,
    "analysis": 1,
}
SEARCHES_BY = ("merged", "outputs", "scores")  # what a search does itself: it runs again with their versions


@dataclass(frozen=True)
class Stale:
    """A combined baseline of older data, which stands in until `--with-baseline` asks for a new one."""

    fingerprint: str
    note: str


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


def plan(config: Config, facts: Facts, *, selection: Mapping[str, Any] | None, stale: Stale | None) -> Plan:
    """The steps of a config.

    Args:
        selection: result of the `select` step if it is known: the chosen member of each recipe.
        stale: an older combined baseline to score in place of training a new one.
    Raises InputError when two languages or two merges are the same.
    """
    return _Planner(config, facts).plan(selection, stale)


def combined_step(config: Config, facts: Facts) -> Step | None:
    """The step that trains the combined baseline, or None when the config asks for none."""
    return _Planner(config, facts).combined() if config.baseline == "combined" else None


def comparison(config: Config, facts: Facts, a: str, b: str) -> Step:
    """The step that compares two models of the user's choice; it stands on their scores on the test rows."""
    return _Planner(config, facts).judged([[a, b]])


class _Planner:
    def __init__(self, config: Config, facts: Facts):
        self.config = config
        self.facts = facts
        self.languages = list(config.languages)
        pinned = facts.base.revision is not None  # a hub model: adapters name it apart from its commit
        self.base = {
            "name": facts.base.name.partition("@")[0] if pinned else facts.base.name,
            "folder": str(facts.base_folder) if facts.base_folder else None,
            "revision": facts.base.revision,
        }

    def plan(self, selection: Mapping[str, Any] | None, stale: Stale | None) -> Plan:
        steps = [self.data(language) for language in self.languages]
        steps += [self.adapter(language) for language in self.languages]
        models = ["base", *(f"adapter/{language}" for language in self.languages)]
        if combined := combined_step(self.config, self.facts):
            if stale is not None:
                combined = replace(combined, deps={}, pinned=stale.fingerprint, note=stale.note)
            steps.append(combined)
            models.append(combined.name)
        candidates: dict[str, list[str]] = {}
        for merge in self.config.merges.values():
            for name, step in self.merged(merge):
                steps.append(step)
                candidates.setdefault(merge.name, []).append(name)
        everyone = [name for names in candidates.values() for name in names]
        if everyone and len(self.languages) > 1:
            steps.append(self.analysis())
        for model in everyone:
            steps += self.evaluation(model, "valid")
        later: list[Later] = []
        if everyone:
            steps.append(self.select(candidates))
            if selection is None:
                models += [names[0] for names in candidates.values() if len(names) == 1]
                open_grids = [recipe for recipe, names in candidates.items() if len(names) > 1]
                for recipe in open_grids:
                    later += [
                        Later(step.name, step.kind, step.size)
                        for step in self.evaluation(f"merged/{recipe}[*]", "test")
                    ]
                later.append(Later("comparisons", "judge", None))
            else:
                models += [selection["best"][recipe] for recipe in candidates]
        for model in models:
            steps += self.evaluation(model, "test")
        if selection is not None and everyone:
            steps.append(self.comparisons(selection, models))
        graph = Graph(steps)
        _refuse_twins(graph)
        return Plan(graph, tuple(later), tuple(everyone), tuple(models))

    def data(self, language: str) -> Step:
        summary = self.facts.rows[language]
        return Step(
            name=f"data/{language}",
            kind="data",
            run="sabir.work.prepare:prepare",
            version=VERSIONS["data"],
            settings=summary.digests,
            parts=summary.digests,
            args={
                "source": self.facts.sources[language].to_json(),
                "task": {"name": self.config.task.name, "settings": _plain(self.config.task.settings)},
            },
            batch="data",
            size=float(sum(summary.characters.values())),
            priority=PRIORITY["data"],
        )

    def adapter(self, language: str) -> Step:
        path = self.config.languages[language].adapter
        if path is None:
            return self.trained(language, self.config.languages[language].lora, [language])
        return Step(
            name=f"adapter/{language}",
            kind="adopted",
            run="sabir.work.adopt:adopt",
            version=VERSIONS["adopted"],
            settings={"base": self.facts.base.identity, "digest": self.facts.adapters[language]},
            args={"path": str(path), "base": self.base},
            priority=PRIORITY["adopted"],
        )

    def combined(self) -> Step:
        with_rows = [language for language in self.languages if "train" in self.facts.rows[language].digests]
        return self.trained("combined", self.config.lora, with_rows)

    def trained(self, name: str, lora: LoraConfig, languages: list[str]) -> Step:
        characters = sum(self.facts.rows[language].characters["train"] for language in languages)
        return Step(
            name=f"adapter/{name}",
            kind="adapter",
            run="sabir.work.train:train",
            version=VERSIONS["adapter"],
            settings={
                "base": self.facts.base.identity,
                "language": name,
                "lora": non_default(asdict(lora), asdict(LoraConfig())),
            },
            deps={f"rows/{language}": Part(f"data/{language}", "train") for language in languages},
            args={
                "base": self.base,
                "lora": asdict(lora),
                "micro_batch": self.config.run.micro_batch or lora.batch_size,
                "checkpoint_every_s": CHECKPOINT_EVERY_S,
            },
            size=characters * lora.epochs,
            priority=PRIORITY["adapter"],
            preload=PRELOAD,
            resumable=True,
        )

    def merged(self, merge: MergeConfig) -> Iterator[tuple[str, Step]]:
        if merge.search is not None:
            step = self.searched(merge, merge.search)
            yield step.name, step
            return
        for member in members(merge):
            yield (
                member.name,
                Step(
                    name=member.name,
                    kind="merged",
                    run="sabir.work.merge:merge_step",
                    version=VERSIONS["merged"],
                    settings=merge.made(member.settings).identity(),
                    deps=self.own_adapters(),
                    args=self.merging(),
                    batch="merged",
                    size=float(len(self.languages)),
                    priority=PRIORITY["merged"],
                    preload=PRELOAD,
                ),
            )

    def searched(self, merge: MergeConfig, search: SearchConfig) -> Step:
        """The step that finds the open settings of a merge; its folder is the best merge's."""
        rows = {f"rows/{language}": Part(f"data/{language}", "valid") for language in self.languages}
        characters = sum(self.facts.rows[language].characters["valid"] for language in self.languages)
        return Step(
            name=f"merged/{merge.name}",
            kind="search",
            run="sabir.work.search:search",
            version=VERSIONS["search"],
            settings={
                "recipe": merge.made(merge.settings).identity(),
                "search": {"method": search.method, "budget": search.budget, "seed": search.seed},
                "space": merge.space_of_search(self.languages).identity(),
                "base": self.facts.base.identity,
                "metric": self.metric,
                "labels": list(self.facts.task.labels),
                "decoding": self.decoding(),
                "max_length": {
                    language: self.config.languages[language].lora.max_length for language in self.languages
                },
                "words": {language: self.words(language) for language in sorted(self.languages)},
                "versions": {kind: VERSIONS[kind] for kind in SEARCHES_BY},
            },
            deps={**self.own_adapters(), **rows},
            args={**self.merging(), "batch_size": self.config.evaluate.batch_size},
            size=float(search.budget * characters),
            priority=PRIORITY["search"],
            preload=PRELOAD,
            resumable=True,
        )

    def own_adapters(self) -> dict[str, Dep]:
        return {language: f"adapter/{language}" for language in self.languages}

    def merging(self) -> dict[str, Any]:
        """What every merge needs and is none of its identity; `kept` holds facts about single adapters."""
        return {"base": self.base, "kept": str(self.config.run.store / "kept")}

    def analysis(self) -> Step:
        return Step(
            name="analysis",
            kind="analysis",
            run="sabir.work.analysis:analysis",
            version=VERSIONS["analysis"],
            deps=self.own_adapters(),
            priority=PRIORITY["analysis"],
            preload=PRELOAD,
        )

    def evaluation(self, model: str, split: str) -> Iterator[Step]:
        for language in self.languages:
            yield self.outputs(model, language, split)
            yield self.scores(model, language, split)
        yield self.macro(model, split)

    def macro(self, model: str, split: str) -> Step:
        return Step(
            name=f"scores/{model}/macro/{split}",
            kind="macro",
            run="sabir.work.scores:macro",
            version=VERSIONS["macro"],
            settings=self.scoring(),
            deps={language: f"scores/{model}/{language}/{split}" for language in self.languages},
            batch="macro",
            size=float(sum(self.facts.rows[language].rows[split] for language in self.languages)),
            priority=PRIORITY["macro"],
            preload=LIGHT,
        )

    def words(self, language: str) -> dict[str, str]:
        """How words are found, where answers are texts: installing a splitter changes those scores."""
        if self.facts.task.answer != "text":
            return {}
        from sabir.metrics.words import describe_words

        return {"words": describe_words(language)}

    def scoring(self) -> dict[str, Any]:
        return {
            "metrics": list(self.facts.task.metrics),
            "labels": list(self.facts.task.labels),
            "level": self.config.evaluate.level,
            "resamples": self.config.evaluate.resamples,
        }

    def outputs(self, model: str, language: str, split: str) -> Step:
        lora = self.config.languages[language].lora
        deps: dict[str, Dep] = {"rows": Part(f"data/{language}", split)}
        if model != "base":
            deps["model"] = model
        size = self.facts.rows[language].characters[split]
        return Step(
            name=f"outputs/{model}/{language}/{split}",
            kind="outputs",
            run="sabir.work.outputs:outputs",
            version=VERSIONS["outputs"],
            settings={
                "base": self.facts.base.identity,
                "language": language,
                "max_length": lora.max_length,
                **self.decoding(),
            },
            deps=deps,
            args={"base": self.base, "split": split, "batch_size": self.config.evaluate.batch_size},
            batch="outputs",
            size=float(size),
            priority=PRIORITY["outputs"],
            preload=PRELOAD,
        )

    def decoding(self) -> dict[str, Any]:
        """How answers are found: the likeliest label, or a text of some length."""
        task = self.facts.task
        if task.answer == "text":
            return {"answer": task.answer, "max_new_tokens": task.max_new_tokens}
        return {"answer": task.answer, "labels": list(task.labels)}

    def scores(self, model: str, language: str, split: str) -> Step:
        return Step(
            name=f"scores/{model}/{language}/{split}",
            kind="scores",
            run="sabir.work.scores:scores",
            version=VERSIONS["scores"],
            settings={"language": language, **self.words(language), **self.scoring()},
            deps={"outputs": f"outputs/{model}/{language}/{split}", "rows": Part(f"data/{language}", split)},
            args={"split": split},
            batch="scores",
            size=float(self.facts.rows[language].rows[split]),
            priority=PRIORITY["scores"],
            preload=LIGHT,
        )

    def select(self, candidates: Mapping[str, list[str]]) -> Step:
        return Step(
            name="select",
            kind="select",
            run="sabir.work.select:select",
            version=VERSIONS["select"],
            settings={"by": self.config.select.by, "metric": self.metric, "candidates": candidates},
            deps={model: f"scores/{model}/macro/valid" for models in candidates.values() for model in models},
            priority=PRIORITY["select"],
        )

    def comparisons(self, selection: Mapping[str, Any], models: list[str]) -> Step:
        selected = selection["selected"]
        pairs = [[selected, OWN], [selected, "base"]]
        if "adapter/combined" in models:
            others = [model for model in selection["best"].values() if model != selected]
            pairs = [[model, "adapter/combined"] for model in (selected, *sorted(set(others)))] + pairs
        return self.judged(pairs)

    def judged(self, pairs: list[list[str]]) -> Step:
        """Each pair (a, b) compared on the test rows; `OWN` stands for each language's own adapter."""
        roles = {
            f"{model}/{language}": f"adapter/{language}" if model == OWN else model
            for model in sorted({model for pair in pairs for model in pair})
            for language in self.languages
        }
        return Step(
            name="comparisons",
            kind="judge",
            run="sabir.work.judge:judge",
            version=VERSIONS["judge"],
            settings={
                "pairs": pairs,
                "languages": sorted(self.languages),
                "metric": self.metric,
                "margin": self.config.gate.max_drop,
                **{key: value for key, value in self.scoring().items() if key != "metrics"},
            },
            deps={role: f"scores/{model}/{role.rpartition('/')[2]}/test" for role, model in roles.items()},
            priority=PRIORITY["judge"],
            preload=LIGHT,
        )

    @property
    def metric(self) -> str:
        return self.config.select.metric or self.facts.task.metrics[0]


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
        elif step.kind in ("merged", "search"):
            one, other = (name.replace("merged/", "merges.") for name in (twin, step.name))
            errors.append(InputError(other, f"is the same merge as {one}.", "Keep one of the two."))
    raise_all(errors)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
