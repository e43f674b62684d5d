"""What a plan needs to know of the world: the rows, the base, the models people brought, and what goes on from what.

Everything is read once and remembered by the size and time of its files, so that planning again reads
almost nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sabir.config import Config, TaskConfig
from sabir.engine.store import Store
from sabir.errors import InputError, raise_all
from sabir.languages import LanguageConfig
from sabir.lineage import Ancestor, ancestor
from sabir.lock import NAME as LOCK
from sabir.lock import Hold, Line, Lock, PinnedBase
from sabir.lora.files import CONFIG, WEIGHTS, open_adapter
from sabir.tasks import Task, make_task
from sabir.work import bases
from sabir.work.copies import holding
from sabir.work.prepare import Summary, load
from sabir.work.sources import Source, split_files

REMEMBERED = 200  # files, and sources, of the other configs that share a store
RENDERING = 5  # raise it when rows are rendered differently: remembered summaries are then read anew


@dataclass(frozen=True)
class Facts:
    """The world as the config names it.

    `base_folder` is None when only the identity was asked for; `adapters` maps a language to the digest of
    the adapter it brings; `memory` is what to hand to the next `gather`. `ancestors` has the languages whose
    adapter is to be a continuation, and of what; `holds` those whose adapter is an earlier one, for as long as
    their rows are the same; `lost_holds` why one cannot be kept any more, a sentence each; `incumbent` is the
    digest of the model in use before sabir. `unseen` has the test rows of languages without an adapter, whose
    sources stand among the others. `task` is as all languages have it, `tasks` as each one has it.
    """

    task: Task
    base: PinnedBase
    base_folder: Path | None
    sources: Mapping[str, Source]
    rows: Mapping[str, Summary]
    adapters: Mapping[str, str]
    memory: Mapping[str, Any]
    ancestors: Mapping[str, Ancestor] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    lost_holds: Mapping[str, str] = field(default_factory=dict)
    incumbent: str | None = None
    unseen: Mapping[str, Summary] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def made_from(self, language: str) -> str:
        """Digest of what a language's adapter comes from: its training rows, or the adapter it brings."""
        return self.rows[language].digests.get("train") or self.adapters[language]


def gather(
    config: Config, locked: Lock, memory: Mapping[str, Any], *, with_base: bool, store: Store
) -> Facts:
    """Read what the config names. Raises InputErrors with everything wrong in rows, base and adapters.

    Args:
        locked: what sabir.lock says to this config.
        memory: of an earlier call, or empty.
        with_base: also find the base's folder, fetching it if it must be; else its identity is enough.
        store: where adapters to go on from would be; only read.
    """
    errors: list[InputError] = []
    new: dict[str, dict[str, Any]] = {"rows": {}, "files": {}, "adapters": {}, "lineage": {}}
    task = make_task(config.task.name, config.task.settings, code=config.task.code)
    sources: dict[str, Source] = {}
    rows: dict[str, Summary] = {}
    adapters: dict[str, str] = {}
    for language in config.languages.values():
        try:
            forgotten = tuple(locked.forgotten.get(language.language, ()))
            source = sources[language.language] = replace(_source(language), forgotten=forgotten)
            stats = _stats(source.paths)  # before the rows are read: a later edit is seen the next time
            key, summary = _summary(source, stats, config.task, memory.get("rows", {}))
            rows[language.language] = summary
            new["rows"][key] = {"stats": stats, "summary": summary.to_json()}
            if language.adapter is not None:
                adapters[language.language] = _adapter(language.adapter, memory, new)
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    unseen: dict[str, Summary] = {}
    tasks = {language: _task(config.task, language) for language in config.languages}
    for language in config.rivals.unseen.values():
        try:
            source = sources[language.language] = _source(language, needed=("test",))
            stats = _stats(source.paths)
            key, summary = _summary(source, stats, config.task, memory.get("rows", {}), only_test=True)
            unseen[language.language] = summary
            new["rows"][key] = {"stats": stats, "summary": summary.to_json()}
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    incumbent = None
    try:
        base, folder = _base(config, locked.bases.get(config.base), memory, new, with_base)
        incumbent = _incumbent(config.gate.incumbent, memory, new)
    except InputError as error:
        errors.append(error)
    raise_all(errors)
    facts = Facts(
        task, base, folder, sources, rows, adapters, {}, incumbent=incumbent, unseen=unseen, tasks=tasks
    )
    holds, lost = _holds(facts, locked, store)
    facts = replace(facts, holds=holds, lost_holds=lost)
    facts = replace(facts, ancestors=_ancestors(config, facts, locked, store, memory, new))
    return replace(facts, memory=_together(memory, new))


