"""Values that differ from module to module: a gradient over depth, or patterns of module names.

A value is a number, or one of these, in the form a config writes it (and a fingerprint keeps it):
    {"depth": [0.2, 0.5, 1.0]}        from the first layer to the last, straight lines between the points
    {"*.mlp.*": 0.5, "*": 1.0}        the first pattern that matches; each may be a gradient itself
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sabir.errors import InputError

Value = float | Mapping[str, Any]
DEPTH = "depth"


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value with its place: ("merges.a.density.*.mlp.*", 0.5)."""
    if not isinstance(value, Mapping):
        yield where, value
    elif set(value) == {DEPTH}:
        points = value[DEPTH]
        if not isinstance(points, list | tuple) or len(points) < 2:
            raise InputError(
                f"{where}.{DEPTH}", f"expected two points or more, got {points!r}.", "As {depth: [0.2, 1.0]}."
            )
        for point in points:
            yield f"{where}.{DEPTH}", point
    else:
        if not value:
            raise InputError(where, "says nothing of any module.", 'As {"*": 0.5}.')
        for pattern, one in value.items():
            if pattern == DEPTH or (isinstance(one, Mapping) and set(one) != {DEPTH}):
                raise InputError(
                    f"{where}.{pattern}",
                    f"{one!r} is no value of a pattern.",
                    "Expected a number or {depth: [0.2, 1.0]}.",
                )
            yield from leaves(one, f"{where}.{pattern}")


def anywhere(value: Any) -> bool:
    """Whether a value is other than 0 in any module."""
    return any(one != 0 for _, one in leaves(value))


def converted(value: Any, convert: Callable[[Any], Any]) -> Any:
    """The same value with every single one converted."""
    if not isinstance(value, Mapping):
        return convert(value)
    return {
        key: [convert(point) for point in one] if key == DEPTH else converted(one, convert)
        for key, one in value.items()
    }


def at(value: Any, module: str, layers: int, where: str = "") -> Any:
    """What the value is in one module. Raises InputError where it says nothing of this module.

    Args:
        layers: how many layers there are, see `layer_count`.
    """
    if not isinstance(value, Mapping):
        return value
    if set(value) == {DEPTH}:
        layer = layer_of(module)
        if layer is None:
            raise InputError(
                where,
                f"module {module!r} lies in no layer, so a gradient over depth says nothing of it.",
                'Give it a pattern of its own: {"lm_head": 1.0, "*": {depth: [0.2, 1.0]}}.',
            )
        points = value[DEPTH]
        place = layer / max(1, layers - 1) * (len(points) - 1)
        left = int(place)
        if left >= len(points) - 1:
            return points[-1]
        return points[left] + (points[left + 1] - points[left]) * (place - left)
    for pattern, one in value.items():
        if matches(pattern, module):
            return at(one, module, layers, where)
    raise InputError(where, f"no pattern matches module {module!r}.", 'End with {"*": ...} for all the rest.')


def matches(pattern: str, module: str) -> bool:
    """Whether a glob matches the module's name or the end of it, from a dot on ("q_proj", "layers.0.*")."""
    ends = [module, *(module[dot + 1 :] for dot, sign in enumerate(module) if sign == ".")]
    return any(fnmatchcase(end, pattern) for end in ends)


def layer_of(module: str) -> int | None:
    """The layer a module lies in: the first number in its name."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(found[1]) if found else None


def layer_count(modules: Iterable[str]) -> int:
    """One more than the largest layer; 0 where no module lies in one."""
    return max((layer + 1 for module in modules if (layer := layer_of(module)) is not None), default=0)
