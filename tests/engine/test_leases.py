"""Leases: at any time one living owner of each, and what a dead one held is free."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from toys import lines, wait_for

from sabir.engine import leases
from sabir.engine.leases import Owner, exclusive, living
from sabir.engine.store import Store
from sabir.errors import StoreError

HOLD = """
import sys, time
from sabir.engine.leases import Owner
from sabir.engine.store import Store
with Owner(Store(sys.argv[1]), sys.argv[2]) as owner:
    print([owner.take(what) for what in sys.argv[3:]], flush=True)
    time.sleep(60)
"""

HAMMER = """
import os, random, sys, time
from pathlib import Path
from sabir.engine.leases import Owner, _started
from sabir.engine.store import Store
folder, seed, inside = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[1]) / "inside"
chance, until = random.Random(seed), time.monotonic() + 60
with Owner(Store(folder / "store"), f"hammer {seed}") as owner, open(folder / "log", "a") as log:
    while time.monotonic() < until:
        if owner.take("it"):
            try:
                os.symlink(str(os.getpid()), inside)  # there with its content, or not at all
            except FileExistsError:
                if _started(int(os.readlink(inside))) is not None:
                    log.write("two at once\\n")
                inside.unlink(missing_ok=True)  # of one that was killed in here
                os.symlink(str(os.getpid()), inside)
            time.sleep(chance.random() * 0.002)
            inside.unlink(missing_ok=True)
            log.write("in\\n")
            log.flush()
            owner.give("it")
        time.sleep(chance.random() * 0.001)
"""


@pytest.fixture
def quick(monkeypatch):
    """Beats and expiry in hundredths of what they are."""
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    monkeypatch.setattr(leases, "EXPIRY_S", 0.6)


def elsewhere(store, name, **facts):
    """An owner's file as a process on another machine writes it."""
    path = store.path / "owners" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "host": "far",
        "system": "far away",
        "pid": os.getpid(),
        "started": "1",
        "beat": "000000000000",
        **facts,
    }
    path.write_text(json.dumps(facts))
    return path


def held_elsewhere(store, what, name="r1", **facts):
    path = elsewhere(store, name, **facts)
    (store.path / "leases" / what).mkdir(parents=True)
    (store.path / "leases" / what / name).touch()
    return path


