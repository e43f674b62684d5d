"""Tables of time and money."""

from __future__ import annotations

import csv
import io
import json

import pytest
from bookkeeping import STEPS, cells, rows_of, step, trainings

from sabir.errors import InputError
from sabir.report.baseline import Prediction, predicted_baseline
from sabir.report.money import FIELDS, costs, csv_text, rows_since, savings

HOUR = 3600.0
PAPERS_PRICE = 31.5  # USD an hour: what the printed costs are of, see the figures below


def document(*runs):
    return {"costs": [row for rows in runs for row in rows]}


def test_the_cost_table_has_both_routes_on_three_clocks():
    table = costs(document(rows_of(STEPS, devices=2)))
    assert table.columns == ("run", "work", "a device each", "2 devices", "one device", "device h")
    combined = cells(table, "train: combined")
    assert combined[2:5] == ("1 min 30 s", "45 s", "1 min 30 s"), "at best one training splits without loss"
    assert cells(table, "train: by language")[2:5] == ("50 s", "50 s", "1 min 40 s")
    assert cells(table, "difference")[2:] == ("-44.4 %", "+11.1 %", "+11.1 %", "+11.1 %")
    assert "which sabir does not do" in table.notes[0]
    assert "No price is set" in table.notes[-1]
    assert [row[0] for row in table.rows if row[0]] == ["1. set-up"]


def test_on_one_device_there_is_no_column_for_several():
    table = costs(document(rows_of(STEPS, usd_per_hour=3600.0)))
    assert table.columns == ("run", "work", "a device each", "one device", "device h", "USD")
    assert cells(table, "train: by language")[-1] == "100.00"


@pytest.mark.parametrize(
    ("combined", "languages", "expected"),
    [
        # The figures of https://arxiv.org/abs/2601.16127, section on cost: hours, USD, and the change of both.
        # Its combined set-up says $113.4, which is 3.6 hours and not the 3.4 beside it; 31.5 x 3.4 is $107.1.
        (
            3.4,
            [2.2, 0.3, 0.3, 0.3, 0.3],
            ("3 h 24 min", "107.10", "2 h 12 min", "107.10", "-35.3 %", "+0.0 %"),
        ),
        (
            3.6,
            [2.2, 0.3, 0.3, 0.3, 0.3],
            ("3 h 36 min", "113.40", "2 h 12 min", "107.10", "-38.9 %", "-5.6 %"),
        ),
        (3.8, [1.0], ("3 h 48 min", "119.70", "1 h 0 min", "31.50", "-73.7 %", "-73.7 %")),
        (54.5, [20.5], ("54 h 30 min", "1,717", "20 h 30 min", "645.75", "-62.4 %", "-62.4 %")),
    ],
)
def test_the_papers_hours_and_dollars_come_out_as_printed(combined, languages, expected):
    named = {f"l{number}": hours * HOUR for number, hours in enumerate(languages)}
    steps = trainings({"combined": combined * HOUR, **named})
    table = costs(document(rows_of(steps, usd_per_hour=PAPERS_PRICE)))
    ours, theirs, change = (
        cells(table, work) for work in ("train: by language", "train: combined", "difference")
    )
    assert (theirs[2], theirs[-1], ours[2], ours[-1], change[2], change[-1]) == expected


def test_a_run_that_was_stopped_and_the_one_that_went_on_are_one():
    first = rows_of(STEPS[:1], complete=False)
    unfinished = costs(document(first))
    assert unfinished.rows[0][0] == "1. set-up (unfinished)"
    table = costs(document(first, rows_of(STEPS[1:], run="2")))
    assert {row[0] for row in table.rows} == {"1. set-up", ""}
    assert cells(table, "train: by language")[3] == "1 min 40 s"


def test_a_run_that_only_scored_anew_has_no_place_in_the_cost_table():
    assert costs(document(rows_of(STEPS[-2:], phase="none"))) is None
    assert costs(document([])) is None


def test_what_runs_without_a_place_in_the_table_took_is_said_below_it():
    table = costs(
        document(rows_of(STEPS), rows_of([step("merged/x", "merged", HOUR)], phase="none", run="2"))
    )
    assert "1 other run only merged or scored anew: 1.00 device h." in table.notes


