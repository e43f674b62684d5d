"""Which option a text means: by hand, in five scripts, and against a slow reading of single words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.work.meant import meant

LABELS = ("positive", "negative", "neutral")


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("positive", LABELS, "positive"),
        (" Positive.\n", LABELS, "positive"),
        ("**NEGATIVE**", LABELS, "negative"),
        ("The sentiment is negative, clearly.", LABELS, "negative"),
        ("positive or negative", LABELS, None),
        ("I cannot say.", LABELS, None),
        ("", LABELS, None),
        ("nonpositive", LABELS, None),
        ("very positive", ("positive", "very positive"), "very positive"),
        ("not relevant", ("relevant", "not relevant"), "not relevant"),
        ("This is not relevant; relevant it is not", ("relevant", "not relevant"), None),
        ("b", ("A", "B"), "B"),
        ("B. a cat", ("A", "B"), "B"),
        ("It is a cat", ("A", "B"), None),
        ("1", ("1", "2", "5"), "1"),
        ("2 of 5", ("1", "2", "5"), None),
        ("12", ("1", "2"), None),
        ("答案是体育。", ("体育", "政治"), "体育"),
        ("答案是A吧", ("A", "B"), "A"),
        ("긍정입니다", ("긍정", "부정"), "긍정"),
        ("คำตอบคือกีฬาครับ", ("กีฬา", "การเมือง"), "กีฬา"),
        ("ＳＰＯＲＴ", ("sport", "politics"), "sport"),
        ("Straße!", ("straße", "weg"), "straße"),
        ("US", ("US", "us"), "US"),
        ("They told us so", ("US", "us"), "us"),
        ("+", ("+", "-"), "+"),
        ("the answer is +", ("+", "-"), "+"),
        ("?", ("+", "-"), None),
    ],
)
def test_an_option_is_found_where_a_reader_would_find_it(text, options, expected):
    assert meant(text, options) == expected


WORDS = ("cat", "dog", "bird", "fish")


@given(st.lists(st.sampled_from([*WORDS, "the", "a", "cats", "dogfish", "Bird"]), max_size=6))
def test_in_a_sentence_the_only_option_among_its_words_is_meant(words):
    present = {word.lower() for word in words} & set(WORDS)
    assert meant(" ".join(words), WORDS) == (present.pop() if len(present) == 1 else None)


@given(st.sampled_from(WORDS), st.sampled_from(["", " ", "\n", '"', "**", "(", "- "]), st.booleans())
def test_case_and_marks_around_an_option_do_not_matter(word, mark, upper):
    assert meant(f"{mark}{word.upper() if upper else word}{mark}.", WORDS) == word
