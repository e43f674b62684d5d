"""Accuracy and macro scores against scikit-learn: absent labels, failures to parse, unscored examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

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


@given(rows=answers)
@settings(max_examples=40, deadline=None)
def test_accuracy_is_scikit_learns(rows):
    targets, predictions = [target for target, _ in rows], [prediction for _, prediction in rows]
    assert score("accuracy", predictions, targets) == pytest.approx(accuracy_score(targets, predictions))


@pytest.mark.parametrize("name", ["accuracy", *THEIRS])
def test_a_failure_to_parse_is_wrong_and_unscored_is_left_out(name):
    targets = ["positive", "negative", "negative"]
    right = score(name, targets, targets, labels=("positive", "negative"))
    failed = score(name, ["", "negative", "negative"], targets, labels=("positive", "negative"))
    unscored = measure(name, ["positive", None, "negative"], targets, labels=("positive", "negative"))
    assert failed < right == 1.0
    assert unscored.unscored == 1
    assert np.isnan(unscored.statistics[1]).all()
    assert unscored.value(np.nanmean(unscored.statistics, axis=0)) == 1.0


def test_a_failure_is_wrong_even_where_the_target_reads_alike():
    """'Positive' is not 'positive': reading answers is the task's work, not the metric's."""
    assert score("accuracy", ["Positive"], ["positive"]) == 0.0
    assert score("macro_f1", ["Positive"], ["positive"], labels=("positive", "negative")) == 0.0


@pytest.mark.parametrize("name", ["accuracy", *THEIRS])
@pytest.mark.parametrize(
    ("labels", "word"), [((), "empty"), (("a", "b", "a"), "twice"), (("b", "c"), "not a declared label")]
)
def test_wrong_labels_are_refused(name, labels, word):
    with pytest.raises(InputError, match=word):
        measure(name, ["a"], ["a"], labels=labels)
