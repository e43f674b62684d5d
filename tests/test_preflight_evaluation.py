"""What is said of metrics, rivals and packages before anything is trained."""

from __future__ import annotations

import pytest

import sabir
from sabir.errors import InputError
from small_project import rows, settings, write_config, write_language, write_project, write_rows

LABELS = ["delivery", "payment"]
TWO = ("de", "en")


def complaint(config, verb="check", **options):
    with pytest.raises(InputError) as caught:
        getattr(sabir.Project(config, **options), verb)()
    assert not (config.parent / ".sabir" / "steps").exists(), "nothing ran before it was said"
    return str(caught.value)


def of_labels(*metrics):
    return {"name": "classification", "labels": LABELS, "metrics": list(metrics)}


def of_texts(**changes):
    return {"name": "summarization", "max_new_tokens": 4, **changes}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (of_labels("rougeL"), "'rougeL' does not fit a task that is answered by one of its labels."),
        (of_labels("f1_at_5"), "'f1_at_5' does not fit a task that is answered by one of its labels."),
        (of_texts(metrics=["macro_f1"]), "'macro_f1' does not fit a task that is answered by a text."),
        (of_texts(metrics=["accuracy_per_byte"]), "'accuracy_per_byte' does not fit a task"),
        (of_labels("acuracy"), "no such metric: 'acuracy'. Those that fit are: accuracy,"),
        (of_texts(metrics=["bertscore_f1"]), "evaluate.encoder: bertscore_f1 needs an encoder."),
    ],
)
def test_a_metric_that_does_not_fit_the_task_is_refused(tmp_path, task, said):
    assert said in complaint(write_project(tmp_path, TWO, task=task))


def test_an_encoder_that_is_not_there_is_refused(tmp_path):
    task = of_texts(metrics=["bertscore_f1"])
    config = write_project(tmp_path, TWO, task=task, evaluate={"encoder": "./encoders/none"})
    assert "evaluate.encoder" in complaint(config)


