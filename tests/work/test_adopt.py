"""Whole models that somebody brought: copied without what the base gives, and refused when they changed."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from model.tiny import save_adapter, save_base
from sabir.errors import SabirError
from sabir.work.adopt import adopt
from sabir.work.bases import digest_of

BASE = {"name": "org/base", "folder": "unused", "revision": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model in two shards, as one would download it."""
    from transformers import AutoModelForCausalLM

    folder = save_base(tmp_path_factory.mktemp("models") / "whole", "llama")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    loaded.save_pretrained(folder, max_shard_size="800KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def work(folder, out, digest):
    out.mkdir(parents=True, exist_ok=True)
    args = {"path": str(folder), "base": BASE}
    return SimpleNamespace(name="incumbent", settings={"digest": digest}, args=args, out=out)


def test_a_whole_model_is_copied_without_its_tokenizer_and_answers_the_same(model, tmp_path):
    from sabir.model.loading import holds_model, load_base

    (model / "README.md").write_text("prose")
    list(adopt([work(model, tmp_path, digest_of(model, {})[0])]))
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"config.json", "model.safetensors.index.json"}
    assert not names & {"README.md", "tokenizer.json", "tokenizer_config.json"}
    assert holds_model(tmp_path)
    ids = torch.tensor([[1, 40, 41]])
    one, other = (load_base(folder, device="cpu")(input_ids=ids).logits for folder in (model, tmp_path))
    assert torch.equal(one, other)


def test_a_model_that_changed_since_the_plan_is_refused(model, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(model, mine)
    digest = digest_of(mine, {})[0]
    config = mine / "config.json"
    config.write_text(config.read_text().replace("llama", "mistral"))
    with pytest.raises(SabirError, match=r"mine: the files changed while the run began\. Run again"):
        list(adopt([work(mine, tmp_path / "out", digest)]))


def test_a_folder_with_an_adapters_config_is_an_adapter(model, tmp_path):
    from sabir.lora.files import open_adapter

    adapter = save_adapter(tmp_path / "adapter", model, seed=1)
    (adapter / "config.json").write_text("{}")  # some save the base's config beside it
    list(adopt([work(adapter, tmp_path / "out", open_adapter(adapter).digest)]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
