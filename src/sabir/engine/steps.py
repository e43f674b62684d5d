"""Steps and the graph they form: what is to be made, and what each thing stands on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

from sabir.engine.fingerprint import Canonical, fingerprint


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


class _Settings:
    """The settings of a step: taken as a mapping or in canonical form, given as a copy that one may change.

    Source: descriptor-typed fields, https://docs.python.org/3/library/dataclasses.html.
    """

    @overload
    def __get__(self, step: None, owner: type) -> Canonical: ...
    @overload
    def __get__(self, step: Step, owner: type) -> dict[str, Any]: ...
    def __get__(self, step: Step | None, owner: type) -> Canonical | dict[str, Any]:
        return Canonical("{}") if step is None else step.canonical.value()  # the first is the field's default

    def __set__(self, step: Step, given: Mapping[str, Any] | Canonical) -> None:
        if not isinstance(given, Canonical):
            given = Canonical.of(given, where=f"step {step.name!r}: settings")
        step.__dict__["canonical"] = given


@dataclass(frozen=True)
class Step:
    """One unit of work that fills one folder.

    Identity is `kind`, `version`, `settings` and `deps` (role -> name of a step, a `Part` of one, or a result
    that is `Known`). Settings are kept as text (`canonical`): steps that have the same may be given one
    `Canonical`, and each time they are read, they are a new dict.
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
    settings: _Settings = _Settings()
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

    @property
    def canonical(self) -> Canonical:
        """The settings as they enter the fingerprint."""
        return self.__dict__["canonical"]


class Graph:
    """Steps by name, in an order in which each stands only on earlier ones, with their fingerprints.

    Raises ValueError for a missing dependency or part, a circle, or two steps of one name. Two names may have
    one fingerprint (two recipes that come to the same): they are one piece of work.

    Args:
        on: a graph whose steps come first; the new ones may stand on them.
    """

    def __init__(self, steps: Iterable[Step], *, on: Graph | None = None):
        self._steps: dict[str, Step] = dict(on._steps) if on else {}
        self.fingerprints: dict[str, str] = dict(on.fingerprints) if on else {}
        given: dict[str, Step] = {}
        for step in steps:
            if step.name in given or step.name in self._steps:
                raise ValueError(f"two steps are named {step.name!r}")
            given[step.name] = step
        for name in given:
            self._place(name, given)

    def _place(self, name: str, given: Mapping[str, Step]) -> None:
        """Place a step after all it stands on; `path` leads from it to the one being looked at."""
        path = {} if name in self._steps else {name: above(given[name])}
        while path:
            top = next(reversed(path))
            for below in path[top]:
                if below in self._steps:
                    continue
                if below not in given:
                    raise ValueError(f"step {top!r} stands on {below!r}, which is not in the graph")
                if below in path:
                    circle = " -> ".join([*path, below])
                    raise ValueError(f"steps stand on each other in a circle: {circle}")
                path[below] = above(given[below])
                break
            else:
                del path[top]
                step = self._steps[top] = given[top]
                self.fingerprints[top] = self._identity(step)

    def _identity(self, step: Step) -> str:
        deps = self.identities(step)
        return step.pinned or fingerprint(step.kind, step.version, step.canonical, deps)

    def identities(self, step: Step) -> dict[str, str]:
        """Role -> identity of what the step stands on: a fingerprint, or the digest of a part."""
        return {
            role: self._digest_of(dep, step) if isinstance(dep, Part) else self.result_of(dep)
            for role, dep in step.deps.items()
        }

    def _digest_of(self, dep: Part, step: Step) -> str:
        parts = self._steps[dep.step].parts
        if dep.part not in parts:
            raise ValueError(
                f"step {step.name!r} stands on part {dep.part!r} of {dep.step!r}, which has none"
            )
        return parts[dep.part]

    def result_of(self, dep: Dep) -> str:
        """Fingerprint of the folder that a dependency names."""
        return dep.fingerprint if isinstance(dep, Known) else self.fingerprints[dep_name(dep)]

    def only(self, names: Iterable[str]) -> Graph:
        """These steps and all that they stand on."""
        wanted: set[str] = set()
        queue = list(names)
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                queue += above(self[name])
        return Graph(step for step in self if step.name in wanted)

    def below(self, name: str) -> set[str]:
        """Names of all steps that stand on this one, directly or not."""
        found: set[str] = set()
        queue = deque([name])
        while queue:
            new = [other for other in self._standing.get(queue.popleft(), ()) if other not in found]
            found.update(new)
            queue.extend(new)
        return found

    @cached_property
    def _standing(self) -> dict[str, list[str]]:
        """Names of the steps that stand on each, directly; a graph never changes."""
        standing: dict[str, list[str]] = {}
        for step in self:
            for other in set(above(step)):
                standing.setdefault(other, []).append(step.name)
        return standing

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
