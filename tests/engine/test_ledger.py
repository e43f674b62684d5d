"""The ledger: every run, in order."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from toys import do, step, wait_for

from sabir.engine import job as engine_job
from sabir.engine import ledger
from sabir.engine import store as store_module
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.leases import Owner
from sabir.engine.store import Store
from sabir.errors import StoreError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def whole(runs):
    return [{**run, "steps": run["steps"]} for run in runs]


def test_there_are_no_runs_at_first(store):
    assert ledger.runs(store) == []
    assert ledger.last(store) is None


def test_run_ids_sort_by_time():
    ids = [ledger.new_run_id() for _ in range(50)]
    assert ids == sorted(ids)
    assert all(len(name) == len(ids[0]) for name in ids)


def test_runs_come_oldest_first_whatever_the_order_of_writing(store):
    for name in ("20261121T100000.000000Z", "20251121T100000.000000Z", "20261121T100000.000001Z"):
        ledger.write(store, {"id": name, "steps": []})
    assert [run["id"] for run in ledger.runs(store)] == [
        "20251121T100000.000000Z",
        "20261121T100000.000000Z",
        "20261121T100000.000001Z",
    ]
    assert ledger.last(store)["id"] == "20261121T100000.000001Z"


def test_an_entry_being_written_is_not_read(store):
    ledger.write(store, {"id": "1", "steps": []})
    (store.path / "runs" / ".2.json.aside").write_text("{")
    assert len(ledger.runs(store)) == 1


def test_an_entry_is_there_from_the_start_and_open_until_it_is_written(store):
    ledger.begin(store, {"id": "1", "steps": []})
    assert whole(ledger.runs(store)) == [{"id": "1", "steps": [], "open": True}]
    ledger.write(store, {**ledger.last(store), "wall_s": 3})
    assert whole(ledger.runs(store)) == [{"id": "1", "steps": [], "wall_s": 3}], "its steps are kept"


def test_the_steps_of_an_entry_are_read_when_asked_for(store):
    ledger.write(store, {"id": "1", "steps": [{"name": "a"}]})
    (store.path / "runs" / "2.json").write_text('{"id": "2", "steps": [{"name": "old"}]}')
    one, two = ledger.runs(store)
    assert "steps" not in one
    assert [one["steps"], two["steps"]] == [[{"name": "a"}], [{"name": "old"}]]
    (store.path / "runs/steps/1.json").unlink()
    assert one["steps"] == [{"name": "a"}], "read once"
    with pytest.raises(StoreError, match="the steps of an entry of the ledger are gone"):
        ledger.runs(store)[0]["steps"]
    with pytest.raises(KeyError):
        one["nothing"]


def test_an_open_entry_is_unsettled_once_its_run_is_dead(store):
    with Owner(store, "r1"):
        ledger.begin(store, {"id": "r1", "steps": []})
        ledger.begin(store, {"id": "r0", "steps": []})
        ledger.write(store, {"id": "done", "steps": []})
        assert [entry["id"] for entry in ledger.unsettled(store)] == ["r0"]
    assert [entry["id"] for entry in ledger.unsettled(store)] == ["r0", "r1"]


@pytest.mark.parametrize("put", [ledger.begin, ledger.write])
def test_a_full_disk_under_the_ledger_is_a_sentence(store, monkeypatch, put):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        put(store, {"id": "1", "steps": []})
    assert str(caught.value) == f"{store.path}: the disk is full. Free some space."
    assert ledger.runs(store) == []


def test_a_damaged_entry_is_a_sentence(store):
    (store.path / "runs").mkdir(parents=True)
    (store.path / "runs" / "1.json").write_text("{")
    with pytest.raises(StoreError, match=r"1\.json: this entry of the ledger cannot be read"):
        ledger.runs(store)


# --- time spent on what was not finished -----------------------------------------------------------------


def job(store, number, names, events, *, touched, run_id="r1"):
    """A job's folder as it is found afterwards; an event is (t, event) or (t, event, step)."""
    folder = store.path / "jobs" / run_id / f"{number:04d}"
    folder.mkdir(parents=True)
    steps = [{"name": name, "kind": "toy", "fingerprint": f"of {name}"} for name in names]
    (folder / "job.json").write_text(json.dumps({"token": f"{run_id}-{number:04d}", "steps": steps}))
    keys = ("t", "event", "step")
    text = "".join(json.dumps(dict(zip(keys, event, strict=False))) + "\n" for event in events)
    (folder / "events.jsonl").write_text(text)
    os.utime(folder / "events.jsonl", (touched, touched))
    return folder


