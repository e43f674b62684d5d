"""A run: what is missing is made, and the ledger says what it took, whatever ends it."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sabir import lock
from sabir.config import Config
from sabir.engine import ledger
from sabir.engine.leases import Owner
from sabir.engine.run import Listener, Result, run
from sabir.engine.steps import Graph
from sabir.engine.store import Store
from sabir.engine.why import assess
from sabir.errors import InputError, StepFailed, StoreError, raise_all
from sabir.facts import Facts
from sabir.lock import Line
from sabir.project.accounts import closed, retraining, settle
from sabir.project.documents import run_document
from sabir.project.places import backend
from sabir.project.standing import Standing, State, asked
from sabir.report.baseline import predicted_baseline
from sabir.report.words import counted

SHRUNK = 0.5  # of the rows of the last run; below it one asks


@dataclass
class Hand:
    """How a run is driven: the workers in place of the config's, who hears of it, and who agrees to what is odd.

    `agree` is asked, in a sentence, whether to go on where a language lost half of its rows.
    """

    workers: int | None = None
    listener: Listener = field(default_factory=Listener)
    warn: Callable[[str], None] = lambda warning: None
    agree: Callable[[str], bool] = lambda question: False


def do_missing(config: Config, store: Store, *, with_baseline: bool, hand: Hand) -> dict[str, Any]:
    """Do what is missing, and give the `run` document."""
    with writing(store):
        settle(store)
        standing = Standing(config, store, with_base=True)
        state = standing.state(with_baseline=with_baseline)
        warnings = standing.warnings(state)
        if not state.missing:
            _keep_lines(standing, state)
            return run_document(standing, state, run_id=None, phase="none", changed=[])
        for warning in warnings:
            hand.warn(warning)
        _ask_about_lost_rows(standing, hand)
        locked = lock.read(config.where)  # anew: rows may have been forgotten while this run began
        pinned = [standing.facts.base, *([standing.facts.encoder] if standing.facts.encoder else [])]
        bases = {**locked.bases, **{one.name: one for one in pinned}}
        lock.write(config.where, replace(locked, bases=bases))
        phase, changed = standing.phase(state)
        with _Run(standing, state.rows(), phase, changed, hand) as active:
            while active.goes_on(state):
                active.listener.planned(state.assessments)
                active.work_off(state.plan.graph, state.assessments)
                state = standing.state(with_baseline=with_baseline)
                active.close_with(state)
            _keep_lines(standing, state)
    active.raise_what_went_wrong()
    standing = Standing(config, store, with_base=False)
    document = run_document(standing, state, run_id=active.id, phase=phase, changed=changed)
    return {**document, "warnings": warnings}


def do_graph(standing: Standing, graph: Graph, hand: Hand) -> Mapping[str, Mapping[str, Any]]:
    """Do the steps of a graph that is none of the config's plan, and give their records by name."""
    store = standing.store
    with writing(store):
        assessments = assess(graph, store, {})
        if any(a.status == "run" for a in assessments.values()):
            rows = [
                {
                    "name": n,
                    "kind": a.step.kind,
                    "fingerprint": a.fingerprint,
                    "status": a.status,
                    "why": a.why,
                }
                for n, a in assessments.items()
            ]
            with _Run(standing, rows, "none", [], hand, beside=True) as active:
                active.listener.planned(assessments)
                active.work_off(graph, assessments)
            active.raise_what_went_wrong()
    found = {name: store.record(fingerprint) for name, fingerprint in graph.fingerprints.items()}
    return {name: record for name, record in found.items() if record is not None}


