"""A whole project, seen from outside: killed, interrupted, out of disk, run twice at once; the same command goes on."""

from __future__ import annotations

import inspect
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from model.tiny import save_adapter
from sabir import lock
from sabir.cli import main
from sabir.cli.app import app
from sabir.engine import care, job, ledger
from sabir.engine.leases import leases, living
from sabir.engine.run import Listener
from sabir.engine.store import Store
from sabir.errors import StoreError
from sabir.project import Project
from sabir.releases import Log
from sabir.work.bases import EMBEDDED_FOLDER
from sabir.work.sources import hash_of
from small_project import rows, settings, write_config, write_language

TWO = ("en", "de")
LORA = {"rank": 4, "epochs": 3, "max_length": 64, "batch_size": 4, "learning_rate": 2e-3}
MERGES = {"average": {"method": "linear"}, "ties": {"method": "ties", "density": 0.5}}
SABIR = "from sabir.cli import main; main()"
OFTEN = f"import sabir.plan.steps as steps; steps.CHECKPOINT_EVERY_S = 0.2; {SABIR}"  # checkpoints, that is
PATIENCE_S = 120.0


def write_project(folder: Path, languages=TWO, **changes) -> Path:
    for language in languages:
        write_language(folder, language, train=48)
    return write_config(folder, settings(languages, **PLAIN | changes))


PLAIN = {"lora": LORA, "merges": MERGES, "baseline": "none"}


class Command:
    """`sabir run CONFIG` in a process of its own."""

    count = 0

    def __init__(self, config: Path, *, code: str = SABIR):
        Command.count += 1
        self._log = config.parent / f"said {Command.count}.txt"
        with open(self._log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "run", str(config)], stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[int]:
        """The servers that start the jobs, and the jobs."""
        parents = processes()
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def ends(self, code: int) -> str:
        """What it said, once it has ended with that code."""
        assert self.process.wait(PATIENCE_S) == code, self.said
        assert "Traceback" not in self.said
        return self.said


def processes() -> dict[int, int]:
    """Every process that has not ended -> its parent."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    lines = map(str.split, listed.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, stat in lines if not stat.startswith("Z")}


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


# --- what the store says ---------------------------------------------------------------------------------


def store_of(config: Path) -> Store:
    return Store(config.parent / ".sabir")


def records(store: Store) -> dict[str, bytes]:
    """The record of every finished step, as it is on the disk."""
    return {one: (store.folder(one) / "record.json").read_bytes() for one in store.fingerprints()}


def jobs(store: Store, besides: Collection[Path] = ()) -> list[Path]:
    return sorted(path for path in (store.path / "jobs").glob("*/[0-9]*") if path not in besides)


def steps_of(folder: Path) -> list[dict]:
    """What a job was to do; nothing, where its run was killed before it had said it."""
    try:
        return json.loads((folder / "job.json").read_bytes())["steps"]
    except (FileNotFoundError, ValueError):
        return []


def events(folder: Path) -> list[dict]:
    try:
        text = (folder / "events.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def begun(store: Store, besides: Collection[Path] = ()) -> set[str]:
    """Fingerprints of the steps that were given to jobs."""
    return {step["fingerprint"] for folder in jobs(store, besides) for step in steps_of(folder)}


def times_finished(store: Store) -> Counter[str]:
    """Fingerprint -> how many jobs said that they finished it."""
    found: Counter[str] = Counter()
    for folder in jobs(store):
        prints = {step["name"]: step["fingerprint"] for step in steps_of(folder)}
        found.update(prints[event["step"]] for event in events(folder) if event["event"] == "finished")
    return found


def trained(store: Store, language: str, besides: Collection[Path] = ()) -> list[int]:
    """Numbers of the optimizer's steps that jobs made for one language, in order."""
    told = (event for folder in jobs(store, besides) for event in events(folder))
    return [event["done"] for event in told if "loss" in event and event["step"] == f"adapter/{language}"]


def results(store: Store, names: Collection[str]) -> dict[str, dict[str, bytes]]:
    """Every file of these steps, but for the record."""
    folders = {record["name"]: store.folder(record["fingerprint"]) for record in store.records()}
    return {
        name: {
            str(path.relative_to(folders[name])): path.read_bytes()
            for path in folders[name].rglob("*")
            if path.is_file() and path.name != "record.json"
        }
        for name in names
    }


