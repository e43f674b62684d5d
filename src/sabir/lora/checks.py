"""What may be merged: one adapter by itself, several together, and against the base model. Headers alone are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Container, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from sabir.errors import InputError
from sabir.lora.files import (
    BASE_COPY,
    CONFIG,
    FACTOR_A,
    FACTOR_B,
    FEATURES,
    OFF,
    PREFIX,
    WEIGHTS,
    Adapter,
    factor_names,
)
from sabir.lora.safetensors_io import VALUE_BYTES, read_blocks, read_header
from sabir.lora.tokenizer import TOKENIZER, vocabulary_difference

# Why what a field of adapter_config.json switches on cannot be merged.
REASONS: Mapping[str, str] = {
    "alora_invocation_tokens": "it acts only after certain tokens, so it is no change of the weights",
    "arrow_config": "it routes between several adapters by the input, so it is no change of the weights",
    "kasa_config": "KaSA cuts singular values off the base weights, so its deltas belong to another base",
    "layer_replication": "its base model has layers copied, so its modules are not those of the base",
    "lora_bias": "its biases beside B shift the outputs, and a merged delta has no place for them",
    "monteclora_config": "it adds weights drawn at random, so it is not one delta",
    "target_parameters": "it adapts parameters that are no linear layer",
    "trainable_token_indices": "its trained token rows replace the base's, so they are no deltas",
    "use_bdlora": "the blocks of its factors hold for one layout of servers",
    "use_dora": "DoRA rescales every row of the base weights, so its delta has full rank and is known only with "
    "the base",
    "use_qalora": "it acts on pooled inputs of a quantized base",
}
# PEFT changes the base weights themselves for these. Source: peft 0.21.2, tuners/lora/layer.py.
MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head"
VOCABULARY = ("embed_tokens", HEAD, "wte", "word_embeddings", "embed_in", "embed_out", "shared")
SAME_BASE = "Train both on the same base model."


def check_supported(adapter: Adapter, where: str = "") -> None:
    """Raise InputError for whatever of this adapter a merge would lose or get wrong, each by its name."""
    where = where or str(adapter.path)
    config = adapter.config
    reasons: list[str] = []
    if config.get("peft_type") != "LORA":
        reasons.append(f"peft_type is {config.get('peft_type')!r}; only 'LORA' can be merged")
    reasons += [
        f"{name} ({REASONS[name]})"
        for name in FEATURES
        if name != "fan_in_fan_out" and config.get(name) not in OFF
    ]
    if config.get("bias") not in OFF:
        reasons.append(
            f"bias={config['bias']!r} (its trained biases replace the base's, and an adapter for servers holds none)"
        )
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(MOVES_BASE):
        reasons.append(
            f"init_lora_weights={start!r} (it moves the base weights, so its deltas belong to another base; PEFT's "
            "save_pretrained turns it into plain LoRA, see path_initial_model_for_weight_conversion)"
        )
    whole = config.get("modules_to_save")
    if whole not in OFF and not adapter.saved:
        reasons.append(f"modules_to_save={whole!r} (the weights file holds none of them)")
    reasons += _odd_tensors(adapter, {name.split(" ")[0].split("=")[0] for name in reasons})
    if not reasons:
        reasons += _odd_ranks(adapter)
    if not reasons and not adapter.modules:
        reasons.append("it holds no LoRA factors")
    if reasons:
        raise InputError(
            where, f"this adapter cannot be merged: {'; '.join(reasons)}.", "Train it as plain LoRA."
        )


def _odd_tensors(adapter: Adapter, named: set[str]) -> list[str]:
    """What stands in the weights file beside factors and saved modules, one example of each sort."""
    factors = {
        name
        for module in adapter.modules
        for name in factor_names(module, embedding=module in adapter.embeddings)
    }
    found: dict[str, str] = {}
    for name, place in adapter.tensors.items():
        if name in factors:
            if place.dtype not in VALUE_BYTES:
                found.setdefault("dtype", f"tensor {name!r} is stored as {place.dtype}")
        elif name in adapter.copies or name.removeprefix(PREFIX) in adapter.saved:
            continue
        elif "lora_magnitude_vector" in name:
            if "use_dora" not in named:
                found.setdefault("dora", f"tensor {name!r} (DoRA: {REASONS['use_dora']})")
        elif name.endswith((FACTOR_A, FACTOR_B)) or ".lora_embedding_" in name:
            found.setdefault("factor", _odd_factor(name, place.shape))
        elif not adapter.saved and _is_vocabulary(name):
            reason = "embeddings saved whole, because the vocabulary was changed"
            found.setdefault("resized", f"tensor {name!r} ({reason})")
        elif not named & {"lora_bias", "bias", "trainable_token_indices"}:
            found.setdefault("other", f"tensor {name!r} is no LoRA factor and not of modules_to_save")
    return list(found.values())


def _odd_factor(name: str, shape: tuple[int, ...]) -> str:
    if len(shape) > 2:
        return f"tensor {name!r} of shape {shape} (LoRA on a convolution)"
    return f"tensor {name!r} of shape {shape} has no partner that fits it"


def _is_vocabulary(name: str) -> bool:
    """Whether a module's or a tensor's name is that of an embedding or of the output head."""
    return not set(name.split(".")).isdisjoint(VOCABULARY)


def _odd_ranks(adapter: Adapter) -> list[str]:
    for module in adapter.modules:
        said = adapter.configured_rank(module)
        adapter.scale(module)  # raises when it cannot be known
        if said != adapter.ranks[module]:
            return [f"module {module!r} has rank {adapter.ranks[module]}, but {CONFIG} says {said}"]
    return []


def check_mergeable(adapters: Mapping[str, Adapter]) -> None:
    """Raise InputError unless all adapters stand on one base and one vocabulary, and agree where they meet.

    They may adapt different modules. What they train whole (modules_to_save) must be the same in all.

    Args:
        adapters: by the name the user knows them by; each one as `check_supported` wants it.
    """
    if not adapters:
        raise InputError("", "there are no adapters to merge.", "Name at least one.")
    for one, other in combinations(adapters, 2):
        _check_pair(one, adapters[one], other, adapters[other])
    first, *others = [name for name, adapter in adapters.items() if (adapter.path / TOKENIZER).is_file()] or [
        ""
    ]
    for name in others:
        difference = vocabulary_difference(adapters[first].path, adapters[name].path)
        if difference:
            raise InputError(f"adapters {first!r} and {name!r}", difference, SAME_BASE)
    owners: dict[str, str] = {}  # of each module and each copy of base weights: the first that has it
    for name, adapter in adapters.items():
        for module, shape in adapter.shapes.items():
            owner = owners.setdefault(module, name)
            _check_module(module, owner, adapters[owner], name, shape, module in adapter.embeddings)
        for copy in sorted(adapter.copies):
            if copy.endswith(BASE_COPY):
                owner = owners.setdefault(copy, name)
                if owner != name and not _same_bytes(adapters[owner], adapter, copy):
                    raise InputError(
                        f"adapters {owner!r} and {name!r}",
                        f"the base weights they carry along differ: {copy.removeprefix(PREFIX)!r}.",
                        SAME_BASE,
                    )


def _check_pair(first: str, x: Adapter, second: str, y: Adapter) -> None:
    """What two adapters must share whatever they adapt."""
    where = f"adapters {first!r} and {second!r}"
    difference = _base_difference(x, y)
    if difference:
        raise InputError(where, difference, SAME_BASE)
    if x.fan_in_fan_out != y.fan_in_fan_out:
        raise InputError(
            where,
            f"fan_in_fan_out is {x.fan_in_fan_out} in one and {y.fan_in_fan_out} in the other, "
            "so their base models store their weights differently.",
            SAME_BASE,
        )
    only = sorted(x.saved.keys() ^ y.saved.keys())
    if only:
        owner = first if only[0] in x.saved else second
        raise InputError(
            where,
            f"{only[0]!r} of modules_to_save is only in {owner!r}; it is no delta but the values themselves, "
            "so there is nothing to average it with.",
            "Train both with the same modules_to_save.",
        )
    for name, place in x.saved.items():
        if place.shape != y.saved[name].shape:
            said = "their vocabularies are of different size: " if _is_vocabulary(name) else ""
            raise InputError(
                where,
                f"{said}{name!r} of modules_to_save is {place.shape} in one and {y.saved[name].shape} in the other.",
                SAME_BASE if said else "Train both with the same heads (the same labels).",
            )


def _check_module(
    module: str, owner: str, x: Adapter, name: str, shape: tuple[int, int], embedding: bool
) -> None:
    where = f"adapters {owner!r} and {name!r}"
    if embedding != (module in x.embeddings):
        raise InputError(
            where, f"module {module!r} is an embedding in one and a linear layer in the other.", SAME_BASE
        )
    if shape == x.shapes[module]:
        return
    mine, side = x.shapes[module], 1 if embedding else 0  # an embedding's delta is (dimensions, vocabulary)
    if _is_vocabulary(module) and mine[1 - side] == shape[1 - side]:
        raise InputError(
            where,
            f"their vocabularies are of different size: module {module!r} has {mine[side]} tokens in one and "
            f"{shape[side]} in the other.",
            SAME_BASE,
        )
    raise InputError(where, f"module {module!r} is {mine} in one and {shape} in the other.", SAME_BASE)


def _same_bytes(x: Adapter, y: Adapter, name: str) -> bool:
    one, two = x.tensors[name], y.tensors[name]
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    blocks = zip(read_blocks(x.path / WEIGHTS, one), read_blocks(y.path / WEIGHTS, two), strict=True)
    return all(a == b for a, b in blocks)


def twins(adapters: Mapping[str, Adapter]) -> list[tuple[str, str]]:
    """Pairs of names whose adapters are the same by content: it would count twice in a merge."""
    return [(x, y) for x, y in combinations(adapters, 2) if adapters[x].digest == adapters[y].digest]


def _base_difference(x: Adapter, y: Adapter) -> str:
    """What differs between two adapters' bases, or "" when nothing does or it cannot be told."""
    (base_x, revision_x), (base_y, revision_y) = _base(x), _base(y)
    if base_x is None or base_y is None:
        return ""
    folders = os.path.isdir(base_x), os.path.isdir(base_y)
    if all(folders):
        same = os.path.realpath(base_x) == os.path.realpath(base_y) or _weights_of(base_x) == _weights_of(
            base_y
        )
        return "" if same else f"base model is {base_x!r} in one and {base_y!r} in the other."
    if any(folders) or os.path.isabs(base_x) or os.path.isabs(base_y):
        return ""  # a folder against a hub name, or a folder of another machine: shapes must do
    if base_x != base_y:
        return f"base model is {base_x!r} in one and {base_y!r} in the other."
    commits = [r for r in (revision_x, revision_y) if r and re.fullmatch(r"[0-9a-f]{40}", r)]
    if len(commits) == 2 and commits[0] != commits[1]:
        return f"base model {base_x!r} is at revision {commits[0]!r} in one and {commits[1]!r} in the other."
    return ""


