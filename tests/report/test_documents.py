"""The documents that programs read, from steps, records and ledger entries."""

from __future__ import annotations

import pytest
from bookkeeping import SEARCH, STEPS, found, step

from sabir.report.baseline import Prediction
from sabir.report.costs import Rates
from sabir.report.documents import (
    ledger_entry,
    merge_notes,
    plan_document,
    remembered_statuses,
    searches,
)


def record(kind, seconds, size=10.0):
    return {"kind": kind, "cost": {"wall_s": seconds, "device_s": seconds, "size": size}}


# --- ledger entries and statuses ---------------------------------------------------------------------------


def entry(steps, ran, failures=None, phase="setup", attempts=()):
    records = {name: record("adapter", 10.0) for name in ran}
    return ledger_entry(
        steps,
        {one["name"]: "because" for one in steps},
        records,
        run="1",
        phase=phase,
        devices=2,
        usd_per_hour=3600.0,
        ran=ran,
        failures=failures or {},
        attempts=attempts,
    )


def test_a_ledger_entry_says_what_ran_failed_and_was_never_started():
    steps = [
        step("adapter/en", "adapter", status="reused", why="is new"),
        step("adapter/de", "adapter"),
        step("merged/ties", "merged"),
    ]
    made = entry(steps, {"adapter/en"}, {"adapter/de": "out of memory"})
    assert [(one["status"], one["why"]) for one in made["steps"]] == [
        ("run", "because"),
        ("failed", "new"),
        ("blocked", "new"),
    ]
    assert made["complete"] is False
    assert {row["complete"] for row in made["costs"]} == {False}
    assert found(made["costs"], "merged", "train")["usd"] == 10.0


def test_time_on_steps_that_were_not_finished_is_kept_and_paid():
    attempts = [{"name": "adapter/de", "kind": "adapter", "fingerprint": "f", "wall_s": 25.0}]
    steps = [step("adapter/en", "adapter"), step("adapter/de", "adapter")]
    made = entry(steps, {"adapter/en"}, {"adapter/de": "out of memory"}, attempts=iter(attempts))
    assert made["attempts"] == attempts
    train = found(made["costs"], "merged", "train")
    assert (train["device_s"], train["usd"], train["wall_s"]) == (35.0, 35.0, 25.0)


def test_a_step_that_is_not_in_the_store_is_never_shown_as_run():
    now = [step("a", "adapter"), step("b", "adapter"), step("c", "adapter", status="reused")]
    then = {"steps": [step("a", "adapter", status="failed"), step("c", "adapter", why="was new")]}
    assert [(one["status"], one["why"]) for one in remembered_statuses(now, then)] == [
        ("failed", "not run yet: new"),
        ("blocked", "not run yet: new"),
        ("run", "was new"),
    ]


def merge_record(kind="merged", **result):
    return {"kind": kind, "result": {"rank": 16, "energy_kept": 0.95, **result}}


def test_what_a_search_chose_and_tried_is_in_the_document_without_the_rest_of_its_result():
    records = {"merged/tuned": merge_record("search", **SEARCH), "merged/ties": merge_record()}
    assert searches(records) == {"merged/tuned": SEARCH}


def test_what_merges_warned_of_is_told_of_the_models_that_are_reported():
    records = {
        "merged/a": merge_record(warnings=["Rank 16 keeps 0.640.", "One more."]),
        "merged/b": merge_record("search", warnings=["Rank 16 keeps 0.640."]),
        "merged/c": merge_record(warnings=["Not reported."]),
        "merged/old": merge_record(),
        "adapter/de": {"kind": "adapter", "result": {}},
    }
    assert merge_notes(["base", "adapter/de", "merged/a", "merged/b", "merged/old"], records) == [
        "merged/a: Rank 16 keeps 0.640.",
        "merged/a: One more.",
        "merged/b: Rank 16 keeps 0.640.",
    ]


# --- plan --------------------------------------------------------------------------------------------------


def sized(steps):
    """Steps whose size is the seconds they take."""
    return [{**one, "size": one["wall_s"]} for one in steps]


def totals(steps, *, phase="update", devices=1, price=None, retraining=None, measured=STEPS):
    document = plan_document(
        sized(steps),
        [],
        [],
        Rates(sized(measured)),
        phase=phase,
        devices=devices,
        usd_per_hour=price,
        retraining=retraining,
    )
    return {(row["phase"], row["route"]): row for row in document["totals"]}


