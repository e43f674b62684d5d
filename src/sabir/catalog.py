"""Names for functions: a method's keyword-only parameters are its settings.

A merge method, a task and a metric are plain functions. A `Catalog` keeps them by name; the signature
says which settings there are and what they default to, so that YAML, command line, documentation and
fingerprint all read the same source.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sabir.errors import InputError

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One keyword-only parameter: its type, and its default (`REQUIRED` when it has none)."""

    name: str
    hint: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@dataclass(frozen=True)
class Entry:
    """A function by name, with what the catalogue page prints about it."""

    name: str
    function: Callable[..., Any]
    source: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """Keyword-only parameters by name, in the order they are written."""
        signature = inspect.signature(self.function)
        keyword_only = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
        if not keyword_only:
            return {}
        hints = _hints(self.function)
        return {p.name: Setting(p.name, hints.get(p.name, Any), p.default) for p in keyword_only}


class Catalog:
    """The functions of one kind ("method", "task", "metric"), by name."""

    def __init__(self, noun: str):
        self.noun = noun
        self._entries: dict[str, Entry] = {}

    def register(self, name: str | None = None, *, source: str = "", **facts: Any) -> Callable[[Any], Any]:
        """Decorator: keep a function under its own name, underscores written as hyphens or not as given."""

        def keep(function: Callable[..., Any]) -> Callable[..., Any]:
            key = name or function.__name__
            if key in self._entries:
                raise ValueError(f"{self.noun} {key!r} is registered twice")
            self._entries[key] = Entry(key, function, source, facts)
            return function

        return keep

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return list(self._entries)

    def get(self, name: str, *, where: str = "") -> Entry:
        """The entry of that name. Raises InputError with the nearest name when there is none."""
        if name not in self._entries:
            raise InputError(
                where,
                f"no such {self.noun}: {name!r}.",
                f"Known are: {', '.join(self._entries)}.{did_you_mean(name, self._entries)}",
            )
        return self._entries[name]


def did_you_mean(word: object, known: Any) -> str:
    """ " Did you mean 'density'?" for a near miss, else ""."""
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def non_default(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from their default: what enters a fingerprint.

    A new setting with a default then changes no fingerprint of yesterday.
    """
    return {
        name: value
        for name, value in settings.items()
        if name not in defaults or type(value) is not type(defaults[name]) or value != defaults[name]
    }


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Type hints, without importing what only type checkers see."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        own = {
            name: hint
            for name, hint in function.__annotations__.items()
            if name in inspect.signature(function).parameters
            and inspect.signature(function).parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        }
        scope = vars(inspect.getmodule(function)) if inspect.getmodule(function) else {}
        return {
            name: eval(hint, dict(scope)) if isinstance(hint, str) else hint  # our own source, not input
            for name, hint in own.items()
        }
