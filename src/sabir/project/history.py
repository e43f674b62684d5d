"""What was estimated before: kept so that the error of a language can be followed over time.

`estimates/<config>/000007.json` in the store: one file an estimate, never changed once it is there; and `chosen.json`,
what the last backtest chose.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sabir.engine.store import read_json, write_atomic
from sabir.errors import StoreError
from sabir.lora.write import sync_folder

ENTRY_FILE = re.compile(r"(\d{6,})\.json")
FIX_ENTRY = (
    "Put it back from a copy of the store, or remove it: then it is missing from the trend, and no more."
)

CHOSEN_FILE = "chosen.json"
FIX_CHOSEN = "Remove it, or do the backtest again."

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimated:
    """One estimate of one file of texts.

    Args:
        created: when, UTC, ISO 8601.
        release: name of the release it is about; None where there was none.
        model: its name in the project, "merged/ties"; `fingerprint` of its folder in the store.
        production: digest of the texts.
        estimator: its name in the catalogue.
        members: as in the document: `kind`, `names`, `n`.
        estimates: rows as in the document.
        streams: how the bets against each budget stand, see `alarms`.
    """

    created: str
    release: str | None
    model: str
    fingerprint: str
    production: str
    estimator: str
    members: Mapping[str, Any] = field(default_factory=dict)
    estimates: tuple[Row, ...] = ()
    streams: tuple[Row, ...] = ()


class History:
    """The estimates of a store. They are only ever added; of two people at once, each gets a number.

    Every method reads the files anew. Raises StoreError for one that cannot be read or written.

    Args:
        store: the store's folder.
        config: name of the config whose estimates they are, see `releases.Log`; several may share a store.
    """

    def __init__(self, store: Path | str, config: str):
        self.folder = Path(store) / "estimates" / config

    def entries(self) -> tuple[Estimated, ...]:
        """All there were, the oldest first."""
        return tuple(_read(path) for _, path in self._files())

    def add(self, estimated: Estimated) -> None:
        """Write one down, after those there are.

        A hard link takes a number that nobody has, with the whole file, on NFS too.
        """
        aside = self.folder / f".{uuid.uuid4().hex}"
        try:
            write_atomic(aside, asdict(estimated))
            while True:
                number = max((number for number, _ in self._files()), default=0) + 1
                try:
                    os.link(aside, self.folder / f"{number:06}.json")
                except FileExistsError:
                    if aside.stat().st_nlink == 1:  # else it was ours: NFS asked twice, and said so
                        continue
                sync_folder(self.folder)
                return
        except OSError as error:
            raise StoreError(
                str(self.folder),
                f"the estimate could not be kept: {error.strerror}.",
                "It was shown all the same.",
            ) from error
        finally:
            with suppress(OSError):
                aside.unlink()

    def earlier(self, than: Estimated) -> list[dict[str, Any]]:
        """Rows of the estimates before this one, for a trend: the oldest first, with `created`, `release` and `model`.

        Nothing counts twice: a file that was estimated again for the same model stands there as it was estimated
        last, and so does a window of a file that grew since. What `than` itself says is left out. Of other estimators
        only rows that stand on labels are taken: others cannot be held against each other.
        """
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for entry in self._last_of_each_file(than):
            for row in entry.estimates:
                if not _is_alike(entry, than) and not row["n_labelled"]:
                    continue
                key = _key(row, entry)
                found.pop(key, None)  # a new one goes to the end
                found[key] = {
                    **row,
                    "created": entry.created,
                    "release": entry.release,
                    "model": entry.model,
                }
        for row in than.estimates:
            found.pop(_key(row, than), None)
        return list(found.values())

    def streams(self, than: Estimated) -> tuple[Row, ...]:
        """How the bets stand: after the newest estimate of the same model."""
        found = [entry.streams for entry in self.entries() if entry.fingerprint == than.fingerprint]
        return found[-1] if found else ()

    def chosen(self) -> dict[str, str]:
        """The `estimator` and kind of `members` that the last backtest chose; empty where there was none."""
        path = self.folder / CHOSEN_FILE
        return read_json(path, "the choice of the last backtest", FIX_CHOSEN) if path.is_file() else {}

    def choose(self, estimator: str, members: str) -> None:
        """Use these from now on."""
        write_atomic(self.folder / CHOSEN_FILE, {"estimator": estimator, "members": members})

    def _last_of_each_file(self, than: Estimated) -> list[Estimated]:
        """The entries, of one model and file only the newest that has something to say beside `than`."""
        last: dict[tuple[str, str], Estimated] = {}
        for entry in self.entries():
            last.pop((entry.fingerprint, entry.production), None)
            last[entry.fingerprint, entry.production] = entry
        last.pop((than.fingerprint, than.production), None)
        return [entry for entry in last.values() if _is_earlier(entry, than)]

    def _files(self) -> list[tuple[int, Path]]:
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            (int(match[1]), self.folder / name) for name in names if (match := ENTRY_FILE.fullmatch(name))
        )


def _is_earlier(entry: Estimated, than: Estimated) -> bool:
    """Whether an estimate belongs to the trend of another; one of a candidate is none of the releases' in use."""
    return None not in (entry.release, than.release) or entry.fingerprint == than.fingerprint


def _is_alike(entry: Estimated, than: Estimated) -> bool:
    """Whether two estimates can be held against each other: by one estimator, over members of one kind."""
    kinds = [one.members.get("kind") for one in (entry, than)]
    return entry.estimator == than.estimator and kinds[0] == kinds[1]


def _key(row: Row, entry: Estimated) -> tuple[Any, ...]:
    """By what a row is the same as another: its segment and model, and where texts were not parted by time the file."""
    window = row["window"]
    timed = isinstance(window, str) and "-" in window
    return row["language"], row["domain"], window, entry.fingerprint, "" if timed else entry.production


def _read(path: Path) -> Estimated:
    what = "this estimate"
    try:
        value = read_json(path, what, FIX_ENTRY)
        known = {each.name for each in fields(Estimated)} & value.keys()
        given: dict[str, Any] = {key: value[key] for key in known}
        given["estimates"], given["streams"] = tuple(value["estimates"]), tuple(value.get("streams", ()))
        found = Estimated(**given)
    except OSError as error:
        raise StoreError(
            str(path), f"{what} cannot be read: {error.strerror}.", "See who may read it."
        ) from error
    except (KeyError, TypeError) as error:
        raise StoreError(str(path), f"{what} cannot be read.", FIX_ENTRY) from error
    return found
