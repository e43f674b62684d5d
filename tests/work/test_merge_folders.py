"""`sabir.merge`: any PEFT folders into one."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from problems import SHAPES, random_factors, save_peft
from sabir.errors import InputError
from sabir.lora.files import open_adapter
from sabir.work.merge import merge_folders


@pytest.fixture
def folders(tmp_path):
    for seed, name in enumerate(("de", "ja")):
        save_peft(tmp_path / name, random_factors(seed), base_model_name_or_path="org/base")
    return [tmp_path / "de", tmp_path / "ja"]


def delta(adapter, module):
    lowrank = adapter.read(module)
    return lowrank.b.double() @ lowrank.a.double()


def test_the_merge_is_written_and_described(folders, tmp_path):
    seen = []
    found = merge_folders(
        folders,
        out=tmp_path / "out",
        method="linear",
        weights=[0.25, 2.0],
        on_module=lambda done, total: seen.append((done, total)),
    )
    merged, de, ja = (open_adapter(folder) for folder in (tmp_path / "out", *folders))
    for module in de.shapes:
        expected = 0.25 * delta(de, module) + 2.0 * delta(ja, module)
        torch.testing.assert_close(delta(merged, module), expected, atol=1e-4, rtol=1e-4)
    assert seen[-1] == (3, 3)
    assert merged.base_model == "org/base"
    assert found["modules"] == 3
    assert found["recipe"]["method"] == "linear"
    assert found["adapters"] == [
        {"path": str(folder), "digest": open_adapter(folder).digest} for folder in folders
    ]
    assert {"out", "rank", "energy_kept", "energy_kept_by_adapter", "wall_s", "peak_bytes"} <= set(found)


def test_two_adapters_of_the_same_folder_name_keep_apart(tmp_path):
    paths = [tmp_path / place / "adapter" for place in ("de", "ja", "zh")] + [tmp_path / "adapter#2"]
    for seed, path in enumerate(paths):
        save_peft(path, random_factors(seed))
    found = merge_folders([paths[3], *paths[:3]], out=tmp_path / "out", method="linear", weights=[1, 1, 1, 1])
    assert set(found["energy_kept_by_adapter"]) == {"adapter#2", "adapter", "adapter#3", "adapter#4"}


def test_a_base_that_not_all_name_is_not_named(folders, tmp_path):
    save_peft(tmp_path / "zh", random_factors(5))
    merge_folders([*folders, tmp_path / "zh"], out=tmp_path / "out", method="linear")
    assert open_adapter(tmp_path / "out").base_model is None


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], []])
def test_a_wrong_number_of_weights_is_refused(folders, tmp_path, weights):
    with pytest.raises(
        InputError, match=rf"^weights: there are {len(weights)} for 2 adapters\. Give one per"
    ):
        merge_folders(folders, out=tmp_path / "out", method="linear", weights=weights)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [{}, {"recipe": "ties-knots", "method": "ties"}])
def test_a_recipe_or_a_method_is_given_not_both(folders, tmp_path, given):
    with pytest.raises(InputError, match=r"expected a recipe or a method, one of the two"):
        merge_folders(folders, out=tmp_path / "out", **given)


def test_an_existing_adapter_is_not_overwritten(folders, tmp_path):
    before = (folders[1] / "adapter_model.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds an adapter already"):
        merge_folders(folders, out=folders[1], method="linear")
    assert (folders[1] / "adapter_model.safetensors").read_bytes() == before


def test_no_adapters_are_no_merge(tmp_path):
    with pytest.raises(InputError, match=r"there are no adapters to merge\. Name at least one"):
        merge_folders([], out=tmp_path / "out", method="linear")


def test_a_folder_that_is_none_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        merge_folders([*folders, tmp_path / "fr"], out=tmp_path / "out", method="linear")


def test_adapters_of_different_shapes_are_refused(folders, tmp_path):
    shapes = {"model.layers.0.mlp.up_proj": (20, 8)}
    save_peft(tmp_path / "fr", random_factors(3, shapes=shapes))
    with pytest.raises(InputError):
        merge_folders([*folders, tmp_path / "fr"], out=tmp_path / "out", method="linear")
    assert not (tmp_path / "out").exists()


def test_a_card_tells_recipe_sources_and_energy_and_no_place_on_this_machine(folders, tmp_path):
    found = merge_folders(folders, out=tmp_path / "out", recipe="ties", settings={"density": 0.5}, rank=2)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| density | 0.5 |" in card
    assert "| scale | 1.0 |" in card  # defaults too: a reader has nothing else
    for row in found["adapters"]:
        assert row["digest"] in card
    assert f"{found['energy_kept']:.4f}" in card
    assert str(tmp_path) not in card


def test_a_cut_below_what_is_needed_is_warned_about(folders, tmp_path):
    found = merge_folders(folders, out=tmp_path / "out", recipe="ties", rank=1)
    assert found["energy_kept"] < 0.9
    share = f"{found['energy_kept_by_adapter']['de']:.3f}"
    assert any(
        warning.startswith("Rank 1 keeps") and f"de {share}" in warning for warning in found["warnings"]
    )
    assert merge_folders(folders, out=tmp_path / "knots", recipe="ties-knots")["warnings"] == []


def test_a_merge_beyond_what_servers_take_is_cut_and_says_what_that_costs(tmp_path):
    shapes = {"layers.0.q_proj": (700, 640)}
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for seed, folder in enumerate(folders):
        save_peft(folder, random_factors(seed, rank=200, shapes=shapes))
    served = merge_folders(folders, out=tmp_path / "served", recipe="ties-knots", rank="serve")
    assert served["rank"] == 512
    (sentence,) = served["warnings"]
    assert sentence.startswith(
        f"Cut from rank 600 to 512, the largest that servers take: it keeps {served['energy_kept']:.3f}"
    )
    assert all(f"{name} {share:.3f}" in sentence for name, share in served["energy_kept_by_adapter"].items())
    assert "fold" in sentence
    exact = merge_folders(folders, out=tmp_path / "exact", recipe="ties-knots")
    assert exact["rank"] == 600
    assert "Rank 600 is more than servers take" in exact["warnings"][0]


@pytest.fixture
def base(tmp_path):
    """A base as far as folding looks at it: a config and weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    generator = torch.Generator().manual_seed(9)
    weights = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    weights["model.norm.weight"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("method", "space"), [("ties", "delta"), ("ties", "knots"), ("linear", None), ("tsv", None)]
)
def test_a_folded_merge_is_the_base_and_the_whole_delta(folders, base, tmp_path, method, space):
    folded = merge_folders(
        folders, out=tmp_path / "model", method=method, space=space, rank="fold", base=base
    )
    merge_folders(
        folders, out=tmp_path / "adapter", method=method, space=space, rank=99 if space == "delta" else None
    )
    adapter = open_adapter(tmp_path / "adapter")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "model"))
    for module in adapter.modules:
        expected = before[f"{module}.weight"].double() + delta(adapter, module)
        torch.testing.assert_close(after[f"{module}.weight"].double(), expected, atol=2e-5, rtol=1e-6)
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    assert folded["rank"] is None
    assert folded["energy_kept"] == 1.0
    assert (tmp_path / "model" / "tokenizer.json").read_text() == "{}"
    assert "vllm serve FOLDER" in (tmp_path / "model" / "README.md").read_text()


