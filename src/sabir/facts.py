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
from sabir.own_code import is_own, own_identity
from sabir.tasks import Task, make_task
from sabir.work import bases
from sabir.work.copies import holding
from sabir.work.hub import HubData, asked_as, pinned
from sabir.work.prepare import Summary, load
from sabir.work.sources import Source, split_files

REMEMBERED = 200  # files, and sources, of the other configs that share a store
RENDERING = 8  # raise it when rows are rendered differently: remembered summaries are then read anew


@dataclass(frozen=True)
class Facts:
    """The world as the config names it.

    `base_folder` is None when only the identity was asked for; `adapters` maps a language to the digest of
    the adapter it brings; `memory` is what to hand to the next `gather`. `ancestors` has the languages whose
    adapter is to be a continuation, and of what; `holds` those whose adapter is an earlier one, for as long as
    their rows are the same; `lost_holds` why one cannot be kept any more, a sentence each; `incumbent` is the
    digest of the model in use before sabir. `unseen` has the test rows of languages without an adapter, whose
    sources stand among the others. `task` is as all languages have it, `tasks` as each one has it. `held_rows` how many
    rows an adapter that is held was trained on. `encoder` is
    that of BERTScore, with `encoder_folder` as for the base; `translator` the identity of the rival's translator,
    and `translator_place` its folder or name.
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
    held_rows: Mapping[str, int] = field(default_factory=dict)
    encoder: PinnedBase | None = None
    encoder_folder: Path | None = None
    translator: str | None = None
    translator_place: str | None = None

    def made_from(self, language: str) -> str:
        """Digest of what a language's adapter comes from: its training rows, or the adapter it brings."""
        return self.rows[language].digests.get("train") or self.adapters[language]

    def trained_on(self, language: str) -> int:
        """How many rows a language's adapter stands for: today's, or those of the earlier one it is held at."""
        return self.held_rows.get(language) or self.rows[language].rows.get("train", 0)


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
    new: dict[str, dict[str, Any]] = {"rows": {}, "files": {}, "adapters": {}, "lineage": {}, "hub": {}}
    task = make_task(config.task.name, config.task.settings, code=config.task.code)
    sources: dict[str, Source] = {}
    rows: dict[str, Summary] = {}
    adapters: dict[str, str] = {}
    for language in config.languages.values():
        try:
            forgotten = tuple(locked.forgotten.get(language.language, ()))
            source = sources[language.language] = replace(_source(language, memory, new), forgotten=forgotten)
            rows[language.language] = _rows(source, config.task, memory, new)
            if language.adapter is not None:
                adapters[language.language] = _adapter(language.adapter, memory, new)
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    unseen: dict[str, Summary] = {}
    tasks = {language: _task(config.task, language) for language in config.languages}
    for language in config.rivals.unseen.values():
        try:
            source = sources[language.language] = _source(language, memory, new, needed=("test",))
            unseen[language.language] = _rows(source, config.task, memory, new, only_test=True)
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    incumbent = None
    try:
        base, folder = _model(config.base, config.folder, "base", locked, memory, new, with_base)
        incumbent = _incumbent(config.gate.incumbent, memory, new)
    except InputError as error:
        errors.append(error)
    encoder, translator = _beside(config, locked, memory, new, with_base, errors)
    raise_all(errors)
    facts = Facts(
        task,
        base,
        folder,
        sources,
        rows,
        adapters,
        {},
        incumbent=incumbent,
        unseen=unseen,
        tasks=tasks,
        **encoder,
        **translator,
    )
    holds, lost = _holds(facts, locked, store)
    facts = replace(facts, holds=holds, lost_holds=lost, held_rows=_held_rows(holds, store))
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


def _held_rows(holds: Mapping[str, Hold], store: Store) -> dict[str, int]:
    """How many rows the adapters were trained on that languages are held at, where that is known."""
    records = {language: store.record(hold.adapter) for language, hold in holds.items()}
    return {
        language: record["result"]["rows"]
        for language, record in records.items()
        if record is not None and "rows" in (record.get("result") or {})
    }


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


def _source(
    language: LanguageConfig,
    memory: Mapping[str, Any],
    new: Mapping[str, dict[str, Any]],
    *,
    needed: Sequence[str] = ("train", "test"),
) -> Source:
    """Where a language's rows lie, a data set of the hub at one commit. Raises InputError where something is
    missing that reading them needs."""
    if language.hub is not None:
        source = Source(
            language.language, hub=_pinned(language.hub, memory, new["hub"]), fields=language.fields
        )
    elif language.file is not None:
        source = Source(language.language, file=language.file, fields=language.fields)
    else:
        given = {"train": language.train, "valid": language.valid, "test": language.test}
        files = {split: path for split, path in given.items() if path is not None}
        if language.folder is not None:
            files = _split_files(language, language.folder, needed)
        source = Source(language.language, files=files, fields=language.fields)
    source.check_installed()
    return source