def assert_nothing_is_left(store: Store, *, by_the_dead: Collection[str] = ()) -> None:
    """Nothing half written, nothing held, every byte as its record says.

    Args:
        by_the_dead: what killed runs may have left for `gc`.
    """
    assert care.verify(store) == []
    assert living(store) == []
    junk = care.garbage(store, store.fingerprints(), runs_kept=100)
    assert {one.what for one in junk} <= {*by_the_dead}


def assert_all_is_paid(store: Store) -> None:
    """Each run has its entry, each finished step is in one of them, and so is each attempt at one."""
    entries = {entry["id"]: entry for entry in ledger.runs(store)}
    logged = {path.name for path in (store.path / "jobs").iterdir()}  # `gc` takes old ones
    assert logged <= {*entries}
    assert not any(entry.get("open") for entry in entries.values())
    made = {record["fingerprint"]: record for record in store.records()}
    paid = [
        (name, step["fingerprint"])
        for name, entry in entries.items()
        for step in entry["steps"]
        if step["status"] == "run"
    ]
    assert sorted(paid) == sorted((record["run"], record["fingerprint"]) for record in made.values())
    for name, entry in entries.items():
        broken_off = 0
        for folder in (store.path / "jobs" / name).glob("[0-9]*"):
            token = f"{name}-{folder.name}"
            left = [step for step in steps_of(folder) if made[step["fingerprint"]]["job"] != token]
            broken_off += bool(left and events(folder))
        assert name not in logged or len(entry["attempts"]) == broken_off
        walls = [step["wall_s"] for step in entry["steps"] if step["status"] == "run"]
        walls += [attempt["wall_s"] for attempt in entry["attempts"]]
        totals = [row for row in entry["costs"] if row["component"] == "total" and row["measured"]]
        assert sum(row["device_s"] for row in totals) == pytest.approx(sum(walls))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Every file of each adapter and merge, of a run that nobody disturbed."""
    config = write_project(tmp_path_factory.mktemp("undisturbed"))
    Command(config).ends(0)
    assert_nothing_is_left(store_of(config))
    assert_all_is_paid(store_of(config))
    return results(store_of(config), ["adapter/en", "adapter/de", "merged/average", "merged/ties"])


# --- killed ----------------------------------------------------------------------------------------------


def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(tmp_path, undisturbed):
    """Six kills of coordinators and of workers: nothing finished is begun again, nothing half-written is used."""
    config, chance = write_project(tmp_path), random.Random(7)
    store = store_of(config)
    there: dict[str, bytes] = {}
    known: list[Path] = []
    command = Command(config, code=OFTEN)
    for victim in ("worker", "coordinator", "worker", "worker", "coordinator", "worker"):
        told = sum(len(events(folder)) for folder in jobs(store)) + chance.randrange(3, 30)
        wait_until(lambda told=told: sum(len(events(folder)) for folder in jobs(store)) >= told)
        time.sleep(chance.random() * 0.1)
        if victim == "worker":
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.kill(chance.choice(command.workers()), signal.SIGKILL)
            continue
        dying = command.workers()
        command.process.kill()
        command.ends(-signal.SIGKILL)
        if chance.random() < 0.5:  # else the next one starts on the heels of dying workers
            wait_until(lambda dying=dying: processes().keys().isdisjoint(dying))
        assert there.items() <= records(store).items()
        assert begun(store, known).isdisjoint(there)
        there, known = records(store), jobs(store)
        command = Command(config, code=OFTEN)
    command.ends(0)
    assert there.items() <= records(store).items()
    assert begun(store, known).isdisjoint(there)
    assert max(times_finished(store).values()) == 1
    assert results(store, undisturbed) == undisturbed
    assert_nothing_is_left(store, by_the_dead=["lease", "owner"])
    assert_all_is_paid(store)


# --- interrupted -----------------------------------------------------------------------------------------


def checkpoints(store: Store, language: str) -> dict[int, Path]:
    """Optimizer's step -> folder, of the checkpoints of a training that is not finished."""
    prints = {step["name"]: step["fingerprint"] for folder in jobs(store) for step in steps_of(folder)}
    found = (store.path / "partial").glob(f"{prints[f'adapter/{language}']}~*/checkpoints/checkpoint-*")
    return {int(path.name.rpartition("-")[2]): path for path in found}


