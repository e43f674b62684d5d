"""The safetensors format, read lazily and written as a stream; no torch is needed to look at a file.

Eight bytes of header length, a JSON header, then the raw little-endian values. Nothing is mapped: pages of a
mapped file count as memory of the process. Every call opens its own file, so threads may read at once.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sabir.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library
BLOCK_BYTES = 4 << 20  # what is read at a time where a whole tensor is not needed
VALUE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorPlace:
    """Where one tensor lies in a file: its type as written, shape, first byte and size."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


def read_header(path: Path) -> dict[str, TensorPlace]:
    """The tensors of a file by name. Raises InputError for a file that is cut short or no safetensors."""
    return _parse(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """The strings a file carries about itself, often {"format": "pt"}."""
    return _parse(path)[1]


def _parse(path: Path) -> tuple[dict[str, TensorPlace], dict[str, str]]:
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or length > min(size_bytes - 8, MAX_HEADER_BYTES):
                raise ValueError("the header is cut short")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is no mapping")
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict):
            raise ValueError("the metadata is no mapping")
        return {name: _place(entry, 8 + length, size_bytes) for name, entry in header.items()}, metadata
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}.", "") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            str(path),
            f"is not a complete safetensors file ({error}).",
            "Copy or save it again; a download may have stopped half way.",
        ) from error


def _place(entry: Mapping[str, object], origin: int, size_bytes: int) -> TensorPlace:
    dtype, shape = str(entry["dtype"]), tuple(int(side) for side in entry["shape"])  # type: ignore[attr-defined]
    first, last = (int(offset) for offset in entry["data_offsets"])  # type: ignore[attr-defined]
    if not all(0 <= side < 1 << 63 for side in shape):
        raise ValueError("a shape is none")
    if not 0 <= first <= last or origin + last > size_bytes:
        raise ValueError("the values are cut short")
    if dtype in VALUE_BYTES and last - first != VALUE_BYTES[dtype] * math.prod(shape):
        raise ValueError("a shape and its size in bytes disagree")
    return TensorPlace(dtype, shape, origin + first, last - first)


def read_blocks(path: Path, place: TensorPlace, *, block_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """The raw values of one tensor, a few megabytes at a time; a block is gone when the next one is asked for.

    Args:
        block_bytes: size of a block; the last one may be smaller.
    """
    buffer = memoryview(bytearray(min(block_bytes, place.size_bytes)))
    with path.open("rb", buffering=0) as file:
        for done in range(0, place.size_bytes, block_bytes):
            block = buffer[: min(block_bytes, place.size_bytes - done)]
            _fill(file.fileno(), block, place.start + done, path)
            yield block


def read_tensor(path: Path, place: TensorPlace) -> Tensor:
    """One tensor, in the type it was stored in."""
    import torch

    values = torch.empty(place.shape, dtype=getattr(torch, TORCH_NAMES[place.dtype]))
    if place.size_bytes:
        with path.open("rb", buffering=0) as file:
            _fill(file.fileno(), raw(values), place.start, path)
    return values


def _fill(descriptor: int, buffer: memoryview, start: int, path: Path) -> None:
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], start + done)
        if not got:
            raise InputError(
                str(path), "became shorter while it was read.", "Let nothing write to it during a run."
            )
        done += got


def raw(values: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, shared with it."""
    import torch

    return values.reshape(-1).view(torch.uint8).numpy().data


def lay_out(
    tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, TensorPlace], int]:
    """A header for tensors that follow each other: its bytes, where each tensor goes, the file's whole size.

    Args:
        tensors: (name, type as written, shape, size in bytes), in the order they lie in.
    """
    header: dict[str, object] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    spans, end = [], 0
    for name, dtype, shape, size_bytes in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size_bytes]}
        spans.append((name, dtype, shape, end, size_bytes))
        end += size_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    places = {
        name: TensorPlace(dtype, tuple(shape), len(head) + start, size_bytes)
        for name, dtype, shape, start, size_bytes in spans
    }
    return head, places, len(head) + end


def write_at(descriptor: int, values: memoryview | bytes, start: int) -> None:
    """Write all of these bytes at a place of a file."""
    rest = memoryview(values)
    while len(rest):
        done = os.pwrite(descriptor, rest, start)
        rest, start = rest[done:], start + done


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
        tensors: each name of `shapes` once; one with fewer rows than announced is filled up with rows of zeros,
            which take no time and, on most file systems, no space.
        shapes: the shape of every tensor, known before the first value is.
        dtype: F32, BF16 or F16; values are cast once, here.
    Raises InputError for a value that is infinite or NaN, if only after the cast.
    """
    import torch

    head, places, size_bytes = lay_out(
        (
            (name, dtype, shapes[name], VALUE_BYTES[dtype] * math.prod(shapes[name]))
            for name in sorted(shapes)
        ),
        metadata,
    )
    with path.open("wb", buffering=0) as file:
        file.truncate(size_bytes)
        write_at(file.fileno(), head, 0)
        for name, tensor in tensors:
            place = places.pop(name)
            if (
                tensor.ndim != len(place.shape)
                or tensor.shape[1:] != place.shape[1:]
                or _longer(tensor, place)
            ):
                raise ValueError(f"{name} is {tuple(tensor.shape)}, announced as {place.shape}")
            values = cast(tensor.detach().cpu(), getattr(torch, TORCH_NAMES[dtype]), f"{path.parent}: {name}")
            write_at(file.fileno(), raw(values.contiguous()), place.start)
        if places:
            raise ValueError(f"never written: {sorted(places)[:3]}")
        os.fsync(file.fileno())


def _longer(tensor: Tensor, place: TensorPlace) -> bool:
    return tensor.ndim > 0 and tensor.shape[0] > place.shape[0]


def cast(values: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    """Values in another type, rounded once. Raises InputError where what comes out is infinite or NaN."""
    import torch

    result = values.to(dtype)
    if is_finite(result):
        return result
    if dtype == torch.float16 and is_finite(values):
        raise InputError(where, "holds values too large for float16.", "Write it as bfloat16 or float32.")
    raise InputError(
        where,
        "holds infinite or NaN values: the merge is too large for float32.",
        "Lower the scale or the weights.",
    )


def is_finite(values: Tensor) -> bool:
    """Whether there is no NaN and no infinity, in one pass and without a copy."""
    import torch

    if not values.numel():
        return True
    smallest, largest = torch.aminmax(values)  # NaN comes through
    return math.isfinite(smallest) and math.isfinite(largest)
