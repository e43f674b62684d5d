"""One config and its store, as an object: what the command line and notebooks call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sabir import lock
from sabir.config import Config, load_config
from sabir.engine import ledger
from sabir.engine.backends import Backend
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.backends.local import LocalBackend, cpu_slots, gpu_slots
from sabir.engine.run import Listener, Result, run
from sabir.engine.store import Store
from sabir.engine.why import Assessment, assess
from sabir.errors import InputError, StepFailed, raise_all
from sabir.facts import Facts, gather
from sabir.plan import Plan, Stale, combined_step, plan
from sabir.report.costs import Rates, cost_rows
from sabir.report.documents import plan_document, score_rows, step_rows

WORKER_ENV = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
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
    is wrong with the config, its files or its base, and StepFailed when a step of a run fails.

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
        state = self._state(self._facts(with_base=False), with_baseline=with_baseline)
        previous = ledger.runs(self.store)[-REMEMBERED_RUNS:]
        return plan_document(
            state.rows(),
            state.plan.later,
            [],
            Rates(step for entry in previous for step in entry["steps"] if step["status"] == "run"),
            phase=self._phase(state)[0],
            devices=len(self._slots()),
            usd_per_hour=self.config.prices.usd_per_hour,
        )

    def run(
        self, *, with_baseline: bool = False, workers: int | None = None, listener: Listener | None = None
    ) -> dict[str, Any]:
        """Do what is missing. What finished stays in the store whatever happens after it.

        Raises StepFailed when a step failed (the others were kept), KeyboardInterrupt when interrupted.
        """
        listener = listener or Listener()
        started, clock = datetime.now(UTC), time.perf_counter()
        with self.store.lock():
            facts = self._facts(with_base=True)
            state = self._state(facts, with_baseline=with_baseline)
            if not state.missing:
                return self._document(state, run_id=None, phase="none", changed=[])
            self._inspected(facts, state)
            lock.write(self.config.path, facts.base)
            phase, changed = self._phase(state)
            run_id = ledger.new_run_id()
            before = state
            backend = self._backend(workers, run_id)
            results = []
            try:
                while state.missing and not any(result.failed or result.interrupted for result in results):
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
                before, state, results, facts, run_id, started, phase, changed, len(backend.slots)
            )
            entry["wall_s"] = time.perf_counter() - clock
            ledger.write(self.store, entry)
        if any(result.interrupted for result in results):
            raise KeyboardInterrupt
        self._raise_failure(results)
        return self._document(state, run_id=run_id, phase=phase, changed=changed)

    def show(self) -> dict[str, Any]:
        """Quality, time and cost as they stand, with the costs of all runs so far."""
        state = self._state(self._facts(with_base=False), with_baseline=False)
        last = ledger.last(self.store)
        return self._document(
            state,
            run_id=last["id"] if last else None,
            phase=last["phase"] if last else "none",
            changed=last["languages_changed"] if last else [],
        )

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The selected merge's answer to each text: `input`, `prediction`, and the labels' log-likelihoods."""
        facts = self._facts(with_base=True)
        state = self._state(facts, with_baseline=False)
        selected = self._selected(state)
        if selected is None or selected not in state.records:
            raise InputError(
                str(self.config.path),
                "there is no selected merge yet.",
                f"Do `sabir run {self.config.path}` first.",
            )
        from sabir.work.predict import answer

        return answer(
            texts,
            task=facts.task,
            base=facts.base_folder,
            adapter=self.store.folder(state.assessments[selected].fingerprint),
            max_length=self.config.lora.max_length,
            batch_size=self.config.evaluate.batch_size,
            device=self._slots()[0].device,
        )

    # --- what stands now ---------------------------------------------------------------------------------

    def _facts(self, *, with_base: bool) -> Facts:
        memory = self.store.cached("facts")
        facts = gather(self.config, lock.read(self.config.path), memory, with_base=with_base)
        if facts.memory != memory:
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
        """The newest combined baseline of other data, if today's was not trained and differs in nothing else."""
        step = combined_step(self.config, facts)
        if step is None or self.store.has(fresh.graph.fingerprints[step.name]):
            return None
        for entry in reversed(ledger.runs(self.store)):
            for old in entry["steps"]:
                record = self.store.record(old["fingerprint"]) if old["name"] == step.name else None
                if record and record["settings"] == dict(step.settings) and record["version"] == step.version:
                    then, now = record["deps"], fresh.graph.identities(step)
                    changed = sorted(
                        r.removeprefix("rows/") for r in {*then, *now} if then.get(r) != now.get(r)
                    )
                    return Stale(
                        record["fingerprint"],
                        f"trained on older data ({', '.join(changed)} changed since); --with-baseline trains it anew",
                    )
        return None

    def _inspected(self, facts: Facts, state: State) -> list[str]:
        """Warnings of the preflight; its errors are raised."""
        from sabir.preflight import inspect

        kinds = [assessment.step.kind for assessment in state.missing]
        findings = inspect(
            self.config, facts, to_train=kinds.count("adapter"), to_merge=kinds.count("merged")
        )
        raise_all(findings.errors)
        return list(findings.warnings)

    def _phase(self, state: State) -> tuple[str, list[str]]:
        """What a run is for, and the languages whose adapters are new, changed or gone since the last one."""
        now = _language_adapters(state)
        last = ledger.last(self.store)
        if last is None:
            return ("setup" if state.missing else "none"), sorted(now)
        then: Mapping[str, str] = last["languages"]
        changed = sorted(language for language in {*now, *then} if now.get(language) != then.get(language))
        if not changed or not state.missing:
            return "none", []
        return ("add" if set(now) - set(then) else "update"), changed

    def _selected(self, state: State) -> str | None:
        record = state.records.get("select")
        return record["result"]["selected"] if record else None

    # --- documents ---------------------------------------------------------------------------------------

    def _entry(
        self,
        before: State,
        after: State,
        results: Sequence[Result],
        facts: Facts,
        run_id: str,
        started: datetime,
        phase: str,
        changed: list[str],
        devices: int,
    ) -> dict[str, Any]:
        """The ledger's entry of a run: every step with its status, the costs, what was selected."""
        ran = {name for result in results for name in result.ran}
        failed = {name for result in results for name in result.failed}
        reasons = {name: assessment.why for name, assessment in before.assessments.items()}
        rows = []
        for row in after.rows():
            name = row["name"]
            status = "run" if name in ran else "failed" if name in failed else row["status"]
            rows.append({**row, "status": "blocked" if status == "run" and name not in ran else status,
                         "why": reasons.get(name, "depends on the selection")})  # fmt: skip
        price = self.config.prices.usd_per_hour
        steps = step_rows(rows, after.records, price)
        paid = [step for step in steps if step["status"] == "run"]
        costs = cost_rows(paid, run=run_id, phase=phase, devices=devices, usd_per_hour=price)
        if phase in ("update", "add") and not any(
            row["route"] == "combined" and row["component"] == "train" for row in costs
        ):
            costs += self._predicted(after, run_id, phase, devices)
        return {
            "id": run_id,
            "started": started.isoformat(timespec="seconds"),
            "phase": phase,
            "languages_changed": changed,
            "languages": _language_adapters(after),
            "base": asdict(facts.base),
            "devices": devices,
            "usd_per_hour": price,
            "steps": steps,
            "costs": costs,
            "selected": self._selected(after),
            "failures": {
                name: failure.message for result in results for name, failure in result.failed.items()
            },
        }

    def _predicted(self, state: State, run_id: str, phase: str, devices: int) -> list[dict[str, Any]]:
        """Cost of training the combined baseline on today's rows, from the speed it was last trained with."""
        assessment = state.assessments.get("adapter/combined")
        cost = assessment.record["cost"] if assessment and assessment.record else None
        if assessment is None or not cost or not cost["size"] or not assessment.step.size:
            return []
        seconds = cost["wall_s"] / cost["size"] * assessment.step.size
        step = {"name": "adapter/combined", "kind": "adapter", "wall_s": seconds, "device_s": seconds}
        rows = cost_rows(
            [step],
            run=run_id,
            phase=phase,
            devices=devices,
            usd_per_hour=self.config.prices.usd_per_hour,
            measured=False,
        )
        return [row for row in rows if row["component"] == "train"]

    def _document(
        self, state: State, *, run_id: str | None, phase: str, changed: list[str]
    ) -> dict[str, Any]:
        """The `run` document: statuses are those of the run where there was one."""
        entries = ledger.runs(self.store)
        entry = next((entry for entry in reversed(entries) if entry["id"] == run_id), None)
        then = {step["name"]: step for step in entry["steps"]} if entry else {}
        rows = []
        for row in state.rows():
            old = then.get(row["name"])
            same = old is not None and old["fingerprint"] == row["fingerprint"]
            rows.append({**row, "status": old["status"], "why": old["why"]} if same else row)  # type: ignore[index]
        comparisons = state.records.get("comparisons")
        return {
            "run": {"id": run_id, "phase": phase, "languages_changed": changed},
            "steps": step_rows(rows, state.records, self.config.prices.usd_per_hour),
            "scores": score_rows(self.config.task.name, self.config.lora.seed, state.records),
            "comparisons": comparisons["result"]["comparisons"] if comparisons else [],
            "costs": [row for entry in entries for row in entry["costs"]],
            "selected": self._selected(state),
            "release": None,
            "store": str(self.store.path),
            "metric": self.config.select.metric or _first_metric(state),
            "languages": list(self.config.languages),
            "notes": [a.why for a in state.assessments.values() if a.step.pinned],
        }

    def _raise_failure(self, results: Iterable[Result]) -> None:
        failures = {name: failure for result in results for name, failure in result.failed.items()}
        if not failures:
            return
        name, failure = next(iter(failures.items()))
        others = f" {len(failures) - 1} more steps failed." if len(failures) > 1 else ""
        blocked = {step for failure in failures.values() for step in failure.blocked}
        raise StepFailed(
            f"step {name}",
            f"failed after {failure.wall_s:.0f} s: {failure.message}",
            f"Log: {failure.log}.{others} {len(blocked)} steps that stand on it were not started; "
            "the others were kept, and the next run goes on from there.",
        )

    # --- where it runs -----------------------------------------------------------------------------------

    def _slots(self, workers: int | None = None):  # type: ignore[no-untyped-def]
        from sabir.work.devices import cores, gpus

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
            return InlineBackend(slots[0].device)
        return LocalBackend(
            slots,
            env={**WORKER_ENV, **{k: v for k, v in slots[0].env if k != "CUDA_VISIBLE_DEVICES"}},
            log=self.store.path / "jobs" / run_id / "server.txt",
        )


def _language_adapters(state: State) -> dict[str, str]:
    """Fingerprint of each language's own adapter."""
    return {
        name.removeprefix("adapter/"): assessment.fingerprint
        for name, assessment in state.assessments.items()
        if name.startswith("adapter/") and name != "adapter/combined"
    }


def _first_metric(state: State) -> str | None:
    for assessment in state.assessments.values():
        if assessment.step.kind == "scores":
            return assessment.step.settings["metrics"][0]
    return None
