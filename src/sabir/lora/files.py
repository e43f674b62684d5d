"""PEFT adapter folders: opened lazily, read module by module, written as a stream.

Nothing here imports torch until values are read or written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError, StoreError
from sabir.lora.safetensors_io import (
    VALUE_BYTES,
    TensorPlace,
    read_bytes,
    read_header,
    read_tensor,
    write_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.lora.lowrank import LowRank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
FACTOR_A = ".lora_A.weight"
FACTOR_B = ".lora_B.weight"

# The ranks vLLM takes (`--max-lora-rank`); its default maximum is 16.
SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
DTYPES = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk: what its headers say; values are read when asked for.

    Args:
        path: the folder.
        config: adapter_config.json.
        tensors: every tensor of the weights file, by the name it has there.
        shapes: (O, I) of the delta of each module, by the module's name in the base model, sorted.
        ranks: rank of each module.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]
    shapes: Mapping[str, tuple[int, int]]
    ranks: Mapping[str, int]

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the adapted modules, sorted: 'model.layers.0.self_attn.q_proj'."""
        return tuple(self.shapes)

    @property
    def base_model(self) -> str | None:
        """Name or folder of the base model, as training wrote it down."""
        return self.config.get("base_model_name_or_path") or None

    @property
    def revision(self) -> str | None:
        return self.config.get("revision") or None

    def scale(self, module: str) -> float:
        """What B @ A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        rank = self.configured_rank(module)
        try:
            alpha = self._pattern("alpha_pattern", module, self.config.get("lora_alpha", 8))
            return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank
        except (re.error, TypeError, ZeroDivisionError, AttributeError) as error:
            raise self._unusable(module, error) from error

    def configured_rank(self, module: str) -> int:
        """The rank adapter_config.json gives a module; PEFT scales by this one."""
        try:
            return int(self._pattern("rank_pattern", module, self.config.get("r", 8)))
        except (re.error, TypeError, AttributeError) as error:
            raise self._unusable(module, error) from error

    def _unusable(self, module: str, error: Exception) -> InputError:
        return InputError(
            str(self.path / CONFIG),
            f"r, lora_alpha or their patterns cannot be used for module {module!r} ({error}).",
            "Save the adapter again.",
        )

    def _pattern(self, field: str, module: str, default: float) -> float:
        """First pattern that matches wins. Source: peft 0.21.2, utils/other.py, get_pattern_key."""
        for pattern, value in (self.config.get(field) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return default

    def read(self, module: str) -> LowRank:
        """One module's delta, float32, its scale folded in. Raises InputError for NaN or infinite values."""
        from sabir.lora.lowrank import LowRank

        weights = self.path / WEIGHTS
        b = read_tensor(weights, self.tensors[f"{PREFIX}{module}{FACTOR_B}"])
        a = read_tensor(weights, self.tensors[f"{PREFIX}{module}{FACTOR_A}"])
        for factor in (b, a):
            if not factor.isfinite().all():
                raise InputError(
                    str(weights),
                    f"module {module!r} holds NaN or infinite values.",
                    "Train this adapter again.",
                )
        return LowRank((b.double() * self.scale(module)).float(), a.float())

    @cached_property
    def digest(self) -> str:
        """'sha256:...' of the deltas' content: tensors, scales and whatever else changes the weights.

        Neither the path nor the base's name is in it, and adapter_config.json is not byte-stable.
        """
        content = hashlib.sha256(b"sabir adapter 1\n")
        scales = {module: float(self.scale(module)).hex() for module in self.modules}
        features = {
            name: self.config.get(name) for name in CHANGES_WEIGHTS if self.config.get(name) not in OFF
        }
        content.update(json.dumps([scales, features], sort_keys=True, default=str).encode())
        for name in sorted(self.tensors):
            place = self.tensors[name]
            content.update(json.dumps([name, place.dtype, list(place.shape)]).encode())
            content.update(read_bytes(self.path / WEIGHTS, place))
        return f"sha256:{content.hexdigest()}"


