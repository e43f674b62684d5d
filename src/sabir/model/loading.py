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


class Models:
    """The models that stand on one base, one at a time: the base with adapters, and whole models from folders.

    The base is loaded when it is first needed and kept; a whole model takes its place in memory.

    Args:
        base: folder of the base.
    """

    def __init__(self, base: Path | str, *, device: str):
        self._folder = base
        self._device = device
        self._base: Any = None

    @contextmanager
    def at(self, folder: Path | None) -> Iterator[Any]:
        """The model in a folder for the length of the block: an adapter or a whole model; None is the base."""
        if folder is not None and holds_model(folder):
            self._base = None
            yield load_base(folder, device=self._device)
            return
        if self._base is None:
            self._base = load_base(self._folder, device=self._device)
        with adapted(self._base, folder) as model:
            yield model


def holds_model(folder: Path) -> bool:
    """True for the folder of a whole model, a base with a merge folded in; False for an adapter's."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


@contextmanager
def adapted(base: Any, adapter: Path | None) -> Iterator[Any]:
    """The base with an adapter on it for the length of the block; the base itself when `adapter` is None."""
    if adapter is None:
        yield base
        return
    from peft import PeftModel

    device = str(next(base.parameters()).device)
    own = dict(base.named_modules())
    with warnings.catch_warnings():
        # peft 0.21 asks for what transformers 5.23 calls by another name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        # of tied embeddings; it is about folding, which is not done here
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        model = PeftModel.from_pretrained(base, str(adapter), is_trainable=False, torch_device=device)
    try:
        yield model.eval()
    finally:
        model.unload()
        for name, module in own.items():  # unload() leaves modules_to_save in the base's place (peft 0.21.2)
            if name and base.get_submodule(name) is not module:
                base.set_submodule(name, module)


def peak_device_bytes(device: str) -> int | None:
    """Most memory tensors took on the GPU since this process began; None on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None
