"""Deltas added to a base model: a complete model folder, streamed, never the whole model in memory."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError, StoreError
from sabir.lora.checks import INDEX, base_name, is_transposed, read_index, weight_files
from sabir.lora.safetensors_io import (
    BLOCK_BYTES,
    TORCH_NAMES,
    VALUE_BYTES,
    TensorPlace,
    cast,
    is_finite,
    lay_out,
    raw,
    read_blocks,
    read_header,
    read_metadata,
    write_at,
)
from sabir.lora.write import (
    CARD,
    DTYPES,
    copy_file,
    make_folders,
    sync_folder,
    taken,
    undone_on_error,
    write_text,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MODEL_CONFIG = "config.json"
DTYPE_FIELDS = ("dtype", "torch_dtype")  # transformers 5 writes the first, 4 the second
SPARE_BYTES = 64 << 20
# Files of a base folder that are not taken over: weights in any format, and what speaks of the base alone.
WEIGHTS_ENDINGS = (
    ".bin", ".ckpt", ".gguf", ".h5", ".index.json", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors"
)  # fmt: skip
FIX_BASE = "Give a delta of this base model."


@dataclass(frozen=True)
class Piece:
    """One tensor of the base, and its place in the folded model.

    Args:
        source, before: the base's file, and where the tensor lies in it.
        descriptor, after: the open file it goes to, and where.
    """

    source: Path
    before: TensorPlace
    descriptor: int
    after: TensorPlace


def fold(
    base_folder: str | Path,
    out: str | Path,
    deltas: Iterable[tuple[str, Tensor]],
    *,
    dtype: str | None = None,
    saved: Iterable[tuple[str, Tensor]] = (),
    embeddings: Iterable[str] = (),
    fan_in_fan_out: bool = False,
    texts: Callable[[], Mapping[str, str]] | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    saved_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Write the base model with deltas added to it: same shards, same index, tokenizer and all.

    Each sum is taken in float32 (in float64 for a base of that type) and cast once. Beside one delta, a few
    megabytes are held. The folder appears under its name when all is on the disk; after an error there is
    nothing.

    Args:
        base_folder: a model folder with config.json and safetensors weights.
        out: a folder that does not exist, or is empty.
        deltas: (module, (O, I) float32) pairs, in any order, each module once.
        dtype: float32, bfloat16 or float16; the base's own types when not given.
        saved: (name in the base, values) that stand in the base's place; asked for after all deltas.
        embeddings: the modules whose delta is (dimensions, vocabulary), the transpose of the base weight.
        fan_in_fan_out: whether the base stores linear weights as (I, O).
        texts: gives more files of the folder by name, README.md for one; called when all deltas were written.
        shapes, saved_shapes: of all deltas, by module, and of all of `saved`, by name; then what does not fit is
            refused before anything is asked for.
    Raises InputError for a base or a delta that cannot be folded, StoreError when the disk does not take it.
    """
    base, out = Path(base_folder), Path(out).absolute()
    with undone_on_error(out, "the model") as undo:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise InputError(str(out), "exists already.", "Give another folder, or remove this one.")
        if dtype is not None and dtype not in DTYPES:
            raise InputError(str(out), f"no such dtype: {dtype!r}.", f"Known are: {', '.join(DTYPES)}.")
        config = _read_model_config(base)
        plans = {path: _plan(path, dtype) for path in weight_files(base)}
        index = read_index(base / INDEX) if (base / INDEX).is_file() else None
        model = Model(base, config, frozenset(embeddings), fan_in_fan_out)
        names = {name: place.shape for path in plans for name, place in read_header(path).items()}
        for module, shape in (shapes or {}).items():
            model.weight_of(module, shape, names)
        for name, whole in (saved_shapes or {}).items():
            _saved_name(model, name, tuple(whole), names)
        _check_space(out, sum(size for _, _, size in plans.values()))
        partial = out.parent / f".{out.name}.partial"
        make_folders(out.parent, undo)
        try:
            partial.mkdir()
        except FileExistsError:
            raise taken(partial) from None
        undo.callback(shutil.rmtree, partial, ignore_errors=True)
        with ExitStack() as files:
            pieces = _open_pieces(plans, partial, files)
            for path in _beside(base):
                copy_file(path, partial / path.name)
            rest = _write_changed(model, pieces, names, deltas, saved, shapes)
            for name in rest:
                _copy(pieces[name], str(base))
            for name, text in (texts() if texts else {}).items():
                write_text(partial / name, text)
            for descriptor in {piece.descriptor for piece in pieces.values()}:
                os.fsync(descriptor)
        if index is not None:
            write_text(partial / INDEX, _index(index, pieces))
        write_text(partial / MODEL_CONFIG, json.dumps(_with_dtype(config, dtype), indent=2) + "\n")
        sync_folder(partial)
        partial.rename(out)
        sync_folder(out.parent)


