"""What a step costs beside its own work: on this machine's own processes, and on a Ray cluster of this machine.

python benchmarks/ray/overhead.py [--rounds 20] [--steps 20] [--address auto]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sabir.engine.backends import Backend
from sabir.engine.backends.local import LocalBackend, cpu_slots
from sabir.engine.backends.ray import RayBackend
from sabir.engine.job import Work
from sabir.engine.leases import Owner
from sabir.engine.run import Listener, run
from sabir.engine.steps import Graph, Step
from sabir.engine.store import Store
from sabir.engine.why import assess

ENV = {"PYTHONPATH": str(Path(__file__).parent)}


def nothing(works: Sequence[Work]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A step without work."""
    for work in works:
        yield work.name, {}


class Clock(Listener):
    """When each step was finished."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def finished(self, step: Step) -> None:
        self.at.append(time.perf_counter())


def chain(count: int, name: str) -> Graph:
    """Steps of which each stands on the one before: they run one after the other."""
    steps: list[Step] = []
    for number in range(count):
        steps.append(
            Step(
                name=f"{number:04}",
                kind="toy",
                run="overhead:nothing",
                settings={"name": name, "number": number},
                deps={"before": steps[-1].name} if steps else {},
            )
        )
    return Graph(steps)


def measure(name: str, backend: Backend, store: Store, count: int) -> list[float]:
    """Run a chain; seconds to the first finished step, and from each to the next."""
    graph, clock = chain(count, name), Clock()
    with Owner(store, name) as owner:
        clock.at.append(time.perf_counter())
        run(graph, assess(graph, store, {}), store, backend, run_id=name, listener=clock, owner=owner)
    return [after - before for before, after in zip(clock.at[:-1], clock.at[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rounds", type=int, default=20, help="of each backend in turn; the first is not counted"
    )
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--address", help="of a Ray cluster; without it one is started here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Store(Path(folder))
        log = store.path / "server.txt"
        local = LocalBackend(cpu_slots(1, 1), env=ENV, log=log)
        stack.callback(local.close)
        began = time.perf_counter()
        ray = RayBackend(
            given.address, workers=1, cpus=1, device="cpu", env=ENV, store_path=store.path, log=log
        )
        stack.callback(ray.close)
        print(f"Ray starts in {time.perf_counter() - began:.1f} s")
        backends: dict[str, Backend] = {"local": local, "ray": ray}
        found: dict[str, list[list[float]]] = {name: [] for name in backends}
        for number in range(given.rounds):
            for name, backend in backends.items():
                found[name].append(measure(f"{name}-{number:03}", backend, store, given.steps))
    medians = {}
    print("backend  first step ms  median ms  p95 ms")
    for name, rounds in found.items():
        steps = sorted(step for one in rounds[1:] for step in one[1:])
        medians[name] = statistics.median(steps) * 1000
        p95 = steps[int(0.95 * len(steps))] * 1000
        print(f"{name:7} {rounds[0][0] * 1000:14.0f} {medians[name]:10.1f} {p95:7.1f}")
    print(f"Ray's share of a step: {medians['ray'] - medians['local']:.1f} ms (reach 50)")


if __name__ == "__main__":
    main()
