"""One place builds text for training, scoring and generation."""

from __future__ import annotations

import pytest
from transformers import AddedToken

from sabir.errors import InputError
from sabir.model.text import TextBuilder
from sabir.tasks import Prompt

# As the model families write them, shortened to what decides the ids.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}"
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '<|eot_id|>' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + (m.content | trim) "
    "+ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + (m.content | trim) + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama3": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
}
QUESTION = Prompt("Is it good?\n\n", "Ein schöner Film.", "\n\nAnswer:")
JAPANESE = "とても良い映画でした🎉👍また見たい。" * 8


@pytest.fixture(params=["plain", *TEMPLATES])
def any_tokenizer(request, tokenizer):
    if request.param != "plain":
        give_template(tokenizer, request.param)
    return tokenizer


def give_template(tokenizer, name):
    template, tokens, _ = TEMPLATES[name]
    # special in the vocabulary, and without a name of its own, as Gemma 3 has them
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.chat_template = template


def test_a_training_row_is_the_prompt_and_the_answer_as_scoring_uses_them(any_tokenizer):
    builder = TextBuilder(any_tokenizer, max_length=128)
    example = builder.example(QUESTION, "good")
    prompt, cut = builder.prompt(QUESTION, room=128)
    assert example.ids == prompt + builder.answer("good")
    assert (example.n_prompt, example.cut, cut) == (len(prompt), 0, 0)


def test_an_answer_reads_back_as_it_was(any_tokenizer):
    builder = TextBuilder(any_tokenizer, max_length=128)
    for text in ("good", "大変良い", "très bon 🎉", "two\nlines", "(x)", "1"):
        ids = builder.answer(text)
        assert ids[-1] == builder.end_id
        assert builder.decode(ids).strip() == text


def test_without_a_template_a_row_starts_with_one_bos_and_ends_with_eos(tokenizer):
    builder = TextBuilder(tokenizer, max_length=128)
    ids = builder.example(QUESTION, "good").ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[1:-1]) == f"{QUESTION.text} good"


def test_without_a_bos_token_none_is_written(tokenizer):
    tokenizer.bos_token = None
    ids = TextBuilder(tokenizer, max_length=128).prompt(QUESTION, room=128)[0]
    assert tokenizer.decode(ids) == QUESTION.text