@dataclass(frozen=True)
class Model:
    """What must be known of a base to add a delta to it."""

    folder: Path
    config: Mapping[str, Any]
    embeddings: frozenset[str]
    fan_in_fan_out: bool

    def weight_of(
        self, module: str, shape: tuple[int, int], names: Mapping[str, tuple[int, ...]]
    ) -> tuple[str, bool]:
        """The base tensor a module's delta of that shape is added to, and whether the delta is transposed.

        Args:
            names: shape of every tensor of the base.
        """
        if _ties(self.config, names) and (module in self.embeddings or module.endswith("lm_head")):
            raise InputError(
                str(self.folder),
                f"module {module!r} cannot be folded: the base ties its input embedding and its output head to one "
                "matrix, so a delta of one would change the other.",
                "Write an adapter instead.",
            )
        weight = base_name(f"{module}.weight", names)
        if weight is None:
            raise InputError(str(self.folder), f"module {module!r} is not in the base model.", FIX_BASE)
        embedding = module in self.embeddings
        turned = is_transposed(shape, names[weight], embedding=embedding, fan_in_fan_out=self.fan_in_fan_out)
        if turned is None:
            theirs = names[weight]
            raise InputError(
                str(self.folder), f"module {module!r} is {theirs} in the base, its delta {shape}.", FIX_BASE
            )
        return weight, turned


def _read_model_config(base: Path) -> dict[str, Any]:
    path = base / MODEL_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no mapping")
    except OSError as error:
        raise InputError(str(base), f"has no readable {MODEL_CONFIG}.", "Give a model's folder.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"is not a model's configuration ({error}).", "Save it again.") from error
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, Mapping) else quantized
        raise InputError(
            str(base),
            f"is quantized ({method}), and a delta cannot be added to quantized weights.",
            "Give the model it was quantized from, or write an adapter.",
        )
    return config


