"""F1 of keyphrases by hand, with the arithmetic, in nine languages."""

from __future__ import annotations

import numpy as np
import pytest

from sabir.metrics import measure, missing_package, signature
from sabir.metrics.keyphrases import phrases

AT_ALL = ("f1_at_5", "f1_at_10", "f1_at_m")
PARTS = ("present_f1_at_5", "present_f1_at_m", "absent_f1_at_5", "absent_f1_at_m")


def f1(name: str, answer: str, target: str, language: str, source: str | None = None) -> float:
    sources = None if source is None else [source]
    return float(measure(name, [answer], [target], language=language, sources=sources).statistics[0, 0])


def of_all(answer: str, target: str, language: str) -> list[float]:
    return [f1(name, answer, target, language) for name in AT_ALL]


def of_parts(answer: str, target: str, language: str, source: str) -> list[float]:
    return [f1(name, answer, target, language, source) for name in PARTS]


def test_english():
    # Same after stemming: neural network, language model. 2 of 4 answered, 3 gold.
    # @5: P 2/5, R 2/3, F = 2 * 2 / (5 + 3). @10: 4 / (10 + 3). @M: P 2/4, F = 4 / (4 + 3).
    answer = "Neural networks; Language Model; a cat; dogs"
    assert of_all(answer, "neural network; language modelling; translation", "en") == pytest.approx(
        [4 / 8, 4 / 13, 4 / 7]
    )


def test_german_present_and_absent():
    source = "Wir untersuchen Straßenbahnen und die Anbindung von Bahnhöfen in großen Städten."
    # Gold in the text: Straßenbahn, große Stadt; not there: Nahverkehr, Verkehrspolitik.
    target = "Straßenbahn; große Stadt; Nahverkehr; Verkehrspolitik"
    # Answered and there: STRASSENBAHNEN (right), Anbindung, Bahnhof (the stemmer takes umlauts of plurals off);
    # not there: Nahverkehr (right).
    answer = "STRASSENBAHNEN; Anbindung; Bahnhof; Nahverkehr"
    # Present: 1 hit, 3 answered, 2 gold: @5 2 / (5 + 2), @M 2 / (3 + 2). Absent: 1 hit, 1 answered, 2 gold.
    assert of_parts(answer, target, "de", source) == pytest.approx([2 / 7, 2 / 5, 2 / 7, 2 / 3])
    # All: 2 hits, 4 answered, 4 gold.
    assert of_all(answer, target, "de") == pytest.approx([4 / 9, 4 / 14, 4 / 8])


def test_french():
    source = "L'apprentissage automatique repose sur des réseaux de neurones profonds."
    target = "réseau de neurones; apprentissage automatique; intelligence artificielle"
    # Right: the first (plural) and, composed with a combining accent or not, no other. 1 of 2, 3 gold.
    answer = "re\u0301seaux de neurones; neurones profonds"
    assert of_all(answer, target, "fr") == pytest.approx([2 / 8, 2 / 13, 2 / 5])
    # Present: 1 hit, 2 answered, 2 gold. Absent: 0 answered, 1 gold: 0.
    assert of_parts(answer, target, "fr", source) == pytest.approx([2 / 7, 2 / 4, 0, 0])


def test_japanese():
    source = "HoloLensのカーソルとAI による音声 認識の使い方。MainMenuは2024年版。"
    # 音声認識 is there with a blank inside. AI is a word of its own; Main is part of another, 24年 of a number.
    assert of_parts("音声認識；ＡＩ", "音声認識;AI;拡張現実", "ja", source) == pytest.approx(
        # present: 2 hits, 2 answered, 2 gold; absent: none answered, 1 gold
        [4 / 7, 4 / 4, 0, 0]
    )
    # Gold: カーソル there; Main and 24年 not. Answered: the same three.
    # Present: 1 hit, 1 answered, 1 gold. Absent: 2 hits, 2 answered, 2 gold.
    three = "カーソル\nMain\n24年"
    assert of_parts(three, three, "ja", source) == pytest.approx([2 / 6, 1, 4 / 7, 1])
    # Half width, middle dots and blanks are no difference: 2 hits, 2 answered, 2 gold.
    assert of_all("ｶｰｿﾙ;ヴィンセント ヴァン", "ヴィンセント・ヴァン;カーソル", "ja") == pytest.approx(
        [4 / 7, 4 / 12, 1]
    )


