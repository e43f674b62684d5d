"""The folder that a server watches: releases as it takes them, and `current`, which points to one of them.

serve/3-5f0c2a91/    the release in use, whole
serve/2-b81d44e7/    the one before, for an instant way back
serve/current        a link to the first, replaced at once
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sabir.errors import InputError, StoreError
from sabir.lora.write import sync_folder, write_text

CURRENT = "current"
BUILDING = ".building"  # what is written; left only by a process that was killed
JUNK = ".junk-"  # what is removed: out of its place first, so that half of it is never taken for a release
OWNER = ".owner"
MARK = ".sabir"  # in every folder made here; no other one is ever removed


def swap(
    folder: Path,
    release: str,
    build: Callable[[Path], None],
    *,
    owner: str | None = None,
    then: Callable[[], object] = lambda: None,
) -> Path:
    """Point `current` to a release, built first where it does not lie there yet; gives its folder.

    A reader of `current` finds the old release or the new one, whole, at any moment; if anything fails, the old
    one. The release that was current stays, so that going back builds nothing; older ones are removed.

    Callers see to it that one swap is made at a time.

    Args:
        folder: the serving folder.
        release: what the release's own folder is called: one name stands for one content.
        build: writes the release into the folder it is given, which does not exist yet.
        owner: whose serving folder it is, a config's name: another owner is refused.
        then: called once the release lies there, before `current` points to it: if it raises, nothing changes.
    Raises InputError where `current` or the release's name is something that was not made here, or the folder is
    another's, StoreError when the disk does not take it, and whatever `build` and `then` raise.
    """
    current, place = folder / CURRENT, folder / release
    try:
        _check_ours(current, place)
        before = os.readlink(current) if current.is_symlink() else None
        folder.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            _claim(folder / OWNER, owner)
        _clear(folder)
        if not place.exists():
            _build(folder, place, build)
        then()
        if before != release:
            _point(current, release)
    except OSError as error:
        raise StoreError(
            str(folder),
            f"the release could not be put there: {error.strerror or error}.",
            "What was served before still is.",
        ) from error
    if before != release:
        _drop_others(folder, {release, before})
    return place


def keep_only_current(folder: Path) -> None:
    """Remove every release but the one that `current` points to; there may be none."""
    current = folder / CURRENT
    if current.is_symlink():
        _drop_others(folder, {os.readlink(current)})


def _check_ours(current: Path, place: Path) -> None:
    if current.exists() and not current.is_symlink():
        raise InputError(
            str(current), "is no link, so it is not replaced.", "Remove it, or name another serve.folder."
        )
    if place.exists() and not (place / MARK).is_file():
        raise InputError(
            str(place), "is there and was not made by sabir.", "Remove it, or name another serve.folder."
        )


def _claim(mark: Path, owner: str) -> None:
    """Write down whose folder it is, or refuse another's."""
    known = mark.read_text(encoding="utf-8").strip() if mark.is_file() else None
    if known is None:
        write_text(mark, f"{owner}\n")
    elif known != owner:
        raise InputError(
            str(mark.parent), f"is the serving folder of {known}.", "Name another: serve: {folder: ...}."
        )


def _build(folder: Path, place: Path, build: Callable[[Path], None]) -> None:
    """Write a release beside its place, and give it its name when all of it is on the disk."""
    building = folder / BUILDING
    building.mkdir()
    try:
        made = building / place.name
        build(made)
        write_text(made / MARK, f"{place.name}\n")
        sync_folder(made)
        made.rename(place)
        sync_folder(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _point(link: Path, target: str) -> None:
    """Replace a link: at every moment it is there, and points to the old target or to the new one."""
    aside = link.with_name(f"{JUNK}{uuid.uuid4().hex}")
    try:
        aside.symlink_to(target)
        os.replace(aside, link)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(link.parent)


def _drop_others(folder: Path, kept: set[str | None]) -> None:
    for path in list(folder.iterdir()):
        if path.name not in kept and not path.is_symlink() and (path / MARK).is_file():
            _remove(path)


def _clear(folder: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for path in list(folder.iterdir()):
        if path.name == BUILDING or path.name.startswith(JUNK):
            _remove(path)


def _remove(path: Path) -> None:
    """Take a folder, or a link, out of its place at once, and then apart; what resists is removed another time."""
    aside = path.with_name(f"{JUNK}{uuid.uuid4().hex}")
    with suppress(OSError):
        path.rename(aside)
        if aside.is_symlink():
            aside.unlink()
        else:
            shutil.rmtree(aside, ignore_errors=True)
