"""Texts are parted by when they came or by number; a small rest is marked or joined, and nothing crashes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from sabir.work.windows import LEAST, by_count, by_time

MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_days_weeks_and_months_have_the_names_of_the_calendar():
    time = [at("2026-11-21T23:59:59")]
    assert by_time(time, "day").names == ("2026-11-21",)
    assert by_time(time, "week").names == ("2026-W47",)
    assert by_time(time, "month").names == ("2026-11",)


def test_a_week_belongs_to_the_year_of_its_thursday():
    times = [at("2026-12-31"), at("2027-01-01"), at("2027-01-03"), at("2027-01-04"), at("2024-12-30")]
    assert by_time(times, "week").names == ("2026-W53", "2026-W53", "2026-W53", "2027-W01", "2025-W01")


def test_a_time_elsewhere_counts_by_the_day_it_was_in_utc():
    tokyo = timezone(timedelta(hours=9))
    times = [datetime(2026, 12, 1, 8, tzinfo=tokyo), datetime(2026, 12, 1, 10, tzinfo=tokyo)]
    assert by_time(times, "day").names == ("2026-11-30", "2026-12-01")
    assert by_time(times, "month").names == ("2026-11", "2026-12")


@given(st.lists(MOMENTS, max_size=30), st.sampled_from(["day", "week", "month"]))
def test_names_sort_as_time_goes(times, span):
    names = by_time(sorted(times), span).names
    assert list(names) == sorted(names)


@given(MOMENTS, MOMENTS)
def test_two_moments_share_a_week_when_they_share_its_monday(one, other):
    def monday(time) -> date:
        return time.date() - timedelta(days=time.weekday())

    first, second = by_time([one, other], "week").names
    assert (first == second) is (monday(one) == monday(other))


def test_a_small_window_of_time_stays_and_is_marked():
    times = [at("2026-11-20")] * LEAST + [at("2026-11-21")] * (LEAST - 1)
    windows = by_time(times, "day")
    assert windows.names.count("2026-11-21") == LEAST - 1
    assert windows.small == ("2026-11-21",)


def test_windows_by_number_hold_so_many_and_a_small_rest_joins_the_one_before():
    windows = by_count(120, 50)
    assert [windows.names.count(name) for name in ("0001", "0002", "0003")] == [50, 50, 20]
    assert windows.small == ()
    windows = by_count(119, 50)
    assert [windows.names.count(name) for name in ("0001", "0002", "0003")] == [50, 69, 0]
    assert windows.small == ()


def test_a_rest_with_nothing_before_it_is_a_small_window():
    assert by_count(1, 500).names == ("0001",)
    assert by_count(1, 500).small == ("0001",)
    assert by_count(LEAST, 500).small == ()


def test_windows_smaller_than_is_of_use_are_all_marked():
    windows = by_count(12, 5)
    assert [windows.names.count(name) for name in ("0001", "0002")] == [5, 7]
    assert windows.small == ("0001", "0002")


@given(st.integers(0, 300), st.integers(1, 90))
def test_every_text_has_a_window_and_only_the_last_one_differs_in_size(n, size):
    windows = by_count(n, size)
    assert len(windows.names) == n
    sizes = [windows.names.count(name) for name in sorted(set(windows.names))]
    assert all(one == size for one in sizes[:-1])
    assert not sizes or sizes[-1] < size + LEAST
    assert not sizes[1:] or sizes[-1] >= min(size, LEAST)


def test_texts_are_counted_in_the_order_of_their_times_where_all_have_one():
    times = [at("2026-01-03"), at("2026-01-01"), at("2026-01-02"), at("2026-01-01")]
    assert by_count(4, 2, times=times, least=1).names == ("0002", "0001", "0002", "0001")
    assert by_count(4, 2, times=[*times[:3], None], least=1).names == ("0001", "0001", "0002", "0002")


def test_no_text_is_no_window():
    assert by_time([], "day").names == ()
    assert by_count(0, 5).names == ()
    assert by_count(0, 5).small == ()
