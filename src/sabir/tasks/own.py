"""A task of the user's own: what it must be, and whatever its functions raise said with their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_args

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.tasks.task import Answer, Prompt, Row, Task


@dataclass(frozen=True, kw_only=True)
class OwnTask(Task):
    """The task `made` by the function `function`, called "my.module:task" in the config.

    `prompt`, `options` and `target` raise ValueError as those of every task do, `read` raises InputError.
    """

    function: str
    made: Task

    @classmethod
    def of(cls, made: Task, function: str, where: str) -> OwnTask:
        """The task as all others are. Raises InputError for one that cannot be asked or judged."""
        _check(made, function, where)
        given: dict[str, Any] = {one.name: getattr(made, one.name) for one in fields(Task)}
        for name in ("metrics", "labels"):
            given[name] = tuple(given[name])
        return cls(**given, function=function, made=made)

    def prompt(self, row: Row) -> Prompt:
        asked = self._said("prompt", self.made.prompt, row)
        if not isinstance(asked, Prompt):
            raise ValueError(f"{self.function}: prompt gave {_kind(asked)}. Return a sabir.tasks.Prompt.")
        if not all(isinstance(part, str) for part in (asked.before, asked.source, asked.after)):
            raise ValueError(
                f"{self.function}: prompt gave a Prompt whose parts are no texts. Fill all three."
            )
        return asked

    def options(self, row: Row) -> tuple[str, ...]:
        found = self._said("options", self.made.options, row)
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
            raise ValueError(f"{self.function}: options gave {_kind(found)}. Return a tuple of texts.")
        if self.answer == "choice" and not found:
            raise ValueError(f"{self.function}: options gave none. Return the answers to choose among.")
        return tuple(found)

    def target(self, row: Row) -> str:
        found = self._said("target", self.made.target, row)
        if not isinstance(found, str):
            raise ValueError(f"{self.function}: target gave {_kind(found)}. Return a text.")
        return found

    def read(self, answer: str) -> str | None:
        try:
            found = self._said("read", self.made.read, answer)
        except ValueError as error:
            raise InputError("task.name", str(error), _READ) from error
        if found is not None and not isinstance(found, str):
            raise InputError("task.name", f"{self.function}: read gave {_kind(found)}.", _READ)
        return found

    def _said(self, method: str, function: Callable[[Any], Any], given: Any) -> Any:
        """What a function of the user's own gives; whatever it raises becomes a ValueError that names it."""
        try:
            return function(given)
        except Exception as error:
            if isinstance(error, ValueError) and str(function.__module__).startswith("sabir."):
                raise  # a sentence of ours
            found = f"{self.function}: {method} failed ({type(error).__name__}: {error})."
            raise ValueError(found) from error


_READ = "It is given a model's answer and returns a text, or None where that says nothing."


def _check(made: Task, function: str, where: str) -> None:
    known = get_args(Answer)
    if made.answer not in known:
        found = f"{function} returned a Task whose answer is {made.answer!r}."
        suggestion = did_you_mean(made.answer, known) if isinstance(made.answer, str) else ""
        raise InputError(where, found, f"There are: {', '.join(known)}.{suggestion}")
    if not _texts(made.metrics):
        found = f"{function} returned a Task whose metrics are {made.metrics!r}."
        raise InputError(where, found, "Name at least one, such as metrics=('accuracy',).")
    if not isinstance(made.labels, (list, tuple)) or (made.answer == "label" and not _texts(made.labels)):
        found = f"{function} returned a Task that is answered by a label, and its labels are {made.labels!r}."
        raise InputError(where, found, "Name all that the rows have: labels=('a', 'b').")
    if made.answer in ("text", "phrases") and not (
        type(made.max_new_tokens) is int and made.max_new_tokens > 0
    ):
        found = f"{function} returned a Task that writes at most {made.max_new_tokens!r} tokens."
        raise InputError(where, found, "Say how many: max_new_tokens=64.")
    for name in ("instruction", "cue"):
        if not isinstance(getattr(made, name), str):
            found = f"{function} returned a Task whose {name} is {getattr(made, name)!r}."
            raise InputError(where, found, "Give a text, or ''.")


def _texts(given: Any) -> bool:
    """Whether it is a list of texts with something in it."""
    return isinstance(given, (list, tuple)) and bool(given) and all(isinstance(one, str) for one in given)


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "nothing" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
