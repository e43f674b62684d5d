"""Accuracy over each example's own options, by log-likelihood per byte."""

from __future__ import annotations

import numpy as np
import pytest

from sabir.errors import InputError
from sabir.metrics import measure, signature


def right(target: str, scores: dict[str, float]) -> float:
    likeliest = max(scores, key=scores.__getitem__)
    return float(measure("accuracy_per_byte", [likeliest], [target], scores=[scores]).statistics[0, 0])


def test_the_best_per_byte_is_not_the_best():
    # -4 of 2 bytes is -2 a byte; -9 of 9 bytes is -1.
    scores = {"no": -4.0, "certainly": -9.0}
    assert right("certainly", scores) == 1
    assert right("no", scores) == 0
    assert measure("accuracy", ["no"], ["certainly"]).statistics[0, 0] == 0


def test_bytes_count_and_not_characters():
    # 東京 is 6 bytes, kyoto 5: -1.0 and -1.1 a byte. By character it would be -3.0 and -1.1.
    assert right("東京", {"東京": -6.0, "kyoto": -5.5}) == 1


def test_of_equal_options_the_first_counts():
    assert right("ab", {"ab": -2.0, "cd": -2.0}) == 1
    assert right("cd", {"ab": -2.0, "cd": -2.0}) == 0


def test_letters_give_accuracy_itself():
    scores = [{"A": -1.0, "B": -2.0}, {"A": -3.0, "B": -0.5}, {"A": -1.0, "B": -1.5}]
    answers = [max(each, key=each.__getitem__) for each in scores]
    per_byte = measure("accuracy_per_byte", answers, ["A", "B", "B"], scores=scores).statistics
    assert (per_byte == measure("accuracy", answers, ["A", "B", "B"]).statistics).all()


def test_unscored_examples_are_left_out():
    found = measure("accuracy_per_byte", [None, "a"], ["a", "a"], scores=[None, {"a": -1.0, "b": -2.0}])
    assert np.isnan(found.statistics[:, 0]).tolist() == [True, False]
    assert (found.unscored, found.undefined) == (1, 0)
    assert found.signature == signature("accuracy_per_byte", scores=())
    assert found.signature == "accuracy_per_byte|v:1|score:loglikelihood|per:utf8-byte|ties:first"


def test_a_target_that_is_no_option_and_an_empty_option_are_refused():
    with pytest.raises(InputError, match="example 0: the target is 'c', the options are 'a', 'b'"):
        measure("accuracy_per_byte", ["a"], ["c"], scores=[{"a": -1.0, "b": -2.0}])
    with pytest.raises(InputError, match="none of them empty"):
        measure("accuracy_per_byte", ["a"], ["a"], scores=[{"a": -1.0, "": -2.0}])


@pytest.mark.parametrize("scores", [[None], [{}], [{"a": float("nan"), "b": -1.0}], []])
def test_an_answer_without_scores_is_no_score(scores):
    with pytest.raises(ValueError):
        measure("accuracy_per_byte", ["a"], ["a"], scores=scores)
