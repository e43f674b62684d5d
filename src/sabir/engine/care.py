"""Care of the store: what may go, and what is damaged. Knows fingerprints, not what they mean."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabir.engine import ledger
from sabir.engine.leases import EXPIRY_S, SECTION, leases, living
from sabir.engine.store import ANSWERS, RECORD, THREADS, Store, seal_holds, sha256_of
from sabir.errors import StoreError

ASIDE_S = 3600.0  # what a living process writes aside is not so old
ASIDE = re.compile(r"\..*[0-9a-f]{32}|\..*\.[0-9]+")
ASIDES = (
    "answers/*",
    "cache",
    "estimates/*",
    "kept",
    "leases",
    "owners",
    "partial",
    "releases/*",
    "runs",
    "runs/steps",
)


@dataclass(frozen=True)
class Junk:
    """Something that may be deleted.

    `what` is "step", "attempt" (an unfinished folder), "jobs" (logs of one run), "lease", "owner", "facts"
    (of an adapter that is gone), "answers" (of a model that is gone), "aside" (a file or folder whose writer
    died) or "damaged"; `name` is the step's, or the file's.
    """

    path: Path
    what: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Damage:
    """Something wrong with a finished step; `name` and `kind` are "" where its record is lost.

    `what` is a sentence's end, such as "adapter_model.safetensors is missing".
    """

    fingerprint: str
    name: str
    kind: str
    what: str


# --- what may go -----------------------------------------------------------------------------------------


def closure(store: Store, roots: Iterable[str]) -> set[str]:
    """Fingerprints of the finished steps among the roots, and of all that these stand on.

    Who stands on a part of a step keeps one step with that part: one that is kept anyway, or else the newest.
    Raises StoreError when a record is damaged.
    """
    makers: dict[str, list[Mapping[str, Any]]] = {}
    records = {record["fingerprint"]: record for record in store.records()}
    for record in sorted(records.values(), key=lambda record: (record["created"], record["fingerprint"])):
        for digest in record["parts"].values():
            makers.setdefault(digest, []).append(record)
    found: set[str] = set()
    todo, parts = list(roots), []
    while todo:
        fingerprint = todo.pop()
        if fingerprint in records and fingerprint not in found:
            found.add(fingerprint)
            deps = records[fingerprint]["deps"].values()
            todo += [dep for dep in deps if dep in records]
            parts += [dep for dep in deps if dep in makers]
        while parts and not todo:  # last: by then it is known what is kept anyway
            made = [record["fingerprint"] for record in makers[parts.pop()]]
            if found.isdisjoint(made):
                todo.append(made[-1])
    return found


def garbage(
    store: Store,
    keep: Collection[str],
    *,
    runs_kept: int = 5,
    resumable: Collection[str] = (),
    facts: Collection[str] | None = None,
    answers: Collection[str] | None = None,
    watch_s: float = EXPIRY_S,
) -> list[Junk]:
    """What may be deleted, nothing of which a living run holds or may come to use.

    While a run is alive no finished step is junk: nobody here knows what it is going to stand on. To delete
    what this finds, call both this and `sweep` within `exclusive(store, CARE)`: no run starts meanwhile.

    Args:
        keep: fingerprints of the steps to keep (see `closure`).
        runs_kept: of so many last runs the logs are kept, and of those whose costs are not settled.
        resumable: fingerprints whose unfinished folders the next run goes on from.
        facts: names (without ending) of the files under kept/ that are still of use; None: all are.
        answers: names of the folders under answers/ that are still of use; None: all are. While a run is alive,
            which may have made a model, none is junk.
        watch_s: how long to watch whether owners on other machines are alive (see `leases.living`).
    """
    owners = living(store, sections=True, watch_s=watch_s)
    alive = [name for name in owners if not name.startswith(SECTION)]
    junk = [] if alive else list(_steps(store, keep))
    junk += _attempts(store, alive, resumable)
    junk += _jobs(store, alive, runs_kept)
    junk += _of_the_dead(store, owners)
    if facts is not None:
        stale = [path for path in _list(store.path / "kept") if path.stem not in facts]
        junk += [_junk(path, "facts", path.name) for path in stale]
    if answers is not None and not alive:
        unused = [path for path in _list(store.path / ANSWERS) if path.name not in answers]
        junk += [_junk(path, "answers", path.name) for path in unused]
    junk += _asides(store)
    junk += [_junk(path, "damaged", path.name) for path in _list(store.path / "damaged")]
    return junk


def sweep(store: Store, junk: Iterable[Junk]) -> int:
    """Delete it; gives the bytes freed. A step leaves its place whole before its files go."""
    freed = 0
    for item in junk:
        if item.path.is_dir():
            store.discard(item.path)
        else:
            item.path.unlink(missing_ok=True)
            if item.what == "lease":
                with suppress(OSError):  # it was taken over
                    item.path.parent.rmdir()
        if not item.path.exists():
            freed += item.size_bytes
    return freed


def _steps(store: Store, keep: Collection[str]) -> Iterator[Junk]:
    for fingerprint in sorted(store.fingerprints().difference(keep)):
        record = store.record(fingerprint)
        name = "" if record is None else record["name"]
        yield _junk(store.folder(fingerprint), "step", name)


def _attempts(store: Store, alive: Collection[str], resumable: Collection[str]) -> Iterator[Junk]:
    for path in _list(store.path / "partial"):
        fingerprint, _, token = path.name.partition("~")
        if token.rpartition("-")[0] not in alive and fingerprint not in resumable:
            yield _junk(path, "attempt", fingerprint)


def _jobs(store: Store, alive: Collection[str], runs_kept: int) -> Iterator[Junk]:
    folders = _list(store.path / "jobs")
    kept = {path.name for path in folders[max(0, len(folders) - runs_kept) :]}
    kept |= {entry["id"] for entry in ledger.runs(store) if entry.get("open")}
    yield from (_junk(path, "jobs", path.name) for path in folders if path.name not in kept.union(alive))


def _of_the_dead(store: Store, alive: Collection[str]) -> Iterator[Junk]:
    for what, owner in leases(store).items():
        if owner not in alive:
            yield _junk(store.path / "leases" / what / owner, "lease", what)
    for path in _list(store.path / "owners"):
        if path.stem not in alive:
            yield _junk(path, "owner", path.stem)


def _asides(store: Store) -> Iterator[Junk]:
    """What was written aside, or moved aside to be deleted, by a process that died at it."""
    before = time.time() - ASIDE_S
    for folder in (store.path, *(folder for name in ASIDES for folder in store.path.glob(name))):
        for path in folder.glob(".*") if folder.is_dir() else ():
            if ASIDE.fullmatch(path.name) and path.stat().st_mtime < before:
                yield _junk(path, "aside", path.name)


def _junk(path: Path, what: str, name: str) -> Junk:
    return Junk(path, what, name, _size_bytes(path))


def _size_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    inside = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(os.lstat(name).st_size for name in inside)


def _list(folder: Path) -> list[Path]:
    """What is in a folder of the store, sorted, without what is being written or deleted."""
    return sorted(folder.glob("[!.]*"))


# --- what is damaged -------------------------------------------------------------------------------------


def verify(store: Store, *, on_step: Callable[[int, int], object] = lambda done, total: None) -> list[Damage]:
    """Hold every byte of every finished step against its record.

    Args:
        on_step: hears how many steps were looked at, and how many there are.
    """
    found: list[Damage] = []
    fingerprints = sorted(store.fingerprints())
    with ThreadPoolExecutor(THREADS) as pool:
        for i, fingerprint in enumerate(fingerprints):
            found += _damages(store, fingerprint, pool)
            on_step(i + 1, len(fingerprints))
    return found


def quarantine(store: Store, damages: Iterable[Damage]) -> None:
    """Take damaged steps out of the way, to damaged/: the next run makes just these again."""
    for fingerprint in dict.fromkeys(damage.fingerprint for damage in damages):
        folder, target = store.folder(fingerprint), store.path / "damaged" / fingerprint
        if folder.exists():
            target.parent.mkdir(exist_ok=True)
            store.discard(target)
            os.rename(folder, target)


def _damages(store: Store, fingerprint: str, pool: ThreadPoolExecutor) -> list[Damage]:
    try:
        record = store.record(fingerprint)
    except StoreError:
        return [Damage(fingerprint, "", "", f"{RECORD} cannot be read")]
    if record is None:
        return [Damage(fingerprint, "", "", f"{RECORD} is missing")]
    sealed = "files" in record or "seal" in record  # a flipped bit takes away one of them at most
    if sealed and not seal_holds((store.folder(fingerprint) / RECORD).read_bytes()):
        return [Damage(fingerprint, "", "", f"{RECORD} is not as it was written")]
    folder = store.folder(fingerprint)
    files = record.get("files", {})  # absent: finished before they were kept
    wrong = pool.map(lambda name: _wrong(folder / name, files[name]), files)
    return [
        Damage(fingerprint, record["name"], record["kind"], f"{name} {words}")
        for name, words in zip(files, wrong, strict=True)
        if words
    ]


def _wrong(path: Path, file: Mapping[str, Any]) -> str:
    """What is wrong with a file, or ""."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes != file["size_bytes"]:
            return f"has {size_bytes} bytes instead of {file['size_bytes']}"
        return "" if sha256_of(str(path)) == file["sha256"] else "is not as it was written"
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
