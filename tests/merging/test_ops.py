"""The moves methods are made of, against loops over single entries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from problems import PROBLEMS, random_factors, save_peft
from sabir.merging import ops, tiles
from sabir.merging.choices import make_recipe
from sabir.merging.recipe import merge

SMALLEST = 1.401298464324817e-45  # the least float32 above zero
NORMAL = 1.1754943508222875e-38  # the least one of full precision

few = st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0]) | st.floats(-8, 8, width=32, allow_subnormal=False)


def stack_of(draw_rows, n: int):
    return torch.tensor(draw_rows, dtype=torch.float32).reshape(n, 1, -1)


# -- trim ----------------------------------------------------------------------------------------------------


def test_all_of_several_entries_equal_to_the_threshold_are_kept():
    values = torch.tensor([[[3.0, -2.0, 2.0, 1.0]]])
    assert ops.trim(values, [2.0]).tolist() == [[[3.0, -2.0, 2.0, 0.0]]]


def test_every_adapter_has_its_own_threshold():
    values = torch.tensor([[[3.0, -2.0]], [[3.0, -2.0]], [[3.0, -2.0]]])
    assert ops.trim(values, [3.0, 0.0, math.inf]).tolist() == [[[3.0, 0.0]], [[3.0, -2.0]], [[0.0, 0.0]]]


@pytest.mark.parametrize("threshold", [SMALLEST, 3 * SMALLEST, NORMAL, 2 * NORMAL, 0.1, 1.0, 3e38])
def test_a_threshold_keeps_what_is_as_large_and_drops_the_next_smaller_number(threshold):
    at = np.float32(threshold)
    below, above = np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(np.inf))
    values = torch.from_numpy(np.array([[[below, -below, at, -at, above, -above, 0.0]]], dtype=np.float32))
    kept = ops.trim(values, [float(at)])
    assert kept[0, 0].tolist() == [0.0, 0.0, float(at), -float(at), float(above), -float(above), 0.0]


@trials(max_examples=80, deadline=None)
@given(st.lists(few, min_size=1, max_size=30), st.integers(0, 29))
def test_trim_is_the_comparison_of_each_entry(row, place):
    threshold = abs(row[place % len(row)])
    kept = ops.trim(stack_of(row, 1), [threshold])[0, 0].tolist()
    assert kept == [x if abs(x) >= threshold else 0.0 for x in row]


# -- chance --------------------------------------------------------------------------------------------------


def coins(start, count, **change):
    chosen = {"seed": 1, "digest": "sha256:x", "module": "m", **change}
    return ops.coins(start=start, count=count, **chosen)


@pytest.mark.parametrize("width", [1, 7, 8, 37, 1000])
def test_a_draw_is_indexed_by_position_whatever_the_tile(width):
    whole = coins(0, 1000)
    parts = [coins(start, min(width, 1000 - start)) for start in range(0, 1000, width)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_draws_differ_by_seed_adapter_and_module():
    draws = [coins(0, 64), coins(0, 64, seed=2), coins(0, 64, digest="b"), coins(0, 64, module="n")]
    assert len({draw.tobytes() for draw in draws}) == 4
    assert np.array_equal(coins(0, 64), draws[0])


def test_draws_are_even_over_their_range():
    counts = np.histogram(coins(0, 160_000), bins=16, range=(0, ops.COIN))[0]
    # chi-square of 15 degrees of freedom lies below 44.3 in 9999 of 10000
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 44.3


@pytest.mark.parametrize("density", [1e-9, 0.3, 0.999, 1.0])
def test_a_mask_keeps_the_coins_below_its_share(density):
    mask = ops.keep_mask(density, seed=1, digest="sha256:x", module="m", start=5, count=4000)
    assert mask.tolist() == [int(coin) / ops.COIN < density for coin in coins(5, 4000)]
    assert abs(float(mask.double().mean()) - density) < 4 * (density * (1 - density) / 4000) ** 0.5 + 1e-6


def test_a_larger_share_keeps_all_that_a_smaller_one_keeps():
    less, more = (
        ops.keep_mask(density, seed=1, digest="x", module="m", start=0, count=999) for density in (0.2, 0.6)
    )
    assert bool((more | ~less).all())


@pytest.mark.parametrize("columns", [2, 3, 10])
def test_the_chance_to_stay_grows_with_the_rank_in_the_row(columns):
    sizes = torch.rand(4, columns, generator=torch.Generator().manual_seed(1))
    chances = ops.chance_by_rank(sizes, 0.5, 0.2)
    for row, chance in zip(sizes.tolist(), chances.tolist(), strict=True):
        ranks = [sum(other < one for other in row) for one in row]
        expected = [0.3 + 0.4 * rank / (columns - 1) for rank in ranks]
        assert chance == pytest.approx(expected, rel=1e-6)
    assert chances.mean(1).tolist() == pytest.approx([0.5] * 4)


def test_equal_magnitudes_are_ranked_by_position():
    chances = ops.chance_by_rank(torch.tensor([[0.0, 2.0, 0.0, 2.0, 1.0]]), 0.5, 0.4)
    assert chances[0].tolist() == pytest.approx([0.1, 0.7, 0.3, 0.9, 0.5])


def test_in_a_row_of_one_the_chance_is_the_density():
    chances = ops.chance_by_rank(torch.tensor([[3.0], [0.0]]), 0.4, 0.3)
    assert chances.flatten().tolist() == pytest.approx([0.4, 0.4])


# -- election ------------------------------------------------------------------------------------------------


def by_loop(columns, turns, rest, shares, adds_up):
    """Election and mean, entry by entry: the sign of the sum, then the mean of those that have it."""
    merged = []
    for entries in columns:
        turned = [x * turn for x, turn in zip(entries, turns, strict=True)]
        vote, behind = sum(turned), sum(map(abs, turned))
        sign = 0.0 if abs(vote) <= 1e-6 * behind else math.copysign(1.0, vote)
        agree = [i for i, x in enumerate(turned) if x * sign > 0]
        total = sum(turned[i] * rest[i] for i in agree)
        share = sum(shares[i] for i in agree)
        merged.append(total if adds_up or share == 0 else total / share)
    return merged


@trials(max_examples=150, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(few, min_size=n, max_size=n), min_size=1, max_size=12),
            *(st.lists(st.sampled_from(w), min_size=n, max_size=n) for w in ([1.0, 0.5, -2.0], [1.0, 3.0])),
        )
    ),
    st.booleans(),
)
def test_election_and_mean_are_a_loop_over_entries(drawn, adds_up):
    columns, turns, rest = drawn
    values = torch.tensor(columns, dtype=torch.float32).T.contiguous()[:, None, :]
    shares = [abs(turn) * factor for turn, factor in zip(turns, rest, strict=True)]
    found = ops.sides(values, turns, rest, shares)
    signs = ops.elect(found.votes, found.magnitudes)
    merged = ops.agreeing(found, signs, adds_up=adds_up)[0].tolist()
    assert merged == pytest.approx(by_loop(columns, turns, rest, shares, adds_up), rel=1e-5, abs=1e-6)
    only = ops.votes(values, turns)
    assert torch.allclose(only[0], found.votes, rtol=1e-5, atol=1e-5)
    assert torch.equal(ops.elect(*only), signs)


def test_the_votes_alone_elect_what_both_sides_elect():
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(-2, 3, (3, 40, 50), generator=generator).float() * 0.1
    turns = [1.0, -0.5, 2.0]
    found = ops.sides(values, turns, [1.0] * 3, turns)
    assert torch.equal(ops.elect(*ops.votes(values, turns)), ops.elect(found.votes, found.magnitudes))


def test_values_are_left_as_they_were():
    values = torch.tensor([[[1.0, -2.0]], [[0.5, 3.0]]])
    before = values.clone()
    found = ops.sides(values, [1.0, 2.0], [1.0, 1.0], [1.0, 1.0])
    ops.agreeing(found, ops.elect(found.votes, found.magnitudes), adds_up=False)
    ops.votes(values, [1.0, 1.0])
    ops.trim(values, [1.0, 1.0])
    assert torch.equal(values, before)


def test_every_weight_counts_not_only_the_first():
    values = torch.tensor([[[1.0]], [[3.0]]])
    found = ops.sides(values, [1.0, 3.0], [1.0, 1.0], [1.0, 3.0])
    assert float(ops.agreeing(found, torch.ones(1, 1), adds_up=False)) == 2.5
    assert float(ops.weighted_sum(values, torch.tensor([1.0, 3.0]))) == 10.0


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_a_sum_that_cancels_to_rounding_has_no_sign(scale):
    values = scale * torch.tensor([[[1.0, 1.0, 1.0]], [[-1.0 - 2.0**-23, -0.5, -1.0 + 1e-5]]])
    found = ops.sides(values, [1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    assert ops.elect(found.votes, found.magnitudes).tolist() == [[0.0, 1.0, 1.0]]


def test_where_nothing_agrees_the_result_is_zero_not_nan():
    nothing = ops.sides(torch.zeros(2, 1, 3), [1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    for sign in (-1.0, 0.0, 1.0):
        assert ops.agreeing(nothing, torch.full((1, 3), sign), adds_up=False).tolist() == [[0.0, 0.0, 0.0]]
    # all lie below zero, and the sign that was settled elsewhere is the other one
    below = ops.sides(torch.full((2, 1, 1), -2.0), [1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    assert ops.agreeing(below, torch.ones(1, 1), adds_up=False).tolist() == [[0.0]]


# -- singular directions -------------------------------------------------------------------------------------


def matrix(rows, columns, sigmas, seed=1):
    generator = torch.Generator().manual_seed(seed)
    u, v = (
        torch.linalg.qr(torch.randn(side, len(sigmas), generator=generator, dtype=torch.float64)).Q
        for side in (rows, columns)
    )
    return u, torch.tensor(sigmas, dtype=torch.float64), v


@pytest.mark.parametrize(("rows", "columns"), [(6, 9), (9, 6), (6, 6)])
@pytest.mark.parametrize("size", [1.0, 1e-12, 1e12])
def test_directions_are_those_above_rounding(rows, columns, size):
    u, sigma, v = matrix(rows, columns, [3.0, 1.0, 1e-5, 1e-7])
    found = ops.directions(size * (u * sigma) @ v.T)
    assert found.rank == 3
    assert (found.u.shape, found.v.shape) == ((rows, 3), (columns, 3))
    assert found.sigma.tolist() == pytest.approx([size * 3.0, size * 1.0, size * 1e-5], rel=1e-9)
    assert float(found.mean) == pytest.approx(size * 4.00001 / 3)
    assert found.top(1).rank == 1
    expected = size * (u[:, :3] * sigma[:3]) @ v[:, :3].T
    assert torch.allclose((found.u * found.sigma) @ found.v.T, expected, rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (4, 0)])
def test_zeros_have_no_direction_and_a_mean_of_zero(shape):
    found = ops.directions(torch.zeros(shape, dtype=torch.float64))
    assert (found.rank, float(found.mean)) == (0, 0.0)
    assert ops.polar(torch.zeros(shape, dtype=torch.float64)).tolist() == torch.zeros(shape).tolist()


def test_the_polar_factor_is_the_nearest_with_orthonormal_columns():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    near = ops.polar(x)
    assert torch.allclose(near.T @ near, torch.eye(3, dtype=torch.float64))
    assert torch.allclose(near @ (near.T @ x), x)  # in the same columns
    assert torch.allclose(near.T @ x, (near.T @ x).T)
    assert bool((torch.linalg.eigvalsh(near.T @ x) > 0).all())


def test_a_direction_that_is_missing_stays_missing():
    u, _, v = matrix(6, 4, [1.0, 1.0])
    x = (u * torch.tensor([5.0, 0.01], dtype=torch.float64)) @ v.T
    assert torch.allclose(ops.polar(x), u @ v.T)


# -- all of it -----------------------------------------------------------------------------------------------


def test_progress_is_told_module_by_module(tmp_path):
    told = []
    adapters = PROBLEMS["random"](tmp_path)
    dict(merge(make_recipe("ties"), adapters, on_module=lambda done, total: told.append((done, total))))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("space", "times"), [("delta", 4), ("knots", 4)])
def test_a_merge_whose_factors_fit_in_memory_reads_each_adapter_few_times(
    space, times, tmp_path, monkeypatch
):
    # once to merge, once for each fact about the whole: thresholds, and the majority of signs
    adapters = {name: save_peft(tmp_path / name, random_factors(i)) for i, name in enumerate("ab")}
    reads = []
    read = tiles.Tiles.read
    monkeypatch.setattr(tiles.Tiles, "read", lambda self, module: reads.append(module) or read(self, module))
    dict(merge(make_recipe("ties", space=space, settings={"density": 0.5}), adapters))
    assert 1 <= max(reads.count(module) for module in reads) <= times
