"""The served release changes at once or not at all, whoever reads, fails or is killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from sabir import serving
from sabir.errors import InputError, StoreError
from sabir.serving import swap

FILES = ("adapter_config.json", "adapter_model.safetensors")


def writes(text):
    """A build whose every file holds the same text, with a pause between them."""

    def build(folder):
        folder.mkdir()
        for name in FILES:
            (folder / name).write_text(text)
            time.sleep(0.001)

    return build


def never(folder):
    raise AssertionError("nothing had to be built")


def served(folder):
    return {(folder / "current" / name).read_text() for name in FILES}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_first_swap_makes_the_folder_and_the_link(tmp_path):
    folder = tmp_path / "a" / "serve"
    assert swap(folder, "1-aaaaaaaa", writes("one")) == folder / "1-aaaaaaaa"
    assert served(folder) == {"one"}
    assert os.readlink(folder / "current") == "1-aaaaaaaa"  # relative: the folder may be moved
    assert names(folder) == ["1-aaaaaaaa", "current"]


def test_a_reader_finds_the_old_release_or_the_new_one_whole_at_any_moment(tmp_path):
    releases = ["r0", "r1"]
    for release in releases:
        swap(tmp_path, release, writes(release))
    seen, wrong, done = set(), [], threading.Event()

    def read():
        while not done.is_set():
            try:
                place = (tmp_path / "current").resolve(strict=True)
                found = {(place / name).read_text() for name in FILES}
            except OSError as error:
                wrong.append(error)
                return
            if found != {place.name}:
                wrong.append(found)
            seen.update(found)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(300):  # to and fro between two that stay: what is read is never removed
            swap(tmp_path, releases[number % 2], never)
    finally:
        done.set()
        reader.join()
    assert wrong == []
    assert seen == set(releases)


def test_the_release_before_stays_and_older_ones_go(tmp_path):
    for release in ("1-a", "2-b", "3-c"):
        swap(tmp_path, release, writes(release))
    assert names(tmp_path) == ["2-b", "3-c", "current"]


def test_going_back_builds_nothing(tmp_path):
    for release in ("1-a", "2-b"):
        swap(tmp_path, release, writes(release))
    swap(tmp_path, "1-a", never)
    assert served(tmp_path) == {"1-a"}
    swap(tmp_path, "2-b", never)
    assert served(tmp_path) == {"2-b"}


def test_serving_the_same_release_again_keeps_the_one_before(tmp_path):
    for release in ("1-a", "2-b"):
        swap(tmp_path, release, writes(release))
    swap(tmp_path, "2-b", never)
    assert names(tmp_path) == ["1-a", "2-b", "current"]


def test_a_served_folder_that_was_lost_is_built_again(tmp_path):
    for release in ("1-a", "2-b"):
        swap(tmp_path, release, writes(release))
    for path in (tmp_path / "2-b").iterdir():
        path.unlink()
    (tmp_path / "2-b").rmdir()
    swap(tmp_path, "2-b", writes("again"))
    assert served(tmp_path) == {"again"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_the_old_release_and_nothing_else(tmp_path, error):
    swap(tmp_path, "1-a", writes("one"))

    def fails(folder):
        writes("two")(folder)
        raise error

    with pytest.raises(type(error)):
        swap(tmp_path, "2-b", fails)
    assert served(tmp_path) == {"one"}
    assert names(tmp_path) == ["1-a", "current"]


@pytest.mark.parametrize("place", ["build", "mark", "link"])
def test_a_full_disk_leaves_the_old_release_and_is_said_in_a_sentence(tmp_path, monkeypatch, place):
    swap(tmp_path, "1-a", writes("one"))
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_):
        raise full

    if place == "mark":
        monkeypatch.setattr(serving, "write_text", fails)
    if place == "link":
        monkeypatch.setattr(os, "symlink", fails)
    with pytest.raises(StoreError, match=r"No space left on device\. What was served before still is"):
        swap(tmp_path, "2-b", fails if place == "build" else writes("two"))
    assert served(tmp_path) == {"one"}
    assert serving.BUILDING not in names(tmp_path)


def test_what_a_killed_process_left_is_cleared_the_next_time(tmp_path):
    swap(tmp_path, "1-a", writes("one"))
    code = (
        "import pathlib, sys, time; from sabir.serving import swap\n"
        "def build(folder):\n"
        "    folder.mkdir(); (folder / 'half').write_text('half'); print('begun', flush=True); time.sleep(60)\n"
        "swap(pathlib.Path(sys.argv[1]), '2-b', build)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
    assert serving.BUILDING in names(tmp_path)
    assert served(tmp_path) == {"one"}
    swap(tmp_path, "2-b", writes("two"))
    assert served(tmp_path) == {"two"}
    assert names(tmp_path) == ["1-a", "2-b", "current"]
    assert not (tmp_path / "2-b" / "half").exists()


def test_half_a_removed_release_is_never_taken_for_a_whole_one(tmp_path, monkeypatch):
    for release in ("1-a", "2-b"):
        swap(tmp_path, release, writes(release))

    rmtree = shutil.rmtree

    def dies(path, **settings):
        if path.name == serving.BUILDING:
            rmtree(path, **settings)
        else:
            (path / FILES[0]).unlink()

    with monkeypatch.context() as patched:  # a process killed in the middle of removing 1-a
        patched.setattr(serving.shutil, "rmtree", dies)
        swap(tmp_path, "3-c", writes("3-c"))
    assert "1-a" not in names(tmp_path)
    swap(tmp_path, "1-a", writes("1-a"))
    assert served(tmp_path) == {"1-a"}
    assert names(tmp_path) == ["1-a", "3-c", "current"]


def test_what_was_not_made_here_is_neither_removed_nor_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "2-b").mkdir()
    for release in ("1-a", "3-c", "4-d"):
        swap(tmp_path, release, writes(release))
    assert names(tmp_path) == ["2-b", "3-c", "4-d", "current", "mine", "notes.txt"]
    with pytest.raises(InputError, match="was not made by sabir"):
        swap(tmp_path, "2-b", writes("two"))
    (tmp_path / "current").unlink()
    (tmp_path / "current").mkdir()
    with pytest.raises(InputError, match="is no link"):
        swap(tmp_path, "5-e", writes("five"))
    assert (tmp_path / "current").is_dir()
