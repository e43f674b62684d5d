"""Text to words: normalisation, marks, scripts without spaces, stemmers."""

from __future__ import annotations

import pytest

from sabir.metrics import words as module
from sabir.metrics.words import describe_words, splitter_missing, words


@pytest.fixture
def no_splitters(monkeypatch):
    monkeypatch.setattr(module, "_splitter", lambda primary: None)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("und", "Don't stop—now_please: 3.5€!", ["don", "t", "stop", "now", "please", "3", "5"]),
        ("und", "ＡＢＣ１２　ﬁn", ["abc12", "fin"]),  # full width, ligature
        ("und", "e\u0301te\u0301", ["été"]),  # composed
        ("und", "co\u00adoperate", ["cooperate"]),  # soft hyphen
        ("fa", "می\u200cروم", ["میروم"]),  # zero-width non-joiner
        ("und", "a\u200bb\x00c", ["a", "b", "c"]),  # zero-width space and controls split
        ("de", "Die STRASSEN, die Straße", ["die", "strass", "die", "strass"]),
        ("en-GB", "runners running ran", ["runner", "run", "ran"]),
        ("ru", "Кошки кошка", ["кошк", "кошк"]),
        ("ko", "서울에서 회의가 열렸다.", ["서울에서", "회의가", "열렸다"]),
        ("xx-Zzzz", "Runners running", ["runners", "running"]),
    ],
)
def test_words(language, text, expected):
    assert words(text, language=language) == expected


def test_combining_marks_stay_in_their_word():
    assert words("कि का", language="hi") == ["कि", "का"]
    assert words("நான் வந்தேன்", language="und") == ["நான்", "வந்தேன்"]
    assert words("สวัสดี ที่", language="th")[-1] == "ที่"
    assert words("שָׁלוֹם", language="he") == ["שָׁלוֹם"]


def test_marks_that_the_stemmer_of_a_language_drops_are_kept_elsewhere():
    """Arabic short vowels are marks: part of the word, and no difference to the Arabic stemmer."""
    assert words("كَتَبَ", language="ur") == ["كَتَبَ"]
    assert words("كَتَبَ", language="ar") == words("كتب", language="ar") == ["كتب"]


def test_short_words_are_stemmed_where_asked():
    assert words("IDs of cats", language="en") == ["ids", "of", "cat"]
    assert words("IDs of cats", language="en", stemmed_from=3) == ["id", "of", "cat"]


def test_han_and_kana_by_character_in_any_language(no_splitters):
    assert words("ｶﾞｷﾞ、人々は2024年にGPUを買う", language="ja") == [
        *("ガ", "ギ", "人", "々", "は", "2024", "年", "に", "gpu", "を", "買", "う")
    ]
    assert words("iPhone手机𠀀", language="zh") == ["iphone", "手", "机", "𠀀"]
    assert words("the word 漢字", language="en") == ["the", "word", "漢", "字"]


def test_thai_by_syllable(no_splitters):
    assert words("ฉันรักไทยมากที่สุด", language="th") == ["ฉัน", "รัก", "ไทย", "มาก", "ที่", "สุด"]


def test_japanese_by_fugashi():
    pytest.importorskip("fugashi")
    pytest.importorskip("unidic_lite")
    assert words("東京で、会議！", language="ja") == ["東京", "で", "会議"]
    assert "fugashi-" in describe_words("ja")
    assert splitter_missing("ja") is None


def test_chinese_by_jieba():
    pytest.importorskip("jieba")
    assert words("我们在北京大学学习。", language="zh") == ["我们", "在", "北京大学", "学习"]


def test_thai_by_pythainlp():
    pytest.importorskip("pythainlp")
    assert words("ฉันรักประเทศไทย", language="th") == ["ฉัน", "รัก", "ประเทศ", "ไทย"]


def test_what_is_missing_is_named(no_splitters):
    assert [splitter_missing(language) for language in ("ja-JP", "zh", "th", "de")] == [
        "fugashi",
        "jieba",
        "pythainlp",
        None,
    ]
    assert "split:unicode|stem:none" in describe_words("ja")
    assert "stem:snowball.german-" in describe_words("de")


def test_every_named_stemmer_is_there():
    """A misspelt algorithm would leave its language unstemmed without a word."""
    assert [language for language in module._SNOWBALL if module._stemmer(language) is None] == []
