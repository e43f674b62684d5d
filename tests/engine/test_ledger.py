"""The ledger: every run, in order."""

from __future__ import annotations

import pytest

from sabir.engine import ledger
from sabir.engine.store import Store
from sabir.errors import StoreError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_there_are_no_runs_at_first(store):
    assert ledger.runs(store) == []
    assert ledger.last(store) is None


def test_run_ids_sort_by_time():
    ids = [ledger.new_run_id() for _ in range(50)]
    assert ids == sorted(ids)
    assert all(len(name) == len(ids[0]) for name in ids)


def test_runs_come_oldest_first_whatever_the_order_of_writing(store):
    for name in ("20261121T100000.000000Z", "20251121T100000.000000Z", "20261121T100000.000001Z"):
        ledger.write(store, {"id": name, "steps": []})
    assert [run["id"] for run in ledger.runs(store)] == [
        "20251121T100000.000000Z",
        "20261121T100000.000000Z",
        "20261121T100000.000001Z",
    ]
    assert ledger.last(store)["id"] == "20261121T100000.000001Z"


def test_an_entry_being_written_is_not_read(store):
    ledger.write(store, {"id": "1", "steps": []})
    (store.path / "runs" / ".2.json.aside").write_text("{")
    assert len(ledger.runs(store)) == 1


def test_a_damaged_entry_is_a_sentence(store):
    (store.path / "runs").mkdir(parents=True)
    (store.path / "runs" / "1.json").write_text("{")
    with pytest.raises(StoreError, match=r"1\.json: this entry of the ledger cannot be read"):
        ledger.runs(store)