def _base(adapter: Adapter) -> tuple[str | None, str | None]:
    """Name and revision; a folder of the hub's cache gives the name and commit it stands for."""
    cached = re.search(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})/?$", adapter.base_model or "")
    if cached:
        return f"{cached[1]}/{cached[2]}", cached[3]
    return adapter.base_model, adapter.revision


def _weights_of(folder: str) -> list[tuple[str, int, bytes]]:
    """Enough of a base folder to tell two apart: sizes and first kilobytes of its config and weights."""
    files = sorted(p for p in Path(folder).iterdir() if p.suffix == ".safetensors" or p.name == "config.json")
    facts = []
    for path in files:
        with path.open("rb") as file:
            head = file.read(1 << 16)
            file.seek(max(0, path.stat().st_size - (1 << 16)))
            facts.append((path.name, path.stat().st_size, hashlib.sha256(head + file.read()).digest()))
    return facts


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files of a base model, sorted. Raises InputError where there are none."""
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        files = sorted({folder / shard for shard in read_index(index)["weight_map"].values()})
    elif (folder / MODEL).is_file():
        files = [folder / MODEL]
    if not files:
        pickled = any(folder.glob("pytorch_model*.bin"))
        raise InputError(
            str(folder),
            "is saved as a pickle, which can run code when opened, so it is not opened."
            if pickled
            else "has no safetensors weights.",
            "Give a base model saved as safetensors.",
        )
    return files


def read_index(path: Path) -> dict[str, Any]:
    """The index of a model in shards. Raises InputError for one that does not say where its tensors are."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        shards = index["weight_map"].values()
        if not all(isinstance(shard, str) for shard in shards):
            raise ValueError("weight_map does not name files")
        if not isinstance(index.get("metadata") or {}, dict):
            raise ValueError("metadata is no mapping")
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}.", "Copy it again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            str(path), f"is no index of a model's weights ({error}).", "Copy or save the model again."
        ) from error
    return dict(index)


