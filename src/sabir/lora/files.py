"""PEFT adapter folders: opened lazily, read module by module. `checks` says what may be merged.

Nothing here imports torch until values are read. An `Adapter` may be used by several threads at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError
from sabir.lora.safetensors_io import (
    VALUE_BYTES,
    TensorPlace,
    is_finite,
    read_blocks,
    read_header,
    read_tensor,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sabir.lora.lowrank import LowRank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
# The names PEFT 0.21.2 saves: a linear layer's factors are modules, an embedding's are parameters.
FACTOR_A, FACTOR_B = ".lora_A.weight", ".lora_B.weight"
EMBEDDING_A, EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
# Frozen base weights that PEFT saves with an embedding that is adapted, or whole beside LoRA: no change at all.
BASE_COPY = ".base_layer.weight"
SAVED_COPIES = (".original_module.weight", ".modules_to_save.weight")
LORA_MARKS = (".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector")

# Fields of adapter_config.json that make more of an adapter than B @ A times a scale; part of the digest.
FEATURES = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)
OFF: tuple[Any, ...] = (None, False, "none", [], {}, "")
TEXTS = ("base_model_name_or_path", "revision", "task_type")
BLOCK = 1 << 20  # values scaled at a time in float64


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk: what its headers say; values are read when asked for.

    Args:
        path: the folder.
        config: adapter_config.json.
        tensors: every tensor of the weights file, by the name it has there.
        shapes: (O, I) of the delta of each module, by the module's name in the base model, sorted. An embedding
            counts as (dimensions, vocabulary): its base weight is the transpose of that.
        ranks: rank of each module.
        embeddings: the modules that are LoRA on an embedding.
        saved: tensors trained whole beside LoRA (modules_to_save), by the name they have in the base model.
            Their values stand in the base's place; they are no deltas.
        copies: names in `tensors` of base weights that PEFT saved along, unchanged.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]
    shapes: Mapping[str, tuple[int, int]]
    ranks: Mapping[str, int]
    embeddings: frozenset[str] = frozenset()
    saved: Mapping[str, TensorPlace] = field(default_factory=dict)
    copies: frozenset[str] = frozenset()

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

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the base stores its weights as (I, O), as GPT-2's Conv1D does. The factors are the same."""
        return bool(self.config.get("fan_in_fan_out"))

    def scale(self, module: str) -> float:
        """What B @ A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        rank = self.configured_rank(module)
        alpha = self._pattern("alpha_pattern", module, self.config.get("lora_alpha", 8))
        if not _is_number(alpha):
            raise self._unusable(f"lora_alpha is {alpha!r} for module {module!r}, which is no finite number")
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def configured_rank(self, module: str) -> int:
        """The rank adapter_config.json gives a module; PEFT scales by this one."""
        rank = self._pattern("rank_pattern", module, self.config.get("r", 8))
        if not (_is_number(rank) and rank > 0 and rank == int(rank)):
            raise self._unusable(f"r is {rank!r} for module {module!r}, which is no whole number above 0")
        return int(rank)

    def _unusable(self, what: str) -> InputError:
        return InputError(str(self.path / CONFIG), f"{what}.", "Save the adapter again.")

    def _pattern(self, field: str, module: str, default: Any) -> Any:
        """First pattern that matches wins. Source: peft 0.21.2, utils/other.py, get_pattern_key."""
        try:
            for pattern, value in (self.config.get(field) or {}).items():
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
        except (re.error, AttributeError, OverflowError, RecursionError) as error:
            raise self._unusable(f"{field} cannot be used for module {module!r} ({error})") from error
        return default

    def read(self, module: str) -> LowRank:
        """One module's delta, float32, its scale folded in. Raises InputError for NaN or infinite values."""
        from sabir.lora.lowrank import LowRank

        name_a, name_b = factor_names(module, embedding=module in self.embeddings)
        weights = self.path / WEIGHTS
        b = _scaled(read_tensor(weights, self.tensors[name_b]), self.scale(module))
        a = read_tensor(weights, self.tensors[name_a]).float()
        if not (is_finite(b) and is_finite(a)):
            raise self._not_finite(f"module {module!r}")
        return LowRank(b, a)

    def read_saved(self, name: str) -> Tensor:
        """One tensor of `saved`, in the type it was stored in. Raises InputError for NaN or infinite values."""
        values = read_tensor(self.path / WEIGHTS, self.saved[name])
        if not is_finite(values):
            raise self._not_finite(f"tensor {name!r}")
        return values

    def _not_finite(self, what: str) -> InputError:
        return InputError(
            str(self.path / WEIGHTS), f"{what} holds NaN or infinite values.", "Train this adapter again."
        )

    @property
    def digest(self) -> str:
        """'sha256:...' of the deltas' content: tensors, scales and whatever else changes the weights.

        Neither the path nor the base's name is in it, and adapter_config.json is not byte-stable. Read once;
        digests of several adapters may be asked for in as many threads.
        """
        # No functools.cached_property: in Python 3.11 all instances share its lock.
        kept: str | None = self.__dict__.get("digest")
        if kept is None:
            kept = self.__dict__["digest"] = self._digest()
        return kept

    def _digest(self) -> str:
        content = hashlib.sha256(b"sabir adapter 1\n")
        scales = {module: float(self.scale(module)).hex() for module in self.modules}
        features = {name: self.config.get(name) for name in FEATURES if self.config.get(name) not in OFF}
        content.update(json.dumps([scales, features], sort_keys=True, default=str).encode())
        for name in sorted(set(self.tensors) - self.copies):
            place = self.tensors[name]
            content.update(json.dumps([name, place.dtype, list(place.shape)]).encode())
            for block in read_blocks(self.path / WEIGHTS, place):
                content.update(block)
        return f"sha256:{content.hexdigest()}"


