"""Which adapters are to be continuations, and of what: today's rows held against those an adapter was trained on.

What a comparison of rows came to is remembered by the adapter and the digests of the rows: rows are read once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Protocol

from sabir.catalog import non_default
from sabir.engine.fingerprint import canonical, digest
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.languages import LanguageConfig, LoraConfig
from sabir.lock import Line, PinnedBase
from sabir.tasks import Task
from sabir.work.prepare import Example, Summary, load
from sabir.work.rows import choose, read_rows
from sabir.work.sources import Source

FREE = (
    "epochs",
    "learning_rate",
    "seed",
)  # a continuation may have its own; the rest of `lora` is its parent's
REMEMBERED = 200  # comparisons with a combined adapter


@dataclass(frozen=True)
class Ancestor:
    """What a training goes on from, and with what.

    Args:
        adapter: fingerprint of the parent.
        new, replayed: rows that the parent was not trained on, and rows that it was.
        characters: of all these together: what one epoch reads.
        languages: of a combined adapter those whose rows are others than it was trained on; else empty.
    """

    adapter: str
    new: int
    replayed: int
    characters: int
    languages: tuple[str, ...] = ()


class World(Protocol):
    """What is asked of `Facts` here."""

    @property
    def tasks(self) -> Mapping[str, Task]: ...
    @property
    def base(self) -> PinnedBase: ...
    @property
    def sources(self) -> Mapping[str, Source]: ...
    @property
    def rows(self) -> Mapping[str, Summary]: ...


def ancestor(
    config: LanguageConfig, line: Line, world: World, *, store: Store, memory: Mapping[str, Any]
) -> tuple[Ancestor | None, dict[str, Any]]:
    """What a language's adapter goes on from, and what to remember; None: it is trained from scratch.

    The same rows as the last time give the same parent as the last time, so that a continuation is found
    again and never goes on from itself. More rows go on from the last adapter, when it was trained on nothing
    that is no longer there, on this base and with these settings.

    Args:
        line: the language's last adapter, as sabir.lock has it.
        memory: of earlier calls, or empty.
    Raises InputError when the rows are no longer those that `world` tells of.
    """
    rows = world.rows[config.language].digests["train"]
    parent = line.parent if rows == line.rows else line.adapter
    if parent is None:
        return None, {}
    record = store.record(parent)
    if record is None:
        child = store.record(line.adapter) if rows == line.rows else None
        return (_of_record(parent, child, config, world.base) if child else None), {}
    if not _fits(record, world.base, config.lora):
        return None, {}
    key = digest([parent, rows, config.update.replay, config.lora.seed])
    found = memory[key] if key in memory else _compared(config, parent, world, store)
    return (Ancestor(parent, **found) if found else None), {key: found}


def _fits(record: Mapping[str, Any], base: PinnedBase, lora: LoraConfig) -> bool:
    """Whether a training with these settings can go on from the adapter of this record."""
    if record["kind"] != "adapter" or record["settings"]["base"] != base.identity:
        return False
    theirs, ours = record["settings"]["lora"], _identity(lora)
    return _without_free(theirs) == _without_free(ours)


def _identity(lora: LoraConfig) -> Mapping[str, Any]:
    """The settings as a record has them."""
    return canonical(non_default(asdict(lora), asdict(LoraConfig())))  # type: ignore[return-value]


def _without_free(lora: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in lora.items() if name not in FREE}


def _of_record(
    parent: str, child: Mapping[str, Any], config: LanguageConfig, base: PinnedBase
) -> Ancestor | None:
    """The ancestor of a finished continuation whose parent is no longer there, while nothing asks for another."""
    settings, result = child["settings"], child["result"]
    same = (
        settings["base"] == base.identity
        and settings["lora"] == _identity(config.update.applied_to(config.lora))
        and settings.get("update") == {"replay": config.update.replay}
    )
    return Ancestor(parent, result["new"], result["replayed"], result["characters"]) if same else None


def _compared(config: LanguageConfig, parent: str, world: World, store: Store) -> dict[str, int] | None:
    """Counts of an `Ancestor`, or None where rows that the parent was trained on are gone."""
    lines = read_rows(store.folder(parent))
    if lines is None:
        return None
    rows = _train_rows(world, config.language)
    choice = choose(rows, lines, replay=config.update.replay, seed=config.lora.seed)
    if choice.gone:
        return None
    return {
        "new": len(choice.new),
        "replayed": len(choice.replayed),
        "characters": sum(row.characters for row in choice.rows),
    }


def continued(store: Store, facts: World, combined: str) -> Ancestor | None:
    """What "go on from the combined adapter with the new rows only" stands on; None where there is nothing to do.

    That is where the adapter has seen all of today's rows, or rows that are no longer there, or is not in the
    store. Nothing is replayed.

    Args:
        facts: of `gather`.
        combined: fingerprint of a combined adapter of today's settings.
    Raises InputError when the rows are no longer those that `facts` tells of.
    """
    record = store.record(combined)
    if record is None or not (
        record["kind"] == "adapter" and record["settings"]["base"] == facts.base.identity
    ):
        return None
    digests = {
        language: summary.digests["train"]
        for language, summary in facts.rows.items()
        if "train" in summary.digests
    }
    if {f"rows/{language}": rows for language, rows in digests.items()} == record["deps"]:
        return None
    key = digest([combined, digests])
    memory = store.cached("lineage")
    if key not in memory:
        memory = {**dict(list(memory.items())[-REMEMBERED:]), key: _newer(store, facts, record, digests)}
        with contextlib.suppress(OSError):  # it only saves time, where the store can be written
            store.remember("lineage", memory)
    found = memory[key]
    return Ancestor(combined, **{**found, "languages": tuple(found["languages"])}) if found else None


def _newer(
    store: Store, facts: World, record: Mapping[str, Any], digests: Mapping[str, str]
) -> dict[str, Any] | None:
    """What an `Ancestor` has beside the adapter, over all languages; None as in `continued`."""
    lines = read_rows(store.folder(record["fingerprint"]))
    if lines is None:
        return None
    rows = {language: _train_rows(facts, language) for language in sorted(digests)}
    if choose(chain.from_iterable(rows.values()), lines, replay=0, seed=0).gone:
        return None
    changed = [one for one in rows if record["deps"].get(f"rows/{one}") != digests[one]]
    new = choose(chain.from_iterable(rows[one] for one in changed), lines, replay=0, seed=0).new
    if not new:
        return None
    characters = sum(row.characters for row in new)
    return {"new": len(new), "replayed": 0, "characters": characters, "languages": changed}


def _train_rows(world: World, language: str) -> Sequence[Example]:
    splits, summary = load(world.sources[language], world.tasks[language])
    if summary.digests != world.rows[language].digests:
        raise InputError(f"data.{language}", "the files changed while they were read.", "Do it again.")
    return splits["train"]
