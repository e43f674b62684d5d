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
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import sabir
from model.tiny import save_adapter
from sabir.cli import main
from sabir.engine import care, ledger
from sabir.engine.run import Listener
from sabir.engine.store import Store
from sabir.errors import StoreError
from sabir.work.bases import EMBEDDED_FOLDER
from small_project import rows, settings, write_config, write_language, write_rows

TWO = ("en", "de")
LORA = {"rank": 4, "epochs": 3, "max_length": 64, "batch_size": 4, "learning_rate": 2e-3}
MERGES = {"average": {"method": "linear"}, "ties": {"method": "ties", "density": 0.5}}
SABIR = "from sabir.cli import main; main()"
OFTEN = f"import sabir.plan.steps as steps; steps.CHECKPOINT_EVERY_S = 0.2; {SABIR}"  # checkpoints, that is
PATIENCE_S = 120.0


def write_project(folder: Path, **changes) -> Path:
    for language in TWO:
        write_language(folder, language, train=48)
    return write_config(folder, settings(TWO, **{"lora": LORA, "merges": MERGES, "baseline": "none", **changes}))


def start(config: Path, *, code: str = SABIR) -> subprocess.Popen[str]:
    """`sabir run CONFIG`, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it said, once it has ended with that code."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out + err


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def store_of(config: Path) -> Store:
    return Store(config.parent / ".sabir")


def records(store: Store) -> dict[str, bytes]:
    """The record of every finished step, as it is on the disk."""
    return {one: (store.folder(one) / "record.json").read_bytes() for one in store.fingerprints()}


def jobs(store: Store) -> list[Path]:
    return sorted((store.path / "jobs").glob("*/[0-9]*"))


def steps_of(job: Path) -> list[dict]:
    """What a job was to do; nothing, where its run was killed before it had said it."""
    try:
        return json.loads((job / "job.json").read_bytes())["steps"]
    except (FileNotFoundError, ValueError):
        return []


def events(job: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in (job / "events.jsonl").read_text().splitlines(keepends=True) if line[-1] == "\n"]
    except FileNotFoundError:
        return []


def begun(store: Store, since: set[Path]) -> set[str]:
    """Fingerprints of the steps that jobs began which were not there yet."""
    return {step["fingerprint"] for job in jobs(store) if job not in since for step in steps_of(job)}


def said(store: Store) -> int:
    """How many events all jobs so far have told."""
    return sum(len(events(job)) for job in jobs(store))


def finished(store: Store) -> Counter[str]:
    """Fingerprint -> how many jobs said that they finished it."""
    found: Counter[str] = Counter()
    for job in jobs(store):
        prints = {step["name"]: step["fingerprint"] for step in steps_of(job)}
        found.update(prints[event["step"]] for event in events(job) if event["event"] == "finished")
    return found


def results(store: Store) -> dict[str, dict[str, bytes]]:
    """Name -> every file of each adapter and each merge."""
    found = {}
    for record in store.records():
        if record["kind"] in ("adapter", "merged"):
            folder = store.folder(record["fingerprint"])
            found[record["name"]] = {
                str(path.relative_to(folder)): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file() and path.name != "record.json"
            }
    return found


def first_step(store: Store, name: str, job: int = -1) -> int:
    """The number of the first optimizer's step that the last (or another) job at a training made."""
    told = [found for one in jobs(store) if (found := [e for e in events(one) if "loss" in e and e["step"] == name])]
    return told[job][0]["done"]


def assert_nothing_half_written(store: Store) -> None:
    assert care.verify(store) == []
    for folder in ("partial", "leases", "owners"):
        assert [path.name for path in (store.path / folder).glob("[!.]*")] == []


def assert_all_is_paid(store: Store) -> None:
    """Each run has its entry, each finished step is in one of them, and so is each attempt at one."""
    entries = {entry["id"]: entry for entry in ledger.runs(store)}
    assert set(entries) == {path.name for path in (store.path / "jobs").iterdir()}
    assert not any(entry.get("open") for entry in entries.values())
    made = {record["fingerprint"]: record for record in store.records()}
    ran = [(name, step["fingerprint"]) for name, entry in entries.items() for step in entry["steps"] if step["status"] == "run"]
    assert sorted(ran) == sorted((record["run"], record["fingerprint"]) for record in made.values())
    for name, entry in entries.items():
        broken_off = 0
        for job in (store.path / "jobs" / name).glob("[0-9]*"):
            token = f"{name}-{job.name}"
            left = [step for step in steps_of(job) if made[step["fingerprint"]]["job"] != token]
            broken_off += bool(left and events(job))
        assert len(entry["attempts"]) == broken_off
        walls = [step["wall_s"] for step in entry["steps"] if step["status"] == "run"]
        walls += [attempt["wall_s"] for attempt in entry["attempts"]]
        total = sum(row["device_s"] for row in entry["costs"] if row["component"] == "total" and row["measured"])
        assert total == pytest.approx(sum(walls))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """What the project makes when nobody disturbs it."""
    config = write_project(tmp_path_factory.mktemp("undisturbed"))
    ended(start(config), 0)
    assert_nothing_half_written(store_of(config))
    assert_all_is_paid(store_of(config))
    found = results(store_of(config))
    assert set(found) == {"adapter/en", "adapter/de", "merged/average", "merged/ties"}
    return found