def attempts(store):
    return [(row["name"], row["fingerprint"], row["wall_s"]) for row in ledger.attempts(store, "r1")]


def test_a_killed_job_was_at_work_until_its_file_was_last_touched(store):
    job(store, 0, ["a"], [(100.0, "began"), (110.0, "progress", "a")], touched=130.0)
    assert ledger.attempts(store, "r1") == [
        {"name": "a", "kind": "toy", "fingerprint": "of a", "wall_s": 30.0}
    ]


def test_a_job_that_failed_or_was_stopped_said_when(store):
    job(store, 0, ["a"], [(100.0, "began"), (105.0, "ended")], touched=900.0)
    assert attempts(store) == [("a", "of a", 5.0)]


def test_what_a_job_finished_before_it_was_killed_is_not_counted(store):
    events = [(100.0, "began"), (107.0, "finished", "a"), (108.0, "progress", "c")]
    job(store, 0, ["a", "b", "c"], events, touched=109.0)
    job(store, 1, ["d"], [(200.0, "began"), (250.0, "finished", "d"), (250.0, "ended")], touched=250.0)
    job(store, 2, ["e", "f"], [(300.0, "began")], touched=301.0)
    assert attempts(store) == [("c", "of c", 2.0), ("e", "of e", 1.0)]


def test_a_step_finished_by_a_job_that_was_killed_before_it_could_say_so_is_not_counted(store):
    job(store, 3, ["a"], [(100.0, "began")], touched=105.0)
    store.partial("of a", token="x", keep=False)
    store.commit("of a", "x", {"name": "a", "job": "another-0000"})
    assert attempts(store) == [("a", "of a", 5.0)]  # made later, by another job
    store.discard(store.folder("of a"))
    store.partial("of a", token="x", keep=False)
    store.commit("of a", "x", {"name": "a", "job": "r1-0003"})
    assert attempts(store) == []


def test_jobs_killed_before_they_began_and_torn_lines_are_no_matter(store):
    (store.path / "jobs" / "r1" / "0000").mkdir(parents=True)
    (job(store, 1, ["a"], [], touched=1.0) / "events.jsonl").unlink()
    job(store, 2, ["a"], [], touched=1.0)
    (job(store, 3, ["a"], [], touched=1.0) / "job.json").write_text('{"tok')
    torn = job(store, 4, ["a"], [(100.0, "began")], touched=1.0) / "events.jsonl"
    with open(torn, "a") as file:
        file.write('{"t": 103.0, "event": "progr')
    os.utime(torn, (104.0, 104.0))
    assert attempts(store) == [("a", "of a", 4.0)]
    assert ledger.attempts(store, "no such run") == []


def test_the_jobs_of_a_real_run_are_read(store, diary):
    bad = step("bad", "wrong", args={"error": "value", "diary": str(diary)})
    do([bad, step("good")], store, InlineBackend(), run_id="r1")
    (row,) = ledger.attempts(store, "r1")
    assert (row["name"], row["kind"]) == ("bad", "toy")
    assert 0 <= row["wall_s"] < 60


def test_a_job_at_work_touches_its_file_though_it_says_nothing(store, monkeypatch):
    monkeypatch.setattr(engine_job, "TOUCH_S", 0.01)
    args = ([step("a", "slow", args={"seconds": 0.5})], store, InlineBackend())
    thread = threading.Thread(target=do, args=args, kwargs={"run_id": "r1"})
    thread.start()
    path = store.path / "jobs" / "r1" / "0000" / "events.jsonl"
    wait_for(lambda: path.exists() and path.stat().st_size)
    times, sizes = set(), set()
    while thread.is_alive() and len(times) < 5:
        times.add(path.stat().st_mtime_ns)
        sizes.add(path.stat().st_size)
        time.sleep(0.01)
    thread.join()
    assert len(times) == 5
    assert len(sizes) == 1
