"""Step `merged`, and the same merge of any folders: adapters in, one adapter or a folded model out."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError
from sabir.lora.card import model_card
from sabir.lora.checks import base_linear_shapes, check_fits, check_mergeable, check_supported
from sabir.lora.files import Adapter, open_adapter
from sabir.lora.fold import MODEL_CONFIG, fold
from sabir.lora.tokenizer import tokenizer_files, vocabulary_difference
from sabir.lora.write import CARD, served_rank, target_names, write_adapter
from sabir.merging import by_module
from sabir.merging.choices import from_identity, make_recipe
from sabir.merging.kept import Kept
from sabir.merging.methods import METHODS
from sabir.merging.notes import notes
from sabir.merging.recipe import Recipe, adapter_weights, merge
from sabir.work import Outcome, Work

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.merging.streaming import Merged

OnModule = Callable[[int, int], None] | None


def merge_step(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Merge the adapters of the input folders, by language, as the settings say."""
    for work in works:
        adapters = {language: open_adapter(folder) for language, folder in sorted(work.inputs.items())}
        recipe = from_identity(work.settings, where=work.name)
        merged = merge_below(work, "merging", recipe, adapters, work.emit)
        move_up(work.out / "merging")
        yield work.name, {"result": merged}


def merge_below(
    work: Work, name: str, recipe: Recipe, adapters: Mapping[str, Adapter], on_module: OnModule = None
) -> dict[str, Any]:
    """Merge into the folder of that name below a step's own: a fold wants a place of its own."""
    base = work.args["base"]
    return merge_into(
        work.out / name,
        recipe,
        adapters,
        base_model=base["name"],
        revision=base["revision"],
        base_folder=base["folder"],
        on_module=on_module,
        kept=Kept(Path(work.args["kept"])),
    )


def move_up(folder: Path) -> None:
    """All a folder holds into the one above it."""
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)
    folder.rmdir()


