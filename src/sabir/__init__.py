"""sabir: one LoRA adapter per language, merged into one model; retrain only what changed.

    import sabir
    project = sabir.Project("sabir.yaml")
    project.plan(); project.run(); project.show(); project.predict(["Das Buch war leider langweilig."])
    sabir.analyze(["adapters/de", "adapters/en"])
    sabir.merge(["adapters/de", "adapters/en"], recipe="ties-knots", out="merged")
    sabir.estimate.disagreement(reference, production)  # plain arrays of answers, of any model

Importing this loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError, SabirError, StepFailed, StoreError

if TYPE_CHECKING:
    from sabir import estimate
    from sabir.project import Project
    from sabir.work.merge import analyze_folders as analyze
    from sabir.work.merge import merge_folders as merge

__version__ = "0.1.0"
__all__ = ["InputError", "Project", "SabirError", "StepFailed", "StoreError", "analyze", "estimate", "merge"]

_LAZY = {
    "Project": ("sabir.project", "Project"),
    "analyze": ("sabir.work.merge", "analyze_folders"),
    "merge": ("sabir.work.merge", "merge_folders"),
}


def __getattr__(name: str) -> Any:
    if name == "estimate":
        return importlib.import_module("sabir.estimate")
    if name not in _LAZY:
        raise AttributeError(f"module 'sabir' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)