def _holds(facts: Facts, locked: Lock, store: Store) -> tuple[dict[str, Hold], dict[str, str]]:
    """The holds of languages whose rows have not changed since; and why one of them cannot be kept, by language."""
    kept, lost = {}, {}
    for language, hold in locked.holds.items():
        if language not in facts.rows or hold.rows != facts.made_from(language):
            continue
        forgotten = facts.sources[language].forgotten
        if not store.has(hold.adapter):
            lost[language] = (
                f"is held at the adapter of release {hold.release}, which is no longer in the store."
            )
        elif (
            forgotten
            and language not in facts.adapters
            and holding(store.folder(hold.adapter), "adapter", forgotten)
        ):
            lost[language] = (
                f"is held at the adapter of release {hold.release}, which was trained on a row that is now forgotten."
            )
        else:
            kept[language] = hold
    return kept, lost


def _ancestors(
    config: Config,
    facts: Facts,
    locked: Lock,
    store: Store,
    memory: Mapping[str, Any],
    new: Mapping[str, dict[str, Any]],
) -> dict[str, Ancestor]:
    """What the languages that go on from an earlier adapter go on from."""
    found = {}
    for name, language in config.languages.items():
        line = locked.lineage.get(name)
        if (hold := locked.holds.get(name)) and name not in facts.holds:
            line = Line(rows="", adapter=hold.adapter, parent=None)  # not the one that was rejected
        if line is None or language.update.mode != "continue" or name in (*facts.adapters, *facts.holds):
            continue
        parent, compared = ancestor(language, line, facts, store=store, memory=memory.get("lineage", {}))
        new["lineage"].update(compared)
        if parent is not None:
            found[name] = parent
    return found


def _together(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What was just read, and up to `REMEMBERED` things that other configs of this store read before."""
    kept = {}
    for kind, fresh in new.items():
        others = [(key, value) for key, value in old.get(kind, {}).items() if key not in fresh]
        kept[kind] = {**dict(others[:REMEMBERED]), **fresh}
    return kept


def _source(language: LanguageConfig, *, needed: Sequence[str] = ("train", "test")) -> Source:
    if language.file is not None:
        return Source(language.language, file=language.file, fields=language.fields)
    if language.folder is not None:
        files = split_files(language.folder)
        where = f"data.{language.language}"
        for split in needed:
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
    source: Source,
    stats: list[list[int]],
    config: TaskConfig,
    memory: Mapping[str, Any],
    *,
    only_test: bool = False,
) -> tuple[str, Summary]:
    told = config.of(source.language)
    identity = [RENDERING, source.to_json(), told["name"], told["settings"]]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=list).encode()).hexdigest()
    known = memory.get(key)
    if known and known["stats"] == stats:
        return key, Summary.from_json(known["summary"])
    return key, load(source, _task(config, source.language), only_test=only_test)[1]


def _task(config: TaskConfig, language: str) -> Task:
    told = config.of(language)
    return make_task(told["name"], told["settings"], code=told["code"])


def _stats(paths: Iterable[Path]) -> list[list[int]]:
    return [[path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.exists()]


def _adapter(folder: Path, memory: Mapping[str, Any], new: Mapping[str, dict[str, Any]]) -> str:
    """Digest of an adapter that somebody brought."""
    stats = _stats([folder / CONFIG, folder / WEIGHTS])
    known = memory.get("adapters", {}).get(str(folder))
    digest = known["digest"] if known and known["stats"] == stats else open_adapter(folder).digest
    new["adapters"][str(folder)] = {"stats": stats, "digest": digest}
    return digest


def _incumbent(
    folder: Path | None, memory: Mapping[str, Any], new: Mapping[str, dict[str, Any]]
) -> str | None:
    """Digest of the model in use before sabir: an adapter's, or that of a whole model's files."""
    if folder is None:
        return None
    if (folder / CONFIG).is_file():
        return _adapter(folder, memory, new)
    if not any(folder.glob(f"*{bases.WEIGHTS}")):
        raise InputError(
            "gate.incumbent",
            f"{folder} has no {bases.WEIGHTS} weights.",
            "Convert it with save_pretrained; pickles are not read.",
        )
    digest, files = bases.digest_of(folder, memory.get("files", {}))
    new["files"].update(files)
    return digest


def _base(
    config: Config,
    same: PinnedBase | None,
    memory: Mapping[str, Any],
    new: Mapping[str, dict[str, Any]],
    with_folder: bool,
) -> tuple[PinnedBase, Path | None]:
    """The base with its identity, held against the same base in the lock."""
    if bases.is_hub_name(config.base, config.folder):
        folder: Path | None = None
        if with_folder:
            folder, commit = bases.hub_folder(config.base, same.revision if same else None)
        elif same is not None:
            return same, None
        else:
            commit = bases.hub_commit(config.base)
        found = PinnedBase(config.base, f"commit:{commit}", commit)
    else:
        folder = bases.local_folder(config.base, config.folder)
        identity, files = bases.digest_of(folder, memory.get("files", {}))
        new["files"].update(files)
        found = PinnedBase(config.base, identity, None)
    if same is not None and same.identity != found.identity:
        raise InputError(
            "base",
            f"{config.base!r} is not the model that {LOCK} pins "
            f"({same.identity[:19]}, now {found.identity[:19]}).",
            f"Restore it; or take it out of bases: in {LOCK} to train everything on the new one.",
        )
    return found, folder
