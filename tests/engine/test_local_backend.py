"""Jobs in processes: signals, deaths, environments, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import wait

import pytest
from toys import ENV, HERE, Heard, alive, do, lines, local, looked_at, step, wait_for
from witness import parent, press_when

from sabir.engine.backends.local import LocalBackend, cpu_slots, gpu_slots
from sabir.engine.leases import Owner, leases
from sabir.engine.run import TRIES, _Loop, run
from sabir.engine.steps import Graph


def result_of(store, made):
    return store.record(Graph([made]).fingerprints[made.name])["result"]


# --- where a job runs ------------------------------------------------------------------------------------


def test_slots_share_the_cores_and_never_less_than_one_thread():
    assert dict(cpu_slots(2, 8)[0].env)["OMP_NUM_THREADS"] == "4"
    assert dict(cpu_slots(3, 2)[0].env)["OMP_NUM_THREADS"] == "1"
    assert [slot.device_name for slot in gpu_slots(["0", "3"], 16)] == ["cuda:0", "cuda:3"]
    assert dict(gpu_slots(["0", "3"], 16)[1].env)["CUDA_VISIBLE_DEVICES"] == "3"
    assert dict(gpu_slots(["0", "3"], 16)[1].env)["MKL_NUM_THREADS"] == "8"


def test_a_job_has_the_thread_caps_and_variables_of_its_slot_and_backend(store):
    (slot,) = cpu_slots(1, 3)
    slot = type(slot)("cpu", "cpu", (*slot.env, ("COLOUR", "of the slot")))
    env = {**ENV, "COLOUR": "of the backend", "SHARED": "yes"}
    made = step("a", "surroundings")
    do([made], store, LocalBackend([slot], env=env, log=store.path / "server.txt"))
    assert result_of(store, made) == {
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "COLOUR": "of the slot",
        "SHARED": "yes",
        "preloaded": False,
    }


def test_what_a_job_prints_is_in_its_log(store):
    result = do([step("a", "wrong", args={"error": "value"})], store, local(store))
    log = result.failed["a"].log
    assert log.name == "log.txt"
    assert "something in the log" in log.read_text()
    assert "ValueError: no such number" in log.read_text()


def test_a_slow_module_is_imported_once_for_all_jobs_and_cheap_ones_do_not_wait_for_it(store, tmp_path):
    imports = tmp_path / "imports"
    env = {"IMPORTS": str(imports), "IMPORT_S": "1"}
    heavy = [step(f"heavy {i}", "surroundings", preload="toys_preload", priority=2 * i) for i in range(3)]
    cheap = [step(f"cheap {i}", "surroundings", priority=1) for i in range(3)]
    result = do([*heavy, *cheap], store, local(store, workers=2, env=env))
    assert len(lines(imports)) == 1
    assert result.ran[:3] == ["cheap 0", "cheap 1", "cheap 2"]
    assert all(result_of(store, made)["preloaded"] for made in heavy)
    assert not any(result_of(store, made)["preloaded"] for made in cheap)


def test_no_server_is_started_before_a_job_needs_it(store, tmp_path):
    backend = local(store, env={"IMPORTS": str(tmp_path / "imports")})
    do([step("a")], store, backend)
    assert lines(tmp_path / "imports") == []


# --- deaths ----------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_tried_again(store, diary):
    result = do([step("a", "die", args={"diary": str(diary), "deaths": 1})], store, local(store))
    assert result.ran == ["a"]
    assert lines(diary) == ["tried"] * 2


def test_a_worker_that_is_killed_each_time_fails_with_the_signal_named(store, diary):
    result = do([step("a", "die", args={"diary": str(diary), "deaths": 9})], store, local(store))
    assert result.failed["a"].message == "its process was killed by signal SIGKILL."
    assert lines(diary) == ["tried"] * TRIES


def test_an_exception_is_not_tried_again(store, diary):
    result = do([step("a", "wrong", args={"diary": str(diary), "error": "value"})], store, local(store))
    assert result.failed["a"].message == "ValueError: no such number."
    assert lines(diary) == ["tried"]


def test_a_killed_server_is_replaced_and_in_the_end_the_run_fails_instead_of_hanging(store, diary):
    steps = [step("a", "killed_server", args={"diary": str(diary)}), step("b", priority=1)]
    result = do(steps, store, local(store))
    assert result.failed["a"].message == "its process was killed by signal SIGKILL."
    assert lines(diary) == ["tried"] * TRIES
    assert result.ran == ["b"]


@pytest.mark.parametrize("preload", ["no_such_module", "toys_preload"])  # the latter wants IMPORTS
def test_a_server_that_cannot_import_fails_its_jobs_with_a_sentence(store, preload):
    steps = [step("a", preload=preload), step("b", preload=preload), step("c")]
    result = do(steps, store, local(store))
    log = store.path / "server.txt"
    for name in "ab":
        assert result.failed[name].message == (
            f"the server that starts the jobs ended with code 1. It says why in {log}."
        )
    assert result.ran == ["c"]
    assert "Error" in log.read_text()


def test_a_job_for_a_server_that_died_while_idle_runs_on_another(store):
    backend = local(store)
    assert do_open(Graph([step("a")]), store, backend).ran == ["a"]
    (server,) = backend._servers.values()
    server._process.kill()
    wait_for(lambda: server.killed)
    assert do([step("b")], store, backend).ran == ["b"]


def do_open(graph, store, backend):
    """Run, and leave the backend open."""
    with Owner(store, "open") as owner:
        return run(
            graph, looked_at(graph, store), store, backend, run_id="open", listener=Heard(), owner=owner
        )


# --- Ctrl-C ----------------------------------------------------------------------------------------------


def test_one_interrupt_lets_jobs_save_and_the_next_run_goes_on(store, diary):
    steps = [step("a", "graceful", args={"diary": str(diary)}, resumable=True), step("b", deps={"x": "a"})]
    heard = Heard()
    presser = press_when(lambda: lines(diary))
    result = do(steps, store, local(store), listener=heard)
    presser.join()
    assert (result.interrupted, result.ran, result.failed, result.blocked) == (True, [], {}, ["b", "a"])
    assert heard.said[-1] == "stopping"
    assert do(steps, store, local(store), run_id="next").ran == ["a", "b"]
    assert result_of(store, steps[0]) == {"resumed": True}


def test_two_interrupts_kill_jobs_that_do_not_listen_and_their_children(store, diary):
    began = time.monotonic()
    presser = press_when(lambda: lines(diary), times=2)
    result = do([step("a", "stubborn", args={"diary": str(diary)})], store, local(store))
    presser.join()
    assert (result.interrupted, result.ran, result.failed) == (True, [], {})
    assert time.monotonic() - began < 30
    assert not any(alive(int(pid)) for pid in lines(diary)[0].split())


def test_two_interrupts_do_not_wait_for_an_import(store, tmp_path):
    imports = tmp_path / "imports"
    backend = local(store, env={"IMPORTS": str(imports), "IMPORT_S": "60"})
    presser = press_when(lambda: lines(imports), times=2)
    began = time.monotonic()
    result = do([step("a", preload="toys_preload")], store, backend)
    presser.join()
    assert result.interrupted
    assert time.monotonic() - began < 30


# --- nothing is left behind ------------------------------------------------------------------------------

COORDINATOR = """
import sys
from pathlib import Path
from toys import do, local, step
from sabir.engine.store import Store

