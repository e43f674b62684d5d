"""What a step paid to others, in the ledger's rows: added to device time once, where its step belongs."""

from __future__ import annotations

import pytest
from bookkeeping import STEPS, found, rows_of, step

from sabir.report.costs import usd
from sabir.report.documents import step_rows

JUDGE = step("outputs/judge/de/test", "outputs", 36.0, fees_usd=0.75)
VALID = step("outputs/judge/de/valid", "outputs", 36.0, fees_usd=0.5)


def test_fees_come_on_top_of_device_time_and_count_alone_where_it_has_no_price():
    assert usd(7200, 2.5, 0.25) == 5.25
    assert usd(7200, None, 0.25) == 0.25
    assert usd(None, 2.5, 0.25) == 0.25
    assert usd(7200, 2.5) == 5.0
    assert usd(7200, None) is None


def test_every_fee_is_paid_once_and_by_its_own_route_and_component():
    without, rows = (rows_of(steps, usd_per_hour=100.0) for steps in (STEPS, [*STEPS, JUDGE, VALID]))
    more = {"evaluate": 1.0 + 0.75, "search": 1.0 + 0.5, "total": 3.25}  # 36 s at 100 USD an hour are 1 USD
    for row in rows:
        before = found(without, row["route"], row["component"])
        of_merged = more.get(row["component"], 0.0) if row["route"] == "merged" else 0.0
        assert row["usd"] == pytest.approx(before["usd"] + of_merged)


def test_without_a_price_only_what_was_paid_has_one():
    rows = rows_of([*STEPS, JUDGE])
    priced = {(row["route"], row["component"]): row["usd"] for row in rows if row["usd"] is not None}
    assert priced == {("merged", "evaluate"): 0.75, ("merged", "total"): 0.75}


def test_what_an_attempt_paid_counts():
    attempt = {"name": JUDGE["name"], "kind": "outputs", "fingerprint": "x", "wall_s": 1.0, "fees_usd": 0.25}
    rows = rows_of([JUDGE], attempts=[attempt])
    assert found(rows, "merged", "total")["usd"] == 1.0
    assert rows_of([], attempts=[attempt])[-1]["usd"] == 0.25


def test_a_row_of_steps_says_what_was_paid_to_others_and_what_it_was_in_all():
    cost = {"wall_s": 36.0, "device_s": 36.0, "fees_usd": 0.75}
    (row,) = step_rows([JUDGE], {JUDGE["name"]: {"cost": cost}}, 100.0)
    assert (row["fees_usd"], row["usd"]) == (0.75, 1.75)
    (old,) = step_rows([JUDGE], {JUDGE["name"]: {"cost": {"device_s": 36.0}}}, 100.0)
    assert (old["fees_usd"], old["usd"]) == (None, 1.0)
