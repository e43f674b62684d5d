"""Tiny random models of each architecture, adapters for them, and prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

import sabir

TINY_BASE = Path(sabir.__file__).parent / "embedded" / "tiny-base"
VOCABULARY = 8192  # of the embedded tokenizer
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.5,  # far from uniform, so that a wrong score shows
}
SLIDING = {"sliding_window": 8}  # shorter than the prompts of the tests
ARCHITECTURES = {
    "llama": {},
    "qwen3": {},
    "mistral": SLIDING,
    "gemma": {},
    "gemma2": SLIDING,
    "gemma3_text": {**SLIDING, "layer_types": ["sliding_attention", "full_attention"]},
}


def save_base(folder: Path, architecture: str, **changes: object) -> Path:
    """A random model of an architecture, in a folder as one would download it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**SIZES, **ARCHITECTURES[architecture], **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TINY_BASE / name, folder / name)
    return folder


def save_adapter(folder: Path, base: Path, *, seed: int, rank: int = 2, size: float = 1.0) -> Path:
    """A PEFT adapter that changes every linear module of a base, written by hand."""
    from safetensors.torch import save_file

    from sabir.lora.checks import base_linear_shapes

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    linear = {name: shape for name, shape in base_linear_shapes(base).items() if name.endswith("_proj")}
    for module, (rows, columns) in linear.items():
        key = f"base_model.model.{module}"
        tensors[f"{key}.lora_A.weight"] = size * torch.randn(rank, columns, generator=generator)
        tensors[f"{key}.lora_B.weight"] = size * torch.randn(rows, rank, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in linear}),
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder
