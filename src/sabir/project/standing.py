"""What stands now: a config held against its store, its lock, its ledger and its releases."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sabir import lock
from sabir.catalog import did_you_mean
from sabir.config import Config
from sabir.engine import ledger
from sabir.engine.steps import Graph, Step
from sabir.engine.store import Store
from sabir.engine.why import Assessment, assess
from sabir.errors import InputError, raise_all
from sabir.facts import Facts, gather
from sabir.lineage import continued
from sabir.lock import Line, Lock
from sabir.names import COMBINED
from sabir.own_code import own_identity
from sabir.plan import (
    LARGE,
    Plan,
    Released,
    Stale,
    before_sabir,
    combined_graph,
    plan,
    selected,
    selection_of,
)
from sabir.releases import Event, Log, Release


@dataclass(frozen=True)
class State:
    """The plan held against the store: what is there, what will run, and why."""

    plan: Plan
    assessments: Mapping[str, Assessment]

    @property
    def missing(self) -> list[Assessment]:
        return [a for a in self.assessments.values() if a.status == "run"]

    @property
    def records(self) -> dict[str, Mapping[str, Any]]:
        return {name: a.record for name, a in self.assessments.items() if a.record is not None}

    def record(self, name: str) -> Mapping[str, Any] | None:
        """What the store knows of one step; None for one that is not there, or not in the plan."""
        return self.assessments[name].record if name in self.assessments else None

    @property
    def selected(self) -> str | None:
        """The merge that validation chose, once it is known."""
        record = self.record("select")
        return record["result"]["selected"] if record else None

    @property
    def metric(self) -> str | None:
        """The metric that decides, as the plan has it."""
        kinds = (a.step for a in self.assessments.values() if a.step.kind in ("select", "scores"))
        step = next(kinds, None)
        return None if step is None else step.settings.get("metric") or step.settings["metrics"][0]

    @property
    def language_adapters(self) -> dict[str, str]:
        """Fingerprint of each language's own adapter."""
        return {language: self.assessments[f"adapter/{language}"].fingerprint for language in self.languages}

    @property
    def languages(self) -> list[str]:
        """The languages that have an adapter."""
        known = [name.removeprefix("data/") for name in self.assessments if name.startswith("data/")]
        return [language for language in known if f"adapter/{language}" in self.assessments]

    def rows(self) -> list[dict[str, Any]]:
        """Name, kind, fingerprint, status, why and size of each step, in order."""
        return [
            {
                "name": name,
                "kind": a.step.kind,
                "fingerprint": a.fingerprint,
                "status": a.status,
                "why": a.why,
                "size": a.step.size,
            }
            for name, a in self.assessments.items()
        ]


