"""Progress of a run: one bar a job on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

EVERY_S = 10.0
WORDS = {
    "data": "read rows",
    "adapter": "train",
    "adopted": "copy adapter",
    "merged": "merge",
    "search": "search",
    "outputs": "answer",
    "scores": "score",
    "macro": "score",
    "select": "select",
    "judge": "compare",
    "changes": "compare",
    "analysis": "analyze",
}


class Progress:
    """Hears the engine (see `sabir.engine.run.Listener`) and draws on a stream."""

    def __init__(self, stream: TextIO):
        self.console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        self.bars: Bars | None = None
        self.jobs: dict[str, tuple[TaskID | None, list[str]]] = {}  # step -> its job's bar and steps
        self.overall: TaskID | None = None
        self.total = self.done = 0
        self.told_at = 0.0
        self.again = False
        self.heading = ""  # the task, where there are several
        self.losses: dict[str, float] = {}
        self.started_at: dict[str, float] = {}

    def task(self, name: str) -> None:
        self.heading = f"{name}: "
        self.again = False

    def planned(self, assessments: Mapping[str, Any]) -> None:
        todo = [a for a in assessments.values() if a.status == "run"]
        reused = [a for a in assessments.values() if a.status == "reused"]
        self.total, self.done = len(todo), 0
        trained = [a.step.name for a in todo if a.step.kind == "adapter"]
        kept = [a.step.name for a in reused if a.step.kind in ("adapter", "adopted")]
        if self.again:
            self.console.print(f"{len(todo)} more steps, now that a merge is selected")
        else:
            self.console.print(
                f"{self.heading}{len(todo)} steps to run, {len(reused)} reused"
                + (f"; to train: {', '.join(trained)}" if trained else "")
                + (f"; kept: {', '.join(kept)}" if kept else "")
            )
        self.again = True
        if self.console.is_terminal:
            self._open()

    def started(self, steps: list[Any], slot: Any) -> None:
        words = WORDS.get(steps[0].kind, steps[0].kind)
        names = steps[0].name if len(steps) == 1 else f"{len(steps)} steps"
        bar = self.bars.add_task(f"{words} {names}", total=1.0, facts=slot.device_name) if self.bars else None
        for step in steps:
            self.jobs[step.name] = (bar, [other.name for other in steps])
            self.started_at[step.name] = time.monotonic()

    def progress(self, step: Any, event: Mapping[str, Any]) -> None:
        share = event["done"] / max(event["total"], 1)
        if event.get("loss") is not None:
            self.losses[step.name] = event["loss"]
        bar, names = self.jobs[step.name]
        if self.bars and bar is not None:
            finished = sum(name not in self.started_at for name in names)
            facts = (
                f"loss {event['loss']:.3f}" if event.get("loss") is not None else f"{finished}/{len(names)}"
            )
            self.bars.update(
                bar, completed=(finished + share) / len(names), facts=facts if event["done"] else ""
            )
        else:
            self._tell(f"{step.name} {100 * share:.0f} %")

    def finished(self, step: Any) -> None:
        self.done += 1
        took = time.monotonic() - self.started_at.pop(step.name, time.monotonic())
        bar, names = self.jobs.get(step.name, (None, []))
        remaining = sum(name in self.started_at for name in names)
        if self.bars:
            if self.overall is not None:
                self.bars.update(self.overall, completed=self.done)
            if bar is not None and remaining == 0:
                self.bars.remove_task(bar)
            elif bar is not None:
                self.bars.update(
                    bar, completed=1 - remaining / len(names), facts=f"{len(names) - remaining}/{len(names)}"
                )
        if step.kind == "adapter":
            loss = f", loss {self.losses[step.name]:.3f}" if step.name in self.losses else ""
            self.console.print(f"  trained {step.name} in {took:.0f} s{loss}")
        elif not self.bars:
            self._tell(step.name)
        if self.done == self.total:
            self._close()

    def failed(self, step: Any, failure: Any) -> None:
        self.started_at.pop(step.name, None)
        self.console.print(f"  step {step.name} failed: {failure.message} Log: {failure.log}")
        bar, names = self.jobs.get(step.name, (None, []))
        if self.bars and bar is not None and not any(name in self.started_at for name in names):
            self.bars.remove_task(bar)

    def close(self) -> None:
        """The run is over, however it ended."""
        self._close()

    def elsewhere(self, step: Any, holder: str) -> None:
        self.console.print(f"  {step.name} is being made by {holder}; waiting for it")

    def stopping(self) -> None:
        self.console.print("stopping: saving what runs (again: at once)")
        self._close()

    def _tell(self, text: str) -> None:
        if time.monotonic() - self.told_at >= EVERY_S:
            self.told_at = time.monotonic()
            self.console.print(f"  {self.done} of {self.total} steps done; {text}")

    def _open(self) -> None:
        self._close()
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            transient=True,
        )
        self.bars.start()
        self.overall = self.bars.add_task("all steps", total=self.total, facts="")

    def _close(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None


def module_count(verb: str, stream: TextIO) -> Callable[[int, int], None]:
    """Counts modules on a stream: on one line of a terminal, else a line every ten seconds."""
    drawn = stream.isatty()
    said = time.monotonic()
    if drawn:  # a trim over whole adapters walks through all of them before the first module
        print(f"{verb}: reading the adapters", end="", file=stream, flush=True)

    def count(done: int, total: int) -> None:
        nonlocal said
        if drawn:
            end = "\n" if done == total else ""
            print(f"\r\x1b[K{verb}: module {done} of {total}", end=end, file=stream, flush=True)
        elif time.monotonic() - said > EVERY_S:
            said = time.monotonic()
            print(f"{verb}: module {done} of {total}", file=stream, flush=True)

    return count
