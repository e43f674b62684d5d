"""Care of the store: what is needed stays, what is damaged is found and made again, and nothing else."""

from __future__ import annotations

import json
import os
import random
import time

import pytest
from toys import do, lines, step

from sabir.engine import care, leases, ledger
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.care import Damage, closure, garbage, quarantine, sweep, verify
from sabir.engine.leases import Owner, exclusive
from sabir.engine.steps import Graph, Part


def finish(store, fingerprint, *, deps=(), parts=(), created="1", name=None):
    """A finished step that stands on some identities and has parts with some digests."""
    token = f"old-{fingerprint}-0000"
    (store.partial(fingerprint, token=token, keep=False) / "out.txt").write_text(fingerprint)
    record = {
        "fingerprint": fingerprint,
        "name": name or f"step {fingerprint}",
        "kind": "toy",
        "deps": {f"role {i}": dep for i, dep in enumerate(deps)},
        "parts": {f"part {i}": part for i, part in enumerate(parts)},
        "created": created,
    }
    return store.commit(fingerprint, token, record)


def found(store, keep=(), **rest):
    """What is junk, and its names."""
    return sorted((junk.what, junk.name) for junk in garbage(store, keep, **rest))


def project(diary):
    args = {"diary": str(diary)}
    rows = [step(f"rows {n}", settings={"of": n}, parts={"train": f"train {n}"}, args=args) for n in "ab"]
    adapters = [step(n, deps={"rows": Part(f"rows {n}", "train")}, args=args) for n in "ab"]
    return [*rows, *adapters, step("merged", deps={"a": "a", "b": "b"}, args=args)]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    monkeypatch.setattr(leases, "EXPIRY_S", 0.2)


# --- what is needed --------------------------------------------------------------------------------------


def test_the_closure_is_everything_that_the_roots_stand_on_and_nothing_else(store, diary):
    steps = project(diary)
    do([*steps, step("other", deps={"x": "rows a"})], store, InlineBackend())
    prints = Graph(steps).fingerprints
    assert closure(store, [prints["merged"]]) == set(prints.values())
    assert closure(store, [prints["a"]]) == {prints["a"], prints["rows a"]}
    assert closure(store, [prints["rows b"], prints["rows b"]]) == {prints["rows b"]}
    assert closure(store, []) == set()


def test_roots_and_what_they_stood_on_that_are_gone_are_not_in_the_closure(store):
    finish(store, "top", deps=["gone", "here"])
    finish(store, "here")
    assert closure(store, ["top", "never made"]) == {"top", "here"}


def test_of_steps_that_share_a_part_the_one_that_is_kept_anyway_suffices_or_the_newest(store):
    """New test rows make a new step of the data, with the train part that an adapter stands on."""
    finish(store, "old rows", parts=["train", "test 1"], created="1")
    finish(store, "rows", parts=["train", "test 2"], created="2")
    finish(store, "new rows", parts=["train", "test 3"], created="3")
    finish(store, "adapter", deps=["train"])
    assert closure(store, ["adapter"]) == {"adapter", "new rows"}
    for roots in (["adapter", "rows"], ["rows", "adapter"]):
        assert closure(store, roots) == {"adapter", "rows"}
    finish(store, "scores", deps=["adapter", "rows"])
    assert closure(store, ["scores", "adapter"]) == {"scores", "adapter", "rows"}


# --- what may go -----------------------------------------------------------------------------------------


def test_a_store_in_use_has_no_junk_and_an_empty_one_neither(store, diary):
    assert found(store) == []
    do(project(diary), store, InlineBackend())
    assert found(store, store.fingerprints()) == []


def test_steps_that_are_not_kept_go_and_the_bytes_are_counted(store, diary):
    steps = project(diary)
    do(steps, store, InlineBackend())
    prints = Graph(steps).fingerprints
    keep = closure(store, [prints["b"]])
    junk = garbage(store, keep)
    assert sorted(item.name for item in junk) == ["a", "merged", "rows a"]
    sizes = {
        item.name: sum(path.stat().st_size for path in item.path.rglob("*") if path.is_file())
        for item in junk
    }
    assert {item.name: item.size_bytes for item in junk} == sizes
    assert sweep(store, junk) == sum(sizes.values())
    assert store.fingerprints() == keep == {prints["b"], prints["rows b"]}
    assert verify(store) == []
    assert garbage(store, keep) == []
    n = len(lines(diary))
    do(steps, store, InlineBackend())
    assert sorted(lines(diary)[n:]) == ["a", "merged", "rows a"]