def open_adapter(folder: str | Path) -> Adapter:
    """The PEFT adapter in a folder; only its config and the header of its weights are read.

    Raises InputError when a file is missing, damaged or a pickle.
    """
    folder = Path(folder)
    config = _read_config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file() and (folder / PICKLE).exists():
        raise InputError(
            str(folder / PICKLE),
            "is a pickle, which can run code when opened, so it is not opened.",
            "Load it with PEFT where you trust it, and save it again: PEFT writes safetensors.",
        )
    if not weights.is_file():
        raise InputError(str(folder), f"has no {WEIGHTS}.", "Give the folder PEFT's save_pretrained wrote.")
    tensors = read_header(weights)
    shapes: dict[str, tuple[int, int]] = {}
    ranks: dict[str, int] = {}
    for name in sorted(tensors):
        module = name.removeprefix(PREFIX).removesuffix(FACTOR_A)
        if name != f"{PREFIX}{module}{FACTOR_A}" or f"{PREFIX}{module}{FACTOR_B}" not in tensors:
            continue
        a, b = tensors[name].shape, tensors[f"{PREFIX}{module}{FACTOR_B}"].shape
        if len(a) == len(b) == 2 and a[0] == b[1]:
            shapes[module], ranks[module] = (b[0], a[1]), a[0]
    order = sorted(shapes)
    return Adapter(folder, config, tensors, {m: shapes[m] for m in order}, {m: ranks[m] for m in order})


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise InputError(str(folder), "no such folder.", "Give the folder PEFT's save_pretrained wrote.")
    if not path.is_file():
        raise InputError(str(folder), f"has no {CONFIG}.", "Give the folder PEFT's save_pretrained wrote.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(str(path), f"is not JSON ({error}).", "Save the adapter again.") from error
    if not isinstance(config, dict):
        raise InputError(
            str(path), f"expected a mapping, got {type(config).__name__}.", "Save the adapter again."
        )
    return config


# Fields of adapter_config.json that make more of an adapter than B @ A times a scale, and what they do.
CHANGES_WEIGHTS: Mapping[str, str] = {
    "use_dora": "DoRA rescales every row of the base weights, so its deltas do not add up",
    "lora_bias": "a bias beside B would be lost",
    "modules_to_save": "whole layers trained beside LoRA would be lost",
    "trainable_token_indices": "trained token embeddings would be lost",
    "fan_in_fan_out": "its weights are stored transposed",
    "layer_replication": "its base model has layers copied",
    "target_parameters": "it adapts parameters that are no linear layer",
    "alora_invocation_tokens": "it acts only after certain tokens",
    "use_qalora": "it acts on pooled inputs",
    "use_bdlora": "its factors are block-diagonal",
    "arrow_config": "it routes between several adapters",
    "kasa_config": "it rescales singular values",
    "monteclora_config": "it adds sampled weights",
}
OFF: tuple[Any, ...] = (None, False, "none", [], {}, "")
# PEFT changes the base weights themselves for these, so the adapter is a delta to another base.
MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def check_supported(adapter: Adapter, where: str = "") -> None:
    """Raise InputError for whatever of this adapter a merge would lose or get wrong, each by its name."""
    where = where or str(adapter.path)
    config = adapter.config
    reasons: list[str] = []
    if config.get("peft_type") != "LORA":
        reasons.append(f"peft_type is {config.get('peft_type')!r}; only 'LORA' can be merged")
    reasons += [f"{name} ({why})" for name, why in CHANGES_WEIGHTS.items() if config.get(name) not in OFF]
    if config.get("bias") not in OFF:
        reasons.append(f"bias={config['bias']!r} (trained biases would be lost)")
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(MOVES_BASE):
        reasons.append(
            f"init_lora_weights={start!r} (it moves the base weights; PEFT can convert it on saving)"
        )
    reasons += _odd_tensors(adapter, {name.split(" ")[0] for name in reasons})
    if not reasons:
        reasons += _odd_ranks(adapter)
    if not reasons and not adapter.modules:
        reasons.append("it holds no LoRA factors")
    if reasons:
        raise InputError(
            where,
            f"this adapter cannot be merged yet: {'; '.join(reasons)}.",
            "Train it as plain LoRA on linear layers.",
        )


def _odd_tensors(adapter: Adapter, named: set[str]) -> list[str]:
    """What stands in the weights file beside the factors of linear layers, one example of each sort."""
    found: dict[str, str] = {}
    for name, place in adapter.tensors.items():
        module = name.removeprefix(PREFIX).removesuffix(FACTOR_A).removesuffix(FACTOR_B)
        if module in adapter.shapes:
            if place.dtype not in VALUE_BYTES:
                found.setdefault("dtype", f"tensor {name!r} is stored as {place.dtype}")
        elif "lora_embedding_" in name:
            found.setdefault("lora_embedding", f"tensor {name!r} (LoRA on an embedding)")
        elif "lora_magnitude_vector" in name:
            if "use_dora" not in named:
                found.setdefault("dora", f"tensor {name!r} (DoRA)")
        elif name.endswith((FACTOR_A, FACTOR_B)):
            shape = place.shape
            found.setdefault("factor", f"tensor {name!r} of shape {shape} has no partner that fits it")
        elif not named & {"lora_bias", "modules_to_save", "trainable_token_indices"}:
            found.setdefault("other", f"tensor {name!r} is no LoRA factor")
    return list(found.values())


def _odd_ranks(adapter: Adapter) -> list[str]:
    for module in adapter.modules:
        said = adapter.configured_rank(module)
        adapter.scale(module)  # raises when it cannot be known
        if said != adapter.ranks[module]:
            return [f"module {module!r} has rank {adapter.ranks[module]}, but {CONFIG} says {said}"]
    return []


def check_mergeable(adapters: Mapping[str, Adapter]) -> None:
    """Raise InputError unless all adapters stand on one base and adapt the same modules in the same shapes.

    Args:
        adapters: by the name the user knows them by.
    """
    if not adapters:
        raise InputError("", "there are no adapters to merge.", "Name at least one.")
    names = list(adapters)
    first = adapters[names[0]]
    for name in names[1:]:
        other, where = adapters[name], f"adapters {names[0]!r} and {name!r}"
        difference = _base_difference(first, other)
        if difference:
            raise InputError(where, difference, "Train both on the same base model.")
        only = sorted(set(first.shapes) ^ set(other.shapes))
        if only:
            owner = names[0] if only[0] in first.shapes else name
            more = f" (and {len(only) - 1} more)" if len(only) > 1 else ""
            raise InputError(
                where,
                f"module {only[0]!r}{more} is only in {owner!r}.",
                "Train both with the same target modules.",
            )
        for module, shape in first.shapes.items():
            if other.shapes[module] != shape:
                raise InputError(
                    where,
                    f"module {module!r} is {shape} in one and {other.shapes[module]} in the other.",
                    "Train both on the same base model.",
                )


def _base_difference(x: Adapter, y: Adapter) -> str:
    """What differs between two adapters' bases, or "" when nothing does or it cannot be told."""
    (base_x, revision_x), (base_y, revision_y) = _base(x), _base(y)
    if base_x is None or base_y is None:
        return ""
    folders = Path(base_x).is_dir(), Path(base_y).is_dir()
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


def base_linear_shapes(folder: str | Path) -> dict[str, tuple[int, int]]:
    """(O, I) of every matrix in a base model's safetensors headers, by module name.

    Embeddings are among them; parameters that are no matrix (norms, biases) are not.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(
            {folder / shard for shard in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        )
    elif (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    if not files:
        raise InputError(
            str(folder), "has no safetensors weights.", "Give a base model saved as safetensors."
        )
    return {
        name.removesuffix(".weight"): (place.shape[0], place.shape[1])
        for path in files
        for name, place in read_header(path).items()
        if name.endswith(".weight") and len(place.shape) == 2
    }


def check_fits(adapter: Adapter, base_shapes: Mapping[str, tuple[int, int]], where: str = "") -> None:
    """Raise InputError unless every module of the adapter is in the base, in the same shape.

    Args:
        base_shapes: of `base_linear_shapes`.
    """
    where = where or str(adapter.path)
    for module, shape in adapter.shapes.items():
        if module not in base_shapes:
            raise InputError(
                where, f"module {module!r} is not in the base model.", "Give an adapter of this base model."
            )
        if tuple(base_shapes[module]) != shape:
            raise InputError(
                where,
                f"module {module!r} is {shape} here and {tuple(base_shapes[module])} in the base model.",
                "Give an adapter of this base model.",
            )


def served_rank(rank: int) -> int:
    """The smallest rank servers take that holds this one; the rank itself above the largest."""
    return next((served for served in SERVED_RANKS if served >= rank), rank)


def target_names(
    modules: Iterable[str], *, base_modules: Iterable[str] | None = None, adapters: Iterable[Adapter] = ()
) -> list[str]:
    """The shortest sorted `target_modules` that PEFT matches with exactly these modules.

    A last name ('q_proj') stands for all modules of that name, so it is used only where all of them are
    meant: seen in the base model's modules, or known because an adapter's own config named it so.
    """
    wanted = set(modules)
    leaves = {module.rpartition(".")[2] for module in wanted}
    if base_modules is not None:
        partly = {m.rpartition(".")[2] for m in base_modules if m not in wanted}
        short = leaves - partly
    else:
        short = leaves & {
            name for adapter in adapters for name in _own_leaves(adapter) if wanted <= set(adapter.shapes)
        }
    return sorted({leaf if (leaf := module.rpartition(".")[2]) in short else module for module in wanted})


def _own_leaves(adapter: Adapter) -> set[str]:
    """Last names an adapter's config uses for all modules of the base that end so."""
    limits = ("exclude_modules", "layers_to_transform", "layers_pattern")
    targets = adapter.config.get("target_modules")
    if not isinstance(targets, list) or any(adapter.config.get(limit) not in OFF for limit in limits):
        return set()
    return {name for name in targets if "." not in name}


def write_adapter(
    folder: str | Path,
    lowranks: Iterable[tuple[str, LowRank]],
    *,
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    base_model: str | None,
    revision: str | None = None,
    targets: Sequence[str] | None = None,
    pad_to_served: bool = True,
    dtype: str = "float32",
    task_type: str = "CAUSAL_LM",
    metadata: Mapping[str, str] | None = None,
) -> Adapter:
    """Write the adapter every server reads alike: one rank, alpha = rank, the scale folded into B.

    Modules are written as they arrive, in any order; the bytes depend on the values alone. The folder has
    an adapter_config.json only when all is on the disk; after an error nothing is left that this wrote.

    Args:
        lowranks: (module, delta) pairs, each module of `shapes` once, of rank at most `rank`.
        targets: of `target_names`; the full module names when not given.
        pad_to_served: fill up with zeros to the next of `SERVED_RANKS`.
        dtype: float32 or bfloat16; values are cast once, at the end.
        metadata: strings for the header of the weights file.
    """
    folder = Path(folder)
    if any((folder / name).exists() for name in (CONFIG, WEIGHTS)):
        raise InputError(str(folder), "holds an adapter already.", "Give another folder, or remove this one.")
    if dtype not in DTYPES:
        raise InputError(str(folder), f"no such dtype: {dtype!r}.", f"Known are: {', '.join(DTYPES)}.")
    rank = max(rank, 1)
    rank = served_rank(rank) if pad_to_served else rank
    sizes: dict[str, tuple[int, ...]] = {}
    for module, (rows, columns) in shapes.items():
        sizes[f"{PREFIX}{module}{FACTOR_A}"] = (rank, columns)
        sizes[f"{PREFIX}{module}{FACTOR_B}"] = (rows, rank)
    config = _canonical_config(rank, base_model, revision, targets or target_names(shapes), task_type)
    made, partial = not folder.exists(), folder / f".{WEIGHTS}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"format": "pt", **(metadata or {})}
        write_tensors(partial, _factors(lowranks, rank), shapes=sizes, dtype=DTYPES[dtype], metadata=facts)
        partial.rename(folder / WEIGHTS)
        partial = folder / f".{CONFIG}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(config, indent=2, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / CONFIG)
        _sync_folder(folder)
    except BaseException as error:
        for path in (partial, folder / WEIGHTS, folder / CONFIG):
            path.unlink(missing_ok=True)
        if made and folder.is_dir():
            folder.rmdir()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StoreError(
                str(folder), f"the adapter could not be written: {reason}.", "Nothing half-written was left."
            ) from error
        raise
    return open_adapter(folder)


def _factors(lowranks: Iterable[tuple[str, LowRank]], rank: int) -> Iterable[tuple[str, Tensor]]:
    from sabir.lora.lowrank import pad

    for module, lowrank in lowranks:
        padded = pad(lowrank, rank)
        yield f"{PREFIX}{module}{FACTOR_A}", padded.a
        yield f"{PREFIX}{module}{FACTOR_B}", padded.b


def _canonical_config(
    rank: int, base_model: str | None, revision: str | None, targets: Sequence[str], task_type: str
) -> dict[str, Any]:
    """Every field that vLLM, llama.cpp and PEFT could read differently, at its plainest."""
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(targets),
    }


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