def test_chinese():
    # 、 does not part: one phrase of three characters. Right: both. 2 answered, 2 gold.
    assert of_all("免、抵、退；生活 垃圾", "生活垃圾;免、抵、退", "zh-Hans") == pytest.approx(
        [4 / 7, 4 / 12, 1]
    )
    # 混合现实 is there, 现实 as well (its characters stand in a row), 虚拟现实 is not.
    # Present: answered 混合现实, 现实, 1 hit, 1 gold. Absent: answered none, 1 gold.
    found = of_parts("混合现实;现实", "混合现实;虚拟现实", "zh", "本文介绍混合现实的应用。")
    assert found == pytest.approx([2 / 6, 2 / 3, 0, 0])


def test_korean():
    # Blanks are no difference, and a particle may follow in the text. 기계학습 right, 번역 wrong; gold 2.
    assert of_all("기계학습; 번역", "기계 학습; 음성 인식", "ko") == pytest.approx([2 / 7, 2 / 12, 2 / 4])
    # Present: 기계학습 (right) and 번역 answered, 기계 학습 gold. Absent: nothing answered, 음성 인식 gold.
    source = "기계 학습을 이용한 번역에 대하여"
    assert of_parts("기계학습; 번역", "기계 학습; 음성 인식", "ko", source) == pytest.approx(
        [2 / 6, 2 / 3, 0, 0]
    )


def test_thai():
    # One right of two answered; two gold.
    target, answer = "การเรียนรู้ของเครื่อง; ภาษาไทย", "การเรียนรู้ ของเครื่อง; ที"
    assert of_all(answer, target, "th") == pytest.approx([2 / 7, 2 / 12, 2 / 4])
    # ที is not in ที่: a mark belongs to its character. ภาษาไทย is not there either.
    # Present: 1 hit, 1 answered, 1 gold. Absent: ที (wrong) answered, 1 gold.
    source = "การเรียนรู้ของเครื่องที่ดี"
    assert of_parts(answer, target, "th", source) == pytest.approx([2 / 6, 1, 0, 0])


def test_hindi():
    # मशीन right; किताबें and किताब are one book; कि is not की. 2 hits, 3 answered, 3 gold.
    assert of_all("मशीन; किताबें; कि", "मशीन; किताब; की", "hi") == pytest.approx([4 / 8, 4 / 13, 4 / 6])


def test_russian():
    # Another case and number of the same words. 1 hit, 2 answered, 1 gold.
    source = "Обучение нейронных сетей на больших данных."
    assert of_all("нейронные сети; данные", "Нейронная сеть", "ru") == pytest.approx([2 / 6, 2 / 11, 2 / 3])
    # All is present; there is no absent gold phrase, so the absent part says nothing.
    present5, present_m, *absent = of_parts("нейронные сети; данные", "Нейронная сеть", "ru", source)
    assert [present5, present_m] == pytest.approx([2 / 6, 2 / 3])
    assert np.isnan(absent).all()


def test_arabic():
    # Parted by the Arabic semicolon; the article is stemmed away. 2 hits, 2 answered, 2 gold.
    answer = "الشبكة العصبية؛ تعلم الآلة"
    assert of_all(answer, "شبكة عصبية؛ تعلم الآلة", "ar") == pytest.approx([4 / 7, 4 / 12, 1])


