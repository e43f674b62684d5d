"""Write the phrases that a text is about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sabir.tasks.task import Row, Task, task

SEPARATOR = "; "
_APART = re.compile(r"[;；\n]")


@dataclass(frozen=True)
class Keyphrases(Task):
    """The answer is a list of phrases, written one after the other."""

    def target(self, row: Row) -> str:
        """The gold phrases in the order of the file, in one text. Raises ValueError when there are none."""
        phrases = row.phrases or tuple(_APART.split(row.output))
        tidy = [" ".join(phrase.split()) for phrase in phrases]
        if broken := [phrase for phrase in tidy if _APART.search(phrase)]:
            raise ValueError(
                f"the phrase {broken[0]!r} holds a semicolon, which parts phrases. Write it without one, or part it."
            )
        if not any(tidy):
            raise ValueError("there are no phrases. Every row needs one; drop the row or fill it.")
        return SEPARATOR.join(phrase for phrase in tidy if phrase)


@task("keyphrases")
def keyphrases(
    *,
    instruction: str = "",
    cue: str = "Keyphrases:",
    max_new_tokens: int = 64,
    metrics: tuple[str, ...] = (),
) -> Task:
    """A few phrases per text, generated greedily, parted by semicolons.

    Args:
        instruction: what the model is told before the text.
        cue: what stands between the text and the phrases.
        max_new_tokens: generation ends there at the latest.
        metrics: names in the metrics catalogue; the first one selects among merges.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least 1.")
    return Keyphrases(
        name="keyphrases",
        answer="phrases",
        instruction=instruction,
        cue=cue,
        metrics=tuple(metrics) or ("f1_at_5", "f1_at_10", "f1_at_m"),
        max_new_tokens=max_new_tokens,
    )
