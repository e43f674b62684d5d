"""Numbers as people say them."""

from __future__ import annotations

import pytest

from sabir.report.words import (
    counted,
    duration,
    hours,
    money,
    number_range,
    p_value,
    percent,
    signed,
    size,
    with_interval,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, "?"), (0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.6, "1 min 0 s")),
        *((200, "3 min 20 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        *((None, "?"), (0.0, "0.0000"), (0.00001, "<0.0001"), (0.00123, "0.0012"), (0.5, "0.5000")),
        *((0.99996, "1.00"), (31.5, "31.50"), (999.99, "999.99"), (999.996, "1,000"), (1416.7, "1,417")),
        *((-12.346, "-12.35"), (-0.00001, "-<0.0001")),
    ],
)
def test_money_has_the_digits_that_matter(usd, text):
    assert money(usd) == text


def test_hours_have_more_digits_where_there_is_less_than_one():
    assert [hours(seconds) for seconds in (None, 36, 3600, 9000, -1800)] == [
        *("?", "0.0100", "1.00", "2.50", "-0.5000")
    ]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (3 * 2**40, "3072.0 GiB")],
)
def test_sizes_have_a_unit_of_1024s(size_bytes, text):
    assert size(size_bytes) == text


def test_shares_are_percent_only_for_people():
    assert percent(0.7368) == "73.7 %"
    assert percent(None) == "?"


def test_one_thing_is_not_counted_as_several():
    assert counted(1, "copy", "copies") == "1 copy"
    assert counted(1204, "copy", "copies") == "1,204 copies"


def test_no_p_value_is_said_to_be_zero():
    assert [p_value(p) for p in (None, 0.0, 0.0004, 0.0005, 0.05)] == [
        "?",
        "<0.001",
        "<0.001",
        "0.001",
        "0.050",
    ]


def test_no_difference_is_said_to_be_minus_nothing():
    assert [signed(value) for value in (-0.0004, -0.0, 0.0004, -0.0006, None)] == [
        *("+0.000", "+0.000", "+0.000", "-0.001", "?")
    ]


def test_a_score_without_an_interval_is_told_alone():
    known = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert with_interval(known, "*") == "0.500* [0.250, 0.750]"
    assert with_interval({**known, "low": None, "high": None}) == "0.500"
    assert with_interval({**known, "value": None}) == with_interval(None) == ""


def test_a_range_of_one_number_is_that_number():
    assert number_range([500, 94, 1204]) == "94 to 1,204"
    assert number_range([500, 500]) == "500"