def test_a_plan_adds_components_and_puts_their_steps_side_by_side():
    measured = [*STEPS, step("scores/merged/ties/de/test", "scores", 1.0)]
    found = totals(measured, phase="setup", devices=2, price=3600.0, measured=measured)
    merged, combined = found["setup", "merged"], found["setup", "combined"]
    assert merged["estimated_device_s"] == pytest.approx(100 + 4 + 2 + 4)
    assert merged["estimated_wall_s"] == pytest.approx(50 + 4 + 2 + 3 + 1), "scores come after their answers"
    assert merged["estimated_usd"] == pytest.approx(110)
    assert combined["estimated_wall_s"] == pytest.approx(90 + 5)


def only(name, steps=STEPS):
    """The steps, of which those are to run that have this in their name."""
    return [{**one, "status": "run" if name in one["name"] else "reused"} for one in steps]


@pytest.mark.parametrize("phase", ["update", "add"])
def test_an_update_is_priced_beside_retraining_all_of_the_baseline(phase):
    found = totals(only("de"), phase=phase)
    assert found[phase, "merged"]["estimated_device_s"] == pytest.approx(50 + 2 + 3)
    assert found["setup", "merged"]["estimated_device_s"] == pytest.approx(100 + 4 + 2 + 3)
    assert found[phase, "combined"] == {**found["setup", "combined"], "phase": phase}
    assert found[phase, "combined"]["estimated_device_s"] == pytest.approx(90 + 5)


def test_a_continued_training_is_small_in_the_update_and_whole_in_the_set_up():
    continued = [
        {**one, "size_from_nothing": 50.0} if one["name"] == "adapter/de" else one for one in only("de")
    ]
    document = plan_document(
        [{**one, "size": 6.0 if one["name"] == "adapter/de" else one["wall_s"]} for one in continued],
        [],
        [],
        Rates(sized(STEPS)),
        phase="update",
        devices=1,
        usd_per_hour=None,
    )
    found = {(row["phase"], row["route"]): row["estimated_device_s"] for row in document["totals"]}
    assert found["update", "merged"] == pytest.approx(6 + 2 + 3)
    assert found["setup", "merged"] == pytest.approx(100 + 4 + 2 + 3)
    assert found["update", "combined"] == pytest.approx(90 + 5)


def test_retraining_is_priced_by_its_prediction_where_there_is_one():
    steps = only("combined")
    document = plan_document(
        sized(steps),
        [],
        [],
        Rates(sized(STEPS)),
        phase="update",
        devices=1,
        usd_per_hour=None,
        retraining=Prediction(1.0, 77.0, "combined"),
    )
    assert {row["name"]: row["estimated_wall_s"] for row in document["steps"]}["adapter/combined"] == 77.0
    found = {(row["phase"], row["route"]): row["estimated_device_s"] for row in document["totals"]}
    assert found["update", "combined"] == pytest.approx(77 + 5)


def test_without_a_baseline_retraining_is_priced_all_the_same():
    steps = [
        *(one for one in STEPS if "combined" not in one["name"]),
        step("outputs/base/de/test", "outputs", 6.0),
    ]
    found = totals(only("de", steps), retraining=Prediction(1.0, 77.0, "languages"), measured=steps)
    assert found["update", "combined"]["estimated_device_s"] == pytest.approx(77 + 6)
    assert found["setup", "combined"]["estimated_device_s"] == pytest.approx(77 + 6)
    unknown = totals(only("de", steps), measured=steps)
    assert unknown["update", "combined"]["estimated_device_s"] is None, "not measured is not nothing"


def test_going_on_with_the_combined_adapter_has_totals_of_its_own():
    steps = [*STEPS, step("adapter/continued", "adapter", 8.0)]
    found = totals(only("continued", steps), measured=steps)
    assert found["update", "continued"]["estimated_device_s"] == pytest.approx(8)
    assert found["update", "merged"]["estimated_device_s"] == 0
    assert ("setup", "continued") not in found


def test_from_nothing_there_is_no_release_to_hold_against():
    answers = step("outputs/release/1/de/test", "outputs", 9.0)
    found = totals(only("de", [*STEPS, answers]))
    assert found["setup", "merged"]["estimated_device_s"] == pytest.approx(100 + 4 + 2 + 3)
    assert found["update", "merged"]["estimated_device_s"] == pytest.approx(50 + 2 + 3 + 9)


def test_before_anything_was_measured_every_total_is_unknown():
    found = totals(STEPS, phase="setup", measured=[], price=1.0)
    assert {row["estimated_device_s"] for row in found.values()} == {None}
    assert {row["estimated_usd"] for row in found.values()} == {None}
