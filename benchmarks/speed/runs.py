"""What running costs beside the work itself, and what running side by side saves.

    python benchmarks/speed/runs.py [--rows 400]

Makes a project of demo texts in a temporary folder and runs it three times, each in a fresh store:

1. one worker: wall clock of the run over the time of its trainings, merges and evaluations;
2. two adapters one after the other (one worker, all cores for each);
3. the same two adapters side by side (two workers, half the cores each).

All figures come from the one call; the machine should be otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from sabir import Project
from sabir.demo.texts import LABELS, splits
from sabir.engine import ledger


def write(folder: Path, languages: list[str], rows: int, extra: str) -> Path:
    """A project of demo texts; returns its config."""
    for language in languages:
        for split, messages in splits(language, train=rows, valid=80, test=200, seed=1).items():
            path = folder / "data" / language / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                for m in messages:
                    file.write(json.dumps({"id": m.id, "input": m.text, "output": m.label}) + "\n")
    config = folder / "sabir.yaml"
    data = "".join(f"  {language}: data/{language}\n" for language in languages)
    config.write_text(
        f"base: embedded\ntask: {{name: classification, labels: [{', '.join(LABELS)}]}}\ndata:\n{data}"
        f"lora: {{epochs: 4, learning_rate: 2e-3, batch_size: 8, max_length: 160}}\n{extra}",
        encoding="utf-8",
    )
    return config


def run(config: Path, workers: int) -> tuple[float, dict]:
    """Wall clock of a run and its ledger entry."""
    project = Project(config)
    started = time.perf_counter()
    project.run(workers=workers)
    return time.perf_counter() - started, ledger.last(project.store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merges = "merges: {average: average, ties: {method: ties}, knots: {method: ties, space: knots}}\n"
        config = write(folder / "whole", ["en", "de", "fr"], arguments.rows, f"baseline: combined\n{merges}")
        wall, entry = run(config, 1)
        work = sum(step["wall_s"] for step in entry["steps"] if step["status"] == "run")
        print(f"one worker: run {wall:.1f} s, its steps {work:.1f} s, ratio {wall / work:.3f} (reach 1.10)")
        times = {}
        for label, workers in (("one after the other", 1), ("side by side", 2)):
            config = write(folder / f"pair-{workers}", ["en", "fr"], arguments.rows, "merges: {}\n")
            _, entry = run(config, workers)
            spans = [step["wall_s"] for step in entry["steps"] if step["kind"] == "adapter"]
            times[workers] = sum(spans) if workers == 1 else max(spans)
            print(
                f"two adapters {label}: {', '.join(f'{s:.1f}' for s in spans)} s, together {times[workers]:.1f} s"
            )
        print(f"side by side / one after the other: {times[2] / times[1]:.3f} (reach 0.65)")


if __name__ == "__main__":
    main()
