"""Every kind of step, made from a config and what is known of the world: functions, identities, needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sabir.catalog import non_default
from sabir.config import Config, MergeConfig, SearchConfig, members
from sabir.engine.fingerprint import Canonical
from sabir.engine.steps import Dep, Known, Part, Step
from sabir.facts import Facts
from sabir.languages import LoraConfig, UpdateConfig
from sabir.lineage import Ancestor

OWN = "adapter/<language>"  # in a comparison: each language's own adapter
COMBINED = "adapter/combined"
CONTINUED = "adapter/continued"  # the combined one, trained on with the new rows alone
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
    "changes": 8,
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
    "changes": 1,
    "analysis": 1,
}
SEARCHES_BY = ("merged", "outputs", "scores")  # what a search does itself: it runs again with their versions


def speaks(model: str, language: str) -> bool:
    """Whether a model is scored on a language: all are, but a language's own adapter, on no other."""
    own = model.startswith("adapter/") and model not in (COMBINED, CONTINUED, OWN)
    return not own or model == f"adapter/{language}"


class Steps:
    """Makes the steps of one config, each by itself; nothing is held against a store here."""

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

    def task(self, language: str) -> dict[str, Any]:
        """The task as one language has it, for the `args` of a step."""
        told = self.config.task.of(language)
        code = {} if told["code"] is None else {"code": str(told["code"])}
        return {"name": told["name"], "settings": _plain(told["settings"]), **code}

    def data(self, language: str) -> Step:
        """The rows of a language, of one without an adapter too."""
        summary = self.facts.rows.get(language) or self.facts.unseen[language]
        return Step(
            name=f"data/{language}",
            kind="data",
            run="sabir.work.prepare:prepare",
            version=VERSIONS["data"],
            settings=summary.digests,
            parts=summary.digests,
            args={
                "source": self.facts.sources[language].to_json(),
                "task": self.task(language),
            },
            batch="data",
            size=float(sum(summary.characters.values())),
            priority=PRIORITY["data"],
        )

    def adapter(self, language: str) -> Step:
        settings = self.config.languages[language]
        if settings.adapter is not None:
            return self.adopted(f"adapter/{language}", self.facts.adapters[language], settings.adapter)
        if ancestor := self.facts.ancestors.get(language):
            return self.trained(language, settings.lora, [language], (ancestor, settings.update))
        step = self.trained(language, settings.lora, [language])
        if hold := self.facts.holds.get(language):
            note = f"held at the adapter of release {hold.release} until its training rows change"
            return replace(step, deps={}, pinned=hold.adapter, note=note)
        return step

    def adopted(self, name: str, digest: str, path: Path) -> Step:
        return Step(
            name=name,
            kind="adopted",
            run="sabir.work.adopt:adopt",
            version=VERSIONS["adopted"],
            settings={"base": self.facts.base.identity, "digest": digest},
            args={"path": str(path), "base": self.base},
            priority=PRIORITY["adopted"],
        )

    def combined(self) -> Step:
        with_rows = [language for language in self.languages if "train" in self.facts.rows[language].digests]
        return self.trained("combined", self.config.lora, with_rows)

    def continued(self, ancestor: Ancestor) -> Step:
        """The rival that retrains nothing: the combined adapter, trained on with the new rows and no others."""
        update = replace(self.config.update, replay=0.0)
        return self.trained("continued", self.config.lora, sorted(ancestor.languages), (ancestor, update))

    def trained(
        self,
        name: str,
        lora: LoraConfig,
        languages: list[str],
        going_on: tuple[Ancestor, UpdateConfig] | None = None,
    ) -> Step:
        """A training from scratch, or one that goes on from an ancestor with the rows that are new to it."""
        deps: dict[str, Dep] = {f"rows/{one}": Part(f"data/{one}", "train") for one in languages}
        characters = sum(self.facts.rows[language].characters["train"] for language in languages)
        settings: dict[str, Any] = {"base": self.facts.base.identity, "language": name}
        if going_on is not None:
            ancestor, update = going_on
            deps["parent"] = Known(ancestor.adapter)
            characters = ancestor.characters
            settings["update"] = {"replay": update.replay}
            lora = update.applied_to(lora)
        return Step(
            name=f"adapter/{name}",
            kind="adapter",
            run="sabir.work.train:train",
            version=VERSIONS["adapter"],
            settings={**settings, "lora": non_default(asdict(lora), asdict(LoraConfig()))},
            deps=deps,
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
            recipe = merge.made(member.settings).identity()
            yield member.name, self.merge(member.name, recipe, self.own_adapters())

    def merge(self, name: str, recipe: Mapping[str, Any], adapters: Mapping[str, Dep]) -> Step:
        return Step(
            name=name,
            kind="merged",
            run="sabir.work.merge:merge_step",
            version=VERSIONS["merged"],
            settings=recipe,
            deps=adapters,
            args=self.merging(),
            batch="merged",
            size=float(len(adapters)),
            priority=PRIORITY["merged"],
            preload=PRELOAD,
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
        languages = [language for language in self.languages if speaks(model, language)]
        for language in languages:
            yield self.outputs(model, language, split)
            yield self.scores(model, language, split)
        if languages == self.languages:
            yield self.macro(model, split)

    def macro(self, model: str, split: str) -> Step:
        return Step(
            name=f"scores/{model}/macro/{split}",
            kind="macro",
            run="sabir.work.scores:macro",
            version=VERSIONS["macro"],
            settings=self.averaged,
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
        deps: dict[str, Dep] = {"rows": Part(f"data/{language}", split)}
        if model != "base":
            deps["model"] = model
        size = self.facts.rows[language].characters[split]
        return Step(
            name=f"outputs/{model}/{language}/{split}",
            kind="outputs",
            run="sabir.work.outputs:outputs",
            version=VERSIONS["outputs"],
            settings=self.answered[language],
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
            settings=self.scored[language],
            deps={"outputs": f"outputs/{model}/{language}/{split}", "rows": Part(f"data/{language}", split)},
            args={"split": split},
            batch="scores",
            size=float(self.facts.rows[language].rows[split]),
            priority=PRIORITY["scores"],
            preload=LIGHT,
        )

    # Settings that are the same for every model are written once: they are those of nearly all steps.

    @cached_property
    def answered(self) -> dict[str, Canonical]:
        """Settings of a model's answers, by language."""
        return {
            language: Canonical.of(
                {
                    "base": self.facts.base.identity,
                    "language": language,
                    "max_length": settings.lora.max_length,
                    **self.decoding(),
                }
            )
            for language, settings in self.config.languages.items()
        }

    @cached_property
    def scored(self) -> dict[str, Canonical]:
        """Settings of a model's scores, by language."""
        return {
            language: Canonical.of({"language": language, **self.words(language), **self.scoring()})
            for language in self.languages
        }

    @cached_property
    def averaged(self) -> Canonical:
        """Settings of a model's mean over languages."""
        return Canonical.of(self.scoring())

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
        if CONTINUED in models:
            pairs = [[selected, CONTINUED], *pairs]
        if COMBINED in models:
            others = [model for model in selection["best"].values() if model != selected]
            pairs = [[model, COMBINED] for model in (selected, *sorted(set(others)))] + pairs
        return self.judged(pairs, self.languages)

    def judged(self, pairs: list[list[str]], languages: Collection[str]) -> Step:
        """Each pair (a, b) compared on the test rows; `OWN` stands for each language's own adapter."""
        roles = {
            f"{model}/{language}": f"adapter/{language}" if model == OWN else model
            for model in sorted({model for pair in pairs for model in pair})
            for language in languages
        }
        return Step(
            name="comparisons",
            kind="judge",
            run="sabir.work.judge:judge",
            version=VERSIONS["judge"],
            settings={
                "pairs": pairs,
                "languages": sorted(languages),
                **self.judging(),
            },
            deps={role: f"scores/{model}/{role.rpartition('/')[2]}/test" for role, model in roles.items()},
            priority=PRIORITY["judge"],
            preload=LIGHT,
        )

    def judging(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "margin": self.config.gate.max_drop,
            **{key: value for key, value in self.scoring().items() if key != "metrics"},
        }

    @property
    def metric(self) -> str:
        return self.config.select.metric or self.facts.task.metrics[0]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
