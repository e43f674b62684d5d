"""A whole project, seen from outside: killed, interrupted, out of disk, run twice at once; the same command goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

import sabir
from model.tiny import save_adapter
from sabir.cli import main
from sabir.engine import care, job, ledger
from sabir.engine.leases import leases, living
from sabir.engine.run import Listener
from sabir.engine.store import Store
from sabir.errors import StoreError
from sabir.work.bases import EMBEDDED_FOLDER
from small_project import settings, write_config, write_language

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
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
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
    assert set(entries) == {path.name for path in (store.path / "jobs").iterdir()}
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
        assert len(entry["attempts"]) == broken_off
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


# --- out of space ----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk so small that it can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is root's to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, *, free_bytes: int = 0) -> None:
    with open(disk / "ballast", "ab", buffering=0) as ballast:
        with suppress(OSError):
            while ballast.write(bytes(4096)):
                pass
        ballast.truncate(ballast.tell() - free_bytes)


def empty(disk: Path) -> None:
    (disk / "ballast").unlink(missing_ok=True)


@pytest.fixture
def sabir_(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """The command line in this process: its exit code, and what it said on standard error."""

    def call(*words: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sabir", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return call


def test_a_full_disk_in_each_kind_of_step_is_a_sentence_and_the_next_run_goes_on(disk, sabir_, monkeypatch):
    """The disk fills up as each function is called for the first time; then there is space again."""
    save_adapter(disk / "fr", EMBEDDED_FOLDER, seed=1, size=0.02)
    merges = {"average": {"method": "linear"}, "whole": {"method": "linear", "rank": "fold"}}
    functions = {"prepare", "train", "adopt", "merge_step", "fold", "outputs", "scores", "macro", "select"}
    functions |= {"judge", "analysis"}
    if find_spec("optuna"):
        merges["tuned"] = {"method": "linear", "search": {"budget": 2, "over": ["scale"]}}
        functions.add("search")
    write_language(disk, "fr", train=0)
    brought = {"adapter": "fr", **{split: f"data/fr/{split}.jsonl" for split in ("valid", "test")}}
    data = {"en": "data/en", "de": "data/de", "fr": brought}
    config = write_project(disk, merges=merges, data=data, run={"backend": "inline"})
    store = store_of(config)
    resolve, met = job.resolve, []

    def filling(name: str):
        function = resolve(name)

        def call(works):
            called = "fold" if works[0].settings.get("rank") == "fold" else function.__name__
            if called not in met:
                met.append(called)
                fill(disk)
            yield from function(works)

        return call

    monkeypatch.setattr(job, "resolve", filling)
    there: dict[str, bytes] = {}
    while (answer := sabir_("run", config))[0]:
        code, said = answer
        assert (code, said.splitlines()[-1]) == (2, f"{store.path}: the disk is full. Free some space.")
        assert "Traceback" not in said
        assert "ended with code" not in said
        assert sabir_("show", config)[0] == 0
        assert sabir_("plan", config) == (2, sabir_("check", config)[1]), "it says how much it would need"
        empty(disk)
        assert there.items() <= records(store).items()
        assert care.verify(store) == []
        there = records(store)
    assert {*met} == functions
    assert set(times_finished(store).values()) == {1}
    assert_nothing_is_left(store)
    assert_all_is_paid(store)
