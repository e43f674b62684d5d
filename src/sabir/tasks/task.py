"""The values every task is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sabir.catalog import Catalog, did_you_mean

TASKS = Catalog("task")
task = TASKS.register


@dataclass(frozen=True)
class Row:
    """One labelled example as the user's file has it. `instruction` is the row's own, "" when it has none."""

    id: str
    input: str
    output: str
    instruction: str = ""


@dataclass(frozen=True)
class Prompt:
    """What the model is asked: only `source`, the middle, may be cut to fit; the rest must stay whole."""

    before: str
    source: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.source + self.after


@dataclass(frozen=True)
class Task:
    """One language task.

    `answer` says how an answer is found: "label" by the log-likelihood of each of `labels`, "text" by
    generation of at most `max_new_tokens`. `metrics` are names in the metrics catalogue; the first one
    selects among merges.
    """

    name: str
    answer: Literal["label", "text"]
    instruction: str
    cue: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 0

    def prompt(self, row: Row) -> Prompt:
        """The question about one row: instruction, the row's text, and the cue the answer follows."""
        lead = "\n".join(part for part in (self.instruction, row.instruction) if part)
        before = f"{lead}\n\n" if lead else ""
        return Prompt(before, row.input, f"\n\n{self.cue}")

    def target(self, row: Row) -> str:
        """The gold answer. Raises ValueError when it is empty, or not one of the declared labels."""
        answer = row.output.strip()
        if not answer:
            raise ValueError("the answer is empty. Every row needs one; drop the row or fill it.")
        if self.answer == "label" and answer not in self.labels:
            known = f"Declared are: {', '.join(self.labels)}.{did_you_mean(answer, self.labels)}"
            raise ValueError(f"the label {answer!r} is not declared. {known}")
        return answer