def _pinned(data: HubData, memory: Mapping[str, Any], new: dict[str, str]) -> HubData:
    """A data set at one commit; the hub is asked once for all languages of it."""
    if data.is_pinned:
        return data
    name = asked_as(data)
    if name not in new:
        new[name] = str(pinned(data, memory.get("hub", {})).revision)
    return replace(data, revision=new[name])


def _split_files(language: LanguageConfig, folder: Path, needed: Sequence[str]) -> dict[str, Path]:
    """The files of a folder; of a language without an adapter only its test rows, whatever else lies there."""
    files = split_files(folder)
    for split in needed:
        if split not in files:
            endings = f"{split}.jsonl, {split}.csv, {split}.tsv or {split}.parquet"
            raise InputError(f"data.{language.language}", f"{folder} has no {split} file.", f"Add {endings}.")
    return files if "train" in needed else {split: files[split] for split in needed}


def _rows(
    source: Source,
    config: TaskConfig,
    memory: Mapping[str, Any],
    new: Mapping[str, dict[str, Any]],
    *,
    only_test: bool = False,
) -> Summary:
    """The summary of a language's rows: remembered while its files are the same, else read."""
    stats = _row_stats(source)  # before the rows are read: a later edit is seen the next time
    told = config.of(source.language)
    identity = [RENDERING, source.to_json(), told["name"], told["settings"]]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=list).encode()).hexdigest()
    # code of the user's own may render otherwise now
    known = None if is_own(told["name"]) else memory.get("rows", {}).get(key)
    if known and known["stats"] == stats:
        summary = Summary.from_json(known["summary"])
    else:
        summary = load(source, _task(config, source.language), only_test=only_test)[1]
    new["rows"][key] = {"stats": stats, "summary": summary.to_json()}
    return summary


def _task(config: TaskConfig, language: str) -> Task:
    told = config.of(language)
    return make_task(told["name"], told["settings"], code=told["code"])


def _row_stats(source: Source) -> list[list[str | int]]:
    """What tells whether rows may have changed; nothing for a data set at one commit, which does not."""
    return [[path.name, *stats] for path in source.paths for stats in _stats([path])]


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


def _beside(
    config: Config,
    locked: Lock,
    memory: Mapping[str, Any],
    new: Mapping[str, dict[str, Any]],
    with_folder: bool,
    errors: list[InputError],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of BERTScore's encoder and of the translator, where the config names them."""
    encoder: dict[str, Any] = {}
    translator: dict[str, Any] = {}
    name, asked = config.evaluate.encoder, config.rivals.translate
    try:
        if name is not None:
            pinned, folder = _model(name, config.folder, "evaluate.encoder", locked, memory, new, with_folder)
            encoder = {"encoder": pinned, "encoder_folder": folder}
    except InputError as error:
        errors.append(error)
    try:
        if asked is not None and is_own(asked.model):
            translator = {
                "translator": own_identity(asked.model, config.code),
                "translator_place": asked.model,
            }
        elif asked is not None:
            where = "rivals.translate.model"
            pinned, folder = _model(asked.model, config.folder, where, locked, memory, new, with_folder)
            place = None if folder is None else str(folder)
            translator = {"translator": pinned.identity, "translator_place": place}
    except InputError as error:
        errors.append(error)
    return encoder, translator


def model_beside(
    name: str, config: Config, locked: Lock, memory: Mapping[str, Any], *, where: str
) -> tuple[PinnedBase, Path]:
    """Another model that the config names, a folder or a hub name, with its identity; fetched if it must be.

    Args:
        memory: of `Facts`: files that were read before are not read again.
        where: the key that names it, for errors.
    """
    found, folder = _model(name, config.folder, where, locked, memory, {"files": {}}, True)
    assert folder is not None
    return found, folder


def _model(
    name: str,
    beside: Path,
    where: str,
    locked: Lock,
    memory: Mapping[str, Any],
    new: Mapping[str, dict[str, Any]],
    with_folder: bool,
) -> tuple[PinnedBase, Path | None]:
    """A model by folder or hub name with its identity, held against the same one in the lock."""
    same = locked.bases.get(name)
    try:
        if bases.is_hub_name(name, beside):
            folder: Path | None = None
            if with_folder:
                folder, commit = bases.hub_folder(name, same.revision if same else None)
            elif same is not None:
                return same, None
            else:
                commit = bases.hub_commit(name)
            found = PinnedBase(name, f"commit:{commit}", commit)
        else:
            folder = bases.local_folder(name, beside)
            identity, files = bases.digest_of(folder, memory.get("files", {}))
            new["files"].update(files)
            found = PinnedBase(name, identity, None)
    except InputError as error:
        raise InputError(where, error.message, error.fix) from error
    if same is not None and same.identity != found.identity:
        raise InputError(
            where,
            f"{name!r} is not the model that {LOCK} pins ({same.identity[:19]}, now {found.identity[:19]}).",
            f"Restore it; or take it out of bases: in {LOCK} to go on with the new one.",
        )
    return found, folder
