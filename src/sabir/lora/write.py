"""The adapter that every server reads alike, written as a stream and complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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


def target_names(modules: Iterable[str], *, adapters: Iterable[Adapter] = ()) -> list[str]:
    """The shortest sorted `target_modules` that PEFT matches with exactly these modules.

    A last name ('q_proj') stands for all modules of that name, so it is used only where all of them are
    meant: known because an adapter's own config named it so.
    """
    wanted = set(modules)
    leaves = {_leaf(module) for module in wanted}
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
    return {name for name in targets if isinstance(name, str) and "." not in name}


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
) -> Adapter:
    """Write the adapter every server reads alike: one rank, alpha = rank, the scale folded into B.

    Modules are written as they arrive, in any order; the bytes depend on the values alone. Every file gets its
    name when all are on the disk, adapter_config.json last; after an error nothing is left that this wrote. Of
    two that write into one folder, one is refused.

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
    Raises InputError for a folder that holds an adapter, a model or one of the files already, or that another run
    writes; StoreError when the disk does not take it.
    """
    folder, embeddings = Path(folder), frozenset(embeddings)
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
    names = [path.name for path in copies] + ([CARD] if texts else [])
    with undone_on_error(folder, "the adapter") as undo:
        _check_empty(folder, names)
        make_folders(folder, undo)
        begun = _Begun(folder, undo)
        _check_empty(folder, names)  # again: a run that was at work may have ended
        write_tensors(begun.claim, tensors, shapes=sizes, dtype=DTYPES[dtype], metadata={"format": "pt"})
        for path in copies:
            copy_file(path, begun.add(path.name))
        for name, text in (texts() if texts else {}).items():
            _check_empty(folder, [name])
            write_text(begun.add(name), text)
        write_text(begun.add(CONFIG), json.dumps(config, indent=2, sort_keys=True) + "\n")
        begun.finish()
        sync_folder(folder)
    return open_adapter(folder)


class _Begun:
    """The files of a folder under names of their own until all are written.

    The weights file is created first, and only where nobody else has begun one: who has it has the folder.
    """

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        self.folder = folder
        self.claim = self._partial(WEIGHTS)
        try:
            self.claim.touch(exist_ok=False)
        except FileExistsError:
            raise taken(self.claim) from None
        self.mine = [self.claim]
        self.names = [WEIGHTS]
        undo.callback(self._remove)

    def add(self, name: str) -> Path:
        """Where to write the file that will have this name."""
        if name in self.names:
            raise InputError(
                str(self.folder), f"holds a {name} already.", "Give another folder, or remove it."
            )
        self.names.append(name)
        self.mine.append(self._partial(name))
        return self.mine[-1]

    def finish(self) -> None:
        """Give every file its name: the weights after those beside them, the one added last at the end."""
        _check_empty(self.folder, self.names)
        _, *beside, last = self.names
        for name in (*beside, WEIGHTS, last):
            self.mine.append(self.folder / name)
            self._partial(name).rename(self.folder / name)
            self.mine.remove(self._partial(name))

    def _partial(self, name: str) -> Path:
        return self.folder / f".{name}.partial"

    def _remove(self) -> None:
        """What this run created, the weights last: until then the folder is its own."""
        for path in sorted(self.mine, key=lambda path: path in (self.claim, self.folder / WEIGHTS)):
            with suppress(OSError):
                path.unlink()


@contextmanager
def undone_on_error(out: Path, what: str) -> Iterator[ExitStack]:
    """What is registered is called, last first, if the block fails; an OSError comes out as a StoreError.

    Args:
        what: 'the adapter', for the sentence.
    """
    with ExitStack() as undo:
        try:
            yield undo
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                str(out), f"{what} could not be written: {reason}.", "Nothing half-written was left."
            ) from error
        undo.pop_all()


def make_folders(folder: Path, undo: ExitStack) -> None:
    """Make a folder and those above it; undone, the new ones that are empty go."""
    missing = []
    for place in (folder, *folder.parents):
        if place.exists():
            break
        missing.append(place)
    for place in reversed(missing):
        try:
            place.mkdir()
        except FileExistsError:  # another run made it
            if not place.is_dir():
                raise
        else:
            undo.callback(_remove_folder, place)


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def taken(partial: Path) -> InputError:
    """What to say of a half-written file or folder that is not this run's."""
    return InputError(
        str(partial), "is there: another run writes it, or one was killed.", "Remove it if none is at work."
    )


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
