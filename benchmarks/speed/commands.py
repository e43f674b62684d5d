"""How long the commands take that a user types often, as whole processes.

    python benchmarks/speed/commands.py CONFIG [--repeats 7]

CONFIG is a project that has been run. Prints the minimum and median of each command in seconds, beside a bare
`python -c pass` and the reach that was set.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(command: list[str], repeats: int) -> tuple[float, float]:
    """Minimum and median wall time of a command; one run to warm the caches is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times[1:]), statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    sabir = [sys.executable, "-m", "sabir"]
    rows = [
        ("python -c pass", [sys.executable, "-c", "pass"], None),
        ("sabir --help", [*sabir, "--help"], 0.3),
        ("sabir plan", [*sabir, "plan", arguments.config], 0.5),
        ("sabir show", [*sabir, "show", arguments.config], 0.5),
        ("sabir run (nothing to do)", [*sabir, "run", arguments.config], 1.0),
    ]
    print(f"{'command':<28}{'min':>8}{'median':>8}{'reach':>8}")
    for name, command, reach in rows:
        least, middle = seconds(command, arguments.repeats)
        print(f"{name:<28}{least:>8.3f}{middle:>8.3f}{reach if reach else '':>8}")


if __name__ == "__main__":
    main()
