"""Steps and the graph they form: what is to be made, and what each thing stands on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sabir.engine.fingerprint import canonical, fingerprint


@dataclass(frozen=True)
class Part:
    """One part of another step's output: who stands on it is not touched when the other parts change."""

    step: str
    part: str


@dataclass(frozen=True)
class Known:
    """A finished result, named by its fingerprint: what stands on it needs no step that makes it."""

    fingerprint: str


Dep = str | Part | Known


@dataclass(frozen=True)
class Step:
    """One unit of work that fills one folder.

    Identity is `kind`, `version`, `settings` and `deps` (role -> name of a step, a `Part` of one, or a result
    that is `Known`).
    `parts` names the parts of the output, with digests that are known before the step runs.
    A `pinned` step is an old result that stands in for this one: the fingerprint is given, nothing runs, and
    `note` says so. Everything after that is outside the identity: `args` (paths, devices and the like),
    `batch` (ready steps of one function with the same key may share one job), `size` (amount of work, for
    estimates; steps of one kind compare), `priority` (smaller starts first), `resumable` (an unfinished
    folder is kept for the next try), `preload` (a module that is slow to import and should be there already
    in the process that runs the step).

    Raises TypeError for settings that have no canonical form.
    """

    name: str
    kind: str
    run: str
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    deps: Mapping[str, Dep] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    pinned: str | None = None
    note: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    batch: str | None = None
    size: float | None = None
    priority: int = 0
    resumable: bool = False
    preload: str | None = None

    def __post_init__(self) -> None:
        settings = canonical(dict(self.settings), where=f"step {self.name!r}: settings")
        object.__setattr__(self, "settings", cast(dict[str, Any], settings))


class Graph:
    """Steps by name, in an order in which each stands only on earlier ones, with their fingerprints.

    Raises ValueError for a missing dependency or part, a circle, or two steps of one name. Two names may have
    one fingerprint (two recipes that come to the same): they are one piece of work.
    """

    def __init__(self, steps: Iterable[Step]):
        given: dict[str, Step] = {}
        for step in steps:
            if step.name in given:
                raise ValueError(f"two steps are named {step.name!r}")
            given[step.name] = step
        self._steps: dict[str, Step] = {}
        for name in given:
            self._place(name, given, ())
        self.fingerprints: dict[str, str] = {}
        for step in self:
            deps = self.identities(step)
            own = fingerprint(step.kind, step.version, step.settings, deps)
            self.fingerprints[step.name] = step.pinned or own

    def _place(self, name: str, given: Mapping[str, Step], above: tuple[str, ...]) -> None:
        if name in self._steps:
            return
        if name not in given:
            raise ValueError(f"step {above[-1]!r} stands on {name!r}, which is not in the graph")
        if name in above:
            raise ValueError(f"steps stand on each other in a circle: {' -> '.join([*above, name])}")
        for dep in given[name].deps.values():
            if isinstance(dep, Known):
                continue
            self._place(dep_name(dep), given, (*above, name))
            if isinstance(dep, Part) and dep.part not in given[dep.step].parts:
                raise ValueError(f"step {name!r} stands on part {dep.part!r} of {dep.step!r}, which has none")
        self._steps[name] = given[name]

    def identities(self, step: Step) -> dict[str, str]:
        """Role -> identity of what the step stands on: a fingerprint, or the digest of a part."""
        return {
            role: self._steps[dep.step].parts[dep.part] if isinstance(dep, Part) else self.result_of(dep)
            for role, dep in step.deps.items()
        }

    def result_of(self, dep: Dep) -> str:
        """Fingerprint of the folder that a dependency names."""
        return dep.fingerprint if isinstance(dep, Known) else self.fingerprints[dep_name(dep)]

    def below(self, name: str) -> set[str]:
        """Names of all steps that stand on this one, directly or not."""
        found: set[str] = set()
        for step in self:  # in order, so one pass is enough
            if any(other == name or other in found for other in above(step)):
                found.add(step.name)
        return found

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps.values())

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, name: object) -> bool:
        return name in self._steps

    def __getitem__(self, name: str) -> Step:
        return self._steps[name]


def above(step: Step) -> Iterator[str]:
    """Names of the steps that this one stands on."""
    return (dep_name(dep) for dep in step.deps.values() if not isinstance(dep, Known))


def dep_name(dep: str | Part) -> str:
    """The step that a dependency names."""
    return dep.step if isinstance(dep, Part) else dep
