"""The catalogue of metrics and the one call that uses it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sabir import stats
from sabir.errors import InputError
from sabir.metrics import METRICS, fitting, measure, missing_package, needs, signature, words

KINDS = ("label", "choice", "text", "phrases")


@pytest.fixture
def everything(encoder):
    """What any metric may need, for n examples of the labels a and b."""

    def given(n: int, labels=("a", "b")) -> dict:
        scores = [dict.fromkeys(labels, -1.0)] * n
        return {
            "labels": labels,
            "language": "en",
            "sources": ["b stands here"] * n if n else [],
            "scores": scores,
            "encoder": encoder,
        }

    return given


def test_the_names_are_the_contracts():
    assert {
        *("accuracy", "accuracy_per_byte", "macro_f1", "macro_precision", "macro_recall", "mcc"),
        *("rouge1", "rouge2", "rougeL", "chrf", "bertscore_f1", "f1_at_5", "f1_at_10", "f1_at_m"),
    } <= set(METRICS.names())


@pytest.mark.parametrize("entry", METRICS, ids=lambda entry: entry.name)
def test_every_metric_keeps_the_common_law(entry, everything):
    predictions, targets = ["a", "b", None, "neither", "a"], ["a", "b", "a", "b", "a"]
    found = measure(entry.name, predictions, targets, **everything(5))
    assert found.statistics.dtype == np.float64
    assert found.statistics.shape[0] == 5
    missing = np.isnan(found.statistics)
    assert (missing.any(axis=1) == missing.all(axis=1)).all()
    assert missing[2].all()
    assert found.unscored == 1
    assert found.undefined == missing.all(axis=1).sum() - 1
    assert (found.undefined > 0) == entry.name.startswith(("present", "absent"))
    assert found.signature == signature(entry.name, **everything(0))
    assert found.signature.startswith(f"{entry.name}|v:{entry.facts['version']}|")
    assert entry.summary.endswith(".")
    # The value of many means at once is the value of each.
    means = np.random.default_rng(0).random((2, 3, found.statistics.shape[1]))
    together = found.value(means)
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(found.value(means[1, 2]))
    interval = stats.bootstrap(found.statistics, found.value, seed=0)
    lowest = -1 if entry.name == "mcc" else 0
    assert lowest <= interval.value <= 1
    assert interval.low <= interval.value <= interval.high
    assert interval.n == 4 - found.undefined


@pytest.mark.parametrize("entry", METRICS, ids=lambda entry: entry.name)
def test_order_of_examples_does_not_matter_and_none_is_taken_from_thin_air(entry, everything):
    rows = [("a b", "a b"), ("b", "a b"), ("", "a b"), ("a b", "b a")]

    def value(pairs):
        found = measure(entry.name, *map(list, zip(*pairs, strict=True)), **everything(4, ("a b", "b a")))
        return found.value(np.nanmean(found.statistics, axis=0))

    if entry.name.startswith("present"):  # no gold phrase stands in the text: nothing to average
        assert measure(entry.name, ["a b"], ["a b"], **everything(1)).undefined == 1
    else:
        assert value(rows) == pytest.approx(value(rows[::-1]))
    empty = measure(entry.name, [], [], **everything(0))
    assert empty.statistics.shape[0] == 0
    assert (empty.unscored, empty.undefined) == (0, 0)
    assert stats.bootstrap(empty.statistics, empty.value, seed=0).value is None


@pytest.mark.parametrize("entry", METRICS, ids=lambda entry: entry.name)
def test_every_metric_fits_some_kind_of_answer(entry):
    assert set(entry.facts["fits"]) <= set(KINDS)
    assert any(entry.name in fitting(kind) for kind in KINDS)


def test_which_metric_fits_which_answer():
    assert fitting("label") == ["accuracy", "macro_f1", "macro_precision", "macro_recall", "mcc"]
    assert set(fitting("choice")) == {"accuracy", "accuracy_per_byte"}
    assert set(fitting("text")) == {"rouge1", "rouge2", "rougeL", "chrf", "bertscore_f1"}
    assert {"f1_at_5", "f1_at_10", "f1_at_m", "absent_f1_at_m"} <= set(fitting("phrases"))
    assert fitting("number") == []


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("accuracy", set()),
        ("accuracy_per_byte", {"scores"}),
        ("mcc", {"labels"}),
        ("rougeL", {"language"}),
        ("chrf", set()),
        ("bertscore_f1", {"encoder"}),
        ("f1_at_m", {"language"}),
        ("absent_f1_at_5", {"language", "sources"}),
    ],
)
def test_what_a_metric_needs_is_named(name, needed):
    assert needs(name) == needed


def test_a_missing_word_splitter_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(words, "_splitter", lambda primary: None)
    assert missing_package("rouge1", "ja-JP") == "pip install 'sabir[ja]'"
    assert missing_package("rougeL", "zh-Hant") == "pip install 'sabir[zh]'"
    assert missing_package("rouge2", "th") == "pip install 'sabir[th]'"
    for name, language in (("rouge1", "ko"), ("chrf", "ja"), ("f1_at_5", "th"), ("accuracy", "ja")):
        assert missing_package(name, language) is None
    monkeypatch.setattr(words, "_splitter", lambda primary: str.split)
    assert missing_package("rouge1", "ja") is None


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


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("macro_f1", "labels"),
        ("rougeL", "language"),
        ("accuracy_per_byte", "scores"),
        ("bertscore_f1", "encoder"),
    ],
)
def test_a_setting_that_is_needed_and_absent_is_named(name, needed):
    with pytest.raises(InputError, match=f"metric '{name}': it needs '{needed}'"):
        measure(name, ["a"], ["a"])


def test_an_unknown_metric_gets_a_suggestion():
    with pytest.raises(InputError, match="Did you mean 'accuracy'"):
        measure("acuracy", ["a"], ["a"])


def test_unequal_lengths_are_refused(everything):
    for name in METRICS.names():
        with pytest.raises(ValueError, match="1 predictions for 2 targets"):
            measure(name, ["a"], ["a", "b"], **everything(1))


def test_importing_metrics_imports_nothing_heavy():
    code = (
        "import sys, sabir.metrics\n"
        "heavy = ('sklearn', 'scipy', 'torch', 'rouge_score', 'nltk', 'snowballstemmer', 'jieba',"
        " 'transformers', 'sacrebleu')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
