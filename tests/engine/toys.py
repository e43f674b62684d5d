"""Toy work, importable by worker processes, and the few lines that run it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabir.engine.backends import Backend
from sabir.engine.backends.local import LocalBackend, cpu_slots
from sabir.engine.job import Work
from sabir.engine.leases import Owner
from sabir.engine.run import Listener, Result, run
from sabir.engine.steps import Graph, Step
from sabir.engine.store import Store
from sabir.engine.why import Assessment, assess
from sabir.errors import InputError, SabirError

HERE = Path(__file__).parent
ENV = {"PYTHONPATH": str(HERE)}

# --- what steps do ---------------------------------------------------------------------------------------

Outcomes = Iterator[tuple[str, Mapping[str, Any]]]


def note(work: Work, text: str) -> None:
    """Append a line to the file that the test reads."""
    if "diary" in work.args:
        with open(work.args["diary"], "a") as file:
            file.write(text + "\n")


def fill(works: Sequence[Work]) -> Outcomes:
    """Write the settings and what stands below into one file."""
    for work in works:
        below = {role: (folder / "out.txt").read_text() for role, folder in work.inputs.items()}
        (work.out / "out.txt").write_text(json.dumps({"settings": dict(work.settings), "below": below}))
        note(work, work.name)
        work.emit(1, 1, loss=0.5)
        yield work.name, {"result": {"value": work.settings.get("value")}, "tokens": 7}


def together(works: Sequence[Work]) -> Outcomes:
    """Note which steps share a job; a step with `fail` in its arguments raises."""
    note(works[0], "+".join(work.name for work in works))
    for work in works:
        if work.args.get("fail"):
            raise ValueError(f"{work.name} is broken")
        (work.out / "out.txt").write_text("x")
        yield work.name, {}


def slow(works: Sequence[Work]) -> Outcomes:
    """Take some seconds, with the process id in the diary."""
    for work in works:
        note(work, str(os.getpid()))
        time.sleep(work.args.get("seconds", 60))
        (work.out / "out.txt").write_text("x")
        yield work.name, {}


def graceful(works: Sequence[Work]) -> Outcomes:
    """On SIGTERM save something and end, as a training does; go on from it the next time."""
    (work,) = works
    if (work.out / "checkpoint").exists():
        (work.out / "out.txt").write_text("x")
        yield work.name, {"result": {"resumed": True}}
        return

    def save(*_: object) -> None:
        (work.out / "checkpoint").write_text("half")
        raise SystemExit(130)

    signal.signal(signal.SIGTERM, save)
    note(work, "ready")
    time.sleep(60)


def stubborn(works: Sequence[Work]) -> Outcomes:
    """Does not heed SIGTERM, and has a child of its own."""
    (work,) = works
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note(work, f"{os.getpid()} {child.pid}")
    time.sleep(60)
    yield work.name, {}


def die(works: Sequence[Work]) -> Outcomes:
    """Be killed, as by the out-of-memory killer, as often as `deaths` says."""
    (work,) = works
    note(work, "tried")
    if len(Path(work.args["diary"]).read_text().split()) <= work.args["deaths"]:
        os.kill(os.getpid(), signal.SIGKILL)
    yield work.name, {}


def killed_server(works: Sequence[Work]) -> Outcomes:
    """Kill the server that forked this process."""
    (work,) = works
    note(work, "tried")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    yield work.name, {}


def wrong(works: Sequence[Work]) -> Outcomes:
    """Raise what `error` names."""
    (work,) = works
    note(work, "tried")
    print("something in the log")
    raise {
        "value": ValueError("no such number"),
        "input": InputError("data/ja.jsonl, line 412", "field 'output' is empty.", "Drop the row."),
        "own": SabirError(work.name, "3 of 4 rows have no answer."),
        "full": OSError(28, "No space left on device"),
        "full in a library": RuntimeError("I/O error: No space left on device (os error 28)"),
        "exit": SystemExit(3),
    }[work.args["error"]]
    yield


def absent(works: Sequence[Work]) -> Outcomes:
    """Finish nothing."""
    yield from ()


def stranger(works: Sequence[Work]) -> Outcomes:
    """Finish what was not asked for."""
    yield "somebody", {}


def remembering(works: Sequence[Work]) -> Outcomes:
    """Count up to `count`, with a checkpoint at each number that takes its time to be written."""
    (work,) = works
    note(work, f"{work.name} {os.getpid()}")
    text = "".join((folder / "out.txt").read_text() for folder in work.inputs.values())
    done, digest = 0, hashlib.sha256(text.encode()).hexdigest()
    checkpoint = work.out / "checkpoint"
    with contextlib.suppress(FileNotFoundError, ValueError):  # absent, or half written
        done, digest = json.loads(checkpoint.read_text())
    for number in range(done, work.settings["count"]):
        digest = hashlib.sha256(f"{digest} {number}".encode()).hexdigest()
        written = json.dumps([number + 1, digest])
        with open(checkpoint, "w", buffering=1) as file:
            for piece in (written[:9], written[9:]):
                file.write(piece)
                file.flush()
                time.sleep(0.01)
        work.emit(number + 1, work.settings["count"])
    checkpoint.unlink(missing_ok=True)
    for name in ("out.txt", "again.txt"):
        (work.out / name).write_text(digest)
        time.sleep(0.01)
    yield work.name, {"result": {"digest": digest}}


def halved(works: Sequence[Work]) -> Outcomes:
    """Say how often the step ran out of memory."""
    for work in works:
        yield work.name, {"result": {"halvings": work.halvings}}


def surroundings(works: Sequence[Work]) -> Outcomes:
    """Say in which environment this runs."""
    for work in works:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "COLOUR", "SHARED")
        result = {name: os.environ.get(name) for name in names}
        result["preloaded"] = "toys_preload" in sys.modules
        yield work.name, {"result": result}


# --- running it ------------------------------------------------------------------------------------------


@dataclass
class Heard(Listener):
    """A listener that remembers what happened, in words."""

    said: list[str] = field(default_factory=list)

    def started(self, steps: list[Step], slot: Any) -> None:
        self.said.append("start " + "+".join(step.name for step in steps))

    def progress(self, step: Step, event: Mapping[str, Any]) -> None:
        self.said.append(f"progress {step.name} {event['done']}/{event['total']}")

    def elsewhere(self, step: Step, holder: str) -> None:
        self.said.append(f"elsewhere {step.name}: {holder}")

    def finished(self, step: Step) -> None:
        self.said.append(f"finish {step.name}")

    def failed(self, step: Step, failure: Any) -> None:
        self.said.append(f"fail {step.name}")

    def stopping(self) -> None:
        self.said.append("stopping")


def step(name: str, function: str = "fill", **rest: Any) -> Step:
    """A step with a fingerprint of its own, running a function of this module."""
    rest.setdefault("settings", {"value": name})
    return Step(name=name, kind="toy", run=f"toys:{function}", **rest)


def family(diary: Path) -> list[Step]:
    """A small project: three languages with rows, an adapter that resumes, scores that share a job, a merge."""
    steps = []
    for i, language in enumerate(("de", "en", "ja")):
        args = {"diary": str(diary)}
        steps += [
            step(f"rows/{language}", "remembering", settings={"of": language, "count": 1}, args=args),
            step(
                f"adapter/{language}",
                "remembering",
                settings={"count": 12 + 4 * i},
                deps={"rows": f"rows/{language}"},
                args=args,
                resumable=True,
            ),
            step(
                f"scores/{language}",
                settings={"of": language},
                deps={"adapter": f"adapter/{language}", "merge": "merged"},
                batch="scores",
            ),
        ]
    deps = {language: f"adapter/{language}" for language in ("de", "en", "ja")}
    merged = step("merged", "remembering", settings={"count": 8}, deps=deps, args={"diary": str(diary)})
    return [*steps, merged, step("last", deps={"scores": "scores/ja"})]


def coordinator(store: Path, diary: Path, run_id: str) -> subprocess.Popen[bytes]:
    """A process that runs the family with two workers."""
    code = "import sys, toys; from pathlib import Path; toys.main(*map(Path, sys.argv[1:3]), sys.argv[3])"
    command = [sys.executable, "-c", code, str(store), str(diary), run_id]
    return subprocess.Popen(command, env={**os.environ, **ENV})


def main(store: Path, diary: Path, run_id: str) -> None:
    there = Store(store)
    result = do(family(diary), there, local(there, workers=2), run_id=run_id)
    sys.exit(1 if result.failed or result.blocked else 0)


def local(store: Store, workers: int = 1, env: Mapping[str, str] | None = None) -> LocalBackend:
    env = {**ENV, **(env or {})}
    return LocalBackend(cpu_slots(workers, workers), env=env, log=store.path / "server.txt")


def do(
    steps: Sequence[Step],
    store: Store,
    backend: Backend,
    *,
    run_id: str = "run",
    listener: Listener | None = None,
) -> Result:
    """Run steps on a backend that is closed afterwards."""
    graph = Graph(steps)
    try:
        with Owner(store, run_id) as owner:
            return run(
                graph,
                looked_at(graph, store),
                store,
                backend,
                run_id=run_id,
                listener=listener or Heard(),
                owner=owner,
            )
    finally:
        backend.close()


def looked_at(graph: Graph, store: Store) -> dict[str, Assessment]:
    return assess(graph, store, {})


def wait_for(condition: Any, seconds: float = 20.0) -> Any:
    """The first true value of `condition()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise TimeoutError("it did not happen")


def alive(pid: int) -> bool:
    """False for processes that ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
