"""The store: a step's folder is there complete or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from sabir.engine import store as module
from sabir.engine.store import Store, disk_is_full, read_json, write_atomic
from sabir.errors import StoreError

A, B = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def finish(store, fingerprint, text="x"):
    (store.partial(fingerprint, keep=False) / "out.txt").write_text(text)
    return store.commit(fingerprint, {"name": text})


def test_looking_creates_nothing_on_disk(store):
    assert not store.has(A)
    assert store.record(A) is None
    assert list(store.records()) == []
    assert store.cached("facts") == {}
    assert not store.path.exists()


def test_a_finished_step_is_found_with_its_record(store):
    folder = finish(store, A)
    assert store.has(A)
    assert folder == store.folder(A)
    assert (folder / "out.txt").read_text() == "x"
    assert store.record(A) == {"name": "x"}
    assert list(store.records()) == [{"name": "x"}]
    assert not (store.path / "partial" / A).exists()


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


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_step_that_cannot_be_committed_does_not_exist(store, monkeypatch, failing):
    def fail(*_):
        raise OSError(5, "Input/output error")

    (store.partial(A, keep=False) / "out.txt").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(module.os, failing, fail)
        with pytest.raises(OSError):
            store.commit(A, {"name": "a"})
    assert not store.has(A)
    store.commit(A, {"name": "a"})
    assert store.has(A)


def test_everything_is_on_the_disk_before_the_folder_gets_its_name(store, monkeypatch):
    folder = store.partial(A, keep=False)
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text("x")
    happened = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        module.os, "fsync", lambda fd: (happened.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    monkeypatch.setattr(module.os, "rename", lambda a, b: (happened.append("rename"), rename(a, b)))
    store.commit(A, {})
    expected = {str(folder / path) for path in ("sub", "sub/weights", "record.json", ".")}
    assert {os.path.normpath(path) for path in happened[:-1]} == {os.path.normpath(p) for p in expected}
    assert happened[-1] == "rename"


def test_a_partial_folder_is_kept_only_for_a_step_that_resumes(store):
    (store.partial(A, keep=True) / "checkpoint").write_text("half")
    assert (store.partial(A, keep=True) / "checkpoint").exists()
    assert not (store.partial(A, keep=False) / "checkpoint").exists()


def test_the_second_committer_loses_quietly(store):
    finish(store, A, "first")
    finish(store, A, "second")
    assert (store.folder(A) / "out.txt").read_text() == "first"
    assert store.record(A) == {"name": "first"}
    assert not (store.path / "partial" / A).exists()


def test_a_committer_whose_folder_was_committed_meanwhile_loses_quietly(store):
    finish(store, A, "first")
    assert store.commit(A, {"name": "second"}) == store.folder(A)
    assert store.record(A) == {"name": "first"}


def test_a_committer_whose_folder_vanished_does_not_finish_an_empty_one(store):
    with pytest.raises(FileNotFoundError):
        store.commit(A, {"name": "a"})
    assert not store.has(A)


def test_a_record_that_is_no_json_leaves_no_finished_step(store):
    store.partial(A, keep=False)
    with pytest.raises(TypeError):
        store.commit(A, {"name": object()})
    assert not store.has(A)


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


def test_a_second_run_is_refused_with_the_holder_named(store):
    held = rf"another run .*process {os.getpid()} on "
    with store.lock(), pytest.raises(StoreError, match=held) as caught, store.lock():
        pass
    assert "Wait for it, or stop it." in str(caught.value)
    with store.lock():
        pass


def test_a_failed_run_holds_nothing(store):
    with pytest.raises(RuntimeError), store.lock():
        raise RuntimeError
    with store.lock():
        pass


def test_a_dead_process_holds_nothing(store):
    code = (
        "import sys, time\nfrom sabir.engine.store import Store\n"
        "with Store(sys.argv[1]).lock():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid} on "), store.lock():
            pass
        holder.kill()
        holder.wait()
        with store.lock():
            pass


def test_a_store_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot be written: Not a directory"),
        Store(tmp_path / "file/s").lock(),
    ):
        pass


def test_a_store_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    finish(store, A)
    monkeypatch.chdir("/")
    assert store.has(A)


def test_a_moved_store_has_the_same_steps(store, tmp_path):
    finish(store, A)
    store.path.rename(tmp_path / "moved")
    assert Store(tmp_path / "moved").record(A) == {"name": "x"}


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
