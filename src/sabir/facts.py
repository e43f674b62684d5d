"""What a plan needs to know of the world: the rows, the base, the adapters people brought.

Everything is read once and remembered by the size and time of its files, so that planning again reads
almost nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabir.config import Config, LanguageConfig
from sabir.errors import InputError, raise_all
from sabir.lock import NAME as LOCK
from sabir.lock import PinnedBase
from sabir.lora.files import open_adapter
from sabir.tasks import Task, make_task
from sabir.work import bases
from sabir.work.prepare import Summary, load
from sabir.work.sources import Source, split_files

REMEMBERED = 200  # files, and sources, of the other configs that share a store
RENDERING = 3  # raise it when rows are rendered differently: remembered summaries are then read anew


@dataclass(frozen=True)
class Facts:
    """The world as the config names it.

    `base_folder` is None when only the identity was asked for; `adapters` maps a language to the digest of
    the adapter it brings; `memory` is what to hand to the next `gather`.
    """

    task: Task
    base: PinnedBase
    base_folder: Path | None
    sources: Mapping[str, Source]
    rows: Mapping[str, Summary]
    adapters: Mapping[str, str]
    memory: Mapping[str, Any]


def gather(config: Config, pinned: PinnedBase | None, memory: Mapping[str, Any], *, with_base: bool) -> Facts:
    """Read what the config names. Raises InputErrors with everything wrong in rows, base and adapters.

    Args:
        pinned: this base as sabir.lock has it, or None before the first run on it.
        memory: of an earlier call, or empty.
        with_base: also find the base's folder, fetching it if it must be; else its identity is enough.
    """
    errors: list[InputError] = []
    new: dict[str, Any] = {"rows": {}, "files": {}}
    task = make_task(config.task.name, config.task.settings)
    sources: dict[str, Source] = {}
    rows: dict[str, Summary] = {}
    adapters: dict[str, str] = {}
    for language in config.languages.values():
        try:
            source = sources[language.language] = _source(language)
            stats = _stats(source)  # before the rows are read: an edit in between is then seen the next time
            key, summary = _summary(source, stats, config, task, memory.get("rows", {}))
            rows[language.language] = summary
            new["rows"][key] = {"stats": stats, "summary": summary.to_json()}
            if language.adapter is not None:
                adapters[language.language] = open_adapter(language.adapter).digest
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    try:
        base, folder, new["files"] = _base(config, pinned, memory.get("files", {}), with_base)
    except InputError as error:
        errors.append(error)
    raise_all(errors)
    return Facts(task, base, folder, sources, rows, adapters, _together(memory, new))


def _together(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What was just read, and up to `REMEMBERED` things that other configs of this store read before."""
    kept = {}
    for kind, fresh in new.items():
        others = [(key, value) for key, value in old.get(kind, {}).items() if key not in fresh]
        kept[kind] = {**dict(others[:REMEMBERED]), **fresh}
    return kept


def _source(language: LanguageConfig) -> Source:
    if language.file is not None:
        return Source(language.language, file=language.file, fields=language.fields)
    if language.folder is not None:
        files = split_files(language.folder)
        where = f"data.{language.language}"
        for split in ("train", "test"):
            if split not in files:
                raise InputError(
                    where,
                    f"{language.folder} has no {split} file.",
                    f"Add {split}.jsonl, {split}.csv or {split}.tsv.",
                )
    else:
        given = {"train": language.train, "valid": language.valid, "test": language.test}
        files = {split: path for split, path in given.items() if path is not None}
    return Source(language.language, files=files, fields=language.fields)


def _summary(
    source: Source, stats: list[list[int]], config: Config, task: Task, memory: Mapping[str, Any]
) -> tuple[str, Summary]:
    identity = [RENDERING, source.to_json(), config.task.name, dict(config.task.settings)]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=list).encode()).hexdigest()
    known = memory.get(key)
    if known and known["stats"] == stats:
        return key, Summary.from_json(known["summary"])
    return key, load(source, task)[1]


def _stats(source: Source) -> list[list[int]]:
    return [[path.stat().st_size, path.stat().st_mtime_ns] for path in source.paths if path.exists()]


def _base(
    config: Config, same: PinnedBase | None, memory: Mapping[str, Any], with_folder: bool
) -> tuple[PinnedBase, Path | None, dict[str, Any]]:
    """The base with its identity, held against the same base in the lock."""
    if bases.is_hub_name(config.base, config.folder):
        folder: Path | None = None
        files: dict[str, Any] = {}
        if with_folder:
            folder, commit = bases.hub_folder(config.base, same.revision if same else None)
        elif same is not None:
            return same, None, files
        else:
            commit = bases.hub_commit(config.base)
        found = PinnedBase(config.base, f"commit:{commit}", commit)
    else:
        folder = bases.local_folder(config.base, config.folder)
        identity, files = bases.digest_of(folder, memory)
        found = PinnedBase(config.base, identity, None)
    if same is not None and same.identity != found.identity:
        raise InputError(
            "base",
            f"{config.base!r} is not the model that {LOCK} pins "
            f"({same.identity[:19]}, now {found.identity[:19]}).",
            f"Restore it; or delete {LOCK} to train everything on the new one.",
        )
    return found, folder, files