def test_the_tokenizer_lies_beside_an_adapter_whose_base_is_at_hand(folders, base, tmp_path):
    merge_folders(folders, out=tmp_path / "out", method="linear", base=base)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_an_adapter_of_another_base_is_refused_where_the_base_is_given(base, tmp_path):
    save_peft(tmp_path / "de", random_factors(0, shapes={"model.layers.7.q_proj": (4, 4)}))
    with pytest.raises(InputError, match=r"module 'model.layers.7.q_proj' is not in the base model"):
        merge_folders([tmp_path / "de"], out=tmp_path / "out", method="linear", base=base)


def test_layers_trained_whole_are_averaged_by_weight(tmp_path):
    heads = {}
    for seed, name in enumerate(("de", "ja")):
        save_peft(tmp_path / name, random_factors(seed), modules_to_save=["score"], task_type="SEQ_CLS")
        weights = load_file(tmp_path / name / "adapter_model.safetensors")
        heads[name] = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
        weights["base_model.model.score.weight"] = heads[name]
        save_file(weights, tmp_path / name / "adapter_model.safetensors")
    given = [tmp_path / "de", tmp_path / "ja"]
    found = merge_folders(given, out=tmp_path / "out", method="ties", weights=[1.0, 3.0])
    merged = open_adapter(tmp_path / "out")
    torch.testing.assert_close(merged.read_saved("score.weight"), 0.25 * heads["de"] + 0.75 * heads["ja"])
    assert merged.config["task_type"] == "SEQ_CLS"
    assert any("modules_to_save" in warning for warning in found["warnings"])
    with pytest.raises(InputError, match="sum is 0"):
        merge_folders(given, out=tmp_path / "none", method="linear", weights=[1.0, -1.0])
    assert not (tmp_path / "none").exists()


def test_an_adapter_that_lacks_a_module_is_absent_there_and_said_so(tmp_path):
    factors = random_factors(0)
    first = sorted(factors)[0]
    save_peft(tmp_path / "de", factors)
    save_peft(tmp_path / "ja", {name: pair for name, pair in random_factors(1).items() if name != first})
    found = merge_folders(
        [tmp_path / "de", tmp_path / "ja"], out=tmp_path / "out", method="ties", space="knots"
    )
    assert found["warnings"] == [f"'ja' does not adapt module {first!r}: it is absent there."]
    torch.testing.assert_close(
        delta(open_adapter(tmp_path / "out"), first),
        delta(open_adapter(tmp_path / "de"), first),
        atol=1e-5,
        rtol=1e-5,
    )
