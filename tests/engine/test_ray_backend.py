"""A Ray cluster of this machine: the same as on one machine, and what is lost when processes die."""

from __future__ import annotations

import errno
import json
import os
import signal
from concurrent.futures import wait
from dataclasses import replace

import pytest
from toys import ENV, Heard, alive, do, lines, local, step, wait_for
from witness import press_when

from sabir.engine.backends.ray import RayBackend
from sabir.engine.leases import Owner
from sabir.engine.run import TRIES, _Loop
from sabir.engine.steps import Graph
from sabir.engine.store import Store
from sabir.engine.why import assess
from sabir.errors import InputError, StoreError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def connected():
    """One cluster for all tests of this module, with two GPUs that are not there."""
    import ray

    ray.init(
        "local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="CRITICAL",
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def backend(connected, store):
    """Makes backends on that cluster."""

    def make(workers=1, device="cpu", env=None, **rest):
        return RayBackend(
            None,
            workers=workers,
            device=device,
            env={**ENV, **(env or {})},
            store_path=store.path,
            log=store.path / "server.txt",
            **rest,
        )

    return make


def result_of(store, made):
    return store.record(Graph([made]).fingerprints[made.name])["result"]


def ray_step(name, function, **rest):
    return replace(step(name, **rest), run=f"ray_toys:{function}")


# --- the same as on one machine --------------------------------------------------------------------------


def test_results_and_what_is_heard_are_those_of_the_local_backend(backend, store, tmp_path):
    steps = [
        step("a"),
        step("b", deps={"x": "a"}),
        step("c", deps={"x": "a", "y": "b"}, preload="toys_preload"),
    ]
    env = {"IMPORTS": str(tmp_path / "imports"), "IMPORT_S": "0"}
    there, elsewhere = Heard(), Store(tmp_path / "local")
    here = Heard()
    do(steps, store, backend(env=env), listener=there)
    do(steps, elsewhere, local(elsewhere, env=env), listener=here)
    assert there.said == here.said
    for fingerprint in Graph(steps).fingerprints.values():
        ours, theirs = store.record(fingerprint), elsewhere.record(fingerprint)
        for key in ("fingerprint", "settings", "deps", "result", "files", "versions"):
            assert ours[key] == theirs[key]


def test_a_job_has_the_thread_caps_and_variables_of_its_slot_and_backend(backend, store):
    made = step("a", "surroundings")
    do([made], store, backend(cpus=2, env={"SHARED": "yes"}))
    found = result_of(store, made)
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["SHARED"]) == ("2", "2", "yes")


def test_jobs_side_by_side_see_a_gpu_each_and_the_server_stays_for_the_next_ones(backend, store, diary):
    together = [ray_step(n, "visible", args={"diary": str(diary), "together": 2}) for n in "ab"]
    later = [ray_step(n, "visible", args={"diary": str(diary), "together": 2}, priority=1) for n in "cdef"]
    places = backend(device="auto", workers=None)
    assert [(slot.device, slot.gpus) for slot in places.slots] == [("cuda", 1)] * 2
    do([*together, *later], store, places)
    assert {result_of(store, made)["gpu"] for made in together} == {"0", "1"}
    assert len({result_of(store, made)["server"] for made in [*together, *later]}) == 2


def test_what_a_job_prints_is_in_its_log(backend, store):
    result = do([step("a", "wrong", args={"error": "value"})], store, backend())
    assert result.failed["a"].message == "ValueError: no such number."
    assert "something in the log" in result.failed["a"].log.read_text()


def test_a_server_that_cannot_import_fails_its_jobs_with_the_place_of_its_log(backend, store):
    result = do([step("a", preload="no_such_module"), step("b")], store, backend())
    (log,) = store.path.glob("server-*.txt")
    assert str(log) in result.failed["a"].message
    assert "no_such_module" in log.read_text()
    assert result.ran == ["b"]


def test_more_workers_than_fit_wait_their_turn(backend, store):
    assert len(do([step(str(i)) for i in range(9)], store, backend(workers=5)).ran) == 9


# --- deaths ----------------------------------------------------------------------------------------------


def test_a_job_that_is_killed_is_tried_again(backend, store, diary):
    result = do([step("a", "die", args={"diary": str(diary), "deaths": 1})], store, backend())
    assert result.ran == ["a"]
    assert lines(diary) == ["tried"] * 2


def test_a_job_that_is_killed_each_time_fails_with_the_signal_named(backend, store, diary):
    result = do([step("a", "die", args={"diary": str(diary), "deaths": 9})], store, backend())
    assert result.failed["a"].message == "its process was killed by signal SIGKILL."
    assert lines(diary) == ["tried"] * TRIES