store = Store(sys.argv[1])
steps = [step(name, "stubborn", args={"diary": sys.argv[2] + name}) for name in "ab"]
do(steps, store, local(store, workers=2))
"""


def test_workers_die_when_the_coordinator_is_killed_and_its_steps_are_free(store, tmp_path):
    diaries = [tmp_path / f"diary{name}" for name in "ab"]
    coordinator = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, store.path, tmp_path / "diary"],
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    try:
        wait_for(lambda: all(lines(diary) for diary in diaries))
        pids = [int(pid) for diary in diaries for pid in lines(diary)[0].split()]
        servers = {parent(pid) for pid in pids[::2]}
        assert len(pids) == 4
        assert all(alive(pid) for pid in [*pids, *servers])
    finally:
        coordinator.kill()
        coordinator.wait()
    wait_for(lambda: not any(alive(pid) for pid in [*pids, *servers]))
    with Owner(store, "next") as owner:
        assert [owner.take(what) for what in leases(store)] == [True, True]


IMPORTER = """
import sys
from toys import do, local, step
from sabir.engine.store import Store

store = Store(sys.argv[1])
do([step("a", preload="toys_preload")], store, local(store))
"""


def test_a_server_in_the_middle_of_an_import_dies_with_the_coordinator(store, tmp_path):
    imports = tmp_path / "imports"
    coordinator = subprocess.Popen(
        [sys.executable, "-c", IMPORTER, store.path],
        env={**os.environ, "PYTHONPATH": str(HERE), "IMPORTS": str(imports), "IMPORT_S": "60"},
    )
    try:
        (server,) = map(int, wait_for(lambda: lines(imports)))
    finally:
        coordinator.kill()
        coordinator.wait()
    wait_for(lambda: not alive(server))


def test_closing_ends_running_jobs_and_the_server(store, diary):
    backend = local(store)
    graph = Graph([step("a", "stubborn", args={"diary": str(diary)})])
    with Owner(store, "run") as owner:
        loop = _Loop(graph, looked_at(graph, store), store, backend, "run", Heard(), owner)
        loop._start_ready()
        pids = [int(pid) for pid in wait_for(lambda: lines(diary))[0].split()]
        backend.close()
    done, _ = wait(loop.running, timeout=5)
    assert [future.result() for future in done] == [-signal.SIGKILL]
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_many_small_jobs_all_end(store):
    result = do([step(f"{i:02d}") for i in range(20)], store, local(store, workers=4))
    assert len(result.ran) == 20


SUICIDE = """
import os, signal, sys
from pathlib import Path
from sabir.engine.backends.local import LocalBackend, cpu_slots
backend = LocalBackend(cpu_slots(1, 1), env={}, log=Path(sys.argv[1]) / "server.txt")
backend.submit(Path(sys.argv[1]) / "job.json", backend.slots[0], "toys_preload")
print(backend._servers["toys_preload"]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_whose_coordinator_died_before_it_could_look_ends_too(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(HERE), "IMPORTS": str(tmp_path / "i"), "IMPORT_S": "60"}
    done = subprocess.run(
        [sys.executable, "-c", SUICIDE, tmp_path], env=env, stdout=subprocess.PIPE, check=False
    )
    wait_for(lambda: not alive(int(done.stdout)))