def base_linear_shapes(folder: str | Path) -> dict[str, tuple[int, int]]:
    """The shape, as stored, of every matrix in a base model's safetensors headers, by module name.

    That is (O, I) but for Conv1D, (I, O). Embeddings are among them, (vocabulary, dimensions); parameters that
    are no matrix (norms, biases) are not.
    """
    return {
        name.removesuffix(".weight"): (place.shape[0], place.shape[1])
        for path in weight_files(folder)
        for name, place in read_header(path).items()
        if name.endswith(".weight") and len(place.shape) == 2
    }


def base_name(module: str, names: Container[str]) -> str | None:
    """The name a module has among those of a base model's files, or None.

    A checkpoint of the model without its head, as GPT-2's on the hub, lacks the first part of every name.
    """
    return next((name for name in (module, module.partition(".")[2]) if name in names), None)


def is_transposed(
    shape: tuple[int, int], stored: tuple[int, ...], *, embedding: bool, fan_in_fan_out: bool
) -> bool | None:
    """Whether the base stores a weight as the transpose of its delta; None when it fits neither way.

    Args:
        shape: (O, I) of the delta.
        stored: shape of the base weight in its file.
    """
    turned = stored == shape[::-1]
    if turned and (embedding or fan_in_fan_out):
        return True
    return False if stored == shape and not embedding else None


