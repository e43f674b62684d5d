"""What running costs beside the work itself, and what running side by side saves.

    python benchmarks/speed/runs.py [--rows 400]

Makes a project of demo texts in a temporary folder and runs it several times, each in a fresh store:

1. one worker: wall clock of the run over the time of its trainings, merges and evaluations;
2. two adapters one after the other, with all cores for each (one worker);
3. the same one after the other, with half the cores each (two projects of one adapter);
4. the same side by side, with half the cores each (two workers).

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
        all_cores = trainings(write(folder / "a", ["en", "fr"], arguments.rows, "merges: {}\n"), 1)
        half = [
            trainings(write(folder / f"b-{language}", [language], arguments.rows, "merges: {}\n"), 2)[0]
            for language in ("en", "fr")
        ]
        together = trainings(write(folder / "c", ["en", "fr"], arguments.rows, "merges: {}\n"), 2)
        for label, spans, total in (
            ("one after the other, all cores each", all_cores, sum(all_cores)),
            ("one after the other, half the cores each", half, sum(half)),
            ("side by side, half the cores each", together, max(together)),
        ):
            each = ", ".join(f"{span:.1f}" for span in spans)
            print(f"two adapters {label}: {each} s, in all {total:.1f} s")
        print(f"side by side / one after the other, all cores each: {max(together) / sum(all_cores):.3f}")
        print(
            f"side by side / one after the other, half the cores each: {max(together) / sum(half):.3f} (reach 0.65)"
        )


def trainings(config: Path, workers: int) -> list[float]:
    """Wall time of each training of a run."""
    _, entry = run(config, workers)
    return [step["wall_s"] for step in entry["steps"] if step["kind"] == "adapter"]


if __name__ == "__main__":
    main()