class _Run:
    """One run: a name, an owner of leases, a backend, an entry of the ledger that is there from the first second.

    Args:
        beside: it makes nothing of the config's plan.
    """

    def __init__(
        self,
        standing: Standing,
        rows: Sequence[Mapping[str, Any]],
        phase: str,
        changed: list[str],
        hand: Hand,
        *,
        beside: bool = False,
    ):
        self.standing, self.store, self.listener = standing, standing.store, hand.listener
        self.id = ledger.new_run_id()
        self._hand = hand
        self._results: list[Result] = []
        self._clock = time.perf_counter()
        config, facts = standing.config, standing.facts
        self._opening: dict[str, Any] = {
            "id": self.id,
            "config": config.name,
            "asked": asked(config),
            "phase": phase,
            "languages_changed": changed,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "usd_per_hour": config.prices.usd_per_hour,
            "steps": list(rows),
            "costs": [],
            "rows": _row_counts(facts),
            "base": asdict(facts.base),
            "languages": _adapters(rows, set(facts.rows)),
            "complete": False,
            **({"beside": True} if beside else {}),
        }

    def __enter__(self) -> _Run:
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._owner = self._stack.enter_context(Owner(self.store, self.id))
            self._backend = backend(
                self.standing.config,
                self.store,
                self._hand.workers,
                self.id,
                reads=_reads(self.standing.facts),
            )
            self._stack.callback(self._backend.close)
            self._opening["devices"] = len(self._backend.slots)
            ledger.begin(self.store, self._opening)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:  # the backend ends first: what its jobs spent is known then
            self._backend.close()
            failures = {n: failure.message for r in self._results for n, failure in r.failed.items()}
            entry = closed(self.store, self._opening, failures=failures)
            self.standing.entries.append(entry)
            entry["costs"] += predicted_baseline(
                retraining(self.standing), entry=entry, before=self.standing.entries[:-1]
            )
            ledger.write(self.store, {**entry, "wall_s": time.perf_counter() - self._clock})

    def goes_on(self, state: State) -> bool:
        """Whether there is more to do: a step that failed and on which nothing stands keeps nobody waiting."""
        failed = {name for result in self._results for name in result.failed}
        broken = any(failure.blocked for result in self._results for failure in result.failed.values())
        if broken or self._interrupted:
            return False
        return any(assessment.step.name not in failed for assessment in state.missing)

    def work_off(self, graph: Graph, assessments: Mapping[str, Any]) -> None:
        """Run the steps that are missing."""
        result = run(
            graph,
            assessments,
            self.store,
            self._backend,
            run_id=self.id,
            listener=self.listener,
            owner=self._owner,
        )
        self._results.append(result)

    def close_with(self, state: State) -> None:
        """The steps as they now are: those that waited for the selection are known."""
        self._opening |= {
            "steps": _with_reasons(state.rows(), self._opening["steps"]),
            "selected": state.selected,
        }

    @property
    def _interrupted(self) -> bool:
        return any(result.interrupted for result in self._results)

    def raise_what_went_wrong(self) -> None:
        """Raise KeyboardInterrupt when the user stopped the run, StepFailed when a step failed."""
        if self._interrupted:
            raise KeyboardInterrupt
        failures = {name: failure for result in self._results for name, failure in result.failed.items()}
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


def _with_reasons(
    rows: Iterable[Mapping[str, Any]], before: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Steps as they stand, each with the reason it had before the run; what came later waited for the selection."""
    reasons = {row["name"]: row["why"] for row in before}
    return [{**row, "why": reasons.get(row["name"], "depends on the selection")} for row in rows]


def _adapters(rows: Iterable[Mapping[str, Any]], languages: Collection[str]) -> dict[str, str]:
    """Fingerprint of each language's own adapter among the steps."""
    wanted = {f"adapter/{language}": language for language in languages}
    return {wanted[row["name"]]: row["fingerprint"] for row in rows if row["name"] in wanted}


def _reads(facts: Facts) -> list[Path]:
    """Files and folders that steps read beside the store."""
    sources = [path for source in facts.sources.values() for path in source.paths]
    return sources if facts.base_folder is None else [*sources, facts.base_folder]


def _row_counts(facts: Facts) -> dict[str, Any]:
    return {
        language: {"rows": dict(summary.rows), "digests": dict(summary.digests)}
        for language, summary in facts.rows.items()
    }


def _ask_about_lost_rows(standing: Standing, hand: Hand) -> None:
    """Raise where a language lost half of its rows since the last run, a slip more often than a wish, and nobody
    agrees to it."""
    before = (standing.last_whole or {}).get("rows", {})
    errors = [
        InputError(
            f"data.{language}",
            f"has {counted(summary.rows[split], f'{split} row')}, and the last run had {count:,}.",
            "If that is meant, say so: --yes.",
        )
        for language, summary in standing.facts.rows.items()
        for split, count in before.get(language, {}).get("rows", {}).items()
        if summary.rows.get(split, 0) < SHRUNK * count
    ]
    if errors and not hand.agree(" ".join(f"{error.where} {error.message}" for error in errors)):
        raise_all(errors)


def _keep_lines(standing: Standing, state: State) -> None:
    """Write down which adapter a language has now, where later trainings are to go on from it; a hold has ended
    once its language was trained on other rows."""
    facts, locked = standing.facts, standing.locked
    lines = dict(locked.lineage)
    for language, fingerprint in state.language_adapters.items():
        rows = facts.rows[language].digests.get("train")
        goes_on = standing.config.languages[language].update.mode == "continue"
        if not goes_on or rows is None or language in facts.holds or not state.record(f"adapter/{language}"):
            continue
        ancestor = facts.ancestors.get(language)
        lines[language] = Line(rows, fingerprint, ancestor.adapter if ancestor else None)
    lines = {language: line for language, line in lines.items() if language in facts.rows}
    holds = {
        language: hold
        for language, hold in locked.holds.items()
        if language in facts.holds or state.record(f"adapter/{language}") is None
    }
    if (lines, holds) != (locked.lineage, locked.holds):
        now = lock.read(standing.config.where)
        lock.write(standing.config.where, replace(now, lineage=lines, holds=holds))


@contextlib.contextmanager
def writing(store: Store) -> Iterator[None]:
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
