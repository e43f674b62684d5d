"""Costs, documents and tables, from records made by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.report.costs import Rates, component, cost_rows, makespan, route, usd
from sabir.report.documents import (
    ledger_entry,
    merge_notes,
    plan_document,
    predicted_baseline,
    remembered_statuses,
    searches,
)
from sabir.report.tables import compared, costs, duration, markdown, planned, quality


def step(name, kind, seconds=1.0, **changes):
    return {
        "name": name,
        "kind": kind,
        "fingerprint": name,
        "status": "run",
        "why": "new",
        "size": 10.0,
        "wall_s": seconds,
        "device_s": seconds,
        **changes,
    }


def record(kind, seconds, size=10.0):
    return {"kind": kind, "cost": {"wall_s": seconds, "device_s": seconds, "size": size}}


STEPS = [
    *(
        step(f"adapter/{language}", "adapter", s)
        for language, s in (("en", 30.0), ("de", 50.0), ("fr", 20.0))
    ),
    step("adapter/combined", "adapter", 90.0),
    step("merged/ties", "merged", 4.0),
    step("outputs/merged/ties/de/valid", "outputs", 2.0),
    step("outputs/merged/ties/de/test", "outputs", 3.0),
    step("outputs/adapter/combined/de/test", "outputs", 5.0),
]
RUN = {"run": "1", "phase": "setup", "usd_per_hour": None}


def found(rows, route, component):
    return next(row for row in rows if (row["route"], row["component"]) == (route, component))


# --- costs -----------------------------------------------------------------------------------------------


def test_with_a_device_each_the_wall_clock_is_the_longest_training():
    train = found(cost_rows(STEPS, devices=2, **RUN), "merged", "train")
    assert train["wall_s_unlimited"] == 50
    assert train["wall_s"] == 50, "50 on the one, 30 + 20 on the other"
    assert train["device_s"] == 100
    assert train["usd"] is None


def test_every_step_is_paid_once():
    rows = cost_rows(STEPS, devices=3, **RUN)
    parts = [row for row in rows if row["component"] != "total"]
    assert sum(row["device_s"] for row in parts) == sum(one["device_s"] for one in STEPS)
    assert {(row["route"], row["component"]) for row in parts} == {
        *(("merged", part) for part in ("train", "merge", "search", "evaluate")),
        *(("combined", part) for part in ("train", "evaluate")),
    }


def test_on_one_device_the_wall_clock_is_the_device_time():
    for row in cost_rows(STEPS, devices=1, **RUN):
        assert row["wall_s"] == pytest.approx(row["device_s"])


def test_money_is_device_hours_at_the_price_and_unknown_without_one():
    assert usd(7200, 2.5) == 5.0
    assert usd(7200, None) is None
    assert usd(None, 2.5) is None


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=5), st.integers(1, 3))
def test_wall_clock_lies_between_the_longest_job_and_the_best_possible_plus_a_third(durations, devices):
    """Graham's bound for longest-first, 4/3 - 1/(3m), against the best of all assignments."""
    best = min(
        max(sum(itertools.compress(durations, (place == one for place in places))) for one in range(devices))
        for places in itertools.product(range(devices), repeat=len(durations))
    )
    got = makespan(durations, devices)
    assert max(durations) - 1e-9 <= got <= sum(durations) + 1e-9
    assert got >= best - 1e-9
    assert got <= best * (4 / 3 - 1 / (3 * devices)) + 1e-9


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("adapter/combined", "adapter", ("combined", "train")),
        ("scores/adapter/combined/de/test", "scores", ("combined", "evaluate")),
        ("adapter/de", "adapter", ("merged", "train")),
        ("data/de", "data", ("merged", "train")),
        ("outputs/merged/ties/de/valid", "outputs", ("merged", "search")),
        ("select", "select", ("merged", "search")),
        ("merged/tuned", "search", ("merged", "search")),
        ("merged/ties", "merged", ("merged", "merge")),
        ("analysis", "analysis", ("merged", "evaluate")),
        ("comparisons", "judge", ("merged", "evaluate")),
    ],
)
def test_every_step_has_its_place_in_the_costs(name, kind, expected):
    assert (route({"name": name}), component({"name": name, "kind": kind})) == expected


def test_rates_are_the_median_of_recent_steps_of_the_kind():
    rates = Rates([step("a", "adapter", s) for s in (10, 20, 1000)])
    assert rates.seconds("adapter", 5.0) == 10.0
    assert rates.seconds("merged", 5.0) is None
    assert rates.seconds("adapter", None) is None


# --- documents -------------------------------------------------------------------------------------------


def entry(steps, ran, failures=None, phase="setup"):
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


