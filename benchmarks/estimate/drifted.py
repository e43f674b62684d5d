"""NannyML's three-class demonstration data, whose second half has drifted: what estimators without labels say of it.

    python benchmarks/estimate/drifted.py nannyml-0.13.1-py3-none-any.whl [--level 0.9]

The wheel (`pip download nannyml --no-deps`) carries the data: 60,000 labelled applications for a card, the model's
probabilities of three cards, and 60,000 more whose labels came later. Each set is cut into ten stretches of 6,000: our
segments, those of the first set labelled. Shown are, of the stretches before the drift and after it, the mean estimate,
the mean interval, the truth, and how many intervals hold it.
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.estimate.judged import truth_of

STRETCHES = 10
DRIFTED = 5  # from this stretch of the second set on
NAMES = ("constant", "confidence", "doc", "atc", "cbpe", "cbpe-macro-f1")
SAID = "y_pred_proba_"

Rows = Sequence[dict[str, str]]


def tables(place: Path) -> tuple[Rows, Rows]:
    """Labelled rows, and later ones with the labels that they got in the end.

    Args:
        place: a wheel of nannyml, or the folder of an installed one.
    """
    reference, analysis, gold = (
        _table(place, name) for name in ("mc_reference", "mc_analysis", "mc_analysis_gt")
    )
    labels = {row["id"]: row["y_true"] for row in gold}
    return reference, [row | {"y_true": labels[row["id"]]} for row in analysis]


def _table(place: Path, name: str) -> Rows:
    inside = f"datasets/data/{name}.csv"
    if place.is_dir():
        with open(place / inside, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    with zipfile.ZipFile(place) as files, files.open(f"nannyml/{inside}") as raw:
        return list(csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline="")))


def evidence(rows: Rows, name: str) -> Evidence:
    """The rows in the order of time, in stretches of one length."""
    columns = [column for column in rows[0] if column.startswith(SAID)]
    labels = {column.removeprefix(SAID): place for place, column in enumerate(columns)}
    shares = np.array([[float(row[column]) for column in columns] for row in rows])
    shares /= shares.sum(axis=1, keepdims=True)  # they are rounded to hundredths
    answer, truth = (np.array([labels[row[column]] for row in rows]) for column in ("y_pred", "y_true"))
    return Evidence(
        tuple(Segment("en", "", f"{name} {stretch}") for stretch in range(STRETCHES)),
        np.arange(len(rows)) * STRETCHES // len(rows),
        probabilities=shares,
        confidence=shares[np.arange(len(rows)), answer],
        answer=answer,
        truth=truth,
        error=(answer != truth).astype(float),
    )


def estimated(
    name: str, reference: Evidence, later: Evidence, level: float
) -> tuple[list[Estimate], np.ndarray]:
    """What an estimator says of each stretch, which it sees without labels, and the true errors."""
    entry = ESTIMATORS.get(name)
    found = entry.function(reference, later.without_labels(), level=level)
    return found, truth_of(later, entry.facts["metric"]).true


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--level", type=float, default=0.9)
    arguments = parser.parse_args()
    rows = tables(arguments.wheel)
    reference, later = evidence(rows[0], "labelled"), evidence(rows[1], "later")
    print("| estimator | half | 1 - error, estimated | interval | true | intervals that hold the truth |")
    print("|---|---|--:|---|--:|--:|")
    said = {}
    for name in NAMES:
        found, true = estimated(name, reference, later, arguments.level)
        for half, places in (("as before", range(DRIFTED)), ("drifted", range(DRIFTED, STRETCHES))):
            mine = [found[place] for place in places]
            low, high, point = (
                np.mean([getattr(one, end) for one in mine]) for end in ("low", "high", "error")
            )
            held = sum(found[place].low <= true[place] <= found[place].high for place in places)
            print(
                f"| {name} | {half} | {1 - point:.3f} | [{1 - high:.3f}, {1 - low:.3f}] | "
                f"{1 - true[list(places)].mean():.3f} | {held} of {len(mine)} |"
            )
            said[name, half] = (mine[0].how, mine[0].flags)
    for (name, half), (how, flags) in said.items():
        print(f"{name}, {half}: {how}; {'; '.join(flags) or 'no flag'}")


if __name__ == "__main__":
    main()
