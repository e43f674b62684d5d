"""The one place on disk: a folder per finished step, found by fingerprint.

format.json                     the number of this layout; a newer one is refused
steps/<fingerprint>/            complete: its record.json was there before the folder got this name
partial/<fingerprint>~<token>/  one attempt at a step (the token names run and job), being written or left by
                                a run that was stopped; checkpoints live here
jobs/<run>/<number>/            job.json, log.txt, events.jsonl of each worker process
runs/<id>.json                  the ledger, one file a run
owners/<name>.json              living processes that may hold leases (see `sabir.engine.leases`)
leases/<what>/<owner>           what one of them holds: a step by its fingerprint, or a section by its name
damaged/<fingerprint>/          steps that `sabir.engine.care` found damaged and took out of the way
answers/<model>/<digest>.json   what a model answered before, by content; safe to delete
cache/<name>.json               facts remembered by size and time of a file; safe to delete
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sabir.errors import StoreError

FORMAT = 1
RECORD = "record.json"
ANSWERS = "answers"
UNSEALED = "0" * 64
FULL = (errno.ENOSPC, errno.EDQUOT)
THREADS = 8  # at once, forcing files to the disk shares a commit of the file system: 14 -> 3 ms a step


class Store:
    """Finished steps by fingerprint. Nothing is created on disk before something is written."""

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()
        self._stamped = False

    # --- what is there -----------------------------------------------------------------------------------

    def check_format(self) -> None:
        """Raises StoreError when this store was written by a newer sabir, in a layout unknown here."""
        path = self.path / "format.json"
        try:
            found = read_json(
                path, "the format of this store", "Delete that file if no newer sabir uses this store."
            )
        except (FileNotFoundError, NotADirectoryError):
            return
        if found.get("format") not in range(1, FORMAT + 1):
            raise StoreError(
                str(self.path),
                f"has the format {found.get('format')!r}, and this sabir reads formats up to {FORMAT}.",
                "It was written by a newer one: upgrade sabir, or use another store.",
            )

    def has(self, fingerprint: str) -> bool:
        """True when that step is finished here."""
        return os.path.isfile(self._record_path(fingerprint))

    def fingerprints(self) -> set[str]:
        """All folders of finished steps, by one look at the disk; one that lost its record is among them."""
        try:
            with os.scandir(self.path / "steps") as entries:
                return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def folder(self, fingerprint: str) -> Path:
        """Where a finished step's output lies."""
        return self.path / "steps" / fingerprint

    def record(self, fingerprint: str) -> dict[str, Any] | None:
        """What is known of a finished step, or None. Raises StoreError when the record is damaged."""
        path = self._record_path(fingerprint)
        try:
            return read_json(path, "the record of this step", "Delete its folder; the next run redoes it.")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def records(self) -> Iterator[dict[str, Any]]:
        """Records of all finished steps, in no particular order. Raises StoreError when one is damaged."""
        for fingerprint in self.fingerprints():
            record = self.record(fingerprint)
            if record is not None:
                yield record

    # --- one attempt at a step ---------------------------------------------------------------------------

    def partial(self, fingerprint: str, *, token: str, keep: bool) -> Path:
        """The folder for one attempt at a step; with `keep` it goes on from the newest attempt's.

        That folder gets our name, so that whoever still writes there (a process believed dead) fails and
        never mixes with us; what other attempts left is removed.
        """
        self.prepare()
        folder = self._attempt(fingerprint, token)
        folder.parent.mkdir(exist_ok=True)
        others = sorted(  # a token starts with the id of its run, and these sort by time
            path for path in folder.parent.glob(f"{fingerprint}~*") if path != folder
        )
        if keep and others and not folder.exists():
            self._move(others.pop(), folder)
        for path in (*others, *(() if keep else (folder,))):
            self.discard(path)
        folder.mkdir(exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)  # of one that died as it was about to commit
        return folder

    def commit(self, fingerprint: str, token: str, record: Mapping[str, Any]) -> Path:
        """Make an attempt's folder a finished one: record last, all of it on the disk, then one rename.

        The record gets `files` (name -> size_bytes and sha256 of everything beside it) and `seal`, the
        digest of the record itself. If the step was finished by somebody else meanwhile, theirs
        stays and ours is dropped. The rename itself is not forced to the disk: if the power fails before it
        gets there, the step is redone.
        """
        partial, final = self._attempt(fingerprint, token), self.folder(fingerprint)
        if self.has(fingerprint):
            self.discard(partial)
            return final
        try:
            self._complete(partial, record)
            self._place(partial, final)
        except FileNotFoundError:  # a later attempt took our folder; it may have finished already
            if not self.has(fingerprint):
                raise
        return final

    def _place(self, partial: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(partial, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self.has(final.name):
                self.discard(partial)
            else:  # a folder that lost its record
                self.discard(final)
                os.rename(partial, final)

    def discard(self, folder: Path) -> None:
        """Remove a folder of the store: out of its place at once and whole, then file by file."""
        aside = self.path / "partial" / f".gone-{uuid.uuid4().hex}"
        aside.parent.mkdir(exist_ok=True)
        if self._move(folder, aside):
            shutil.rmtree(aside, ignore_errors=True)  # what is left, the next clean-up finds

    def _complete(self, folder: Path, record: Mapping[str, Any]) -> None:
        names, folders = _walk(folder)
        with ThreadPoolExecutor(THREADS) as pool:
            digests = pool.map(_sized_digest, [os.path.join(folder, name) for name in names])
            files = {
                name: {"size_bytes": size_bytes, "sha256": sha256}
                for name, (size_bytes, sha256) in zip(names, digests, strict=True)
            }
            text = sealed({**record, "files": files})
            (folder / RECORD).unlink(missing_ok=True)
            with open(
                folder / RECORD, "x", encoding="utf-8"
            ) as file:  # a file of our own, whoever has its like
                file.write(text)
            paths = [*names, RECORD, *folders]
            list(pool.map(_fsync, [os.path.join(folder, path) for path in paths]))

    # --- facts remembered --------------------------------------------------------------------------------

    def cached(self, name: str) -> dict[str, Any]:
        """A remembered mapping, empty when there is none (or it cannot be read: it is only a cache)."""
        try:
            value = json.loads((self.path / "cache" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a mapping for `cached`."""
        self.prepare()
        write_atomic(self.path / "cache" / f"{name}.json", value)

    def prepare(self) -> None:
        """Be there, with the number of the format. Raises StoreError for a store of a newer one."""
        if not self._stamped:
            self.check_format()
            if not (self.path / "format.json").exists():
                write_atomic(self.path / "format.json", {"format": FORMAT})
            self._stamped = True

    def _record_path(self, fingerprint: str) -> str:
        return f"{self.path}/steps/{fingerprint}/{RECORD}"

    def _attempt(self, fingerprint: str, token: str) -> Path:
        return self.path / "partial" / f"{fingerprint}~{token}"

    def _move(self, source: Path, target: Path) -> bool:
        """False when the source is not there (any more)."""
        try:
            os.rename(source, target)
        except FileNotFoundError:
            return False
        return True


def sealed(record: Mapping[str, Any]) -> str:
    """The text of a record with its own seal in it: the digest of this text with zeros in the seal's place."""
    text = _text({**record, "seal": UNSEALED})
    return text.replace(_seal(UNSEALED), _seal(hashlib.sha256(text.encode()).hexdigest()), 1)


def seal_holds(text: bytes) -> bool:
    """True for a sealed text in which no bit flipped. Raises ValueError when it is no JSON any more."""
    seal = str(json.loads(text).get("seal"))
    unsealed = text.replace(_seal(seal).encode(), _seal(UNSEALED).encode(), 1)
    return hashlib.sha256(unsealed).hexdigest() == seal


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


def read_json(path: Path | str, what: str, fix: str) -> dict[str, Any]:
    """The JSON object in a file of the store. Raises StoreError when it is damaged, OSError when absent."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StoreError(str(path), f"{what} cannot be read.", fix) from error
    if not isinstance(value, dict):
        raise StoreError(str(path), f"{what} cannot be read.", fix)
    return value


def disk_is_full(error: BaseException) -> bool:
    """True for an OSError that says so, and for what libraries make of one (safetensors, torch)."""
    return (isinstance(error, OSError) and error.errno in FULL) or "No space left on device" in str(error)


@contextmanager
def saying_when_full(store: Store) -> Iterator[None]:
    """A full disk under the block is a StoreError."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise StoreError(str(store.path), "the disk is full.", "Free some space.") from error
        raise


def sha256_of(path: str) -> str:
    """Digest of a file, 64 hex digits."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Names of all files below a folder, but for its record, and of all folders, it among them as ""."""
    names, folders, todo = [], [""], [""]
    while todo:
        prefix = todo.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(f"{prefix}{entry.name}/")
                    folders.append(todo[-1])
                elif not entry.is_symlink():
                    names.append(f"{prefix}{entry.name}")
    return sorted(set(names) - {RECORD}), folders


def _sized_digest(path: str) -> tuple[int, str]:
    return os.stat(path).st_size, sha256_of(path)


def _fsync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(seal: str) -> str:
    return f'"seal": "{seal}"'


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
