"""Functions of the user's own, named "my.module:function": loaded only where running them was allowed."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sabir.errors import InputError


def is_own(name: str) -> bool:
    """Whether a name means a function of the user's own: "my.module:function"."""
    return ":" in name


def own_function(name: str, code: Path | None, *, where: str) -> Callable[..., Any]:
    """The function "my.module:function".

    Args:
        code: the folder where the module is looked for first; None: running it was not allowed.
    Raises InputError when it was not allowed, or when there is no such module or function.
    """
    if code is None:
        fix = "If you trust it: --allow-code (in Python: allow_code=True)."
        raise InputError(where, f"{name!r} names code of your own, which is not run unasked.", fix)
    module_name, _, function_name = name.partition(":")
    if str(code) not in sys.path:
        sys.path.insert(0, str(code))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # not our code: whatever it raises is the user's to mend
        found = f"{module_name!r} cannot be imported ({type(error).__name__}: {error})."
        raise InputError(where, found, f"Looked in {code}.") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise InputError(where, f"{module_name!r} has no {function_name!r}.", "Name a function of it.")
    if not callable(function):
        raise InputError(where, f"{name!r} is no function.", "Name a function.")
    return function


def called(name: str, function: Callable[..., Any], *given: Any, where: str, fix: str) -> Any:
    """What a function of the user's own gives. Raises InputError that names it, whatever it raises.

    Args:
        name: "my.module:function".
        fix: what it is given and must give.
    """
    try:
        return function(*given)
    except Exception as error:  # not our code
        raise InputError(where, f"{name!r} failed ({type(error).__name__}: {error}).", fix) from error


def own_identity(name: str, code: Path | None) -> str:
    """The name "my.module:function" with a digest of its module's file, so that an edit is noticed.

    A module that does not lie in the user's folder (an installed package), and what a module imports, are not
    looked at; neither is anything where running it was not allowed.

    Args:
        code: the folder where the module is looked for first; None: none may be run.
    """
    if code is None:
        return name
    inside = code.joinpath(*name.partition(":")[0].split("."))
    for path in (inside.with_name(f"{inside.name}.py"), inside / "__init__.py"):
        if path.is_file():
            return f"{name}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return name
