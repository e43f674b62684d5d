"""How long commands take on a project of many languages and merges, and on a store of many steps.

    python benchmarks/scale/measure.py [--languages 100] [--recipes 50] [--steps 10000] [--repeats 5]

Whole processes for the commands, from the start of the interpreter to the last byte printed; calls in a fresh process
for what reads the store. Prints the minimum and median of each in seconds, beside the reach that was set.
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
import time
{setup}
started = time.perf_counter()
{call}
print(time.perf_counter() - started)
"""
STORE = "from sabir.engine.store import Store; store = Store({path!r})"


def command(*words: str) -> float:
    """Wall time of one `sabir` command, the interpreter's start in it."""
    code = TIMED.format(
        setup="import subprocess, sys",
        call=f"subprocess.run([sys.executable, '-m', 'sabir', *{words!r}], check=True, stdout=subprocess.PIPE)",
    )
    return in_a_process(code)


def in_a_process(code: str) -> float:
    """The number that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def row(name: str, times: Sequence[float], reach: float | None = None) -> None:
    print(f"{name:<52}{min(times):>8.3f}{statistics.median(times):>8.3f}{reach or '':>8}", flush=True)


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
        code = TIMED.format(setup=f"{setup}\nfrom sabir.engine import care", call=call)
        row(name, [in_a_process(code) for _ in range(repeats)], 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", type=int, default=100)
    parser.add_argument("--recipes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(f"{given.languages} languages, {given.recipes} merges{'min':>34}{'median':>8}{'reach':>8}")
    with tempfile.TemporaryDirectory() as name:
        plans(Path(name) / "plans", given.languages, given.recipes, given.repeats)
        listings(Path(name) / "listings", given.languages, given.recipes, given.steps, given.repeats)


if __name__ == "__main__":
    main()
