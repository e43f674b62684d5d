"""Inputs of the benchmark: random adapters as PEFT saves them, and a random base, both safetensors in float32.

    python make.py adapters FOLDER --shapes llama-3.1-8b --count 5 --rank 16 [--shrink 16]
    python make.py base FOLDER --shapes llama-3.2-1b [--shrink 16]

Values depend on the arguments alone. Each module has its own magnitude, up to four times another's, as in trained
adapters: a trim over the whole adapter then keeps more of one module than of another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARD_BYTES = 2_000_000_000
INIT_STD = 0.02  # of the weights of a Llama


@dataclass(frozen=True)
class Llama:
    """Sizes of a Llama model."""

    layers: int
    hidden: int
    kv: int
    mlp: int
    vocab: int

    def shrunk(self, by: int) -> Llama:
        return Llama(
            *(max(2, size // by) for size in (self.layers, self.hidden, self.kv, self.mlp, self.vocab))
        )

    def linears(self) -> Iterator[tuple[str, int, int]]:
        """(name, O, I) of all linear modules of all layers."""
        kinds = {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (self.kv, self.hidden),
            "self_attn.v_proj": (self.kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.mlp, self.hidden),
            "mlp.up_proj": (self.mlp, self.hidden),
            "mlp.down_proj": (self.hidden, self.mlp),
        }
        for layer in range(self.layers):
            for kind, (rows, columns) in kinds.items():
                yield f"model.layers.{layer}.{kind}", rows, columns


MODELS = {
    "llama-3.1-8b": Llama(layers=32, hidden=4096, kv=1024, mlp=14336, vocab=128256),
    "llama-3.2-1b": Llama(layers=16, hidden=2048, kv=512, mlp=8192, vocab=128256),
}


def modules(shapes: str, shrink: int) -> list[tuple[str, int, int]]:
    """(name, O, I) of the linear modules of a model by name, or of one square module: "1024"."""
    if shapes in MODELS:
        return list(MODELS[shapes].shrunk(shrink).linears() if shrink > 1 else MODELS[shapes].linears())
    side = int(shapes) // shrink
    return [("layer", side, side)]


def make_adapter(
    folder: Path, shapes: list[tuple[str, int, int]], *, rank: int, seed: int, base: str
) -> None:
    """A PEFT adapter of random factors, alpha = 2 r; the delta's entries are some 1e-3 large."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, rows, columns in shapes:
        size = 0.5 * 4 ** torch.rand((), generator=generator)
        b = torch.randn(rows, rank, generator=generator) * (5e-4 * size / rank**0.5)
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns, generator=generator)
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if len(shapes) > 1 else None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name, _, _ in shapes}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def make_base(folder: Path, sizes: Llama) -> None:
    """A Llama of random float32 weights with tied embeddings: config.json and shards with their index."""
    import torch
    from safetensors.torch import save_file

    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocab, sizes.hidden)}
    for name, rows, columns in sizes.linears():
        shapes[f"{name}.weight"] = (rows, columns)
    for layer in range(sizes.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (sizes.hidden,)
    shapes["model.norm.weight"] = (sizes.hidden,)

    shards: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, shape in shapes.items():
        size_bytes = 4 * torch.Size(shape).numel()
        if size_bytes > room and shards[-1]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size_bytes

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name in names:
            matrix = len(shapes[name]) == 2
            tensors[name] = (
                torch.randn(shapes[name], generator=generator).mul_(INIT_STD)
                if matrix
                else torch.ones(shapes[name])
            )
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    total = sum(4 * torch.Size(shape).numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(sizes), indent=2), encoding="utf-8")


def _config(sizes: Llama) -> dict[str, object]:
    head_dim = 64 if sizes.hidden >= 2048 else sizes.hidden // 32
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.mlp,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.hidden // head_dim,
        "num_key_value_heads": sizes.kv // head_dim,
        "head_dim": head_dim,
        "vocab_size": sizes.vocab,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["adapters", "base"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", required=True, help="a model's name, or the side of one square module")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument(
        "--base", default="random-base", help="the base model's name in the adapters' configs"
    )
    arguments = parser.parse_args()
    if arguments.what == "base":
        sizes = MODELS[arguments.shapes]
        make_base(arguments.folder, sizes.shrunk(arguments.shrink) if arguments.shrink > 1 else sizes)
    else:
        shapes = modules(arguments.shapes, arguments.shrink)
        for i in range(arguments.count):
            make_adapter(arguments.folder / f"a{i}", shapes, rank=arguments.rank, seed=i, base=arguments.base)


if __name__ == "__main__":
    main()
