"""The step that scores answers, whatever they are: empty, endless, in another language, no label, none at all."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sabir.errors import SabirError
from sabir.tasks import Prompt
from sabir.work.outputs import write_answers
from sabir.work.prepare import Example, write_examples
from sabir.work.scores import keys_of, scores, statistics

SUMMARY = "Die Lieferung kommt am Dienstag an"


def scored(tmp_path, answers, targets, *, task, metrics, labels=(), groups=None, max_unscored=0.05):
    outputs, rows, out = (tmp_path / name for name in ("outputs", "rows", "out"))
    for folder in (outputs, rows, out):
        folder.mkdir()
    examples = [
        Example(f"r{i}", Prompt("", f"text {i}", ""), target, group=(groups or [""] * len(targets))[i])
        for i, target in enumerate(targets)
    ]
    write_examples(rows, "test", examples)
    write_answers(outputs, [{"id": f"r{i}", **answer} for i, answer in enumerate(answers)])
    settings = {
        "language": "de",
        "metrics": list(metrics),
        "labels": list(labels),
        "level": 0.95,
        "resamples": 200,
    }
    args = {"split": "test", "task": task, "max_unscored": max_unscored, "encoder": None, "batch_size": 8}
    work = SimpleNamespace(
        name="scores/base/de/test",
        settings=settings,
        args=args,
        inputs={"outputs": outputs, "rows": rows},
        out=out,
        device="cpu",
    )
    [(_, outcome)] = scores([work])
    json.dumps(outcome, allow_nan=False)
    return outcome["result"], out


def texts(tmp_path, predictions, **more):
    task = {"name": "summarization", "settings": {}}
    targets = [SUMMARY] * len(predictions)
    return scored(tmp_path, predictions, targets, task=task, metrics=("rougeL", "chrf"), **more)


def test_answers_of_no_use_are_wrong_and_counted(tmp_path):
    answers = [
        {"prediction": SUMMARY},
        {"prediction": ""},
        {"prediction": "配達は火曜日に到着します"},
        {"prediction": "kommt kommt kommt kommt", "cut": True},
    ]
    result, out = texts(tmp_path, answers)
    assert result["answers"] == {"rows": 4, "empty": 1, "cut": 1, "unread": 0}
    right, empty, elsewhere, endless = statistics(out, "rougeL")[:, 0]
    assert (right, empty, elsewhere) == (1.0, 0.0, 0.0)
    assert 0 < endless < 0.5
    rouge = next(row for row in result["scores"] if row["metric"] == "rougeL")
    assert (rouge["n"], rouge["unscored"]) == (4, 0)
    assert rouge["value"] == pytest.approx(np.mean([right, empty, elsewhere, endless]))


def test_what_is_no_label_is_wrong_and_counted(tmp_path):
    labels = ("good", "good enough")
    task = {"name": "classification", "settings": {"labels": labels}}
    answers = [{"prediction": text} for text in ("good", "good enough", "goo", "")]
    result, _ = scored(
        tmp_path,
        answers,
        ["good", "good enough", "good", "good"],
        task=task,
        metrics=("accuracy",),
        labels=labels,
    )
    assert result["answers"] == {"rows": 4, "empty": 1, "cut": 0, "unread": 2}
    assert result["scores"][0]["value"] == 0.5
    assert result["rare_labels"] == list(labels)


def test_rows_without_an_answer_are_left_out_up_to_a_share_and_fail_above_it(tmp_path):
    answers = [{"prediction": SUMMARY}, {"prediction": None}, {"prediction": SUMMARY}]
    with pytest.raises(SabirError, match="1 of 3 rows have no answer that can be scored"):
        texts(tmp_path, answers)
    (tmp_path / "lax").mkdir()
    result, _ = texts(tmp_path / "lax", answers, max_unscored=0.5)
    assert [(row["n"], row["unscored"], row["value"]) for row in result["scores"]] == [(2, 1, 1.0)] * 2


def test_rows_of_one_group_are_one_witness(tmp_path):
    answers = [{"prediction": SUMMARY if i < 10 else ""} for i in range(20)]
    (tmp_path / "alone").mkdir()
    alone, _ = texts(tmp_path / "alone", answers)
    (tmp_path / "grouped").mkdir()
    groups = [f"document {i // 5}" for i in range(20)]
    grouped, out = texts(tmp_path / "grouped", answers, groups=groups)
    narrow, wide = (result["scores"][0] for result in (alone, grouped))
    assert (narrow["groups"], wide["groups"]) == (20, 4)
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])
    assert keys_of(out) == groups


def test_three_rows_say_so_and_stay_on_the_scale(tmp_path):
    result, _ = texts(tmp_path, [{"prediction": SUMMARY}, {"prediction": ""}, {"prediction": SUMMARY}])
    for row in result["scores"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["high"] - row["low"] > 0.6
