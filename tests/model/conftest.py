"""The tiny models, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.tiny import ARCHITECTURES, TINY_BASE, save_base

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """A folder per architecture."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: save_base(folder / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def models(bases):
    """Loads the model of an architecture, once each."""
    from sabir.model.loading import load_base

    loaded: dict[str, object] = {}

    def load(architecture: str):
        if architecture not in loaded:
            loaded[architecture] = load_base(bases[architecture], device="cpu")
        return loaded[architecture]

    return load


@pytest.fixture
def tokenizer():
    """The embedded tokenizer, fresh: tests give it templates and tokens."""
    from sabir.model.loading import load_tokenizer

    return load_tokenizer(TINY_BASE)
