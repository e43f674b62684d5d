"""The loop: order, batches, failures. Results are the same on every backend."""

from __future__ import annotations

import errno
import json
import os
import signal
from concurrent.futures import Future
from pathlib import Path

import pytest
from toys import Heard, do, lines, local, step

from sabir.engine.backends.inline import InlineBackend
from sabir.engine.leases import Owner
from sabir.engine.steps import Graph, Part
from sabir.errors import StoreError


@pytest.fixture(params=["inline", "local"])
def backend(request, store):
    return InlineBackend() if request.param == "inline" else local(store)


def record(store, made):
    return store.record(Graph([made]).fingerprints[made.name])


# --- what every backend does -----------------------------------------------------------------------------


def test_steps_run_once_each_below_before_above_and_leave_their_output_and_record(store, backend, diary):
    args = {"diary": str(diary)}
    rows = step("rows", settings={"train": "t"}, parts={"train": "t"}, args=args)
    steps = [
        step("top", deps={"left": "left", "right": "right"}, args=args),
        step("left", deps={"rows": Part("rows", "train")}, args=args, size=3.0),
        step("right", deps={"rows": "rows"}, args=args, version=2),
        rows,
    ]
    heard = Heard()
    result = do(steps, store, backend, listener=heard)
    assert lines(diary) == result.ran == ["rows", "left", "right", "top"]
    assert (result.failed, result.blocked, result.interrupted) == ({}, [], False)
    prints = Graph(steps).fingerprints
    top = json.loads((store.folder(prints["top"]) / "out.txt").read_text())
    assert set(top["below"]) == {"left", "right"}
    assert json.loads(json.loads(top["below"]["left"])["below"]["rows"])["settings"] == {"train": "t"}
    made = store.record(prints["left"])
    assert {
        key: made[key] for key in ("name", "kind", "version", "settings", "deps", "parts", "result", "run")
    } == {
        "name": "left",
        "kind": "toy",
        "version": 1,
        "settings": {"value": "left"},
        "deps": {"rows": "t"},
        "parts": {},
        "result": {"value": "left"},
        "run": "run",
    }
    assert made["fingerprint"] == prints["left"]
    assert (made["cost"]["tokens"], made["cost"]["size"]) == (7, 3.0)
    assert made["cost"]["wall_s"] >= 0
    assert made["cost"]["peak_bytes"] > 1e6
    assert made["versions"]["python"].startswith("3.")
    assert heard.said[:3] == ["start rows", "progress rows 1/1", "finish rows"]
    again = do(steps, store, InlineBackend())
    assert again.ran == []
    assert lines(diary) == ["rows", "left", "right", "top"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("value", "ValueError: no such number."),
        ("input", "data/ja.jsonl, line 412: field 'output' is empty. Drop the row."),
        ("own", "3 of 4 rows have no answer."),  # the step's name stands beside it
        ("full", "the disk is full. Free some space."),
        ("full in a library", "the disk is full. Free some space."),
    ],
)
def test_an_exception_arrives_as_a_sentence_after_one_try(store, diary, error, message):
    args = {"diary": str(diary), "error": error}
    result = do([step("a", "wrong", args=args)], store, InlineBackend())
    failure = result.failed["a"]
    assert failure.message == message
    assert lines(diary) == ["tried"]
    assert "Traceback" in json.loads((failure.log.parent / "error.json").read_text())["trace"]


