"""A drop planted in one language: how often is that language named, from 500 texts without labels?

The rows of a data set, with the answers of its fine-tuned models, are the population: the labelled reference and the
texts without labels of every trial are drawn from it with replacement. In one language the texts are made harder
(those that the model has wrong come more often), or the model worse (right answers are turned into wrong ones), until
its error is higher by the drop. A language is named where its expected error has risen significantly (Holm over
languages, 5 %), the most significant one where there are several:

- disagreement, confidence: above that of the labelled reference (`sequence.drift`)
- same texts: above that of the model before it got worse, on the same texts (`change.worse`), as for a new merge that
  is held against the release in use

Usage: python benchmarks/without_labels/drop.py CONFIG... --out drop.json [--trials 100] [--texts 500]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from study import evidence_of_config

from sabir.estimate.calibration import curve
from sabir.estimate.change import worse
from sabir.estimate.evidence import Evidence, Segment, segmented
from sabir.estimate.sequence import drift

DROPS = (0.0, 0.05, 0.1, 0.15, 0.2)
LANGUAGES = 5
ALPHA = 0.05


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("configs", type=Path, nargs="+")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--trials", type=int, default=100)
    asked.add_argument("--texts", type=int, default=500)
    given = asked.parse_args()
    rows = []
    for config in given.configs:
        evidence = by_language(next(iter(evidence_of_config(config, "fine-tuned"))))
        for how in ("harder texts", "a worse model"):
            for signal in ("disagreement", "confidence", *(["same texts"] if how == "a worse model" else [])):
                for drop in DROPS:
                    found = trials(evidence, how, signal, drop, given.trials, given.texts)
                    rows.append({"data": config.stem, "how": how, "signal": signal, "drop": drop, **found})
                    print(rows[-1], flush=True)
    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def by_language(evidence: Evidence) -> Evidence:
    """One segment a language, of the five with most rows."""
    sizes: dict[str, float] = {}
    for segment, n in zip(evidence.segments, evidence.n, strict=True):
        sizes[segment.language] = sizes.get(segment.language, 0) + n
    kept = sorted(sizes, key=lambda one: -sizes[one])[:LANGUAGES]
    names = [Segment(evidence.segments[place].language) for place in evidence.segment]
    mine = np.array([name.language in kept for name in names])
    segments, places = segmented([name for name in names if name.language in kept])
    return replace(evidence.take(mine), segments=segments, segment=places, keys=None)


def trials(
    evidence: Evidence, how: str, signal: str, drop: float, count: int, texts: int
) -> dict[str, float]:
    """Shares of trials in which the language with the drop is named, and in which another one is."""
    right, wrong, any_false = 0, 0, 0
    for trial in range(count):
        rng = np.random.default_rng([trial, round(100 * drop)])
        reference, _ = drawn(evidence, rng, None)
        hit = evidence.segments[trial % len(evidence.segments)]
        before, production = drawn(evidence, rng, texts, hit=hit if drop else None, drop=drop, how=how)
        if signal == "same texts":
            p = worse(before, production, curve(reference))
        else:
            p = drift(reference, production, *values(reference, production, signal))
        raised = [place for place, one in enumerate(p) if one is not None and one <= ALPHA]
        named = min(raised, key=lambda place: p[place]) if raised else None
        is_hit = drop > 0 and named is not None and production.segments[named] == hit
        right += is_hit
        wrong += named is not None and not is_hit
        any_false += any(not drop or production.segments[place] != hit for place in raised)
    return {"named": right / count, "another_named": wrong / count, "any_false_alarm": any_false / count}


def values(reference: Evidence, production: Evidence, signal: str) -> tuple[np.ndarray, np.ndarray]:
    """What is held against each other: expected errors by the curve of the reference, or 1 - confidence."""
    if signal == "disagreement":
        read = curve(reference)
        return read.rows(reference), read.rows(production)
    assert reference.confidence is not None
    assert production.confidence is not None
    return 1 - reference.confidence, 1 - production.confidence


def drawn(
    evidence: Evidence,
    rng: np.random.Generator,
    texts: int | None,
    *,
    hit: Segment | None = None,
    drop: float = 0.0,
    how: str = "",
) -> tuple[Evidence, Evidence]:
    """Texts of every language with replacement, as many as there are unless said, before and after the drop in one."""
    chosen, flipped = [], []
    assert evidence.error is not None
    for place, segment in enumerate(evidence.segments):
        mine = np.flatnonzero(evidence.segment == place)
        error = evidence.error[mine]
        weights = np.ones(len(mine))
        flips = np.zeros(texts or len(mine), bool)
        if segment == hit and how == "harder texts":
            weights = np.where(
                error == 1, (error.mean() + drop) / error.mean(), 1 - drop / (1 - error.mean())
            )
        rows = rng.choice(mine, texts or len(mine), p=weights / weights.sum())
        if segment == hit and how == "a worse model":
            right = evidence.error[rows] == 0
            flips = right & (rng.random(len(rows)) < drop / (1 - error.mean()))
        chosen.append(rows)
        flipped.append(flips)
    found = evidence.take(np.concatenate(chosen))
    return found, flip(found, np.concatenate(flipped))


def flip(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """With the other one of two labels answered in these rows."""
    if not rows.any():
        return evidence
    assert evidence.agreement is not None
    assert evidence.error is not None
    return replace(
        evidence,
        agreement=np.where(rows[:, None], 1 - evidence.agreement, evidence.agreement),
        error=np.where(rows, 1 - evidence.error, evidence.error),
    )


if __name__ == "__main__":
    main()