# --- killed ----------------------------------------------------------------------------------------------


def processes() -> dict[int, int]:
    """Every process that has not ended -> its parent."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    lines = map(str.split, listed.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, stat in lines if not stat.startswith("Z")}


def workers(coordinator: int) -> list[int]:
    """The servers that start the jobs, and the jobs."""
    parents = processes()
    found = [coordinator]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(tmp_path, undisturbed):
    """Six kills of coordinators and of workers: nothing finished is begun again, nothing half-written is used."""
    config, chance = write_project(tmp_path), random.Random(7)
    store = store_of(config)
    there: dict[str, bytes] = {}
    known: set[Path] = set()
    process = start(config, code=OFTEN)
    for victim in ("worker", "coordinator", "worker", "worker", "coordinator", "coordinator"):
        goal = said(store) + chance.randrange(3, 40)
        wait_until(lambda goal=goal, process=process: said(store) >= goal or process.poll() is not None)
        assert process.poll() is None, "it had ended before all kills"
        time.sleep(chance.random() * 0.1)
        if victim == "worker":
            with suppress(ProcessLookupError, IndexError):  # it ended by itself just now
                os.kill(chance.choice(workers(process.pid)), signal.SIGKILL)
            continue
        dying = workers(process.pid)
        process.kill()
        ended(process, -signal.SIGKILL)
        if chance.random() < 0.5:  # else the next one starts on the heels of dying workers
            wait_until(lambda dying=dying: processes().keys().isdisjoint(dying))
        assert there.items() <= records(store).items()
        assert begun(store, known).isdisjoint(there)
        there, known = records(store), set(jobs(store))
        process = start(config, code=OFTEN)
    ended(process, 0)
    assert there.items() <= records(store).items()
    assert begun(store, known).isdisjoint(there)
    assert max(finished(store).values()) == 1
    assert results(store) == undisturbed
    assert_nothing_half_written(store)
    assert_all_is_paid(store)
    assert "Nothing to do" in ended(start(config), 0)


# --- interrupted -----------------------------------------------------------------------------------------


def training(store: Store, language: str) -> list[int]:
    """Numbers of the optimizer's steps that jobs made for one language so far."""
    told = (event for job in jobs(store) for event in events(job))
    return [event["done"] for event in told if "loss" in event and event["step"] == f"adapter/{language}"]


def checkpoints(store: Store, language: str) -> dict[int, Path]:
    """Step -> folder of each checkpoint of a training that is not finished."""
    prints = {step["name"]: step["fingerprint"] for job in jobs(store) for step in steps_of(job)}
    found = (store.path / "partial").glob(f"{prints[f'adapter/{language}']}~*/checkpoints/checkpoint-*")
    return {int(path.name.rpartition("-")[2]): path for path in found}


def cut(path: Path) -> None:
    """Leave half of a file, as a process does that is killed while it writes."""
    os.truncate(path, path.stat().st_size // 2)


def test_an_interrupted_run_goes_on_from_its_checkpoint_even_beside_a_half_written_one(tmp_path, undisturbed):
    """Ctrl-C once; then twice, with a worker that hears nothing; then, after damage, to the end."""
    config = write_project(tmp_path)
    store = store_of(config)
    process = start(config)
    wait_until(lambda: all(len(training(store, language)) >= 3 for language in TWO))
    process.send_signal(signal.SIGINT)
    assert "the next run goes on from there" in ended(process, 130)
    saved = {language: max(checkpoints(store, language)) for language in TWO}
    assert saved == {language: training(store, language)[-1] for language in TWO}, "the last step made is kept"
    there, known = records(store), set(jobs(store))

    process = start(config)
    wait_until(lambda: any(len(training(store, language)) > saved[language] for language in TWO))
    deaf = workers(process.pid)
    for pid in deaf:
        os.kill(pid, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    assert "stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    ended(process, 130)
    assert processes().keys().isdisjoint(deaf)
    for language in TWO:
        begun_at = [event["done"] for job in jobs(store) if job not in known for event in events(job) if "loss" in event and event["step"] == f"adapter/{language}"]
        assert begun_at[:1] in ([], [saved[language] + 1])

    # German was killed as it wrote a newer one; of English, the only one is lost
    half = shutil.copytree(checkpoints(store, "de")[saved["de"]], checkpoints(store, "de")[saved["de"]].with_name(f"checkpoint-{saved['de'] + 1}"))
    cut(half / "optimizer.pt")
    (half / "trainer_state.json").unlink()
    cut(checkpoints(store, "en")[saved["en"]] / "adapter_model.safetensors")
    known = set(jobs(store))
    ended(start(config), 0)
