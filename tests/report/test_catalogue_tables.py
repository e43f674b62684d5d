"""What `sabir list` says of tasks, metrics and estimators."""

from __future__ import annotations

import dataclasses

import pytest

from sabir.errors import InputError
from sabir.estimate.evidence import Evidence
from sabir.report.catalogue import KINDS, entries, table


def by_name(what):
    return {entry["name"]: entry for entry in entries(what)}


def test_a_metric_says_which_answers_it_fits_and_what_it_needs():
    found = by_name("metrics")
    assert (found["macro_f1"]["fits"], found["macro_f1"]["needs"]) == (["label"], ["labels"])
    assert set(found["accuracy"]["fits"]) == {"label", "choice"}
    assert found["chrf"]["needs"] == []
    assert found["f1_at_5"]["fits"] == ["phrases"]


def test_every_metric_fits_some_task_and_every_task_is_judged_by_metrics_that_fit_it():
    metrics, tasks = by_name("metrics"), by_name("tasks")
    answers = {task["answer"] for task in tasks.values()}
    assert answers == {"label", "choice", "text", "phrases"}
    assert all(set(metric["fits"]) <= answers and metric["fits"] for metric in metrics.values())
    for task in tasks.values():
        assert task["metrics"]
        assert all(task["answer"] in metrics[name]["fits"] for name in task["metrics"])


def test_an_estimator_says_what_it_needs_and_assumes_and_where_it_comes_from():
    found = by_name("estimators")
    assert found["atc"]["needs"] == ["confidence"]
    assert found["cbpe-macro-f1"]["metric"] == "macro_f1"
    # Of texts and keyphrases no confidence is known.
    assert all(
        set(row["answers"]) <= {"label", "choice"} for row in found.values() if "confidence" in row["needs"]
    )
    fields = {field.name for field in dataclasses.fields(Evidence)}
    for row in found.values():
        assert set(row["needs"]) <= fields | {"labels"}
        assert row["assumes"].endswith(".")
        assert set(row["answers"]) <= {"label", "choice", "text", "phrases"}
        assert row["metric"] in ("error", "macro_f1")
        assert "level" not in row["settings"]  # every estimate has one; it is set once for all


@pytest.mark.parametrize("what", KINDS)
def test_every_list_is_a_table_with_a_row_for_each_entry(what):
    found = entries(what)
    drawn = table(what, iter(found))
    assert [row[0] for row in drawn.rows] == [entry["name"] for entry in found]
    assert {len(row) for row in drawn.rows} == {len(drawn.columns)}


def test_an_unknown_list_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"Did you mean 'metrics'\?"):
        entries("metric")
