"""What a step costs beside its own work: on this machine's own processes, and on a Ray cluster of this machine.

python benchmarks/ray/overhead.py [--steps 200] [--address auto]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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


def chain(count: int) -> Graph:
    """Steps of which each stands on the one before: they run one after the other."""
    steps = [Step(name="0000", kind="toy", run="overhead:nothing", settings={"number": 0})]
    for number in range(1, count):
        before = steps[-1].name
        steps.append(
            Step(
                name=f"{number:04}",
                kind="toy",
                run="overhead:nothing",
                settings={"number": number},
                deps={"before": before},
            )
        )
    return Graph(steps)


def measure(name: str, backend: Backend, store: Store, count: int, start_s: float) -> None:
    """Run the chain and print the median time from one finished step to the next."""
    graph, clock = chain(count), Clock()
    try:
        with Owner(store, name) as owner:
            began = time.perf_counter()
            run(graph, assess(graph, store, {}), store, backend, run_id=name, listener=clock, owner=owner)
    finally:
        backend.close()
    steps = [after - before for before, after in zip(clock.at[:-1], clock.at[1:], strict=True)]
    slow = statistics.quantiles(steps, n=20)[-1]
    first = clock.at[0] - began
    print(f"{name:6} {start_s:8.2f} {first:11.3f} {statistics.median(steps) * 1000:10.1f} {slow * 1000:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--address", help="of a Ray cluster; without it one is started here")
    given = parser.parse_args()
    print("backend start s  first step s  median ms   p95 ms")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "local")
        local = LocalBackend(cpu_slots(1, 1), env=ENV, log=store.path / "server.txt")
        measure("local", local, store, given.steps, 0.0)
        store = Store(Path(folder) / "ray")
        began = time.perf_counter()
        ray = RayBackend(
            given.address,
            workers=1,
            cpus=1,
            device="cpu",
            env=ENV,
            store_path=store.path,
            log=store.path / "server.txt",
        )
        measure("ray", ray, store, given.steps, time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
