"""An update of one language, by every route: what each costs, and how good it is.

    python benchmarks/update/update.py DATA --out DIR [--grow de] [--before 0.8] [--seeds 1]

DATA has a folder per language with train, valid and test rows in JSONL. Under DIR a project with the settings of
examples/sentiment-reviews.yaml is set up with only a part of the training rows of one language, and its merge promoted.
Then the language gets all of them, and the update is done in copies of that project:

1. scratch: `sabir run`; the language's adapter is trained anew on all rows, everything is merged, scored, selected;
2. `update: continue` with each replay share: the same, but the adapter goes on from the last one;
3. continued: `baseline: continued`; the combined adapter is trained on with the new rows only, and scored;
4. retrained: `sabir run --with-baseline`; the combined adapter is trained anew on all rows of all, and scored.

Prints tables in Markdown and writes them, with every figure, to DIR/update.md and DIR/update.json. A set-up that is
there already is taken; the updates are done and measured anew with each call. The machine should be otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from figures import Way, error_of_prediction, figures
from tables import tables

from sabir import Project
from sabir.engine import ledger
from sabir.engine.backends import Slot
from sabir.engine.run import Listener
from sabir.engine.steps import Step
from sabir.strict_yaml import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "sentiment-reviews.yaml"
USD_PER_HOUR = 2.5
NAME = "sabir.yaml"
SPLITS = ("train", "valid", "test")


@dataclass
class Clock(Listener):
    """Hears when each job began and when its last step was finished, in seconds of one clock."""

    begun: dict[str, float] = field(default_factory=dict)  # by the job's first step
    jobs: dict[str, str] = field(default_factory=dict)  # the first step of the job, by step
    ended: dict[str, float] = field(default_factory=dict)

    def started(self, steps: list[Step], slot: Slot) -> None:
        self.begun[steps[0].name] = time.perf_counter()
        self.jobs |= {step.name: steps[0].name for step in steps}

    def finished(self, step: Step) -> None:
        if step.name in self.jobs:
            self.ended[self.jobs[step.name]] = time.perf_counter()

    def spans(self) -> list[tuple[float, float]]:
        return [(self.begun[job], end) for job, end in self.ended.items()]


class Trial:
    """One seed's project, set up with a part of one language's rows, and the ways to bring in the others."""

    def __init__(self, data: Path, folder: Path, *, grow: str, before: float, share: float, seed: int):
        self.folder, self.grow = folder, grow
        settings, _ = load(EXAMPLE.read_text(encoding="utf-8"), where=str(EXAMPLE))
        self.languages = list(settings["data"])
        for language in self.languages:
            after = {split: _first(data / language / f"{split}.jsonl", share) for split in SPLITS}
            _write(folder / "data" / "after" / language, after)
            if language == grow:
                known = after["train"][: round(before * len(after["train"]))]
                _write(folder / "data" / "before" / language, {**after, "train": known})
                self.rows = {"before": len(known), "after": len(after["train"])}
        self._settings = {
            **settings,
            "lora": {**settings["lora"], "seed": seed},
            "prices": {"usd_per_hour": USD_PER_HOUR},
            "run": {"store": "store"},
        }

    def set_up(self) -> Way:
        """The project before the update, its merge promoted; made once."""
        way, kept = self._do("before", grown=False), self.folder / "before" / "clock.json"
        if way.document["run"]["id"] is None:  # it was there already: what it took then
            way = replace(way, **json.loads(kept.read_text(encoding="utf-8")))
        else:
            kept.write_text(json.dumps({"wall_s": way.wall_s, "spans": way.spans}), encoding="utf-8")
        Project(self.folder / "before" / NAME).promote(by="the benchmark")
        return way

    def updates(self, replays: list[float]) -> Iterator[Way]:
        """Every way to do the update, each in a copy of its own."""
        self._copy("before", "scratch")
        yield self._do("scratch")
        for replay in replays:
            name = f"continue {replay:g}"
            self._copy("before", name)
            yield self._do(name, update={"mode": "continue", "replay": replay})
        self._copy("scratch", "continued")
        yield self._do("continued", baseline="continued")
        self._copy("scratch", "retrained")
        yield self._do("retrained", with_baseline=True)

    def _copy(self, old: str, new: str) -> None:
        """A project with everything that is in another one's store; finished files are shared, not copied."""
        shutil.rmtree(self.folder / new, ignore_errors=True)
        shutil.copytree(self.folder / old, self.folder / new, symlinks=True, copy_function=os.link)

    def _do(self, name: str, *, grown: bool = True, with_baseline: bool = False, **settings: Any) -> Way:
        """Run the project of that name with these settings, and keep what it took and what it gave."""
        data = {
            language: f"../data/{'before' if language == self.grow and not grown else 'after'}/{language}"
            for language in self.languages
        }
        config = self.folder / name / NAME
        config.parent.mkdir(parents=True, exist_ok=True)
        config.unlink(missing_ok=True)  # it may be shared with the project it was copied from
        config.write_text(
            json.dumps({**self._settings, "data": data, **settings}, indent=1), encoding="utf-8"
        )
        clock, started = Clock(), time.perf_counter()
        project = Project(config)
        document = project.run(with_baseline=with_baseline, listener=clock)
        wall_s = time.perf_counter() - started
        entry = ledger.last(project.store)
        assert entry is not None
        print(f"{self.folder.name}, {name}: {wall_s:.0f} s", flush=True)
        return Way(name, project.store, document, entry, wall_s, clock.spans())


def _first(path: Path, share: float) -> list[str]:
    """The first lines of a file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return lines[: round(share * len(lines))]


def _write(folder: Path, rows: Mapping[str, list[str]]) -> None:
    """Files as they are to be; those that are there already keep their time, so that nothing is read again."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        path, text = folder / f"{split}.jsonl", "".join(lines)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grow", default="de", help="the language that gets new rows")
    parser.add_argument("--before", type=float, default=0.8, help="share of its training rows before")
    parser.add_argument("--replay", default="0,0.1,0.3", help="shares of old rows to go on with")
    parser.add_argument("--seeds", type=int, default=1, help="projects to do, seeds from 0 on")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows of every file, the first ones")
    given = parser.parse_args()
    found = []
    started = time.perf_counter()
    for seed in range(given.seeds):
        trial = Trial(
            given.data,
            given.out / f"seed-{seed}",
            grow=given.grow,
            before=given.before,
            share=given.share,
            seed=seed,
        )
        before = trial.set_up()
        ways = {way.name: way for way in trial.updates([float(share) for share in given.replay.split(",")])}
        found.append(
            {
                "seed": seed,
                "language": given.grow,
                "rows": trial.rows,
                "usd_per_hour": USD_PER_HOUR,
                **figures(before, ways, given.grow),
                "prediction": error_of_prediction(ways["scratch"], ways["retrained"]),
                "changes": ways["scratch"].document["changes"],
            }
        )
    text = "\n".join(tables(trial) for trial in found)
    (given.out / "update.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (given.out / "update.md").write_text(text, encoding="utf-8")
    print(f"all of it: {time.perf_counter() - started:.0f} s\n\n{text}")


if __name__ == "__main__":
    main()
