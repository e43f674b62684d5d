"""Metrics over labels against scikit-learn: absent labels, failures to parse, unscored examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, recall_score

from sabir.errors import InputError
from sabir.metrics import measure

THEIRS = {"macro_f1": f1_score, "macro_precision": precision_score, "macro_recall": recall_score}
LABELS = ("positive", "neutral", "negative", "mixed")


def score(name: str, predictions, targets, **settings) -> float:
    found = measure(name, predictions, targets, **settings)
    return float(found.value(np.nanmean(found.statistics, axis=0)))


def test_the_published_check():
    targets, predictions = list("012012"), list("021001")
    assert score("macro_f1", predictions, targets, labels="012") == pytest.approx(0.8 / 3)  # .2667
    assert score("accuracy", predictions, targets) == pytest.approx(1 / 3)


answers = st.lists(
    st.tuples(st.sampled_from(LABELS[:3]), st.sampled_from((*LABELS, "", "I think it is positive"))),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("name", THEIRS)
@given(rows=answers)
@settings(max_examples=40, deadline=None)
def test_macro_scores_are_scikit_learns_with_absent_labels_and_failures(name, rows):
    targets, predictions = [target for target, _ in rows], [prediction for _, prediction in rows]
    expected = THEIRS[name](targets, predictions, labels=list(LABELS), average="macro", zero_division=0)
    assert score(name, predictions, targets, labels=LABELS) == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(rows=answers)
@settings(max_examples=150, deadline=None)
def test_matthews_correlation_is_scikit_learns_with_failures_as_one_class_more(rows):
    targets = [target for target, _ in rows]
    predictions = [prediction for _, prediction in rows]
    read = [prediction if prediction in LABELS else "failed" for prediction in predictions]
    expected = matthews_corrcoef(targets, read)
    assert score("mcc", predictions, targets, labels=LABELS) == pytest.approx(expected, abs=1e-9)


def test_matthews_correlation_by_hand():
    # 4 hits and 1 miss of a, 2 hits and 1 miss of b: (4 * 2 - 1 * 1) / sqrt(5 * 5 * 3 * 3) = 7 / 15.
    targets, predictions = list("aaaaabbb"), list("aaaabbba")
    assert score("mcc", predictions, targets, labels=("a", "b")) == pytest.approx(7 / 15)
    swapped = ["b" if prediction == "a" else "a" for prediction in predictions]
    assert score("mcc", swapped, targets, labels=("a", "b")) == pytest.approx(-7 / 15)
    assert score("mcc", targets, targets, labels=("a", "b", "never")) == pytest.approx(1)


@pytest.mark.parametrize("n", [3, 7, 49, 1000])
@pytest.mark.parametrize("answer", ["a", "b", ""])
def test_matthews_correlation_of_one_answer_for_all_is_zero(n, answer):
    targets = ["b" if i % 3 == 0 else "a" for i in range(n)]
    assert score("mcc", [answer] * n, targets, labels=("a", "b")) == 0
    assert score("mcc", targets, [answer or "a"] * n, labels=("a", "b")) == 0


def test_matthews_correlation_has_an_interval_below_zero():
    """Nothing on the way cuts a score that is worse than chance off at 0."""
    from sabir.stats import bootstrap, paired_difference

    rng = np.random.default_rng(0)
    targets = [str(label) for label in rng.choice(["a", "b"], 60)]
    opposite = {"a": "b", "b": "a"}
    predictions = [opposite[t] if rng.random() < 0.8 else t for t in targets]
    found = measure("mcc", predictions, targets, labels=("a", "b"))
    interval = bootstrap(found.statistics, found.value, seed=0)
    assert -1 <= interval.low < interval.value < interval.high < 0
    right = measure("mcc", targets, targets, labels=("a", "b"))
    assert paired_difference(right.statistics, found.statistics, found.value, seed=0).difference > 1


@given(rows=answers)
@settings(max_examples=40, deadline=None)
def test_accuracy_is_scikit_learns(rows):
    targets, predictions = [target for target, _ in rows], [prediction for _, prediction in rows]
    assert score("accuracy", predictions, targets) == pytest.approx(accuracy_score(targets, predictions))


@pytest.mark.parametrize("name", ["accuracy", "mcc", *THEIRS])
def test_a_failure_to_parse_is_wrong_and_unscored_is_left_out(name):
    targets = ["positive", "negative", "negative"]
    right = score(name, targets, targets, labels=("positive", "negative"))
    failed = score(name, ["", "negative", "negative"], targets, labels=("positive", "negative"))
    unscored = measure(name, ["positive", None, "negative"], targets, labels=("positive", "negative"))
    assert failed < right == 1.0
    assert unscored.unscored == 1
    assert np.isnan(unscored.statistics[1]).all()
    assert unscored.undefined == 0
    assert unscored.value(np.nanmean(unscored.statistics, axis=0)) == 1.0


def test_a_failure_is_wrong_even_where_the_target_reads_alike():
    """'Positive' is not 'positive': reading answers is the task's work, not the metric's."""
    assert score("accuracy", ["Positive"], ["positive"]) == 0.0
    assert score("macro_f1", ["Positive"], ["positive"], labels=("positive", "negative")) == 0.0


def test_a_label_that_begins_with_another_is_another_label():
    targets, labels = ["good", "good enough", "good"], ("good", "good enough")
    predictions = ["good enough", "good", "good"]
    assert score("accuracy", predictions, targets, labels=labels) == pytest.approx(1 / 3)
    # "good": 1 hit of 2 predicted and 2 actual, F1 1/2; "good enough": none of 1 and 1.
    assert score("macro_f1", predictions, targets, labels=labels) == pytest.approx((1 / 2 + 0) / 2)
    assert score("macro_f1", targets, targets, labels=labels) == 1


def test_mean_of_f1_is_not_f1_of_means():
    targets, predictions = list("aaab"), list("abbb")
    # a: precision 1, recall 1/3; b: precision 1/3, recall 1. Each F1 is 1/2; F1 of the means would be 2/3.
    assert score("macro_f1", predictions, targets, labels=("a", "b")) == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", ["accuracy", "mcc", *THEIRS])
@pytest.mark.parametrize(
    ("labels", "word"), [((), "empty"), (("a", "b", "a"), "twice"), (("b", "c"), "not a declared label")]
)
def test_wrong_labels_are_refused(name, labels, word):
    with pytest.raises(InputError, match=word):
        measure(name, ["a"], ["a"], labels=labels)