def _ties(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether one matrix is both the input embedding and the output head."""
    if "Classification" in str(config.get("architectures")):  # no output head to tie to
        return False
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    said = [part["tie_word_embeddings"] for part in parts if part.get("tie_word_embeddings") is not None]
    # transformers 4 left the field out where it was a class's own default; then the head's absence tells
    return (
        any(said)
        if said
        else not any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in names)
    )


def _plan(path: Path, dtype: str | None) -> tuple[bytes, dict[str, TensorPlace], int]:
    """The header of a folded shard, where its tensors go, and its size: the base's order, perhaps other types."""
    tensors = read_header(path)
    entries = []
    for name in sorted(tensors, key=lambda name: (tensors[name].start, name)):
        place = tensors[name]
        kind, size_bytes = place.dtype, place.size_bytes
        if dtype is not None and kind in VALUE_BYTES:
            size_bytes = size_bytes // VALUE_BYTES[kind] * VALUE_BYTES[DTYPES[dtype]]
            kind = DTYPES[dtype]
        entries.append((name, kind, place.shape, size_bytes))
    return lay_out(entries, read_metadata(path))


def _check_space(out: Path, size_bytes: int) -> None:
    folder = next(parent for parent in out.parents if parent.exists())
    free, needed = shutil.disk_usage(folder).free, size_bytes + SPARE_BYTES
    if needed > free:
        raise StoreError(
            str(out),
            f"the folded model needs {math.ceil(needed / 1e6):,} MB of free space, and {free // 10**6:,} MB are free.",
            "Free some space, or give a folder on another disk.",
        )


def _open_pieces(
    plans: Mapping[Path, tuple[bytes, dict[str, TensorPlace], int]], folder: Path, files: ExitStack
) -> dict[str, Piece]:
    """Every shard created in its full size with its header, and where each tensor comes from and goes to."""
    pieces = {}
    for path, (head, places, size_bytes) in plans.items():
        file = files.enter_context((folder / path.name).open("wb", buffering=0))
        file.truncate(size_bytes)
        write_at(file.fileno(), head, 0)
        before = read_header(path)
        for name, after in places.items():
            pieces[name] = Piece(path, before[name], file.fileno(), after)
    return pieces


def _beside(base: Path) -> Iterator[Path]:
    """The files of a base folder that belong to the folded model too: tokenizer, generation config, licence."""
    for path in sorted(base.iterdir()):
        own = path.name in (MODEL_CONFIG, CARD) or path.name.startswith(".")
        if path.is_file() and not own and not path.name.endswith(WEIGHTS_ENDINGS):
            yield path


def _write_changed(
    model: Model,
    pieces: Mapping[str, Piece],
    names: Mapping[str, tuple[int, ...]],
    deltas: Iterable[tuple[str, Tensor]],
    saved: Iterable[tuple[str, Tensor]],
    shapes: Mapping[str, tuple[int, int]] | None,
) -> list[str]:
    """Add the deltas and put in the saved tensors; the names of the tensors that stay as they are."""
    rest = dict.fromkeys(names)
    for module, delta in deltas:
        weight, turned = model.weight_of(module, (delta.shape[0], delta.shape[1]), names)
        if weight not in rest:
            raise ValueError(f"{module} came twice")
        del rest[weight]
        _add(pieces[weight], delta.T if turned else delta, f"{model.folder}: {weight}")
        del delta  # not held while the next one is computed
    if shapes is not None:
        missing = sorted(
            module for module in shapes if model.weight_of(module, shapes[module], names)[0] in rest
        )
        if missing:
            raise ValueError(f"never came: {missing[:3]}")
    for name, values in saved:
        weight = _saved_name(model, name, tuple(values.shape), names)
        del rest[weight]
        after = pieces[weight].after
        kind = _torch_type(after.dtype)
        write_at(
            pieces[weight].descriptor,
            raw(cast(values.detach().cpu(), kind, f"{model.folder}: {weight}").contiguous()),
            after.start,
        )
    return list(rest)


def _saved_name(model: Model, name: str, shape: tuple[int, ...], names: Mapping[str, tuple[int, ...]]) -> str:
    weight = base_name(name, names)
    if weight is None:
        raise InputError(
            str(model.folder),
            f"{name!r} of modules_to_save is not in the base model, which lacks this head.",
            "Write an adapter instead, or give the base with that head.",
        )
    if names[weight] != shape:
        raise InputError(
            str(model.folder),
            f"{name!r} of modules_to_save is {shape}, in the base {names[weight]}.",
            FIX_BASE,
        )
    if _ties(model.config, names) and ("embed" in name or name.endswith(("wte.weight", "lm_head.weight"))):
        raise InputError(
            str(model.folder),
            f"{name!r} of modules_to_save cannot be folded: the base ties its input embedding and its output head.",
            "Write an adapter instead.",
        )
    return weight


def _torch_type(dtype: str) -> torch.dtype:
    import torch

    kind: torch.dtype = getattr(torch, TORCH_NAMES[dtype])
    return kind


def _add(piece: Piece, delta: Tensor, where: str) -> None:
    """base + delta in float32 or wider, cast once and written; a block of rows at a time."""
    import torch

    if piece.before.dtype not in VALUE_BYTES:
        raise InputError(
            where,
            f"is stored as {piece.before.dtype}, to which nothing can be added.",
            "Give it unquantized.",
        )
    target, size = _torch_type(piece.after.dtype), VALUE_BYTES[piece.after.dtype]
    wide = torch.promote_types(_torch_type(piece.before.dtype), torch.float32)
    columns = delta.shape[1]
    rows = max(1, BLOCK_BYTES // max(1, columns * VALUE_BYTES[piece.before.dtype]))
    step = rows * columns * VALUE_BYTES[piece.before.dtype]
    row = 0
    for block in read_blocks(piece.source, piece.before, block_bytes=max(step, 1)):
        values = torch.frombuffer(block, dtype=_torch_type(piece.before.dtype)).reshape(-1, columns)
        total = values.to(wide).add_(delta[row : row + values.shape[0]].cpu())  # the block is ours to change
        if not is_finite(total):
            raise InputError(
                where, "holds NaN or infinite values once the delta is added.", "Look at the adapters."
            )
        start = piece.after.start + row * columns * size
        write_at(piece.descriptor, raw(cast(total, target, where).contiguous()), start)
        row += values.shape[0]


def _copy(piece: Piece, where: str) -> None:
    """A base tensor as it is, or in the other type."""
    import torch

    start = piece.after.start
    for block in read_blocks(piece.source, piece.before):
        if piece.before.dtype != piece.after.dtype:
            values = torch.frombuffer(block, dtype=_torch_type(piece.before.dtype))
            kind = _torch_type(piece.after.dtype)
            # what is infinite in the base stays so
            block = raw(cast(values, kind, where) if is_finite(values) else values.to(kind))
        write_at(piece.descriptor, block, start)
        start += len(block)


def _index(index: Mapping[str, Any], pieces: Mapping[str, Piece]) -> str:
    size_bytes = sum(piece.after.size_bytes for piece in pieces.values())
    metadata = {**(index.get("metadata") or {}), "total_size": size_bytes}
    return json.dumps({**index, "metadata": metadata}, indent=2, sort_keys=True) + "\n"


def _with_dtype(config: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
    """The model's configuration, naming the type its weights now have, in its parts too."""
    if dtype is None:
        return dict(config)
    named = {
        key: dtype
        if key in DTYPE_FIELDS
        else _with_dtype(value, dtype)
        if isinstance(value, Mapping) and set(value) & set(DTYPE_FIELDS)
        else value
        for key, value in config.items()
    }
    return named if set(named) & set(DTYPE_FIELDS) else {**named, DTYPE_FIELDS[0]: dtype}