def with_encoder(tmp_path, layer=None, **config):
    from transformers import BertConfig

    BertConfig(num_hidden_layers=3, **config).save_pretrained(tmp_path / "encoder")
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / "encoder" / name).write_bytes(b"")  # their being there is looked at, not they
    evaluate = {"encoder": "./encoder", **({"encoder_layer": layer} if layer else {})}
    return write_project(tmp_path, TWO, task=of_texts(metrics=["bertscore_f1"]), evaluate=evaluate)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"layer": 9},
            "evaluate.encoder_layer: layer is 9, and './encoder' has layers 1 to 3. Set it to at most 3.",
        ),
        ({"is_encoder_decoder": True}, "evaluate.encoder: './encoder' holds a bert, not an encoder alone."),
        (
            {"architectures": ["BertForCausalLM"]},
            "evaluate.encoder: './encoder' holds a bert that writes texts",
        ),
        ({"is_decoder": True}, "evaluate.encoder: './encoder' holds a bert that writes texts"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused_before_anything_is_trained(tmp_path, given, said):
    assert said in complaint(with_encoder(tmp_path, **given))


def test_an_encoder_of_few_positions_serves(tmp_path):
    assert sabir.Project(with_encoder(tmp_path, layer=3, max_position_embeddings=128)).check()["ok"]


def test_a_translator_goes_with_labels_only(tmp_path):
    (tmp_path / "mine.py").write_text("def turn(texts, source, target):\n    return texts\n")
    rivals = {"translate": {"model": "mine:turn"}}
    config = write_project(tmp_path, TWO, task=of_texts(), rivals=rivals)
    assert "rivals.translate: a translated question" in complaint(config, allow_code=True)


def test_code_of_ones_own_is_not_run_unasked(tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')\n")
    config = write_project(tmp_path, TWO, rivals={"routed": "mine:detect"})
    assert "--allow-code" in complaint(config)


def test_a_detector_that_is_not_installed_is_said_with_the_command(tmp_path, monkeypatch):
    import sabir.work.detect as detect

    monkeypatch.setattr(detect, "detector_missing", lambda name: "pip install 'sabir[detect]'")
    config = write_project(tmp_path, TWO, rivals={"routed": "py3langid"})
    assert "pip install 'sabir[detect]'" in complaint(config)


def test_a_detector_that_does_not_exist_is_refused_in_a_sentence(tmp_path):
    config = write_project(tmp_path, TWO, rivals={"routed": "langid"})
    for verb in ("check", "plan"):
        assert complaint(config, verb).startswith("rivals.routed: there is no language detector 'langid'.")


def test_vllm_is_asked_for_before_the_run_and_for_texts_only(tmp_path):
    config = write_project(tmp_path, TWO, task=of_texts(), evaluate={"generator": "vllm"})
    assert "evaluate.generator: vllm is not installed. Install it: pip install" in complaint(config)
    labels = write_project(tmp_path / "labels", TWO, evaluate={"generator": "vllm"})
    assert "vllm writes texts, and this task's answers are scored." in complaint(labels)


def test_weights_by_rows_need_rows(tmp_path):
    from test_preflight import adapter, brought

    adapter(tmp_path / "adapters/en", 1)
    write_language(tmp_path, "de")
    data = {**brought(tmp_path, "en"), "de": "data/de"}
    merges = {"weighted": {"method": "linear", "weights": "rows"}}
    config = write_config(tmp_path, settings(data=data, merges=merges))
    assert "merges.weighted.weights: there are no training rows of en" in complaint(config)


def test_a_word_splitter_that_is_missing_is_said_with_its_command(tmp_path, monkeypatch):
    import sabir.metrics

    missing = {"ja": "pip install 'sabir[ja]'"}
    monkeypatch.setattr(sabir.metrics, "missing_package", lambda metric, language: missing.get(language))
    languages = ("en", "ja")
    texts = [
        warning for warning in warned(tmp_path / "texts", languages, of_texts()) if "sabir[ja]" in warning
    ]
    assert len(texts) == 1
    assert texts[0].startswith("data.ja: no word splitter")
    assert not [one for one in warned(tmp_path / "labels", languages, of_labels()) if "sabir[ja]" in one]


def warned(folder, languages, task):
    return sabir.Project(write_project(folder, languages, task=task)).check()["warnings"]


def test_a_test_set_of_three_rows_is_warned_of(tmp_path):
    config = write_project(tmp_path, TWO)
    write_rows(tmp_path / "data/de/test.jsonl", rows("de", "test", 3))
    assert any("de 3 test" in warning for warning in sabir.Project(config).check()["warnings"])


def test_more_examples_than_rows_are_refused(tmp_path):
    config = write_project(tmp_path, TWO, rivals={"shots": 3})
    write_rows(tmp_path / "data/de/train.jsonl", rows("de", "train", 3))
    assert "rivals.shots: is 3, and de has 3 training rows." in complaint(config)


def test_examples_that_the_base_cannot_read_whole_are_warned_of(tmp_path):
    def said(shots):
        config = write_project(
            tmp_path, TWO, rivals={"shots": shots}
        )  # rows of 64 tokens, a base that reads 1024
        return [one for one in sabir.Project(config).check()["warnings"] if one.startswith("rivals.shots")]

    assert not said(15)
    assert said(16) == [
        "rivals.shots: 16 examples and the question of up to 64 tokens each are 1,088 tokens, and the base reads "
        "1,024: long texts are cut so that each takes about 60, the question too. Lower shots where texts are long."
    ]


def test_a_choice_that_does_not_fit_into_a_row_is_told_by_its_place(tmp_path):
    config = write_project(tmp_path, TWO, task={"name": "choice"})
    for language in TWO:
        for split in ("train", "valid", "test"):
            given = [{**row, "choices": ["delivery", "payment"]} for row in rows(language, split, 12)]
            if (language, split) == ("de", "test"):
                given[3]["choices"].append("a very long choice indeed " * 30)
            write_rows(tmp_path / f"data/{language}/{split}.jsonl", given)
    said = complaint(config)
    assert "data/de/test.jsonl, line 4: the answer takes" in said
    assert "lora.max_length = 64" in said


def test_a_rival_of_no_merge_is_refused(tmp_path):
    config = write_project(tmp_path, TWO, merges={}, rivals={"merged_rank": True})
    assert "rivals.merged_rank: there is no merge to hold" in complaint(config)
