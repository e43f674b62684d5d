"""What the steps do: folders in, a folder out. Knows nothing of the engine that calls it.

Each step function takes a list of works (see `Work`) and yields `(name, outcome)` as each is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

Outcome = Mapping[str, Any]


class Work(Protocol):
    """One step, as it is handed to its function.

    `settings` decide the result; `args` (paths, batch sizes) do not. `inputs` maps a role to the folder of
    what the step stands on; `out` is the folder to fill; `device` is "cpu" or "cuda"; `halvings` says how often
    the step ran out of memory before, for a step that can do with less at once; `emit(done, total, **facts)`
    says how far it is.
    """

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def args(self) -> Mapping[str, Any]: ...
    @property
    def inputs(self) -> Mapping[str, Path]: ...
    @property
    def out(self) -> Path: ...
    @property
    def device(self) -> str: ...
    @property
    def halvings(self) -> int: ...
    @property
    def emit(self) -> Callable[..., None]: ...