def test_a_failure_names_its_log_and_blocks_only_what_stands_on_it(store, backend, diary):
    args = {"diary": str(diary), "error": "value"}
    steps = [
        step("bad", "wrong", args=args, priority=0),
        step("above", deps={"x": "bad"}),
        step("top", deps={"x": "above", "y": "good"}),
        step("good", priority=1),
        step("beside", deps={"x": "good"}),
    ]
    heard = Heard()
    result = do(steps, store, backend, listener=heard)
    failure = result.failed["bad"]
    assert result.ran == ["good", "beside"]
    assert sorted(failure.blocked) == sorted(result.blocked) == ["above", "top"]
    assert failure.message == "ValueError: no such number."
    assert failure.log.is_file()
    assert 0 <= failure.wall_s < 60
    assert "fail bad" in heard.said
    assert lines(diary) == ["tried"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", "RuntimeError: toys:absent ended without finishing ['a']."),
        (
            "stranger",
            "RuntimeError: toys:stranger finished 'somebody', which was not asked of it or is done.",
        ),
        ("no_such", "AttributeError: module 'toys' has no attribute 'no_such'."),
    ],
)
def test_a_work_function_that_breaks_its_word_is_named(store, function, message):
    result = do([step("a", function)], store, InlineBackend())
    assert result.failed["a"].message == message


def test_a_work_function_that_exits_fails_and_nothing_more(store, backend, diary):
    args = {"diary": str(diary), "error": "exit"}
    result = do([step("a", "wrong", args=args, priority=-1), step("b")], store, backend)
    assert result.failed["a"].message == "SystemExit: 3."
    assert (result.ran, result.interrupted) == (["b"], False)


# --- batches ---------------------------------------------------------------------------------------------


def batch(names, diary, **rest):
    return [step(n, "together", batch="b", args={"diary": str(diary)}, **rest) for n in names]


def test_ready_steps_of_one_key_share_a_job(store, backend, diary):
    other = step("z", "together", batch="c", args={"diary": str(diary)}, priority=1)
    result = do([*batch("abc", diary), other], store, backend)
    assert lines(diary) == ["a+b+c", "z"]
    assert sorted(result.ran) == ["a", "b", "c", "z"]


def test_a_batch_is_split_over_the_free_slots(store, diary):
    do(batch("abcde", diary), store, local(store, workers=2))
    assert sorted(lines(diary)) == ["a+b+c", "d+e"]


def test_steps_of_other_functions_never_share_a_job(store, diary):
    steps = [step("a", batch="b"), step("c", "together", batch="b", args={"diary": str(diary)})]
    heard = Heard()
    do(steps, store, InlineBackend(), listener=heard)
    assert [said for said in heard.said if said.startswith("start")] == ["start a", "start c"]


def test_the_smaller_priority_starts_first_then_the_larger_size(store, diary):
    args = {"diary": str(diary)}
    steps = [
        step("late", args=args, priority=2, size=9.0),
        step("small", args=args, priority=1, size=1.0),
        step("large", args=args, priority=1, size=2.0),
        step("unknown", args=args, priority=1),
    ]
    do(steps, store, InlineBackend())
    assert lines(diary) == ["large", "small", "unknown", "late"]


def test_what_a_failing_batch_finished_is_kept_and_the_rest_is_tried_alone(store, backend, diary):
    steps = batch("abcd", diary)
    steps[1] = step("b", "together", batch="b", args={"diary": str(diary), "fail": True})
    result = do(steps, store, backend)
    assert lines(diary) == ["a+b+c+d", "b", "c", "d"]
    assert sorted(result.ran) == ["a", "c", "d"]
    assert result.failed["b"].message == "ValueError: b is broken."


# --- the same work under two names -----------------------------------------------------------------------


def test_two_names_of_one_fingerprint_are_run_once_and_both_are_done(store, diary):
    def twin(name, **rest):
        return step(name, settings={"same": 1}, args={"diary": str(diary)}, **rest)

    heard = Heard()
    steps = [twin("a"), twin("b"), step("on a", deps={"x": "a"}), step("on b", settings={}, deps={"x": "b"})]
    result = do(steps, store, local(store, workers=2), listener=heard)
    assert lines(diary) == ["a"]
    assert sorted(result.ran) == ["a", "on a", "on b"]
    assert result.blocked == []
    assert {"finish a", "finish b"} <= set(heard.said)


