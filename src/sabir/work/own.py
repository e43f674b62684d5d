"""What a function of the user's own is called in a fingerprint."""

from __future__ import annotations

import hashlib
from pathlib import Path


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
