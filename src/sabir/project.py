"""One config and its store, as an object: what the command line and notebooks call."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sabir import lock
from sabir.catalog import did_you_mean
from sabir.config import Config, load_config
from sabir.engine import ledger
from sabir.engine.backends import Backend, Slot
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.backends.local import LocalBackend, cpu_slots, gpu_slots
from sabir.engine.run import Listener, Result, run
from sabir.engine.steps import above
from sabir.engine.store import Store
from sabir.engine.why import Assessment, assess
from sabir.errors import InputError, StepFailed, StoreError, raise_all
from sabir.facts import Facts, gather
from sabir.plan import OWN, Plan, Stale, combined_step, comparison, plan
from sabir.report.costs import Rates
from sabir.report.documents import (
    ledger_entry,
    merge_notes,
    plan_document,
    predicted_baseline,
    remembered_statuses,
    score_rows,
    searches,
    step_rows,
)

WORKER_ENV = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for GPUs before the fork must not start CUDA
}
REMEMBERED_RUNS = 5  # whose costs serve the estimates


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

    @property
    def selected(self) -> str | None:
        """The merge that validation chose, once it is known."""
        record = self.records.get("select")
        return record["result"]["selected"] if record else None

    @property
    def language_adapters(self) -> dict[str, str]:
        """Fingerprint of each language's own adapter."""
        return {
            name.removeprefix("adapter/"): assessment.fingerprint
            for name, assessment in self.assessments.items()
            if name.startswith("adapter/") and name != "adapter/combined"
        }

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