def test_two_names_of_one_fingerprint_fail_together(store, diary):
    args = {"diary": str(diary), "error": "value"}
    steps = [step(n, "wrong", settings={}, args=args) for n in "ab"]
    steps += [step("on a", deps={"x": "a"}), step("on b", deps={"x": "b"})]
    result = do(steps, store, InlineBackend())
    assert lines(diary) == ["tried"]
    assert set(result.failed) == {"a", "b"}
    assert sorted(result.blocked) == sorted(result.failed["b"].blocked) == ["on a", "on b"]


# --- the folders of jobs ---------------------------------------------------------------------------------


def test_a_run_that_comes_back_with_its_id_reuses_no_folder(store):
    """What a first pass said (events, errors) must not be taken for the second's."""
    first = do([step("a", "wrong", args={"error": "value"})], store, InlineBackend())
    heard = Heard()
    second = do([step("b")], store, InlineBackend(), listener=heard)
    assert first.failed["a"].message == "ValueError: no such number."
    assert second.ran == ["b"]
    assert heard.said == ["start b", "progress b 1/1", "finish b"]
    assert sorted(path.name for path in (store.path / "jobs" / "run").iterdir()) == ["0000", "0001"]


def test_an_event_that_is_being_written_is_read_when_it_is_whole(store):
    class Slowly(InlineBackend):
        """Ends its job while the last event is half written, as a killed process may."""

        def submit(self, job_file, slot, preload):
            future = super().submit(job_file, slot, preload)
            with open(job_file.parent / "events.jsonl", "ab") as file:
                file.write(b'{"event": "progress", "step": "\xc3')
            return future

    heard = Heard()
    result = do([step("a")], store, Slowly(), listener=heard)
    assert result.ran == ["a"]
    assert heard.said == ["start a", "progress a 1/1", "finish a"]


def test_a_full_disk_under_the_loop_itself_is_a_sentence(store):
    class Full(InlineBackend):
        def submit(self, job_file, slot, preload):
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"the disk is full\. Free some space\."):
        do([step("a")], store, Full())


@pytest.mark.parametrize("call", ["mkdir", "write_text"])
def test_a_full_disk_under_the_files_of_a_job_is_a_sentence(store, monkeypatch, call):
    plain = getattr(Path, call)

    def full(path, *args, **rest):
        if "jobs" in path.parts:
            raise OSError(28, "No space left on device", str(path))
        return plain(path, *args, **rest)

    monkeypatch.setattr(Path, call, full)
    with pytest.raises(StoreError) as caught:
        do([step("a")], store, InlineBackend())
    assert str(caught.value) == f"{store.path}: the disk is full. Free some space."


def test_a_job_names_its_attempt_after_run_and_number(store):
    do([step("a"), step("b")], store, InlineBackend(), run_id="r1")
    jobs = [json.loads(path.read_text()) for path in sorted((store.path / "jobs" / "r1").glob("*/job.json"))]
    assert [job["token"] for job in jobs] == ["r1-0000", "r1-0001"]
    assert record(store, step("b"))["job"] == "r1-0001"


# --- workers that die, memory that is short --------------------------------------------------------------


class Ending(InlineBackend):
    """Ends its first jobs with these codes and does no work in them."""

    def __init__(self, *codes):
        super().__init__()
        self.codes = list(codes)
        self.jobs = []

    def submit(self, job_file, slot, preload):
        self.jobs.append([spec["name"] for spec in json.loads(job_file.read_text())["steps"]])
        if not self.codes:
            return super().submit(job_file, slot, preload)
        future = Future()
        future.set_result(self.codes.pop(0))
        return future


def test_a_step_whose_process_is_killed_is_tried_three_times(store):
    assert do([step("a")], store, Ending(-9, -9)).ran == ["a"]
    backend = Ending(-9, -9, -9, -9)
    result = do([step("b")], store, backend)
    assert result.failed["b"].message == "its process was killed by signal SIGKILL."
    assert len(backend.jobs) == 3


