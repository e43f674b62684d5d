"""What a run cost by route and component, and how long steps take."""

from __future__ import annotations

import itertools

import pytest
from bookkeeping import RUN, STEPS, found, rows_of, step, trainings
from hypothesis import given
from hypothesis import strategies as st

from sabir.report.costs import Rates, component, cost_rows, in_full, makespan, route, usd


def attempt(name, kind, seconds):
    return {"name": name, "kind": kind, "fingerprint": name, "wall_s": seconds}


def test_with_a_device_each_the_wall_clock_is_the_longest_training():
    train = found(rows_of(STEPS, devices=2), "merged", "train")
    assert train["wall_s_unlimited"] == 50
    assert train["wall_s"] == 50, "50 on the one, 30 + 20 on the other"
    assert train["device_s"] == 100
    assert train["usd"] is None


def test_every_step_is_paid_once():
    rows = rows_of(STEPS, devices=3)
    parts = [row for row in rows if row["component"] != "total"]
    assert sum(row["device_s"] for row in parts) == sum(one["device_s"] for one in STEPS)
    assert {(row["route"], row["component"]) for row in parts} == {
        *(("merged", part) for part in ("train", "merge", "search", "evaluate")),
        *(("combined", part) for part in ("train", "evaluate")),
    }


def test_on_one_device_the_wall_clock_is_the_device_time():
    for row in rows_of(STEPS):
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
        ("adapter/continued", "adapter", ("continued", "train")),
        ("outputs/adapter/continued/de/test", "outputs", ("continued", "evaluate")),
        ("adapter/de", "adapter", ("merged", "train")),
        ("data/de", "data", ("merged", "train")),
        ("outputs/merged/ties/de/valid", "outputs", ("merged", "search")),
        ("outputs/release/3/de/test", "outputs", ("merged", "evaluate")),
        ("scores/blame/3/fr/de/test", "scores", ("merged", "evaluate")),
        ("changes", "changes", ("merged", "evaluate")),
        ("select", "select", ("merged", "search")),
        ("merged/tuned", "search", ("merged", "search")),
        ("merged/ties", "merged", ("merged", "merge")),
        ("blame/3/fr", "merged", ("merged", "merge")),
        ("analysis", "analysis", ("merged", "evaluate")),
        ("comparisons", "judge", ("merged", "evaluate")),
    ],
)
def test_every_step_has_its_place_in_the_costs(name, kind, expected):
    assert (route({"name": name}), component({"name": name, "kind": kind})) == expected


# --- what was begun and not finished ---------------------------------------------------------------------


def test_what_was_spent_on_unfinished_steps_is_paid_where_the_step_belongs():
    attempts = [attempt("adapter/combined", "adapter", 7.0), attempt("outputs/x/de/valid", "outputs", 3.0)]
    rows = rows_of(trainings({"de": 50.0}), attempts=attempts, usd_per_hour=3600.0)
    assert found(rows, "combined", "train")["usd"] == 7
    assert found(rows, "merged", "search")["device_s"] == 3
    assert found(rows, "merged", "total")["device_s"] == 53


def test_attempts_at_a_step_and_the_step_follow_one_another():
    steps = trainings({"de": 50.0, "fr": 55.0})
    train = found(
        rows_of(steps, attempts=[attempt("adapter/de", "adapter", 10.0)] * 2, devices=2), "merged", "train"
    )
    assert train["wall_s_unlimited"] == 70
    assert train["wall_s"] == 70, "three times de on one device, fr on the other"
    assert train["device_s"] == 125


def test_a_run_that_finished_nothing_still_cost_something():
    rows = cost_rows([], attempts=[attempt("adapter/de", "adapter", 10.0)], devices=1, complete=False, **RUN)
    assert found(rows, "merged", "total")["device_s"] == 10
    assert cost_rows([], devices=1, **RUN) == []


# --- rates -----------------------------------------------------------------------------------------------


def test_rates_are_the_median_of_recent_steps_of_the_kind():
    rates = Rates([step("a", "adapter", s) for s in (10, 20, 1000)])
    assert rates.seconds("adapter", 5.0) == 10.0
    assert rates.seconds("merged", 5.0) is None
    assert rates.seconds("adapter", None) is None


def test_a_steps_own_rate_counts_before_that_of_its_kind():
    rates = Rates(trainings({"de": 10.0, "en": 10.0, "ja": 40.0}))
    assert rates.seconds("adapter", 20.0, "adapter/ja") == 80.0
    assert rates.seconds("adapter", 20.0, "adapter/pt") == 20.0


def test_a_training_that_was_resumed_is_not_taken_for_a_fast_one():
    steps = [step("adapter/de", "adapter", 4.0), step("outputs/base/de/test", "outputs", 4.0)]
    attempts = [
        attempt("adapter/de", "adapter", 6.0),
        attempt("outputs/base/de/test", "outputs", 6.0),  # answers begin anew: those seconds were lost
    ]
    rates = Rates(steps, attempts)
    assert rates.seconds("adapter", 10.0) == 10.0
    assert rates.seconds("outputs", 10.0) == 4.0
    cost = {"wall_s": 4.0, "device_s": 4.0, "tokens": 50, "size": 10.0}
    whole = in_full(cost, "adapter/de", attempts)
    assert whole == {"wall_s": 10.0, "device_s": 10.0, "tokens": 50, "size": 10.0}
