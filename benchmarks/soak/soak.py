"""Kill a project a hundred times, give it new rows now and then, and see whether anything is lost.

    python benchmarks/soak/soak.py --out DIR [--kills 100] [--seed 1]

Three languages on the embedded base, one of them with `update: continue`. `sabir run` is started; its coordinator, a
server or a worker gets SIGKILL at a random moment, and after each death of the coordinator the same command goes on, in
half of the cases on the heels of dying workers. Whenever a run comes to its end, two languages get more rows. Then the
same history of rows is run by a project that nobody disturbs. Counted, and all to be 0:

- redone: steps that were finished and were given to a job again, finished twice, or whose record changed;
- broken: finished steps of which a file is not as its record says, looked for after each death;
- different: adapters and merges, of every state of the rows, whose bytes are not those of the undisturbed project;
- unpaid: finished steps and attempts that are not in the ledger, and entries that nobody closed.

Exit code 1 if one of them is not 0. DIR holds both projects and must not exist.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

from sabir.engine import care, ledger
from sabir.engine.store import RECORD, Store

WORDS = {
    "en": ("the parcel is late", "my card was refused"),
    "de": ("das Paket kommt spät", "die Karte geht nicht"),
    "fr": ("le colis est en retard", "ma carte est refusée"),
}
LABELS = ("delivery", "payment")
CONFIG = """
base: embedded
task: {name: classification, labels: [delivery, payment]}
data:
  en: data/en
  de: {folder: data/de, update: {mode: continue}}
  fr: data/fr
lora: {rank: 4, epochs: 4, max_length: 64, batch_size: 4, learning_rate: 0.002}
baseline: none
merges:
  average: {method: linear}
  ties: {method: ties, density: 0.5}
evaluate: {resamples: 100}
run: {workers: 2}
"""
RUN = """
import sabir.plan.steps as steps
steps.CHECKPOINT_EVERY_S = 0.3
from sabir.cli import main
main()
"""
FIRST, MORE = 40, 16  # training rows of a language: at first, and added at a time
AT_ONCE_S = 4.0  # half of the kills come so soon after the start, the others after so many events:
EVENTS = 25


class Project:
    """A folder with a config, rows in some state, and a store."""

    def __init__(self, folder: Path):
        self.folder, self.config = folder, folder / "sabir.yaml"
        self.store = Store(folder / ".sabir")
        self.state = 0
        folder.mkdir(parents=True)
        self.config.write_text(CONFIG, encoding="utf-8")
        self.write_rows()

    def write_rows(self) -> None:
        """The rows of this state: with each, two of the three languages have more."""
        for i, language in enumerate(WORDS):
            grown = sum(state % len(WORDS) != i for state in range(1, self.state + 1))
            counts = {"train": FIRST + MORE * grown, "valid": 6, "test": 6}
            for split, count in counts.items():
                path = self.folder / "data" / language / f"{split}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = [
                    {"input": f"{WORDS[language][n % 2]} {split} {n}", "output": LABELS[n % 2]}
                    for n in range(count)
                ]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def run(self) -> Command:
        return Command(self.config)

    def records(self) -> dict[str, bytes]:
        """The record of every finished step, as it is on the disk."""
        store = self.store
        return {one: (store.folder(one) / RECORD).read_bytes() for one in store.fingerprints()}

    def jobs(self, besides: Collection[Path] = ()) -> list[Path]:
        found = (self.store.path / "jobs").glob("*/[0-9]*")
        return sorted(path for path in found if path not in besides)

    def results(self) -> dict[tuple[str, str], dict[str, bytes]]:
        """(Name, fingerprint) -> every file of each adapter and merge there ever was."""
        found = {}
        for record in self.store.records():
            if record["kind"] in ("adapter", "merged"):
                folder = self.store.folder(record["fingerprint"])
                files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
                found[record["name"], record["fingerprint"]] = {
                    str(path.relative_to(folder)): path.read_bytes() for path in files
                }
        return found


class Command:
    """`sabir run CONFIG` in a process of its own."""

    def __init__(self, config: Path):
        self._log = config.parent / "said.txt"
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as log:
            words = [sys.executable, "-c", RUN, "run", str(config)]
            self.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self._log.read_bytes()[self._begin :].decode()

    def workers(self) -> list[int]:
        """The servers that start the jobs, and the jobs."""
        parents = processes()
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]


def processes() -> dict[int, int]:
    """Every process that has not ended -> its parent."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    lines = map(str.split, listed.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, stat in lines if not stat.startswith("Z")}


def steps_of(job: Path) -> list[dict[str, Any]]:
    """What a job was to do; nothing, where its run was killed before it had said it."""
    try:
        return json.loads((job / "job.json").read_bytes())["steps"]
    except (FileNotFoundError, ValueError):
        return []