def test_a_baseline_is_predicted_at_the_speed_of_the_last_one_and_only_where_it_is_missing():
    whole = entry([step("adapter/de", "adapter", status="reused")], {"adapter/de"}, phase="update")
    (row,) = predicted_baseline({"wall_s": 90.0, "size": 300.0}, 400.0, entry=whole)
    assert (row["device_s"], row["measured"], row["component"]) == (120.0, False, "train")
    assert predicted_baseline({"wall_s": 90.0, "size": 300.0}, 400.0, entry={**whole, "phase": "setup"}) == []
    assert (
        predicted_baseline({"wall_s": 90.0, "size": 300.0}, 400.0, entry={**whole, "complete": False}) == []
    )
    assert predicted_baseline(None, 400.0, entry=whole) == []


def test_a_step_that_is_not_in_the_store_is_never_shown_as_run():
    now = [step("a", "adapter"), step("b", "adapter"), step("c", "adapter", status="reused")]
    then = {"steps": [step("a", "adapter", status="failed"), step("c", "adapter", why="was new")]}
    assert [(one["status"], one["why"]) for one in remembered_statuses(now, then)] == [
        ("failed", "not run yet: new"),
        ("blocked", "not run yet: new"),
        ("run", "was new"),
    ]


def test_a_plan_adds_components_and_puts_their_steps_side_by_side():
    measured = [*STEPS, step("scores/merged/ties/de/test", "scores", 1.0)]
    document = plan_document(
        [{**one, "size": one["wall_s"]} for one in measured],
        [],
        [],
        Rates({**o, "size": o["wall_s"]} for o in measured),
        phase="setup",
        devices=2,
        usd_per_hour=3600.0,
    )
    merged, combined = document["totals"]
    assert merged["estimated_device_s"] == pytest.approx(100 + 4 + 2 + 4)
    assert merged["estimated_wall_s"] == pytest.approx(50 + 4 + 2 + 3)
    assert merged["estimated_usd"] == pytest.approx(110)
    assert combined["estimated_wall_s"] == pytest.approx(90 + 5)


def test_an_update_is_priced_beside_retraining_all_of_the_baseline():
    steps = [{**one, "status": "run" if "de" in one["name"] else "reused"} for one in STEPS]
    document = plan_document(steps, [], [], Rates(STEPS), phase="update", devices=1, usd_per_hour=None)
    totals = {(row["phase"], row["route"]): row["estimated_device_s"] for row in document["totals"]}
    assert totals["update", "merged"] < totals["setup", "merged"]
    assert totals["update", "combined"] == totals["setup", "combined"]


def merge_record(kind="merged", **result):
    return {"kind": kind, "result": {"rank": 16, "energy_kept": 0.95, **result}}


TRIALS = [
    {"settings": {"scale": 0.5, "density": 1.0}, "weights": None, "value": 0.75},
    {"settings": {"scale": 0.31, "density": 0.2}, "weights": {"de": 1.5, "en": 0.25}, "value": 0.8125},
]
SEARCH = {
    "method": "tpe",
    "budget": 2,
    "seed": 0,
    "metric": "accuracy",
    "recipe": {"method": "ties"},
    "chosen": TRIALS[1],
    "trials": TRIALS,
}


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


