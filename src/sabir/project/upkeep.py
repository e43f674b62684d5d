"""Care of a project's store: why a step runs again, what may go, what is damaged, what must be forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sabir import lock
from sabir.catalog import did_you_mean
from sabir.config import Config
from sabir.engine import care, ledger
from sabir.engine.leases import CARE, exclusive
from sabir.engine.store import ANSWERS, Store
from sabir.engine.why import difference, roots
from sabir.errors import InputError, raise_all
from sabir.lora.files import open_adapter
from sabir.project.accounts import settle
from sabir.project.running import writing
from sabir.project.servers import serving_folder
from sabir.project.standing import Standing
from sabir.releases import Log, logs
from sabir.serving import keep_only_current
from sabir.work.answers import model_keys
from sabir.work.copies import holding, splits_holding
from sabir.work.endpoint import judge_key
from sabir.work.sources import Forgotten, find_rows, hash_of

ROOM_BYTES = 1 << 16  # for an owner's file, a lease and their folders

Document = dict[str, Any]


def why(standing: Standing, name: str) -> Document:
    """Why one step runs again or is reused, followed down to where the change began."""
    state = standing.state()
    graph = state.plan.graph
    if name not in graph:
        known = [step.name for step in graph]
        raise InputError(
            f"why {name}", "there is no such step.", f"See `sabir plan`.{did_you_mean(name, known)}"
        )
    previous = {step["name"]: step["fingerprint"] for step in standing.last["steps"]} if standing.last else {}
    assessment = state.assessments[name]
    return {
        "step": name,
        "status": assessment.status,
        "fingerprint": assessment.fingerprint,
        "before": previous.get(name),
        "why": assessment.why,
        "differences": _fields(difference(graph[name], graph, standing.store, previous.get(name))),
        "roots": [
            {"step": root.name, "why": root.why, "differences": _fields(root.differences)}
            for root in roots(name, graph, standing.store, previous)
        ],
    }


def _fields(found: Iterable[tuple[str, Any, Any]]) -> list[dict[str, Any]]:
    return [{"field": field, "was": was, "now": now} for field, was, now in found]


def gc(standings: Sequence[Standing], *, dry_run: bool, keep_runs: int) -> Document:
    """Free what neither releases nor the plans nor the last runs stand on.

    Args:
        standings: those of all tasks, of one store.
    """
    store = standings[0].store
    _make_room(store)
    with writing(store), exclusive(store, CARE):
        states = [standing.state() for standing in standings]
        planned = {one.fingerprint for state in states for one in state.assessments.values()}
        roots = set(planned) | _released(store)
        by_config: dict[str, int] = {}
        entries = ledger.runs(store)
        for entry in reversed(entries):
            if entry.get("beside"):
                continue
            name = entry.get("config", "")
            by_config[name] = by_config.get(name, 0) + 1
            if by_config[name] <= keep_runs:
                roots |= {step["fingerprint"] for step in entry["steps"]}
        if unsettled := {entry["id"] for entry in entries if entry.get("open")}:  # they may have made more
            roots |= {record["fingerprint"] for record in store.records() if record["run"] in unsettled}
        roots |= {line.adapter for standing in standings for line in standing.locked.lineage.values()}
        keep = care.closure(store, roots)
        junk = care.garbage(
            store,
            keep,
            resumable=planned,
            facts=_merged_facts(store, keep),
            answers=_answering(standings, keep),
        )
        freed = sum(one.size_bytes for one in junk) if dry_run else care.sweep(store, junk)
    return {
        "dry_run": dry_run,
        "freed_bytes": freed,
        "junk": [{**asdict(one), "path": str(one.path)} for one in junk],
    }


def _make_room(store: Store) -> None:
    """On a full disk nobody could say that he cleans up; what is only remembered goes first."""
    if store.path.is_dir() and shutil.disk_usage(store.path).free < ROOM_BYTES:
        shutil.rmtree(store.path / "cache", ignore_errors=True)
        shutil.rmtree(store.path / ANSWERS, ignore_errors=True)


def _answering(standings: Sequence[Standing], keep: Collection[str]) -> set[str]:
    """The models whose answers are of use: the bare bases, judges that are asked elsewhere, and all that are kept."""
    records = [record for one in keep if (record := standings[0].store.record(one)) is not None]
    bases = {standing.facts.base.identity for standing in standings}
    judges = [standing.config.estimate.judge for standing in standings]
    elsewhere = {
        judge_key(asdict(judge)) for judge in judges if judge is not None and judge.endpoint is not None
    }
    return elsewhere | {key for base in bases for key in model_keys(records, base)}


def _merged_facts(store: Store, keep: Collection[str]) -> set[str] | None:
    """Names of the files that keep facts of the adapters that stay; None, for all, where one cannot be read."""
    if not (store.path / "kept").is_dir():
        return None
    records = (store.record(fingerprint) for fingerprint in keep)
    adapters = [record for record in records if record and record["kind"] in ("adapter", "adopted")]
    try:
        digests = [open_adapter(store.folder(record["fingerprint"])).digest for record in adapters]
    except InputError:  # damaged, or a whole model: `verify` tells
        return None
    return {digest.removeprefix("sha256:") for digest in digests}


def _released(store: Store) -> set[str]:
    """Fingerprints that releases name, those of every config."""
    found: set[str] = set()
    for release in (release for log in logs(store.path) for release in log.releases()):
        found |= {release.fingerprint, *release.languages.values(), *release.evaluated}
    return found


def verify(store: Store, *, on_step: Callable[[int, int], None]) -> Document:
    """Hold every file of the store against its digest; put the damaged steps aside."""
    store.check_format()
    damages = care.verify(store, on_step=on_step)
    if damages:
        with writing(store), exclusive(store, CARE):
            care.quarantine(store, damages)
    return {"checked": len(store.fingerprints()) + len(damages), "damaged": [asdict(one) for one in damages]}


# --- forget ----------------------------------------------------------------------------------------------


def forget(
    config: Config,
    store: Store,
    wanted: Sequence[str],
    *,
    language: str | None,
    purge: bool,
    beside: Collection[str] = (),
) -> Document:
    """Leave rows out from now on, and list (or purge) what the store has of them.

    Args:
        beside: names of the other tasks' configs: what they have in use is not purged either.
    """
    settle(store)
    standing = Standing(config, store, with_base=False)
    languages = list(config.languages) if language is None else [language]
    if language is not None:
        standing.must_have(language, f"--language {language}")
    rows: list[dict[str, Any]] = []
    texts: set[str] = set()
    forgotten = {key: list(value) for key, value in standing.locked.forgotten.items()}
    for one in languages:
        for split, place, row in find_rows(standing.facts.sources[one], wanted):
            rows.append({"language": one, "split": split, "id": row.id, "place": place})
            texts |= {row.id, row.input}
            if Forgotten.of(row) not in forgotten.setdefault(one, []):
                forgotten[one].append(Forgotten.of(row))
    _must_be_known(wanted, texts, standing)
    if wanted:
        locked = replace(
            lock.read(config.where), forgotten={key: tuple(value) for key, value in forgotten.items()}
        )
        lock.write(config.where, locked)
        standing = Standing(config, store, with_base=False)
    if purge:
        with writing(store), exclusive(store, CARE):
            copies = _copies(standing)
            _must_not_be_in_use(standing, copies, beside)
            _purge(standing, copies)
    else:
        copies = _copies(standing)
    return {"rows": rows, "copies": copies, "purged": purge}


def _must_be_known(wanted: Sequence[str], found: Collection[str], standing: Standing) -> None:
    """Refuse rows that neither the data have nor were forgotten before: a slip would pass for success."""
    known = {
        hashed for each in standing.locked.forgotten.values() for one in each for hashed in (one.id, one.text)
    }
    lost = [text for text in wanted if text not in found and hash_of(text) not in known]
    raise_all(
        [
            InputError(
                "forget", f"no row has the id or the text {text[:60]!r}.", "Give an id, or the whole text."
            )
            for text in lost
        ]
    )


def _copies(standing: Standing) -> list[dict[str, Any]]:
    """Finished steps that hold a forgotten row, and all that was made of them; unfinished ones too."""
    store = standing.store
    records = {record["fingerprint"]: record for record in store.records()}
    tainted: dict[str, str] = {}
    digests: set[str] = set()  # of parts of rows: what stands on them has no other name for them
    for fingerprint, record in records.items():
        language = _language_of(record)
        rows = standing.locked.forgotten.get(language, ()) if language else _all(standing)
        if rows and holding(store.folder(fingerprint), record["kind"], rows):
            tainted[fingerprint] = "trained on it" if record["kind"] == "adapter" else "holds it"
            digests |= {record["parts"][split] for split in splits_holding(store.folder(fingerprint), rows)}
    found = len(tainted) - 1
    while found != len(tainted):  # what stands on it, and what stands on that
        found = len(tainted)
        for fingerprint, record in records.items():
            if fingerprint not in tainted and not {*tainted, *digests}.isdisjoint(record["deps"].values()):
                tainted[fingerprint] = "made of it"
    releases: dict[str, list[str]] = {}
    for release in standing.log.releases():
        releases.setdefault(release.fingerprint, []).append(release.name)
    copies = [
        {
            "what": what,
            "name": records[fingerprint]["name"],
            "fingerprint": fingerprint,
            "path": str(store.folder(fingerprint)),
            "release": ", ".join(releases.get(fingerprint, ())) or None,
        }
        for fingerprint, what in tainted.items()
    ]
    return sorted(copies, key=lambda copy: copy["name"])


def _language_of(record: Mapping[str, Any]) -> str | None:
    """The language whose rows a step holds; None for one of all languages."""
    if record["kind"] == "data":
        return record["name"].partition("/")[2]
    if record["kind"] == "outputs":
        return record["settings"]["language"]
    language = record["settings"].get("language")
    return language if record["kind"] == "adapter" and f"rows/{language}" in record["deps"] else None


def _all(standing: Standing) -> tuple[Forgotten, ...]:
    return tuple(one for rows in standing.locked.forgotten.values() for one in rows)


def _must_not_be_in_use(
    standing: Standing, copies: Sequence[Mapping[str, Any]], beside: Collection[str]
) -> None:
    """Raise InputError where a copy is in use, in this task or in another one."""
    purged = {copy["fingerprint"] for copy in copies}
    path, own = standing.config.path, standing.config.name
    for name in (own, *beside):
        current = Log(standing.store.path, name).current()
        if current is None or current.fingerprint not in purged:
            continue
        of = "" if name == own else f" of {name}"
        fix = f"Do `sabir run {path}` and `sabir promote {path}` first, then purge."
        raise InputError(
            "forget --purge",
            f"release {current.name}{of}, which is in use, was made of a forgotten row.",
            fix if name == own else f"Forget it in {name} too; then run, promote and purge.",
        )


def _purge(standing: Standing, copies: Sequence[Mapping[str, Any]]) -> None:
    """Delete the copies, what was never finished of them, what was put aside, and what servers had before."""
    store = standing.store
    for copy in copies:
        shutil.rmtree(copy["path"])
    planned = {assessment.fingerprint for assessment in standing.state().assessments.values()}
    for folder in (store.path / "partial").glob("*~*"):
        if folder.name.partition("~")[0] not in planned:
            shutil.rmtree(folder)
    shutil.rmtree(store.path / "damaged", ignore_errors=True)
    shutil.rmtree(store.path / ANSWERS, ignore_errors=True)  # whose rows they answer is not told by them
    keep_only_current(serving_folder(standing))
