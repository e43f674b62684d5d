"""The adapter that every server reads alike, written as a stream and complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError, StoreError
from sabir.lora.files import CONFIG, OFF, PICKLE, PREFIX, WEIGHTS, Adapter, factor_names, open_adapter
from sabir.lora.safetensors_io import cast, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.lora.lowrank import LowRank

# The ranks vLLM takes (`--max-lora-rank`); its default maximum is 16.
SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
CARD = "README.md"


def served_rank(rank: int) -> int:
    """The smallest rank servers take that holds this one; the rank itself above the largest."""
    return next((served for served in SERVED_RANKS if served >= rank), rank)


def target_names(
    modules: Iterable[str], *, base_modules: Iterable[str] | None = None, adapters: Iterable[Adapter] = ()
) -> list[str]:
    """The shortest sorted `target_modules` that PEFT matches with exactly these modules.

    A last name ('q_proj') stands for all modules of that name, so it is used only where all of them are
    meant: seen in the base model's modules, or known because an adapter's own config named it so.
    """
    wanted = set(modules)
    leaves = {_leaf(module) for module in wanted}
    if base_modules is not None:
        short = leaves - {_leaf(module) for module in base_modules if module not in wanted}
    else:
        short = set()
        for adapter in adapters:
            for name in leaves & _own_leaves(adapter):
                if {m for m in wanted if _leaf(m) == name} == {m for m in adapter.shapes if _leaf(m) == name}:
                    short.add(name)
    return sorted({leaf if (leaf := _leaf(module)) in short else module for module in wanted})


def _leaf(module: str) -> str:
    return module.rpartition(".")[2]


def _own_leaves(adapter: Adapter) -> set[str]:
    """Last names an adapter's config uses for all modules of the base that end so."""
    limits = ("exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save")
    targets = adapter.config.get("target_modules")
    if not isinstance(targets, list) or any(adapter.config.get(limit) not in OFF for limit in limits):
        return set()
    return {name for name in targets if "." not in name}


def write_adapter(
    folder: str | Path,
    lowranks: Iterable[tuple[str, LowRank]],
    *,
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    base_model: str | None,
    revision: str | None = None,
    targets: Sequence[str] | None = None,
    pad_to_served: bool = True,
    dtype: str = "float32",
    task_type: str | None = "CAUSAL_LM",
    embeddings: Iterable[str] = (),
    fan_in_fan_out: bool = False,
    saved: Iterable[tuple[str, Tensor]] = (),
    saved_shapes: Mapping[str, tuple[int, ...]] | None = None,
    texts: Callable[[], Mapping[str, str]] | None = None,
    copies: Sequence[Path] = (),
    metadata: Mapping[str, str] | None = None,
) -> Adapter:
    """Write the adapter every server reads alike: one rank, alpha = rank, the scale folded into B.

    Modules are written as they arrive, in any order; the bytes depend on the values alone. The folder has
    an adapter_config.json only when all is on the disk; after an error nothing is left that this wrote.

    Args:
        lowranks: (module, delta) pairs, each module of `shapes` once, of rank at most `rank`.
        targets: of `target_names`; the full module names when not given.
        pad_to_served: fill up with zeros to the next of `SERVED_RANKS`.
        dtype: float32, bfloat16 or float16; values are cast once, at the end.
        embeddings: the modules that are LoRA on an embedding.
        fan_in_fan_out: whether the base stores its weights as (I, O).
        saved: (name in the base model, values) of what stands in the base's place (modules_to_save); asked for
            after all deltas.
        saved_shapes: the shape of each of these.
        texts: gives more files of the folder by name, README.md for one; called when all deltas were written.
        copies: files to copy beside, see `tokenizer_files`.
        metadata: strings for the header of the weights file.
    Raises InputError for a folder that holds an adapter, a model or one of the files already; StoreError when
    the disk does not take it.
    """
    folder, embeddings = Path(folder), frozenset(embeddings)
    _check_empty(folder, [path.name for path in copies] + ([CARD] if texts else []))
    if dtype not in DTYPES:
        raise InputError(str(folder), f"no such dtype: {dtype!r}.", f"Known are: {', '.join(DTYPES)}.")
    rank = max(rank, 1)
    rank = served_rank(rank) if pad_to_served else rank
    sizes: dict[str, tuple[int, ...]] = {}
    for module, (rows, columns) in shapes.items():
        name_a, name_b = factor_names(module, embedding=module in embeddings)
        sizes[name_a], sizes[name_b] = (rank, columns), (rows, rank)
    sizes |= {f"{PREFIX}{name}": shape for name, shape in (saved_shapes or {}).items()}
    config = _canonical_config(
        rank,
        base_model,
        revision,
        targets or target_names(shapes),
        task_type,
        fan_in_fan_out,
        saved_shapes or {},
    )
    tensors = chain(
        _factors(lowranks, rank, embeddings, dtype),
        ((f"{PREFIX}{name}", values) for name, values in saved),
    )
    made, mine = not folder.exists(), [folder / f".{WEIGHTS}.partial"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"format": "pt", **(metadata or {})}
        write_tensors(mine[0], tensors, shapes=sizes, dtype=DTYPES[dtype], metadata=facts)
        for path in copies:
            mine.append(folder / path.name)
            copy_file(path, mine[-1])
        for name, text in (texts() if texts else {}).items():
            _check_empty(folder, [name])
            mine.append(folder / name)
            write_text(mine[-1], text)
        mine += [folder / WEIGHTS, folder / f".{CONFIG}.partial", folder / CONFIG]
        mine[0].rename(folder / WEIGHTS)
        write_text(folder / f".{CONFIG}.partial", json.dumps(config, indent=2, sort_keys=True) + "\n")
        (folder / f".{CONFIG}.partial").rename(folder / CONFIG)
        sync_folder(folder)
    except BaseException as error:
        for path in mine:
            path.unlink(missing_ok=True)
        if made and folder.is_dir():
            folder.rmdir()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StoreError(
                str(folder), f"the adapter could not be written: {reason}.", "Nothing half-written was left."
            ) from error
        raise
    return open_adapter(folder)


