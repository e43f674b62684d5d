from __future__ import annotations

import json

import pytest

from sabir.errors import InputError
from sabir.lora.tokenizer import tokenizer_files, vocabulary_difference


def folder(path, vocabulary, added=(), indent=None):
    path.mkdir()
    document = {
        "model": {"vocab": vocabulary},
        "added_tokens": [{"content": content, "id": number} for content, number in added],
    }
    (path / "tokenizer.json").write_text(json.dumps(document, indent=indent))
    return path


def test_vocabularies_are_compared_by_their_tokens_not_by_their_bytes(tmp_path):
    one = folder(tmp_path / "one", {"a": 0, "b": 1}, [("<s>", 2)])
    assert (
        vocabulary_difference(one, folder(tmp_path / "again", {"b": 1, "a": 0}, [("<s>", 2)], indent=1)) == ""
    )
    assert vocabulary_difference(one, folder(tmp_path / "inside", {"a": 0, "b": 1, "<s>": 2})) == ""
    assert vocabulary_difference(one, tmp_path) == ""
    other = vocabulary_difference(one, folder(tmp_path / "other", {"a": 0, "b": 1}, [("<t>", 2)]))
    assert other == "their tokenizers differ in 2 tokens: '<s>' is number 2 in one and missing in the other."
    moved = vocabulary_difference(one, folder(tmp_path / "moved", {"a": 1, "b": 0}, [("<s>", 2)]))
    assert "'a' is number 0 in one and number 1 in the other" in moved


def test_a_unigram_vocabulary_is_numbered_by_its_order(tmp_path):
    listed = folder(tmp_path / "listed", [["a", -1.0], ["b", -2.0]])
    assert vocabulary_difference(listed, folder(tmp_path / "scored", [["a", -3.0], ["b", -2.0]])) == ""
    assert vocabulary_difference(listed, folder(tmp_path / "turned", [["b", -1.0], ["a", -2.0]])) != ""


def test_a_tokenizer_that_is_none_is_named(tmp_path):
    one = folder(tmp_path / "one", {"a": 0})
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "tokenizer.json").write_text("[]")
    with pytest.raises(InputError, match="is no tokenizer"):
        vocabulary_difference(one, tmp_path / "two")


def test_the_files_of_a_tokenizer_are_found_and_nothing_else(tmp_path):
    for name in ("tokenizer.json", "chat_template.jinja", "config.json", "model.safetensors", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in tokenizer_files(tmp_path)] == ["chat_template.jinja", "tokenizer.json"]
