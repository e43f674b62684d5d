"""The sections `rivals`, `evaluate` and `seeds`: what merging is held against, and what does not go together."""

from __future__ import annotations

import pytest
from config_texts import MINIMAL

from sabir.config import EvaluationConfig, MergeConfig, RivalsConfig, TranslateConfig

LABELLED = MINIMAL.replace("summarization", "{name: classification, labels: [a, b]}")
ONE = LABELLED.replace("  en: data/en\n", "")
BROUGHT = "  zh: {adapter: adapters/zh, valid: data/zh-valid.jsonl, test: data/zh-test.jsonl}\n"


def test_all_rivals_can_be_asked_for_at_once(read, project):
    text = """\
rivals:
  shots: 4
  merged_rank: true
  routed: py3langid
  translate: {model: org/translator, to: de, languages: {en: eng_Latn}}
  stress: [short, code-switched, mislabelled]
  unseen: {it: data/it.csv, fr: {test: data/fr.jsonl}}
"""
    rivals = read(LABELLED + text).rivals
    assert (rivals.shots, rivals.merged_rank, rivals.routed) == (4, True, "py3langid")
    assert rivals.translate == TranslateConfig("org/translator", "de", {"en": "eng_Latn"})
    assert rivals.stress == ("short", "code-switched", "mislabelled")
    assert {language: one.test for language, one in rivals.unseen.items()} == {
        "it": project / "data/it.csv",
        "fr": project / "data/fr.jsonl",
    }


def test_without_the_section_there_is_no_rival_and_one_training(read):
    config = read(MINIMAL)
    assert (config.rivals, config.evaluate, config.seeds) == (RivalsConfig(), EvaluationConfig(), 1)


def test_a_translator_may_be_named_alone(read):
    assert read(LABELLED + "rivals: {translate: org/m}\n").rivals.translate == TranslateConfig("org/m")
    assert read(LABELLED + "rivals: {translate: ./base}\n").rivals.translate == TranslateConfig("./base")


@pytest.mark.parametrize(
    ("rivals", "sentence"),
    [
        ("{shots: -1}", "rivals.shots: -1 is not a whole number from 0 to 64."),
        ("{merged_rank: yes}", "rivals.merged_rank: 'yes' is not true or false. Write true."),
        ("{routed: ''}", "rivals.routed: '' is not a non-empty text."),
        (
            "{stress: []}",
            "rivals.stress: [] is not a non-empty list, each 'short', 'code-switched' or 'mislabelled'.",
        ),
        ("{stress: [short, short]}", "rivals.stress: 'short' stands there twice. Keep one of the two."),
        (
            "{translate: {to: de}}",
            "rivals.translate.model: it is missing. Write a folder, a hub name, or my.module:function.",
        ),
        (
            "{translate: {model: 3}}",
            "rivals.translate.model: 3 is not a non-empty text. Put it in quotes: '3'.",
        ),
        (
            "{translate: org/m, shots: 2.5}",
            "rivals.shots: 2.5 is not a whole number from 0 to 64.",
        ),
        (
            "{translate: {model: org/m, to: fr}}",
            "rivals.translate.to: 'fr' is none of the languages. Its own adapter answers. There are: de, en.",
        ),
        (
            "{translate: {model: org/m, languages: {fr: fra}}}",
            "rivals.translate.languages.fr: there is no such language. There are: de, en.",
        ),
        (
            "{translate: m2m}",
            "rivals.translate.model: 'm2m' is neither a folder nor a hub name such as Qwen/Qwen3-0.6B. "
            "Or name a function of yours: my.module:function.",
        ),
        (
            "{unseen: {de: data/fr.jsonl}}",
            "rivals.unseen.de: it has an adapter of its own. Name a language that is not under data:.",
        ),
        (
            "{routed: 'mine:detect'}",
            "rivals.routed: 'mine:detect' names code of your own, which is not run unasked. "
            "If you trust it: --allow-code (in Python: allow_code=True).",
        ),
        (
            "{translate: 'mine:translate'}",
            "rivals.translate.model: 'mine:translate' names code of your own, which is not run unasked. "
            "If you trust it: --allow-code (in Python: allow_code=True).",
        ),
    ],
)
def test_wrong_rivals_are_refused(refusals, rivals, sentence):
    assert refusals(f"{LABELLED}rivals: {rivals}\n") == [f"config.yaml, line 6: {sentence}"]


@pytest.mark.parametrize(
    ("rivals", "key", "what"),
    [
        ("{routed: py3langid}", "routed", "nothing to choose among"),
        ("{translate: {model: org/m, to: de}}", "translate", "nothing to translate"),
        ("{stress: [mislabelled]}", "stress", "no other to mix it with"),
    ],
)
def test_what_needs_several_languages_is_refused_for_one(refusals, rivals, key, what):
    assert refusals(f"{ONE}rivals: {rivals}\n") == [
        f"config.yaml, line 5: rivals.{key}: there is one language, de, and {what}. Leave it out, or add a language."
    ]


