"""Settings as a user wrote them, held against type hints; every complaint has its file, line and key path."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.strict_yaml import KeyPath, dotted, load_value, shortened

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The limits of a number, as in `Annotated[int, Range(ge=1)]`; infinity and NaN are outside of all."""

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.ge <= number <= self.le and self.gt < number < self.lt

    def __str__(self) -> str:
        if math.isfinite(self.ge) and math.isfinite(self.le):
            return f"from {self.ge} to {self.le}"
        limits = (("of at least", self.ge), ("above", self.gt), ("of at most", self.le), ("below", self.lt))
        return " and ".join(f"{word} {limit}" for word, limit in limits if math.isfinite(limit))


@dataclass(frozen=True)
class Filled:
    """A text or list that is not empty: `Annotated[str, Filled()]`."""

    def __contains__(self, value: str | Sequence[Any]) -> bool:
        return len(value) > 0


Text = Annotated[str, Filled()]


class Reader:
    """Reads values out of one file's settings and keeps what is wrong, to be raised all at once.

    Args:
        file: the file, as errors should call it.
        lines: the line of each key path (see `strict_yaml.load`).
    """

    def __init__(self, file: str, lines: Mapping[KeyPath, int]):
        self._found: list[tuple[int, InputError]] = []
        self._file = file
        self._lines = lines
        self._overridden: set[KeyPath] = set()

    def where(self, path: KeyPath) -> str:
        """The place of a key path in the user's words: "config.yaml, line 7: lora.rank"."""
        option = next((part for part in _upward(path) if part in self._overridden), None)
        if option is not None:
            return f"--set {dotted(option)}" + (f": {dotted(path)}" if option != path else "")
        line = self._line(path)
        return f"{self._file}, line {line}: {dotted(path)}" if line else f"{self._file}: {dotted(path)}"

    def _line(self, path: KeyPath) -> int:
        """The line of the nearest key that stands in the file; 0 when none does."""
        return next((self._lines[part] for part in _upward(path) if part in self._lines), 0)

    @property
    def errors(self) -> list[InputError]:
        """All complaints, in the order of the file."""
        return [error for _, error in sorted(self._found, key=lambda one: one[0])]

    def has(self, path: KeyPath) -> bool:
        """Whether the key path itself stands in the file or on the command line."""
        return path in self._lines or path in self._overridden

    def wrong(self, path: KeyPath, message: str, fix: str = "") -> None:
        """Keep one complaint; the same one only once."""
        error = InputError(self.where(path), message, fix)
        if str(error) not in (str(known) for _, known in self._found):
            self._found.append((self._line(path), error))

    def keep(self, errors: Iterable[InputError], path: KeyPath) -> None:
        """Keep complaints about what a key names, which say themselves where they stand: another file's."""
        self._found += [(self._line(path), error) for error in errors]

    def attempt(self, check: Callable[..., T], path: KeyPath) -> T | None:
        """What a lower layer's check gives; None, and its complaints kept, when it raises InputError.

        Args:
            check: called with `where="merges.ties"`; its errors may name a key inside, "merges.ties.density".
        """
        where = dotted(path)
        try:
            return check(where=where)
        except InputError as error:
            for one in error.problems():
                inside = [key for key in one.where.removeprefix(where).split(".") if key]
                self.wrong((*path, *inside), one.message, one.fix)
            return None

    def override(self, given: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
        """Put a value from the command line into the settings, in place of the file's."""
        inside = given
        for length, key in enumerate(path[:-1], start=1):
            if inside.get(key) is None:
                inside[key] = {}
            if not isinstance(inside[key], dict):
                found = f"{dotted(path[:length])} is {shown(inside[key])} in {self._file}, not a mapping."
                fix = "Write it out there, or set all of it."
                self._found.append((0, InputError(f"--set {dotted(path)}", found, fix)))
                return
            inside = inside[key]
        inside[path[-1]] = value
        self._overridden.add(path)

    def refuse_unusable_numbers(self, value: Any, path: KeyPath) -> None:
        """No setting is infinite, not a number, or beyond 64 bits."""
        if isinstance(value, dict):
            for key, inner in value.items():
                self.refuse_unusable_numbers(inner, (*path, key))
        elif isinstance(value, list):
            for position, inner in enumerate(value):
                self.refuse_unusable_numbers(inner, (*path, position))
        elif (isinstance(value, float) and not math.isfinite(value)) or (
            isinstance(value, int) and abs(value) >= 2**63
        ):
            self.wrong(path, f"{shown(value)} is not a number to compute with.", "Write a finite one.")

    def refuse_unknown(self, given: Iterable[str], known: Iterable[str], path: KeyPath, owner: str) -> None:
        """Complain about each key that is none of the known."""
        known = list(known)
        for key in given:
            if key not in known:
                takes = f"{owner} takes: {', '.join(known)}." if known else f"{owner} takes none."
                takes = takes[0].upper() + takes[1:]
                self.wrong((*path, key), "no such setting.", f"{takes}{did_you_mean(key, known)}")

    def mapping(self, given: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        """The settings under the last key of the path; none when it is absent or left empty."""
        value = given.get(str(path[-1]))
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(path, f"{shown(value)} is not a mapping.", "Expected `key: value` pairs here.")
            return {}
        return value

    def settings(
        self, given: Mapping[str, Any], hints: Mapping[str, Any], path: KeyPath, owner: str
    ) -> dict[str, Any]:
        """The values that fit their hint, as the hint has them (1 for a float is 1.0, a list a tuple).

        Args:
            given: what the user wrote.
            hints: every setting there is, and its type.
            path: where `given` stands.
            owner: whose settings they are, for "'dare' takes: density, seed".
        """
        self.refuse_unknown(given, hints, path, owner)
        read = {}
        for key in hints:
            if key in given:
                try:
                    read[key] = conform(given[key], hints[key])
                except ValueError as error:
                    self.wrong((*path, key), *error.args)
        return read

    def section(self, start: T, given: Mapping[str, Any], path: KeyPath) -> T:
        """A section with flat settings: the frozen dataclass `start`, with what the section says in it."""
        hints = _hints(type(start))  # type: ignore[arg-type]
        read = self.settings(self.mapping(given, path), hints, path, repr(path[-1]))
        return dataclasses.replace(start, **read)  # type: ignore[type-var]

    def one(self, given: Mapping[str, Any], key: str, hint: Any, path: KeyPath, default: Any) -> Any:
        """One setting, or the default when it is absent or does not fit its hint."""
        here = {key: given[key]} if key in given else {}
        return self.settings(here, {key: hint}, path, "").get(key, default)


def parse_overrides(overrides: Mapping[str, str] | Sequence[str]) -> list[tuple[tuple[str, ...], Any]]:
    """`lora.epochs=5` as (("lora", "epochs"), 5), for each."""
    if isinstance(overrides, Mapping):
        pairs = list(overrides.items())
    else:
        pairs = []
        for written in overrides:
            key, equals, text = written.partition("=")
            if not equals:
                raise InputError(
                    f"--set {written}", "there is no value.", "Write key=value, such as lora.epochs=5."
                )
            pairs.append((key, text))
    read = []
    for key, text in pairs:
        path = tuple(part.strip() for part in key.split("."))
        if not all(path):
            raise InputError(
                f"--set {key}={text}", f"{key!r} is no key.", "Write it with dots, such as lora.epochs=5."
            )
        read.append((path, load_value(text, where=f"--set {key}")))
    return read


def conform(value: Any, hint: Any) -> Any:
    """The value as the hint has it (a list as a tuple, 1 as 1.0), without guessing: '3' is no number.

    Raises ValueError(message, fix) in the user's words.
    """
    # pydantic would read hints too, but takes 0.1 s to import and to build: a fifth of what `plan` may take.
    # The tests hold this against it.
    try:
        return _read(value, hint)
    except _Misfit:
        pass
    if value is None:
        raise ValueError("no value is given.", f"Expected {expected(hint)}.")
    raise ValueError(f"{shown(value)} is not {expected(hint)}.", _repair(value, hint))


class _Misfit(Exception):
    """A value does not fit a hint."""


def _read(value: Any, hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        read = _read(value, args[0])
        if any(read not in limit for limit in args[1:]):
            raise _Misfit
        return read
    if origin is Literal:
        return _first(value, [one for one in args if type(one) is type(value) and one == value])
    if origin in (Union, types.UnionType):
        return _first(value, [_read(value, one) for one in args if _fits(value, one)])
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list):
            raise _Misfit
        hints = args if origin is tuple and args[-1] is not ... else args[:1] * len(value)
        if len(hints) != len(value):
            raise _Misfit
        items = [_read(one, inner) for one, inner in zip(value, hints, strict=True)]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _Misfit
        return {_read(key, args[0]): _read(one, args[1]) for key, one in value.items()}
    return _read_plain(value, type(None) if hint is None else hint)


def _read_plain(value: Any, kind: Any) -> Any:
    if kind not in _WORDS:
        raise TypeError(f"no setting can have the type {kind!r}")
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not kind:
        raise _Misfit
    return value


def _first(value: Any, readings: Sequence[Any]) -> Any:
    """The reading that has the value's own type, else the first there is."""
    for one in [*(one for one in readings if type(one) is type(value)), *readings]:
        return one
    raise _Misfit


def _fits(value: Any, hint: Any) -> bool:
    try:
        _read(value, hint)
    except _Misfit:
        return False
    return True


def expected(hint: Any) -> str:
    """A type hint in words: "a whole number of at least 1", "'pass' or 'refuse'"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [f" {one}" for one in args[1:] if isinstance(one, Range)]
        words = expected(args[0]) + "".join(limits)
        return words.replace("a ", "a non-empty ", 1) if Filled() in args[1:] else words
    if origin is Literal:
        return _either([shown(one) for one in args])
    if origin in (Union, types.UnionType):
        named = [one for one in args if one is not type(None)]
        return _either([word for one in named for word in _alternatives(one)])
    if origin in (list, tuple, Sequence):
        inner = expected(args[0]) if args else "a value"
        return f"a list of {_PLURALS[inner]}" if inner in _PLURALS else f"a list, each {inner}"
    if origin in (dict, Mapping):
        return "a mapping"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def shown(value: Any) -> str:
    """A value as the user wrote it, quoted when it is text, shortened when it is long."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return shortened(value)


def _upward(path: KeyPath) -> list[KeyPath]:
    """The path and what it lies in, nearest first, without the top."""
    return [path[:length] for length in range(len(path), 0, -1)]


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
    type(None): "nothing",
}
_PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _repair(value: Any, hint: Any) -> str:
    """What to write instead, where that is plain: the number without quotes, the text with, the near miss."""
    if isinstance(value, str):
        for text in (_MEANT.get(value.lower(), value), value.replace("_", ""), value.replace(",", ".")):
            if (new := _plain(text)) is not None and _fits(new, hint):
                return f"Write {text} without quotes." if text == value else f"Write {text}."
        if not _choices(hint) and _fits([value], hint):
            return f"Write it as a list: [{value}]."
        return did_you_mean(value, [one for one in _choices(hint) if isinstance(one, str)]).strip()
    if isinstance(value, bool | int | float):
        text = shown(value)
        return f"Put it in quotes: '{text}'." if _fits(text, hint) else ""
    if isinstance(value, list):
        texts = [shown(one) if isinstance(one, bool | int | float) else one for one in value]
        return f"Put its values in quotes: {shown(texts)}." if _fits(texts, hint) else ""
    return ""


_MEANT = {"yes": "true", "on": "true", "no": "false", "off": "false", "gpu": "cuda"}


def _alternatives(hint: Any) -> list[str]:
    return [shown(one) for one in get_args(hint)] if get_origin(hint) is Literal else [expected(hint)]


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for one in get_args(hint) if not isinstance(one, str) for choice in _choices(one)]


def _plain(text: str) -> Any:
    try:
        return load_value(text, where="")
    except InputError:
        return None


@functools.cache  # a section of each of a hundred languages is read with the same ones
def _hints(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section, include_extras=True)
