"""The k-th largest magnitude equals what sorting finds, however little of the values is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from sabir.merging import order
from sabir.merging.order import Bounds, Found


def sorted_out(values: np.ndarray, wanted: int) -> Found:
    """What `largest` must find, by sorting."""
    sizes = sorted(np.abs(values).ravel().tolist(), reverse=True)
    size = sizes[min(wanted, len(sizes)) - 1]
    return Found(size, sum(one > size for one in sizes), sizes.count(size))


def search(streams, wanted, samples, height=7):
    """`largest` over streams cut into tiles, and how often it walked."""
    walks = []

    def walk(limits):
        walks.append(list(limits))
        for stream, values in enumerate(streams):
            for first in range(0, len(values), height):
                yield [(stream, order.sift(values[first : first + height], limits[stream]))]

    totals = [len(values) for values in streams]
    return order.largest(walk, wanted=wanted, totals=totals, samples=samples), walks


GENERATOR = np.random.default_rng(11)
N = 4000
DISTRIBUTIONS = {
    "normal": GENERATOR.standard_normal(N),
    "heavy tails": GENERATOR.standard_cauchy(N) ** 3,
    "two values": GENERATOR.choice([-1.0, 0.5], N),
    "mostly zero": GENERATOR.standard_normal(N) * (GENERATOR.random(N) < 0.03),
    "all zero": np.zeros(N),
    "all equal": np.full(N, -0.25),
    "one large": np.r_[1e30, np.full(N - 1, 1e-30)],
    "whole numbers": GENERATOR.integers(-3, 4, N),
    "smallest there are": GENERATOR.integers(0, 5, N) * 1.401298464324817e-45,
    "ascending": np.linspace(0.001, 1.0, N),
}
DISTRIBUTIONS = {name: np.float32(values) for name, values in DISTRIBUTIONS.items()}
bits = DISTRIBUTIONS["normal"].view(np.uint32) & np.uint32(0xFFFF0000)
DISTRIBUTIONS["rounded to bfloat16"] = bits.view(np.float32)
RANKS = (1, 2, 40, N // 5, N // 2, N - 1, N, N + 5)


@pytest.mark.parametrize("wanted", RANKS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_found_magnitude_is_the_one_that_sorting_finds(name, wanted):
    values = DISTRIBUTIONS[name]
    expected = sorted_out(values, wanted)
    drawn = np.abs(np.random.default_rng(1).choice(values, 500))
    for sample in (drawn[:0], drawn, drawn[:20], drawn[:1]):
        (found,), walks = search([values], [wanted], [sample], height=333)
        assert found == expected
        assert 1 <= len(walks) <= 6


def test_a_good_sample_leaves_little_to_sort():
    values = DISTRIBUTIONS["normal"]
    sample = np.abs(np.random.default_rng(1).choice(values, 2000))
    limit = order.bounds(sample, N // 5, N)
    share = order.sift(values, limit)
    assert 0 < len(share.between) < 0.4 * N
    _, walks = search([values], [N // 5], [sample])
    assert len(walks) == 1


MISLEADING = {
    "all too large": np.full(500, 100.0, np.float32),
    "all too small": np.full(500, 1e-9, np.float32),
    "all zero": np.zeros(500, np.float32),
    "between two values": np.full(500, 0.75, np.float32),
    "one value": np.full(500, 0.5, np.float32),
    "the upper end": np.linspace(2.0, 4.0, 500, dtype=np.float32),
}


@pytest.mark.parametrize("wanted", RANKS)
@pytest.mark.parametrize("sample", MISLEADING)
@pytest.mark.parametrize("name", ["normal", "two values", "mostly zero", "whole numbers", "all zero"])
def test_a_sample_that_misleads_costs_walks_and_nothing_else(name, sample, wanted):
    (found,), walks = search([DISTRIBUTIONS[name]], [wanted], [MISLEADING[sample]], height=500)
    assert found == sorted_out(DISTRIBUTIONS[name], wanted)
    assert len(walks) <= 8


def test_bounds_that_miss_are_widened_for_that_stream_alone():
    good, bad = DISTRIBUTIONS["normal"], DISTRIBUTIONS["heavy tails"]
    sample = np.abs(np.random.default_rng(1).choice(good, 2000))
    found, walks = search([good, bad], [800, 800], [sample, MISLEADING["all too small"]], height=500)
    assert found == [sorted_out(good, 800), sorted_out(bad, 800)]
    assert len(walks) > 1
    assert all(limits[0] == walks[0][0] for limits in walks)
    lows, highs = zip(*(limits[1] for limits in walks), strict=True)
    assert list(lows) == sorted(lows, reverse=True)
    assert list(highs) == sorted(highs)
    assert walks[-1][1] != walks[0][1]


@pytest.mark.parametrize(
    ("limit", "above", "lowest", "between"),
    [
        (Bounds(1.0, 3.0), 2, 2, [2.0, 3.0]),
        (Bounds(0.0, float("inf")), 0, 1, [1.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        (Bounds(2.0, 2.0), 3, 1, []),
        (Bounds(6.0, 7.0), 0, 0, []),
    ],
)
def test_values_at_the_bounds_are_counted_once(limit, above, lowest, between):
    values = np.float32([[-1.0, 2.0, -3.0, 0.0], [4.0, 1.0, -5.0, 1.5]])
    values = values[values != 1.5]
    share = order.sift(values, limit)
    assert (share.above, share.lowest, sorted(share.between.tolist())) == (above, lowest, between)


@pytest.mark.parametrize("wanted", range(1, 11))
def test_equal_values_at_both_bounds_are_found(wanted):
    values = np.float32([5, 3, 3, 3, 2, 2, 1, 1, 1, 0])
    for low, high in ((1, 3), (2, 3), (3, 3), (2, 2), (0, 5), (1, 5)):
        sample = np.float32([high] * 50 + [low] * 50)
        (found,), _ = search([values], [wanted], [sample], height=3)
        assert found == sorted_out(values, wanted)


def test_none_wanted_keeps_nothing_and_more_than_all_keeps_all():
    values = np.float32([1, -2, 3])
    found, _ = search([values] * 3, [0, 3, 99], [values[:0]] * 3)
    assert found == [Found(float("inf"), 0, 0), Found(1.0, 2, 1), Found(1.0, 2, 1)]


def test_a_stream_of_nothing_is_found_at_once():
    empty = np.zeros(0, np.float32)
    found, walks = search([empty, np.float32([2, 1])], [1, 1], [empty, empty])
    assert found == [Found(float("inf"), 0, 0), Found(2.0, 0, 1)]
    assert len(walks) == 1


single = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5]) | st.floats(-(2.0**90), 2.0**90, width=32)


@trials(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(single, min_size=1, max_size=40), min_size=1, max_size=3),
    st.lists(st.integers(0, 45), min_size=3, max_size=3),
    st.lists(st.lists(single, max_size=30), min_size=3, max_size=3),
    st.integers(1, 9),
)
def test_any_values_any_ranks_any_samples(lists, wanted, samples, height):
    streams = [np.float32(one) for one in lists]
    n = len(streams)
    found, _ = search(streams, wanted[:n], [np.abs(np.float32(one)) for one in samples[:n]], height)
    for one, values, want in zip(found, streams, wanted[:n], strict=True):
        assert one == (sorted_out(values, want) if want else Found(float("inf"), 0, 0))


@pytest.mark.parametrize(
    ("density", "total", "count"),
    [
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.1, 3, 0),
        (1.0, 7, 7),
        (0.7, 10, 7),
        (1e-9, 10**9, 1),
        (0.3, 10**15, 3 * 10**14),
        (1 / 3, 3, 0),  # what was written is 0.3333333333333333
        (1, 5, 5),
    ],
)
def test_a_share_is_taken_as_it_was_written(density, total, count):
    assert order.share_count(density, total) == count


@given(st.integers(1, 1000), st.integers(0, 10**7))
def test_a_share_of_so_many_thousandths_is_whole_arithmetic(thousandths, total):
    assert order.share_count(thousandths / 1000, total) == thousandths * total // 1000


def test_few_values_are_not_sampled_and_very_many_by_one_in_so_many(monkeypatch):
    monkeypatch.setattr(order, "TAKE_ALL", 100)
    monkeypatch.setattr(order, "SAMPLE", 10)
    monkeypatch.setattr(order, "SAMPLE_SHARE", 20)
    assert [order.sample_size(total) for total in (0, 100, 101, 201, 2000)] == [0, 0, 10, 10, 100]