def test_when_the_worker_of_ray_is_killed_its_job_ends_with_it_and_is_tried_again(backend, store, diary):
    result = do([ray_step("a", "ray_worker_dies", args={"diary": str(diary)})], store, backend())
    assert result.ran == ["a"]
    first, second = map(int, lines(diary))
    assert first != second
    wait_for(lambda: not alive(first))


def test_an_exception_is_not_tried_again(backend, store, diary):
    result = do([step("a", "wrong", args={"diary": str(diary), "error": "input"})], store, backend())
    assert result.failed["a"].message == "data/ja.jsonl, line 412: field 'output' is empty. Drop the row."
    assert lines(diary) == ["tried"]


def test_out_of_memory_as_ray_says_it_is_tried_once_more_with_half_the_work(connected, backend, store):
    def out_of_memory(*_):
        import ray

        raise ray.exceptions.OutOfMemoryError("the node was running low on memory")

    places = backend()
    places._task = connected.remote(max_retries=0)(out_of_memory)
    assert places.submit(store.path / "job.json", places.slots[0], None).result() == errno.ENOMEM
    result = do([step("a")], store, places)
    assert list(result.failed) == ["a"]
    jobs = [json.loads(path.read_bytes()) for path in sorted(store.path.glob("jobs/run/*/job.json"))]
    assert [job["steps"][0]["halvings"] for job in jobs] == [0, 1]


def test_a_node_that_does_not_see_a_job_fails_it_with_a_sentence(backend, store):
    places = backend()
    store.path.mkdir(exist_ok=True)
    assert places.submit(store.path / "job.json", places.slots[0], None).result() == 1
    assert json.loads((store.path / "error.json").read_bytes()) == {
        "where": str(store.path / "job.json"),
        "message": f"the node {os.uname().nodename} does not see it.",
        "fix": "Every node must see the store at this path.",
    }


def test_data_that_a_node_does_not_see_is_said_before_anything_runs(backend, store, tmp_path):
    with pytest.raises(InputError, match=r"absent: the node [0-9.]+ does not see it"):
        backend(reads=[tmp_path, tmp_path / "absent"])


def test_a_store_that_cannot_be_written_is_said(backend, store):
    store.path.write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        backend()


# --- Ctrl-C ----------------------------------------------------------------------------------------------


def test_one_interrupt_lets_jobs_save_and_the_next_run_goes_on(backend, store, diary):
    steps = [step("a", "graceful", args={"diary": str(diary)}, resumable=True), step("b", deps={"x": "a"})]
    presser = press_when(lambda: lines(diary))
    result = do(steps, store, backend(), run_id="first")
    presser.join()
    assert (result.interrupted, result.ran, result.failed) == (True, [], {})
    assert do(steps, store, backend(), run_id="second").ran == ["a", "b"]
    assert result_of(store, steps[0]) == {"resumed": True}


def test_two_interrupts_kill_jobs_that_do_not_listen_and_their_children(backend, store, diary):
    presser = press_when(lambda: lines(diary), times=2)
    result = do([step("a", "stubborn", args={"diary": str(diary)})], store, backend())
    presser.join()
    assert (result.interrupted, result.ran, result.failed) == (True, [], {})
    wait_for(lambda: not any(alive(int(pid)) for pid in lines(diary)[0].split()))


def test_two_interrupts_do_not_wait_for_an_import_or_for_a_job_that_has_no_place_yet(
    backend, store, tmp_path
):
    imports = tmp_path / "imports"
    env = {"IMPORTS": str(imports), "IMPORT_S": "60"}
    steps = [step(str(i), preload="toys_preload") for i in range(4)]
    presser = press_when(lambda: lines(imports), times=2)
    result = do(steps, store, backend(workers=4, env=env))
    presser.join()
    assert (result.interrupted, result.ran, result.failed) == (True, [], {})


# --- nothing is left behind ------------------------------------------------------------------------------


def test_closing_kills_what_runs_and_leaves_the_connection_to_whom_it_belongs(
    connected, backend, store, diary
):
    places = backend()
    graph = Graph([step("a", "stubborn", args={"diary": str(diary)})])
    with Owner(store, "run") as owner:
        loop = _Loop(graph, assess(graph, store, {}), store, places, "run", Heard(), owner)
        loop._start_ready()
        pids = [int(pid) for pid in wait_for(lambda: lines(diary))[0].split()]
        places.close()
    done, _ = wait(loop.running, timeout=5)
    assert [future.result() for future in done] == [-signal.SIGKILL]
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert connected.is_initialized()
