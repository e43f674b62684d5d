"""sabir.lock: the pinned base, written once and read as strictly as a config."""

from __future__ import annotations

import pytest

from sabir import lock
from sabir.errors import InputError


def test_what_is_written_is_read_back(tmp_path):
    for base in (
        lock.PinnedBase("Qwen/Qwen3-0.6B", "commit:" + "a" * 40, "a" * 40),
        lock.PinnedBase('models/a "quoted" \\ name', "sha256:" + "b" * 64, None),
    ):
        lock.write(tmp_path / "sabir.yaml", base)
        assert lock.read(tmp_path / "sabir.yaml")[base.name] == base


def test_without_a_lock_nothing_is_pinned(tmp_path):
    assert lock.read(tmp_path / "sabir.yaml") == {}


def test_a_lock_that_says_the_same_is_not_touched(tmp_path):
    base = lock.PinnedBase("embedded", "sha256:1", None)
    lock.write(tmp_path / "sabir.yaml", base)
    before = (tmp_path / lock.NAME).stat().st_mtime_ns, (tmp_path / lock.NAME).stat().st_ino
    lock.write(tmp_path / "sabir.yaml", base)
    assert ((tmp_path / lock.NAME).stat().st_mtime_ns, (tmp_path / lock.NAME).stat().st_ino) == before


@pytest.mark.parametrize(
    "text", ["bases: x\n", "other: 1\n", "bases: {x: {revision: y}}\n", "bases: {x: {identity: 5}}\n"]
)
def test_another_file_of_that_name_is_refused(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="is not a lock that sabir wrote"):
        lock.read(tmp_path / "sabir.yaml")


def test_a_place_that_cannot_be_written_is_said_to_be(tmp_path):
    with pytest.raises(InputError, match=r"sabir\.lock: cannot be written"):
        lock.write(tmp_path / "gone" / "sabir.yaml", lock.PinnedBase("embedded", "sha256:1", None))


def test_two_configs_of_one_folder_keep_each_others_pin(tmp_path):
    one, other = (lock.PinnedBase(name, f"sha256:{name}", None) for name in ("embedded", "models/x"))
    lock.write(tmp_path / "a.yaml", one)
    lock.write(tmp_path / "b.yaml", other)
    assert lock.read(tmp_path / "a.yaml") == {"embedded": one, "models/x": other}
