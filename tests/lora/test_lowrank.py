from __future__ import annotations

import numpy as np
import pytest
import torch

from sabir.lora import lowrank
from sabir.lora.lowrank import LowRank, energy, inner, stack, truncate, truncate_dense


def make(seed, rows=20, columns=14, rank=4):
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator)
    )


def dense(x):
    return x.b.double().numpy() @ x.a.double().numpy()


def test_stacked_factors_are_the_weighted_sum():
    parts = [make(1), make(2, rank=1), make(3, rank=6)]
    total = stack(parts, [0.5, -2.0, 1.0])
    expected = 0.5 * dense(parts[0]) - 2 * dense(parts[1]) + dense(parts[2])
    assert total.rank == 11
    assert np.abs(dense(total) - expected).max() < 1e-5


def test_inner_product_and_energy_come_from_the_factors():
    x, y = make(1), make(2, rank=7)
    assert inner(x, y) == pytest.approx((dense(x) * dense(y)).sum())
    assert energy(x) == pytest.approx(np.linalg.norm(dense(x)) ** 2)


@pytest.mark.parametrize("rank", [1, 3, 9, 14])
def test_truncation_is_the_best_of_its_rank(rank):
    x = make(1, rank=18)  # more than min(O, I) = 14
    u, sigma, vt = np.linalg.svd(dense(x))
    cut = truncate(x, rank)
    assert np.abs(dense(cut.lowrank) - u[:, :rank] * sigma[:rank] @ vt[:rank]).max() < 2e-5
    assert cut.share == pytest.approx((sigma[:rank] ** 2).sum() / (sigma**2).sum())
    assert cut.lowrank.rank == rank


def test_nothing_is_cut_where_the_rank_is_low_enough():
    x = make(1)
    assert truncate(x, 4).lowrank is x
    assert truncate(x, 4).share == 1.0


def test_zero_has_all_its_energy():
    zero = LowRank(torch.zeros(5, 3), torch.zeros(3, 6))
    assert truncate(zero, 1).share == 1.0
    assert truncate_dense(torch.zeros(5, 6), 2).share == 1.0


def test_full_rank_keeps_a_dense_matrix_to_the_bit():
    for shape in ((9, 5), (5, 9)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        assert torch.equal(truncate_dense(matrix, 99).lowrank.delta(), matrix)


def test_the_sampled_truncation_errs_at_most_one_percent_above_the_optimum(monkeypatch):
    monkeypatch.setattr(lowrank, "EXACT_UP_TO", 0)
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(300, 40, generator=generator) @ torch.randn(40, 260, generator=generator)
    matrix = signal + 3 * torch.randn(300, 260, generator=generator)  # a flat tail, as a TIES merge has
    sigma = torch.linalg.svdvals(matrix.double())
    for rank in (8, 32, 60):
        cut = truncate_dense(matrix, rank)
        error = float(torch.linalg.vector_norm(matrix - cut.lowrank.delta()))
        assert error <= 1.01 * float(sigma[rank:].square().sum().sqrt())
        assert cut.total - cut.kept == pytest.approx(error**2, rel=1e-3)
        again = truncate_dense(matrix, rank)
        assert torch.equal(again.lowrank.b, cut.lowrank.b)
