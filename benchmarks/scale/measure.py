"""How long commands take on a project of many languages and merges, and on a store of many steps.

    python benchmarks/scale/measure.py [--languages 100] [--recipes 50] [--steps 10000] [--repeats 5]

Whole processes for the commands, from the start of the interpreter to the last byte printed; calls in a fresh process
for what reads the store. Prints the minimum and median of each in seconds, the least time of the processor (which other
programs on the machine disturb less), and the reach that was set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from project import finish, write_project, write_rows

from sabir import Project

TIMED = """
import os, time
{setup}
started, before = time.perf_counter(), os.times()
{call}
wall, after = time.perf_counter() - started, os.times()
print(wall, sum(after[:4]) - sum(before[:4]))
"""
COMMAND = "subprocess.run([sys.executable, '-m', 'sabir', *{words!r}], check=True, stdout=subprocess.PIPE)"
STORE = "from sabir.engine.store import Store; from sabir.engine import care; store = Store({path!r})"

Took = tuple[float, float]  # wall clock and time of the processor, in seconds


def command(*words: str) -> Took:
    """What one `sabir` command takes, the interpreter's start in it."""
    return in_a_process(TIMED.format(setup="import subprocess, sys", call=COMMAND.format(words=words)))


def in_a_process(code: str) -> Took:
    """The two numbers that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    wall, cpu = done.stdout.split()
    return float(wall), float(cpu)


def row(name: str, took: Sequence[Took], reach: float | None = None) -> None:
    walls, cpus = zip(*took, strict=True)
    columns = f"{min(walls):>8.3f}{statistics.median(walls):>8.3f}{min(cpus):>8.3f}{reach or '':>8}"
    print(f"{name:<52}{columns}", flush=True)


def plans(folder: Path, languages: int, recipes: int, repeats: int) -> None:
    """`sabir plan` on nothing, on a full store, and when one language changed."""
    config = write_project(folder, languages=languages, recipes=recipes)
    planned = ("plan", str(config), "--json")
    row("sabir plan, the first time: all rows are read", [command(*planned)])
    row("sabir plan, nothing run yet", [command(*planned) for _ in range(repeats)], 1.0)
    count = finish(Project(config), run="20260101T000000.000000Z")
    row(f"sabir plan, all {count:,} steps in the store", [command(*planned) for _ in range(repeats)], 1.0)
    write_rows(folder / "data" / "de" / "train.jsonl", "de train, other", 12)
    row("sabir plan, German changed", [command(*planned) for _ in range(repeats)], 1.0)
    document = json.loads(
        subprocess.run([sys.executable, "-m", "sabir", *planned], check=True, capture_output=True).stdout
    )
    again = sum(step["status"] == "run" for step in document["steps"])
    print(f"    ({again:,} of {len(document['steps']):,} steps run again)")
    row("sabir why select, German changed", [command("why", str(config), "select") for _ in range(repeats)])


def listings(folder: Path, languages: int, recipes: int, steps: int, repeats: int) -> None:
    """Reading all records of a store, and what stands on what."""
    project = Project(write_project(folder, languages=languages, recipes=recipes))
    count = finish(project, run="20260101T000000.000000Z", most=steps)
    setup = STORE.format(path=str(project.store.path))
    calls = {
        f"names of {count:,} finished steps": "store.fingerprints()",
        f"records of {count:,} finished steps": "list(store.records())",
        f"what {count:,} steps stand on (gc)": "care.closure(store, store.fingerprints())",
    }
    for name, call in calls.items():
        code = TIMED.format(setup=setup, call=call)
        row(name, [in_a_process(code) for _ in range(repeats)], 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", type=int, default=100)
    parser.add_argument("--recipes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    title = f"{given.languages} languages, {given.recipes} merges"
    print(f"{title:<52}{'min':>8}{'median':>8}{'cpu':>8}{'reach':>8}")
    with tempfile.TemporaryDirectory() as name:
        plans(Path(name) / "plans", given.languages, given.recipes, given.repeats)
        listings(Path(name) / "listings", given.languages, given.recipes, given.steps, given.repeats)


if __name__ == "__main__":
    main()
