"""What will run and why: the graph held against the store and against what stood there before.

A plan of a hundred languages has twenty thousand steps, so a record is read only where a reason cannot be known
without it, and only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sabir.engine.fingerprint import differences, fingerprint
from sabir.engine.steps import Dep, Graph, Known, Part, Step, above, dep_name
from sabir.engine.store import Store
from sabir.errors import StoreError

NEW = "new"
MISSING = "not finished yet, or its output is missing from the store"


@dataclass(frozen=True)
class Assessment:
    """One step before a run: `status` is "reused" or "run"."""

    step: Step
    fingerprint: str
    status: str
    _graph: Graph
    _store: Store
    _previous: Mapping[str, str]

    @cached_property
    def why(self) -> str:
        """The reason for the status, in words."""
        if self.status == "reused":
            return self.step.note or "nothing it stands on has changed"
        return reason(self.step, self._graph, self._store, self._previous)

    @cached_property
    def record(self) -> Mapping[str, Any] | None:
        """What the store knows of a reused step. Raises StoreError when its record is damaged or gone."""
        if self.status == "run":
            return None
        record = self._store.record(self.fingerprint)
        if record is None:
            folder = str(self._store.folder(self.fingerprint))
            raise StoreError(folder, "the record of this step is gone.", "`sabir verify` mends it.")
        return record


def assess(graph: Graph, store: Store, previous: Mapping[str, str]) -> dict[str, Assessment]:
    """Every step with its status, and the reason when it is asked for, by name.

    The store is looked at once: to ask for twenty thousand folders takes seconds on a network's disk.

    Args:
        previous: fingerprints of the last run, by step name; a changed field is found by comparing with them.
    Raises StoreError when a pinned result is gone: nothing can make it again.
    """
    folders = store.fingerprints()
    found: dict[str, Assessment] = {}
    for step in graph:
        own = graph.fingerprints[step.name]
        status = "reused" if own in folders else "run"
        if status == "run" and step.pinned is not None:
            raise StoreError(str(store.folder(own)), f"the old result of {step.name} is gone.")
        found[step.name] = Assessment(step, own, status, graph, store, previous)
    return found


# --- one step --------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """One field in which a step is not what it was; absent is None.

    `field` is `kind`, `version`, `settings.<path>`, `parts.<part>`, `deps.<role>` (identities of what stands
    below), or `pinned` (an old result stands in).
    """

    field: str
    was: Any
    now: Any


def difference(step: Step, graph: Graph, store: Store, before: str | None) -> list[Difference]:
    """The identity of a step against an earlier one of the same name, field by field.

    Empty where nothing differs, and where nothing is known of the earlier one.

    Args:
        before: fingerprint of the earlier one; None: there was none.
    """
    if before is None or before == graph.fingerprints[step.name]:
        return []
    if step.pinned is not None:
        return [Difference("pinned", before, step.pinned)]
    old = store.record(before)
    if old is None:
        return []
    found = [
        Difference(field, old[field], now)
        for field, now in (("kind", step.kind), ("version", step.version))
        if old[field] != now
    ]
    parts = sorted({*old["parts"], *step.parts})
    found += [
        Difference(f"settings.{path}", was, now)
        for path, was, now in differences(old["settings"], step.settings)
        if path not in parts  # the digests of parts are settings too
    ]
    pairs = [(f"parts.{part}", old["parts"].get(part), step.parts.get(part)) for part in parts]
    deps = graph.identities(step)
    pairs += [
        (f"deps.{role}", old["deps"].get(role), deps.get(role)) for role in sorted({*old["deps"], *deps})
    ]
    return found + [Difference(field, was, now) for field, was, now in pairs if was != now]


def reason(step: Step, graph: Graph, store: Store, previous: Mapping[str, str]) -> str:
    """Why a step that is not in the store has to run, in words."""
    before = previous.get(step.name)
    if before is None:
        return NEW
    if before == graph.fingerprints[step.name]:
        return MISSING
    if changed := _deps_that_explain(step, graph, previous):
        return "; ".join(f"{name} changed" for name in changed)
    return told(difference(step, graph, store, before), step, store)


def _deps_that_explain(step: Step, graph: Graph, previous: Mapping[str, str]) -> list[str]:
    """Names of the changed steps below, where they are all that changed: then no record need be read.

    That is certain: with their earlier fingerprints the step has its own earlier one.
    """
    changed = {
        role: dep
        for role, dep in step.deps.items()
        if isinstance(dep, str) and graph.fingerprints[dep] != previous.get(dep)
    }
    then = graph.identities(step) | {role: previous.get(dep, "") for role, dep in changed.items()}
    if fingerprint(step.kind, step.version, step.canonical, then) != previous[step.name]:
        return []
    return [changed[role] for role in sorted(changed)]


def told(found: Sequence[Difference], step: Step, store: Store) -> str:
    """Differences of a step in words: "lora.rank: 16 -> 32; train rows changed"."""
    parts = sorted(one.field.removeprefix("parts.") for one in found if one.field.startswith("parts."))
    sentences = []
    for one in found:
        what, _, name = one.field.partition(".")
        if what == "version":
            sentences.append(f"sabir computes {step.kind!r} anew (version {one.was} -> {one.now})")
        elif what in ("kind", "settings"):
            sentences.append(f"{name or what}: {_from_to(one.was, one.now)}")
        elif what == "parts" and name == parts[0]:
            sentences.append(f"{', '.join(parts)} rows changed")
        elif what == "deps":
            sentences.append(_told_of_dep(name, one, step.deps.get(name), store))
        elif what == "pinned":
            sentences.append(step.note or "an old result stands in")
    return "; ".join(sentences) or "changed"


def _told_of_dep(role: str, one: Difference, dep: Dep | None, store: Store) -> str:
    if dep is None:
        return f"no longer stands on {role}"
    if isinstance(dep, Known):
        now = _known(one.now, store)
        return (
            f"now also stands on {now}" if one.was is None else f"{role}: {_known(one.was, store)} -> {now}"
        )
    if one.was is None:
        return f"now also stands on {dep_name(dep)}"
    return f"{dep.part} rows of {dep.step} changed" if isinstance(dep, Part) else f"{dep} changed"


def _known(fingerprint: str, store: Store) -> str:
    """A finished result in words: what it was called, when it was made, how its fingerprint begins."""
    record = store.record(fingerprint)
    short = fingerprint[:8]
    return f"{record['name']} of {record['created'][:10]} ({short})" if record else short


def _from_to(was: Any, now: Any) -> str:
    """Both values, numbers with four digits where these tell them apart."""
    before, after = _short(_rounded(was)), _short(_rounded(now))
    return f"{_short(was)} -> {_short(now)}" if before == after else f"{before} -> {after}"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _short(value: Any) -> str:
    text = "default" if value is None else repr(value)
    return text if len(text) <= 40 else text[:18] + "..." + text[-18:]


# --- where it began --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Root:
    """A step where a change began: in which fields it differs (none where it is new), and that in words."""

    name: str
    differences: tuple[Difference, ...]
    why: str


def roots(name: str, graph: Graph, store: Store, previous: Mapping[str, str]) -> list[Root]:
    """Where the change of a step began: the steps below it, or itself, that differ by themselves.

    A step differs by itself in its kind, version, settings or parts, in a result that is known, or in what
    it stands on at all; a new one, if nothing that it stands on is new. One whose earlier record is gone
    counts where nothing below it changed. Empty where the step is what it was.

    Args:
        previous: fingerprints of the last run, by step name.
    """
    found: dict[str, dict[str, Difference]] = {}  # by step and field
    seen, path = {name}, [name]
    while path:
        step = graph[path.pop()]
        if graph.fingerprints[step.name] == previous.get(step.name):
            continue
        own, below = _origin(step, graph, store, previous)
        for other, one in own:
            found.setdefault(other, {})
            if one is not None:
                found[other][one.field] = one
        path += [other for other in below if other not in seen]
        seen.update(below)
    steps = [step for step in graph if step.name in found]
    return [_root(step, tuple(found[step.name].values()), store, previous) for step in steps]


def _root(step: Step, own: tuple[Difference, ...], store: Store, previous: Mapping[str, str]) -> Root:
    return Root(step.name, own, told(own, step, store) if step.name in previous else NEW)


def _origin(
    step: Step, graph: Graph, store: Store, previous: Mapping[str, str]
) -> tuple[list[tuple[str, Difference | None]], list[str]]:
    """What began at a changed step or at a part of what it stands on, and the changed steps to look at next."""
    if step.name not in previous:
        new = [other for other in above(step) if other not in previous]
        return ([] if new else [(step.name, None)]), new
    changed = [dep for dep in above(step) if graph.fingerprints[dep] != previous.get(dep)]
    explaining = _deps_that_explain(step, graph, previous)
    if explaining and step.pinned is None:
        return [], explaining
    differing = difference(step, graph, store, previous[step.name])
    if not differing:
        return ([] if changed else [(step.name, None)]), changed
    own: list[tuple[str, Difference | None]] = []
    below: list[str] = []
    for one in differing:
        what, _, role = one.field.partition(".")
        dep = step.deps.get(role) if what == "deps" else None
        if dep is None or isinstance(dep, Known) or dep_name(dep) not in changed:
            own.append((step.name, one))
        elif isinstance(dep, Part) and dep.step in previous:
            own.append((dep.step, Difference(f"parts.{dep.part}", one.was, one.now)))
        else:
            below.append(dep_name(dep))
    return own, below
