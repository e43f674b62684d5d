"""A model of the store as a folder that a server takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sabir.errors import InputError
from sabir.lora.checks import check_supported
from sabir.lora.files import CONFIG, OFF, WEIGHTS, Adapter, open_adapter
from sabir.lora.fold import MODEL_CONFIG
from sabir.lora.tokenizer import tokenizer_files
from sabir.lora.write import (
    CARD,
    SERVED_RANKS,
    copy_file,
    make_folders,
    sync_folder,
    taken,
    undone_on_error,
)
from sabir.merging.recipe import Recipe
from sabir.work.merge import merge_into

ADAPTER_CARD = "ADAPTER.md"  # of the adapter that was folded in: its recipe and sources
RECORD = "record.json"  # of the step; no part of a model


def export(
    model_folder: Path,
    out: Path,
    *,
    base: Mapping[str, Any],
    base_folder: Path,
    form: Literal["adapter", "model"],
) -> None:
    """Write what a server takes: a canonical adapter or a whole model, with tokenizer, chat template and card.

    An adapter that is canonical already, and a whole model, are copied; any other adapter is rewritten, or folded
    into the base. The folder appears under its name when all is on the disk; after an error there is nothing.

    Args:
        model_folder: an adapter's, or that of a base with a merge folded in.
        out: a folder that does not exist yet.
        base: `name` and `revision` of the base, as an adapter is to name it.
        base_folder: where the base lies.
        form: what to write.
    Raises InputError for a whole model asked for as an adapter, for an adapter that servers could not take, and for
    a folder that exists; StoreError when the disk does not take it.
    """
    is_adapter = (model_folder / CONFIG).is_file()
    if not is_adapter and not (model_folder / MODEL_CONFIG).is_file():
        raise InputError(str(model_folder), "holds no adapter and no model.", "Give the folder of one.")
    if not is_adapter and form == "adapter":
        raise InputError(
            "serve.form",
            "is adapter, and this release is a whole model: its merge was folded into the base.",
            "Write form: model.",
        )
    if out.exists():
        raise InputError(str(out), "exists already.", "Give another folder, or remove this one.")
    aside = out.with_name(f".{out.name}.exported")
    made = aside / out.name  # a fold writes beside its own place, so that lies inside too
    with undone_on_error(out, "the model for the server") as undo:
        make_folders(out.parent, undo)
        try:
            aside.mkdir()
        except FileExistsError:
            raise taken(aside) from None
        undo.callback(shutil.rmtree, aside, ignore_errors=True)
        if is_adapter:
            _write_adapter(model_folder, made, base, base_folder, form)
        else:
            _copy_model(model_folder, made, base_folder)
        sync_folder(made)
        made.rename(out)
        aside.rmdir()
        sync_folder(out.parent)


def _write_adapter(
    folder: Path, out: Path, base: Mapping[str, Any], base_folder: Path, form: Literal["adapter", "model"]
) -> None:
    adapter = open_adapter(folder)
    if form == "adapter" and _is_ready(adapter, base):
        out.mkdir(parents=True)
        for path in (folder / CARD, *tokenizer_files(base_folder), folder / WEIGHTS, folder / CONFIG):
            copy_file(path, out / path.name)
        return
    check_supported(adapter, where=str(folder))
    merge_into(
        out,
        Recipe("linear", weights=1.0, rank="fold" if form == "model" else None),
        {folder.name[:8]: adapter},  # in the store it is called by its fingerprint
        base_model=base["name"],
        revision=base["revision"],
        base_folder=base_folder,
        copies=() if form == "model" else tokenizer_files(base_folder),
    )
    if form == "model" and (folder / CARD).is_file():
        copy_file(folder / CARD, out / ADAPTER_CARD)


def _is_ready(adapter: Adapter, base: Mapping[str, Any]) -> bool:
    """Whether every server reads this adapter alike, its base is named as it should be, and its card says how."""
    config, card = adapter.config, adapter.path / CARD
    rank = config.get("r")
    return (
        rank in SERVED_RANKS
        and config.get("lora_alpha") == rank
        and set(adapter.ranks.values()) == {rank}
        and all(config.get(name) in OFF for name in ("use_rslora", "rank_pattern", "alpha_pattern"))
        and config.get("modules_to_save") in OFF
        and (adapter.base_model, adapter.revision) == (base["name"], base["revision"])
        and card.is_file()
        and b"vllm serve" in card.read_bytes()
        and _is_supported(adapter)
    )


def _is_supported(adapter: Adapter) -> bool:
    try:
        check_supported(adapter)
    except InputError:
        return False
    return True


def _copy_model(folder: Path, out: Path, base_folder: Path) -> None:
    """Every file of a whole model, and what it lacks of the base's tokenizer."""
    out.mkdir(parents=True)
    own = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name != RECORD}
    if not tokenizer_files(folder):
        own |= {path.name: path for path in tokenizer_files(base_folder)}
    for name, path in own.items():
        copy_file(path, out / name)
