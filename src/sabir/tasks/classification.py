"""Choose one of the declared labels."""

from __future__ import annotations

from sabir.tasks.task import Task, task


@task("classification")
def classification(
    *, labels: tuple[str, ...], instruction: str = "", cue: str = "Answer:", metrics: tuple[str, ...] = ()
) -> Task:
    """One label per text (sentiment, topic), chosen by the log-likelihood of each label.

    Args:
        labels: every label there is, as written in the data (blanks around it do not count); at least two,
            none empty, none twice.
        instruction: what the model is told before the text.
        cue: what stands between the text and the label.
        metrics: names in the metrics catalogue; the first one selects among merges.
    """
    tidy = tuple(label.strip() for label in labels)
    if len(tidy) < 2 or len(set(tidy)) < len(tidy) or not all(tidy):
        raise ValueError(f"labels are {list(labels)!r}; expected at least two, none empty, none twice.")
    return Task(
        name="classification",
        answer="label",
        instruction=instruction,
        cue=cue,
        metrics=tuple(metrics) or ("accuracy", "macro_f1", "macro_precision", "macro_recall"),
        labels=tidy,
    )
