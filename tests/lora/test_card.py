from __future__ import annotations

import pytest
import yaml

from sabir.lora.card import model_card

DOCUMENT = {
    "recipe": {"method": "ties", "space": "knots", "settings": {"density": 0.5}, "weights": {"de": 2.0}},
    "adapters": [{"name": "de", "digest": "sha256:ab"}, {"name": "fr", "digest": "sha256:cd"}],
    "rank": 32,
    "modules": 7,
    "parameters": 123456,
    "energy_kept": 0.98765,
    "energy_kept_by_adapter": {"de": 0.99, "fr": 0.9},
    "base_model": "org/model",
    "revision": "a" * 40,
    "warnings": ["Keeps little."],
}


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_names_recipe_sources_energy_and_warnings():
    card = model_card(DOCUMENT)
    assert front_matter(card) == {
        "library_name": "peft",
        "base_model": "org/model",
        "tags": ["merge", "lora", "sabir"],
    }
    for line in (
        "| method | ties |",
        "| density | 0.5 |",
        '| weights | `{"de": 2.0}` |',
        "| de | `sha256:ab` | 0.9900 |",
        "| fr | `sha256:cd` | 0.9000 |",
        "- Keeps little.",
    ):
        assert line in card.splitlines()
    assert "0.9877 in total" in card
    assert card == model_card(DOCUMENT)


def test_a_card_gives_the_line_that_serves_it():
    assert (
        f"vllm serve org/model --revision {'a' * 40} --enable-lora --max-lora-rank 32 --lora-modules NAME=FOLDER"
        in model_card(DOCUMENT).splitlines()
    )
    assert "--max-lora-rank 16 " in model_card({**DOCUMENT, "rank": 9})
    folded = model_card({**DOCUMENT, "folded": True})
    assert "vllm serve FOLDER" in folded.splitlines()
    assert front_matter(folded)["library_name"] == "transformers"
    assert "peft" not in folded
    assert "vLLM takes ranks up to 512, and this one is 768" in model_card({**DOCUMENT, "rank": 768})


@pytest.mark.parametrize(
    "base", ["/home/me/model", "./model", "~/model", "a/b/c", "C:\\models\\m", "here", None]
)
def test_no_folder_of_a_machine_is_in_a_card(base, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    card = model_card({**DOCUMENT, "base_model": base})
    assert "base_model" not in front_matter(card)
    assert base is None or base not in card.replace("where", "")
    assert "vllm serve BASE --enable-lora" in card
    assert "the base named in adapter_config.json" in card


def test_a_classifier_is_loaded_as_one_and_not_served():
    card = model_card({**DOCUMENT, "task_type": "SEQ_CLS"})
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    assert "vllm" not in card