def test_the_continued_baseline_is_a_route_of_its_own():
    table = costs(document(rows_of(trainings({"de": 10.0, "combined": 50.0, "continued": 12.0}))))
    assert cells(table, "train: combined, continued")[2] == "12 s"
    assert cells(table, "train: combined")[2] == "50 s"
    assert any(note.startswith("Continued:") for note in table.notes)


# --- since -----------------------------------------------------------------------------------------------

IDS = ("20261119T080000.000000Z", "20261120T233000.000000Z", "20261121T120000.000000Z")


def history():
    return document(
        rows_of(STEPS, run=IDS[0]),
        rows_of(trainings({"de": 5.0}), run=IDS[1], phase="update", complete=False),
        rows_of(trainings({"fr": 7.0}), run=IDS[2], phase="update"),
    )


@pytest.mark.parametrize(
    ("since", "labels"),
    [
        (None, ["1. set-up", "2. update"]),
        ("1", ["1. set-up", "2. update"]),
        ("2", ["2. update"]),
        (IDS[2], ["2. update"]),
        ("2026-11-20", ["2. update"]),
        ("2026-11-21", ["2. update"]),
        ("20261119", ["1. set-up", "2. update"]),
        ("2026-11-19T08:00", ["1. set-up", "2. update"]),
        ("2026-11-19T09:00+01:00", ["1. set-up", "2. update"]),
        ("2026-11-19T09:30+01:00", ["2. update"]),
    ],
)
def test_runs_are_chosen_by_date_number_or_id_and_keep_their_numbers(since, labels):
    table = costs(history(), since)
    assert [row[0] for row in table.rows if row[0]] == labels


def test_a_stopped_run_stays_with_the_one_that_went_on():
    assert {row["run"] for row in rows_since(history()["costs"], "2026-11-21")} == {IDS[1], IDS[2]}


@pytest.mark.parametrize("since", [None, "1", "2", IDS[2], "2026-11-20"])
def test_choosing_twice_is_choosing_once(since):
    """Runs keep the numbers they have among all: the document of `show --since` is chosen from already."""
    once = rows_since(history()["costs"], since)
    assert rows_since(once, since) == once
    assert costs({"costs": once}, since) == costs(history(), since)
    assert savings({"costs": once}, since) == savings(history(), since)


def test_since_a_day_without_runs_there_is_nothing_to_show():
    assert costs(history(), "2026-12-01") is None
    assert savings(history(), "2026-12-01") is None
    assert rows_since(history()["costs"], "2026-12-01") == []


@pytest.mark.parametrize("since", ["3", "0", "yesterday", "2026-13-01", ""])
def test_a_since_that_names_no_run_is_refused(since):
    with pytest.raises(InputError, match="--since"):
        costs(history(), since)


# --- savings ---------------------------------------------------------------------------------------------


def update(run, seconds, *, retrained=None, foreseen=None, price=1.0, phase="update"):
    """An update of one language with one merge, its choice and its evaluation: 30 min beside the training."""
    steps = [
        *trainings({"de": seconds, **({} if retrained is None else {"combined": retrained})}),
        step("merged/ties", "merged", 600.0),
        step("outputs/merged/ties/de/valid", "outputs", 300.0),
        step("outputs/merged/ties/de/test", "outputs", 900.0),
    ]
    rows = rows_of(steps, run=run, phase=phase, usd_per_hour=price)
    entry = {"id": run, "phase": phase, "devices": 1, "usd_per_hour": price, "steps": steps}
    if foreseen is not None:
        rows += predicted_baseline(
            Prediction(1.0, foreseen, "combined"), entry={**entry, "costs": rows, "complete": True}
        )
    return rows


def test_savings_add_up_over_updates_with_every_component_apart():
    table = savings(
        document(
            rows_of(STEPS, run="1", usd_per_hour=10.0),
            update("2", HOUR, retrained=4 * HOUR, price=10.0),
            update("3", 2 * HOUR, foreseen=4.5 * HOUR, price=10.0, phase="add"),
        )
    )
    assert table.columns == (
        *("run", "all retrained", "train", "merge", "choose", "evaluate", "saved", "saved so far"),
        *("saved USD", "USD so far"),
    )
    assert table.rows == (
        ("2. update", "4.00", "1.00", "0.1667", "0.0833", "0.2500", "2.50", "2.50", "25.00", "25.00"),
        ("3. new language", "4.50 ~", "2.00", "0.1667", "0.0833", "0.2500", "2.00", "4.50", "20.00", "45.00"),
    )
    assert table.notes[0] == (
        "2 updates took 4.00 device h in place of 8.50 by retraining everything: 4.50 device h (52.9 %) and "
        "45.00 USD saved."
    )
    assert any(note.startswith("~") for note in table.notes)


