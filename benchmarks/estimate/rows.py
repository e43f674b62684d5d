"""Ten million rows of member outputs, from a file to the estimated error of each segment: time and memory.

    python benchmarks/estimate/rows.py [--rows N] [--parquet] [--id-last] [--estimator NAME ...] [--folder FOLDER]

Writes a file of labels of five members and the model in use (seven labels, five languages, two domains) to a temporary
folder, and a labelled one of 20,000 rows. What is measured is a process of its own that reads both and estimates: wall
clock and processor seconds from its start, and the largest resident size of it and its children together, looked at ten
times a second. Last come the estimates beside the truth, which the file does not hold. With --id-last an id stands at
the end of its line, so that no two lines begin alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODEL = "merged/ties"
MEMBERS = tuple(f"adapter/{language}" for language in ("de", "en", "fr", "ja", "zh"))
LABELS = ("science", "travel", "politics", "sports", "health", "entertainment", "geography")
# share of texts that a model has wrong: of production, and of the labelled file
ERRORS = {
    "de": (0.12, 0.10), "en": (0.08, 0.08), "fr": (0.12, 0.14), "ja": (0.30, 0.18), "zh": (0.20, 0.20)
}  # fmt: skip
DOMAINS = ("news", "web")
SHARED = 0.4  # of mistakes are made by all models alike
WAYS = 20_000  # different rows of answers per segment


def answers(rng: np.random.Generator, error: float, ways: int) -> tuple[np.ndarray, np.ndarray]:
    """(ways,) gold labels and (ways, 6) of the model and its members."""
    gold = rng.integers(0, len(LABELS), ways)
    together = rng.random(ways) < SHARED * error
    alone = (error - SHARED * error) / (1 - SHARED * error)
    wrong = together[:, None] | (rng.random((ways, 1 + len(MEMBERS))) < alone)
    shift = rng.integers(1, len(LABELS), (ways, 1 + len(MEMBERS)))
    shift = np.where(together[:, None], shift[:, :1], shift)
    return gold, np.where(wrong, (gold[:, None] + shift) % len(LABELS), gold[:, None])


def pools(seed: int, which: int, *, labelled: bool) -> tuple[list[str], dict[str, float]]:
    """What rows hold behind their id, of all segments in equal parts, and the model's true error in each."""
    rng = np.random.default_rng(seed)
    lines, true = [], {}
    for language, errors in ERRORS.items():
        for domain in DOMAINS:
            gold, given = answers(rng, errors[which] * (1.2 if domain == "web" else 0.8), WAYS)
            true[f"{language}/{domain}"] = float((given[:, 0] != gold).mean())
            for label, row in zip(gold, given, strict=True):
                record = {
                    "language": language,
                    "domain": domain,
                    "outputs": {name: LABELS[one] for name, one in zip((MODEL, *MEMBERS), row, strict=True)},
                }
                if labelled:
                    record["label"] = LABELS[label]
                lines.append(json.dumps(record)[1:] + "\n")
    return lines, true


def write(path: Path, lines: list[str], rows: int, seed: int, *, id_last: bool = False) -> None:
    rng = np.random.default_rng(seed)
    lines = [f"{{{line[:-2]}, " for line in lines] if id_last else lines
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, rows, 100_000):
            drawn = rng.integers(0, len(lines), min(100_000, rows - start)).tolist()
            ids = (f'"id": "text-{number:09d}"' for number in range(start, start + len(drawn)))
            if id_last:
                file.writelines(f"{lines[place]}{one}}}\n" for one, place in zip(ids, drawn, strict=True))
            else:
                file.writelines(f"{{{one}, {lines[place]}" for one, place in zip(ids, drawn, strict=True))


def to_parquet(path: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    target = path.with_suffix(".parquet")
    writer = None
    with open(path, encoding="utf-8") as file:
        while lines := file.readlines(2**26):
            table = pyarrow.Table.from_pylist([json.loads(line) for line in lines])
            writer = writer or parquet.ParquetWriter(target, table.schema)
            writer.write_table(table)
    assert writer is not None
    writer.close()
    return target


def estimate(production: str, reference: str, estimators: list[str]) -> None:
    """What is measured; prints its findings as JSON."""
    started = time.perf_counter()
    from sabir.estimate.estimators import ESTIMATORS
    from sabir.work.member_outputs import read_outputs

    settings = {"model": MODEL, "members": MEMBERS}
    known = read_outputs(Path(reference), fields={"label": "label"}, **settings).evidence
    found = read_outputs(Path(production), fields={}, **settings)
    read = time.perf_counter()
    estimates = {
        name: [
            (str(one.segment), one.error, one.low, one.high)
            for one in ESTIMATORS.get(name).function(known, found.evidence, level=0.9)
        ]
        for name in estimators
    }
    print(
        json.dumps(
            {
                "rows": found.rows,
                "duplicates": found.duplicates,
                "counted": len(found.evidence),
                "read_s": read - started,
                "estimate_s": time.perf_counter() - read,
                "estimates": estimates,
            }
        )
    )


def resident(pid: int) -> int:
    """Bytes that a process and its children hold, shared pages counted for each."""
    total = 0
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        total += next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(map(resident, map(int, (task / "children").read_text(encoding="ascii").split())))
    except (OSError, StopIteration):
        pass  # it has ended
    return total


def measured(production: Path, reference: Path, estimators: list[str]) -> tuple[dict, float, float, int]:
    """What `estimate` found, and what it took: wall clock, processor seconds, bytes."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, "--measure", str(production), str(reference), *estimators]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--parquet", action="store_true", help="the same rows as parquet too")
    parser.add_argument("--id-last", action="store_true", help="ids at the end of their lines")
    parser.add_argument(
        "--estimator", nargs="+", default=["disagreement", "calibrated-disagreement", "constant"]
    )
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        production, reference = Path(name) / "production.jsonl", Path(name) / "reference.jsonl"
        lines, true = pools(1, 0, labelled=False)
        write(production, lines, arguments.rows, 2, id_last=arguments.id_last)
        write(reference, pools(3, 1, labelled=True)[0], 20_000, 4)
        print(f"{arguments.rows} rows, {production.stat().st_size / 1e9:.2f} GB")
        files = [production, to_parquet(production)] if arguments.parquet else [production]
        for path in files:
            found, wall, processor, peak = measured(path, reference, arguments.estimator)
            print(
                f"{path.suffix[1:]}: {wall:.1f} s ({processor:.1f} s of processors; {found['read_s']:.1f} s reading, "
                f"{found['estimate_s']:.1f} s estimating), {peak / 1e6:.0f} MB; {found['rows']} rows, "
                f"{found['duplicates']} ids twice, {found['counted']} counted rows"
            )
        for name, rows in found["estimates"].items():
            said = [(segment, error, low, high) for segment, error, low, high in rows if error is not None]
            off = np.mean([abs(error - true[segment]) for segment, error, _, _ in said]) if said else np.nan
            inside = sum(low is not None and low <= true[segment] <= high for segment, _, low, high in said)
            print(
                f"{name}: {len(said)} of {len(rows)} segments estimated, {100 * off:.1f} points off on average, "
                f"{inside} intervals hold the truth"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        estimate(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        main()
