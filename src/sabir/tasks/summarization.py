"""Write a short text about a long one."""

from __future__ import annotations

from sabir.tasks.task import Task, task


@task("summarization")
def summarization(
    *,
    instruction: str = "",
    cue: str = "Summary:",
    max_new_tokens: int = 64,
    metrics: tuple[str, ...] = (),
) -> Task:
    """A summary per text, generated greedily.

    Args:
        instruction: what the model is told before the text.
        cue: what stands between the text and the summary.
        max_new_tokens: generation ends there at the latest.
        metrics: names in the metrics catalogue; the first one selects among merges.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least 1.")
    return Task(
        name="summarization",
        answer="text",
        instruction=instruction,
        cue=cue,
        metrics=tuple(metrics) or ("rougeL", "rouge1"),
        max_new_tokens=max_new_tokens,
    )