def _is_number(value: object) -> bool:
    """Whether a value of a config is a number that a float can hold: no NaN, no infinity, no True."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def factor_names(module: str, *, embedding: bool) -> tuple[str, str]:
    """The names of a module's A and B in a weights file."""
    a, b = (EMBEDDING_A, EMBEDDING_B) if embedding else (FACTOR_A, FACTOR_B)
    return f"{PREFIX}{module}{a}", f"{PREFIX}{module}{b}"


def _scaled(b: Tensor, scale: float) -> Tensor:
    """b times scale in float64, rounded once to float32: (O, r)."""
    import torch

    exact = float(torch.tensor(scale, dtype=torch.float32)) == scale
    if exact and b.dtype != torch.float64:  # then a product in float32 is the rounded product in float64
        return b.float() if scale == 1 else b.float().mul_(scale)
    result = torch.empty(b.shape, dtype=torch.float32)
    for source, target in zip(b.reshape(-1).split(BLOCK), result.reshape(-1).split(BLOCK), strict=True):
        target.copy_(source.double() * scale)
    return result


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
    embeddings = set()
    for name in tensors:
        embedding = name.endswith(EMBEDDING_A)
        module = name.removeprefix(PREFIX).removesuffix(EMBEDDING_A if embedding else FACTOR_A)
        name_a, name_b = factor_names(module, embedding=embedding)
        if name != name_a or name_b not in tensors:
            continue
        a, b = tensors[name_a].shape, tensors[name_b].shape
        if len(a) == len(b) == 2 and a[0] == b[1]:
            shapes[module], ranks[module] = (b[0], a[1]), a[0]
            if embedding:
                embeddings.add(module)
    saved = _saved(tensors, config)
    order = sorted(shapes)
    return Adapter(
        folder,
        config,
        tensors,
        {module: shapes[module] for module in order},
        {module: ranks[module] for module in order},
        frozenset(embeddings),
        saved,
        _copies(tensors, shapes, saved),
    )


def _saved(tensors: Mapping[str, TensorPlace], config: Mapping[str, Any]) -> dict[str, TensorPlace]:
    """The tensors of modules_to_save. Source: peft 0.21.2 takes a module whose name ends with an entry."""
    entries = config.get("modules_to_save")
    if not isinstance(entries, list):
        return {}
    saved = {}
    for stored in sorted(tensors):
        name = stored.removeprefix(PREFIX)
        parts = name.split(".")
        owners = [".".join(parts[:end]) for end in range(1, len(parts))]
        copy = name.endswith((BASE_COPY, *SAVED_COPIES))
        factor = any(mark in stored for mark in LORA_MARKS)
        if stored == name or copy or factor or tensors[stored].dtype not in VALUE_BYTES:
            continue
        if any(owner.endswith(str(entry)) for owner in owners for entry in entries):
            saved[name] = tensors[stored]
    return saved


def _copies(
    tensors: Mapping[str, TensorPlace], modules: Mapping[str, Any], saved: Mapping[str, TensorPlace]
) -> frozenset[str]:
    copies = {f"{PREFIX}{module}{BASE_COPY}" for module in modules}
    copies |= {f"{PREFIX}{name.removesuffix('.weight')}{suffix}" for name in saved for suffix in SAVED_COPIES}
    return frozenset(copies & tensors.keys())


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise InputError(str(folder), "no such folder.", "Give the folder PEFT's save_pretrained wrote.")
    if not path.is_file():
        raise InputError(str(folder), f"has no {CONFIG}.", "Give the folder PEFT's save_pretrained wrote.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            str(path), f"cannot be read: {error.strerror}.", "Save the adapter again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"is not JSON ({error}).", "Save the adapter again.") from error
    if not isinstance(config, dict):
        raise InputError(
            str(path), f"expected a mapping, got {type(config).__name__}.", "Save the adapter again."
        )
    for name in TEXTS:
        if not isinstance(config.get(name), str | None):
            raise InputError(
                str(path), f"{name} must be text, and is {config[name]!r}.", "Save the adapter again."
            )
    return config
