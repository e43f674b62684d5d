"""Who writes what: two runs on one store share finished steps and never make the same one.

An owner is a living process with a file in `owners/` that it touches every few seconds. What it holds is a
folder in `leases/` with one file in it, named after the owner. Only what is atomic on every file system is
used, NFS too: a folder with its file gets its place by one rename, which fails where another one is, and a
dead owner's file is renamed to the name of whoever takes over, which works once. No clock is compared with
another one: on this machine the process is looked at, and an owner elsewhere is alive as long as we see its
file change.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sabir.engine.store import Store, write_atomic
from sabir.errors import StoreError

BEAT_S = 5.0
EXPIRY_S = 60.0  # an owner on another machine that is not heard of for so long is dead
CARE = "gc"  # the section in which finished steps may be deleted: no run starts meanwhile
WAIT_S = 30.0
POLL_S = 0.05
SECTION = "section-"  # how the owners begin that live for one section


class Owner:
    """One living process that may hold leases, for the length of a `with` block.

    Args:
        store: it is written to: a StoreError says so where that cannot be.
        name: the run's id; two living owners have two names.
    """

    def __init__(self, store: Store, name: str):
        self.name = name
        self._store = store
        self._leases = store.path / "leases"
        self._file = _file(store, name)
        self._watch = _Watch(store)
        self._held: set[str] = set()
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Owner:
        try:
            self._store.prepare()
            if self._watch.alive(self.name):
                raise StoreError(str(self._store.path), f"{self._watch.words(self.name)} is there already.")
            self._appear()
            self._leases.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                str(self._store.path),
                f"cannot be written: {error.strerror}.",
                "Choose another store, or free it.",
            ) from error
        self._thread.start()
        if not self.name.startswith(SECTION):
            try:
                self._wait_for_care()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.give_all()
        self._file.unlink(missing_ok=True)

    def take(self, what: str) -> bool:
        """Hold it from now on, or False when another living owner does. Holding it already is fine."""
        lease = self._leases / what
        for _ in range(100):  # each round that comes to nothing is one in which somebody else moved
            name = _name_in(lease)
            if name == self.name:
                self._held.add(what)
                return True
            if name is None:
                self._place(lease)
            elif self._watch.alive(name):
                return False
            else:
                with suppress(FileNotFoundError):
                    os.rename(lease / name, lease / self.name)
        return False

    def give(self, what: str) -> None:
        """Hold it no longer; nothing happens when another owner does."""
        self._held.discard(what)
        with suppress(FileNotFoundError):
            os.unlink(self._leases / what / self.name)
            with suppress(OSError):  # somebody put his own in its place already
                os.rmdir(self._leases / what)

    def give_all(self) -> None:
        """Hold nothing any longer."""
        for what in tuple(self._held):
            self.give(what)

    def holds(self, what: str) -> bool:
        """False when it was never taken, or others took us for dead and went on with it."""
        return (self._leases / what / self.name).exists()

    def holder(self, what: str) -> str | None:
        """Who holds it, in words: "run 2026... (process 12 on host x)"; None when free, or of a dead one."""
        name = _name_in(self._leases / what)
        return self._watch.words(name) if name is not None and self._watch.alive(name) else None

    def doubts(self, what: str) -> bool:
        """True while it cannot be told whether its holder is dead: elsewhere, and silent since we look."""
        name = _name_in(self._leases / what)
        return name is not None and self._watch.alive(name) and self._watch.doubts(name)

    def _place(self, lease: Path) -> None:
        """Put our own lease where none is: a folder that is not empty is never replaced by a rename."""
        aside = self._leases / f".{uuid.uuid4().hex}"
        aside.mkdir()
        (aside / self.name).touch()
        try:
            os.rename(aside, lease)
        except OSError as error:
            (aside / self.name).unlink()
            aside.rmdir()
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def _wait_for_care(self) -> None:
        """No run starts while finished steps are deleted; and none is deleted once we are there."""
        until = time.monotonic() + WAIT_S
        while (holder := self.holder(CARE)) is not None:
            if time.monotonic() > until and not self.doubts(CARE):
                raise StoreError(str(self._store.path), f"is being cleaned up by {holder}.", "Wait for it.")
            time.sleep(POLL_S)

    def _appear(self) -> None:
        write_atomic(
            self._file,
            {
                "host": socket.gethostname(),
                "system": _system(),
                "pid": os.getpid(),
                "started": _started(os.getpid()),
                "beat": f"{self._beats:012}",
            },
        )

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_S):
            self._beats += 1
            with suppress(OSError):  # a disk that is full or away now may be back at the next beat
                self._beat()

    def _beat(self) -> None:
        """Write the number over the old one: that needs no space, so a full disk kills nobody."""
        try:
            with open(self._file, "r+b", buffering=0) as file:
                text = file.read()
                file.seek(text.index(b'"beat": "') + len(b'"beat": "'))
                file.write(b"%012d" % self._beats)
        except (FileNotFoundError, ValueError):  # somebody took us for dead and tidied up
            self._appear()


def living(store: Store, *, sections: bool = False, watch_s: float = 0.0) -> list[str]:
    """Names of the runs that are alive, sorted.

    Args:
        sections: name the owners of sections (see `exclusive`) too.
        watch_s: an owner on another machine may have died long ago. So long at most it is watched whether
            its beat changes; without that it counts as alive.
    """
    watch = _Watch(store)
    names = [name for name in _owners(store) if sections or not name.startswith(SECTION)]
    until = time.monotonic() + watch_s
    while True:
        names = [name for name in names if watch.alive(name)]
        if time.monotonic() >= until or not any(watch.doubts(name) for name in names):
            return names
        time.sleep(min(BEAT_S, 1.0))


@contextmanager
def exclusive(store: Store, what: str, *, wait_s: float = WAIT_S) -> Iterator[Owner]:
    """A short section that one process at a time is in, over all machines; gives its owner.

    Raises StoreError when another process stays in it for longer than `wait_s`, or the store cannot be
    written. A holder elsewhere of which nothing was heard yet is waited for until it shows a sign, or is dead.
    """
    with Owner(store, f"{SECTION}{what}-{uuid.uuid4().hex[:8]}") as owner:
        until = time.monotonic() + wait_s
        while not owner.take(what):
            if time.monotonic() > until and not owner.doubts(what):
                holder = owner.holder(what) or "another process"
                raise StoreError(
                    str(store.path),
                    f"{holder} is using it ({what}).",
                    "Wait for it, or stop it.",
                )
            time.sleep(POLL_S)
        yield owner


def leases(store: Store) -> dict[str, str]:
    """What is held -> the name of its owner, dead or alive."""
    found = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for what in os.listdir(store.path / "leases"):
            name = None if what.startswith(".") else _name_in(store.path / "leases" / what)
            if name is not None:
                found[what] = name
    return found


class _Watch:
    """Whether owners are alive, as one process sees it."""

    def __init__(self, store: Store):
        self._store = store
        self._seen: dict[str, _Sign] = {}

    def alive(self, name: str) -> bool:
        try:
            data = _file(self._store, name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return False
        facts = _parsed(data)
        if facts is not None and facts.get("system") == _system():
            started = _started(facts["pid"])
            if started != HIDDEN:
                self._seen.pop(name, None)
                return started == facts["started"]
        sign = self._seen.get(name)
        now = time.monotonic()
        if sign is None:
            self._seen[name] = _Sign(data, now, silent_s=0.0, heard=False)
        elif sign.data != data:
            self._seen[name] = _Sign(data, now, silent_s=0.0, heard=True)
        else:  # a pause of our own (a laptop asleep, a server that hung) is no silence of others
            sign.silent_s += min(now - sign.at, BEAT_S)
            sign.at = now
            return sign.silent_s < EXPIRY_S
        return True

    def doubts(self, name: str) -> bool:
        """True for one elsewhere that has given no sign since we first looked."""
        return name in self._seen and not self._seen[name].heard

    def words(self, name: str) -> str:
        facts = None
        with suppress(OSError):
            facts = _parsed(_file(self._store, name).read_bytes())
        place = f"process {facts['pid']} on {facts['host']}" if facts else "a process that just ended"
        return place if name.startswith(SECTION) else f"run {name} ({place})"


class _Sign:
    """The last sign of life of an owner: its file's content, and for how long we have seen it unchanged."""

    def __init__(self, data: bytes, at: float, *, silent_s: float, heard: bool):
        self.data, self.at, self.silent_s, self.heard = data, at, silent_s, heard


def _file(store: Store, name: str) -> Path:
    return store.path / "owners" / f"{name}.json"


def _owners(store: Store) -> list[str]:
    return sorted(path.stem for path in (store.path / "owners").glob("[!.]*.json"))


def _name_in(lease: Path) -> str | None:
    """The owner of a lease, or None when nobody holds it."""
    try:
        return next(iter(os.listdir(lease)), None)
    except FileNotFoundError:
        return None


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(data)
    except ValueError:
        return None


HIDDEN = "hidden"


def _started(pid: int) -> str | None:
    """When a process of this machine started, in the system's own words; None when it has ended.

    HIDDEN when it is there and is not shown to us (another user's, on a machine that hides them).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    if os.path.exists("/proc/self/stat"):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return HIDDEN
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None


def _system() -> str:
    """What process ids are unique in: this machine since it started, and this container."""
    boot = pids = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot} {pids}"