class Standing:
    """A config as it stands when this is made: rows, base and releases are read once.

    Raises InputErrors for what is wrong with what the config names, StoreError for a store of a newer version.

    Args:
        with_base: also find the base's folder, fetching it if it must be; else its identity is enough.
    """

    def __init__(self, config: Config, store: Store, *, with_base: bool):
        store.check_format()
        self.config, self.store = config, store
        self.locked: Lock = lock.read(config.where)
        memory = store.cached("facts")
        known = replace(self.locked, lineage={**self._lines(), **self.locked.lineage})
        self.facts: Facts = gather(config, known, memory, with_base=with_base, store=store)
        self.log = Log(store.path, config.name)
        if self.facts.memory != memory:
            with contextlib.suppress(
                OSError
            ):  # it only saves time; `plan` works where nothing can be written
                store.remember("facts", self.facts.memory)

    @property
    def where(self) -> str:
        """The config, as sentences call it."""
        return str(self.config.where)

    @property
    def run_first(self) -> str:
        """What to do where something is not made yet."""
        return f"Do `sabir run {self.config.path}` first."

    def must_have(self, language: str, where: str) -> None:
        """Raise InputError for a language that is not in the config."""
        known = list(self.config.languages)
        if language not in known:
            fix = f"There are: {', '.join(known)}.{did_you_mean(language, known)}"
            raise InputError(where, "there is no such language.", fix)

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The ledger's entries of this config, the oldest first; several configs may share a store."""
        name = self.config.name
        return [entry for entry in ledger.runs(self.store) if entry.get("config", name) == name]

    @property
    def _own(self) -> Iterator[dict[str, Any]]:
        """The runs of the config's own plan, the newest first; not what was tried beside it (`blame`)."""
        return (entry for entry in reversed(self.entries) if not entry.get("beside"))

    @property
    def last(self) -> dict[str, Any] | None:
        """The last run, or None."""
        return next(self._own, None)

    @property
    def last_whole(self) -> dict[str, Any] | None:
        """The last run that was neither stopped nor failed, or None."""
        return next((entry for entry in self._own if entry.get("complete", True)), None)

    def _lines(self) -> dict[str, Line]:
        """Each language's adapter of the last whole run: where a first continuation goes on from."""
        entry = self.last_whole or {}
        return {
            language: Line(rows["digests"]["train"], adapter, None)
            for language, rows in entry.get("rows", {}).items()
            if "train" in rows["digests"] and (adapter := entry["languages"].get(language))
        }

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """What happened to the model in use until now."""
        return self.log.events()

    @cached_property
    def current(self) -> Release | None:
        """The current release, or None before the first."""
        return self.log.current() if self.events else None

    @cached_property
    def release(self) -> Released | None:
        """The model in use that a new one can be held against: the current release's, or the one before sabir.

        None where there is neither, and where nothing can be held against the release, see `unlike`.
        """
        if self.current is None:
            return before_sabir(self.config, self.facts)
        return None if self.unlike else released(self.current)

    @cached_property
    def unlike(self) -> str | None:
        """Why nothing can be held against the current release, a clause; None where it can, and where there is none."""
        if self.current is None:
            return None
        if not self.same_base(self.current):
            return f"release {self.current.name} stands on another base than {self.config.base!r}"
        adapters = self.current.languages.values()
        made_again = self.current.recipe is not None and adapters and all(map(self.store.has, adapters))
        if made_again or self.store.has(self.current.fingerprint):
            return None
        return f"release {self.current.name} is lost from the store and cannot be made again"

    def same_base(self, release: Release) -> bool:
        """Whether a release stands on the base that the config names now."""
        return release.base in (None, self.facts.base.identity)

    def state(self, *, with_baseline: bool = False) -> State:
        """The plan held against the store as it is at this moment.

        Args:
            with_baseline: plan a new combined baseline where the old one is of other data.
        """
        previous = {step["name"]: step["fingerprint"] for step in self.last["steps"]} if self.last else {}
        stale = {} if with_baseline else self._stale()
        first = whole = plan(self.config, self.facts, selection=None, stale=stale, release=self.release)

        def result(name: str) -> Mapping[str, Any] | None:
            record = self.store.record(first.graph.fingerprints[name])
            return record["result"] if record else None

        if (selection := selection_of(first, result)) is not None:
            whole = selected(self.config, self.facts, first, selection=selection, release=self.release)
        return State(whole, assess(whole.graph, self.store, previous))

    def _stale(self) -> dict[str, Stale]:
        """By name, the newest combined adapter of other data, where today's was not trained and differs in that."""
        fresh = combined_graph(self.config, self.facts)
        if fresh is None:
            return {}
        wanted = [step for step in fresh if step.kind == "adapter"]
        found = ((step.name, self._older(fresh, step)) for step in wanted)
        return {name: old for name, old in found if old is not None}

    def _older(self, fresh: Graph, step: Step) -> Stale | None:
        if self.store.has(fresh.fingerprints[step.name]):
            return None
        for record in self._former(step.name):
            if _training(record["settings"], step.name) == _training(step.settings, step.name) and (
                record["version"] == step.version
            ):
                goes_on = self.config.baseline == "continued" and step.name == COMBINED
                return Stale(
                    record["fingerprint"],
                    f"trained on older data ({_changes(record['deps'], fresh.identities(step))}); "
                    "--with-baseline trains it anew",
                    continued(self.store, self.facts, record["fingerprint"]) if goes_on else None,
                    record["name"],
                )
        return None

    def _former(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Records of the step of that name, the newest first: of the runs, then of a run that was killed.

        Of this config's runs, and of those that asked the same: another task, or another prompt, is no older data.
        """
        now = asked(self.config)
        alike = [entry for entry in self.entries if entry.get("asked", now) == now]
        for entry in reversed(alike):
            for old in entry["steps"]:
                if _is_former(old["name"], name) and (record := self.store.record(old["fingerprint"])):
                    yield record
        runs = {entry["id"] for entry in alike}
        stray = (one for one in self.store.records() if _is_former(one["name"], name) and one["run"] in runs)
        yield from sorted(stray, key=lambda record: record["created"], reverse=True)

    def phase(self, state: State) -> tuple[str, list[str]]:
        """What a run is for, and the languages whose adapters differ from those of the last whole run.

        A run that failed or was stopped changes nothing here: the next one goes on with the same task.
        """
        now = state.language_adapters
        if self.last_whole is None:
            return ("setup" if state.missing else "none"), sorted(now)
        then: Mapping[str, str] = self.last_whole["languages"]
        changed = sorted(language for language in {*now, *then} if now.get(language) != then.get(language))
        if not changed or not state.missing:
            return "none", []
        return ("add" if set(now) - set(then) else "update"), changed

    def warnings(self, state: State) -> list[str]:
        """Warnings of the preflight; its errors are raised."""
        from sabir.preflight import inspect

        steps = [assessment.step for assessment in state.missing]
        recipes = [s.settings.get("recipe", s.settings) for s in steps if s.kind in ("merged", "search")]
        folded = sum(recipe.get("rank") == "fold" for recipe in recipes)
        findings = inspect(
            self.config,
            self.facts,
            to_train=sum(step.kind == "adapter" for step in steps),
            to_merge=len(recipes) - folded,
            to_fold=folded,
        )
        raise_all(findings.errors)
        return [*findings.warnings, *self._renamed(), *self._lost()]

    def _lost(self) -> Iterator[str]:
        if self.unlike:
            yield f"{self.unlike}: nothing can be held against it."

    def _renamed(self) -> Iterator[str]:
        """A language that has the training rows another one had in the last run: a new name, and a new training."""
        then = {
            facts["digests"]["train"]: language
            for language, facts in (self.last_whole or {}).get("rows", {}).items()
            if "train" in facts["digests"] and language not in self.facts.rows
        }
        for language, summary in self.facts.rows.items():
            if old := then.get(summary.digests.get("train", "")):
                yield (
                    f"data.{language}: has the training rows that {old!r} had in the last run. Under another name "
                    "it is trained anew: a language's name is part of its seed."
                )


def _is_former(old: str, name: str) -> bool:
    """Whether a step was what the one of that name is today: a large combined adapter may have had another rank."""
    if not name.startswith(LARGE):
        return old == name
    return old.startswith(LARGE) and ",scale=" not in old and old.partition("#")[2] == name.partition("#")[2]


def _training(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """How a combined adapter is trained; the rank of a large one follows the languages there are."""
    lora = dict(settings.get("lora", {}))
    if name.startswith(LARGE):
        lora = {key: value for key, value in lora.items() if key not in ("rank", "alpha")}
    return {**settings, "lora": lora}


def asked(config: Config) -> str:
    """Digest of what a config asks its models: the task with its settings and prompts, but for what judges them."""
    task = config.task
    settings = {key: value for key, value in task.settings.items() if key != "metrics"}
    told = [
        own_identity(task.name, task.code),
        settings,
        {key: dict(prompt) for key, prompt in task.prompts.items()},
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=list).encode()).hexdigest()


def released(release: Release) -> Released:
    """A release, as the plan needs it."""
    return Released(release.name, release.kind, release.fingerprint, release.recipe, release.languages)


def _changes(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which languages a combined training had, and has not, or has otherwise: "de changed, it is new"."""
    words = []
    for role in sorted({*then, *now}):
        language = role.removeprefix("rows/")
        if role not in then:
            words.append(f"{language} is new")
        elif role not in now:
            words.append(f"{language} is gone")
        elif then[role] != now[role]:
            words.append(f"{language} changed since")
    return ", ".join(words)
