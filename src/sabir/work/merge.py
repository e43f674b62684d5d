"""Step `merged`, and the same merge of any folders: adapters in, one adapter out."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from sabir.errors import InputError
from sabir.lora.files import (
    Adapter,
    check_mergeable,
    check_supported,
    open_adapter,
    target_names,
    write_adapter,
)
from sabir.merging.recipe import Recipe, from_identity, make_recipe, merge
from sabir.work import Outcome, Work

OnModule = Callable[[int, int], None] | None


def merge_step(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Merge the adapters of the input folders, by language, as the settings say."""
    for work in works:
        adapters = {language: open_adapter(folder) for language, folder in sorted(work.inputs.items())}
        base = work.args["base"]
        merged = _merge_into(
            work.out,
            from_identity(work.settings, where=work.name),
            adapters,
            base_model=base["name"],
            revision=base["revision"],
            pad_to_served=False,
            on_module=work.emit,
        )
        yield work.name, {"result": merged}


def merge_folders(
    adapters: Sequence[Path | str],
    *,
    out: Path | str,
    recipe: str | None = None,
    method: str | None = None,
    space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: Sequence[float] | None = None,
    rank: int | str | None = None,
    on_module: OnModule = None,
) -> dict[str, Any]:
    """Merge PEFT adapters into one: no config, no base model, no GPU.

    Args:
        adapters: PEFT folders.
        out: a folder that holds no adapter yet; a canonical adapter is written there.
        recipe, method: one of the two, see `sabir list recipes` and `sabir list methods`.
        space: where the method merges; the recipe's own by default.
        settings: of the method, as {"density": 0.2, "scale": 0.5}.
        weights: one per adapter, in the order given.
        rank: "exact" or a number.
        on_module: called with (modules done, modules in all).
    Returns: the `merge` document: rank, energy kept in total and by adapter, time and memory.
    Raises InputError for adapters that do not go together, unknown names and bad settings.
    """
    if (recipe is None) == (method is None):
        raise InputError(
            "merge", "expected a recipe or a method, one of the two.", "For example: --recipe ties-knots."
        )
    if weights is not None and len(weights) != len(adapters):
        raise InputError(
            "weights",
            f"there are {len(weights)} for {len(adapters)} adapters.",
            "Give one per adapter, in order.",
        )
    started = time.perf_counter()
    names = _names(adapters)
    opened = {name: open_adapter(path) for name, path in zip(names, adapters, strict=True)}
    for name, adapter in opened.items():
        check_supported(adapter, where=name)
    check_mergeable(opened)
    made = make_recipe(
        recipe or method or "",
        space=space,
        settings=settings,
        weights=None if weights is None else dict(zip(names, weights, strict=True)),
        rank=rank,
        where="merge",
    )
    merged = _merge_into(
        Path(out),
        made,
        opened,
        base_model=_shared([adapter.base_model for adapter in opened.values()]),
        revision=_shared([adapter.revision for adapter in opened.values()]),
        pad_to_served=True,
        on_module=on_module,
    )
    return {
        "out": str(out),
        **merged,
        "wall_s": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        "recipe": made.identity(),
        "adapters": [
            {"path": str(path), "digest": opened[name].digest}
            for name, path in zip(names, adapters, strict=True)
        ],
    }


def _merge_into(
    out: Path,
    recipe: Recipe,
    adapters: Mapping[str, Adapter],
    *,
    base_model: str | None,
    revision: str | None,
    pad_to_served: bool,
    on_module: OnModule,
) -> dict[str, Any]:
    merged = merge(recipe, adapters, on_module=on_module)
    shapes = dict(next(iter(adapters.values())).shapes)
    written = write_adapter(
        out,
        merged,
        shapes=shapes,
        rank=merged.rank,
        base_model=base_model,
        revision=revision,
        targets=target_names(shapes, adapters=adapters.values()),
        pad_to_served=pad_to_served,
    )
    rank = max(written.ranks.values())
    return {
        "rank": rank,
        "modules": len(shapes),
        "parameters": sum(rank * (rows + columns) for rows, columns in shapes.values()),
        "energy_kept": merged.energy_kept,
        "energy_kept_by_adapter": dict(merged.energy_kept_by_adapter or {}),
    }


def _names(adapters: Sequence[Path | str]) -> list[str]:
    """A name per adapter: its folder's, with a number where two are called alike."""
    names: list[str] = []
    for path in adapters:
        folder = Path(path).resolve().name
        numbered = (f"{folder}#{number}" for number in count(2))
        names.append(next(name for name in chain([folder], numbered) if name not in names))
    return names


def _shared(values: Sequence[str | None]) -> str | None:
    """The value all adapters name, or None when they differ or name none."""
    return values[0] if len(set(values)) == 1 else None
