"""Every kind of step, made from a config and what is known of the world: functions, identities, needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sabir.catalog import non_default
from sabir.config import Config, EvaluationConfig, MergeConfig, SearchConfig, members
from sabir.engine.fingerprint import Canonical
from sabir.engine.steps import Dep, Known, Part, Step
from sabir.engine.store import ANSWERS
from sabir.facts import Facts
from sabir.languages import LoraConfig, UpdateConfig
from sabir.lineage import Ancestor
from sabir.names import BASE, ENCODED, OWN, ROUTED, TRANSLATED, UNSEEN
from sabir.own_code import is_own, own_identity
from sabir.plan.names import LIGHT, PRELOAD, PRIORITY, SEARCHES_BY, VERSIONS, has_seeds, shots_of, speaks
from sabir.work.prepare import Summary

CHECKPOINT_EVERY_S = 120.0


class Steps:
    """Makes the steps of one config, each by itself; nothing is held against a store here.

    Args:
        nth: which training of everything: the 2nd has another seed, and its models end in "#2".
    """

    def __init__(self, config: Config, facts: Facts, nth: int = 1):
        self.config = config
        self.facts = facts
        self.nth = nth
        self.ending = "" if nth == 1 else f"#{nth}"
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
        summary = self._summary(language)
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
        if self.nth > 1:
            return self.trained(language, settings.lora, [language])
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
        return self.trained("combined", self.config.lora, self.with_rows)

    @property
    def with_rows(self) -> list[str]:
        """The languages that have training rows."""
        return [language for language in self.languages if "train" in self.facts.rows[language].digests]

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
        half: int | None = None,
    ) -> Step:
        """A training from scratch, or one that goes on from an ancestor with the rows that are new to it.

        Args:
            half: which half of the rows it is trained on; None: all of them.
        """
        deps: dict[str, Dep] = {f"rows/{one}": Part(f"data/{one}", "train") for one in languages}
        characters = sum(self.facts.rows[language].characters["train"] for language in languages)
        settings: dict[str, Any] = {"base": self.facts.base.identity, "language": name.partition("[")[0]}
        lora = replace(lora, seed=lora.seed + self.nth - 1)
        if going_on is not None:
            ancestor, update = going_on
            deps["parent"] = Known(ancestor.adapter)
            characters = ancestor.characters
            settings["update"] = {"replay": update.replay}
            lora = update.applied_to(lora)
        if half is not None:
            settings["half"] = half
            characters //= 2
        keeps = "checkpoints" in self.config.ensemble.free
        return Step(
            name=f"adapter/{name}{self.ending}" + ("" if half is None else f"[half={half}]"),
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
                **({"keep_epochs": True} if keeps else {}),
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
        merge = merge.weighted({language: self.facts.trained_on(language) for language in self.languages})
        for member in members(merge):
            recipe = merge.made(self._drawn_anew(merge, member.settings)).identity()
            yield member.name, self.merge(member.name + self.ending, recipe, self.own_adapters())

    def _drawn_anew(self, merge: MergeConfig, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """A merge's settings in the nth training: where it draws by chance, by other coins."""
        if self.nth == 1:
            return settings
        from sabir.merging.methods import METHODS

        if "seed" not in METHODS.get(merge.made(settings).method).settings:
            return settings
        return {**settings, "seed": settings.get("seed", 0) + self.nth - 1}

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
        return {
            language: f"adapter/{language}" if self.is_one(language) else f"adapter/{language}{self.ending}"
            for language in self.languages
        }

    def is_one(self, language: str) -> bool:
        """Whether a language's adapter is the same in all trainings: it was brought, or is held at an earlier one."""
        return language in self.facts.adapters or language in self.facts.holds

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
        """Answers and scores of a model on a split, and their mean over languages where it serves them all."""
        everyone = self.judged_on(split)
        languages = [language for language in everyone if speaks(model, language)]
        for language in languages:
            yield self.outputs(model, language, split)
            yield self.scores(model, language, split)
        if languages == everyone:
            yield self.macro(model, split)

    def judged_on(self, split: str) -> list[str]:
        """The languages that have rows in a split."""
        return list(self.facts.unseen) if split == UNSEEN else self.languages

    def rows(self, language: str, split: str) -> Dep:
        """The rows of a split, of a stress set, or of a language without an adapter."""
        if split in ("train", "valid", "test"):
            return Part(f"data/{language}", split)
        return Part(f"data/{language}", "test") if split == UNSEEN else f"stress/{split}/{language}"

    def _summary(self, language: str) -> Summary:
        return self.facts.rows.get(language) or self.facts.unseen[language]

    def macro(self, model: str, split: str) -> Step:
        languages = self.judged_on(split)
        return Step(
            name=f"scores/{model}/macro/{split}",
            kind="macro",
            run="sabir.work.scores:macro",
            version=VERSIONS["macro"],
            settings=self.averaged,
            deps={language: f"scores/{model}/{language}/{split}" for language in languages},
            batch="macro",
            size=float(sum(self._summary(language).rows[_file(split)] for language in languages)),
            priority=PRIORITY["macro"],
            preload=LIGHT,
        )

    def words(self, language: str) -> dict[str, str]:
        """How words are found, where answers are texts: installing a splitter changes those scores."""
        if self.facts.task.answer not in ("text", "phrases"):
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
        plain = model.partition("#")[0]
        deps: dict[str, Dep] = {"rows": self.rows(language, split)}
        settings: Canonical | dict[str, Any] = self.answered[language]
        args: dict[str, Any] = {
            "base": self.base,
            "split": _file(split),
            "batch_size": self.config.evaluate.batch_size,
            "answers": self.kept_answers,
        }
        run, batch = "sabir.work.outputs:outputs", "outputs"
        if plain == ROUTED:
            deps |= {f"model/{one}": adapter for one, adapter in self.own_adapters().items()}
            settings = {**self.answered[language].value(), "detector": self.detector}
            args |= {"detector": self.config.rivals.routed, "code": _text(self.config.code)}
            run, batch = "sabir.work.routes:routed", "routed"
        elif plain == TRANSLATED:
            assert self.config.rivals.translate is not None
            to = self.config.rivals.translate.to
            if language != to:
                deps["rows"] = f"translated/{language}"
            deps["model"] = self.own_adapters()[to]
        elif plain.startswith(f"{BASE}["):
            deps["shots"] = Part(f"data/{language}", "train")
            settings = {**self.answered[language].value(), "shots": shots_of(plain, self.config.lora.seed)}
        elif plain != BASE:
            deps["model"] = model
        return Step(
            name=f"outputs/{model}/{language}/{split}",
            kind="outputs",
            run=run,
            version=VERSIONS["outputs"],
            settings=settings,
            deps=deps,
            args=args,
            batch=batch,
            size=float(self._summary(language).characters[_file(split)]),
            priority=PRIORITY["outputs"],
            preload=PRELOAD,
        )

    def decoding(self) -> dict[str, Any]:
        """How answers are found: the likeliest label or choice, or a text of some length."""
        task = self.facts.task
        if task.answer == "label":
            return {"answer": task.answer, "labels": list(task.labels)}
        if task.answer == "choice":
            return {"answer": task.answer}
        generator = self.config.evaluate.generator
        other = {} if generator == "transformers" else {"generator": generator}
        return {"answer": task.answer, "max_new_tokens": task.max_new_tokens, **other}

    def scores(self, model: str, language: str, split: str) -> Step:
        return Step(
            name=f"scores/{model}/{language}/{split}",
            kind="scores",
            run="sabir.work.scores:scores",
            version=VERSIONS["scores"],
            settings=self.scored[language],
            deps={"outputs": f"outputs/{model}/{language}/{split}", "rows": self.rows(language, split)},
            args=self.judged_by[language, _file(split)],
            batch="scores",
            size=float(self._summary(language).rows[_file(split)]),
            priority=PRIORITY["scores"],
            preload=PRELOAD if ENCODED in self.facts.task.metrics else LIGHT,
        )

    # Settings that are the same for every model are written once: they are those of nearly all steps.

    @cached_property
    def answered(self) -> dict[str, Canonical]:
        """Settings of a model's answers, by language."""
        lengths = {language: one.lora.max_length for language, one in self.config.languages.items()}
        lengths |= dict.fromkeys(self.facts.unseen, self.config.lora.max_length)
        return {
            language: Canonical.of(
                {
                    "base": self.facts.base.identity,
                    "language": language,
                    "max_length": max_length,
                    **self.decoding(),
                }
            )
            for language, max_length in lengths.items()
        }

    @cached_property
    def judged_by(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Arguments of a model's scores, by language and file."""
        evaluate = self.config.evaluate
        given = {
            "max_unscored": evaluate.max_unscored,
            "batch_size": evaluate.batch_size,
            "encoder": _text(self.facts.encoder_folder),
        }
        everyone = [*self.languages, *self.facts.unseen]
        tasks = {language: self.task(language) for language in everyone}
        return {
            (language, file): {"split": file, "task": tasks[language], **given}
            for language in everyone
            for file in ("valid", "test")
        }

    @cached_property
    def detector(self) -> str:
        """Identity of the language detector that routes."""
        from sabir.work.detect import detector_identity

        assert self.config.rivals.routed is not None
        return detector_identity(self.config.rivals.routed, self.config.code)

    @cached_property
    def kept_answers(self) -> str:
        return str(self.config.run.store / ANSWERS)

    @cached_property
    def scored(self) -> dict[str, Canonical]:
        """Settings of a model's scores, by language."""
        most = self.config.evaluate.max_unscored
        more: dict[str, Any] = {} if most == EvaluationConfig().max_unscored else {"max_unscored": most}
        if is_own(self.config.task.name):
            told = self.config.task
            more["reader"] = [own_identity(told.name, told.code), _plain(told.settings)]
        if ENCODED in self.facts.task.metrics:
            more["encoder"] = [
                self.facts.encoder and self.facts.encoder.identity,
                self.config.evaluate.encoder_layer,
            ]
        return {
            language: Canonical.of({"language": language, **self.words(language), **self.scoring(), **more})
            for language in [*self.languages, *self.facts.unseen]
        }

    @cached_property
    def averaged(self) -> Canonical:
        """Settings of a model's mean over languages."""
        return Canonical.of(self.scoring())

    def select(self, candidates: Mapping[str, list[str]], name: str = "select") -> Step:
        """The step that ranks candidates, of all trainings together; a training's members end in its number."""
        endings = ["", *(f"#{nth}" for nth in range(2, self.config.seeds + 1))]
        models = [model for models in candidates.values() for model in models]
        return Step(
            name=name,
            kind="select",
            run="sabir.work.select:select",
            version=VERSIONS["select"],
            settings={"by": self.config.select.by, "metric": self.metric, "candidates": candidates},
            deps={
                model + ending: f"scores/{model}{ending}/macro/valid"
                for model in models
                for ending in endings
            },
            priority=PRIORITY["select"],
        )

    def judged(
        self,
        pairs: list[list[str]],
        languages: Collection[str],
        models: Collection[str] = (),
        floor: str | None = BASE,
        metric: str | None = None,
    ) -> Step:
        """Each pair (a, b) compared on the test rows, and all models ranked; `OWN` stands for each language's own
        adapter.

        Args:
            floor: what b must be better than before a can be said to be on par with it.
            metric: None: the one that selects.
        """
        roles = {}
        for model in sorted(
            {*models, *(model for pair in pairs for model in pair), *([floor] if floor else [])}
        ):
            for language in languages:
                plain = f"adapter/{language}" if model == OWN else model
                one = model == OWN and self.is_one(language)
                again = range(2, self.config.seeds + 1) if has_seeds(model) and not one else ()
                for name, role in [(plain, model), *((f"{plain}#{n}", f"{model}#{n}") for n in again)]:
                    roles[f"{role}/{language}"] = f"scores/{name}/{language}/test"
        return Step(
            name="comparisons",
            kind="judge",
            run="sabir.work.judge:judge",
            version=VERSIONS["judge"],
            settings={
                "pairs": pairs,
                "models": list(models),
                "floor": floor,
                "languages": sorted(languages),
                "seeds": self.config.seeds,
                "metrics": list(self.facts.task.metrics),
                **self.judging(),
                "metric": metric or self.metric,
            },
            deps=roles,
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


def _file(split: str) -> str:
    """The file of a step's folder that holds a split: what is made of test rows is a test file."""
    return split if split in ("train", "valid", "test") else "test"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
