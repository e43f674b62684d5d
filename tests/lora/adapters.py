"""Adapters with more than linear layers in them, written as PEFT writes them (not by our own writer)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sabir.lora.files import Adapter, open_adapter


def save_embedding(
    folder: Path, *, seed: int = 0, dimensions: int = 4, vocabulary: int = 9, rank: int = 3, **config: Any
) -> Adapter:
    """LoRA on an embedding."""
    generator = torch.Generator().manual_seed(seed)
    name = "base_model.model.model.embed_tokens.lora_embedding"
    tensors = {
        f"{name}_A": torch.randn(rank, vocabulary, generator=generator),
        f"{name}_B": torch.randn(dimensions, rank, generator=generator),
    }
    return save_tensors(folder, tensors, **{"r": rank, "lora_alpha": rank, **config})


def save_tensors(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Adapter:
    """Any tensors under the names of a weights file, beside a config of these fields."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return open_adapter(folder)


def with_tensors(adapter: Adapter, tensors: dict[str, Tensor], folder: Path, **config: Any) -> Adapter:
    """The same adapter with more tensors under their names in the base, in another folder."""
    from safetensors.torch import load_file

    more = {f"base_model.model.{name}": values for name, values in tensors.items()}
    stored = load_file(adapter.path / "adapter_model.safetensors")
    return save_tensors(folder, {**stored, **more}, **{**adapter.config, **config})
