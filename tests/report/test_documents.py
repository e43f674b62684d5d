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
    recipes,
    remembered_statuses,
    routes,
    score_rows,
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


# --- scores ------------------------------------------------------------------------------------------------


def scored(value, kind="scores", answers=None, **changes):
    """The record of a scores step of one metric."""
    score = {
        "metric": "accuracy",
        "value": value,
        "low": 0.0,
        "high": 1.0,
        "level": 0.95,
        "n": 8,
        "unscored": 0,
    }
    result = {"scores": [{**score, "signature": "accuracy|v:1", **changes}]}
    return {"kind": kind, "result": {**result, "answers": answers} if answers else result}


def answered(cut):
    return {"rows": 8, "empty": 0, "cut": cut, "unread": 0}


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ("scores/base/de/test", ("base", "de", "test")),
        (
            "scores/adapter/combined[rank=32,scale=0.5]/zh-Hans/short",
            ("adapter/combined[rank=32,scale=0.5]", "zh-Hans", "short"),
        ),
        ("scores/release/2/macro/code-switched", ("release/2", "macro", "code-switched")),
        ("scores/base[shots=4]/pt/unseen", ("base[shots=4]", "pt", "unseen")),
    ],
)
def test_a_score_is_of_the_model_language_and_split_in_its_steps_name(step, place):
    (row,) = score_rows("topic", 7, {step: scored(0.5), "adapter/de": {"kind": "adapter"}})
    assert (row["model"], row["language"], row["split"]) == place
    assert (row["task"], row["seed"], row["value"]) == ("topic", 7, 0.5)


def test_a_score_has_its_sources_its_undefined_rows_and_what_is_wrong_with_the_answers():
    (row,) = score_rows(
        "t", 0, {"scores/base/de/test": scored(0.5, answers=answered(2), groups=3, undefined=1)}
    )
    assert (row["groups"], row["undefined"], row["answers"]) == (3, 1, answered(2))
    (mean,) = score_rows("t", 0, {"scores/base/macro/test": scored(0.5, kind="macro")})
    assert (mean["groups"], mean["undefined"], mean["answers"]) == (None, None, None), "unknown, not none"


def over_seeds(model, value, language="de"):
    return {
        "model": model,
        "language": language,
        "split": "test",
        **scored(value)["result"]["scores"][0],
        "groups": 8,
        "undefined": 0,
        "seed": None,
    }


def trained_twice(*means):
    return {
        "scores/base/de/test": scored(0.125),
        "scores/merged/ties/de/test": scored(0.25, answers=answered(1)),
        "scores/merged/ties#2/de/test": scored(0.75, answers=answered(2)),
        "comparisons": {"kind": "judge", "result": {"comparisons": [], "over_seeds": list(means)}},
    }


def test_the_mean_over_trainings_takes_the_plain_name_and_the_first_training_a_number():
    rows = score_rows("t", 5, trained_twice(over_seeds("merged/ties", 0.5)))
    assert [(row["model"], row["value"], row["seed"]) for row in rows] == [
        *(
            ("base", 0.125, 5),
            ("merged/ties", 0.5, None),
            ("merged/ties#1", 0.25, 5),
            ("merged/ties#2", 0.75, 6),
        ),
    ]
    mean = rows[1]
    assert mean["answers"] == {"rows": 16, "empty": 0, "cut": 3, "unread": 0}
    assert set(mean) == set(rows[0]), "the same fields"


def test_a_mean_that_no_single_score_stands_under_is_kept():
    rows = score_rows("t", 0, trained_twice(over_seeds("merged/ties", 0.5, "macro")))
    assert [row["language"] for row in rows if row["model"] == "merged/ties"] == ["de", "macro"]


def test_without_their_mean_trainings_stay_as_they_are():
    rows = score_rows("t", 0, trained_twice())
    assert [row["model"] for row in rows] == ["base", "merged/ties", "merged/ties#2"]


def test_a_model_that_was_trained_once_is_its_own_mean():
    rows = score_rows("t", 0, trained_twice(over_seeds("base", 0.5)))
    assert [row["value"] for row in rows if row["model"] == "base"] == [0.125]
    assert "base#1" not in {row["model"] for row in rows}


def test_where_rows_were_sent_is_told_by_language_and_split():
    sent = {"kind": "outputs", "result": {"routes": {"de": 3, "fr": 1}}}
    records = {
        "outputs/routed/de/test": sent,
        "outputs/routed/de/short": {"kind": "outputs", "result": {"routes": {"fr": 4}}},
        "outputs/base/de/test": {"kind": "outputs", "result": {}},
        "scores/routed/de/test": scored(0.5),
    }
    assert routes(records) == {"de": {"de": 3, "fr": 1}}
    assert routes(records, "short") == {"de": {"fr": 4}}
    assert routes(records, "unseen") == {}


def test_what_merges_are_is_told_of_the_models_asked_for():
    records = {
        "merged/average": {**merge_record(), "settings": {"method": "linear"}},
        "merged/tuned": {**merge_record("search", **SEARCH), "settings": {"recipe": {}, "budget": 2}},
        "merged/other": {**merge_record(), "settings": {"method": "ties"}},
        "base": {"kind": "adapter", "settings": {}},
    }
    assert recipes(["base", "merged/average", "merged/tuned", "merged/gone"], records) == {
        "merged/average": {"method": "linear"},
        "merged/tuned": {"method": "ties"},
    }


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


def test_a_score_says_what_was_asked_of_which_model():
    row = {"metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "n": 10, "unscored": 0}
    settings = {"base": "sha256:" + "b" * 64, "answer": "text", "max_length": 64, "max_new_tokens": 8}
    records = {
        "outputs/base[shots=2]/de/test": {
            "kind": "outputs",
            "settings": {**settings, "shots": {"count": 2, "seed": 7}},
            "deps": {"rows": "r" * 64, "shots": "s" * 64},
        },
        "scores/base[shots=2]/de/test": {
            "kind": "scores",
            "result": {"scores": [{**row, "signature": "accuracy|v:1"}]},
        },
    }
    [found] = score_rows("t", 0, records)
    assert found["signature"] == (
        "accuracy|v:1|base:bbbbbbbbbbbb|model:none|rows:rrrrrrrrrrrr|shots:2,seed 7|answer:text|max_length:64|"
        "max_new_tokens:8"
    )
    adapted = {
        name.replace("base[shots=2]", "merged/ties"): record
        | ({"deps": {"rows": "r" * 64, "model": "m" * 64}} if "outputs" in name else {})
        for name, record in records.items()
    }
    assert "|model:mmmmmmmmmmmm|" in score_rows("t", 0, adapted)[0]["signature"]
