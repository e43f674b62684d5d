"""Killed at random moments, run side by side, moved: the same bytes in the end, and nothing made twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from toys import Heard, alive, coordinator, do, family, lines, local, wait_for

from sabir.engine import care, ledger
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.steps import Graph
from sabir.engine.store import Store


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Name -> bytes of every file, of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    store = Store(folder / "store")
    steps = family(folder / "diary")
    result = do(steps, store, local(store, workers=2))
    assert len(result.ran) == len(steps)
    return outputs(store, steps)


def outputs(store, steps):
    prints = Graph(steps).fingerprints
    return {
        name: {path.name: path.read_bytes() for path in store.folder(prints[name]).glob("*.txt")}
        for name in prints
    }


def begun(diary):
    """Name and process of each step begun, in order."""
    return [(name, int(pid)) for name, pid in (line.split() for line in lines(diary))]


def finished(store, steps):
    prints = Graph(steps).fingerprints
    return {name for name in prints if store.has(prints[name])}


def assert_clean(store):
    """Nothing half written, every byte as its record says, and nothing held but by the dead."""
    assert care.verify(store) == []
    assert [path.name for path in (store.path / "partial").glob("[!.]*")] == []
    junk = care.garbage(store, store.fingerprints(), runs_kept=99)
    assert {item.what for item in junk} <= {"lease", "owner"}
    care.sweep(store, junk)
    for folder in ("leases", "owners"):
        assert [path.name for path in (store.path / folder).glob("[!.]*")] == []


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def nobody_works(diary):
    return not any(alive(pid) for _, pid in begun(diary))


def test_after_any_number_of_kills_the_same_command_goes_on_to_the_same_bytes(tmp_path, undisturbed):
    """Twelve kills, of coordinators and of workers; what was finished before a kill is never begun again."""
    chance = random.Random(1)
    kills = number = 0
    while kills < 12:
        number += 1
        store, diary = Store(tmp_path / f"store {number}"), tmp_path / f"diary {number}"
        steps = family(diary)
        while kills < 12 and len(finished(store, steps)) < len(steps):
            there, n = finished(store, steps), len(begun(diary))
            process = coordinator(store.path, diary, ledger.new_run_id())
            wait_for(lambda p=process, d=diary, n=n: len(begun(d)) > n or p.poll() is not None)
            if chance.random() < 0.4:
                time.sleep(chance.random() * 0.1)
                kill(begun(diary)[-1][1])
                kills += 1
            time.sleep(chance.random() * 0.2)
            kills += process.poll() is None
            process.kill()
            assert process.wait() in (0, -signal.SIGKILL)
            if chance.random() < 0.5:  # else the next one starts on the heels of dying workers
                wait_for(lambda d=diary: nobody_works(d))
            assert there.isdisjoint(name for name, _ in begun(diary)[n:])
            assert there <= finished(store, steps)
        there, n = finished(store, steps), len(begun(diary))
        result = do(steps, store, local(store, workers=2), run_id="last")
        assert (result.failed, result.blocked) == ({}, [])
        assert there.isdisjoint(name for name, _ in begun(diary)[n:])
        assert outputs(store, steps) == undisturbed
        assert_clean(store)


def test_two_runs_at_once_make_each_step_once_and_both_end_well(tmp_path, undisturbed):
    store, diary = Store(tmp_path / "store"), tmp_path / "diary"
    steps = family(diary)
    other = coordinator(store.path, diary, "other")
    heard = Heard()
    wait_for(lambda: begun(diary))
    result = do(steps, store, local(store, workers=2), run_id="this", listener=heard)
    assert other.wait() == 0
    assert (result.failed, result.blocked) == ({}, [])
    names = [name for name, _ in begun(diary)]
    assert sorted(names) == sorted(set(names))
    assert {step.name for step in steps} == finished(store, steps)
    assert {said.split(": ")[1] for said in heard.said if said.startswith("elsewhere")} == {
        f"run other (process {other.pid} on {os.uname().nodename})"
    }
    told = [said.split(":")[0] for said in heard.said if said.startswith("elsewhere")]
    assert sorted(told) == sorted(set(told))
    assert sum(said.startswith("finish") for said in heard.said) == len(steps)
    makers = {store.record(print_)["run"] for print_ in Graph(steps).fingerprints.values()}
    assert makers == {"other", "this"}
    assert outputs(store, steps) == undisturbed
    assert_clean(store)


def test_when_one_of_two_runs_is_killed_the_other_finishes_its_steps_at_once(tmp_path, undisturbed):
    store, diary = Store(tmp_path / "store"), tmp_path / "diary"
    steps = family(diary)
    other = coordinator(store.path, diary, "other")

    class Murder(Heard):
        """Kills the other run as soon as it is in the way of this one, in the middle of a training."""

        def elsewhere(self, step, holder):
            super().elsewhere(step, holder)
            if step.name.startswith("adapter") and other.poll() is None:
                other.kill()
                other.wait()
                self.there, self.at = finished(store, steps), len(begun(diary))

    heard = Murder()
    wait_for(lambda: any(name.startswith("adapter") for name, _ in begun(diary)))
    result = do(steps, store, local(store, workers=2), run_id="this", listener=heard)
    assert other.returncode == -9
    assert (result.failed, result.blocked) == ({}, [])
    assert heard.there.isdisjoint(name for name, _ in begun(diary)[heard.at :])
    assert outputs(store, steps) == undisturbed
    assert_clean(store)


def test_a_store_that_was_moved_or_copied_runs_nothing_again(tmp_path, undisturbed):
    store, diary = Store(tmp_path / "store"), tmp_path / "diary"
    steps = family(diary)
    other = coordinator(store.path, diary, "killed")
    wait_for(lambda: len(begun(diary)) > 4)
    other.kill()
    other.wait()
    wait_for(lambda: nobody_works(diary))
    there, n = finished(store, steps), len(begun(diary))
    assert there
    store.path.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved")
    do(steps, moved, local(moved, workers=2), run_id="later")
    assert there.isdisjoint(name for name, _ in begun(diary)[n:])
    assert outputs(moved, steps) == undisturbed
    n = len(begun(diary))
    moved.path.rename(tmp_path / "again")
    again = Store(tmp_path / "again")
    assert do(steps, again, InlineBackend(), run_id="last").ran == []
    assert len(begun(diary)) == n
    assert_clean(again)
