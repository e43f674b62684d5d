"""`analyze` against dense float64 numpy, and the laws it keeps."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.linalg import orth, subspace_angles

from problems import PROBLEMS, SHAPES, random_factors, save_peft
from sabir.errors import InputError
from sabir.lora.files import Adapter
from sabir.merging.analysis import analyze, effective_rank, sampled_positions
from sabir.merging.findings import findings
from sabir.report.analysis import MOST_PAIRS, tables

EXACT = 1e-9  # float64 throughout; the factors themselves are read as float32 on both sides
SINGLE = 2e-5  # factors that were rewritten, so rounded to float32 anew: some 2^-24 times their condition
ROUNDING = 1e-6  # directions below this share of the strongest, sums below this share of their terms: nothing


@pytest.fixture(params=PROBLEMS)
def adapters(request, tmp_path):
    return PROBLEMS[request.param](tmp_path)


def _dense(adapters):
    """{name: {module: (O, I) float64}}, zeros where an adapter lacks a module; sums that cancel are 0."""
    shapes = {module: shape for adapter in adapters.values() for module, shape in adapter.shapes.items()}
    found = {}
    for name, adapter in adapters.items():
        found[name] = {module: np.zeros(shapes[module]) for module in sorted(shapes)}
        for module in adapter.modules:
            x = adapter.read(module)
            b, a = x.b.double().numpy(), x.a.double().numpy()
            found[name][module] = np.where(abs(b @ a) > ROUNDING * (abs(b) @ abs(a)), b @ a, 0.0)
    return found


def _layer(module):
    numbers = [int(part) for part in module.split(".") if part.isdecimal()]
    return numbers[0] if numbers else None


def _kind(module):
    return module.split(".")[-1]


def _flat(deltas, modules):
    return np.concatenate([deltas[module].ravel() for module in modules])


def _cosine(x, y):
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return x @ y / norms if norms else None


def _entropy_rank(sigma):
    p = sigma[sigma > ROUNDING * sigma.max()] / sigma[sigma > ROUNDING * sigma.max()].sum()
    return math.exp(-sum(x * math.log(x) for x in p))


def _bases(delta):
    """Orthonormal bases of the row and the column space of a dense delta: (I, k), (O, k)."""
    return orth(delta.T, rcond=ROUNDING), orth(delta, rcond=ROUNDING)


# --- against dense numpy ---------------------------------------------------------------------------------


def test_norms_equal_the_dense_ones(adapters):
    dense = _dense(adapters)
    for row in analyze(adapters)["adapters"]:
        deltas = dense[row["name"]]
        assert row["norm"] == pytest.approx(np.linalg.norm(_flat(deltas, deltas)), rel=EXACT)
        layers = {one["layer"]: one["norm"] for one in row["by_layer"]}
        for found, group in ((layers, _layer), (row["by_kind"], _kind)):
            assert set(found) == set(map(group, deltas))
            for key, norm in found.items():
                modules = [module for module in deltas if group(module) == key]
                assert norm == pytest.approx(np.linalg.norm(_flat(deltas, modules)), rel=EXACT)
        assert row["modules"] == len(adapters[row["name"]].modules)
        assert row["digest"] == adapters[row["name"]].digest


def test_cosines_equal_the_dense_ones(adapters):
    dense = _dense(adapters)
    pairs = analyze(adapters)["pairs"]
    assert [(row["a"], row["b"]) for row in pairs] == list(combinations(sorted(adapters), 2))
    for row in pairs:
        a, b = dense[row["a"]], dense[row["b"]]
        assert row["cosine"] == pytest.approx(_cosine(_flat(a, a), _flat(b, a)), abs=EXACT)
        layers = {one["layer"]: one["cosine"] for one in row["by_layer"]}
        for found, group in ((layers, _layer), (row["by_kind"], _kind)):
            assert set(found) == set(map(group, a))
            for key, cosine in found.items():
                modules = [module for module in a if group(module) == key]
                expected = _cosine(_flat(a, modules), _flat(b, modules))
                assert cosine == pytest.approx(expected, abs=EXACT)


def test_overlaps_are_the_mean_squared_cosine_of_the_principal_angles(adapters):
    dense = _dense(adapters)
    for row in analyze(adapters)["pairs"]:
        for which, side in enumerate(("inputs", "outputs")):
            cosines = []
            for module in dense[row["a"]]:
                a, b = (_bases(dense[row[end]][module])[which] for end in ("a", "b"))
                if a.shape[1] and b.shape[1]:
                    cosines += list(np.cos(subspace_angles(a, b)) ** 2)
            if cosines:
                assert row[side]["overlap"] == pytest.approx(np.mean(cosines), abs=EXACT)
            else:
                assert row[side] == {"overlap": None, "chance": None}


def test_effective_ranks_equal_the_dense_ones(adapters):
    dense, document = _dense(adapters), analyze(adapters)
    for row in document["adapters"]:
        deltas = [delta for delta in dense[row["name"]].values() if delta.any()]
        if not deltas:
            assert row["effective_rank"] is None
            continue
        ranks = [_entropy_rank(np.linalg.svd(delta, compute_uv=False)) for delta in deltas]
        expected = np.average(ranks, weights=[np.sum(delta**2) for delta in deltas])
        assert row["effective_rank"] == pytest.approx(expected, rel=EXACT)
    stacked = []
    for module in next(iter(dense.values())):
        bases = [_bases(deltas[module])[0] for deltas in dense.values()]
        stacked.append(_entropy_rank(np.linalg.svd(np.concatenate(bases, axis=1).T, compute_uv=False)))
    found = document["inputs"]["effective_rank"]
    # equal spaces leave singular values of sqrt(float64 rounding), each worth some 1e-7 of a rank
    assert found["mean"] == pytest.approx(np.mean(stacked), rel=1e-6)
    assert found["least"] == pytest.approx(min(stacked), rel=1e-6)


def test_energy_by_rank_is_that_of_the_dense_deltas_side_by_side(adapters):
    dense, energy = _dense(adapters), analyze(adapters, ranks=[1, 2, 3, 4, 6])["energy"]
    whole = {name: sum(np.sum(delta**2) for delta in deltas.values()) for name, deltas in dense.items()}
    modules = list(next(iter(dense.values())))
    sums = [sum(adapter.ranks.get(module, 0) for adapter in adapters.values()) for module in modules]
    assert energy["rank"] == max(sums)
    assert energy["rank"] in [row["rank"] for row in energy["kept"]]
    for row in energy["kept"]:
        q, kept, tied = row["rank"], dict.fromkeys(dense, 0.0), False
        for module in modules:
            u, sigma, _ = np.linalg.svd(np.concatenate([dense[name][module] for name in dense], axis=1))
            after = sigma[q] if q < len(sigma) else 0.0
            tied |= bool(sigma[q - 1 : q].any() and after > (1 - 1e-6) * sigma[q - 1])
            for name in dense:
                kept[name] += np.sum((u[:, :q].T @ dense[name][module]) ** 2)
        assert row["total"] == pytest.approx(sum(kept.values()) / sum(whole.values()), rel=EXACT)
        for name in dense:
            if not whole[name]:
                assert row["by_adapter"][name] is None
            elif not tied:  # at equal singular values the top q directions are not one thing
                assert row["by_adapter"][name] == pytest.approx(kept[name] / whole[name], rel=EXACT)


def test_the_rank_for_a_share_is_the_least_that_keeps_it(adapters):
    energy = analyze(adapters, ranks=range(1, 20))["energy"]
    by_rank = {row["rank"]: row for row in energy["kept"]}
    for wanted in energy["rank_for"]:
        rank = wanted["total"]
        assert by_rank[rank]["total"] >= wanted["share"] - EXACT
        assert rank == 1 or by_rank[rank - 1]["total"] < wanted["share"]
        for name, rank in wanted["by_adapter"].items():
            if rank is not None:
                assert by_rank[rank]["by_adapter"][name] >= wanted["share"] - EXACT


def _conflicts(values):
    """Share of positions in conflict and of magnitude on the losing side, of values (adapters, positions)."""
    contested = (values != 0).sum(0) > 1
    if not contested.any():
        return None, None
    values = values[:, contested]
    plus, minus = (values * (values > 0)).sum(0), -(values * (values < 0)).sum(0)
    return ((plus > 0) & (minus > 0)).mean(), np.minimum(plus, minus).sum() / (plus + minus).sum()


def test_small_modules_are_counted_whole_and_their_sign_conflicts_are_exact(adapters):
    document = analyze(adapters)
    dense = {name: _flat(deltas, deltas) for name, deltas in _dense(adapters).items()}
    assert document["signs"]["positions"] == len(next(iter(dense.values())))
    cases = [(document["signs"], list(dense))]
    cases += [(row["signs"], [row["a"], row["b"]]) for row in document["pairs"]]
    for found, names in cases:
        conflict, losing = _conflicts(np.stack([dense[name] for name in names]))
        assert found["conflict"] == pytest.approx(conflict, abs=EXACT)
        assert found["losing"] == pytest.approx(losing, abs=EXACT)
        assert found["conflict_standard_error"] in (0.0, None)


# --- sampled signs ---------------------------------------------------------------------------------------

LARGE = {"model.layers.0.mlp.up_proj": (500, 300), "model.layers.0.self_attn.q_proj": (200, 150)}


def test_sampled_signs_are_those_of_the_dense_entries_and_near_the_whole(tmp_path):
    first = random_factors(1, shapes=LARGE)
    other = random_factors(2, shapes=LARGE)
    mixed = {module: (b + 0.5 * other[module][0], first[module][1]) for module, (b, _) in first.items()}
    adapters = {
        "de": save_peft(tmp_path / "de", first),
        "fr": save_peft(tmp_path / "fr", mixed),
        "ja": save_peft(tmp_path / "ja", random_factors(3, shapes=LARGE)),
    }
    found, dense = analyze(adapters, positions=2000), _dense(adapters)
    sampled, sizes = {}, {}
    for module, shape in LARGE.items():
        rows, columns = sampled_positions(module, shape, 2000)
        sampled[module] = {name: dense[name][module][rows, columns] for name in dense}
        sizes[module] = shape[0] * shape[1]
    cases = [(found["signs"], list(dense))]
    cases += [(row["signs"], [row["a"], row["b"]]) for row in found["pairs"]]
    for signs, names in cases:
        by_module = {m: _conflicts(np.stack([sampled[m][name] for name in names]))[0] for m in LARGE}
        expected = sum(sizes[m] * by_module[m] for m in LARGE) / sum(sizes.values())
        assert signs["conflict"] == pytest.approx(expected, rel=EXACT)
        whole = _conflicts(np.stack([_flat(dense[name], LARGE) for name in names]))
        for name, exact in zip(("conflict", "losing"), whole, strict=True):
            assert 0 < signs[f"{name}_standard_error"] < 0.02
            assert abs(signs[name] - exact) < 4 * signs[f"{name}_standard_error"]
    assert found["signs"]["positions"] == 4000


def test_standard_errors_are_the_spread_of_the_shares_around_the_exact_ones(tmp_path):
    shapes = {"x": (60, 50)}
    factors = [random_factors(seed, rank=2, shapes=shapes)["x"] for seed in (1, 2)]
    exact = _conflicts(np.stack([(b.double() @ a.double()).numpy().ravel() for b, a in factors]))
    draws = []
    for draw in range(150):  # the module's name keys the draw
        adapters = {
            name: save_peft(tmp_path / f"{name}{draw}", {f"block_{draw}": one})
            for name, one in zip(("de", "fr"), factors, strict=True)
        }
        draws.append(analyze(adapters, positions=400)["signs"])
    for name, share in zip(("conflict", "losing"), exact, strict=True):
        spread = math.sqrt(np.mean([(signs[name] - share) ** 2 for signs in draws]))
        told = np.mean([signs[f"{name}_standard_error"] for signs in draws])
        assert told == pytest.approx(spread, rel=0.2)  # 150 draws know a spread to 0.06 of itself
        bias = np.mean([signs[name] for signs in draws]) - share
        assert abs(bias) < 4 * spread / math.sqrt(150)


def test_positions_are_spread_over_the_module_and_keyed_by_its_name():
    rows, columns = sampled_positions("layers.0.q_proj", (1000, 3000), 40_000)
    assert rows.min() >= 0
    assert columns.min() >= 0
    assert np.ptp(rows) == 999
    assert columns.max() < 3000
    expected = 40_000 / 10
    for index, side in ((rows, 1000), (columns, 3000)):
        counts = np.histogram(index, bins=10, range=(0, side))[0]
        assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-squared, 9 degrees: 1 in 2,000
    again = sampled_positions("layers.0.q_proj", (1000, 3000), 40_000)
    other = sampled_positions("layers.1.q_proj", (1000, 3000), 40_000)
    assert (again[0] == rows).all()
    assert (other[0] != rows).any()


# --- laws ------------------------------------------------------------------------------------------------


def _turned(factors, turn):
    """The same deltas by other factors: B Q and Q^-1 A."""
    found = {}
    for module, (b, a) in factors.items():
        q = turn(b.shape[1])
        found[module] = (b.double() @ q).float(), torch.linalg.solve(q, a.double()).float()
    return found


def _orthogonal(rank):
    return torch.linalg.qr(torch.randn(rank, rank, generator=torch.Generator().manual_seed(5)).double()).Q


def _general(rank):
    return torch.diag(torch.logspace(-1, 1, rank, dtype=torch.float64)) @ _orthogonal(rank)


def _numbers(value, path=()):
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, (*path, key))
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from _numbers(one, (*path, i))
    elif not isinstance(value, str):
        yield path, value


@pytest.mark.parametrize("turn", [_orthogonal, _general])
def test_how_a_delta_is_split_into_factors_changes_nothing(tmp_path, turn):
    factors = {name: random_factors(60 + i, rank=2 + i) for i, name in enumerate(("de", "fr", "ja"))}
    before = analyze({name: save_peft(tmp_path / name, one) for name, one in factors.items()})
    turned = {name: _turned(one, turn) for name, one in factors.items()}
    after = analyze({name: save_peft(tmp_path / f"{name} turned", one) for name, one in turned.items()})
    assert dict(_numbers(after)) == pytest.approx(dict(_numbers(before)), rel=SINGLE, abs=SINGLE)


def test_entries_that_cancel_to_rounding_have_no_sign(tmp_path):
    turned = {}
    for i, name in enumerate(("de", "fr")):
        b, a = random_factors(i, rank=4, shapes={"x": (40, 30)})["x"]
        a[:, 15 * i : 15 * i + 15] = 0  # one writes to the right half, the other to the left
        spread = torch.cat([b, b], 1), torch.cat([a + 1, -torch.ones_like(a)])
        turned[name] = save_peft(tmp_path / name, _turned({"x": spread}, _general))
    assert all((adapter.read("x").delta() != 0).float().mean() > 0.9 for adapter in turned.values())
    signs = analyze(turned)["signs"]
    assert (signs["conflict"], signs["losing"]) == (None, None)


def test_zero_columns_beside_a_delta_change_nothing_but_its_rank(tmp_path):
    factors = {name: random_factors(70 + i) for i, name in enumerate(("de", "fr"))}
    padded = {
        name: {
            module: (torch.cat([b, torch.zeros(len(b), 2)], 1), torch.cat([a, torch.randn(2, a.shape[1])]))
            for module, (b, a) in one.items()
        }
        for name, one in factors.items()
    }
    before = analyze({name: save_peft(tmp_path / name, one) for name, one in factors.items()})
    after = analyze({name: save_peft(tmp_path / f"{name} padded", one) for name, one in padded.items()})
    for part in ("pairs", "inputs", "signs"):
        assert dict(_numbers(after[part])) == pytest.approx(
            dict(_numbers(before[part])), rel=EXACT, abs=EXACT
        )
    assert (before["energy"]["rank"], after["energy"]["rank"]) == (6, 10)


def test_order_of_adapters_and_threads_change_no_bit(adapters):
    expected = json.dumps(analyze(adapters))
    reordered = {name: adapters[name] for name in sorted(adapters, reverse=True)}
    torch.set_num_threads(2)
    seen = set()
    try:
        found = analyze(reordered, on_module=lambda done, total: seen.add(torch.get_num_threads()))
        assert json.dumps(found) == expected
        assert seen == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_the_document_is_json_without_nan(adapters):
    document = analyze(adapters)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_each_factor_is_read_once_and_progress_told(tmp_path, monkeypatch):
    adapters, reads, told = PROBLEMS["random"](tmp_path), [], []
    read = Adapter.read
    monkeypatch.setattr(Adapter, "read", lambda self, m: reads.append((self.path, m)) or read(self, m))
    analyze(adapters, on_module=lambda done, total: told.append((done, total)))
    assert len(reads) == len(set(reads)) == len(adapters) * len(SHAPES)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_no_dense_matrix_is_formed(tmp_path):
    side = 200_000  # dense: 320 GB in float64
    factors = {
        name: random_factors(i, rank=2, shapes={"lm_head": (side, side)})
        for i, name in enumerate(("de", "fr"))
    }
    adapters = {name: save_peft(tmp_path / name, one) for name, one in factors.items()}
    document = analyze(adapters)
    assert document["adapters"][0]["norm"] == pytest.approx(side * math.sqrt(2), rel=0.02)
    assert abs(document["pairs"][0]["cosine"]) < 0.02
    assert [row["layer"] for row in document["adapters"][0]["by_layer"]] == [None]


# --- absent, zero, alone ---------------------------------------------------------------------------------


def test_a_module_that_an_adapter_lacks_counts_as_zero_there(tmp_path):
    up, q, down = SHAPES
    de, fr, ja = (random_factors(i) for i in range(3))
    ja |= random_factors(4, shapes={"lm_head": (9, 7)})  # one alone has it, so nobody alone lacks it
    adapters = {
        "de": save_peft(tmp_path / "de", {up: de[up], q: de[q]}),
        "fr": save_peft(tmp_path / "fr", {q: fr[q], down: fr[down]}),
        "ja": save_peft(tmp_path / "ja", ja),
    }
    document, dense = analyze(adapters), _dense(adapters)
    assert [row["missing"] for row in document["adapters"]] == [[down], [up], []]
    pair = document["pairs"][0]
    norms = [
        math.hypot(*(np.linalg.norm(dense[name][m]) for m in adapters[name].modules)) for name in ("de", "fr")
    ]
    expected = (dense["de"][q] * dense["fr"][q]).sum() / (norms[0] * norms[1])
    assert pair["cosine"] == pytest.approx(expected, abs=EXACT)
    expected = _cosine(dense["de"][q].ravel(), dense["fr"][q].ravel())
    kinds = {"up_proj": None, "q_proj": pytest.approx(expected, abs=EXACT), "down_proj": None}
    assert pair["by_kind"] == {**kinds, "lm_head": None}
    assert pair["by_layer"][0] == {"layer": None, "cosine": None}
    assert pair["by_layer"][2] == {"layer": 1, "cosine": None}
    conflict, losing = _conflicts(np.stack([dense["de"][q].ravel(), dense["fr"][q].ravel()]))
    assert (pair["signs"]["conflict"], pair["signs"]["losing"]) == pytest.approx(
        (conflict, losing), rel=EXACT
    )
    assert any(f"de lacks 1 module that all others have ({down})" in one for one in document["findings"])


def test_adapters_without_a_common_module_are_orthogonal(tmp_path):
    up, q, _ = SHAPES
    one = random_factors(1)
    adapters = {name: save_peft(tmp_path / name, {m: one[m]}) for name, m in (("de", up), ("fr", q))}
    pair = analyze(adapters)["pairs"][0]
    assert pair["cosine"] == 0.0
    assert pair["inputs"]["overlap"] is None
    assert pair["signs"]["conflict"] is None


def test_one_adapter_alone_is_analysed(tmp_path):
    document = analyze({"de": save_peft(tmp_path / "de", random_factors(1))})
    assert document["pairs"] == []
    assert document["signs"]["conflict"] is None
    assert document["inputs"]["effective_rank"]["mean"] == pytest.approx(3.0)
    assert [table.title for table in tables(document)] == ["Adapters", "Energy kept by rank"]


def test_only_zero_adapters_give_no_number_that_is_not_defined(tmp_path):
    zero = random_factors(1, size=0.0)
    document = analyze({name: save_peft(tmp_path / name, zero) for name in ("de", "fr")})
    assert document["pairs"][0]["cosine"] is None
    assert document["energy"]["kept"][0]["total"] is None
    assert document["energy"]["rank_for"][0]["total"] is None
    assert document["inputs"]["effective_rank"]["mean"] is None
    assert "de is zero: it changes nothing. Leave it out, or train it." in document["findings"]
    assert len(tables(document)) == 4


@pytest.mark.parametrize(
    ("sigma", "expected"), [([], 0.0), ([0.0], 0.0), ([5.0], 1.0), ([2.0, 2.0, 2.0], 3.0), ([1.0, 0.0], 1.0)]
)
def test_effective_rank_counts_equal_singular_values(sigma, expected):
    assert effective_rank(np.array(sigma)) == pytest.approx(expected)


def test_stacked_inputs_lie_between_one_shared_space_and_independent_ones(tmp_path):
    shared, orthogonal = PROBLEMS["identical"](tmp_path / "same"), PROBLEMS["orthogonal"](tmp_path / "apart")
    found = [analyze(one)["inputs"]["effective_rank"] for one in (shared, orthogonal)]
    assert found[0]["mean"] == pytest.approx(found[0]["shared"], rel=1e-6)
    assert found[1]["mean"] == pytest.approx(found[1]["independent"], rel=1e-6)
    assert (found[0]["shared"], found[1]["independent"]) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ranks": [8, 0]}, "ranks: expected 1 or more, got 0."),
        ({"positions": 1}, "positions: expected 2 or more, got 1."),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, sentence):
    with pytest.raises(InputError) as error:
        analyze(PROBLEMS["random"](tmp_path), **settings)
    assert str(error.value) == sentence


def test_no_adapter_is_refused():
    with pytest.raises(InputError, match="adapters: none given"):
        analyze({})


# --- findings and tables ---------------------------------------------------------------------------------

WIDE = {"model.layers.0.self_attn.q_proj": (96, 128), "model.layers.1.self_attn.q_proj": (96, 128)}


def _told(tmp_path, factors):
    adapters = {name: save_peft(tmp_path / name, one) for name, one in factors.items()}
    return analyze(adapters)["findings"]


def test_adapters_started_from_one_a_are_named(tmp_path):
    de, fr, ja = (random_factors(i, shapes=WIDE) for i in range(3))
    fr = {module: (b, de[module][1]) for module, (b, _) in fr.items()}
    told = _told(tmp_path, {"de": de, "fr": fr, "ja": ja})
    sentence = "Share of their input space in common: de and fr 1.00, as adapters do that were started from the same A."
    assert [one for one in told if "input space" in one] == [sentence]
    assert not any("output space" in one for one in told)


def test_nearly_orthogonal_vectors_are_called_so_and_others_are_not(tmp_path):
    de, fr = (random_factors(i, shapes=WIDE) for i in range(2))
    told = _told(tmp_path, {"de": de, "fr": fr})
    assert any(one.startswith("Language vectors are nearly orthogonal (largest cosine ") for one in told)
    near = {module: (b + 0.1 * fr[module][0], a) for module, (b, a) in de.items()}
    far = {module: (-b, a) for module, (b, a) in near.items()}
    told = _told(tmp_path / "near", {"de": de, "en": near, "fr": far})
    assert any(
        one.startswith("Mostly one direction (cosine): de and en 0.99.") or "de and en 1.00" in one
        for one in told
    )
    assert any(one.startswith("Pull against each other (cosine): de and fr -") for one in told)
    assert not any("nearly orthogonal" in one for one in told)


def test_what_was_trained_whole_is_named(tmp_path):
    de, fr = (save_peft(tmp_path / name, random_factors(i)) for i, name in enumerate(("de", "fr")))
    place = next(iter(de.tensors.values()))
    document = analyze({"de": dataclasses.replace(de, saved={"score.weight": place}), "fr": fr})
    assert [row["saved"] for row in document["adapters"]] == [["score.weight"], []]
    expected = "de also trained 1 tensor whole (score.weight): no delta, so no part of these figures."
    assert expected in document["findings"]


def test_equal_content_unequal_norms_and_zeros_are_named(tmp_path):
    de, ja = random_factors(1), random_factors(2, size=9.0)
    told = _told(tmp_path, {"de": de, "fr": de, "ja": ja})
    assert "de and fr are one adapter: their content is the same. Leave one out." in told
    assert any(one.startswith("ja is ") and "with equal weights it outweighs it." in one for one in told)
    assert not any("nearly orthogonal" in one and "de and fr" in one for one in told)


def test_what_rank_costs_is_told_and_who_loses_most(tmp_path):
    strong, weak = random_factors(1, shapes=WIDE), random_factors(2, shapes=WIDE, size=0.3)
    told = _told(tmp_path, {"de": strong, "fr": weak})
    expected = analyze(
        {name: save_peft(tmp_path / f"{name}2", one) for name, one in (("de", strong), ("fr", weak))}
    )
    kept = {row["rank"]: row for row in expected["energy"]["kept"]}[3]
    needed = expected["energy"]["rank_for"][1]["total"]
    assert told[-1] == (
        f"Rank {needed} is needed to keep 0.99 of the energy; rank 3, that of one adapter, keeps "
        f"{kept['total']:.2f} (least: fr {kept['by_adapter']['fr']:.2f})."
    )


def test_a_rank_above_what_servers_take_is_told(tmp_path):
    shapes = {"lm_head": (640, 640)}
    factors = {name: random_factors(i, rank=200, shapes=shapes) for i, name in enumerate(("de", "fr", "ja"))}
    adapters = {name: save_peft(tmp_path / name, one) for name, one in factors.items()}
    document = analyze(adapters, ranks=[16])
    kept = {row["rank"]: row["total"] for row in document["energy"]["kept"]}
    assert sorted(kept) == [16, 200, 512, 600]
    assert document["findings"][-1] == (
        f"An exact merge has rank 600, above the 512 that vLLM takes: rank 512 keeps {kept[512]:.3f}."
    )


def test_findings_come_from_the_document_alone(adapters):
    document = json.loads(json.dumps(analyze(adapters)))
    assert findings(document) == document["findings"]


def _width(table):
    cells = zip(table.columns, *table.rows, strict=True)
    return sum(max(map(len, column)) + 2 for column in cells)


def test_tables_of_five_languages_fit_100_columns_and_end_with_the_findings(tmp_path):
    factors = {
        name: random_factors(i, shapes=WIDE) for i, name in enumerate(("de", "en", "fr", "ja", "zh-Hant"))
    }
    document = analyze(
        {name: save_peft(tmp_path / name, one) for name, one in factors.items()}, positions=1000
    )
    drawn = tables(document)
    assert max(map(_width, drawn)) <= 100
    adapters, cosines, pairs, energy = drawn
    assert adapters.rows[3] == ("norm", *(f"{row['norm']:.3g}" for row in document["adapters"]))
    assert cosines.rows[0][2] == cosines.rows[1][1] == f"{document['pairs'][0]['cosine']:z.3f}"
    assert len(pairs.rows) == 10 + 1
    assert pairs.rows[-1][4] == (
        f"{document['signs']['conflict']:.3f} ± {document['signs']['conflict_standard_error']:.3f}"
    )
    assert [row[0] for row in energy.rows] == ["3", "8", "15", "rank for 0.9", "rank for 0.99"]
    assert energy.notes == tuple(document["findings"])


def test_of_many_pairs_those_with_the_largest_cosines_are_shown(tmp_path):
    factors = {f"l{i}": random_factors(i, shapes=WIDE) for i in range(7)}
    document = analyze({name: save_peft(tmp_path / name, one) for name, one in factors.items()})
    pairs = tables(document)[2]
    shown = {row[0] for row in pairs.rows[:-1]}
    largest = sorted(document["pairs"], key=lambda row: -abs(row["cosine"]))[:MOST_PAIRS]
    assert shown == {f"{row['a']} {row['b']}" for row in largest}
    assert pairs.notes[-1] == "6 pairs with smaller cosines are not shown."