# --- tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, "?"), (0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.6, "1 min 0 s")),
        *((200, "3 min 20 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def cost_document(rows):
    return {"costs": rows}


def cells(table, work):
    return next(row for row in table.rows if row[1].strip(" ~") == work)


def test_the_cost_table_has_both_routes_on_three_clocks():
    table = costs(cost_document(cost_rows(STEPS, devices=2, **RUN)))
    assert table.columns == ("run", "work", "a device each", "2 devices", "one device", "device h")
    combined = cells(table, "train: combined")
    assert combined[2:5] == ("1 min 30 s", "45 s", "1 min 30 s"), "at best one training splits without loss"
    assert cells(table, "train: by language")[2:5] == ("50 s", "50 s", "1 min 40 s")
    assert cells(table, "difference")[2:] == ("-44.4 %", "+11.1 %", "+11.1 %", "+11.1 %")
    assert "which sabir does not do" in table.notes[0]
    assert "No price is set" in table.notes[-1]
    assert [row[0] for row in table.rows if row[0]] == ["1. set-up"]


def test_on_one_device_there_is_no_column_for_several():
    table = costs(cost_document(cost_rows(STEPS, devices=1, **{**RUN, "usd_per_hour": 3600.0})))
    assert table.columns == ("run", "work", "a device each", "one device", "device h", "USD")
    assert cells(table, "train: by language")[-1] == "100.0000"


def test_a_run_that_was_stopped_and_the_one_that_went_on_are_one():
    first = cost_rows(STEPS[:1], devices=1, complete=False, **RUN)
    unfinished = costs(cost_document(first))
    assert unfinished.rows[0][0] == "1. set-up (unfinished)"
    second = cost_rows(STEPS[1:], devices=1, **{**RUN, "run": "2"})
    table = costs(cost_document([*first, *second]))
    assert {row[0] for row in table.rows} == {"1. set-up", ""}
    assert cells(table, "train: by language")[3] == "1 min 40 s"


def test_a_run_that_only_scored_anew_has_no_place_in_the_cost_table():
    assert costs(cost_document(cost_rows(STEPS[-2:], devices=1, **{**RUN, "phase": "none"}))) is None
    assert costs(cost_document([])) is None


def scores(**models):
    """Rows of `scores`: model -> (en, de)."""
    return [
        {
            "model": model.replace("__", "/"),
            "language": language,
            "split": "test",
            "metric": "accuracy",
            "value": value,
            "low": value,
            "high": value,
            "level": 0.9,
            "n": 4,
            "unscored": 0,
        }
        for model, values in models.items()
        for language, value in (*zip(("en", "de"), values, strict=True), ("macro", sum(values) / 2))
    ]


def quality_document(**changes):
    return {
        "scores": scores(
            base=(0.1, 0.2), adapter__en=(0.5, 0.1), adapter__de=(0.1, 0.75), merged__ties=(0.5, 0.5)
        ),
        "metric": "accuracy",
        "languages": ["de", "en"],
        "selected": "merged/ties",
        "comparisons": [],
        "notes": [],
        **changes,
    }


def test_each_languages_own_adapter_is_one_row_scored_on_its_language():
    table = quality(quality_document())
    assert table.columns == ("model", "de", "en", "mean [90 % interval]")
    assert table.rows[1] == ("each language's own adapter", "0.750", "0.500", "0.625")
    assert table.rows[2][0] == "merged/ties  <- selected"
    assert table.strong == {(1, 1), (1, 2), (2, 2)}


def test_a_searchs_choice_is_a_sentence_below_the_quality():
    document = quality_document(searches={"merged/tuned": SEARCH}, notes=["And a note."])
    assert quality(document).notes == (
        "merged/tuned: of 2 merges tried on validation rows the best (accuracy 0.812) has scale 0.31; "
        "density 0.2; weights de 1.5, en 0.25.",
        "And a note.",
    )
    alike = {**SEARCH, "chosen": TRIALS[0]}
    (sentence, _) = quality({**document, "searches": {"merged/tuned": alike}}).notes
    assert sentence.endswith("(accuracy 0.750) has scale 0.5; density 1.")


def test_a_search_and_the_analysis_have_their_lines_in_a_plan():
    steps = [
        {"name": name, "kind": kind, "status": "run", "why": "new", "estimated_wall_s": seconds}
        for name, kind, seconds in (
            ("merged/tuned", "search", 90.0),
            ("merged/ties", "merged", 1.0),
            ("analysis", "analysis", None),
        )
    ]
    table = planned({"steps": steps, "totals": [], "phase": "setup"})
    assert [row[0] for row in table.rows] == ["merged/ties", "merged/tuned", "analysis"]
    assert [row[3] for row in table.rows] == ["1.0 s", "1 min 30 s", "0.0 s"]


def test_without_scores_there_is_no_quality_table():
    assert quality(quality_document(scores=[])) is None


def test_verdicts_say_no_more_than_was_found():
    row = {
        "a": "merged/ties",
        "b": "adapter/combined",
        "language": "macro",
        "difference": -0.01,
        "low": -0.015,
        "high": 0.005,
        "p": None,
        "margin": 0.02,
        "verdict": "not worse",
    }
    table = quality(quality_document(comparisons=[row]))
    assert table.notes == (
        "merged/ties against the combined adapter: -0.010 on average [-0.015, +0.005], "
        "so it is not worse by more than 0.02.",
    )
    assert compared(quality_document(comparisons=[row])).rows[0][3:] == (
        "-0.010 [-0.015, +0.005]",
        "?",
        "not worse",
    )


def test_a_plan_of_many_steps_is_a_few_lines_with_their_reasons():
    steps = [
        {
            "name": f"outputs/m{i}/de/test",
            "kind": "outputs",
            "status": "run" if i % 2 else "reused",
            "why": f"merged/m{i} changed" if i % 2 else "nothing it stands on has changed",
            "estimated_wall_s": 1.0,
        }
        for i in range(200)
    ]
    steps.append(
        {
            "name": "adapter/de",
            "kind": "adapter",
            "status": "run",
            "why": "train rows of data/de changed",
            "estimated_wall_s": 75.0,
        }
    )
    table = planned({"steps": steps, "totals": [], "phase": "update"})
    assert table.rows == (
        ("adapter/de", "run", "train rows of data/de changed", "1 min 15 s"),
        ("answers (100)", "reused", "nothing it stands on has changed", ""),
        ("answers (100)", "run", "merges changed", "1 min 40 s"),
    )


def test_markdown_keeps_cells_apart_and_sets_off_the_best():
    text = markdown([quality(quality_document(languages=["de"])), None])
    assert "| merged/ties  <- selected | 0.500 |" in text
    assert "| **0.750** |" in text