def _check_empty(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError for a folder that holds an adapter or a model already, or a file of one of these names."""
    if folder.exists() and not folder.is_dir():
        raise InputError(str(folder), "is a file.", "Give a folder.")
    if any((folder / name).exists() for name in (CONFIG, WEIGHTS, PICKLE)):
        raise InputError(str(folder), "holds an adapter already.", "Give another folder, or remove this one.")
    if (folder / "config.json").exists() or any(folder.glob("*.safetensors")):
        raise InputError(str(folder), "holds a model already.", "Give another folder, or remove this one.")
    for name in names:
        if (folder / name).exists():
            raise InputError(str(folder), f"holds a {name} already.", "Give another folder, or remove it.")


def _factors(
    lowranks: Iterable[tuple[str, LowRank]], rank: int, embeddings: frozenset[str], dtype: str
) -> Iterator[tuple[str, Tensor]]:
    """The factors of each module by their names; B with zero columns up to `rank`, A with its own rows alone."""
    import torch

    for module, lowrank in lowranks:
        if lowrank.rank > rank:
            raise ValueError(f"{module} has rank {lowrank.rank}, announced as at most {rank}")
        name_a, name_b = factor_names(module, embedding=module in embeddings)
        b = lowrank.b
        if lowrank.rank < rank:
            values = cast(b.detach().cpu(), getattr(torch, dtype), module)
            b = torch.zeros(b.shape[0], rank, dtype=values.dtype)
            b[:, : lowrank.rank] = values
        yield name_a, lowrank.a
        yield name_b, b


def _canonical_config(
    rank: int,
    base_model: str | None,
    revision: str | None,
    targets: Sequence[str],
    task_type: str | None,
    fan_in_fan_out: bool,
    saved: Iterable[str],
) -> dict[str, Any]:
    """Every field that vLLM, llama.cpp and PEFT could read differently, at its plainest."""
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "init_lora_weights": True,
        "modules_to_save": _outermost(name.rpartition(".")[0] for name in saved) or None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(targets),
    }


def _outermost(modules: Iterable[str]) -> list[str]:
    """Those modules that lie in no other one of them, sorted: PEFT saves a module with all it holds."""
    every = set(modules)
    return sorted(m for m in every if not any(m.startswith(f"{outer}.") for outer in every))


def write_text(path: Path, text: str) -> None:
    """Write a file and have it on the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content and have it on the disk."""
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
