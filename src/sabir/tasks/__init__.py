"""A task: what the model is asked, how its answer is read, and what the answer is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sabir.errors import InputError
from sabir.tasks import classification, summarization  # noqa: F401  (they register themselves)
from sabir.tasks.task import TASKS, Prompt, Row, Task

__all__ = ["TASKS", "Prompt", "Row", "Task", "make_task"]


def make_task(name: str, settings: Mapping[str, Any], *, where: str = "task") -> Task:
    """The task of that name with these settings. Raises InputError for an unknown name or a bad setting."""
    entry = TASKS.get(name, where=where)
    try:
        return entry.function(**settings)
    except ValueError as error:
        raise InputError(where, str(error)) from error