def test_savings_since_a_run_are_counted_from_there():
    runs = document(update("1", HOUR, retrained=4 * HOUR), update("2", HOUR, retrained=3 * HOUR))
    assert [row[7] for row in savings(runs).rows] == ["2.50", "4.00"]
    assert [(row[0], row[7]) for row in savings(runs, "2").rows] == [("2. update", "1.50")]


def test_an_update_that_cost_more_than_retraining_is_shown_as_a_loss():
    (row,) = savings(document(update("1", HOUR, retrained=HOUR))).rows
    assert row[6] == "-0.5000"


def test_a_loss_is_told_as_more_and_not_as_a_saving_below_zero():
    (note, *_) = savings(document(update("1", HOUR, retrained=HOUR, price=10.0))).notes
    assert note == (
        "1 update took 1.50 device h in place of 1.00 by retraining everything: 0.5000 device h (50.0 %) and "
        "5.00 USD more."
    )
    (note, *_) = savings(document(update("1", HOUR, retrained=HOUR, price=None))).notes
    assert note.endswith(": 0.5000 device h (50.0 %) more.")


def test_hours_that_were_saved_while_money_was_lost_are_told_apart():
    cheap = update("1", HOUR, retrained=3 * HOUR, price=1.0)
    dear = update("2", HOUR, retrained=HOUR, price=10.0)
    (note, *_) = savings(document(cheap, dear)).notes
    assert note.endswith("1.00 device h (25.0 %) saved and 3.50 USD more.")


def test_an_update_that_trained_nothing_has_saved_nothing():
    steps = [*trainings({"de": 5.0}, status="reused"), step("merged/ties", "merged", 600.0)]
    entry = {
        "id": "1",
        "phase": "update",
        "devices": 1,
        "usd_per_hour": None,
        "steps": steps,
        "complete": True,
    }
    rows = rows_of([steps[-1]], run="1", phase="update")
    rows += predicted_baseline(Prediction(1.0, HOUR, "combined"), entry={**entry, "costs": rows})
    (row,) = savings(document(rows)).rows
    assert (row[1], row[6], row[7]) == ("?", "?", "0.0000")


def test_where_the_baseline_is_unknown_nothing_is_saved_or_lost():
    table = savings(document(update("1", HOUR), update("2", HOUR, retrained=4 * HOUR)))
    assert [(row[1], row[6], row[7]) for row in table.rows] == [
        ("?", "?", "0.0000"),
        ("4.00", "2.50", "2.50"),
    ]
    assert table.notes[0].startswith("1 update took 1.50 device h in place of 4.00")
    assert "not counted" in table.notes[-1]


def test_without_a_price_savings_are_hours_alone():
    table = savings(document(update("1", HOUR, retrained=4 * HOUR, price=None)))
    assert "USD" not in " ".join((*table.columns, *table.notes))
    mixed = savings(
        document(update("1", HOUR, retrained=4 * HOUR, price=None), update("2", HOUR, retrained=4 * HOUR))
    )
    assert [row[8:] for row in mixed.rows] == [("?", "0.0000"), ("2.50", "2.50")]


def test_only_finished_updates_can_have_saved_something():
    assert savings(document([])) is None
    assert savings(document(rows_of(STEPS))) is None, "a set-up"
    assert savings(document(rows_of(trainings({"de": 5.0}), phase="update", complete=False))) is None


# --- CSV -------------------------------------------------------------------------------------------------


def test_csv_has_one_header_and_what_the_json_has():
    rows = rows_of(STEPS, devices=2, usd_per_hour=None)
    header, *lines = csv.reader(io.StringIO(csv_text(rows)))
    assert tuple(header) == FIELDS
    assert len(lines) == len(rows)
    for line, row in zip(lines, json.loads(json.dumps(rows)), strict=True):
        read = dict(zip(header, line, strict=True))
        assert float(read["device_s"]) == row["device_s"]
        assert (read["usd"], read["measured"], read["route"]) == ("", "true", row["route"])


def test_csv_of_no_rows_is_its_header():
    assert csv_text([]) == ",".join(FIELDS) + "\n"
