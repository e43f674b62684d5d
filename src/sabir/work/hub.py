"""Data sets of the Hugging Face hub, or of a folder in the form of one; `datasets` is loaded when rows are read.

Source: https://huggingface.co/docs/datasets/loading. Code of a data set's own is never run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError
from sabir.work.parquet import BATCH, check_extra, records_in

# our split -> what data sets call it, the first that is there
USUAL = {"train": ("train",), "valid": ("validation", "valid", "dev", "val"), "test": ("test",)}
PATIENCE_S = 10.0  # for the hub to say which commit is today's
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubData:
    """One data set: "org/name", or the absolute path of a folder of data files.

    `revision` is a branch or commit (of what is read, always a commit; None of a folder). `splits` are the
    data set's own names as the config gives them, and `only` are the splits that are read.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ("train", "valid", "test")

    @property
    def folder(self) -> Path | None:
        """The folder of the data set; None of one that lies on the hub."""
        return Path(self.name) if Path(self.name).is_absolute() else None

    @property
    def is_pinned(self) -> bool:
        """Whether it can be read as it is: a folder, or a commit."""
        return self.folder is not None or bool(self.revision and _COMMIT.fullmatch(self.revision))

    @property
    def files(self) -> list[Path]:
        """The files of its folder, but for hidden ones."""
        if self.folder is None:
            return []
        inside = (path.relative_to(self.folder) for path in self.folder.rglob("*"))
        shown = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
        return sorted(self.folder / path for path in shown if (self.folder / path).is_file())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> HubData:
        return cls(**{**value, "only": tuple(value["only"])})


def pinned(data: HubData, known: Mapping[str, str]) -> HubData:
    """The data set at one commit: the hub's today, or without a network the last one known, or the one in the
    local cache. Rows are not fetched.

    Args:
        known: commits by `asked_as`, of earlier calls.
    Raises InputError when nobody knows.
    """
    if data.is_pinned:
        return data
    commit = _asked(data) or known.get(asked_as(data)) or _cached(data)
    if commit is None:
        raise InputError(
            data.name,
            "the hub could not be asked for this data set, and it is not in the local cache.",
            "Check the name, the network and your access, or give a folder.",
        )
    return replace(data, revision=commit)


def asked_as(data: HubData) -> str:
    """What a commit is remembered by: "org/name@main"."""
    return f"{data.name}@{data.revision or 'main'}"


def _asked(data: HubData) -> str | None:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return HfApi().dataset_info(data.name, revision=data.revision, timeout=PATIENCE_S).sha
    except Exception:  # the hub library raises a dozen kinds; all mean: not to be had from there
        return None


def _cached(data: HubData) -> str | None:
    """The commit in the local cache: of the branch, else of what was fetched last."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"datasets--{data.name.replace('/', '--')}")
    branch = folder / "refs" / (data.revision or "main")
    if branch.is_file():
        return branch.read_text(encoding="ascii").strip()
    fetched = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime_ns)
    return fetched[-1].name if fetched and data.revision is None else None


def read_hub(
    data: HubData, columns: Collection[str], *, where: str
) -> Iterator[tuple[str, str, Iterable[tuple[str, Mapping[str, Any]]]]]:
    """(split, its name, its records with their places) of each split of a data set that is at one commit.

    Without a split for `valid` there is none: a tenth of train is taken elsewhere.

    Args:
        columns: those whose values are wanted; the others have None for a value.
        where: the key of the config, for errors.
    Raises InputError when it cannot be had, and for a split that is not there.
    """
    builder = _builder(data, where)
    for split, theirs in _chosen(data, list(builder.info.splits or ()), where).items():
        name = f"{data.name}, split {theirs}"
        yield split, name, _records(builder.as_dataset(theirs), columns, name)


def _builder(data: HubData, where: str) -> Any:
    """The data set, made ready on the disk."""
    check_extra("datasets", where)
    import datasets

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset_builder(data.name, data.subset, revision=data.revision)
        found.download_and_prepare()
    except Exception as error:  # some dozen kinds, of three libraries, and each says what it lacks
        said = " ".join((str(error) or type(error).__name__).split())
        raise InputError(
            where,
            f"the data set {data.name!r} could not be loaded ({said[:400].rstrip('.')}).",
            "Check name, subset: and revision:, the network and your access.",
        ) from error
    if data.revision and _COMMIT.fullmatch(str(found.hash)) and found.hash != data.revision:
        raise InputError(  # without a network any commit in the cache is taken for the one that was asked for
            where,
            f"the local cache has commit {found.hash[:12]} of {data.name!r}, and {data.revision[:12]} is asked for.",
            "Run again with a network, or name that commit: revision: ....",
        )
    return found


def _chosen(data: HubData, there: list[str], where: str) -> dict[str, str]:
    """Our splits -> the data set's. Raises InputError for one that is not there, and for one that is two of ours."""
    chosen = {}
    for split in data.only:
        written = data.splits.get(split)
        free = [name for name in USUAL[split] if name in there and name not in data.splits.values()]
        if written in there or (written is None and free):
            chosen[split] = written or free[0]
        elif written is not None or split != "valid":
            wanted = written or USUAL[split][0]
            raise InputError(
                f"{where}.{split}",
                f"{data.name!r} has no split {wanted!r}; it has {', '.join(there)}.",
                f"Name the one to take: {split}: ....{did_you_mean(wanted, there)}",
            )
    return chosen


def _records(dataset: Any, columns: Collection[str], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = dataset.column_names
    classes = {
        column: kind.names for column, kind in dataset.features.items() if type(kind).__name__ == "ClassLabel"
    }
    wanted = dataset.select_columns([column for column in names if column in columns]).with_format("arrow")
    number = 0
    for batch in wanted.iter(BATCH):
        for values in records_in(batch, classes):
            number += 1
            yield f"{name}, row {number}", dict.fromkeys(names) | values
