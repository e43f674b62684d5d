"""Base models and adapters, from folders into memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def load_tokenizer(folder: Path | str) -> Any:
    """The tokenizer of a base, padding on the left as scoring and generation need it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(folder: Path | str, *, device: str) -> Any:
    """The causal LM in a folder, in float32 on a CPU and bfloat16 on a GPU, from safetensors only."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    with _no_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.bfloat16 if device == "cuda" else torch.float32,
            use_safetensors=True,
            local_files_only=True,
        )
    # generate() would take what we do not set, such as a repetition penalty, from the base's own settings
    model.generation_config = GenerationConfig()
    return model.to(device).eval()


@contextmanager
def _no_bars() -> Iterator[None]:
    """No "Loading weights" bar: only the command line draws."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def adapted(base: Any, adapter: Path | None) -> Iterator[Any]:
    """The base with an adapter on it for the length of the block; the base itself when `adapter` is None."""
    if adapter is None:
        yield base
        return
    from peft import PeftModel

    device = str(next(base.parameters()).device)
    with warnings.catch_warnings():
        # peft 0.21 asks for what transformers 5.23 calls by another name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = PeftModel.from_pretrained(base, str(adapter), is_trainable=False, torch_device=device)
    try:
        yield model.eval()
    finally:
        model.unload()


def peak_device_bytes(device: str) -> int | None:
    """Most memory tensors took on the GPU since this process began; None on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None
