"""`sabir.merge`: any PEFT folders into one."""

from __future__ import annotations

import pytest
import torch

from problems import random_factors, save_peft
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


def test_adapters_of_different_modules_are_refused(folders, tmp_path):
    shapes = {"model.layers.0.mlp.up_proj": (20, 8)}
    save_peft(tmp_path / "fr", random_factors(3, shapes=shapes))
    with pytest.raises(InputError):
        merge_folders([*folders, tmp_path / "fr"], out=tmp_path / "out", method="linear")
    assert not (tmp_path / "out").exists()
