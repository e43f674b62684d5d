"""Steps `judge` and `changes`: paired differences between models on the same test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sabir.metrics import METRICS, limits
from sabir.names import MACRO, OWN
from sabir.power import detectable
from sabir.stats import (
    Difference,
    Verdict,
    bootstrap,
    bootstrap_macro,
    holm,
    paired_difference,
    paired_macro,
    values_of_pairs,
    verdict,
)
from sabir.stats.standings import standings, standings_macro
from sabir.work import Outcome, Work
from sabir.work.outputs import read_answers
from sabir.work.scores import SEED, keys_of, score_row, statistics

Pair = tuple[np.ndarray, np.ndarray]
Row = dict[str, Any]


def judge(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Compare each pair (a, b) on every language and on the mean over languages; rank all models.

    The p-values of one pair are corrected over its languages (Holm), and a language is better or worse only where its
    corrected p-value says so too; the macro row stands for itself. Where b is
    not better than the floor (the bare base), a is never "not worse" than it: the verdict is "undecided", and `why`
    says so. Models trained several times (inputs "<model>#2/<language>") are compared over examples and trainings.

    `standings`: the best model of each language and of the mean, and those not significantly worse. `over_seeds`:
    scores of models trained several times, every metric, with intervals that hold examples and trainings. `own`: the
    mean over languages of their own adapters, every metric.
    """
    for work in works:
        judged = _Judged(work)
        rows = [row for a, b in work.settings["pairs"] for row in judged.compared(a, b)]
        yield (
            work.name,
            {
                "result": {
                    "comparisons": rows,
                    "standings": list(judged.standings()),
                    "over_seeds": list(judged.over_seeds()),
                    "own": list(judged.own()),
                }
            },
        )


class _Judged:
    """The scores of all models of one step, read when they are first asked for."""

    def __init__(self, work: Work):
        self.work, self.settings = work, work.settings
        self.languages: list[str] = work.settings["languages"]
        self.statistics = cache(self._statistics)
        self.verdicts = cache(self._verdicts)
        self.keys = cache(self._keys)

    def _statistics(self, model: str, language: str, metric: str) -> np.ndarray:
        """(n, k), or of a model trained several times (trainings, n, k)."""
        seeds = range(2, self.settings["seeds"] + 1)
        names = [model, *(f"{model}#{seed}" for seed in seeds)]
        roles = [f"{name}/{language}" for name in names if f"{name}/{language}" in self.work.inputs]
        found = [statistics(self.work.inputs[role], metric) for role in roles]
        return found[0] if len(found) == 1 else np.stack(found)

    def _keys(self, language: str) -> list[str]:
        role = next(role for role in self.work.inputs if role.rpartition("/")[2] == language)
        return keys_of(self.work.inputs[role])

    def compared(self, a: str, b: str) -> Iterator[Row]:
        """The rows of one pair."""
        floor = self.settings["floor"]
        for row in self._rows(a, b):
            language = row["language"]
            first, named = (
                name if language == MACRO else name.replace("<language>", language) for name in (a, b)
            )
            why = None
            on_par = row["verdict"] == "not worse" and floor not in (None, a, b)
            if on_par and self.verdicts(b, floor)[language] != "better":
                row["verdict"] = "undecided"
                who = "the own adapters are" if named == OWN else f"{named} is"
                why = f"{who} not better than the bare base here, and two models at chance are not on par"
            yield {"a": first, "b": named, **row, "why": why}

    def _verdicts(self, a: str, b: str) -> dict[str, str]:
        return {row["language"]: row["verdict"] for row in self._rows(a, b)}

    def _rows(self, a: str, b: str) -> Iterator[Row]:
        metric = self.settings["metric"]
        pairs = {
            language: _alike(self.statistics(a, language, metric), self.statistics(b, language, metric))
            for language in self.languages
        }
        keys = {language: self.keys(language) for language in self.languages}
        return _compared(self.work, pairs, keys, mean_over=self.languages)

    def standings(self) -> Iterator[Row]:
        models, metric = self.settings["models"], self.settings["metric"]
        if not models:
            return
        value, given = METRICS.get(metric).facts["value"], _precision(self.work)
        for language in self.languages:
            by_name = {
                model.replace("<language>", language): self.statistics(model, language, metric)
                for model in models
            }
            found = standings(by_name, value, seed=SEED, clusters=self.keys(language), **given)
            yield {"language": language, "metric": metric, "best": found.best, "tied": list(found.tied)}
        by_model = {
            model: [self.statistics(model, language, metric) for language in self.languages]
            for model in models
        }
        keys = [self.keys(language) for language in self.languages]
        found = standings_macro(by_model, value, seed=SEED, keys=keys, **given)
        yield {"language": MACRO, "metric": metric, "best": found.best, "tied": list(found.tied)}

    def over_seeds(self) -> Iterator[Row]:
        for model in self.settings["models"]:
            for metric in self.settings["metrics"]:
                groups = [self.statistics(model, language, metric) for language in self.languages]
                if all(group.ndim == 2 for group in groups):
                    continue
                value, given = METRICS.get(metric).facts["value"], _precision(self.work)
                keys = [self.keys(language) for language in self.languages]
                for language, group, its_keys in zip(self.languages, groups, keys, strict=True):
                    found = bootstrap(group, value, seed=SEED, clusters=its_keys, **given)
                    yield self._over_seeds(
                        model.replace("<language>", language), language, metric, group, found
                    )
                if model != OWN:
                    found = bootstrap_macro(groups, value, seed=SEED, keys=keys, **given)
                    yield self._over_seeds(model, MACRO, metric, np.concatenate(groups, axis=-2), found)

    def own(self) -> Iterator[Row]:
        if OWN not in self.settings["models"]:
            return
        keys = [self.keys(language) for language in self.languages]
        for metric in self.settings["metrics"]:
            groups = [self.statistics(OWN, language, metric) for language in self.languages]
            value = METRICS.get(metric).facts["value"]
            found = bootstrap_macro(groups, value, seed=SEED, keys=keys, **_precision(self.work))
            unscored = sum(int(np.isnan(group).all(axis=-1).sum()) for group in groups)
            signature = f"{metric}|mean over languages:{','.join(self.languages)}"
            row = score_row(metric, found, unscored=unscored, undefined=0, signature=signature)
            yield {"model": OWN, "language": MACRO, "split": "test", **row, "seed": None}

    def _over_seeds(self, model: str, language: str, metric: str, group: np.ndarray, found: Any) -> Row:
        unscored = int(np.isnan(group).all(axis=-1).sum())
        trainings = 1 if group.ndim == 2 else len(group)
        signature = f"{metric}|mean over {trainings} trainings"
        row = score_row(metric, found, unscored=unscored, undefined=0, signature=signature)
        return {"model": model, "language": language, "split": "test", **row, "seed": None}