def test_phrases_named_twice_count_once_and_where_they_stood_first():
    assert phrases("cat; Cats; dog;; \n;CAT", language="en") == (("cat",), ("dog",))
    # a, b, c, d, a, a, e: e is the fifth. 5 hits of 5, 5 gold.
    assert f1("f1_at_5", "a;b;c;d;a;a;e", "a;b;c;d;e", "und") == 1
    # The sixth is not read: 4 hits, 5 gold.
    assert f1("f1_at_5", "x;b;c;d;e;a", "a;b;c;d;e", "und") == pytest.approx(2 * 4 / 10)
    assert f1("f1_at_10", "x;b;c;d;e;a", "a;b;c;d;e", "und") == pytest.approx(2 * 5 / 15)
    assert f1("f1_at_m", "x;b;c;d;e;a", "a;b;c;d;e", "und") == pytest.approx(2 * 5 / 11)
    # Gold phrases that are one after stemming are one: 1 hit of 1 answered, 1 gold.
    assert f1("f1_at_m", "cat", "cats; cat", "en") == 1
    assert f1("f1_at_m", "IDs", "ID", "en") == 1


def test_the_first_five_of_a_part_are_taken_after_the_other_part_is_left_out():
    source = "one two three four five six"
    answer = "a;b;c;d;e;one"  # the only present phrase is the sixth
    assert f1("present_f1_at_5", answer, "one", "und", source) == pytest.approx(2 / 6)
    assert f1("f1_at_5", answer, "one", "und") == 0


@pytest.mark.parametrize("language", ["en", "ja"])
def test_programming_languages_that_differ_by_their_signs_are_not_one(language):
    assert len(phrases("C; C#; C++; F#; c#", language=language)) == 4
    assert f1("present_f1_at_m", "C#", "C#", language, "C#開発 and C++") == 1
    assert np.isnan(f1("present_f1_at_m", "C", "C", language, "C#開発 and C++"))


def test_words_of_a_phrase_must_stand_in_a_row():
    source = "the model of a language"
    assert np.isnan(f1("present_f1_at_m", "language model", "language model", "en", source))
    assert f1("present_f1_at_m", "models of a language", "model of a language", "en", source) == 1
    assert np.isnan(f1("present_f1_at_m", "mod", "mod", "en", source))  # part of a word


@pytest.mark.parametrize("language", ["de", "ja", "th"])
@pytest.mark.parametrize("answer", ["", " \n;;；", "。!?", "Ich weiß es leider nicht, " * 200])
def test_an_answer_that_names_nothing_right_scores_zero(language, answer):
    assert of_all(answer, "Katze; 猫; แมว", language) == [0, 0, 0]


def test_what_is_left_out_and_what_is_unscored_are_counted_apart():
    found = measure(
        "absent_f1_at_m",
        ["cat", None, "cat", None],
        ["cat", "cat", "dog", "dog"],
        language="en",
        sources=["a cat", "a cat", "a cat", "a cat"],
    )
    assert np.isnan(found.statistics[:, 0]).tolist() == [True, True, False, True]
    assert (found.unscored, found.undefined) == (2, 1)
    assert measure("f1_at_m", ["cat"], [" ; "], language="en").undefined == 1


def test_the_signature_tells_the_conventions():
    german = signature("f1_at_5", language="de")
    assert german.startswith("f1_at_5|v:1|lang:de|gold:all|precision:of-5|mean:documents|no-gold:left-out|")
    assert "|stem:snowball.german-" in german
    korean = signature("absent_f1_at_m", language="ko", sources=())
    assert "|gold:absent|precision:of-answered|" in korean
    assert korean.endswith("|stem:none|blanks:dropped")
    assert missing_package("f1_at_5", "ja") is None  # no splitter is asked


def test_sources_must_be_as_many_as_answers():
    with pytest.raises(ValueError, match="1 predictions for 2 sources"):
        measure("present_f1_at_5", ["a"], ["a"], language="en", sources=["a", "b"])
