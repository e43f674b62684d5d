"""Estimates are kept in the order they were made, and nothing counts twice in a trend."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from sabir.engine import care
from sabir.engine.store import Store
from sabir.errors import StoreError
from sabir.project.history import Estimated, History


def row(language="de", window="", error=0.1, **more):
    given = {"language": language, "domain": "", "window": window, "error": error, "n_labelled": 0}
    return {**given, **more}


def estimated(*rows, created="2026-11-21T10:00:00+00:00", **more):
    given = {
        "release": "1",
        "model": "merged/ties",
        "fingerprint": "f1",
        "production": "p1",
        "estimator": "calibrated-disagreement",
        "members": {"kind": "adapters", "names": ["adapter/de"], "n": 1},
    }
    return Estimated(created=created, estimates=rows, **{**given, **more})


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "store", "sabir.yaml")


def told(rows):
    return [(one["window"], one["error"], one["created"][:10]) for one in rows]


def test_what_was_added_is_read_again_in_order(history):
    every = [estimated(row(error=i / 10), production=f"p{i}") for i in range(3)]
    for one in every:
        history.add(one)
    assert history.entries() == tuple(every)
    assert sorted(path.name for path in history.folder.iterdir()) == [
        "000001.json",
        "000002.json",
        "000003.json",
    ]


def test_nothing_was_estimated_yet(history):
    assert history.entries() == ()
    assert history.earlier(estimated()) == []
    assert not history.folder.exists(), "looking writes nothing"


def test_configs_and_tasks_have_histories_of_their_own(tmp_path):
    History(tmp_path, "sabir.yaml#topic").add(estimated())
    assert len(History(tmp_path, "sabir.yaml#topic").entries()) == 1
    assert History(tmp_path, "sabir.yaml").entries() == ()


def test_many_at_once_each_get_a_number(history):
    every = [estimated(production=f"p{i}") for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(history.add, every))
    assert {one.production for one in history.entries()} == {one.production for one in every}
    assert not list(history.folder.glob(".*"))


def test_earlier_rows_say_when_and_of_which_release(history):
    history.add(estimated(row(window="2026-W46", error=0.2), production="p0", release="7"))
    [found] = history.earlier(estimated(row(window="2026-W47")))
    assert found == {
        **row(window="2026-W46", error=0.2),
        "created": "2026-11-21T10:00:00+00:00",
        "release": "7",
        "model": "merged/ties",
    }


def test_a_file_that_was_estimated_twice_counts_once(history):
    history.add(estimated(row(error=0.1), created="2026-11-01"))
    history.add(estimated(row(error=0.2), created="2026-11-02"))
    assert told(history.earlier(estimated(row(), production="p2"))) == [("", 0.2, "2026-11-02")]
    assert history.earlier(estimated(row())) == [], "it is the same file as now"


def test_a_file_that_is_parted_otherwise_now_counts_once(history):
    history.add(estimated(row(error=0.1)))
    assert history.earlier(estimated(row(window="2026-W46"), row(window="2026-W47"))) == []


def test_rows_come_in_the_order_of_their_last_estimate(history):
    history.add(estimated(row(window="2026-W46", error=0.1), created="2026-11-12", production="a"))
    history.add(estimated(row(window="2026-W45", error=0.2), created="2026-11-13", production="b"))
    history.add(estimated(row(window="2026-W46", error=0.3), created="2026-11-16", production="c"))
    found = history.earlier(estimated(row(window="2026-W47"), production="now"))
    assert told(found) == [("2026-W45", 0.2, "2026-11-13"), ("2026-W46", 0.3, "2026-11-16")]


def test_the_same_file_of_another_model_is_another_matter(history):
    history.add(estimated(row(error=0.1), created="2026-11-01", fingerprint="f0", release="0"))
    assert told(history.earlier(estimated(row()))) == [("", 0.1, "2026-11-01")]


def test_a_window_of_a_file_that_grew_counts_once(history):
    weeks = [row(window="2026-W45", error=0.1), row(window="2026-W46", error=0.2)]
    history.add(estimated(*weeks, created="2026-11-12", production="first days"))
    history.add(estimated(row(window="2026-W46", error=0.3), created="2026-11-16", production="whole week"))
    now = estimated(row(window="2026-W47"), production="now")
    assert told(history.earlier(now)) == [("2026-W45", 0.1, "2026-11-12"), ("2026-W46", 0.3, "2026-11-16")]
    now = estimated(row(window="2026-W46"), row(window="2026-W47"), production="now")
    assert told(history.earlier(now)) == [("2026-W45", 0.1, "2026-11-12")]


def test_windows_by_number_are_those_of_their_file(history):
    history.add(estimated(row(window="0001", error=0.1), created="2026-11-01", production="p0"))
    history.add(estimated(row(window="0001", error=0.2), created="2026-11-02", production="p1"))
    now = estimated(row(window="0001"), production="p2")
    assert told(history.earlier(now)) == [("0001", 0.1, "2026-11-01"), ("0001", 0.2, "2026-11-02")]


def test_other_estimators_are_left_out_but_for_rows_that_stand_on_labels(history):
    rows = [row("de", error=0.1), row("en", error=0.2, n_labelled=50)]
    history.add(estimated(*rows, production="p0", estimator="constant"))
    found = history.earlier(estimated(row(), production="p1"))
    assert [one["language"] for one in found] == ["en"]


def test_what_a_newer_sabir_knows_of_one_is_left_out(history):
    history.add(estimated(row()))
    path = history.folder / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "mood": "fine"}), encoding="utf-8")
    assert history.entries() == (estimated(row()),)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"estimates": 5}', '{"estimates": []}'])
def test_a_damaged_one_is_a_sentence(history, text):
    history.add(estimated())
    path = history.folder / "000001.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="this estimate cannot be read") as error:
        history.entries()
    assert str(path) in str(error.value)
    assert "it is missing from the trend, and no more" in str(error.value)


def test_one_that_cannot_be_kept_is_a_sentence(tmp_path):
    (tmp_path / "estimates").write_text("a file where a folder is due", encoding="utf-8")
    with pytest.raises(StoreError, match="the estimate could not be kept"):
        History(tmp_path, "sabir.yaml").add(estimated())


def test_care_of_the_store_leaves_them_and_takes_what_a_dead_writer_left(history):
    store = Store(history.folder.parents[1])
    store.prepare()
    history.add(estimated(row()))
    aside = history.folder / f".{'0' * 32}"
    aside.write_text("{", encoding="utf-8")
    os.utime(aside, (1, 1))
    junk = care.garbage(store, [], watch_s=0.0)
    assert [one.path for one in junk] == [aside]
    care.sweep(store, junk)
    assert care.verify(store) == []
    assert history.entries() == (estimated(row()),)