def _alike(a: np.ndarray, b: np.ndarray) -> Pair:
    """Both with a training of one for each of the other: a model trained once is the same in all."""
    if a.ndim == b.ndim:
        return a, b
    if a.ndim == 2:
        return np.broadcast_to(a, b.shape), b
    return a, np.broadcast_to(b, a.shape)


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
        keys = {language: keys_of(work.inputs[f"a/{language}"]) for language in pairs}
        facts: dict[str, dict[str, Any]] = {}
        for language, (ours, theirs) in pairs.items():
            new, old = values_of_pairs(ours, theirs, value)
            changed = _changed(work.inputs[f"a-outputs/{language}"], work.inputs[f"b-outputs/{language}"])
            facts[language] = {"old": old, "new": new, "changed": changed, "served": language in served}
        means = {key: _mean([facts[each][key] for each in served]) for key in ("old", "new", "changed")}
        facts[MACRO] = {**means, "served": bool(served)}
        rows = []
        names = {key: work.settings[key] for key in ("a", "b")}
        for row in _compared(work, pairs, keys, mean_over=served):
            rows.append({**names, **row, **facts[row["language"]]})
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


def _compared(
    work: Work, pairs: Mapping[str, Pair], keys: Mapping[str, Sequence[str]], *, mean_over: Sequence[str]
) -> Iterator[Row]:
    """A row for each language, and one for the mean over some of them, whose p-values are corrected together.

    `detectable`: the smallest true drop that these rows would show, for a language at the strictest of the corrected
    levels.
    """
    metric, margin, level = work.settings["metric"], work.settings["margin"], work.settings["level"]
    value, given = METRICS.get(metric).facts["value"], _precision(work)
    found = [
        paired_difference(*pair, value, seed=SEED, clusters=keys[language], **given)
        for language, pair in pairs.items()
    ]
    within = holm([one.p for language, one in zip(pairs, found, strict=True) if language in mean_over])
    by_language = dict(zip((language for language in pairs if language in mean_over), within, strict=True))
    corrected = [by_language.get(language, one.p) for language, one in zip(pairs, found, strict=True)]
    together = Difference(None, None, None, None, 0)
    if mean_over:
        pooled = [pairs[language] for language in mean_over]
        shared = [keys[language] for language in mean_over]
        together = paired_macro(pooled, value, seed=SEED, keys=shared, **given)
    seeds = max((1 if a.ndim == 2 else len(a) for a, _ in pairs.values()), default=1)
    lowest, highest = limits(metric)
    widest = highest - lowest
    for language, difference, p in zip(
        [*pairs, MACRO], [*found, together], [*corrected, together.p], strict=True
    ):
        tests = 1 if language == MACRO else max(1, len(mean_over))
        low, high = (
            None if end is None else min(max(end, -widest), widest)
            for end in (difference.low, difference.high)
        )
        yield {
            "language": language,
            "split": "test",
            "metric": metric,
            "difference": difference.difference,
            "low": low,
            "high": high,
            "p": p,
            "margin": margin,
            "verdict": _corrected(verdict(low, high, margin), p, level, margin),
            "n": difference.n,
            "groups": difference.groups,
            "seeds": seeds,
            "detectable": detectable(difference.low, difference.high, level, tests=tests),
        }


def _corrected(found: Verdict, p: float | None, level: float, margin: float) -> Verdict:
    """A verdict that stands with the corrected p-value: what is not significant is neither better nor worse."""
    if found not in ("better", "worse") or (p is not None and p < 1 - level):
        return found
    return "not worse" if found == "better" and margin > 0 else "undecided"


def _precision(work: Work) -> dict[str, Any]:
    return {"level": work.settings["level"], "resamples": work.settings["resamples"]}


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