def test_a_tokenizer_that_adds_bos_by_itself_does_not_add_a_second(tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer("x")["input_ids"][0] == 1  # it does
    give_template(tokenizer, "llama3")
    for template in (tokenizer.chat_template, None):
        tokenizer.chat_template = template
        ids = TextBuilder(tokenizer, max_length=128).example(QUESTION, "good").ids
        assert ids.count(1) == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_the_turn_is_found_in_the_template(tokenizer, name):
    give_template(tokenizer, name)
    builder = TextBuilder(tokenizer, max_length=128)
    assert tokenizer.convert_ids_to_tokens(builder.end_id) == TEMPLATES[name][2]
    assert builder.stop_ids == sorted([tokenizer.eos_token_id, builder.end_id])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_is_the_users_turn_and_the_answer_the_assistants(tokenizer, name):
    give_template(tokenizer, name)
    turns = [{"role": "user", "content": QUESTION.text}, {"role": "assistant", "content": "good"}]
    given = {"enable_thinking": False, "date_string": "26 Jul 2024", "tokenize": False}
    whole = tokenizer.apply_chat_template(turns, **given).rstrip()
    ids = TextBuilder(tokenizer, max_length=256).example(QUESTION, "good").ids
    ours = tokenizer.decode(ids)
    assert ours.replace("<think>\n\n</think>\n\n", "") == whole


def test_thinking_is_turned_off(tokenizer):
    give_template(tokenizer, "chatml")
    ids, _ = TextBuilder(tokenizer, max_length=128).prompt(QUESTION, room=128)
    assert tokenizer.decode(ids).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_prompt_does_not_hold_todays_date(tokenizer):
    give_template(tokenizer, "llama3")
    ids, _ = TextBuilder(tokenizer, max_length=128).prompt(QUESTION, room=128)
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(ids)


def test_a_template_without_an_end_token_ends_answers_with_eos(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    assert TextBuilder(tokenizer, max_length=128).end_id == tokenizer.eos_token_id


def test_a_tokenizer_without_any_end_is_refused_by_sentence(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(InputError, match=r"^base: the tokenizer has no end-of-text token\. Set eos_token"):
        TextBuilder(tokenizer, max_length=128)


def test_an_end_of_turn_serves_where_there_is_no_eos_and_no_pad(tokenizer):
    give_template(tokenizer, "chatml")
    tokenizer.eos_token = tokenizer.pad_token = None
    builder = TextBuilder(tokenizer, max_length=128)
    assert builder.stop_ids == [builder.end_id]
    assert builder.pad_id == builder.end_id


@pytest.mark.parametrize("text", ["a <s>struck</s> word", "a <pad> word"])
def test_special_tokens_that_a_user_wrote_are_text(tokenizer, text):
    builder = TextBuilder(tokenizer, max_length=128)
    example = builder.example(Prompt("", text, "\n\nAnswer:"), text)
    answer = example.ids[example.n_prompt :]
    assert example.ids.count(tokenizer.bos_token_id) == 1
    assert example.ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.pad_token_id not in example.ids
    assert builder.decode(answer) == f" {text}"


@pytest.mark.parametrize("source", ["Ein schöner Film war das. " * 30, JAPANESE, "👩‍👩‍👧🎉" * 40])
@pytest.mark.parametrize("length", [48, 61, 70])
def test_sources_are_cut_at_the_end_and_targets_never(any_tokenizer, source, length):
    length += 40 * bool(any_tokenizer.chat_template)
    builder = TextBuilder(any_tokenizer, max_length=length)
    prompt = Prompt("Is it good?\n\n", source, "\n\nAnswer:")
    example = builder.example(prompt, "très bon")
    answer = builder.answer("très bon")
    assert len(example.ids) <= length
    assert example.ids[example.n_prompt :] == answer
    text = any_tokenizer.decode(example.ids[: example.n_prompt])
    start = text.index("Is it good?\n\n") + len("Is it good?\n\n")
    kept = text[start : text.index("\n\nAnswer:")]
    assert "�" not in kept  # cut between characters
    assert 0 < len(kept) < len(source)
    assert source.startswith(kept)
    whole = TextBuilder(any_tokenizer, max_length=10**6).example(prompt, "très bon")
    assert example.cut == len(whole.ids) - len(example.ids)
    longest_character = 11  # tokens of a byte-level vocabulary: the family emoji's parts, and one merged away
    assert len(example.ids) > length - longest_character


def test_a_row_that_just_fits_is_not_cut(tokenizer):
    whole = TextBuilder(tokenizer, max_length=10**6).example(QUESTION, "good")
    exact = TextBuilder(tokenizer, max_length=len(whole.ids)).example(QUESTION, "good")
    assert exact == whole
    assert TextBuilder(tokenizer, max_length=len(whole.ids) - 1).example(QUESTION, "good").cut > 0


def test_a_tokenizer_without_offsets_cuts_at_characters_too(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
    builder = TextBuilder(tokenizer, max_length=60)
    example = builder.example(Prompt("", JAPANESE, "\n\nAnswer:"), "good")
    assert 50 < len(example.ids) <= 60
    assert "�" not in tokenizer.decode(example.ids)


def test_an_instruction_that_does_not_fit_is_refused_by_sentence(any_tokenizer):
    builder = TextBuilder(any_tokenizer, max_length=20)
    with pytest.raises(InputError) as error:
        builder.example(Prompt("word " * 50, "text", "\n\nAnswer:"), "good")
    assert str(error.value).startswith("lora.max_length: 20 leaves ")
    assert str(error.value).endswith("without the text. Raise it or shorten the instruction.")


def test_a_target_that_does_not_fit_is_refused_by_sentence(tokenizer):
    with pytest.raises(
        InputError, match=r"lora.max_length: is 8, and a target takes \d+ tokens\. Targets are"
    ):
        TextBuilder(tokenizer, max_length=8).example(QUESTION, "word " * 20)


def test_generated_text_ends_at_the_first_stop(tokenizer):
    give_template(tokenizer, "chatml")
    builder = TextBuilder(tokenizer, max_length=64)
    word = tokenizer("word", add_special_tokens=False)["input_ids"]
    for stop in builder.stop_ids:
        assert builder.decode([*word, stop, *word]) == "word"
    assert builder.decode([]) == ""
