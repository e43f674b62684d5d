"""Identity: one digest of what a step is, and nothing of where or how fast it runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_written = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode


def canonical(value: Any, *, where: str = "settings") -> Json:
    """The value in the one form that enters a fingerprint: plain JSON, mappings sorted by key.

    Floats enter exactly (their shortest repr); -0.0 becomes 0.0, tuples become lists.
    Raises TypeError for what has no such form: sets, objects, NaN, infinities, keys that are not strings.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value!r}, which has no canonical form")
        return value + 0.0
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys must be strings")
        return {key: canonical(value[key], where=f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item, where=f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which has no canonical form")


@dataclass(frozen=True)
class Canonical:
    """A value in its canonical form, as text: made once, shared by any number of steps, changed by none."""

    text: str

    @classmethod
    def of(cls, value: Any, *, where: str = "settings") -> Canonical:
        """Raises TypeError for what has no canonical form."""
        return cls(_written(canonical(value, where=where)))

    def value(self) -> Any:
        """The value, a copy of the caller's own."""
        return json.loads(self.text)


def digest(value: Any) -> str:
    """sha256 of the canonical form, 64 hex digits."""
    return _sha256(Canonical.of(value).text)


def fingerprint(
    kind: str, version: int, settings: Mapping[str, Any] | Canonical, deps: Mapping[str, str]
) -> str:
    """Identity of a step: kind, version and settings, and the identities of what it stands on, by role.

    It is the digest of a mapping of the four, put together from parts that may have been written before.
    """
    known = settings if isinstance(settings, Canonical) else Canonical.of(settings)
    pairs = ",".join([f"{_written(role)}:{_written(deps[role])}" for role in sorted(deps)])
    return _sha256(
        f'{{"deps":{{{pairs}}},"kind":{_written(kind)},"settings":{known.text},"version":{version:d}}}'
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterable[tuple[str, Any, Any]]:
    """Leaves whose canonical form differs between two nested mappings: (path, old, new); absent is None."""
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from differences(was, now, f"{prefix}{key}.")
        elif Canonical.of(was) != Canonical.of(now):  # == takes True for 1, and a tuple for no list
            yield f"{prefix}{key}", was, now
