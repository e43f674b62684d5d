"""chrF++ against sacrebleu and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.metrics import measure
from sabir.stats import bootstrap

TEXTS = (
    ("Die Katze schlief (auf dem Sofa).", "Die Katzen schliefen auf dem Sofa."),
    ("昨日は雨が降った。", "昨日は一日中雨が降った。"),
    ("어제는 비가 내렸다", "어제는 하루 종일 비가 내렸다."),
    ("कल बारिश हुई", "कल पूरे दिन बारिश हुई थी।"),
    ("ฝนตกทั้งวัน", "เมื่อวานนี้ฝนตกหนักทั้งวัน"),
    ("أعلنت الحكومة سياسة", "أعلنت الحكومة سياسة ضريبية جديدة"),
    ("", "Завтра дождь."),
    ("'quoted' word, -5 ... ?", '"quoted" words: -5 .'),
)


def chrf(pairs) -> float:
    found = measure("chrf", *zip(*pairs, strict=True))
    return float(found.value(np.nanmean(found.statistics, axis=0)))


def test_by_hand():
    # ab against ac: characters a of 2 and 2, no pair; words: none. Orders both have: characters 1, 2, words 1.
    # Precision and recall (1/2 + 0 + 0) / 3 = 1/6 each, and so is F.
    assert chrf([("ab", "ac")]) == pytest.approx(1 / 6)
    # Recall counts four times: abcd against ab. Precisions 2/4, 1/3 and the word 0, mean 5/18; recalls 1, 1, 0,
    # mean 2/3; F = 5 * (5/18) * (2/3) / (4 * 5/18 + 2/3) = 25/48.
    assert chrf([("abcd", "ab")]) == pytest.approx(25 / 48)
    assert chrf([("ab cd.", "ab cd.")]) == 1
    assert chrf([("", "ab")]) == chrf([("ab", "")]) == chrf([("", "")]) == 0


@pytest.fixture(scope="module")
def sacrebleu():
    return pytest.importorskip("sacrebleu")


def test_the_score_of_many_is_sacrebleus_corpus_score(sacrebleu):
    answers, targets = zip(*TEXTS, strict=True)
    theirs = sacrebleu.CHRF(word_order=2).corpus_score(list(answers), [list(targets)])
    assert chrf(TEXTS) == pytest.approx(theirs.score / 100, abs=1e-12)
    for pair in TEXTS:
        one = sacrebleu.CHRF(word_order=2).sentence_score(pair[0], [pair[1]])
        assert chrf([pair]) == pytest.approx(one.score / 100, abs=1e-12)


texts = st.text(alphabet="aAb.,(' \n猫がकि\u00a02é", max_size=20)


@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_texts_score_as_by_sacrebleu(pairs, sacrebleu):
    answers, targets = (list(each) for each in zip(*pairs, strict=True))
    theirs = sacrebleu.CHRF(word_order=2).corpus_score(answers, [targets])
    assert chrf(pairs) == pytest.approx(theirs.score / 100, abs=1e-12)


def test_unscored_answers_are_left_out_and_empty_ones_lower_the_score():
    scored = measure("chrf", ["ab", None], ["ab", "cd"])
    assert scored.unscored == 1
    assert scored.value(np.nanmean(scored.statistics, axis=0)) == 1
    assert 0 < chrf([("ab", "ab"), ("", "ab")]) < 1


def test_its_interval_holds_it():
    found = measure("chrf", *zip(*TEXTS, strict=True))
    interval = bootstrap(found.statistics, found.value, seed=0)
    assert 0 < interval.low < interval.value < interval.high < 1
