"""The loop: start what is ready on free slots, keep what finishes, block what stands on a failure."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabir.engine.backends import Backend, Slot
from sabir.engine.steps import Graph, Step, dep_name
from sabir.engine.store import Store, write_atomic
from sabir.engine.why import Assessment

POLL_S = 0.2


class Listener:
    """Hears what happens; every method may be overridden, none needs to be."""

    def planned(self, assessments: Mapping[str, Assessment]) -> None:
        """The steps of this run are known."""

    def started(self, steps: list[Step], slot: Slot) -> None:
        """A job with these steps was handed to a slot."""

    def progress(self, step: Step, event: Mapping[str, Any]) -> None:
        """A step said how far it is: `done` of `total`, and facts such as `loss`."""

    def finished(self, step: Step) -> None:
        """A step is complete in the store."""

    def failed(self, step: Step, failure: Failure) -> None:
        """A step failed for good."""

    def stopping(self) -> None:
        """The user interrupted; running jobs were asked to save and end."""


@dataclass(frozen=True)
class Failure:
    """Why a step failed, in a sentence, and where its log lies. `user` when the user's input is at fault."""

    message: str
    log: Path
    blocked: tuple[str, ...]
    wall_s: float


@dataclass
class Result:
    """How a run ended: names of the steps that ran, that failed, that were never started."""

    ran: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass
class _Job:
    steps: list[Step]
    slot: Slot
    folder: Path
    events_read: int = 0


def run(
    graph: Graph,
    assessments: Mapping[str, Assessment],
    store: Store,
    backend: Backend,
    *,
    run_id: str,
    listener: Listener,
) -> Result:
    """Run every step that is not in the store. A failed step takes down only what stands on it.

    Ctrl-C once asks the jobs to save and end, twice kills them; the result then says `interrupted`.
    """
    return _Loop(graph, assessments, store, backend, run_id, listener).run()


class _Loop:
    def __init__(
        self,
        graph: Graph,
        assessments: Mapping[str, Assessment],
        store: Store,
        backend: Backend,
        run_id: str,
        listener: Listener,
    ):
        self.graph, self.store, self.backend = graph, store, backend
        self.run_id, self.listener = run_id, listener
        self.done = {name for name, a in assessments.items() if a.status == "reused"}
        self.waiting = {step.name: step for step in graph if step.name not in self.done}
        self.free = list(backend.slots)
        self.running: dict[Future[int], _Job] = {}
        self.alone: set[str] = set()  # steps of a failed batch, tried again one by one
        self.tries: dict[str, int] = {}
        self.jobs = 0
        self.result = Result()

    def run(self) -> Result:
        while True:
            try:
                if not self.result.interrupted:
                    self._start_ready()
                if not self.running:
                    break
                finished, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for job in self.running.values():
                    self._read_events(job)
                for future in finished:
                    self._end(future)
            except KeyboardInterrupt:
                self._interrupt()
        self.result.blocked = list(self.waiting)
        return self.result

    def _interrupt(self) -> None:
        if self.result.interrupted:
            self.backend.kill()
        else:
            self.result.interrupted = True
            self.backend.stop()
            self.listener.stopping()

    def _start_ready(self) -> None:
        while self.free:
            ready = [
                s for s in self.waiting.values() if all(dep_name(d) in self.done for d in s.deps.values())
            ]
            if not ready:
                return
            first = min(ready, key=lambda s: (s.priority, -(s.size or 0)))
            batch = [s for s in ready if self._shares(s) and s.batch == first.batch] or [first]
            batch = batch if self._shares(first) else [first]
            self._start(batch[: math.ceil(len(batch) / len(self.free))])

    def _shares(self, step: Step) -> bool:
        return step.batch is not None and step.name not in self.alone

    def _start(self, steps: list[Step]) -> None:
        slot = self.free.pop(0)
        folder = self.store.path / "jobs" / self.run_id / f"{self.jobs:04d}"
        self.jobs += 1
        for step in steps:
            del self.waiting[step.name]
            self.tries[step.name] = self.tries.get(step.name, 0) + 1
        write_atomic(folder / "job.json", self._job(steps, slot))
        job = _Job(steps, slot, folder)
        self.listener.started(steps, slot)
        self.running[self.backend.submit(folder / "job.json", slot, steps[0].preload)] = job

    def _job(self, steps: list[Step], slot: Slot) -> dict[str, Any]:
        return {
            "run": steps[0].run,
            "run_id": self.run_id,
            "store": str(self.store.path),
            "device": slot.device,
            "device_name": slot.device_name,
            "steps": [
                {
                    "name": step.name,
                    "kind": step.kind,
                    "version": step.version,
                    "fingerprint": self.graph.fingerprints[step.name],
                    "settings": step.settings,
                    "deps": self.graph.identities(step),
                    "parts": step.parts,
                    "args": step.args,
                    "inputs": {r: self.graph.fingerprints[dep_name(d)] for r, d in step.deps.items()},
                    "size": step.size,
                    "resumable": step.resumable,
                }
                for step in steps
            ],
        }

    def _read_events(self, job: _Job) -> None:
        try:
            with open(job.folder / "events.jsonl", encoding="utf-8") as file:
                file.seek(job.events_read)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind("\n") + 1]
        job.events_read += len(whole.encode())
        for line in whole.splitlines():
            event = json.loads(line)
            if event["event"] == "finished":
                self._finish(self.graph[event["step"]])
            else:
                self.listener.progress(self.graph[event["step"]], event)

    def _finish(self, step: Step) -> None:
        if step.name not in self.done:
            self.done.add(step.name)
            self.result.ran.append(step.name)
            self.listener.finished(step)

    def _end(self, future: Future[int]) -> None:
        job = self.running.pop(future)
        self.free.append(job.slot)
        self._read_events(job)
        for step in job.steps:
            if step.name not in self.done and self.store.has(self.graph.fingerprints[step.name]):
                self._finish(step)
        unfinished = [step for step in job.steps if step.name not in self.done]
        if not unfinished:
            return
        if self.result.interrupted:
            self.waiting.update({step.name: step for step in unfinished})
        elif len(unfinished) > 1:
            self.alone.update(step.name for step in unfinished)
            self.waiting.update({step.name: step for step in unfinished})
        elif future.result() < 0 and self.tries[unfinished[0].name] < 2:
            self.waiting[unfinished[0].name] = unfinished[0]  # killed from outside: once more
        else:
            self._fail(unfinished[0], job, future.result())

    def _fail(self, step: Step, job: _Job, code: int) -> None:
        blocked = tuple(name for name in self.graph.below(step.name) if name in self.waiting)
        error = _read_json(job.folder / "error.json")
        if code < 0:
            message = f"its process was killed by signal {signal.Signals(-code).name}."
        elif error is None:
            message = f"its process ended with code {code}."
        else:
            message = " ".join(part for part in (error["message"], error["fix"]) if part)
            if error["where"]:
                message = f"{error['where']}: {message}"
        log = job.folder / ("log.txt" if (job.folder / "log.txt").exists() else "error.json")
        started = (job.folder / "job.json").stat().st_mtime
        ended = max(path.stat().st_mtime for path in job.folder.iterdir())
        failure = Failure(message, log, blocked, ended - started)
        self.result.failed[step.name] = failure
        self.listener.failed(step, failure)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
