"""The values every task is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sabir.catalog import Catalog, did_you_mean

TASKS = Catalog("task")
task = TASKS.register

Answer = Literal["label", "choice", "text", "phrases"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Row:
    """One labelled example as the user's file has it.

    `phrases` is the answer where the file has a list of texts, and `output` is "" then. `choices` are the row's own
    options. `group` names what several rows have in common (a document, an author), `domain` what they are about or
    where they come from; "" where nothing is said.
    `instruction` is the row's own, "" when it has none.
    """

    id: str
    input: str
    output: str
    instruction: str = ""
    phrases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    group: str = ""
    domain: str = ""


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

    `answer` says how an answer is found: "label" by the log-likelihood of each of `labels`, "choice" by that of
    each of the row's own options, "text" and "phrases" by generation of at most `max_new_tokens`. `metrics` are
    names in the metrics catalogue; the first one selects among merges. A task of the user's own may be a
    subclass with another `prompt`, `options`, `target` or `read`.
    """

    name: str
    answer: Answer
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

    def options(self, row: Row) -> tuple[str, ...]:
        """The row's own answers to choose among; () where the task has labels, or generates."""
        return ()

    def target(self, row: Row) -> str:
        """The gold answer. Raises ValueError when it is empty, or not one of the declared labels."""
        if row.phrases:
            raise ValueError(
                "the answer is a list of texts; this task takes one text. Write one, or drop the row."
            )
        answer = row.output.strip()
        if not answer:
            raise ValueError("the answer is empty. Every row needs one; drop the row or fill it.")
        if self.answer == "label" and answer not in self.labels:
            known = f"Declared are: {', '.join(self.labels)}.{did_you_mean(answer, self.labels)}"
            raise ValueError(f"the label {answer!r} is not declared. {known}")
        return answer

    def read(self, answer: str) -> str | None:
        """A model's answer as the metrics take it; None where it says nothing (unscored, not wrong)."""
        return answer
