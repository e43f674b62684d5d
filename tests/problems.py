"""A library of small adapter sets, written as PEFT writes them (not by our own writer)."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sabir.lora.files import Adapter, open_adapter

SHAPES = {
    "model.layers.0.mlp.up_proj": (16, 8),
    "model.layers.0.self_attn.q_proj": (12, 10),
    "model.layers.1.mlp.down_proj": (8, 16),
}
Factors = dict[str, tuple[Tensor, Tensor]]


def random_factors(seed: int, *, rank: int = 3, size: float = 1.0, shapes: Mapping = SHAPES) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return {
        module: (
            size * torch.randn(rows, rank, generator=generator),
            torch.randn(rank, columns, generator=generator),
        )
        for module, (rows, columns) in shapes.items()
    }


def save_peft(
    folder: Path, factors: Factors, *, dtype: torch.dtype = torch.float32, **config: Any
) -> Adapter:
    """Write factors as PEFT's save_pretrained lays them out, and open them. alpha = rank unless said."""
    rank = next(iter(factors.values()))[0].shape[1]
    folder.mkdir(parents=True)
    tensors = {}
    for module, (b, a) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.to(dtype).contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.to(dtype).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted({module.rpartition(".")[2] for module in factors})
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**said, **config}))
    return open_adapter(folder)


def with_digest(adapter: Adapter, digest: str) -> Adapter:
    """The same adapter under a content digest of our choice: DARE's masks are keyed by it."""
    adapter.__dict__["digest"] = digest
    return adapter


def _negated(factors: Factors) -> Factors:
    return {module: (-b, a) for module, (b, a) in factors.items()}


def _random(folder: Path) -> dict[str, Adapter]:
    return {name: save_peft(folder / name, random_factors(i)) for i, name in enumerate(("de", "fr", "ja"))}


def _identical(folder: Path) -> dict[str, Adapter]:
    return {name: save_peft(folder / name, random_factors(7)) for name in ("de", "fr", "ja")}


def _opposite(folder: Path) -> dict[str, Adapter]:
    one = random_factors(8)
    return {"de": save_peft(folder / "de", one), "fr": save_peft(folder / "fr", _negated(one))}


def _half_opposite(folder: Path) -> dict[str, Adapter]:
    """Equal in one module and opposite in the others: there the majority of the whole must decide."""
    one = random_factors(9)
    first = next(iter(one))
    other = {module: (b if module == first else -b, a) for module, (b, a) in one.items()}
    return {"de": save_peft(folder / "de", one), "fr": save_peft(folder / "fr", other)}


def _orthogonal(folder: Path) -> dict[str, Adapter]:
    """Equal norms, no row and no column in common: all singular values equal, so knots is not defined."""
    adapters = {}
    for i, name in enumerate(("de", "fr")):
        factors = {}
        for module, (rows, columns) in SHAPES.items():
            b, a = torch.zeros(rows, 2), torch.zeros(2, columns)
            b[2 * i, 0] = b[2 * i + 1, 1] = a[0, 2 * i] = a[1, 2 * i + 1] = 1.0
            factors[module] = (b, a)
        adapters[name] = save_peft(folder / name, factors)
    return adapters


def _unequal_ranks(folder: Path) -> dict[str, Adapter]:
    return {
        name: save_peft(folder / name, random_factors(10 + rank, rank=rank), lora_alpha=2 * rank)
        for rank, name in ((1, "de"), (4, "fr"), (6, "ja"))
    }


def _one_zero(folder: Path) -> dict[str, Adapter]:
    zero = random_factors(20, size=0.0)
    return {
        "de": save_peft(folder / "de", random_factors(21)),
        "fr": save_peft(folder / "fr", zero),
        "ja": save_peft(folder / "ja", random_factors(22)),
    }


def _tiny(folder: Path) -> dict[str, Adapter]:
    return {
        name: save_peft(folder / name, random_factors(30 + i, size=1e-7))
        for i, name in enumerate(("de", "fr", "ja"))
    }


def _bf16(folder: Path) -> dict[str, Adapter]:
    return {
        name: save_peft(folder / name, random_factors(40 + i, size=1e-3), dtype=torch.bfloat16)
        for i, name in enumerate(("de", "fr", "ja"))
    }


def _rslora(folder: Path) -> dict[str, Adapter]:
    return {
        name: save_peft(folder / name, random_factors(50 + i), use_rslora=True, lora_alpha=5)
        for i, name in enumerate(("de", "fr", "ja"))
    }


def _different_modules(folder: Path) -> dict[str, Adapter]:
    """No module is in all three, and one only in the last."""
    sets = {"de": (0, 1), "fr": (1, 2), "ja": (0, 2, 3)}
    shapes = {**SHAPES, "model.layers.3.self_attn.v_proj": (6, 10)}
    adapters = {}
    for i, (name, places) in enumerate(sets.items()):
        factors = random_factors(60 + i, shapes=shapes)
        adapters[name] = save_peft(folder / name, {m: factors[m] for m in [list(shapes)[p] for p in places]})
    return adapters


def _patterns(folder: Path) -> dict[str, Adapter]:
    """Ranks and alphas that differ by module, each adapter in its own way."""
    up, query, down = SHAPES
    ranks = {
        "de": {up: 2, query: 3, down: 5},
        "fr": {up: 4, query: 3, down: 3},
        "ja": {up: 3, query: 1, down: 3},
    }
    adapters = {}
    for i, (name, of_module) in enumerate(ranks.items()):
        factors = {
            module: random_factors(70 + i, rank=rank, shapes={module: SHAPES[module]})[module]
            for module, rank in of_module.items()
        }
        adapters[name] = save_peft(
            folder / name,
            factors,
            r=3,
            lora_alpha=6,
            rank_pattern={m.removeprefix("model."): rank for m, rank in of_module.items() if rank != 3},
            alpha_pattern={"q_proj": 4 + i, r"layers\.1\..*": 2},
        )
    return adapters


TEXTS = {
    "de": "Der Hund schläft unter dem Tisch, und die Katze sitzt auf dem Dach. ",
    "fr": "Le chien dort sous la table, et le chat est assis sur le toit. ",
    "ja": "犬はテーブルの下で眠り、猫は屋根の上に座っている。",
}


@functools.cache
def _trained() -> tempfile.TemporaryDirectory:
    """Adapters that PEFT trained on bytes of three languages, a few steps each: made once a session."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tempfile.TemporaryDirectory(prefix="sabir-trained-")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 256}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)
    for i, (name, text) in enumerate(TEXTS.items()):
        torch.manual_seed(0)  # one base for all
        base = LlamaForCausalLM(config)
        torch.manual_seed(1 + i)
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
        model = get_peft_model(base, lora)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-2)
        rows = torch.tensor(list((text * 8).encode()))[:256].view(4, 64)
        for _ in range(12):
            model(input_ids=rows, labels=rows).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(str(Path(folder.name) / name))
    return folder


def _real(folder: Path) -> dict[str, Adapter]:
    return {
        name: open_adapter(shutil.copytree(Path(_trained().name) / name, folder / name)) for name in TEXTS
    }


PROBLEMS: dict[str, Callable[[Path], dict[str, Adapter]]] = {
    "random": _random,
    "identical": _identical,
    "opposite": _opposite,
    "half-opposite": _half_opposite,
    "orthogonal": _orthogonal,
    "unequal ranks": _unequal_ranks,
    "one zero": _one_zero,
    "tiny": _tiny,
    "bf16": _bf16,
    "rslora": _rslora,
    "different modules": _different_modules,
    "patterns": _patterns,
    "real": _real,
}