def cut(path: Path) -> None:
    """Leave half of a file, as a process does that is killed while it writes."""
    os.truncate(path, path.stat().st_size // 2)


def test_interrupted_it_goes_on_from_its_checkpoint_also_beside_a_half_written_one(tmp_path, undisturbed):
    """Ctrl-C once; then twice, with workers that hear nothing; then two sorts of damage, and on to the end."""
    config = write_project(tmp_path)
    store = store_of(config)
    command = Command(config)
    wait_until(lambda: all(len(trained(store, language)) >= 3 for language in TWO))
    command.process.send_signal(signal.SIGINT)
    assert "the next run goes on from there" in command.ends(130)
    saved = {language: max(checkpoints(store, language)) for language in TWO}
    assert saved == {language: trained(store, language)[-1] for language in TWO}, "with the last step it made"
    there, known = records(store), jobs(store)

    command = Command(config)
    wait_until(lambda: all(trained(store, language, known) for language in TWO))
    deaf = command.workers()
    for pid in deaf:
        os.kill(pid, signal.SIGSTOP)
    command.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping: saving what runs (again: at once)" in command.said)
    command.process.send_signal(signal.SIGINT)
    command.ends(130)
    wait_until(lambda: processes().keys().isdisjoint(deaf))
    assert {language: trained(store, language, known)[0] - 1 for language in TWO} == saved

    last = checkpoints(store, "de")[saved["de"]]
    newer = shutil.copytree(last, last.with_name(f"checkpoint-{saved['de'] + 1}"))
    cut(newer / "optimizer.pt")
    (newer / "trainer_state.json").unlink()  # it is written last
    cut(checkpoints(store, "en")[saved["en"]] / "adapter_model.safetensors")
    known = jobs(store)
    Command(config).ends(0)
    assert trained(store, "de", known)[0] == saved["de"] + 1
    assert trained(store, "en", known)[0] == 1
    assert there.items() <= records(store).items()
    assert results(store, undisturbed) == undisturbed
    assert_nothing_is_left(store)
    assert_all_is_paid(store)


# --- at once ---------------------------------------------------------------------------------------------


def test_runs_at_once_share_their_steps_and_make_each_once(tmp_path, undisturbed):
    """Two runs of one config, and one of another config beside it, which shares the store and the adapters."""
    config = write_project(tmp_path)
    merges = {"half": {"method": "linear", "scale": 0.5}}
    other = write_config(tmp_path, settings(TWO, **{**PLAIN, "merges": merges}), "other.yaml")
    store = store_of(config)
    for command in [Command(config), Command(other), Command(config)]:
        assert "merged/" in command.ends(0)
    assert set(times_finished(store).values()) == {1}
    assert len(begun(store)) == sum(len(steps_of(folder)) for folder in jobs(store)), "no job was in vain"
    assert results(store, undisturbed) == undisturbed
    assert_nothing_is_left(store)
    assert_all_is_paid(store)
    entries = ledger.runs(store)
    assert sorted(entry["config"] for entry in entries) == ["other.yaml", "sabir.yaml", "sabir.yaml"]
    assert all(entry["complete"] for entry in entries)


def test_when_one_of_two_runs_is_killed_the_other_makes_the_rest(tmp_path, undisturbed):
    config = write_project(tmp_path)
    store = store_of(config)
    commands = {command.process.pid: command for command in (Command(config), Command(config))}
    wait_until(lambda: trained(store, "en") and len(list((store.path / "owners").glob("[!.]*"))) == 2)
    prints = {step["name"]: step["fingerprint"] for folder in jobs(store) for step in steps_of(folder)}
    holder = leases(store)[prints["adapter/en"]]
    killed = commands.pop(json.loads((store.path / "owners" / f"{holder}.json").read_bytes())["pid"])
    killed.process.kill()
    killed.ends(-signal.SIGKILL)
    there, known = records(store), jobs(store)
    (other,) = commands.values()
    other.ends(0)
    assert begun(store, known).isdisjoint(there)
    assert max(times_finished(store).values()) == 1
    assert results(store, undisturbed) == undisturbed
    assert "Nothing to do" in Command(config).ends(0), "it settles what the dead one spent"
    assert_nothing_is_left(store, by_the_dead=["lease", "owner"])
    assert_all_is_paid(store)


def test_what_is_forgotten_while_a_run_begins_stays_forgotten(tmp_path):
    config, text = write_project(tmp_path), rows("de", "train", 6)[5]["input"]

    def forget(warning):
        Project(config).forget([text])

    class Begun(Listener):
        def planned(self, assessments):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Project(config).run(warn=forget, listener=Begun())
    assert [row.text for row in lock.read(config).forgotten["de"]] == [hash_of(text)]


# --- out of space ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    """A disk so small that it can be filled."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is root's to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full(disk: Path, *, free_bytes: int = 0) -> Iterator[None]:
    fill(disk, free_bytes=free_bytes)
    try:
        yield
    finally:
        (disk / "ballast").unlink()


def fill(disk: Path, *, free_bytes: int = 0) -> None:
    with open(disk / "ballast", "ab", buffering=0) as ballast:
        with suppress(OSError):
            while ballast.write(bytes(4096)):
                pass
        ballast.truncate(ballast.tell() - free_bytes)


def sabir(*words: str | Path) -> tuple[int, str]:
    """The command line, in this process: its exit code, and what it said on standard error."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()), redirect_stderr(said):
        patch.setattr(sys, "argv", ["sabir", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
    return int(caught.value.code or 0), said.getvalue()


@contextmanager
def filled_by(disk: Path, met: list[str], free_bytes: Mapping[str, int]) -> Iterator[None]:
    """The disk fills up as each function of a step is called for the first time; `met` gets its name."""
    resolve = job.resolve

    def resolved(name: str):
        function = resolve(name)

        def call(works):
            for work in works:
                called = "fold" if work.settings.get("rank") == "fold" else function.__name__
                if called not in met and not (disk / "ballast").exists():
                    met.append(called)
                    fill(disk, free_bytes=free_bytes.get(called, 0))
                yield from function([work])

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "resolve", resolved)
        yield


@pytest.fixture(scope="module")
def full_story(disk):
    """A language that is trained and one that brings its adapter, every sort of merge; it fails wherever it can."""
    save_adapter(disk / "fr", EMBEDDED_FOLDER, seed=1, size=0.02)
    write_language(disk, "fr", train=0)
    brought = {"adapter": "fr", **{split: f"data/fr/{split}.jsonl" for split in ("valid", "test")}}
    merges = {"average": {"method": "linear"}, "whole": {"method": "linear", "rank": "fold"}}
    if find_spec("optuna"):
        merges["tuned"] = {"method": "linear", "search": {"budget": 2, "over": ["scale"]}}
    config = write_project(
        disk, ["en"], merges=merges, data={"en": "data/en", "fr": brought}, run={"backend": "inline"}
    )
    story = SimpleNamespace(store=store_of(config), shown=[], cleaned=[], lost=[], there=[], refused=[])
    log, current = Log(story.store.path, config.name), disk / ".sabir/serve/current"

    def failing(met: list[str], free_bytes: Mapping[str, int], *overrides: str) -> dict[str, tuple[int, str]]:
        failed = {}
        with filled_by(disk, met, free_bytes):
            while (answer := sabir("run", config, *overrides))[0]:
                failed[met[-1]] = answer
                story.shown.append(sabir("show", config)[0])
                story.cleaned.append(sabir("gc", config))
                (disk / "ballast").unlink()
                story.there.append(records(story.store))
                story.lost += care.verify(story.store)
        return failed

    story.failed = failing([], {})
    for free_bytes in range(0, 60_000, 8192):
        with full(disk, free_bytes=free_bytes):
            story.refused.append(
                (*sabir("promote", config, "merged/average"), log.events(), current.exists())
            )
    story.promoted = (*sabir("promote", config, "merged/average"), len(log.events()), current.exists())
    out = disk / "out"
    with full(disk, free_bytes=8192):
        story.exported = [(*sabir("export", config, "--out", out), out.exists())]
    story.exported.append((*sabir("export", config, "--out", out), out.exists()))
    known = [*story.failed]
    known.remove("merge_step")
    story.updated = failing(known, {"merge_step": 200_000}, "--set", "merges.average.scale=0.5")
    story.last = records(story.store)
    again = sabir("promote", config, "merged/average", "--set", "merges.average.scale=0.5", "--accept", "all")
    story.back = [(again[0], log.current().name)]
    for free_bytes in range(0, 60_000, 4096):
        if story.back[-1] != (0, "1"):
            with full(disk, free_bytes=free_bytes):
                story.back.append((sabir("rollback", config)[0], log.current().name))
    return story


def test_a_full_disk_is_one_sentence_in_each_kind_of_step(full_story):
    functions = {"prepare", "train", "adopt", "merge_step", "fold", "outputs", "scores", "macro", "select"}
    functions |= {"analysis", "judge"} | ({"search"} if find_spec("optuna") else set())
    assert {*full_story.failed} == functions
    failed = [*full_story.failed.values(), full_story.updated["changes"]]
    for code, said in failed:
        assert (code, said.splitlines()[-1]) == (
            2,
            f"{full_story.store.path}: the disk is full. Free some space.",
        )
        assert "Traceback" not in said
        assert "ended with code" not in said


def test_where_there_is_room_for_the_ledger_the_step_that_failed_is_named(full_story):
    code, said = full_story.updated["merge_step"]
    assert code == 1
    assert said.splitlines()[-1].startswith("step merged/average: failed after")
    assert "No space left on device" in said.splitlines()[-1]


def test_a_full_disk_takes_nothing_that_was_finished(full_story):
    assert full_story.lost == []
    for earlier, later in pairwise([*full_story.there, full_story.last]):
        assert earlier.items() <= later.items()
    assert set(times_finished(full_story.store).values()) == {1}
    assert_nothing_is_left(full_story.store)
    assert_all_is_paid(full_story.store)


def test_a_full_disk_can_be_looked_at_and_cleaned_up(full_story):
    assert set(full_story.shown) == {0}
    assert set(full_story.cleaned) == {(0, "")}


def test_a_promotion_without_space_changes_nothing_and_can_be_made_again(full_story):
    for code, said, events_, current in full_story.refused:
        assert (code, len(said.splitlines())) == (2, 1)
        assert (events_, current) == ((), False)
    assert full_story.promoted == (0, "", 1, True)


def test_an_export_without_space_leaves_nothing_and_can_be_made_again(full_story):
    (code, said, there), again = full_story.exported
    assert (code, len(said.splitlines()), there) == (2, 1, False)
    assert "No space left on device" in said
    assert again == (0, "", True)


def test_a_way_back_without_space_changes_nothing_and_then_goes_back_once(full_story):
    (promoted, *refused, last) = full_story.back
    assert (promoted, last) == ((0, "2"), (0, "1"))
    assert refused
    assert set(refused) == {(2, "2")}


def test_a_worker_of_its_own_says_that_the_disk_is_full(disk):
    config = write_project(disk / "local", ["en"])
    said = []

    class Fills(Listener):
        def started(self, steps, slot):
            fill(disk)

        def failed(self, step, failure):
            said.append(failure.message)

    with pytest.raises(StoreError, match=r"the disk is full\. Free some space\."):
        Project(config).run(listener=Fills(), workers=1)
    (disk / "ballast").unlink()
    assert said == ["the disk is full. Free some space."]


# --- a store of another time -----------------------------------------------------------------------------

VERBS = {
    "check": (),
    "plan": (),
    "run": (),
    "show": (),
    "predict": ("a text",),
    "promote": (),
    "rollback": (),
    "blame": ("2", "de"),
    "releases": (),
    "export": ("--out", "out"),
    "why": ("analysis",),
    "gc": (),
    "verify": (),
    "forget": ("a text",),
    "estimate": ("production.jsonl",),
    "backtest": (),
}


def test_a_store_of_a_newer_version_is_refused_by_every_verb_and_left_as_it_is(tmp_path):
    config = write_project(tmp_path)
    for name, content in {
        "format.json": {"format": 2},
        "runs/20300101T000000.000000Z.json": {"id": "20300101T000000.000000Z", "open": True, "what": "new"},
        "releases/sabir.yaml/000001.json": {"what": "new"},
        f"steps/{64 * '0'}/record.json": {"what": "new"},
    }.items():
        (tmp_path / ".sabir" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".sabir" / name).write_text(json.dumps(content), encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {*VERBS} == {
        command.callback.__name__
        for command in app.registered_commands
        if "config" in inspect.signature(command.callback).parameters
    }
    for verb, words in VERBS.items():
        code, said = sabir(verb, config, *words)
        assert code == 2, verb
        assert said == (
            f"{tmp_path / '.sabir'}: has the format 2, and this sabir reads formats up to 1. "
            "It was written by a newer one: upgrade sabir, or use another store.\n"
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