def test_a_step_that_lost_its_record_goes_too(store):
    (finish(store, "a") / "record.json").unlink()
    assert found(store) == [("step", "")]


def test_unfinished_folders_go_but_for_those_that_the_next_run_goes_on_from(store):
    for fingerprint in ("a", "b"):
        (store.partial(fingerprint, token="dead-0000", keep=False) / "checkpoint").write_text("half")
    assert found(store, resumable={"a"}) == [("attempt", "b")]
    assert sweep(store, garbage(store, (), resumable={"a"})) == 4
    assert [path.name for path in (store.path / "partial").iterdir()] == ["a~dead-0000"]


def test_nothing_that_a_living_run_holds_or_may_stand_on_is_junk(store, diary):
    do(project(diary), store, InlineBackend(), run_id="r1")
    with Owner(store, "r2") as owner:
        owner.take("x")
        store.partial("x", token="r2-0003", keep=False)
        (store.path / "jobs" / "r2" / "0003").mkdir(parents=True)
        (store.path / "jobs" / "r3").mkdir(parents=True)
        assert found(store, runs_kept=1) == [("jobs", "r1")]
        sweep(store, garbage(store, (), runs_kept=0))
        assert owner.holds("x")
        assert (store.path / "partial" / "x~r2-0003").is_dir()
        assert os.listdir(store.path / "jobs") == ["r2"]
        assert len(store.fingerprints()) == 5
    steps = [("step", name) for name in ("a", "b", "merged", "rows a", "rows b")]
    assert found(store, runs_kept=0) == [("attempt", "x"), ("jobs", "r2"), *steps]


def test_logs_of_the_last_runs_and_of_runs_that_are_not_settled_stay(store):
    for i in range(8):
        (store.path / "jobs" / f"r{i}" / "0000").mkdir(parents=True)
    ledger.begin(store, {"id": "r1", "steps": []})
    ledger.begin(store, {"id": "r2", "steps": []})
    ledger.write(store, {"id": "r2", "steps": []})
    assert found(store, runs_kept=5) == [("jobs", "r0"), ("jobs", "r2")]
    assert found(store, runs_kept=0) == [("jobs", f"r{i}") for i in (0, 2, 3, 4, 5, 6, 7)]
    sweep(store, garbage(store, ()))
    assert [entry["id"] for entry in ledger.runs(store)] == ["r1", "r2"]  # the ledger is for ever


def test_leases_and_files_of_dead_owners_go_also_of_silent_ones_elsewhere(store, quick):
    for name, system in (("dead", leases._system()), ("far", "elsewhere"), ("section-gc-1", "elsewhere")):
        facts = {"host": "h", "system": system, "pid": os.getpid(), "started": "0", "beat": "0"}
        (store.path / "owners").mkdir(parents=True, exist_ok=True)
        (store.path / "owners" / f"{name}.json").write_text(json.dumps(facts))
        (store.path / "leases" / f"held by {name}").mkdir(parents=True)
        (store.path / "leases" / f"held by {name}" / name).touch()
    with exclusive(store, leases.CARE):
        junk = garbage(store, (), watch_s=10.0)
        assert sorted((item.what, item.name) for item in junk) == [
            ("lease", "held by dead"),
            ("lease", "held by far"),
            ("lease", "held by section-gc-1"),
            ("owner", "dead"),
            ("owner", "far"),
            ("owner", "section-gc-1"),
        ]
        sweep(store, junk)
        assert os.listdir(store.path / "leases") == [leases.CARE]
    assert os.listdir(store.path / "owners") == []


def test_a_lease_that_was_taken_over_meanwhile_is_left_to_its_new_owner(store):
    (store.path / "leases" / "a").mkdir(parents=True)
    (store.path / "leases" / "a" / "dead").touch()
    junk = garbage(store, ())
    with Owner(store, "heir") as heir:
        assert heir.take("a")
        sweep(store, junk)
        assert heir.holds("a")


def test_facts_of_adapters_that_are_gone_go_when_it_is_said_which_are_not(store):
    (store.path / "kept").mkdir(parents=True)
    for name in ("one.json", "two.json"):
        (store.path / "kept" / name).write_text("{}")
    assert found(store) == []
    assert found(store, facts={"two"}) == [("facts", "one.json")]


def test_answers_of_models_that_are_gone_go_when_it_is_said_which_are_not(store):
    for name in ("one", "two"):
        (store.path / "answers" / name).mkdir(parents=True)
        (store.path / "answers" / name / "a.json").write_text("{}")
    assert found(store) == []
    assert found(store, answers={"two"}) == [("answers", "one")]
    with Owner(store, "r1"):
        assert found(store, answers={"two"}) == [], "a living run may have made that model"
    assert sweep(store, garbage(store, (), answers={"two"})) == 2
    assert os.listdir(store.path / "answers") == ["two"]


