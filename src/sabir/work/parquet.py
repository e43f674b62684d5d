"""Parquet files, read batch by batch, and the records in a batch of columns. pyarrow is loaded when rows are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError
from sabir.work.fields import Unreadable, check_names

if TYPE_CHECKING:
    import pyarrow

BATCH = 1024  # rows held as Python values at once


def check_extra(package: str, where: str) -> None:
    """Raise InputError where a package of the extra `hub` is not installed; nothing is imported."""
    if find_spec(package) is None:
        what = (
            "parquet files need pyarrow" if package == "pyarrow" else f"data sets of the hub need {package}"
        )
        raise InputError(where, f"{what}.", "Install it: pip install 'sabir[hub]'.")


def read_parquet(path: Path, columns: Collection[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """What each row of a file holds, with its number from 1.

    Args:
        columns: those whose values are wanted, where they are there; the others have None for a value.
    Raises InputError for a file that cannot be read.
    """
    check_extra("pyarrow", str(path))
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with open(path, "rb") as raw, ParquetFile(raw) as file:
            names = file.schema_arrow.names
            check_names(names, str(path))
            wanted = [name for name in names if name in columns]
            for batch in file.iter_batches(BATCH, columns=wanted):
                for values in records_in(batch):
                    number += 1
                    yield number, dict.fromkeys(names) | values
    except pyarrow.ArrowException as error:
        raise InputError(
            str(path), f"is no parquet file that can be read ({_first_line(error)}).", "Write it again."
        ) from error
    except OSError as error:
        said = error.strerror or _first_line(error)
        raise InputError(str(path), f"cannot be read ({said}).", "Check the path.") from error


def records_in(
    batch: pyarrow.RecordBatch | pyarrow.Table, classes: Mapping[str, Collection[str]] | None = None
) -> list[dict[str, Any]]:
    """The rows of a batch as Python values; `Unreadable` stands for times, bytes and the like.

    Args:
        classes: of columns that hold the number of a class: the names of the classes.
    """
    classes = classes or {}
    values: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if _is_readable(column.type):
            values[name] = column.to_pylist()
        else:
            values[name] = [Unreadable(f"a value of type {column.type}")] * batch.num_rows
    for name in values.keys() & classes.keys():
        known: dict[Any, Any] = {None: None, **dict(enumerate(classes[name]))}
        values[name] = [known.get(value, Unreadable(f"no class ({value})")) for value in values[name]]
    return [{name: column[row] for name, column in values.items()} for row in range(batch.num_rows)]


def _is_readable(kind: pyarrow.DataType) -> bool:
    """Whether values of this type become texts, numbers, lists and mappings; times and bytes do not."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_readable(kind.value_type)
    if types.is_struct(kind):
        return all(_is_readable(kind.field(number).type) for number in range(kind.num_fields))
    plain = (types.is_string, types.is_large_string, types.is_string_view)
    return any(
        of(kind) for of in (*plain, types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
