"""The catalogue of metrics and the one call that uses it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sabir import stats
from sabir.errors import InputError
from sabir.metrics import METRICS, measure, signature


def settings_of(name: str) -> dict:
    given = {"labels": ("a", "b"), "language": "en"}
    return {setting: given[setting] for setting in METRICS.get(name).settings}


def test_the_names_are_the_contracts():
    assert {"accuracy", "macro_f1", "macro_precision", "macro_recall", "rouge1", "rouge2", "rougeL"} <= set(
        METRICS.names()
    )


@pytest.mark.parametrize("entry", METRICS, ids=lambda entry: entry.name)
def test_every_metric_keeps_the_common_law(entry):
    predictions, targets = ["a", "b", None, "neither", "a"], ["a", "b", "a", "b", "a"]
    found = measure(entry.name, predictions, targets, labels=("a", "b"), language="en")
    assert found.statistics.dtype == np.float64
    assert found.statistics.shape[0] == 5
    assert np.isnan(found.statistics).any(axis=1).tolist() == [False, False, True, False, False]
    assert found.unscored == 1
    assert found.signature == signature(entry.name, labels=("a", "b"), language="en")
    assert entry.summary.endswith(".")
    # The value of many means at once is the value of each.
    means = np.random.default_rng(0).random((2, 3, found.statistics.shape[1]))
    together = found.value(means)
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(found.value(means[1, 2]))
    interval = stats.bootstrap(found.statistics, found.value, seed=0)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.n == 4


@pytest.mark.parametrize("entry", METRICS, ids=lambda entry: entry.name)
def test_order_of_examples_does_not_matter_and_none_is_taken_from_thin_air(entry):
    rows = [("a b", "a b"), ("b", "a b"), ("", "a b"), ("a b", "b a")]
    given = {"labels": ("a b", "b a"), "language": "de"}

    def value(pairs):
        found = measure(entry.name, *map(list, zip(*pairs, strict=True)), **given)
        return found.value(found.statistics.mean(axis=0))

    assert value(rows) == pytest.approx(value(rows[::-1]))
    empty = measure(entry.name, [], [], **given)
    assert empty.statistics.shape[0] == 0
    assert stats.bootstrap(empty.statistics, empty.value, seed=0).value is None


def test_a_signature_says_what_a_score_stands_on():
    assert signature("macro_f1", labels=["gut", "schlecht"]) == (
        'macro_f1|v:1|labels:["gut", "schlecht"]|failures:wrong|zero_division:0'
    )
    assert signature("accuracy") == "accuracy|v:1|failures:wrong"
    german = signature("rouge2", language="de")
    for part in ("rouge2|", "lang:de", "rouge-score-", "norm:nfkc-casefold", "stem:snowball.german-"):
        assert part in german
    assert german != signature("rouge2", language="fr")


def test_a_metric_sees_only_its_own_settings():
    assert measure("accuracy", ["猫"], ["猫"], language="ja").signature == signature("accuracy")
    assert measure("rouge1", ["x"], ["x"], labels=("a",), language="en").signature == signature(
        "rouge1", language="en"
    )


@pytest.mark.parametrize(("name", "needed"), [("macro_f1", "labels"), ("rougeL", "language")])
def test_a_setting_that_is_needed_and_absent_is_named(name, needed):
    with pytest.raises(InputError, match=f"metric '{name}': it needs '{needed}'"):
        measure(name, ["a"], ["a"])


def test_an_unknown_metric_gets_a_suggestion():
    with pytest.raises(InputError, match="Did you mean 'accuracy'"):
        measure("acuracy", ["a"], ["a"])


def test_unequal_lengths_are_refused():
    for name in METRICS.names():
        with pytest.raises(ValueError, match="1 predictions for 2 targets"):
            measure(name, ["a"], ["a", "b"], **settings_of(name))


def test_importing_metrics_imports_nothing_heavy():
    code = (
        "import sys, sabir.metrics\n"
        "heavy = ('sklearn', 'scipy', 'torch', 'rouge_score', 'nltk', 'snowballstemmer', 'jieba')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
