"""What will run and why: the graph held against the store and against what stood there before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sabir.engine.fingerprint import differences
from sabir.engine.steps import Dep, Graph, Known, Part, Step, dep_name
from sabir.engine.store import Store
from sabir.errors import StoreError


@dataclass(frozen=True)
class Assessment:
    """One step before a run: `status` is "reused" or "run"; `record` is what the store knows of it."""

    step: Step
    fingerprint: str
    status: str
    why: str
    record: Mapping[str, Any] | None


def assess(graph: Graph, store: Store, previous: Mapping[str, str]) -> dict[str, Assessment]:
    """Every step with its status and the reason, by name.

    Args:
        previous: fingerprints of the last run, by step name; a changed field is found by comparing with them.
    Raises StoreError when a record is damaged, or a pinned result is gone: nothing can make it again.
    """
    found: dict[str, Assessment] = {}
    for step in graph:
        fingerprint = graph.fingerprints[step.name]
        record = store.record(fingerprint)
        if record is None and step.pinned is not None:
            raise StoreError(str(store.folder(fingerprint)), f"the old result of {step.name} is gone.")
        if record is not None:
            status, why = "reused", step.note or "nothing it stands on has changed"
        else:
            status, why = "run", _reason(step, graph, store, previous.get(step.name))
        found[step.name] = Assessment(step, fingerprint, status, why, record)
    return found


def _reason(step: Step, graph: Graph, store: Store, before: str | None) -> str:
    if before is None:
        return "new"
    if before == graph.fingerprints[step.name]:
        return "not finished yet, or its output is missing from the store"
    old = store.record(before)
    if old is None:
        return "changed"
    reasons = []
    if old["kind"] != step.kind or old["version"] != step.version:
        reasons.append(f"sabir computes {step.kind!r} anew (version {old['version']} -> {step.version})")
    parts = {*old["parts"], *step.parts}  # their digests are settings too: named below in words
    for path, was, now in differences(old["settings"], step.settings):
        if path not in parts:
            reasons.append(f"{path}: {_short(was)} -> {_short(now)}")
    changed_parts = [part for part in sorted(parts) if old["parts"].get(part) != step.parts.get(part)]
    if changed_parts:
        reasons.append(f"{', '.join(changed_parts)} rows changed")
    identities = graph.identities(step)
    for role in sorted({*old["deps"], *identities}):
        if old["deps"].get(role) == identities.get(role):
            continue
        if role not in identities:
            reasons.append(f"no longer stands on {role}")
        elif role not in old["deps"]:
            reasons.append(f"now also stands on {_named(step.deps[role], role)}")
        else:
            dep = step.deps[role]
            reasons.append(
                f"{dep.part} rows of {dep.step} changed"
                if isinstance(dep, Part)
                else f"{_named(dep, role)} changed"
            )
    return "; ".join(reasons) or "changed"


def _named(dep: Dep, role: str) -> str:
    return f"another {role}" if isinstance(dep, Known) else dep_name(dep)


def _short(value: Any) -> str:
    text = "default" if value is None else repr(value)
    return text if len(text) <= 40 else text[:18] + "..." + text[-18:]
