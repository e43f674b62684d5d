"""The base model: from the name in the config to a folder, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent.parent / "embedded" / "tiny-base"
WEIGHTS = ".safetensors"
TEXTS = (".json", ".model", ".spm", ".txt", ".jinja")  # config, tokenizer, chat template
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.txt",
)
PROSE = ("README", "LICENSE", "NOTICE")  # says nothing of what the model does, even as .txt


def is_hub_name(name: str, folder: Path) -> bool:
    """True for "org/name" (or "org/name@revision") that is no folder beside the config."""
    return name != EMBEDDED and name.count("/") == 1 and name[0] not in "./~" and not (folder / name).is_dir()


def local_folder(name: str, folder: Path) -> Path:
    """The folder of a base that is not on the hub. Raises InputError when it is not a usable model."""
    path = EMBEDDED_FOLDER if name == EMBEDDED else (folder / Path(name).expanduser()).resolve()
    if not path.is_dir():
        hint = did_you_mean(name, [EMBEDDED])
        raise InputError(
            "base",
            f"{name!r} is neither a folder nor a hub name.",
            f"Expected a folder, org/name or embedded.{hint}",
        )
    check_usable(path, name)
    return path


def hub_folder(name: str, revision: str | None) -> tuple[Path, str]:
    """The local snapshot of a hub model and its commit; fetched when it is not in the cache yet.

    Raises InputError when the model cannot be had (no such name, no network).
    """
    from huggingface_hub import constants, snapshot_download

    repository, _, written = name.partition("@")
    wanted = revision or written or None
    patterns = [f"*{ending}" for ending in (WEIGHTS, *TEXTS)]
    error: Exception | None = None
    # what is pinned need not be asked for; unpinned, today's commit comes before an old copy
    tries = [True] if constants.HF_HUB_OFFLINE else [True, False] if wanted else [False]
    for local_only in tries:
        try:
            path = Path(
                snapshot_download(
                    repository,
                    revision=wanted,
                    local_files_only=local_only,
                    allow_patterns=patterns,
                    ignore_patterns=["*/*", "consolidated*"],  # other formats of the same weights
                )
            )
            check_usable(path, name)
        except InputError as failure:
            if local_only is tries[-1]:
                raise
            error = failure  # an interrupted download: fetch the rest
        except Exception as failure:  # the hub library raises a dozen kinds; all mean: not to be had
            error = failure
        else:
            return path, path.name
    pinned = f" at {wanted}" if wanted else ""
    raise InputError(
        "base",
        f"{name!r}{pinned} is not in the local cache and could not be fetched ({type(error).__name__}).",
        "Check the name, the network and your access, or give a folder.",
    ) from error


def hub_commit(name: str) -> str:
    """Today's commit of a hub model, from the hub, or from the local cache without a network; nothing is
    fetched. Raises InputError when neither knows the model.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    repository, _, written = name.partition("@")
    if not constants.HF_HUB_OFFLINE:
        try:
            return str(HfApi().model_info(repository, revision=written or None, timeout=10).sha)
        except Exception:  # no network, or no such model: the cache may still know it
            pass
    cached = try_to_load_from_cache(repository, "config.json", revision=written or None)
    if isinstance(cached, str):
        return Path(cached).parent.name
    raise InputError(
        "base",
        f"{name!r} is not pinned yet, not in the local cache, and the hub could not be asked.",
        "Check the name and the network, or give a folder.",
    )


def check_usable(folder: Path, name: str) -> None:
    """Raise InputError unless the folder holds a config, a tokenizer and safetensors weights."""
    try:
        json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            "base", f"{name!r} has no readable config.json.", "Expected a model folder."
        ) from error
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else set()
    if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise InputError("base", f"{name!r} lacks {missing[0]} of its weights.", "Fetch the whole model.")
    if not any(path.suffix == WEIGHTS for path in folder.iterdir()):
        raise InputError(
            "base",
            f"{name!r} has no .safetensors weights.",
            "Convert it with save_pretrained; pickles are not read.",
        )
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputError("base", f"{name!r} has no tokenizer.", "Save its tokenizer into the same folder.")


def digest_of(folder: Path, remembered: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Digest of a model folder's files, and what to remember so that the next time nothing is read.

    A file counts as unchanged while its size and time of change are the same.
    """
    memory: dict[str, Any] = {}
    parts = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (WEIGHTS, *TEXTS) or path.stem.upper() in PROSE or not path.is_file():
            continue
        stat = path.stat()
        known = remembered.get(str(path))
        if known and known["size"] == stat.st_size and known["mtime_ns"] == stat.st_mtime_ns:
            memory[str(path)] = known
        else:
            memory[str(path)] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _sha256(path)}
        parts.append(f"{path.name} {memory[str(path)]['sha256']}")
    return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest(), memory


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def max_positions(folder: Path) -> int | None:
    """The longest input the base was made for, in tokens, or None when it does not say."""
    config = json.loads((folder / "config.json").read_bytes())
    return config.get("max_position_embeddings") or config.get("text_config", {}).get(
        "max_position_embeddings"
    )
