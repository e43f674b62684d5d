"""What goes wrong, in the user's words: where, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class SabirError(Exception):
    """Something the user can act on: one or two sentences, never a traceback.

    Args:
        where: the place in the user's world (a file and line, a key of the config, a step), or "".
        message: what was found and what was expected. A sentence.
        fix: what to do about it. A sentence, or "".
    """

    kind = "error"
    exit_code = 1

    def __init__(self, where: str, message: str, fix: str = ""):
        super().__init__(where, message, fix)
        self.where = where
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.message}" if self.where else self.message
        return f"{sentence} {self.fix}".rstrip()

    def problems(self) -> tuple[SabirError, ...]:
        """Every single error in this one."""
        return (self,)


class InputError(SabirError):
    """The user's input is wrong: config, data, arguments. Exit code 2."""

    kind = "input"
    exit_code = 2


class InputErrors(InputError):
    """Several wrong things found in one pass, reported at once."""

    def __init__(self, errors: Sequence[InputError]):
        if not errors:
            raise ValueError("InputErrors needs at least one error")
        first = errors[0]
        super().__init__(first.where, first.message, first.fix)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

    def problems(self) -> tuple[SabirError, ...]:
        return self.errors


class Failures(SabirError):
    """Several things went wrong, each in its own way: tasks of one project. It ends as the worst of them does."""

    def __init__(self, errors: Sequence[SabirError]):
        if not errors:
            raise ValueError("Failures needs at least one error")
        first = next((error for error in errors if isinstance(error, StepFailed)), errors[0])
        super().__init__(first.where, first.message, first.fix)
        self.kind, self.exit_code = first.kind, first.exit_code
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

    def problems(self) -> tuple[SabirError, ...]:
        return self.errors


class StepFailed(SabirError):
    """A step of a run failed; what was finished is kept. Exit code 1."""

    kind = "step"
    exit_code = 1


class StoreError(SabirError):
    """The store on disk cannot be used as it is (busy, damaged, full). Exit code 2."""

    kind = "store"
    exit_code = 2


class GateNotMet(SabirError):
    """A release was not promoted: it did not pass the gate. Exit code 3."""

    kind = "gate"
    exit_code = 3


class Stopped(SabirError):
    """The user interrupted; what was finished is kept. Exit code 130."""

    kind = "stopped"
    exit_code = 130


def raise_all(errors: Sequence[SabirError]) -> None:
    """Raise what was collected: nothing, the one error, or all of them together."""
    if len(errors) == 1:
        raise errors[0]
    inputs = [error for error in errors if isinstance(error, InputError)]
    if errors:
        raise InputErrors(inputs) if len(inputs) == len(errors) else Failures(errors)
