"""The loop: start what is ready on free slots, keep what finishes, block what stands on a failure."""

from __future__ import annotations

import errno
import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabir.engine.backends import Backend, Slot
from sabir.engine.interrupts import on_interrupt
from sabir.engine.leases import Owner
from sabir.engine.steps import Graph, Step, above
from sabir.engine.store import Store, saying_when_full
from sabir.engine.why import Assessment

POLL_S = 0.2
TRIES = 3  # of a step whose process is killed


class Listener:
    """Hears what happens; every method may be overridden, none needs to be."""

    def task(self, name: str) -> None:
        """The next one of several tasks begins."""

    def planned(self, assessments: Mapping[str, Assessment]) -> None:
        """The steps of this run are known."""

    def started(self, steps: list[Step], slot: Slot) -> None:
        """A job with these steps was handed to a slot."""

    def progress(self, step: Step, event: Mapping[str, Any]) -> None:
        """A step said how far it is: `done` of `total`, and facts such as `loss`."""

    def elsewhere(self, step: Step, holder: str) -> None:
        """Another run makes this step just now; it is waited for. Said once per step."""

    def finished(self, step: Step) -> None:
        """A step is complete in the store, made here or by another run."""

    def failed(self, step: Step, failure: Failure) -> None:
        """A step failed for good."""

    def stopping(self) -> None:
        """The user interrupted; running jobs were asked to save and end."""


@dataclass(frozen=True)
class Failure:
    """Why a step failed, in a sentence; where its log lies; the steps that cannot run because of it."""

    message: str
    log: Path
    blocked: tuple[str, ...]
    wall_s: float


@dataclass
class Result:
    """How a run ended: names of the steps that ran, that failed, that were not run.

    A step with the fingerprint of one that ran is in none of these: its output is there; and so is that of
    one that another run made meanwhile.
    """

    ran: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass
class _Job:
    steps: list[Step]
    slot: Slot
    folder: Path
    started: float = field(default_factory=time.monotonic)
    events_read: int = 0  # bytes


def run(
    graph: Graph,
    assessments: Mapping[str, Assessment],
    store: Store,
    backend: Backend,
    *,
    run_id: str,
    listener: Listener,
    owner: Owner,
) -> Result:
    """Run every step that is not in the store. A failed step takes down only what stands on it.

    A step that another living run makes is waited for, and made here when that run gives it up or dies. A
    step whose process was killed is tried up to three times, one that ran out of the memory of its place
    (the backend says so) once more with `halvings` 1; an exception is final.

    Ctrl-C (or SIGTERM) once asks the jobs to save and end, twice kills them; the result then says
    `interrupted`. Raises StoreError when the disk of the store is full.
    """
    with saying_when_full(store):
        return _Loop(graph, assessments, store, backend, run_id, listener, owner).run()