def test_short_texts_of_one_language_are_a_test_set(read):
    assert read(ONE + "rivals: {stress: [short]}\n").rivals.stress == ("short",)


def test_examples_in_the_prompt_need_training_rows_of_every_language(refusals):
    assert refusals(LABELLED + BROUGHT + "rivals: {shots: 2}\n") == [
        "config.yaml, line 7: rivals.shots: there are no training rows of zh to take examples from: an adapter is "
        "given. Write shots: 0."
    ]


def test_harder_texts_are_made_for_labels_only(read, refusals):
    assert refusals(MINIMAL + "rivals: {stress: [short]}\n") == [
        "config.yaml, line 6: rivals.stress: short, code-switched and mislabelled texts are made for labels, and "
        "'summarization' has none. Leave it out; unseen: goes with every task."
    ]
    assert list(read(MINIMAL + "rivals: {unseen: {it: data/it.csv}}\n").rivals.unseen) == ["it"]


# --- evaluate --------------------------------------------------------------------------------------------


def test_an_encoder_is_a_folder_or_a_hub_name(read, refusals, project):
    for name in ("base", "org/encoder", "org/encoder@main"):
        text = f"{MINIMAL}evaluate: {{encoder: {name}, encoder_layer: 9}}\n"
        evaluate = read(text).evaluate
        assert (evaluate.encoder, evaluate.encoder_layer) == (name, 9)
    assert refusals(MINIMAL + "evaluate: {encoder: ./nowhere}\n") == [
        f"config.yaml, line 6: evaluate.encoder: './nowhere' is no folder. Looked in {project / 'nowhere'}."
    ]
    assert "neither a folder nor a hub name" in refusals(MINIMAL + "evaluate: {encoder: xlm}\n")[0]
    assert refusals(MINIMAL + "evaluate: {encoder_layer: 9}\n") == [
        "config.yaml, line 6: evaluate.encoder_layer: there is no encoder. Name it: evaluate: {encoder: ...}."
    ]


# --- seeds and weights: rows -----------------------------------------------------------------------------


def test_several_trainings_go_with_grids_and_a_combined_baseline(read):
    grid = "merges: {ties: {method: ties, scale: {grid: [0.5, 1.0]}}}\nbaseline: combined\nseeds: 3\n"
    assert read(MINIMAL + grid).seeds == 3


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("update: continue", "3 trainings do not go with update: continue (of de, en)."),
        ("baseline: continued", "3 trainings do not go with baseline: continued."),
        ("merges: {t: {method: ties, search: {budget: 3}}}", "do not go with the search of merges.t."),
    ],
)
def test_several_trainings_do_not_go_with_what_has_one_history(refusals, text, what):
    (sentence,) = refusals(f"{MINIMAL}{text}\nseeds: 3\n")
    assert sentence.startswith("config.yaml, line 7: seeds: ")
    assert what in sentence
    assert "seeds: 1." in sentence


def test_one_language_that_is_continued_is_named(refusals):
    text = MINIMAL.replace("de: data/de", "de: {folder: data/de, update: continue}") + "seeds: 2\n"
    assert "update: continue (of de)" in refusals(text)[0]


@pytest.mark.parametrize("seeds", ["0", "21", "two", "1.5"])
def test_a_number_of_trainings_is_a_number(refusals, seeds):
    assert "seeds: " in refusals(f"{MINIMAL}seeds: {seeds}\n")[0]


def test_weights_by_rows_are_each_languages_share(read):
    merge = read(MINIMAL + "merges: {m: {method: linear, weights: rows}}\n").merges["m"]
    assert merge.weights == "rows"
    assert merge.weighted({"de": 30, "en": 10}).weights == {"de": 0.75, "en": 0.25}
    ties = read(MINIMAL + "merges: {m: {method: ties, weights: rows}}\n").merges["m"]
    assert ties.weighted({"de": 30, "en": 10}).weights == {"de": 1.5, "en": 0.5}
    plain = MergeConfig("m", None, "linear", None, {}, None, None)
    assert plain.weighted({"de": 30, "en": 10}) is plain


def test_weights_by_rows_need_rows(refusals):
    text = LABELLED + BROUGHT + "merges: {m: {method: linear, weights: rows}}\n"
    assert refusals(text) == [
        "config.yaml, line 7: merges.m.weights: there are no training rows of zh to count: an adapter is given. "
        "Write the weights as numbers."
    ]
    assert "'row' is not 'rows'" in refusals(MINIMAL + "merges: {m: {method: linear, weights: row}}\n")[0]
