"""The sections `data`, `lora` and `update`, and the languages they make."""

from __future__ import annotations

import dataclasses

import pytest
from config_texts import DESIGN, MINIMAL

from sabir.languages import LoraConfig, UpdateConfig


def test_a_language_has_the_common_training_settings_with_its_own(read):
    config = read(DESIGN, "lora.rank=8")
    assert config.languages["de"].lora == dataclasses.replace(LoraConfig(), rank=8, epochs=5.0)
    assert config.languages["en"].lora == config.lora == dataclasses.replace(LoraConfig(), rank=8)


def test_one_word_says_that_updates_continue(read):
    assert read(MINIMAL).update.mode == "scratch"
    word, spelled = (read(MINIMAL + f"update: {w}\n") for w in ("continue", "{mode: continue}"))
    assert word.update == spelled.update == UpdateConfig("continue")
    assert {language.update for language in word.languages.values()} == {UpdateConfig("continue")}


def test_a_language_has_the_common_way_of_updating_with_its_own(read):
    text = (
        MINIMAL.replace("de: data/de", "de: {folder: data/de, update: %s}")
        + "update: {replay: 0.2, epochs: 1}\n"
    )
    for written, own in (
        ("continue", UpdateConfig("continue", 0.2, 1.0)),
        ("{mode: continue, replay: 1, learning_rate: 1e-5}", UpdateConfig("continue", 1.0, 1.0, 1e-5)),
        ("~", UpdateConfig(replay=0.2, epochs=1.0)),
    ):
        languages = read(text % written).languages
        assert languages["de"].update == own
        assert languages["en"].update == UpdateConfig(replay=0.2, epochs=1.0)


def test_a_continuation_is_trained_as_its_language_is_but_for_what_the_update_says():
    lora = LoraConfig(rank=4, epochs=5.0)
    assert UpdateConfig("continue").applied_to(lora) == lora
    update = UpdateConfig("continue", epochs=1.0, learning_rate=1e-5)
    assert update.applied_to(lora) == LoraConfig(rank=4, epochs=1.0, learning_rate=1e-5)


def test_the_way_of_updating_can_be_chosen_for_one_command(read):
    assert read(MINIMAL, "update=continue").languages["de"].update.mode == "continue"
    assert read(MINIMAL, "update.mode=continue", "update.replay=0.5").update == UpdateConfig("continue", 0.5)


def test_norwegian_is_a_language_and_1e_4_a_number(read):
    config = read("base: embedded\ntask: summarization\ndata:\n  no: data/no\nlora: {learning_rate: 1e-4}\n")
    assert config.languages["no"].language == "no"
    assert config.lora.learning_rate == 1e-4


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_one_file_may_be_a_table(read, project, suffix):
    assert read(f"{MINIMAL}  it: data/it.{suffix}\n").languages["it"].file == project / f"data/it.{suffix}"


def test_valid_may_be_left_out_of_a_languages_files(read):
    text = f"{MINIMAL}  ja: {{train: data/ja.jsonl, test: data/ja-test.jsonl}}\n"
    assert read(text).languages["ja"].valid is None


@pytest.mark.parametrize(
    "code", ["de", "yue", "zh-Hant", "pt-BR", "es-419", "sr-Latn-RS", "de-1996", "en-x-formal"]
)
def test_language_tags_have_the_form_of_bcp_47(read, code):
    assert code in read(MINIMAL.replace("de:", f"{code}:")).languages


@pytest.mark.parametrize(
    ("language", "path", "what"),
    [
        ("data/nowhere", "data.it", "neither a folder nor a file ending in .jsonl, .csv, .tsv or .parquet"),
        ("data/it.txt", "data.it", "neither a folder nor a file"),
        ("data/nowhere.jsonl", "data.it", "there is no file 'data/nowhere.jsonl'"),
        ("data/it.json", "data.it", "it is .jsonl: rename it"),
        ("{file: data/it.txt}", "data.it.file", "does not end in .jsonl"),
        ("{folder: data/nowhere}", "data.it.folder", "there is no folder"),
        ("{folder: }", "data.it.folder", "no value is given"),
        ("{folder: 3}", "data.it.folder", "3 is not a non-empty text"),
        ("{hub: org/set/more}", "data.it.hub", "is no data set"),
        ("{hub: ./nowhere}", "data.it.hub", "there is no folder './nowhere'"),
        ("{hub: data/de, revision: main}", "data.it.revision", "a folder has no revisions"),
        ("{hub: org/set, file: data/fr.jsonl}", "data.it.file", "does not go with hub:"),
        ("{hub: org/set, valid: dev, test: dev}", "data.it.test", "'dev' is valid already"),
        ("{folder: data/de, subset: de}", "data.it.subset", "it goes with hub: only"),
        ("{adapter: adapters/zh, hub: org/set, train: t}", "data.it.train", "does not go with adapter:"),
        ("{}", "data.it", "no data is named"),
        ("", "data.it", "nothing is given"),
        ("3", "data.it", "3 names no data"),
        ("{folder: data/de, file: data/fr.jsonl}", "data.it.file", "does not go with folder:"),
        ("{folder: data/de, test: data/fr.jsonl}", "data.it.test", "does not go with folder:"),
        ("{file: data/fr.jsonl, train: data/fr.jsonl}", "data.it.train", "does not go with file:"),
        ("{train: data/fr.jsonl, valid: data/fr.jsonl}", "data.it.test", "Results are reported on it"),
        ("{valid: data/fr.jsonl, test: data/fr.jsonl}", "data.it.train", "or an adapter:"),
        ("{adapter: adapters/zh, test: data/fr.jsonl}", "data.it.valid", "Merges are selected on it"),
        (
            "{adapter: data/de, valid: data/fr.jsonl, test: data/fr.jsonl}",
            "data.it.adapter",
            "no PEFT adapter",
        ),
        (
            "{adapter: adapters/zh, train: data/fr.jsonl, valid: data/fr.jsonl, test: data/fr.jsonl}",
            "data.it.train",
            "does not go with adapter:",
        ),
        (
            "{adapter: adapters/zh, lora: {rank: 4}, valid: data/fr.jsonl, test: data/fr.jsonl}",
            "data.it.lora",
            "does not go with adapter:",
        ),
        ("{file: data/fr.jsonl, fields: {input: ''}}", "data.it.fields.input", "'' is not a non-empty text"),
    ],
)
def test_wrong_data_of_a_language_is_refused(refusals, language, path, what):
    (sentence,) = refusals(f"{MINIMAL}  it: {language}\n")
    assert sentence.startswith(f"config.yaml, line 6: {path}: ")
    assert what in sentence


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("macro", "sabir's own rows are called so"),
        ("combined", "sabir's own rows are called so"),
        ("DE", "Write 'de'."),
        ("zh_hant", "Write 'zh-Hant'."),
        ("pt-br", "Write 'pt-BR'."),
        ("german", "Expected a tag such as"),
        ("d", "Expected a tag such as"),
        ("de/../x", "Expected a tag such as"),
    ],
)
def test_names_that_are_no_language_tags_are_refused(refusals, code, what):
    (sentence,) = refusals(MINIMAL.replace("de:", f"{code}:"))
    assert sentence.startswith(f"config.yaml, line 4: data.{code}: ")
    assert what in sentence
