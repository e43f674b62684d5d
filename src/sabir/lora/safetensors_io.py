"""The safetensors format, read lazily and written as a stream; no torch is needed to look at a file.

Eight bytes of header length, a JSON header, then the raw little-endian values.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sabir.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library
VALUE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class TensorPlace:
    """Where one tensor lies in a file: its type as written, shape, first byte and size."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


def read_header(path: Path) -> dict[str, TensorPlace]:
    """The tensors of a file by name. Raises InputError for a file that is cut short or no safetensors."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or length > min(size_bytes - 8, MAX_HEADER_BYTES):
                raise ValueError("the header is cut short")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is no mapping")
        places = {
            name: _place(entry, 8 + length, size_bytes)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}.", "") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            str(path),
            f"is not a complete safetensors file ({error}).",
            "Copy or save it again; a download may have stopped half way.",
        ) from error
    return places


def _place(entry: Mapping[str, object], origin: int, size_bytes: int) -> TensorPlace:
    dtype, shape = str(entry["dtype"]), tuple(int(side) for side in entry["shape"])  # type: ignore[attr-defined]
    first, last = (int(offset) for offset in entry["data_offsets"])  # type: ignore[attr-defined]
    if not 0 <= first <= last or origin + last > size_bytes:
        raise ValueError("the values are cut short")
    if dtype in VALUE_BYTES and last - first != VALUE_BYTES[dtype] * math.prod(shape):
        raise ValueError("a shape and its size in bytes disagree")
    return TensorPlace(dtype, shape, origin + first, last - first)


def read_bytes(path: Path, place: TensorPlace) -> bytearray:
    """The raw values of one tensor."""
    values = bytearray(place.size_bytes)
    with path.open("rb") as file:
        file.seek(place.start)
        if file.readinto(values) != place.size_bytes:
            raise InputError(
                str(path), "became shorter while it was read.", "Let nothing write to it during a run."
            )
    return values


def read_tensor(path: Path, place: TensorPlace) -> Tensor:
    """One tensor, in the type it was stored in."""
    import torch

    dtype = getattr(torch, TORCH_NAMES[place.dtype])
    if place.size_bytes == 0:
        return torch.zeros(place.shape, dtype=dtype)
    return torch.frombuffer(read_bytes(path, place), dtype=dtype).reshape(place.shape)


def write_tensors(
    path: Path,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    metadata: Mapping[str, str],
) -> None:
    """Write tensors one by one, in any order; the bytes depend on the values alone.

    The file is on the disk when this returns.

    Args:
        shapes: the shape of every tensor, known before the first value is.
        dtype: F32 or BF16; values are cast once, here.
    """
    import torch

    places: dict[str, int] = {}
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in sorted(shapes):
        size_bytes = VALUE_BYTES[dtype] * math.prod(shapes[name])
        header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [end, end + size_bytes]}
        places[name] = end
        end += size_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            if tuple(tensor.shape) != tuple(shapes[name]):
                raise ValueError(f"{name} is {tuple(tensor.shape)}, announced as {shapes[name]}")
            file.seek(8 + len(text) + places.pop(name))
            values = tensor.detach().cpu().to(getattr(torch, TORCH_NAMES[dtype])).contiguous()
            file.write(values.view(torch.uint8).numpy().data if values.numel() else b"")
        if places:
            raise ValueError(f"never written: {sorted(places)[:3]}")
        file.flush()
        os.fsync(file.fileno())