def events(job: Path) -> list[dict[str, Any]]:
    try:
        data = (job / "events.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


class Watch:
    """What must not happen to finished steps, counted."""

    def __init__(self, project: Project):
        self._project = project
        self._there: dict[str, bytes] = {}
        self._known: list[Path] = []
        self.redone = self.broken = 0

    def look(self) -> None:
        """Between two runs: hold what is there against what was there before the last one."""
        now = self._project.records()
        again = {step["fingerprint"] for job in self._project.jobs(self._known) for step in steps_of(job)}
        changed = {one for one, record in self._there.items() if now.get(one) != record}
        self.redone += len(changed | again & self._there.keys())
        self.broken += len(care.verify(self._project.store))
        self._there, self._known = now, self._project.jobs()

    def finished_twice(self) -> int:
        found: Counter[str] = Counter()
        for job in self._project.jobs():
            prints = {step["name"]: step["fingerprint"] for step in steps_of(job)}
            found.update(prints[event["step"]] for event in events(job) if event["event"] == "finished")
        return sum(count > 1 for count in found.values())


def killed(project: Project, kills: int, chance: random.Random) -> tuple[Watch, Counter[str]]:
    """Kill it so often, and let it come to its end; what became of the steps, and what was done to them."""
    watch, done, begun = Watch(project), Counter[str](), time.monotonic()
    command = None
    while True:
        if command is None:
            watch.look()
            command = project.run()
            done["starts"] += 1
        left = kills - done["coordinator"] - done["worker"]
        if left:
            wait_for_moment(project, command, chance)
        else:
            command.process.wait()
        code = command.process.poll()
        if code is None:
            command = kill(command, chance, done)
        elif code == 0:
            print(
                f"{time.monotonic() - begun:6.0f} s  state {project.state} done, {left} kills to go",
                flush=True,
            )
            if not left:
                watch.look()
                return watch, done
            project.state += 1
            project.write_rows()
            command = None
        elif "was killed by signal SIGKILL" in command.said:  # one step's worker, three times
            done["given up"] += 1
            command = None
        else:
            sys.exit(f"a run ended with code {code}:\n{command.said}")


def kill(command: Command, chance: random.Random, done: Counter[str]) -> Command | None:
    """Kill the coordinator, or a server or a worker; gives the command if it lives."""
    workers = command.workers()
    if workers and chance.random() < 0.5:
        with suppress(ProcessLookupError):  # it ended by itself just now
            os.kill(chance.choice(workers), SIGKILL)
            done["worker"] += 1
        return command
    command.process.kill()
    command.process.wait()
    done["coordinator"] += 1
    if chance.random() < 0.5:  # else the next one starts on the heels of dying workers
        while not processes().keys().isdisjoint(workers):
            time.sleep(0.02)
    return None


def wait_for_moment(project: Project, command: Command, chance: random.Random) -> None:
    """A random moment: soon after the start, or after some events; or the end of the run, if that is sooner."""
    if chance.random() < 0.5:
        until = time.monotonic() + chance.random() * AT_ONCE_S
        while time.monotonic() < until and command.process.poll() is None:
            time.sleep(0.01)
        return
    told = chance.randrange(1, EVENTS) + sum(len(events(job)) for job in project.jobs()[-3:])
    while command.process.poll() is None and sum(len(events(job)) for job in project.jobs()[-3:]) < told:
        time.sleep(0.02)


def undisturbed(project: Project, states: int) -> None:
    """The same history of rows, each run to its end."""
    while True:
        command = project.run()
        if command.process.wait():
            sys.exit(command.said)
        if project.state == states:
            return
        project.state += 1
        project.write_rows()


def unpaid(project: Project) -> int:
    """Finished steps and attempts that the ledger does not have, and entries that nobody closed."""
    entries = {entry["id"]: entry for entry in ledger.runs(project.store)}
    made = {record["fingerprint"]: record for record in project.store.records()}
    paid = Counter(
        (name, step["fingerprint"])
        for name, entry in entries.items()
        for step in entry["steps"]
        if step["status"] == "run"
    )
    missing = sum(paid[record["run"], one] != 1 for one, record in made.items())
    missing += sum(entry.get("open", False) for entry in entries.values())
    for job in project.jobs():
        token = f"{job.parent.name}-{job.name}"
        left = [s for s in steps_of(job) if made.get(s["fingerprint"], {}).get("job") != token]
        if left and events(job):
            prints = {step["fingerprint"] for step in left}
            attempts = entries.get(job.parent.name, {"attempts": ()})["attempts"]
            missing += not any(attempt["fingerprint"] in prints for attempt in attempts)
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a project many times; nothing may be lost.")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun = time.monotonic()
    project = Project(given.out / "killed")
    watch, done = killed(project, given.kills, random.Random(given.seed))
    other = Project(given.out / "undisturbed")
    undisturbed(other, project.state)
    ours, theirs = project.results(), other.results()
    different = sum(ours.get(one) != theirs.get(one) for one in {*ours, *theirs})
    counts = {
        "redone": watch.redone + watch.finished_twice(),
        "broken": watch.broken,
        "different": different,
        "unpaid": unpaid(project),
    }
    entries = ledger.runs(project.store)
    attempts = [attempt for entry in entries for attempt in entry["attempts"]]
    print(f"kills: {done['coordinator']} of the coordinator, {done['worker']} of servers and workers")
    print(f"runs started: {done['starts']}; gave a step up after three kills: {done['given up']}")
    print(f"states of the rows: {project.state + 1}; finished steps: {len(project.store.fingerprints())}")
    print(f"entries in the ledger: {len(entries)}")
    print(f"attempts broken off and paid: {len(attempts)}, {sum(a['wall_s'] for a in attempts):.0f} s")
    print(f"adapters and merges compared: {len(theirs)}")
    print(f"in all {time.monotonic() - begun:.0f} s")
    print(", ".join(f"{what}: {count}" for what, count in counts.items()))
    sys.exit(any(counts.values()))


if __name__ == "__main__":
    main()