def check_fits(adapter: Adapter, base_shapes: Mapping[str, tuple[int, int]], where: str = "") -> None:
    """Raise InputError unless every module of the adapter is in the base, in the same shape.

    Args:
        base_shapes: of `base_linear_shapes`.
    """
    where, fix = where or str(adapter.path), "Give an adapter of this base model."
    for module, shape in adapter.shapes.items():
        name = base_name(module, base_shapes)
        if name is None and module.endswith(HEAD):  # tied: the head's matrix is the embedding's
            name = next((other for other in base_shapes if _is_vocabulary(other)), None)
        if name is None:
            raise InputError(where, f"module {module!r} is not in the base model.", fix)
        stored, embedding = tuple(base_shapes[name]), module in adapter.embeddings
        fits = is_transposed(shape, stored, embedding=embedding, fan_in_fan_out=adapter.fan_in_fan_out)
        if fits is None:
            turned = embedding or adapter.fan_in_fan_out
            raise InputError(
                where, _misfit(f"module {module!r}", shape[::-1] if turned else shape, stored), fix
            )
    for tensor, place in adapter.saved.items():
        name = base_name(tensor.removesuffix(".weight"), base_shapes)
        if tensor.endswith(".weight") and name is not None and place.shape != tuple(base_shapes[name]):
            raise InputError(
                where, _misfit(f"{tensor!r} of modules_to_save", place.shape, base_shapes[name]), fix
            )


def _misfit(what: str, shape: tuple[int, ...], stored: tuple[int, ...]) -> str:
    vocabularies = "the vocabularies are of different size: " if _is_vocabulary(what.split("'")[1]) else ""
    return f"{vocabularies}{what} is {shape} here and {tuple(stored)} in the base model."
