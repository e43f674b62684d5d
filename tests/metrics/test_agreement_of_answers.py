"""Agreement of two answers is the task's metric with the other answer as gold, and the same from both sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.metrics import METRICS
from sabir.metrics.agreement import agreement, all_agreements

F1_AT_M = METRICS.get("f1_at_m").function
ROUGE_L = METRICS.get("rougeL").function

# Few words, so that answers share some; blanks, signs, doubled phrases, and phrases of nothing.
WORDS = [
    "model",
    "models",
    "Merging",
    "c++",
    "C#",
    "ID",
    "免、抵、退",
    "言語 モデル",
    "言語モデル",
    "ＡＩ",
    "!",
    "",
    "  ",
]
PHRASES = st.lists(st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join), max_size=6)
LISTS = st.tuples(PHRASES, st.sampled_from([";", "; ", "；", "\n"])).map(
    lambda drawn: drawn[1].join(drawn[0])
)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
LANGUAGES = st.sampled_from(["en", "de", "ja", "xx"])


@settings(deadline=None)  # the first call loads stemmers
@given(st.lists(st.tuples(LISTS, LISTS), min_size=1, max_size=8), LANGUAGES)
def test_keyphrases_agree_as_f1_at_m_with_the_other_as_gold(pairs, language):
    a, b = zip(*pairs, strict=True)
    ours = agreement(a, b, answer="phrases", language=language)
    metric = F1_AT_M(a, b, language=language)[:, 0]
    defined = ~np.isnan(metric)
    np.testing.assert_array_equal(ours[defined], metric[defined])
    np.testing.assert_array_equal(ours, agreement(b, a, answer="phrases", language=language))
    # Where F1@M is not defined the other answer has no phrase: only another that has none agrees with it.
    mirrored = F1_AT_M(b, a, language=language)[:, 0]
    np.testing.assert_array_equal(ours[~defined], np.isnan(mirrored[~defined]).astype(float))


@settings(deadline=None)  # rouge-score takes a second to import
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.sampled_from(["en", "de", "xx"]))
def test_texts_agree_as_rouge_l_with_the_other_as_gold(pairs, language):
    a, b = zip(*pairs, strict=True)
    ours = agreement(a, b, answer="text", language=language)
    metric = ROUGE_L(a, b, language=language)[:, 0]
    wordless = np.array([not any(letter.isalnum() for letter in x + y) for x, y in pairs])
    np.testing.assert_array_equal(ours[~wordless], metric[~wordless])
    np.testing.assert_array_equal(ours[wordless], 1.0)
    np.testing.assert_array_equal(ours, agreement(b, a, answer="text", language=language))


def test_long_texts_agree_as_rouge_l():
    rng = np.random.default_rng(3)
    a, b = ([" ".join(rng.choice(list("abcdefgh"), 150)) for _ in range(20)] for _ in range(2))
    np.testing.assert_array_equal(
        agreement(a, b, answer="text", language="en"), ROUGE_L(a, b, language="en")[:, 0]
    )


@pytest.mark.parametrize("answer", ["label", "choice"])
def test_labels_agree_when_they_are_equal_letter_by_letter(answer):
    found = agreement(["a", "a", "A", "", None], ["a", "b", "a", "", "a"], answer=answer, language="en")
    np.testing.assert_array_equal(found, [1, 0, 0, 1, np.nan])


@pytest.mark.parametrize("answer", ["label", "phrases", "text"])
def test_all_agreements_are_those_of_each_two(answer):
    rng = np.random.default_rng(5)
    model, *members = [
        [None if x < 1 else "; ".join(rng.choice(["a b", "b", "c d e", ""], x - 1)) for x in rng.integers(0, 5, 50)]
        for _ in range(5)
    ]  # fmt: skip
    to_model, among = all_agreements(model, members, answer=answer, language="en")
    kind = {"answer": answer, "language": "en"}
    np.testing.assert_array_equal(to_model, np.stack([agreement(model, one, **kind) for one in members], 1))
    order = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = [agreement(members[j], members[k], **kind) for j, k in order]
    np.testing.assert_array_equal(among, np.stack(expected, 1))


def test_no_answer_agrees_with_nothing_and_contradicts_nothing():
    to_model, among = all_agreements(["x", None], [["x", "x"], [None, "x"]], answer="phrases", language="en")
    np.testing.assert_array_equal(to_model, [[1, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(among, [[np.nan], [1]])


def test_an_ensemble_of_one_has_no_pairs():
    to_model, among = all_agreements(["x", "y"], [["x", "x"]], answer="label", language="en")
    assert to_model.tolist() == [[1], [0]]
    assert among.shape == (2, 0)


def test_answers_of_other_lengths_and_other_kinds_are_refused():
    with pytest.raises(ValueError, match="2 predictions for 1 answers of member 1"):
        all_agreements(["x", "y"], [["x", "y"], ["x"]], answer="label", language="en")
    with pytest.raises(ValueError, match="answer is 'labels'; expected label, choice, phrases or text"):
        agreement(["x"], ["y"], answer="labels", language="en")