class _Loop:
    def __init__(
        self,
        graph: Graph,
        assessments: Mapping[str, Assessment],
        store: Store,
        backend: Backend,
        run_id: str,
        listener: Listener,
        owner: Owner,
    ):
        self.graph, self.store, self.backend = graph, store, backend
        self.run_id, self.listener, self.owner = run_id, listener, owner
        self.done = {name for name, a in assessments.items() if a.status == "reused"}
        self.waiting = {step.name: step for step in graph if step.name not in self.done}
        self.free = list(backend.slots)
        self.running: dict[Future[int], _Job] = {}
        self.alone: set[str] = set()  # steps of a failed batch, tried again one by one
        self.tries: dict[str, int] = {}
        self.halved: set[str] = set()
        self.elsewhere: dict[str, Step] = {}  # of those that wait: by fingerprint, held by another run
        self.heard: set[str] = set()  # names of those of which the listener knows
        self.folder = store.path / "jobs" / run_id
        self.jobs = len(list(self.folder.glob("[0-9]*")))  # one run may come here twice: no folder is reused
        self.interrupts = 0
        self.killed = False
        self.result = Result()

    def run(self) -> Result:
        with on_interrupt(self._count):  # counted, not raised: none lands in the middle of the bookkeeping
            while True:
                self._heed_interrupts()
                if not self.result.interrupted:
                    self._look_elsewhere()
                    self._start_ready()
                if self.running:
                    finished, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                elif self.elsewhere and not self.interrupts:
                    time.sleep(POLL_S)
                    continue
                else:
                    break
                for job in self.running.values():
                    self._read_events(job)
                for future in finished:
                    self._end(future)
        self.result.interrupted = self.interrupts > 0
        self.result.blocked = list(self.waiting)
        return self.result

    def _count(self, *_: object) -> None:
        self.interrupts += 1

    def _heed_interrupts(self) -> None:
        if self.interrupts and not self.result.interrupted:
            self.result.interrupted = True
            self.backend.stop()
            self.listener.stopping()
        if self.interrupts > 1 and not self.killed:
            self.killed = True
            self.backend.kill()

    def _start_ready(self) -> None:
        while self.free and not self.interrupts:
            ready = sorted(self._ready(), key=lambda s: (s.priority, -(s.size or 0)))
            if not ready:
                return
            batch = [step for step in ready if self._share(step, ready[0])] or ready[:1]
            share = batch[: math.ceil(len(batch) / len(self.free))]
            ours = [step for step in share if self._claim(step)]
            if ours:
                self._start(ours)

    def _claim(self, step: Step) -> bool:
        """Take the lease of a step; False when another run has it, or has just finished it."""
        fingerprint = self.graph.fingerprints[step.name]
        if not self.owner.take(fingerprint):
            self.elsewhere[fingerprint] = step
            holder = self.owner.holder(fingerprint)
            if holder is not None and step.name not in self.heard:
                self.heard.add(step.name)
                self.listener.elsewhere(step, holder)
            return False
        if self.store.has(fingerprint):
            self.owner.give(fingerprint)
            self._finish_elsewhere(step)
            return False
        return True

    def _look_elsewhere(self) -> None:
        """Steps that other runs made are done; those that nobody makes any more are ours to start."""
        for fingerprint, step in tuple(self.elsewhere.items()):
            if self.store.has(fingerprint):
                del self.elsewhere[fingerprint]
                self._finish_elsewhere(step)
            elif self.owner.holder(fingerprint) is None:
                del self.elsewhere[fingerprint]

    def _finish_elsewhere(self, step: Step) -> None:
        for same in self._twins(step):
            self._done(same)

    def _ready(self) -> Iterator[Step]:
        """Steps that can start, one of each fingerprint: two jobs never write one folder."""
        taken = {self.graph.fingerprints[step.name] for job in self.running.values() for step in job.steps}
        taken |= self.elsewhere.keys()
        for step in self.waiting.values():
            fingerprint = self.graph.fingerprints[step.name]
            if fingerprint not in taken and self.done.issuperset(above(step)):
                taken.add(fingerprint)
                yield step

    def _share(self, step: Step, other: Step) -> bool:
        return (
            step.batch is not None
            and (step.batch, step.run, step.preload) == (other.batch, other.run, other.preload)
            and self.alone.isdisjoint((step.name, other.name))
        )

    def _twins(self, step: Step) -> list[Step]:
        """Steps that wait, and are the same work under another name."""
        own = self.graph.fingerprints[step.name]
        return [other for other in self.waiting.values() if self.graph.fingerprints[other.name] == own]

    def _start(self, steps: list[Step]) -> None:
        slot = self.free.pop(0)
        folder = self.folder / f"{self.jobs:04d}"
        folder.mkdir(parents=True)
        self.jobs += 1
        for step in steps:
            del self.waiting[step.name]
            self.tries[step.name] = self.tries.get(step.name, 0) + 1
        job_file = folder / "job.json"
        job_file.write_text(json.dumps(self._job(steps, slot, folder.name), indent=1), encoding="utf-8")
        job = _Job(steps, slot, folder)
        self.listener.started(steps, slot)
        self.running[self.backend.submit(job_file, slot, steps[0].preload)] = job

    def _job(self, steps: list[Step], slot: Slot, number: str) -> dict[str, Any]:
        return {
            "run": steps[0].run,
            "run_id": self.run_id,
            "token": f"{self.run_id}-{number}",  # names this attempt's folders
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
                    "inputs": {role: self.graph.result_of(dep) for role, dep in step.deps.items()},
                    "size": step.size,
                    "resumable": step.resumable,
                    "halvings": int(step.name in self.halved),
                }
                for step in steps
            ],
        }

    def _read_events(self, job: _Job) -> None:
        try:
            with open(job.folder / "events.jsonl", "rb") as file:
                file.seek(job.events_read)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]  # the rest is still being written
        job.events_read += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            if event["event"] == "finished":
                self._finish(self.graph[event["step"]])
            elif event["event"] == "progress":
                self.listener.progress(self.graph[event["step"]], event)

    def _finish(self, step: Step) -> None:
        if step.name in self.done:
            return
        self.owner.give(self.graph.fingerprints[step.name])
        self.result.ran.append(step.name)
        for same in (step, *self._twins(step)):
            self._done(same)

    def _done(self, step: Step) -> None:
        self.waiting.pop(step.name, None)
        self.done.add(step.name)
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
        ours = all(self.owner.holds(self.graph.fingerprints[step.name]) for step in unfinished)
        for step in unfinished:
            self.owner.give(self.graph.fingerprints[step.name])
        if self.interrupts or not ours:  # not ours: we were taken for dead, and another run goes on with them
            self._again(unfinished)
        elif len(unfinished) > 1:
            self.alone.update(step.name for step in unfinished)
            self._again(unfinished)
        else:
            self._retry_or_fail(unfinished[0], job, future.result())

    def _retry_or_fail(self, step: Step, job: _Job, code: int) -> None:
        if code == errno.ENOMEM and step.name not in self.halved:
            self.halved.add(step.name)
            self._again([step])
        elif code < 0 and self.tries[step.name] < TRIES:
            self._again([step])
        else:
            self._fail(step, job, code)

    def _again(self, steps: list[Step]) -> None:
        self.waiting.update({step.name: step for step in steps})

    def _fail(self, step: Step, job: _Job, code: int) -> None:
        same = [step, *self._twins(step)]
        for twin in same[1:]:
            del self.waiting[twin.name]
        below = {name for twin in same for name in self.graph.below(twin.name)}
        blocked = tuple(name for name in self.waiting if name in below)
        error = _read_json(job.folder / "error.json")
        if code < 0:
            message = f"its process was killed by signal {_signal_name(-code)}."
        elif error is None and code == errno.ENOSPC:
            message = "the disk is full. Free some space."
        elif error is None and code == errno.ENOMEM:
            message = "out of memory, also with half as much at a time."
        elif error is None:
            message = f"its process ended with code {code}."
        else:
            message = " ".join(part for part in (error["message"], error["fix"]) if part)
            if error["where"] not in ("", step.name):  # the step is named beside it
                message = f"{error['where']}: {message}"
        log = job.folder / ("log.txt" if (job.folder / "log.txt").exists() else "error.json")
        failure = Failure(message, log, blocked, time.monotonic() - job.started)
        for twin in same:
            self.result.failed[twin.name] = failure
            self.listener.failed(twin, failure)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
