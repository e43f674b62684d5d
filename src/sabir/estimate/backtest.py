"""How far off each estimator would have been: languages and domains are left out in turn, their labels hidden.

An estimator is given the labelled rest as its reference, and what is left out as if nobody had labelled it; then the
labels are looked at. One that lives on a few labels is shown some of them, drawn by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sabir.catalog import Entry
from sabir.estimate.best import Best, best_of
from sabir.estimate.evidence import Estimate, Evidence
from sabir.estimate.folds import estimated_apart, folds
from sabir.estimate.judged import Chance, Judged, truth_of
from sabir.estimate.summary import Summary, summarised

OF_MEMBERS = frozenset(("agreement", "pairs", "member_error"))  # what depends on who the members are
REVEALED = 50  # labels shown to an estimator that needs some


@dataclass(frozen=True)
class Backtest:
    """What was estimated of each segment left out, what that comes to, and whom to trust.

    Args:
        segments: a row a segment, estimator, kind of members and way of leaving out.
        summary: see there.
        best: None where nothing could be judged.
        warnings: what could not be judged, and why.
        level: of the intervals of estimates and of the summary.
    """

    segments: tuple[Judged, ...]
    summary: tuple[Summary, ...]
    best: Best | None
    level: float
    warnings: tuple[str, ...] = ()


def backtest(
    evidence: Mapping[str, Evidence],
    *,
    estimators: Sequence[str] | None = None,
    level: float = 0.9,
    by: Sequence[str] = ("language", "domain"),
    chance: Chance = None,
    labels: int = REVEALED,
    seed: int = 0,
) -> Backtest:
    """Leave each language out, and each domain where there are several, and hold every estimator against the truth.

    Args:
        evidence: by kind of members the evidence of the same model and texts; rows without a label are left out.
            Estimators that look at no members are judged once.
        estimators: names of the catalogue; None: all. Those whose needs this evidence does not meet are named in
            `warnings`.
        level: of the intervals asked for.
        by: what is left out.
        chance: the error of answering by chance, of each segment or of all; None: 1, as of texts. Where the model
            is not clearly better its rows are marked: an error that cannot grow needs no estimate.
        labels: shown to estimators that need labels, of each segment of at least twice as many texts.
        seed: of which these are.
    Raises ValueError for no evidence, and for evidence without labels.
    """
    from sabir.estimate.estimators import ESTIMATORS

    if not evidence:
        raise ValueError("there is no evidence to judge by; expected one by kind of members")
    known: dict[str, Evidence] = {}
    for kind, each in evidence.items():
        if not each.labelled.any():
            raise ValueError(f"the evidence of {kind} has no labels; a backtest needs the truth")
        known[kind] = each.take(each.labelled)
    rows: list[Judged] = []
    warnings: list[str] = []
    for name in ESTIMATORS.names() if estimators is None else estimators:
        entry = ESTIMATORS.get(name)
        meant = _evidence_for(entry, known)
        if not meant:
            lacking = _lacking(entry, next(iter(known.values())))
            warnings.append(
                f"{name} was not judged: it needs {', '.join(lacking)}, which these rows do not have."
            )
        shown = labels if "labels" in entry.facts["needs"] else 0
        asked = _Asked(entry, level, tuple(by), chance, shown, seed)
        for members, each in meant:
            found = [replace(row, members=members) for row in asked.of(each)]
            rows += found
            warnings += _silence(found)
    if not any(len({getattr(one, kind) for one in next(iter(known.values())).segments}) > 1 for kind in by):
        warnings.append(f"Nothing can be left out: there is one {' and one '.join(by)}.")
    return _backtest(rows, level, ("part", "language"), warnings)


def pooled(backtests: Mapping[str, Sequence[Backtest]]) -> Backtest:
    """Several backtests as one: parts by name (data sets, ways of answering), each of several trainings.

    Intervals hold other segments: those of one part, language and domain count as one over all its trainings. Ranks and
    regret are taken within each training, then averaged.
    Raises ValueError for backtests of several levels.
    """
    every = [one for replicates in backtests.values() for one in replicates]
    levels = {one.level for one in every}
    if len(levels) != 1:
        raise ValueError(f"backtests have levels {sorted(levels)}; expected one")
    rows = [
        replace(row, part=part, replicate=replicate)
        for part, replicates in backtests.items()
        for replicate, one in enumerate(replicates)
        for row in one.segments
    ]
    warnings = dict.fromkeys(warning for one in every for warning in one.warnings)
    return _backtest(rows, levels.pop(), ("part", "language", "domain"), list(warnings))


def _backtest(
    rows: Sequence[Judged], level: float, clusters: Sequence[str], warnings: Sequence[str]
) -> Backtest:
    summary = summarised(rows, level=level, clusters=clusters)
    best = best_of(rows, summary, level=level, clusters=clusters)
    return Backtest(tuple(rows), summary, best, level, tuple(warnings))


def _evidence_for(entry: Entry, known: Mapping[str, Evidence]) -> list[tuple[str | None, Evidence]]:
    """The evidence that an estimator is judged on: of every kind of members, or once."""
    fitting = [(kind, each) for kind, each in known.items() if not _lacking(entry, each)]
    if OF_MEMBERS & set(entry.facts["needs"]):
        return list(fitting)
    fitting.sort(key=lambda found: found[0] != "all")  # some make use of members where there are any
    return [(None, each) for _, each in fitting[:1]]


def _lacking(entry: Entry, evidence: Evidence) -> list[str]:
    return [need for need in entry.facts["needs"] if need != "labels" and not _has(evidence, need)]


def _has(evidence: Evidence, need: str) -> bool:
    values = getattr(evidence, need)
    if values is None or not values.size:
        return False
    return not (np.issubdtype(values.dtype, np.floating) and np.isnan(values).all())


def _silence(rows: Sequence[Judged]) -> list[str]:
    """A sentence where an estimator over some members said nothing of segments, with the first reason it gave."""
    silent = [row for row in rows if row.estimated is None]
    if not silent:
        return []
    over = "" if silent[0].members is None else f" over {silent[0].members}"
    why = f": {silent[0].how}" if silent[0].how else ""
    return [f"{silent[0].estimator}{over} said nothing of {len(silent)} of {len(rows)} segments{why}."]


@dataclass(frozen=True)
class _Asked:
    """An estimator, and how it is asked; the fields are those of `backtest`."""

    entry: Entry
    level: float
    by: tuple[str, ...]
    chance: Chance
    labels: int
    seed: int

    def of(self, evidence: Evidence) -> Iterator[Judged]:
        """What it says of each part of evidence that is left out, beside the truth."""
        several = len({segment.language for segment in evidence.segments}) > 1
        for fold in folds(evidence, self.by):
            held = evidence.take(fold.held)
            if self.labels:
                held = _one_by_one(held.take((held.n >= 2 * self.labels)[held.segment]))
            if not len(held):
                continue
            production = _revealed(held, self.labels, self.seed) if self.labels else held.without_labels()
            estimates = estimated_apart(
                self.estimator, evidence.take(~fold.held), production, halved=not self.labels
            )
            looks = bool(set(self.entry.facts["needs"]) - {"error"})
            for row in self.rows(held, estimates):
                yield replace(row, fold=fold.kind, informed=looks or (fold.kind != "language" and several))

    def estimator(self, reference: Evidence, production: Evidence) -> Sequence[Estimate]:
        found: Sequence[Estimate] = self.entry.function(reference, production, level=self.level)
        return found

    def rows(self, held: Evidence, estimates: Sequence[Estimate]) -> Iterator[Judged]:
        """Each segment held beside its truth."""
        metric = self.entry.facts["metric"]
        truth = truth_of(held, metric, self.chance)
        found = {estimate.segment: estimate for estimate in estimates}
        for place, segment in enumerate(held.segments):
            estimate = found.get(segment, Estimate(segment, self.entry.name, None, None, None, self.level, 0))
            yield Judged(
                segment=segment,
                estimator=self.entry.name,
                members=None,
                fold="",
                metric=metric,
                estimated=estimate.error,
                true=float(truth.true[place]),
                low=estimate.low,
                high=estimate.high,
                n=round(held.n[place]),
                labels=self.labels,
                sampling=float(truth.sampling[place]),
                near_chance=bool(truth.near_chance[place]),
                how=estimate.how,
            )


def _one_by_one(evidence: Evidence) -> Evidence:
    """With a row for each text."""
    if evidence.count is None:
        return evidence
    rows = np.repeat(np.arange(len(evidence)), evidence.count.astype(int))
    return replace(evidence.take(rows), count=None)


def _revealed(held: Evidence, shown: int, seed: int) -> Evidence:
    """With the labels of that many texts of each segment, drawn by chance; the others are hidden."""
    known = np.zeros(len(held), bool)
    for place, segment in enumerate(held.segments):
        rng = np.random.default_rng([seed, *str(segment).encode()])
        known[rng.choice(np.flatnonzero(held.segment == place), shown, replace=False)] = True
    hidden: dict[str, Any] = {
        name: np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, -1 if name == "truth" else np.nan)
        for name in ("error", "truth", "member_error")
        if (values := getattr(held, name)) is not None
    }
    return replace(held, **hidden)
