"""Steps `judge` and `changes`: paired differences between models on the same test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sabir.metrics import METRICS
from sabir.power import detectable
from sabir.stats import (
    Difference,
    holm,
    paired_difference,
    paired_macro,
    values_of_pairs,
    verdict,
)
from sabir.work import Outcome, Work
from sabir.work.outputs import read_answers
from sabir.work.scores import SEED, statistics

MACRO = "macro"  # stands for a language in the row of the mean over languages
Pair = tuple[np.ndarray, np.ndarray]


def judge(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Compare each pair (a, b) on every language and on the mean over languages.

    The p-values of one pair are corrected over its languages (Holm); the macro row stands for itself.
    """
    for work in works:
        rows = []
        for a, b in work.settings["pairs"]:
            pairs = _pairs(work, a, b)
            for row in _compared(work, pairs, mean_over=list(pairs)):
                named = b if row["language"] == MACRO else b.replace("<language>", row["language"])
                rows.append({"a": a, "b": named, **row})
        yield work.name, {"result": {"comparisons": rows}}


def changes(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """What a new release (a) does to every language, and to the mean over those that the old one (b) serves too.

    Rows as of `judge`, and in each: `new` and `old`, the scores on the rows that both have scored; `changed`, the
    share of rows answered otherwise (of the mean: its mean); `detectable`, the smallest true drop that these rows
    would show, for a language at the strictest of the corrected levels; `served`, whether the old one serves it.
    """
    for work in works:
        served = work.settings["served"]
        value = METRICS.get(work.settings["metric"]).facts["value"]
        pairs = _pairs(work, "a", "b")
        facts: dict[str, dict[str, Any]] = {}
        for language, (ours, theirs) in pairs.items():
            new, old = values_of_pairs(ours, theirs, value)
            changed = _changed(work.inputs[f"a-outputs/{language}"], work.inputs[f"b-outputs/{language}"])
            facts[language] = {"old": old, "new": new, "changed": changed, "served": language in served}
        means = {key: _mean([facts[each][key] for each in served]) for key in ("old", "new", "changed")}
        facts[MACRO] = {**means, "served": bool(served)}
        rows = []
        for row in _compared(work, pairs, mean_over=served):
            tests = 1 if row["language"] == MACRO else max(1, len(served))
            found = detectable(row["low"], row["high"], work.settings["level"], tests=tests)
            names = {key: work.settings[key] for key in ("a", "b")}
            rows.append({**names, **row, **facts[row["language"]], "detectable": found})
        yield work.name, {"result": {"changes": rows}}


def _pairs(work: Work, a: str, b: str) -> dict[str, Pair]:
    """The statistics of both models by language; a and b are the roles' first parts."""
    metric = work.settings["metric"]
    return {
        language: (
            statistics(work.inputs[f"{a}/{language}"], metric),
            statistics(work.inputs[f"{b}/{language}"], metric),
        )
        for language in work.settings["languages"]
    }


def _compared(work: Work, pairs: Mapping[str, Pair], *, mean_over: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each language, and one for the mean over some of them, whose p-values are corrected together."""
    metric, margin, level = work.settings["metric"], work.settings["margin"], work.settings["level"]
    value, resamples = METRICS.get(metric).facts["value"], work.settings["resamples"]
    found = [
        paired_difference(*pair, value, seed=SEED, level=level, resamples=resamples)
        for pair in pairs.values()
    ]
    within = holm([one.p for language, one in zip(pairs, found, strict=True) if language in mean_over])
    by_language = dict(zip((language for language in pairs if language in mean_over), within, strict=True))
    corrected = [by_language.get(language, one.p) for language, one in zip(pairs, found, strict=True)]
    together = Difference(None, None, None, None, 0)
    if mean_over:
        pooled = [pairs[language] for language in mean_over]
        together = paired_macro(pooled, value, seed=SEED, level=level, resamples=resamples)
    for language, difference, p in zip(
        [*pairs, MACRO], [*found, together], [*corrected, together.p], strict=True
    ):
        yield {
            "language": language,
            "split": "test",
            "metric": metric,
            "difference": difference.difference,
            "low": difference.low,
            "high": difference.high,
            "p": p,
            "margin": margin,
            "verdict": verdict(difference.low, difference.high, margin),
            "n": difference.n,
        }


def _changed(a: Path, b: Path) -> float | None:
    """The share of rows that two models answer otherwise; None when there are no rows."""
    ours, theirs = read_answers(a), read_answers(b)
    if [answer["id"] for answer in ours] != [answer["id"] for answer in theirs]:
        raise RuntimeError(f"the answers in {a} and {b} are not to the same rows")
    return _mean([float(x["prediction"] != y["prediction"]) for x, y in zip(ours, theirs, strict=True)])


def _mean(values: Sequence[float | None]) -> float | None:
    """None when there is none, or when one is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
