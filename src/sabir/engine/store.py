"""The one place on disk: a folder per finished step, found by fingerprint.

steps/<fingerprint>/            complete: its record.json was there before the folder got this name
partial/<fingerprint>/          being written, or left by a run that was stopped (checkpoints live here)
jobs/<run>/<number>/            job.json, log.txt, events.jsonl of each worker process
runs/<id>.json                  the ledger, one file a run
cache/<name>.json               facts remembered by size and time of a file; safe to delete
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sabir.errors import StoreError

RECORD = "record.json"
FULL = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """Finished steps by fingerprint. Nothing is created on disk before something is written."""

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()

    def has(self, fingerprint: str) -> bool:
        """True when that step is finished here."""
        return (self.folder(fingerprint) / RECORD).is_file()

    def folder(self, fingerprint: str) -> Path:
        """Where a finished step's output lies."""
        return self.path / "steps" / fingerprint

    def partial(self, fingerprint: str, *, keep: bool) -> Path:
        """The folder to write a step into; what an earlier try left there stays only if `keep`."""
        folder = self.path / "partial" / fingerprint
        if folder.exists() and not keep:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record(self, fingerprint: str) -> dict[str, Any] | None:
        """What is known of a finished step, or None. Raises StoreError when the record is damaged."""
        path = self.folder(fingerprint) / RECORD
        try:
            return read_json(path, "the record of this step", "Delete its folder; the next run redoes it.")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def records(self) -> Iterator[dict[str, Any]]:
        """Records of all finished steps, in no particular order."""
        folder = self.path / "steps"
        if folder.is_dir():
            for entry in os.scandir(folder):
                record = self.record(entry.name)
                if record is not None:
                    yield record

    def commit(self, fingerprint: str, record: Mapping[str, Any]) -> Path:
        """Make a partial folder a finished one: record last, all of it on the disk, then one rename.

        If the step was finished by somebody else meanwhile, theirs stays and ours is dropped. The rename
        itself is not forced to the disk: if the power fails before it gets there, the step is redone.
        """
        partial = self.path / "partial" / fingerprint
        final = self.folder(fingerprint)
        try:
            (partial / RECORD).write_text(_text(record), encoding="utf-8")
        except FileNotFoundError:
            if self.has(fingerprint):
                return final
            raise
        paths = [path for path in (*partial.rglob("*"), partial) if not path.is_symlink()]
        with ThreadPoolExecutor(
            8
        ) as pool:  # at once they share a commit of the file system: 14 -> 3 ms a step
            list(pool.map(_fsync, paths))
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(partial, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self.has(fingerprint):
                shutil.rmtree(partial)
            else:  # a folder that lost its record
                shutil.rmtree(final)
                os.rename(partial, final)
        return final

    def cached(self, name: str) -> dict[str, Any]:
        """A remembered mapping, empty when there is none (or it cannot be read: it is only a cache)."""
        try:
            value = json.loads((self.path / "cache" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a mapping for `cached`."""
        write_atomic(self.path / "cache" / f"{name}.json", value)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one run; a dead run holds nothing. Raises StoreError when another holds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / "lock", "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise StoreError(
                str(self.path), f"cannot be written: {error.strerror}.", "Choose another store, or free it."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise StoreError(
                    str(self.path), f"another run is using this store ({holder}).", "Wait for it, or stop it."
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield


def write_atomic(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, whoever else writes it."""
    text = _text(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def read_json(path: Path, what: str, fix: str) -> dict[str, Any]:
    """The JSON object in a file of the store. Raises StoreError when it is damaged, OSError when absent."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(str(path), f"{what} cannot be read.", fix) from error
    if not isinstance(value, dict):
        raise StoreError(str(path), f"{what} cannot be read.", fix)
    return value


def disk_is_full(error: BaseException) -> bool:
    """True for an OSError that says so, and for what libraries make of one (safetensors, torch)."""
    return (isinstance(error, OSError) and error.errno in FULL) or "No space left on device" in str(error)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
