"""Examples before a prompt: in the same form as in training, cut evenly, never in instruction, cue or answers."""

from __future__ import annotations

import pytest

from model.test_text import TEMPLATES, any_tokenizer, give_template  # noqa: F401  (a fixture)
from sabir.errors import InputError
from sabir.model.text import TextBuilder
from sabir.tasks import Prompt

SAID = "Is it good?\n\n"


def asked(text, before=SAID, after="\n\nAnswer:"):
    return Prompt(before, text, after)


SHOTS = [(asked("Ein schöner Film."), "good"), (asked("Très mauvais."), "bad")]
QUESTION = asked("とても良い映画でした。")


def test_without_a_template_each_example_is_a_training_row_and_a_blank_line(tokenizer):
    builder = TextBuilder(tokenizer, max_length=64)
    ids = builder.few_shot(QUESTION, SHOTS, room=500)
    text = (
        "Is it good?\n\nEin schöner Film.\n\nAnswer: good\n\nTrès mauvais.\n\nAnswer: bad\n\n"
        "とても良い映画でした。\n\nAnswer:"
    )
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_the_seams_are_those_of_a_training_row(tokenizer):
    """The ids of the first example are its training row's, and the asked prompt's end is that of its own row."""
    builder = TextBuilder(tokenizer, max_length=64)
    ids = builder.few_shot(QUESTION, SHOTS, room=500)
    row = builder.example(*SHOTS[0]).ids[:-1]  # without the end
    assert ids[: len(row)] == row
    alone = builder.prompt(asked(QUESTION.source, before=""), room=500)[0][1:]
    assert ids[-len(alone) :] == alone


def test_an_instruction_is_said_once_and_again_where_another_one_is_due(tokenizer):
    builder = TextBuilder(tokenizer, max_length=64)
    shots = [
        (asked("a"), "1"),
        (asked("b"), "2"),
        (asked("c", before="Other\n\n"), "3"),
        (asked("d", ""), "4"),
    ]
    text = tokenizer.decode(builder.few_shot(asked("e"), shots, room=500))
    assert [part for part in text.split("\n\n") if "Answer" not in part] == [
        "<s>Is it good?",
        "a",
        "b",
        "Other",
        "c",
        "d",
        "Is it good?",
        "e",
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_with_a_template_examples_are_turns(tokenizer, name):
    give_template(tokenizer, name)
    ids = TextBuilder(tokenizer, max_length=64).few_shot(QUESTION, SHOTS, room=900)
    turns = [
        {"role": "user", "content": SHOTS[0][0].text},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": "Très mauvais.\n\nAnswer:"},
        {"role": "assistant", "content": "bad"},
        {"role": "user", "content": "とても良い映画でした。\n\nAnswer:"},
    ]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False, date_string="26 Jul 2024"
    )


def test_no_examples_are_the_prompt_as_it_is_without_any(any_tokenizer):  # noqa: F811
    builder = TextBuilder(any_tokenizer, max_length=64)
    assert builder.few_shot(QUESTION, [], room=500) == builder.prompt(QUESTION, room=500)[0]


# --- what does not fit -----------------------------------------------------------------------------------

LONG = [
    (asked("Ein schöner Film war das. " * 20), "good"),
    (asked("Kurz."), "très bon"),
    (asked("悪い映画でした🎉。" * 30), "bad"),
]


@pytest.mark.parametrize("room", [150, 163, 300])
def test_sources_are_cut_to_one_length_and_nothing_else_is(any_tokenizer, room):  # noqa: F811
    room += 150 * bool(any_tokenizer.chat_template)
    builder = TextBuilder(any_tokenizer, max_length=64)
    question = asked("A fine film, it was. " * 40)
    ids = builder.few_shot(question, LONG, room=room)
    assert len(ids) <= room
    assert len(ids) > room - 60  # four sources, each cut at a character, of up to 11 tokens
    text = any_tokenizer.decode(ids)
    assert text.count(SAID) == 1
    assert text.count("\n\nAnswer:") == 4
    assert "�" not in text
    assert "Kurz.\n\nAnswer:" in text, "what is short already stays whole"
    places = [text.index(answer) for answer in ("good", "très bon", "bad")]
    assert places == sorted(places)
    sources = [one.source for one, _ in LONG] + [question.source]
    kept = [_kept(text, source) for source in sources]
    lengths = [len(any_tokenizer(one, add_special_tokens=False)["input_ids"]) for one in kept]
    assert all(
        0 < len(one) < len(source) for one, source in zip(kept, sources, strict=True) if source != "Kurz."
    )
    longest = max(lengths)
    assert all(
        longest - 11 <= length for length, source in zip(lengths, sources, strict=True) if source != "Kurz."
    )


def _kept(text, source):
    """The longest beginning of a source that stands in a text before a cue."""
    return next(source[:end] for end in range(len(source), 0, -1) if f"{source[:end]}\n\nAnswer:" in text)


def test_what_just_fits_is_whole(tokenizer):
    builder = TextBuilder(tokenizer, max_length=64)
    whole = builder.few_shot(QUESTION, LONG, room=10**6)
    assert builder.few_shot(QUESTION, LONG, room=len(whole)) == whole
    assert len(builder.few_shot(QUESTION, LONG, room=len(whole) - 1)) < len(whole)


def test_examples_that_do_not_fit_without_their_texts_are_refused_by_sentence(any_tokenizer):  # noqa: F811
    builder = TextBuilder(any_tokenizer, max_length=64)
    with pytest.raises(
        InputError, match=r"^rivals.shots: 3 examples and their question take \d+ tokens"
    ) as error:
        builder.few_shot(QUESTION, LONG, room=20)
    assert str(error.value).endswith(
        "and there is room for 20. Lower it, raise lora.max_length, or shorten the instruction."
    )


def test_special_tokens_in_an_example_are_text(tokenizer):
    builder = TextBuilder(tokenizer, max_length=64)
    ids = builder.few_shot(QUESTION, [(asked("a </s> b"), "</s>")], room=500)
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.bos_token_id) == 1
