"""The store: a step's folder is there complete or not at all."""

from __future__ import annotations

import json
import os
import threading

import pytest

from sabir.engine import store as module
from sabir.engine.store import Store, disk_is_full, read_json, write_atomic
from sabir.errors import StoreError

A, B = "a" * 64, "b" * 64
T = "20261121T100000.000000Z-0000"  # a token: run and job
LATER = "20261121T110000.000000Z-0000"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def finish(store, fingerprint, text="x", token=T):
    (store.partial(fingerprint, token=token, keep=False) / "out.txt").write_text(text)
    return store.commit(fingerprint, token, {"name": text})


def partials(store):
    return sorted(path.name for path in (store.path / "partial").iterdir())


def test_looking_creates_nothing_on_disk(store):
    assert not store.has(A)
    assert store.record(A) is None
    assert list(store.records()) == []
    assert store.fingerprints() == set()
    assert store.cached("facts") == {}
    store.check_format()
    assert not store.path.exists()


def test_a_finished_step_is_found_with_its_record(store):
    folder = finish(store, A)
    assert store.has(A)
    assert folder == store.folder(A)
    assert (folder / "out.txt").read_text() == "x"
    assert store.record(A)["name"] == "x"
    assert list(store.records()) == [store.record(A)]
    assert store.fingerprints() == {A}
    assert partials(store) == []


