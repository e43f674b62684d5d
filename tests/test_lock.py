"""sabir.lock: bases, lines, holds and forgotten rows, written whole and read as strictly as a config."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from sabir import lock
from sabir.errors import InputError
from sabir.lock import Forgotten, Hold, Line, Lock, PinnedBase

BASE = PinnedBase("embedded", "sha256:1", None)
FULL = Lock(
    bases={
        "embedded": BASE,
        "Qwen/Qwen3-0.6B": PinnedBase("Qwen/Qwen3-0.6B", "commit:" + "a" * 40, "a" * 40),
    },
    lineage={"de": Line("1" * 64, "2" * 64, None), "zh-Hant": Line("3" * 64, "4" * 64, "5" * 64)},
    holds={"no": Hold("6" * 64, "7" * 64, "3")},
    forgotten={
        "de": (Forgotten("8" * 64, "9" * 64), Forgotten("a" * 64, None)),
        "fr": (Forgotten(None, "b" * 64),),
    },
)
BEFORE_LINES = """\
# Written by sabir. Commit it with the config: it pins what the results stand on.
bases:
  "embedded":
    identity: "sha256:1"
    revision: null
"""


@pytest.fixture
def config(tmp_path):
    return tmp_path / "sabir.yaml"


def test_what_is_written_is_read_back(config):
    lock.write(config, FULL)
    assert lock.read(config) == FULL


@pytest.mark.parametrize("name", ['models/a "quoted" \\ name', "models/zwei\tWörter", "模型/底座", "a\nb"])
def test_any_name_of_a_base_is_read_back(config, name):
    base = PinnedBase(name, "sha256:" + "b" * 64, None)
    lock.write(config, Lock(bases={name: base}))
    assert lock.read(config).bases == {name: base}


@pytest.mark.parametrize("name", ["a: b.yaml", "'q' #x.yaml", "null", "конфиг.yaml"])
def test_any_name_of_a_config_is_read_back(tmp_path, name):
    lock.write(tmp_path / name, FULL)
    assert lock.read(tmp_path / name) == FULL


def test_without_a_lock_there_is_nothing(config):
    assert lock.read(config) == Lock()


def test_a_lock_of_before_there_were_lines_is_read_and_kept_as_it_is(config):
    lock.path_of(config).write_text(BEFORE_LINES, encoding="utf-8")
    assert lock.read(config) == Lock(bases={"embedded": BASE})
    lock.write(config, lock.read(config))
    assert lock.path_of(config).read_text(encoding="utf-8") == BEFORE_LINES


def test_a_lock_that_says_the_same_is_not_touched(config):
    lock.write(config, FULL)
    before = os.stat(lock.path_of(config))
    shuffled = replace(FULL, forgotten={key: rows[::-1] for key, rows in reversed(FULL.forgotten.items())})
    lock.write(config, shuffled)
    after = os.stat(lock.path_of(config))
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_what_is_forgotten_is_written_as_hashes_one_to_a_line(config):
    lock.write(config, FULL)
    text = lock.path_of(config).read_text(encoding="utf-8")
    assert f'        - {{id: "{"a" * 64}", text: null}}\n' in text


def test_a_config_says_nothing_in_the_name_of_another(tmp_path):
    lock.write(tmp_path / "a.yaml", FULL)
    other = Lock(
        bases={"models/x": PinnedBase("models/x", "sha256:x", None)}, lineage={"de": Line("x", "y", None)}
    )
    lock.write(tmp_path / "b.yaml", other)
    bases = {**FULL.bases, **other.bases}
    assert lock.read(tmp_path / "a.yaml") == replace(FULL, bases=bases)
    assert lock.read(tmp_path / "b.yaml") == replace(other, bases=bases)
    assert lock.read(tmp_path / "c.yaml") == Lock(bases=bases)


def test_what_a_config_no_longer_says_is_gone_and_bases_stay(config):
    lock.write(config, FULL)
    lock.write(config, Lock(lineage={"de": FULL.lineage["de"]}))
    assert lock.read(config) == Lock(bases=FULL.bases, lineage={"de": FULL.lineage["de"]})
    lock.write(config, Lock())
    assert lock.read(config) == Lock(bases=FULL.bases)
    assert "configs" not in lock.path_of(config).read_text(encoding="utf-8")


CONFIG = "bases: {}\nconfigs: {sabir.yaml: {%s}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "bases: x\n",
        "other: 1\n",
        "bases: {}\nother: 1\n",
        "bases: {x: {revision: y}}\n",
        "bases: {x: {identity: 5}}\n",
        "bases: {x: {identity: y, revision: null, size: 3}}\n",
        "bases: {x: 3}\n",
        "bases: {}\nconfigs: 3\n",
        "bases: {}\nconfigs: {sabir.yaml: 3}\n",
        CONFIG % "lines: {}",
        CONFIG % "lineage: 3",
        CONFIG % "lineage: {de: 3}",
        CONFIG % "lineage: {de: {rows: a, adapter: b}}",
        CONFIG % "lineage: {de: {rows: a, adapter: null, parent: null}}",
        CONFIG % "holds: {de: {rows: a, adapter: b, release: 3}}",
        CONFIG % "forgotten: {de: {id: a, text: b}}",
        CONFIG % "forgotten: {de: [a]}",
        CONFIG % "forgotten: {de: [{id: a}]}",
        CONFIG % "forgotten: {de: [{id: 5, text: null}]}",
    ],
)
def test_another_file_of_that_name_is_refused(config, text):
    lock.path_of(config).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"sabir\.lock: is not a lock that sabir wrote\. Restore it"):
        lock.read(config)


def test_a_damaged_lock_is_not_written_over(config):
    lock.path_of(config).write_text("bases: x\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not a lock that sabir wrote"):
        lock.write(config, FULL)
    assert lock.path_of(config).read_text(encoding="utf-8") == "bases: x\n"


def test_a_place_that_cannot_be_written_is_said_to_be(tmp_path):
    with pytest.raises(InputError, match=r"sabir\.lock: cannot be written"):
        lock.write(tmp_path / "gone" / "sabir.yaml", FULL)


def test_a_write_that_fails_leaves_the_old_lock_whole(config, monkeypatch):
    lock.write(config, FULL)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        lock.write(config, Lock())
    assert lock.read(config) == FULL
    assert [path.name for path in config.parent.iterdir()] == [lock.NAME]