def test_what_ran_out_of_memory_is_tried_once_more_with_half_at_a_time(store):
    made = step("a", "halved")
    assert do([made], store, Ending(errno.ENOMEM)).ran == ["a"]
    assert record(store, made)["result"] == {"halvings": 1}
    never = step("b", "halved")
    do([never], store, InlineBackend())
    assert record(store, never)["result"] == {"halvings": 0}


def test_what_runs_out_of_memory_twice_fails_with_a_sentence(store):
    backend = Ending(errno.ENOMEM, errno.ENOMEM, errno.ENOMEM)
    result = do([step("a")], store, backend)
    assert result.failed["a"].message == "out of memory, also with half as much at a time."
    assert len(backend.jobs) == 2


def test_only_the_step_that_ran_out_of_memory_is_halved(store):
    steps = [step(name, "halved", batch="b") for name in "ab"]
    backend = Ending(errno.ENOMEM, errno.ENOMEM)
    assert sorted(do(steps, store, backend).ran) == ["a", "b"]
    assert backend.jobs == [["a", "b"], ["a"], ["b"], ["a"]]
    assert [record(store, made)["result"]["halvings"] for made in steps] == [1, 0]


@pytest.mark.parametrize("code", [1, 3, 28])
def test_other_ends_are_final(store, code):
    backend = Ending(code)
    assert "a" in do([step("a")], store, backend).failed
    assert len(backend.jobs) == 1


# --- another run on the same store -----------------------------------------------------------------------


class Meanwhile(Heard):
    """Does something as soon as a step is found to be made elsewhere."""

    def __init__(self, deed):
        super().__init__()
        self.deed = deed

    def elsewhere(self, step, holder):
        super().elsewhere(step, holder)
        self.deed(step)


def commit(store, fingerprint, run_id="other"):
    folder = store.partial(fingerprint, token=f"{run_id}-0000", keep=False)
    (folder / "out.txt").write_text("made by another")
    store.commit(fingerprint, f"{run_id}-0000", {"name": "a", "run": run_id})


def test_a_step_that_another_run_makes_is_waited_for_and_not_made_again(store, diary):
    steps = [step(n, args={"diary": str(diary)}) for n in "ab"]
    steps.append(step("top", deps={"x": "a"}, args={"diary": str(diary)}))
    a = Graph(steps).fingerprints["a"]
    with Owner(store, "other") as other:
        other.take(a)

        def finish(_):
            commit(store, a)
            other.give(a)

        heard = Meanwhile(finish)
        result = do(steps, store, InlineBackend(), listener=heard)
    assert result.ran == ["b", "top"]
    assert (result.failed, result.blocked) == ({}, [])
    assert lines(diary) == ["b", "top"]
    assert [said for said in heard.said if said.startswith("elsewhere")] == [
        f"elsewhere a: run other (process {os.getpid()} on {os.uname().nodename})"
    ]
    assert "finish a" in heard.said


def test_a_step_that_another_run_gave_up_is_made_here(store, diary):
    made = step("a", args={"diary": str(diary)})
    a = Graph([made]).fingerprints["a"]
    with Owner(store, "other") as other:
        other.take(a)
        result = do([made], store, InlineBackend(), listener=Meanwhile(lambda _: other.give(a)))
    assert result.ran == lines(diary) == ["a"]


def test_a_step_that_was_finished_since_the_plan_is_not_made_again(store, diary):
    steps = [step("a", args={"diary": str(diary)}), step("b", args={"diary": str(diary)}, priority=-1)]
    a = Graph(steps).fingerprints["a"]

    class Finishing(Heard):
        def started(self, steps, slot):
            super().started(steps, slot)
            commit(store, a)

    heard = Finishing()
    result = do(steps, store, InlineBackend(), listener=heard)
    assert result.ran == lines(diary) == ["b"]
    assert heard.said[-1] == "finish a"
    assert (store.folder(a) / "out.txt").read_text() == "made by another"


