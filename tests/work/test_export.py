"""What a server is given answers as the model in the store does, and is whole or not there."""

from __future__ import annotations

import errno
import json
import shutil

import pytest
import torch

from model.tiny import TINY_BASE, save_adapter
from sabir.errors import InputError, StoreError
from sabir.lora.files import open_adapter
from sabir.merging.choices import make_recipe
from sabir.model.loading import Models, load_tokenizer
from sabir.work import export as exporting
from sabir.work.export import export
from sabir.work.merge import merge_into

BASE = {"name": "org/base", "revision": "a" * 40}
SERVE = "vllm serve org/base --revision " + "a" * 40
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
ADAPTER_FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors"} | TOKENIZER


def exported(folder, out, form, base=TINY_BASE):
    export(folder, out, base=BASE, base_folder=base, form=form)
    return out


def logits(folder, base=TINY_BASE):
    ids = torch.arange(5, 45)[None]
    with Models(base, device="cpu").at(folder) as model, torch.no_grad():
        return model(ids).logits


# float32 rounds to 2^-24; sums of some hundred products, through four layers, make a few hundred times that of it
FLOAT_NOISE = 2**-15


def moved(folder, original, base=TINY_BASE):
    """How far a model's logits lie from an adapter's, as a share of what that adapter does to the base's."""
    own = logits(original, base)
    return float((logits(folder, base) - own).norm() / (own - logits(None, base)).norm())


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An adapter that no server takes as it is: rank 2, and a scale of 2 in its config."""
    folder = save_adapter(tmp_path_factory.mktemp("plain") / "de", TINY_BASE, seed=1, size=0.2)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 4}))
    return folder


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The folder of a merge step, with its record."""
    folder = tmp_path_factory.mktemp("merged")
    adapters = {
        name: open_adapter(save_adapter(folder / name, TINY_BASE, seed=seed, size=0.2))
        for seed, name in enumerate(("de", "fr"))
    }
    recipe = make_recipe("ties")
    merge_into(folder / "out", recipe, adapters, base_model=BASE["name"], revision=BASE["revision"])
    (folder / "out" / "record.json").write_text("{}")
    return folder / "out"


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory):
    """The embedded base in float32, where folding rounds nothing away."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(TINY_BASE / name, folder / name)
    return folder


def test_an_adapter_is_rewritten_for_servers_and_answers_the_same(plain, tmp_path):
    out = exported(plain, tmp_path / "out", "adapter")
    assert set(content(out)) == ADAPTER_FILES
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (8, 8, False)
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "a" * 40)
    assert moved(out, plain) < FLOAT_NOISE  # the scale sits in B now, and 6 ranks of zeros were added
    assert (logits(plain) - logits(None)).abs().max() > 1  # the adapter does something


def test_a_canonical_adapter_is_copied_with_its_own_card(merged, tmp_path):
    out = content(exported(merged, tmp_path / "out", "adapter"))
    assert set(out) == ADAPTER_FILES
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors"):
        assert out[name] == (merged / name).read_bytes()
    for name in TOKENIZER:
        assert out[name] == (TINY_BASE / name).read_bytes()
    assert "| method | ties |" in out["README.md"].decode()


def test_the_card_has_the_line_that_serves_it(plain, merged, tmp_path):
    for number, folder in enumerate((plain, merged)):
        card = (exported(folder, tmp_path / str(number), "adapter") / "README.md").read_text()
        rank = open_adapter(tmp_path / str(number)).config["r"]
        assert f"{SERVE} --enable-lora --max-lora-rank {rank} --lora-modules NAME=FOLDER" in card
    card = (exported(plain, tmp_path / "model", "model") / "README.md").read_text()
    assert "\nvllm serve FOLDER\n" in card


@pytest.mark.parametrize(
    "change",
    [
        {"lora_alpha": 16},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 8}},
        {"alpha_pattern": {"q_proj": 8}},
        {"base_model_name_or_path": "/somewhere/else"},
        {"revision": None},
        "no card",
    ],
)
def test_an_adapter_that_lacks_anything_of_a_canonical_one_is_not_just_copied(plain, tmp_path, change):
    folder = exported(plain, tmp_path / "canonical", "adapter")
    if change == "no card":
        (folder / "README.md").unlink()
    else:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
    out = exported(folder, tmp_path / "out", "adapter")
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (8, 8, False)
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({}, {})
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "a" * 40)
    assert SERVE in (out / "README.md").read_text()
    assert moved(out, folder) < FLOAT_NOISE


def test_a_folded_adapter_answers_as_the_adapter_does(plain, wide_base, tmp_path):
    out = exported(plain, tmp_path / "wide", "model", wide_base)
    assert moved(out, plain, wide_base) < FLOAT_NOISE  # (W + B A) x for W x + B (A x): another order of sums
    narrow = exported(plain, tmp_path / "narrow", "model")
    # The embedded base is bfloat16: every folded weight is rounded by up to 2^-9 of itself, at random, which adds up
    # over four layers to less than 2^-5 of what the adapter does (0.0135 measured).
    assert 2**-12 < moved(narrow, plain) < 2**-5
    assert set(content(narrow)) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    } | (TOKENIZER)


def test_a_folded_merge_keeps_the_card_with_its_recipe(merged, tmp_path):
    out = exported(merged, tmp_path / "out", "model")
    assert (out / "ADAPTER.md").read_bytes() == (merged / "README.md").read_bytes()


def test_a_whole_model_is_copied_and_given_the_tokenizer_it_lacks(plain, tmp_path):
    whole = exported(plain, tmp_path / "whole", "model")
    (whole / "record.json").write_text("{}")
    out = content(exported(whole, tmp_path / "copy", "model"))
    assert out == {name: data for name, data in content(whole).items() if name != "record.json"}
    for name in TOKENIZER:
        (whole / name).unlink()
    assert set(content(exported(whole, tmp_path / "other", "model"))) >= TOKENIZER


def test_a_whole_model_is_not_served_as_an_adapter(plain, tmp_path):
    whole = exported(plain, tmp_path / "whole", "model")
    with pytest.raises(
        InputError, match=r"serve\.form: is adapter, and this release is a whole model.*form: model"
    ):
        exported(whole, tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


def test_the_chat_template_and_the_tokenizer_come_along(plain, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(TINY_BASE, base)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    for form in ("adapter", "model"):
        out = exported(plain, tmp_path / form, form, base)
        assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
        assert load_tokenizer(out)("ja")["input_ids"] == load_tokenizer(base)("ja")["input_ids"]


def test_what_servers_cannot_take_is_refused(plain, tmp_path):
    dora = tmp_path / "dora"
    shutil.copytree(plain, dora)
    config = json.loads((dora / "adapter_config.json").read_text())
    (dora / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(InputError, match="DoRA"):
        exported(dora, tmp_path / "out", "adapter")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no adapter and no model"):
        exported(tmp_path / "empty", tmp_path / "out", "adapter")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        exported(plain, tmp_path / "there", "adapter")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dora", "empty", "there"]


@pytest.mark.parametrize("case", ["rewritten", "copied", "whole"])
def test_a_full_disk_leaves_nothing_half_written(plain, merged, tmp_path, monkeypatch, case):
    folder = {"rewritten": plain, "copied": merged}.get(case)
    form = "adapter"
    if folder is None:
        folder, form = exported(plain, tmp_path / "whole", "model"), "model"
    written = []

    def full(source, target):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        shutil.copyfile(source, target)

    monkeypatch.setattr(exporting, "copy_file", full)
    monkeypatch.setattr("sabir.lora.write.copy_file", full)
    with pytest.raises(StoreError, match="No space left on device"):
        exported(folder, tmp_path / "serve" / "out", form)
    assert written
    assert not (tmp_path / "serve").exists()