def merge_folders(
    adapters: Sequence[Path | str],
    *,
    out: Path | str,
    recipe: str | None = None,
    method: str | None = None,
    space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: Sequence[float] | Mapping[str, Any] | None = None,
    rank: int | str | None = None,
    dialect: str | None = None,
    dtype: str | None = None,
    base: Path | str | None = None,
    on_module: OnModule = None,
) -> dict[str, Any]:
    """Merge PEFT adapters into one: no config, no base model, no GPU.

    Args:
        adapters: PEFT folders.
        out: a folder that holds nothing of the kind yet; a canonical adapter is written there.
        recipe, method: one of the two, see `sabir list recipes` and `sabir list methods`.
        space: where the method merges; the recipe's own by default.
        settings: of the method, as {"density": 0.2, "scale": 0.5}; a number may differ by module, as
            {"density": {"depth": [0.2, 0.8]}} or {"scale": {"*.mlp.*": 0.5, "*": 1.0}}.
        weights: one per adapter, in the order given, or by folder name (there they may differ by module too).
        rank: "exact", a number, "serve" (at most what servers take), or "fold": the merge is added to the base and
            a whole model is written.
        dialect: whose rules hold where programs differ: sabir, paper, mergekit or peft.
        dtype: float32, bfloat16 or float16 of what is written; of a folded model the base's own by default.
        base: the base model's folder; for "fold", and to check that the adapters fit.
        on_module: called with (modules done, modules in all).
    Returns: the `merge` document: rank, energy kept in total and by adapter, warnings, time and memory.
    Raises InputError for adapters that do not go together, unknown names and bad settings; StoreError when the
    disk does not take the result. Nothing half-written is left.
    """
    if (recipe is None) == (method is None):
        raise InputError(
            "merge", "expected a recipe or a method, one of the two.", "For example: --recipe ties-knots."
        )
    if not isinstance(weights, Mapping | list | tuple | None):
        raise InputError(
            "weights",
            f"expected a list or a mapping, got {weights!r}.",
            "One per adapter, or by folder name.",
        )
    if not isinstance(weights, Mapping | None) and len(weights) != len(adapters):
        raise InputError(
            "weights",
            f"there are {len(weights)} for {len(adapters)} adapters.",
            "Give one per adapter, in order.",
        )
    if isinstance(adapters, str | Path):
        found = f"expected a list of adapter folders, got {str(adapters)!r}."
        raise InputError("merge", found, "Write [...] around it.")
    started = time.perf_counter()
    opened = open_folders(adapters)
    names = list(opened)
    made = make_recipe(
        recipe or method or "",
        space=space,
        settings=settings,
        weights=weights if isinstance(weights, Mapping | None) else dict(zip(names, weights, strict=True)),
        rank=rank,
        dialect=dialect,
        dtype=dtype,
        where="merge",
    )
    base_folder = _base_folder(base, opened, needed=made.rank == "fold")
    if base_folder is not None:
        shapes = base_linear_shapes(base_folder)
        for name, adapter in opened.items():
            check_fits(adapter, shapes, where=name)
            if difference := vocabulary_difference(base_folder, adapter.path):
                raise InputError(
                    f"the base and {name!r}", difference, "Give the base the adapters were trained on."
                )
    named = sorted({str(adapter.base_model) for adapter in opened.values()})
    base_model = _shared([adapter.base_model for adapter in opened.values()]) or (base and str(base)) or None
    merged = merge_into(
        Path(out),
        made,
        opened,
        base_model=base_model,
        revision=_shared([adapter.revision for adapter in opened.values()]),
        base_folder=base_folder,
        copies=_tokenizer(base_folder, opened),
        on_module=on_module,
    )
    if len(named) > 1:
        merged["warnings"].append(
            f"The adapters name different bases ({', '.join(named)}): only their shapes could be compared."
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


def analyze_folders(adapters: Sequence[Path | str], *, on_module: OnModule = None) -> dict[str, Any]:
    """What PEFT adapters look like before they are merged: see `merging.analysis.analyze`.

    Raises InputError for adapters that do not go together.
    """
    from sabir.merging.analysis import analyze

    return analyze(open_folders(adapters), on_module=on_module)


def open_folders(adapters: Sequence[Path | str]) -> dict[str, Adapter]:
    """The adapters by a name each, checked to be of a kind that can be merged, and to go together."""
    opened = {name: open_adapter(path) for name, path in zip(_names(adapters), adapters, strict=True)}
    for name, adapter in opened.items():
        check_supported(adapter, where=name)
    check_mergeable(opened)
    return opened


def merge_into(
    out: Path,
    recipe: Recipe,
    adapters: Mapping[str, Adapter],
    *,
    base_model: str | None,
    revision: str | None,
    base_folder: Path | str | None = None,
    copies: Sequence[Path] = (),
    on_module: OnModule = None,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Merge into a folder: a canonical adapter with its card, or the base with the merge folded in.

    An adapter's rank is filled up with zeros to one that servers take.

    Args:
        adapters: by name, checked already.
        base_folder: needed where the recipe folds.
        copies: files to put beside, such as the tokenizer's.
        kept: facts about single adapters from earlier merges.
    Returns: rank (None when folded), modules, parameters, energies and warnings.
    """
    merged = merge(recipe, adapters, on_module=on_module, kept=kept)
    first = next(iter(adapters.values()))
    shapes = merged.shapes
    embeddings = frozenset(module for adapter in adapters.values() for module in adapter.embeddings)
    saved = _averages(adapters, _saved_shares(recipe, adapters))
    saved_shapes = {name: place.shape for name, place in first.saved.items()}
    folds, task_type = recipe.rank == "fold", _task_type(adapters)
    rank = served_rank(max(1, merged.rank))
    document: dict[str, Any] = {}

    def finish() -> dict[str, str]:
        """The card, once the energies are known."""
        document.update(_document(recipe, adapters, merged, rank, folds))
        facts = {
            "base_model": base_model,
            "revision": revision,
            "recipe": _in_full(recipe, adapters),
            "folded": folds,
            "adapters": [{"name": name, "digest": adapters[name].digest} for name in sorted(adapters)],
            "task_type": task_type,
        }
        return {CARD: model_card({**document, **facts})}

    if folds:
        if base_folder is None:
            raise InputError(
                "rank", "folding adds the merge to the base model.", "Give its folder: --base DIR."
            )
        fold(
            base_folder,
            out,
            merged.dense(),
            dtype=recipe.dtype,
            saved=saved,
            saved_shapes=saved_shapes,
            embeddings=embeddings,
            fan_in_fan_out=first.fan_in_fan_out,
            texts=finish,
            shapes=shapes,
        )
        return document
    write_adapter(
        out,
        merged,
        shapes=shapes,
        rank=rank,
        base_model=base_model,
        revision=revision,
        targets=target_names(shapes, adapters=adapters.values()),
        pad_to_served=False,
        dtype=recipe.dtype or "float32",
        task_type=task_type,
        embeddings=embeddings,
        fan_in_fan_out=first.fan_in_fan_out,
        saved=saved,
        saved_shapes=saved_shapes,
        texts=finish,
        copies=copies,
    )
    return document


def _in_full(recipe: Recipe, adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    """Every choice of a recipe, defaults too."""
    return {
        "method": recipe.method,
        "space": recipe.space,
        **{name: one.default for name, one in METHODS.get(recipe.method).settings.items()},
        **recipe.settings,
        "weights": adapter_weights(recipe, list(adapters)),
        "rank": recipe.rank or "the space's own",
        "dialect": recipe.dialect,
        "dtype": recipe.dtype or ("the base's own" if recipe.rank == "fold" else "float32"),
    }


def _saved_shares(recipe: Recipe, adapters: Mapping[str, Adapter]) -> dict[str, dict[str, float]]:
    """What each adapter's layers trained whole count in their mean, by layer; known before anything is merged."""
    first = next(iter(adapters.values()))
    weights = adapter_weights(recipe, list(adapters))
    layers = by_module.layer_count(first.modules)
    shares = {}
    for name in first.saved:
        each = {key: by_module.at(weight, name, layers, f"weights.{key}") for key, weight in weights.items()}
        total = sum(each.values())
        if not total > 0:
            raise InputError(
                "weights",
                f"{name!r} was trained whole and is averaged by weight, and the weights' sum is {total}.",
                "Give weights with a sum above 0.",
            )
        shares[name] = {key: weight / total for key, weight in each.items()}
    return shares


def _averages(
    adapters: Mapping[str, Adapter], shares: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[str, Tensor]]:
    """Layers trained whole (modules_to_save) are no deltas: their mean by weight, in float64."""
    ordered = sorted(adapters, key=lambda key: adapters[key].digest)
    for name, each in shares.items():
        mean = sum(adapters[key].read_saved(name).double() * each[key] for key in ordered)
        yield name, mean.float()  # type: ignore[union-attr]


def _task_type(adapters: Mapping[str, Adapter]) -> str | None:
    """What the adapters are for, in PEFT's words; None where trained heads come without any."""
    types = [adapter.config.get("task_type") for adapter in adapters.values()]
    said = sorted({str(one) for one in types if one})
    if len(said) > 1:
        raise InputError(
            "", f"adapters are of the task types {' and '.join(said)}.", "Merge adapters of one task."
        )
    saved = any(adapter.saved for adapter in adapters.values())
    return said[0] if said else None if saved else "CAUSAL_LM"


def _document(
    recipe: Recipe, adapters: Mapping[str, Adapter], merged: Merged, rank: int, folded: bool
) -> dict[str, Any]:
    sides = [
        rows * columns if folded else rank * (rows + columns) for rows, columns in merged.shapes.values()
    ]
    return {
        "rank": None if folded else rank,
        "modules": len(merged.shapes),
        "parameters": sum(sides),
        "energy_kept": merged.energy_kept,
        "energy_kept_by_adapter": dict(merged.energy_kept_by_adapter or {}),
        "warnings": notes(recipe, adapters, merged),
    }


def _base_folder(base: Path | str | None, adapters: Mapping[str, Adapter], *, needed: bool) -> Path | None:
    """The folder of the base: as given, or as all adapters name it where it is one."""
    named = _shared([adapter.base_model for adapter in adapters.values()])
    if base is None and needed and named and (Path(named) / MODEL_CONFIG).is_file():
        base = named
    if base is not None and not (Path(base) / MODEL_CONFIG).is_file():
        raise InputError(
            str(base), f"is no model folder: it has no {MODEL_CONFIG}.", "Give the base model's."
        )
    return None if base is None else Path(base)


def _tokenizer(base: Path | None, adapters: Mapping[str, Adapter]) -> list[Path]:
    """The base's tokenizer files; without it the adapters' own, where all hold the same."""
    if base is not None:
        return tokenizer_files(base)
    files = [{path.name: path for path in tokenizer_files(adapter.path)} for adapter in adapters.values()]
    contents = [{name: path.read_bytes() for name, path in each.items()} for each in files]
    return list(files[0].values()) if all(each == contents[0] for each in contents) else []


def _names(adapters: Sequence[Path | str]) -> list[str]:
    """A name per adapter: its folder's, with a number where two are called alike."""
    names: list[str] = []
    for path in adapters:
        folder = Path(path).name or Path(path).resolve().name
        numbered = (f"{folder}#{number}" for number in count(2))
        names.append(next(name for name in chain([folder], numbered) if name not in names))
    return names


def _shared(values: Sequence[str | None]) -> str | None:
    """The value all adapters name, or None when they differ or name none."""
    return values[0] if len(set(values)) == 1 else None