def test_a_job_leaves_out_what_a_dying_process_finished_before_it_began(store, diary):
    steps = [step(n, "together", batch="b", args={"diary": str(diary)}) for n in "ab"]
    a = Graph(steps).fingerprints["a"]

    class Late(InlineBackend):
        def submit(self, job_file, slot, preload):
            commit(store, a)
            return super().submit(job_file, slot, preload)

    assert sorted(do(steps, store, Late()).ran) == ["a", "b"]
    assert lines(diary) == ["b"]
    store.discard(store.folder(a))
    do([step("a", "wrong", args={"diary": str(diary), "error": "value"})], store, Late(), run_id="again")
    assert lines(diary) == ["b"]
    assert not (store.path / "jobs" / "again" / "0000" / "error.json").exists()


def test_two_names_of_one_step_that_another_run_makes_are_both_done(store):
    steps = [step(n, settings={"same": 1}) for n in "ab"]
    a = Graph(steps).fingerprints["a"]
    with Owner(store, "other") as other:
        other.take(a)
        heard = Meanwhile(lambda _: commit(store, a))
        result = do([*steps, step("on b", deps={"x": "b"})], store, InlineBackend(), listener=heard)
    assert (result.ran, result.blocked) == (["on b"], [])
    assert {"finish a", "finish b"} <= set(heard.said)


def test_a_run_that_was_taken_for_dead_leaves_its_step_to_the_heir_and_does_not_fail(store):
    made = step("a")
    a = Graph([made]).fingerprints["a"]
    other = Owner(store, "other")

    class Robbed(InlineBackend):
        """Loses its lease in the middle of a job, which then fails to write."""

        def submit(self, job_file, slot, preload):
            (store.path / "leases" / a / "run").rename(store.path / "leases" / a / "other")
            future = Future()
            future.set_result(1)
            return future

    with other:
        heard = Meanwhile(lambda _: commit(store, a))
        result = do([made], store, Robbed(), listener=heard)
    assert (result.ran, result.failed, result.blocked) == ([], {}, [])
    assert store.record(a)["run"] == "other"


def test_no_lease_is_held_when_a_run_is_over(store, diary):
    steps = [step("bad", "wrong", args={"diary": str(diary), "error": "value"}), step("good")]
    with Owner(store, "watch") as watch:

        class Looking(Heard):
            def finished(self, step):
                assert watch.holder(Graph(steps).fingerprints[step.name]) is None

            def failed(self, step, failure):
                assert watch.holder(Graph(steps).fingerprints[step.name]) is None

        do(steps, store, InlineBackend(), listener=Looking())
    assert list((store.path / "leases").iterdir()) == []


def test_an_interrupt_ends_the_waiting_for_another_run(store):
    made = step("a")
    a = Graph([made]).fingerprints["a"]
    with Owner(store, "other") as other:
        other.take(a)
        heard = Meanwhile(lambda _: os.kill(os.getpid(), signal.SIGINT))
        result = do([made], store, InlineBackend(), listener=heard)
    assert (result.interrupted, result.blocked) == (True, ["a"])


# --- Ctrl-C inline ---------------------------------------------------------------------------------------


class Press(Heard):
    """Interrupts when a step says something."""

    def progress(self, step, event):
        super().progress(step, event)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_in_the_middle_of_the_bookkeeping_loses_nothing(store, diary):
    before = signal.getsignal(signal.SIGINT)
    steps = [step(n, args={"diary": str(diary)}) for n in "abc"]
    heard = Press()
    result = do(steps, store, InlineBackend(), listener=heard)
    assert (result.interrupted, result.ran, result.blocked) == (True, ["a"], ["b", "c"])
    assert signal.getsignal(signal.SIGINT) is before
    assert do(steps, store, InlineBackend()).ran == ["b", "c"]


def test_an_interrupt_ends_the_inline_job_and_the_run_says_so(store, monkeypatch):
    import toys

    monkeypatch.setattr(toys, "note", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    result = do([step("a"), step("b")], store, InlineBackend())
    assert (result.interrupted, result.ran, result.blocked) == (True, [], ["b", "a"])
    assert result.failed == {}