def test_what_the_dead_wrote_aside_goes_and_what_is_being_written_stays(store):
    old, new = time.time() - 2 * care.ASIDE_S, time.time()
    hexes = "0123456789abcdef" * 2
    names = {
        f"runs/.r1.json.{hexes}": old,
        f"kept/.x.json.{os.getpid()}": old,
        f"releases/sabir.yaml/.000001.json.{hexes}": old,
        f"partial/.gone-{hexes}/rest": old,
        f"leases/.{hexes}/r1": old,
        f"answers/model/.y.json.{hexes}": old,
        f"cache/.facts.json.{hexes}": new,
        ".gitignore": old,
        "cache/.DS_Store": old,
    }
    for name, at in names.items():
        path = store.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (at, at))
        if path.parent.name.startswith("."):
            os.utime(path.parent, (at, at))
    assert [name for _, name in found(store)] == [
        f".000001.json.{hexes}",
        f".{hexes}",
        f".gone-{hexes}",
        f".r1.json.{hexes}",
        f".x.json.{os.getpid()}",
        f".y.json.{hexes}",
    ]
    sweep(store, garbage(store, ()))
    assert found(store) == []
    assert (store.path / ".gitignore").exists()


# --- what is damaged -------------------------------------------------------------------------------------


@pytest.fixture
def made(store, diary):
    """A finished project, and the fingerprint of one step in its middle."""
    steps = project(diary)
    do(steps, store, InlineBackend())
    return steps, Graph(steps).fingerprints["a"]


def test_a_whole_store_has_no_damage_and_every_step_is_looked_at(store, made):
    heard = []
    assert verify(store, on_step=lambda done, total: heard.append((done, total))) == []
    assert heard == [(i + 1, 5) for i in range(5)]


def test_any_flipped_bit_is_found(store, made):
    chance = random.Random(0)
    for name in ("out.txt", "record.json"):
        path = store.folder(made[1]) / name
        whole = path.read_bytes()
        for _ in range(30):
            at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            damages = verify(store)
            assert [damage.fingerprint for damage in damages] == [made[1]]
            assert damages[0].what.startswith(name)
        path.write_bytes(whole)
    assert verify(store) == []


def test_missing_and_cut_files_are_named(store, made):
    path = store.folder(made[1]) / "out.txt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    what = f"out.txt has {len(whole) - 1} bytes instead of {len(whole)}"
    assert verify(store) == [Damage(made[1], "a", "toy", what)]
    path.unlink()
    assert verify(store) == [Damage(made[1], "a", "toy", "out.txt is missing")]
    path.mkdir()
    assert [damage.fingerprint for damage in verify(store)] == [made[1]]


def test_a_missing_record_is_named(store, made):
    (store.folder(made[1]) / "record.json").unlink()
    assert verify(store) == [Damage(made[1], "", "", "record.json is missing")]


def test_steps_of_before_files_were_recorded_are_looked_at_as_far_as_they_can(store, made):
    path = store.folder(made[1]) / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: record[key] for key in record if key not in ("files", "seal")}))
    (store.folder(made[1]) / "out.txt").unlink()
    assert verify(store) == []


@pytest.mark.parametrize("name", ["out.txt", "record.json"])
def test_the_next_run_makes_a_damaged_step_again_and_just_that(store, made, diary, name):
    steps, fingerprint = made
    whole = (store.folder(fingerprint) / "out.txt").read_bytes()
    (store.folder(fingerprint) / name).write_bytes(b"damaged")
    n = len(lines(diary))
    quarantine(store, verify(store))
    assert not store.has(fingerprint)
    assert (store.path / "damaged" / fingerprint / name).read_bytes() == b"damaged"
    do(steps, store, InlineBackend())
    assert lines(diary)[n:] == ["a"]
    assert (store.folder(fingerprint) / "out.txt").read_bytes() == whole
    assert verify(store) == []


def test_a_step_that_is_damaged_twice_is_taken_away_twice(store, made):
    steps, fingerprint = made
    for text in ("first", "second"):
        (store.folder(fingerprint) / "out.txt").write_text(text)
        quarantine(store, verify(store))
        quarantine(store, [Damage(fingerprint, "a", "toy", "again")])  # by another process
        assert not store.has(fingerprint)
        do(steps, store, InlineBackend())
    assert found(store, store.fingerprints()) == [("damaged", fingerprint)]
