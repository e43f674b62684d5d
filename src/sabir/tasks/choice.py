"""Choose one of the row's own answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sabir.catalog import did_you_mean
from sabir.tasks.task import LETTERS, Prompt, Row, Task, task

_MEND = "Mend the row or take it out."


@dataclass(frozen=True)
class Choice(Task):
    """`answer_with` says what the model writes: the "text" of a choice, or the "letter" it stands under."""

    answer_with: Literal["text", "letter"] = "text"

    def prompt(self, row: Row) -> Prompt:
        asked = super().prompt(row)
        if self.answer_with == "text":
            return asked
        listed = "\n".join(
            f"{letter}. {choice}" for letter, choice in zip(LETTERS, row.choices, strict=False)
        )
        return Prompt(asked.before, asked.source, f"\n\n{listed}{asked.after}")

    def options(self, row: Row) -> tuple[str, ...]:
        """What the model may answer to this row. Raises ValueError for choices that are none."""
        choices = tuple(choice.strip() for choice in row.choices)
        if not choices:
            raise ValueError(
                "there are no choices; expected a list of at least two texts. Write them under `choices`; a cell of a "
                "table holds no list: write JSONL or parquet."
            )
        if len(choices) < 2:
            raise ValueError(f"there is one choice; expected at least two. {_MEND}")
        if not all(choices):
            raise ValueError(f"one of the choices is empty. {_MEND}")
        if twice := sorted({choice for choice in choices if choices.count(choice) > 1}):
            raise ValueError(f"the choice {twice[0]!r} is there twice. {_MEND}")
        if self.answer_with == "text":
            return choices
        if len(choices) > len(LETTERS):
            raise ValueError(
                f"there are {len(choices)} choices; answer_with: letter takes {len(LETTERS)}. "
                "Write answer_with: text, or drop the row."
            )
        return tuple(LETTERS[: len(choices)])

    def target(self, row: Row) -> str:
        """The right one of the options: given as its text, its letter, or its place counted from 0."""
        if row.phrases:
            raise ValueError(
                "the answer is a list of texts; this task takes one of the choices. Write one of them."
            )
        options, choices = self.options(row), [choice.strip() for choice in row.choices]
        answer = row.output.strip()
        if answer in choices:
            return options[choices.index(answer)]
        if answer in LETTERS[: len(choices)] and answer:
            return options[LETTERS.index(answer)]
        if answer.isdecimal() and int(answer) < len(choices):
            return options[int(answer)]
        known = f"Choices are: {', '.join(map(repr, choices))}.{did_you_mean(answer, choices)}"
        raise ValueError(
            f"the answer {answer!r} is none of the choices (nor a letter, nor a place from 0). {known}"
        )


@task("choice")
def choice(
    *,
    instruction: str = "",
    cue: str = "Answer:",
    answer_with: Literal["text", "letter"] = "text",
    metrics: tuple[str, ...] = (),
) -> Task:
    """One of each row's own answers (multiple choice, reasoning), by the log-likelihood of each.

    Args:
        instruction: what the model is told before the question.
        cue: what stands between the question and the answer.
        answer_with: "text": each choice is scored as the answer, unseen before; "letter": the choices are listed
            under letters, and the letters are scored.
        metrics: names in the metrics catalogue; the first one selects among merges.
    """
    return Choice(
        name="choice",
        answer="choice",
        instruction=instruction,
        cue=cue,
        metrics=tuple(metrics) or ("accuracy", "accuracy_per_byte"),
        answer_with=answer_with,
    )