class Project:
    """A config file and the store it names.

    Every method returns one of the documents that `--json` prints (a plain dict). Raises InputError for what
    is wrong with the config, its files or its base, StoreError when the store cannot be used, and StepFailed
    when a step of a run fails.

    Args:
        path: the config file.
        overrides: settings in place of the file's, {"lora.epochs": "5"} or ["lora.epochs=5"].
    """

    def __init__(self, path: str | Path, *, overrides: Mapping[str, str] | Sequence[str] = ()):
        self.config: Config = load_config(path, overrides=overrides)
        self.store = Store(self.config.run.store)

    def check(self) -> dict[str, Any]:
        """Everything that can be wrong, before anything heavy starts; warnings in the document."""
        facts = self._facts(with_base=True)
        state = self._state(facts, with_baseline=False)
        self._slots()
        return {
            "ok": True,
            "base": {
                "name": facts.base.name,
                "identity": facts.base.identity,
                "revision": facts.base.revision,
            },
            "rows": {language: dict(summary.rows) for language, summary in facts.rows.items()},
            "warnings": self._inspected(facts, state),
        }

    def plan(self, *, with_baseline: bool = False) -> dict[str, Any]:
        """What would run and why, and what it would take; nothing is run."""
        facts = self._facts(with_base=False)
        state = self._state(facts, with_baseline=with_baseline)
        previous = ledger.runs(self.store)[-REMEMBERED_RUNS:]
        return plan_document(
            state.rows(),
            [asdict(step) for step in state.plan.later],
            self._inspected(facts, state),
            Rates(step for entry in previous for step in entry["steps"] if step["status"] == "run"),
            phase=self._phase(state)[0],
            devices=len(self._slots()),
            usd_per_hour=self.config.prices.usd_per_hour,
        )

    def run(
        self,
        *,
        with_baseline: bool = False,
        workers: int | None = None,
        listener: Listener | None = None,
        warn: Callable[[str], None] = lambda warning: None,
    ) -> dict[str, Any]:
        """Do what is missing. What finished stays in the store whatever happens after it.

        Args:
            with_baseline: train the combined baseline again if its data changed; else the old one stands in.
            workers: jobs side by side, in place of the config's.
            listener: hears how far it is.
            warn: hears each warning before anything starts; the document has them too.
        Raises StepFailed when a step failed (the others were kept), KeyboardInterrupt when interrupted.
        """
        listener = listener or Listener()
        started, clock = datetime.now(UTC), time.perf_counter()
        with _writing(self.store), self.store.lock():
            facts = self._facts(with_base=True)
            before = state = self._state(facts, with_baseline=with_baseline)
            if not state.missing:
                return self._document(state, run_id=None, phase="none", changed=[])
            warnings = self._inspected(facts, state)
            for warning in warnings:
                warn(warning)
            phase, changed = self._phase(state)
            run_id = ledger.new_run_id()
            backend = self._backend(workers, run_id)
            lock.write(self.config.path, facts.base)
            results: list[Result] = []
            try:
                while _goes_on(state, results):
                    listener.planned(state.assessments)
                    results.append(
                        run(
                            state.plan.graph,
                            state.assessments,
                            self.store,
                            backend,
                            run_id=run_id,
                            listener=listener,
                        )
                    )
                    state = self._state(facts, with_baseline=with_baseline)
            finally:
                backend.close()
                entry = self._entry(
                    before, facts, results, run_id, phase, len(backend.slots), with_baseline=with_baseline
                )
                entry |= {
                    "started": started.isoformat(timespec="seconds"),
                    "wall_s": time.perf_counter() - clock,
                    "languages_changed": changed,
                }
                ledger.write(self.store, entry)
        if any(result.interrupted for result in results):
            raise KeyboardInterrupt
        _raise_failure(results)
        return {
            **self._document(state, run_id=run_id, phase=phase, changed=changed),
            "warnings": warnings,
        }

    def show(self, *, compare: tuple[str, str] | None = None) -> dict[str, Any]:
        """Quality, time and cost as they stand, with the costs of all runs so far.

        Args:
            compare: two models; `comparisons` then holds the first against the second and nothing else.
        """
        facts = self._facts(with_base=False)
        state = self._state(facts, with_baseline=False)
        last = ledger.last(self.store)
        document = self._document(
            state,
            run_id=last["id"] if last else None,
            phase=last["phase"] if last else "none",
            changed=last["languages_changed"] if last else [],
        )
        if compare is not None:
            document["comparisons"] = self._compared(state, facts, *compare)
        return document

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The selected merge's answer to each text: `input`, `prediction`, the labels' log-likelihoods."""
        facts = self._facts(with_base=True)
        state = self._state(facts, with_baseline=False)
        selected = state.selected
        where = str(self.config.path)
        if not self.config.merges:
            raise InputError(where, "there is no merge to answer with.", "Add one under merges: and run it.")
        if selected is None or selected not in state.records:
            raise InputError(
                where, "there is no selected merge of today's data yet.", f"Do `sabir run {where}` first."
            )
        from sabir.work.predict import answer

        assert facts.base_folder is not None
        return answer(
            texts,
            task=facts.task,
            base=facts.base_folder,
            model=self.store.folder(state.assessments[selected].fingerprint),
            max_length=self.config.lora.max_length,
            batch_size=self.config.evaluate.batch_size,
            device=self._slots()[0].device,
        )

    # --- what stands now ---------------------------------------------------------------------------------

    def _facts(self, *, with_base: bool) -> Facts:
        memory = self.store.cached("facts")
        facts = gather(
            self.config, lock.read(self.config.path).get(self.config.base), memory, with_base=with_base
        )
        if facts.memory != memory:
            with contextlib.suppress(
                OSError
            ):  # it only saves time; `plan` works where nothing can be written
                self.store.remember("facts", facts.memory)
        return facts

    def _state(self, facts: Facts, *, with_baseline: bool) -> State:
        last = ledger.last(self.store)
        previous = {step["name"]: step["fingerprint"] for step in last["steps"]} if last else {}
        first = plan(self.config, facts, selection=None, stale=None)
        stale = None if with_baseline else self._stale(first, facts)
        if stale is not None:
            first = plan(self.config, facts, selection=None, stale=stale)
        record = self.store.record(first.graph.fingerprints["select"]) if "select" in first.graph else None
        whole = first if record is None else plan(self.config, facts, selection=record["result"], stale=stale)
        return State(whole, assess(whole.graph, self.store, previous))

    def _stale(self, fresh: Plan, facts: Facts) -> Stale | None:
        """The newest combined baseline of other data, if today's was not trained and differs in that only."""
        step = combined_step(self.config, facts)
        if step is None or self.store.has(fresh.graph.fingerprints[step.name]):
            return None
        for record in self._former(step.name):
            if record["settings"] == dict(step.settings) and record["version"] == step.version:
                return Stale(
                    record["fingerprint"],
                    f"trained on older data ({_changes(record['deps'], fresh.graph.identities(step))}); "
                    "--with-baseline trains it anew",
                )
        return None

    def _former(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Records of the step of that name, the newest first: of the runs, then of a run that was killed."""
        for entry in reversed(ledger.runs(self.store)):
            for old in entry["steps"]:
                if old["name"] == name and (record := self.store.record(old["fingerprint"])):
                    yield record
        stray = (record for record in self.store.records() if record["name"] == name)
        yield from sorted(stray, key=lambda record: record["created"], reverse=True)

    def _inspected(self, facts: Facts, state: State) -> list[str]:
        """Warnings of the preflight; its errors are raised."""
        from sabir.preflight import inspect

        steps = [assessment.step for assessment in state.missing]
        recipes = [s.settings.get("recipe", s.settings) for s in steps if s.kind in ("merged", "search")]
        folded = sum(recipe.get("rank") == "fold" for recipe in recipes)
        findings = inspect(
            self.config,
            facts,
            to_train=sum(step.kind == "adapter" for step in steps),
            to_merge=len(recipes) - folded,
            to_fold=folded,
        )
        raise_all(findings.errors)
        return list(findings.warnings)

    def _phase(self, state: State) -> tuple[str, list[str]]:
        """What a run is for, and the languages whose adapters differ from those of the last whole run.

        A run that failed or was stopped changes nothing here: the next one goes on with the same task.
        """
        now = state.language_adapters
        whole = [entry for entry in ledger.runs(self.store) if entry.get("complete", True)]
        if not whole:
            return ("setup" if state.missing else "none"), sorted(now)
        then: Mapping[str, str] = whole[-1]["languages"]
        changed = sorted(language for language in {*now, *then} if now.get(language) != then.get(language))
        if not changed or not state.missing:
            return "none", []
        return ("add" if set(now) - set(then) else "update"), changed

    # --- documents ---------------------------------------------------------------------------------------

    def _document(
        self, state: State, *, run_id: str | None, phase: str, changed: list[str]
    ) -> dict[str, Any]:
        """The `run` document: statuses are those of the run where there was one."""
        entries = ledger.runs(self.store)
        entry = next((entry for entry in reversed(entries) if entry["id"] == run_id), None)
        comparisons = state.records.get("comparisons")
        analysis = state.records.get("analysis")
        pinned = [f"{name}: {a.why}." for name, a in state.assessments.items() if a.step.pinned]
        return {
            "run": {"id": run_id, "phase": phase, "languages_changed": changed},
            "steps": step_rows(
                remembered_statuses(state.rows(), entry), state.records, self.config.prices.usd_per_hour
            ),
            "scores": score_rows(self.config.task.name, self.config.lora.seed, state.records),
            "comparisons": comparisons["result"]["comparisons"] if comparisons else [],
            "costs": [row for entry in entries for row in entry["costs"]],
            "selected": state.selected,
            "release": None,
            "store": str(self.store.path),
            "metric": self.config.select.metric or _first_metric(state),
            "languages": list(self.config.languages),
            "notes": pinned + merge_notes(state.plan.reported, state.records),
            "searches": searches(state.records),
            "analysis": analysis["result"] if analysis else None,
            "pending": len(state.missing),
        }

    def _entry(
        self,
        before: State,
        facts: Facts,
        results: Sequence[Result],
        run_id: str,
        phase: str,
        devices: int,
        *,
        with_baseline: bool,
    ) -> dict[str, Any]:
        """The ledger's entry of a run, also of one that broke off: what it finished is in the store."""
        state = self._state(facts, with_baseline=with_baseline)
        made = {
            n for n, record in state.records.items() if (record.get("run"), record["name"]) == (run_id, n)
        }
        entry = ledger_entry(
            state.rows(),
            {name: assessment.why for name, assessment in before.assessments.items()},
            state.records,
            run=run_id,
            phase=phase,
            devices=devices,
            usd_per_hour=self.config.prices.usd_per_hour,
            ran=made,
            failures={n: failure.message for result in results for n, failure in result.failed.items()},
        )
        entry["costs"] += self._predicted(state, entry)
        return entry | {
            "languages": state.language_adapters,
            "base": asdict(facts.base),
            "selected": state.selected,
        }

    def _predicted(self, state: State, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the combined baseline would have cost in this run, where it was not trained."""
        baseline = state.assessments.get("adapter/combined")
        if baseline is None or baseline.record is None:
            return []
        return predicted_baseline(baseline.record["cost"], baseline.step.size, entry=entry)

    def _compared(self, state: State, facts: Facts, a: str, b: str) -> list[dict[str, Any]]:
        """Paired differences between two models on the test rows, from the scores that are in the store."""
        from sabir.engine.job import Work
        from sabir.work.judge import judge

        step = comparison(self.config, facts, a, b)
        names = dict(zip(step.deps, above(step), strict=True))
        known = [*state.plan.reported, OWN]
        for model in (a, b):
            if model not in known:
                fix = f"Known are: {', '.join(known)}.{did_you_mean(model, known)}"
                raise InputError("--compare", f"no scores on test of a model {model!r}.", fix)
        if missing := [name for name in names.values() if name not in state.records]:
            raise InputError("--compare", f"{missing[0]} is not in the store yet.", "Do `sabir run` first.")
        work = Work(
            name=step.name,
            settings=step.settings,
            args={},
            inputs={role: self.store.folder(state.assessments[n].fingerprint) for role, n in names.items()},
            out=self.store.path,  # nothing is written there
            device="cpu",
            emit=lambda *_, **__: None,
        )
        return next(iter(judge([work])))[1]["result"]["comparisons"]

    # --- where it runs -----------------------------------------------------------------------------------

    def _slots(self, workers: int | None = None) -> tuple[Slot, ...]:
        from sabir.engine.backends.devices import cores, gpus

        wanted = workers or self.config.run.workers
        found = gpus() if self.config.run.device in ("auto", "cuda") else []
        if self.config.run.device == "cuda" and not found:
            raise InputError("run.device", "is cuda, and no GPU is visible.", "Write device: auto or cpu.")
        if found:
            return gpu_slots(found[: wanted or len(found)], cores())
        return cpu_slots(wanted or cores(), cores())

    def _backend(self, workers: int | None, run_id: str) -> Backend:
        slots = self._slots(workers)
        if self.config.run.backend == "inline":
            return InlineBackend(slots[0].device)  # type: ignore[return-value]  # its one slot is a tuple[Slot]
        return LocalBackend(
            slots,
            env={**WORKER_ENV, **{k: v for k, v in slots[0].env if k != "CUDA_VISIBLE_DEVICES"}},
            log=self.store.path / "jobs" / run_id / "server.txt",
        )


@contextlib.contextmanager
def _writing(store: Store) -> Iterator[None]:
    """A full disk or a store that cannot be written is the user's to mend, and said in a sentence."""
    try:
        yield
    except OSError as error:
        inside = error.filename is not None and Path(error.filename).is_relative_to(store.path.parent)
        if error.errno != errno.ENOSPC and not inside:
            raise
        raise StoreError(
            str(error.filename or store.path),
            f"cannot be written ({error.strerror}).",
            "Free some space or point run.store elsewhere; what is in the store stays.",
        ) from error


def _goes_on(state: State, results: Sequence[Result]) -> bool:
    """Whether there is more to do: a step that failed and on which nothing stands keeps nobody waiting."""
    failed = {name for result in results for name in result.failed}
    broken = any(failure.blocked for result in results for failure in result.failed.values())
    if broken or any(result.interrupted for result in results):
        return False
    return any(assessment.step.name not in failed for assessment in state.missing)


def _raise_failure(results: Iterable[Result]) -> None:
    failures = {name: failure for result in results for name, failure in result.failed.items()}
    if not failures:
        return
    name, failure = next(iter(failures.items()))
    others = f" Also failed: {', '.join(list(failures)[1:])}." if len(failures) > 1 else ""
    blocked = {step for failure in failures.values() for step in failure.blocked}
    raise StepFailed(
        f"step {name}",
        f"failed after {failure.wall_s:.0f} s: {failure.message}",
        f"Log: {failure.log}.{others} {len(blocked)} steps that stand on it were not started; "
        "the others were kept, and the next run goes on from there.",
    )


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


def _first_metric(state: State) -> str | None:
    for assessment in state.assessments.values():
        if assessment.step.kind == "scores":
            return assessment.step.settings["metrics"][0]
    return None
