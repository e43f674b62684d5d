from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import PROBLEMS, random_factors, save_peft
from sabir.merging import ops, streaming
from sabir.merging.recipe import make_recipe, merge

values = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(values, st.integers(1, 100), st.integers(1, 7))
def test_threshold_is_the_entry_that_sorting_finds(numbers, percent, height):
    tensor = torch.tensor([numbers, [-x for x in numbers]], dtype=torch.float32)[:, :, None]
    found = ops.magnitude_at(lambda: tensor.split(height, dim=1), percent / 100)
    place = max(1, percent * len(numbers) // 100) - 1
    expected = sorted(map(abs, tensor[0].flatten().tolist()), reverse=True)[place]
    assert found.tolist() == [expected, expected]


def test_all_of_several_equal_entries_are_kept():
    tensor = torch.tensor([[[3.0, -2.0, 2.0, 1.0]]])
    assert ops.trim(tensor, ops.magnitude_at(lambda: [tensor], 0.5)).tolist() == [[[3.0, -2.0, 2.0, 0.0]]]


@pytest.mark.parametrize(
    ("density", "total", "kept"), [(0.29, 100, 29), (0.1, 3, 1), (1.0, 7, 7), (0.7, 10, 7)]
)
def test_density_is_taken_as_it_was_written(density, total, kept):
    assert ops.kept_count(density, total) == kept


def test_a_mask_is_indexed_by_position_whatever_the_tile():
    def mask(start, count):
        return ops.keep_mask(0.3, seed=1, digest="sha256:x", module="m", start=start, count=count)

    whole = mask(0, 1000)
    parts = [mask(start, min(37, 1000 - start)) for start in range(0, 1000, 37)]
    assert torch.equal(torch.cat(parts), whole)
    assert 0.25 < float(whole.double().mean()) < 0.35


def test_masks_differ_by_seed_adapter_and_module():
    def mask(**change):
        chosen = {"seed": 1, "digest": "a", "module": "m", **change}
        return ops.keep_mask(0.5, start=0, count=64, **chosen).tolist()

    masks = [mask(), mask(seed=2), mask(digest="b"), mask(module="n")]
    assert len({tuple(m) for m in masks}) == 4


def test_retraining_german_leaves_the_french_mask_as_it_was(tmp_path, monkeypatch):
    drawn = {}
    draw = ops.keep_mask

    def spy(density, *, digest, module, start, **rest):
        drawn[digest, module, start] = (
            draw(density, digest=digest, module=module, start=start, **rest).numpy().tobytes()
        )
        return draw(density, digest=digest, module=module, start=start, **rest)

    monkeypatch.setattr(ops, "keep_mask", spy)
    adapters = PROBLEMS["random"](tmp_path / "old")
    recipe = make_recipe("dare_ties", space="knots", settings={"density": 0.5})
    dict(merge(recipe, adapters))
    french = {place: mask for place, mask in drawn.items() if place[0] == adapters["fr"].digest}
    drawn.clear()
    dict(merge(recipe, {**adapters, "de": save_peft(tmp_path / "new", random_factors(77))}))
    assert french == {place: mask for place, mask in drawn.items() if place[0] == adapters["fr"].digest}


def test_every_weight_counts_not_only_the_first():
    tensor = torch.tensor([[[1.0]], [[3.0]]])
    signs = torch.ones(1, 1)
    assert float(ops.average_agreeing(tensor, signs, torch.tensor([1.0, 3.0]))) == 2.5
    assert float(ops.weighted_sum(tensor, torch.tensor([1.0, 3.0]))) == 10.0


def test_a_sum_that_cancels_to_rounding_has_no_sign():
    tensor = torch.tensor([[[1.0, 1.0]], [[-1.0 - 2.0**-23, -0.5]]])
    assert ops.elect(tensor, torch.ones(2)).tolist() == [[0.0, 1.0]]


def test_where_nothing_agrees_the_result_is_zero_not_nan():
    merged = ops.average_agreeing(torch.zeros(2, 1, 3), torch.zeros(1, 3), torch.ones(2))
    assert merged.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("method", ["ties", "dare", "dare_ties"])
@pytest.mark.parametrize("space", ["delta", "knots"])
def test_a_density_that_keeps_less_than_one_entry_works(method, space, tmp_path):
    shapes = {"q_proj": (2, 2)}
    adapters = {
        n: save_peft(tmp_path / n, random_factors(i, rank=1, shapes=shapes)) for i, n in enumerate("ab")
    }
    for _, lowrank in merge(make_recipe(method, space=space, settings={"density": 0.01}), adapters):
        assert np.isfinite(lowrank.delta().numpy()).all()


def test_progress_is_told_module_by_module(tmp_path):
    told = []
    adapters = PROBLEMS["random"](tmp_path)
    dict(merge(make_recipe("ties"), adapters, on_module=lambda done, total: told.append((done, total))))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_merge_whose_factors_fit_in_memory_reads_each_adapter_few_times(tmp_path, monkeypatch):
    adapters = PROBLEMS["half-opposite"](tmp_path)
    reads = []
    read = streaming.Merged._read
    monkeypatch.setattr(
        streaming.Merged, "_read", lambda self, module: reads.append(module) or read(self, module)
    )
    dict(merge(make_recipe("ties", settings={"density": 0.5}), adapters))
    assert max(reads.count(module) for module in reads) <= 2
