"""Steps `scores` and `macro`: answers against gold answers per language, and the mean over languages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sabir.errors import SabirError
from sabir.metrics import METRICS, Measured, limits, measure
from sabir.model.encoder import Encoder
from sabir.stats import Interval, bootstrap, bootstrap_macro
from sabir.stats.support import rare_labels
from sabir.tasks import Task
from sabir.work import Outcome, Work
from sabir.work.outputs import read_answers
from sabir.work.prepare import Example, read_examples, task_of

SEED = 0  # of the bootstrap: intervals are the same on every machine
ROWS = "rows.json"
Answer = Mapping[str, Any]


def scores(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Every metric of the task with its interval; the per-row statistics stay beside it as .npy files.

    `answers` counts the rows, and those answered by nothing, cut at the length limit, or by what is no label;
    `rare_labels` are those whose intervals of macro scores are too narrow.
    """
    for work in works:
        answers = read_answers(work.inputs["outputs"])
        examples = read_examples(work.inputs["rows"], work.args["split"])
        if [answer["id"] for answer in answers] != [example.id for example in examples]:
            raise RuntimeError(f"{work.name}: answers and rows are not of the same rows")
        predictions = _predictions(task_of(work), answers)
        _refuse_unscored(work, predictions)
        keys = [example.group or example.id for example in examples]
        rows = []
        for metric in work.settings["metrics"]:
            measured = _measured(work, metric, predictions, examples, answers)
            interval = bootstrap(
                measured.statistics, measured.value, seed=SEED, clusters=keys, **_precision(work)
            )
            np.save(work.out / f"{metric}.npy", measured.statistics)
            rows.append(
                score_row(
                    metric,
                    interval,
                    unscored=measured.unscored,
                    undefined=measured.undefined,
                    signature=measured.signature,
                )
            )
        (work.out / ROWS).write_text(json.dumps({"keys": keys}, ensure_ascii=False), encoding="utf-8")
        targets, labels = [example.target for example in examples], work.settings["labels"]
        yield (
            work.name,
            {
                "result": {
                    "scores": rows,
                    "answers": _counts(work, predictions, answers),
                    "rare_labels": rare_labels(targets, labels),
                }
            },
        )


def macro(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """The mean over languages of every metric, each language counting the same, with its interval."""
    for work in works:
        languages = sorted(work.inputs)
        keys = [keys_of(work.inputs[language]) for language in languages]
        scored = [_scores_of(work.inputs[language]) for language in languages]
        rows = []
        for metric in work.settings["metrics"]:
            groups = [statistics(work.inputs[language], metric) for language in languages]
            value = METRICS.get(metric).facts["value"]
            interval = bootstrap_macro(groups, value, seed=SEED, keys=keys, **_precision(work))
            single = [by_metric[metric] for by_metric in scored]
            rows.append(
                score_row(
                    metric,
                    interval,
                    unscored=sum(row["unscored"] for row in single),
                    undefined=sum(row["undefined"] for row in single),
                    signature=f"{metric}|mean over languages:{','.join(languages)}",
                )
            )
        yield work.name, {"result": {"scores": rows}}


def statistics(folder: Path, metric: str) -> Any:
    """Per-row statistics (n, k) of one metric, from the folder of a scores step."""
    return np.load(folder / f"{metric}.npy")


def keys_of(folder: Path) -> list[str]:
    """What each row of a scores step has in common with others: its group, else its id."""
    return json.loads((folder / ROWS).read_text(encoding="utf-8"))["keys"]


def score_row(
    metric: str, interval: Interval, *, unscored: int, undefined: int, signature: str
) -> Mapping[str, Any]:
    """One score as records and documents have it, its interval within the metric's scale."""
    ends, low = limits(metric), interval.low
    if ends[0] < 0 and interval.value == 0 == low and interval.high is not None:
        low = -interval.high  # one answer to all: 0 is in the middle of this scale, not at its end
    return {
        "metric": metric,
        "value": _number(interval.value),
        "low": _number(low, ends),
        "high": _number(interval.high, ends),
        "level": interval.level,
        "n": interval.n,
        "groups": interval.groups,
        "unscored": unscored,
        "undefined": undefined,
        "signature": signature,
    }


def _predictions(task: Task, answers: Sequence[Answer]) -> list[str | None]:
    return [None if one["prediction"] is None else task.read(one["prediction"]) for one in answers]


def _refuse_unscored(work: Work, predictions: Sequence[str | None]) -> None:
    """Fail where so many rows have no answer that the rest says little of the model."""
    missing, most = sum(one is None for one in predictions), work.args["max_unscored"]
    if missing > most * len(predictions):
        raise SabirError(
            work.name,
            f"{missing} of {len(predictions)} rows have no answer that can be scored; at most a share of "
            f"{most:g} may.",
            f"Look at {work.inputs['outputs'] / 'outputs.jsonl'}, or raise evaluate.max_unscored.",
        )


def _measured(
    work: Work,
    metric: str,
    predictions: Sequence[str | None],
    examples: Sequence[Example],
    answers: Sequence[Answer],
) -> Measured:
    return measure(
        metric,
        predictions,
        [example.target for example in examples],
        labels=work.settings["labels"] or None,
        language=work.settings["language"],
        sources=[example.prompt.source for example in examples],
        scores=[answer.get("scores") for answer in answers],
        encoder=_encoder(work),
    )


def _encoder(work: Work) -> Encoder | None:
    if work.args["encoder"] is None:
        return None
    identity, layer = work.settings["encoder"]
    return Encoder(
        work.args["encoder"], identity, layer, batch_size=work.args["batch_size"], device=work.device
    )


def _counts(work: Work, predictions: Sequence[str | None], answers: Sequence[Answer]) -> dict[str, int]:
    labels = work.settings["labels"]
    return {
        "rows": len(answers),
        "empty": sum(one is not None and not one.strip() for one in predictions),
        "cut": sum(bool(answer.get("cut")) for answer in answers),
        "unread": sum(bool(labels) and one is not None and one not in labels for one in predictions),
    }


def _scores_of(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The scores of a scores step by metric."""
    record = json.loads((folder / "record.json").read_bytes())
    return {row["metric"]: row for row in record["result"]["scores"]}


def _precision(work: Work) -> dict[str, Any]:
    return {"level": work.settings["level"], "resamples": work.settings["resamples"]}


def _number(value: float | None, ends: tuple[float, float] = (-math.inf, math.inf)) -> float | None:
    """A number between the ends of a scale: an interval over few rows may pass them."""
    return None if value is None or math.isnan(value) else min(max(float(value), ends[0]), ends[1])