def holding(store, name, *whats):
    """A process that holds leases."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.path), name, *whats], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == str([True] * len(whats))
    return process


# --- holding ---------------------------------------------------------------------------------------------


def test_one_of_two_owners_holds_a_lease_until_it_gives_it(store):
    with Owner(store, "r1") as first, Owner(store, "r2") as second:
        assert first.take("a")
        assert first.take("a")
        assert not second.take("a")
        assert second.take("b")
        assert (first.holds("a"), second.holds("a")) == (True, False)
        second.give("a")  # not its own
        assert not second.take("a")
        first.give("a")
        assert not first.holds("a")
        assert second.take("a")


def test_a_holder_is_named_in_words(store):
    with Owner(store, "r1") as first, Owner(store, "r2") as second:
        assert second.holder("a") is None
        first.take("a")
        assert second.holder("a") == f"run r1 (process {os.getpid()} on {socket.gethostname()})"


def test_an_owner_leaves_nothing_behind(store):
    with Owner(store, "r1") as owner:
        for what in "abc":
            owner.take(what)
        owner.give("b")
        assert living(store) == ["r1"]
    assert living(store) == []
    assert list((store.path / "leases").iterdir()) == list((store.path / "owners").iterdir()) == []


def test_a_failed_run_holds_nothing(store):
    with contextlib.suppress(RuntimeError), Owner(store, "r1") as owner:
        owner.take("a")
        raise RuntimeError
    with Owner(store, "r2") as owner:
        assert owner.take("a")


def test_two_living_owners_of_one_name_are_refused(store):
    with (
        Owner(store, "r1"),
        pytest.raises(StoreError, match=r"run r1 \(process .*\) is there already"),
        Owner(store, "r1"),
    ):
        pass


def test_a_store_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot be written: Not a directory"),
        Owner(Store(tmp_path / "file/s"), "r1"),
    ):
        pass


def test_a_store_of_a_newer_format_has_no_owner_of_today(store):
    store.path.mkdir()
    (store.path / "format.json").write_text('{"format": 2}')
    with pytest.raises(StoreError, match="has the format 2"), Owner(store, "r1"):
        pass
    assert [path.name for path in store.path.iterdir()] == ["format.json"]


# --- the dead --------------------------------------------------------------------------------------------


def test_a_killed_process_holds_nothing_at_once(store):
    with holding(store, "r1", "a", "b") as process, Owner(store, "r2") as owner:
        assert not owner.take("a")
        assert owner.holder("a") == f"run r1 (process {process.pid} on {socket.gethostname()})"
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: living(store) == ["r2"])  # though nobody waited for it: a zombie is dead
        assert owner.holder("a") is None
        assert owner.take("a")
        assert owner.holds("a")
        process.wait()


def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(store):
    with holding(store, "r1", "a") as process:
        process.kill()
        process.wait()
    path = store.path / "owners" / "r1.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "pid": os.getpid()}))
    assert living(store) == []
    with Owner(store, "r2") as owner:
        assert owner.take("a")


def test_a_process_of_this_machine_that_is_hidden_from_us_is_judged_by_its_beat(store, monkeypatch, quick):
    with Owner(store, "r1") as first, Owner(store, "r2") as second:
        first.take("a")
        monkeypatch.setattr(leases, "_started", lambda pid: leases.HIDDEN)
        end = time.monotonic() + 2 * leases.EXPIRY_S
        while time.monotonic() < end:
            assert not second.take("a")
            time.sleep(0.02)


def test_a_lease_without_its_owners_file_is_free(store):
    with Owner(store, "r2") as owner:
        held_elsewhere(store, "a").unlink()
        assert owner.holder("a") is None
        assert owner.take("a")


def test_one_elsewhere_is_alive_as_long_as_its_file_changes(store, quick):
    path = held_elsewhere(store, "a")
    with Owner(store, "r2") as owner:
        for beat in range(30):
            path.write_text(path.read_text().replace(f"{beat:012}", f"{beat + 1:012}"))
            assert not owner.take("a")
            time.sleep(leases.BEAT_S)
        wait_for(lambda: owner.take("a"), 10 * leases.EXPIRY_S)


@pytest.mark.parametrize("off_s", [-86400, 86400])
def test_clocks_that_disagree_by_a_day_change_nothing(store, quick, off_s):
    """Neither a time in a file nor the time of a file is looked at, only whether it changes."""
    path = held_elsewhere(store, "a")
    os.utime(path, (time.time() + off_s,) * 2)
    with Owner(store, "r2") as owner:
        assert not owner.take("a")
        assert owner.doubts("a")
        path.write_text(path.read_text().replace("000000000000", "000000000001"))
        os.utime(path, (time.time() + off_s,) * 2)
        assert not owner.take("a")
        assert not owner.doubts("a")


def test_a_pause_of_our_own_is_no_silence_of_others(store, quick):
    held_elsewhere(store, "a")
    with Owner(store, "r2") as owner:
        assert not owner.take("a")
        time.sleep(2 * leases.EXPIRY_S)  # as a laptop asleep, or a file server that hung for both
        assert not owner.take("a")


def test_an_owner_beats_and_comes_back_when_its_file_was_tidied_away(store, quick):
    with Owner(store, "r1"):
        path = store.path / "owners" / "r1.json"
        first = path.read_text()
        wait_for(lambda: path.read_text() != first)
        assert json.loads(path.read_text())["host"] == socket.gethostname()
        path.unlink()
        wait_for(lambda: path.exists() and living(store) == ["r1"])


def test_whoever_was_taken_for_dead_knows_that_it_lost(store):
    with Owner(store, "r1") as first, Owner(store, "r2") as second:
        first.take("a")
        path = store.path / "owners" / "r1.json"
        facts = path.read_text()
        path.unlink()
        assert second.take("a")
        path.write_text(facts)
        assert not first.holds("a")
        assert not first.take("a")
        first.give("a")
        assert second.holds("a")


def test_a_silent_owner_elsewhere_is_alive_at_first_sight_and_dead_when_watched(store, quick):
    elsewhere(store, "r1")
    assert living(store) == ["r1"]
    assert living(store, watch_s=10 * leases.EXPIRY_S) == []


# --- races -----------------------------------------------------------------------------------------------


def test_of_many_that_take_over_from_one_dead_owner_one_wins(store):
    owners = [Owner(store, f"r{i}") for i in range(2, 10)]
    for owner in owners:
        owner.__enter__()
    for i in range(30):
        what = f"lease {i}"
        held_elsewhere(store, what, "dead").unlink()
        gate = threading.Barrier(len(owners))
        won = []

        def take(owner, what=what, gate=gate, won=won):
            gate.wait()
            if owner.take(what):
                won.append(owner.name)

        threads = [threading.Thread(target=take, args=(owner,)) for owner in owners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert os.listdir(store.path / "leases" / what) == won
    for owner in owners:
        owner.__exit__()


def test_processes_that_are_killed_at_random_while_they_hammer_at_one_lease_are_never_two_at_once(tmp_path):
    chance = random.Random(4)

    def start(seed):
        return subprocess.Popen([sys.executable, "-c", HAMMER, str(tmp_path), str(seed)])

    def entered():
        return len(lines(tmp_path / "log"))

    processes = [start(seed) for seed in range(4)]
    for kill in range(8):
        before = entered()
        wait_for(lambda before=before: entered() > before + 30)
        time.sleep(chance.random() * 0.02)
        victim = processes.pop(chance.randrange(len(processes)))
        victim.kill()
        victim.wait()
        processes.append(start(10 + kill))
    before = entered()
    wait_for(lambda: entered() > before + 30)
    for process in processes:
        process.kill()
        process.wait()
    assert set(lines(tmp_path / "log")) == {"in"}
    store = Store(tmp_path / "store")
    assert living(store) == []
    with Owner(store, "last") as owner:
        assert owner.take("it")


# --- sections --------------------------------------------------------------------------------------------


def test_a_section_is_for_one_at_a_time(store):
    path = store.path / "number"
    store.path.mkdir()
    path.write_text("0")

    def add():
        for _ in range(10):
            with exclusive(store, "number"):
                number = int(path.read_text())
                time.sleep(0.001)
                path.write_text(str(number + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "40"
    assert list((store.path / "owners").iterdir()) == []


def test_a_section_that_stays_taken_is_a_sentence(store):
    with exclusive(store, "releases"):
        with pytest.raises(StoreError) as caught, exclusive(store, "releases", wait_s=0.1):
            pass
        with exclusive(store, "lock", wait_s=0.1):
            pass
    assert str(caught.value) == (
        f"{store.path}: process {os.getpid()} on {socket.gethostname()} is using it (releases). "
        "Wait for it, or stop it."
    )


def test_a_section_left_by_a_dead_process_elsewhere_opens_when_its_silence_is_long_enough(store, quick):
    held_elsewhere(store, "releases", f"{leases.SECTION}releases-1")
    with exclusive(store, "releases", wait_s=0.0):
        pass


def test_sections_are_no_runs(store):
    with exclusive(store, "releases"):
        assert living(store) == []
        assert len(living(store, sections=True)) == 1


def test_no_run_starts_while_the_store_is_cleaned(store, monkeypatch):
    monkeypatch.setattr(leases, "WAIT_S", 0.1)
    with (
        exclusive(store, leases.CARE),
        pytest.raises(StoreError, match=r"is being cleaned up by process \d+ on .*\. Wait for it\."),
        Owner(store, "r1"),
    ):
        pass
    assert living(store) == []
    with Owner(store, "r1"):
        pass
