"""Steps `scores` and `macro`: answers against gold answers per language, and the mean over languages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sabir.metrics import METRICS, measure
from sabir.stats import Interval, bootstrap, bootstrap_macro
from sabir.work import Outcome, Work
from sabir.work.outputs import read_answers
from sabir.work.prepare import read_examples

SEED = 0  # of the bootstrap: intervals are the same on every machine


def scores(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Every metric of the task with its interval; the per-row statistics stay beside it as .npy files."""
    for work in works:
        answers = read_answers(work.inputs["outputs"])
        examples = read_examples(work.inputs["rows"], work.args["split"])
        if [answer["id"] for answer in answers] != [example.id for example in examples]:
            raise RuntimeError(f"{work.name}: answers and rows are not of the same rows")
        rows = []
        for metric in work.settings["metrics"]:
            measured = measure(
                metric,
                [answer["prediction"] for answer in answers],
                [example.target for example in examples],
                labels=work.settings["labels"],
                language=work.settings["language"],
            )
            interval = bootstrap(measured.statistics, measured.value, seed=SEED, **_precision(work))
            np.save(work.out / f"{metric}.npy", measured.statistics)
            rows.append(_row(metric, interval, measured.unscored, measured.signature))
        yield work.name, {"result": {"scores": rows}}


def macro(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """The mean over languages of every metric, each language counting the same, with its interval."""
    for work in works:
        rows = []
        for metric in work.settings["metrics"]:
            groups = [statistics(work.inputs[language], metric) for language in sorted(work.inputs)]
            value = METRICS.get(metric).facts["value"]
            interval = bootstrap_macro(groups, value, seed=SEED, **_precision(work))
            unscored = sum(int(np.isnan(group).all(axis=1).sum()) for group in groups)
            languages = ",".join(sorted(work.inputs))
            rows.append(_row(metric, interval, unscored, f"{metric}|mean over languages:{languages}"))
        yield work.name, {"result": {"scores": rows}}


def statistics(folder: Path, metric: str) -> Any:
    """Per-row statistics (n, k) of one metric, from the folder of a scores step."""
    return np.load(folder / f"{metric}.npy")


def _precision(work: Work) -> dict[str, Any]:
    return {"level": work.settings["level"], "resamples": work.settings["resamples"]}


def _row(metric: str, interval: Interval, unscored: int, signature: str) -> Mapping[str, Any]:
    return {
        "metric": metric,
        "value": _number(interval.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "level": interval.level,
        "n": interval.n,
        "unscored": unscored,
        "signature": signature,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
