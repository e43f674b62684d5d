"""A task: what the model is asked, how its answer is read, and what the answer is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sabir.catalog import Entry
from sabir.errors import InputError
from sabir.own_code import is_own, own_function
from sabir.tasks import choice, classification, keyphrases, summarization  # noqa: F401  (they register themselves)
from sabir.tasks.own import OwnTask
from sabir.tasks.task import TASKS, Prompt, Row, Task

__all__ = ["TASKS", "Prompt", "Row", "Task", "is_own", "make_task", "task_entry"]


def task_entry(name: str, *, code: Path | None = None, where: str = "task") -> Entry:
    """The task of that name: one of the catalogue, or "my.module:function".

    Args:
        code: the folder where modules of the user's own are looked for first; None: no such module is loaded.
    Raises InputError for an unknown name, and for a function that cannot be had.
    """
    if is_own(name):
        return Entry(name, own_function(name, code, where=where))
    return TASKS.get(name, where=where)


def make_task(
    name: str, settings: Mapping[str, Any], *, code: Path | None = None, where: str = "task"
) -> Task:
    """The task of that name with these settings.

    Raises InputError for an unknown name or a bad setting, and for a task of the user's own that is none.
    """
    function: Callable[..., Any] = task_entry(name, code=code, where=where).function
    try:
        made = function(**settings)
    except ValueError as error:
        raise InputError(where, str(error)) from error
    except Exception as error:
        if not is_own(name):
            raise
        found = f"{name} failed ({type(error).__name__}: {error})."
        raise InputError(where, found, "It takes settings by keyword and returns a Task.") from error
    if not isinstance(made, Task):
        fix = "Return a sabir.tasks.Task, or a subclass of it."
        raise InputError(where, f"{name} returned a {type(made).__name__}.", fix)
    if is_own(name):
        made = OwnTask.of(made, name, where)
    if twice := [metric for metric in dict.fromkeys(made.metrics) if made.metrics.count(metric) > 1]:
        raise InputError(f"{where}.metrics", f"{twice[0]!r} stands there twice.", "Keep one of the two.")
    return made
