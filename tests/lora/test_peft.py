"""What we read and write against PEFT itself, on a tiny random Llama."""

from __future__ import annotations

import pytest
import torch

from sabir.lora.checks import base_linear_shapes, check_fits, check_supported
from sabir.lora.files import open_adapter
from sabir.lora.write import target_names, write_adapter
from sabir.merging.choices import make_recipe
from sabir.merging.recipe import merge


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base model and two adapters that PEFT saved: different ranks, rsLoRA, patterns."""
    peft = pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    choices = {
        "de": {
            "r": 4,
            "lora_alpha": 8,
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {r"layers\.1\..*q_proj": 3},
        },
        "ja": {"r": 6, "lora_alpha": 5, "use_rslora": True},
    }
    for name, choice in choices.items():
        base = LlamaForCausalLM.from_pretrained(folder / "base")
        lora = peft.LoraConfig(
            target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], init_lora_weights=False, **choice
        )
        peft.get_peft_model(base, lora).save_pretrained(folder / name)
    return folder


def logits(world, adapter=None, deltas=None):
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(world / "base", dtype=torch.float32)
    with torch.no_grad():
        for module, delta in (deltas or {}).items():
            model.get_submodule(module).weight += delta
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        return model(torch.arange(20)[None]).logits


@pytest.mark.parametrize("name", ["de", "ja"])
def test_we_read_the_deltas_that_peft_applies(world, name):
    adapter = open_adapter(world / name)
    check_supported(adapter)
    check_fits(adapter, base_linear_shapes(world / "base"))
    ours = logits(world, deltas={module: adapter.read(module).delta() for module in adapter.modules})
    assert float((logits(world, world / name) - ours).abs().max()) < 1e-4
    assert float((logits(world) - ours).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("recipe", "rank"), [("average", None), ("ties", 5), ("ties-knots", None), ("dare-ties-knots", 4)]
)
def test_peft_loads_the_merged_adapter_and_gives_the_forward_of_memory(world, recipe, rank, tmp_path):
    adapters = {name: open_adapter(world / name) for name in ("de", "ja")}
    merged = merge(make_recipe(recipe, rank=rank), adapters)
    results = dict(merged)
    targets = target_names(merged.shapes, adapters=adapters.values())
    assert targets == ["down_proj", "q_proj", "up_proj", "v_proj"]
    out = write_adapter(
        tmp_path / "merged",
        results.items(),
        shapes=merged.shapes,
        rank=merged.rank,
        base_model=str(world / "base"),
        targets=targets,
    )
    in_memory = logits(world, deltas={module: lowrank.delta() for module, lowrank in results.items()})
    assert float((logits(world, out.path) - in_memory).abs().max()) < 1e-4