def test_a_record_names_every_file_beside_it_with_size_and_digest(store):
    folder = store.partial(A, token=T, keep=False)
    (folder / "out.txt").write_bytes(b"abc")
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "sub" / "deep" / "weights").write_bytes(b"")
    store.commit(A, T, {"name": "a"})
    known = {  # sha256 of "abc" and of nothing, FIPS 180-2
        "out.txt": (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        "sub/deep/weights": (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    }
    expected = {name: {"size_bytes": size, "sha256": digest} for name, (size, digest) in known.items()}
    assert store.record(A)["files"] == expected


def test_a_folder_without_a_record_does_not_exist(store):
    finish(store, A)
    (store.folder(A) / "record.json").unlink()
    assert not store.has(A)
    assert store.record(A) is None
    assert list(store.records()) == []


def test_a_step_can_be_finished_again_where_a_folder_lost_its_record(store):
    finish(store, A, "old")
    (store.folder(A) / "record.json").unlink()
    finish(store, A, "new")
    assert (store.folder(A) / "out.txt").read_text() == "new"


def test_stray_files_among_the_steps_are_no_steps(store):
    finish(store, A)
    (store.path / "steps" / ".DS_Store").write_text("")
    assert len(list(store.records())) == 1
    assert store.fingerprints() == {A}


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_step_that_cannot_be_committed_does_not_exist(store, monkeypatch, failing):
    def fail(*_):
        raise OSError(5, "Input/output error")

    (store.partial(A, token=T, keep=False) / "out.txt").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(module.os, failing, fail)
        with pytest.raises(OSError):
            store.commit(A, T, {"name": "a"})
    assert not store.has(A)
    store.commit(A, T, {"name": "a"})
    assert store.has(A)


def test_everything_is_on_the_disk_before_the_folder_gets_its_name(store, monkeypatch):
    folder = store.partial(A, token=T, keep=False)
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text("x")
    happened = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        module.os, "fsync", lambda fd: (happened.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    monkeypatch.setattr(module.os, "rename", lambda a, b: (happened.append("rename"), rename(a, b)))
    store.commit(A, T, {})
    expected = {str(folder / path) for path in ("sub", "sub/weights", "record.json", ".")}
    assert {os.path.normpath(path) for path in happened[:-1]} == {os.path.normpath(p) for p in expected}
    assert happened[-1] == "rename"


def test_an_attempt_goes_on_from_the_newest_earlier_one_only_for_a_step_that_resumes(store):
    (store.partial(A, token=T, keep=True) / "checkpoint").write_text("half")
    assert (store.partial(A, token=LATER, keep=True) / "checkpoint").read_text() == "half"
    assert partials(store) == [f"{A}~{LATER}"]
    assert not (store.partial(A, token=LATER, keep=False) / "checkpoint").exists()
    for token, text in ((T, "older"), (LATER, "newer")):
        (store.path / "partial" / f"{A}~{token}").mkdir(exist_ok=True)
        (store.path / "partial" / f"{A}~{token}" / "checkpoint").write_text(text)
    last = "20261122T100000.000000Z-0003"
    assert (store.partial(A, token=last, keep=True) / "checkpoint").read_text() == "newer"
    assert partials(store) == [f"{A}~{last}"]


def test_attempts_at_other_steps_are_left_alone(store):
    store.partial(A, token=T, keep=False)
    store.partial(B, token=LATER, keep=False)
    assert partials(store) == [f"{A}~{T}", f"{B}~{LATER}"]


@pytest.mark.parametrize("keep", [True, False])
def test_one_believed_dead_cannot_write_into_the_attempt_that_followed(store, keep):
    zombie = store.partial(A, token=T, keep=True)
    (zombie / "checkpoint").write_text("half")
    heir = store.partial(A, token=LATER, keep=keep)
    with pytest.raises(FileNotFoundError):
        (zombie / "out.txt").write_text("of the dead")
    with pytest.raises(FileNotFoundError):
        store.commit(A, T, {"name": "of the dead"})
    assert not store.has(A)
    (heir / "out.txt").write_text("of the heir")
    store.commit(A, LATER, {"name": "heir"})
    assert store.commit(A, T, {"name": "of the dead"}) == store.folder(A)
    assert store.record(A)["name"] == "heir"


def test_a_record_left_by_one_that_died_before_its_commit_is_not_taken_over(store, monkeypatch):
    folder = store.partial(A, token=T, keep=True)
    (folder / "checkpoint").write_text("half")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_place", lambda *_: None)  # killed before the rename
        store.commit(A, T, {"name": "of the dead"})
    heir = store.partial(A, token=LATER, keep=True)
    assert sorted(path.name for path in heir.iterdir()) == ["checkpoint"]


def test_the_second_committer_loses_quietly(store):
    second = store.partial(A, token=LATER, keep=False)
    finish(store, B)
    (second / "out.txt").write_text("second")
    (store.path / "partial" / f"{A}~{T}").mkdir()
    (store.path / "partial" / f"{A}~{T}" / "out.txt").write_text("first")
    store.commit(A, T, {"name": "first"})
    assert store.commit(A, LATER, {"name": "second"}) == store.folder(A)
    assert (store.folder(A) / "out.txt").read_text() == "first"
    assert store.record(A)["name"] == "first"
    assert partials(store) == []


def test_two_committers_at_once_leave_one_whole_step(store):
    for i in range(20):
        fingerprint = f"{i:064x}"
        for token in (T, LATER):
            folder = store.path / "partial" / f"{fingerprint}~{token}"
            folder.mkdir(parents=True)
            (folder / "out.txt").write_text(token)
        threads = [
            threading.Thread(target=store.commit, args=(fingerprint, token, {"name": token}))
            for token in (T, LATER)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (store.folder(fingerprint) / "out.txt").read_text() == store.record(fingerprint)["name"]
    assert partials(store) == []


def test_a_committer_whose_folder_vanished_does_not_finish_an_empty_one(store):
    with pytest.raises(FileNotFoundError):
        store.commit(A, T, {"name": "a"})
    assert not store.has(A)


def test_a_record_that_is_no_json_leaves_no_finished_step(store):
    store.partial(A, token=T, keep=False)
    with pytest.raises(TypeError):
        store.commit(A, T, {"name": object()})
    assert not store.has(A)


def test_a_discarded_step_is_never_half_there(store, monkeypatch):
    folder = finish(store, A)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.discard(folder)
    assert not folder.exists()


@pytest.mark.parametrize("damage", [b"", b'{"name": "a', b"null", b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_a_sentence(store, damage):
    finish(store, A)
    (store.folder(A) / "record.json").write_bytes(damage)
    with pytest.raises(StoreError) as caught:
        store.record(A)
    assert str(caught.value) == (
        f"{store.folder(A) / 'record.json'}: the record of this step cannot be read. "
        "Delete its folder; the next run redoes it."
    )


def test_a_store_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    finish(store, A)
    monkeypatch.chdir("/")
    assert store.has(A)


def test_a_moved_store_has_the_same_steps(store, tmp_path):
    finish(store, A)
    store.path.rename(tmp_path / "moved")
    assert Store(tmp_path / "moved").record(A)["name"] == "x"


def test_the_first_write_says_the_format(store):
    store.remember("facts", {})
    assert json.loads((store.path / "format.json").read_text()) == {"format": 1}


@pytest.mark.parametrize("found", [2, "2", None, 1.5])
def test_a_store_of_a_newer_format_is_refused_and_not_written(store, found):
    finish(store, A)
    (store.path / "format.json").write_text(json.dumps({"format": found}))
    newer = Store(store.path)
    said = (
        f"{store.path}: has the format {found!r}, and this sabir reads formats up to 1. It was written by a"
    )
    for write in (
        newer.check_format,
        lambda: newer.remember("facts", {}),
        lambda: newer.partial(B, token=T, keep=False),
    ):
        with pytest.raises(StoreError) as caught:
            write()
        assert str(caught.value).startswith(said)
    assert partials(store) == []
    assert not (store.path / "cache").exists()


def test_remembered_facts_come_back_and_damaged_ones_are_forgotten(store):
    store.remember("facts", {"file": [1, 2.5]})
    assert store.cached("facts") == {"file": [1, 2.5]}
    for damage in ("", "[]", "{"):
        (store.path / "cache" / "facts.json").write_text(damage)
        assert store.cached("facts") == {}


def test_readers_see_the_old_file_or_the_new_one_whoever_writes(tmp_path):
    """Threads of one process share its id, as processes of two containers may."""
    path = tmp_path / "file.json"
    write_atomic(path, {"who": 0, "text": ""})

    def write(who):
        for _ in range(20):
            write_atomic(path, {"who": who, "text": str(who) * 5000})

    writers = [threading.Thread(target=write, args=(who,)) for who in (1, 2, 3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        value = read_json(path, "", "")
        assert set(value["text"]) <= {str(value["who"])}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.json"
    write_atomic(path, {"a": 1})
    with pytest.raises(TypeError):
        write_atomic(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_a_full_disk_is_known_by_its_number_or_its_words():
    assert disk_is_full(OSError(28, "No space left on device"))
    assert disk_is_full(OSError(122, "Disk quota exceeded"))
    assert disk_is_full(
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    )
    assert not disk_is_full(OSError(5, "Input/output error"))
