"""Everything that can be wrong is said before any training, in sentences that name the place."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import sabir
from problems import random_factors, save_peft
from sabir.errors import InputError, InputErrors
from sabir.lora.checks import base_linear_shapes
from sabir.work.bases import EMBEDDED_FOLDER
from sabir.work.sources import SHOWN
from small_project import rows, settings, write_config, write_language, write_project, write_rows

INLINE = ["run.backend=inline"]
SHAPES = {name: shape for name, shape in base_linear_shapes(EMBEDDED_FOLDER).items() if ".layers." in name}


def adapter(folder, seed=0, *, shapes=SHAPES, base=None, **config):
    factors = random_factors(seed, rank=2, size=0.01, shapes=shapes)
    return save_peft(folder, factors, base_model_name_or_path=base, **config)


def brought(folder, *languages):
    """Entries of `data` for languages that bring an adapter."""
    entries = {}
    for language in languages:
        write_language(folder, language, train=0)
        files = {split: f"data/{language}/{split}.jsonl" for split in ("valid", "test")}
        entries[language] = {"adapter": f"adapters/{language}", **files}
    return entries


def complaint(config, verb="check", **options):
    with pytest.raises(InputError) as caught:
        getattr(sabir.Project(config), verb)(**options)
    assert not (config.parent / ".sabir" / "steps").exists(), "nothing ran before it was said"
    return str(caught.value)


# --- bring your own --------------------------------------------------------------------------------------


def test_a_whole_loop_with_brought_adapters_trains_nothing(tmp_path):
    for seed, language in enumerate(("en", "de")):
        adapter(tmp_path / "adapters" / language, seed)
    config = write_config(tmp_path, settings(baseline="none", data=brought(tmp_path, "en", "de")))
    document = sabir.Project(config, overrides=INLINE).run()
    assert {step["kind"] for step in document["steps"]} == {
        *("data", "adopted", "merged", "outputs", "scores", "macro", "select", "judge", "analysis")
    }
    assert document["selected"].startswith("merged/")
    assert sabir.Project(config).run()["run"]["id"] is None


def test_with_a_combined_baseline_check_warns_that_it_does_not_know_the_language(tmp_path):
    adapter(tmp_path / "adapters/zh")
    for language in ("en", "de"):
        write_language(tmp_path, language)
    data = {"en": "data/en", "de": "data/de", **brought(tmp_path, "zh")}
    config = write_config(tmp_path, settings(data=data))
    document = sabir.Project(config).check()
    assert any("no training rows are given for zh" in warning for warning in document["warnings"])
    combined = next(
        step for step in sabir.Project(config).plan()["steps"] if step["name"] == "adapter/combined"
    )
    assert combined["status"] == "run"


def test_a_combined_baseline_without_any_training_rows_is_refused(tmp_path):
    adapter(tmp_path / "adapters/zh")
    config = write_config(tmp_path, settings(data=brought(tmp_path, "zh")))
    assert complaint(config, "plan").startswith("baseline: is combined, and no language has training rows.")


def test_an_adapter_of_other_shapes_is_refused(tmp_path):
    adapter(tmp_path / "adapters/zh", shapes={name: (8, 8) for name in SHAPES})
    config = write_config(tmp_path, settings(baseline="none", data=brought(tmp_path, "zh")))
    assert "is (8, 8) here and" in complaint(config)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_an_adapter_that_names_another_base_is_refused(tmp_path, verb):
    adapter(tmp_path / "adapters/zh", base="Qwen/Qwen3-0.6B")
    config = write_config(tmp_path, settings(baseline="none", data=brought(tmp_path, "zh")))
    said = complaint(config, verb)
    assert said.startswith("data.zh.adapter: was made for 'Qwen/Qwen3-0.6B', and the base is 'embedded'.")


def test_a_base_whose_name_begins_like_ours_is_another_base():
    from types import SimpleNamespace

    from sabir.preflight import _check_base

    ours = SimpleNamespace(base="Qwen/Qwen3-0.6B@main", folder=EMBEDDED_FOLDER)
    with pytest.raises(InputError, match=r"Qwen3-0\.6B-Base"):
        _check_base(SimpleNamespace(base_model="Qwen/Qwen3-0.6B-Base"), ours, where="data.zh.adapter")  # type: ignore[arg-type]
    _check_base(SimpleNamespace(base_model="Qwen/Qwen3-0.6B"), ours, where="")  # type: ignore[arg-type]


def test_a_dora_adapter_is_refused_by_name(tmp_path):
    adapter(tmp_path / "adapters/zh", use_dora=True)
    config = write_config(tmp_path, settings(baseline="none", data=brought(tmp_path, "zh")))
    assert "DoRA" in complaint(config)


def test_adapters_of_different_modules_go_together(tmp_path):
    few = {name: shape for name, shape in SHAPES.items() if name.endswith("q_proj")}
    adapter(tmp_path / "adapters/zh", shapes=few)
    write_language(tmp_path, "en")
    data = {"en": "data/en", **brought(tmp_path, "zh")}
    config = write_config(tmp_path, settings(baseline="none", data=data))
    assert sabir.Project(config).check()["ok"]


def test_what_cannot_be_averaged_with_an_adapter_to_be_trained_is_refused_before_it_is_trained(tmp_path):
    folder = adapter(tmp_path / "adapters/zh", modules_to_save=["lm_head"]).path
    weights = load_file(folder / "adapter_model.safetensors")
    size = base_linear_shapes(EMBEDDED_FOLDER)["model.embed_tokens"]
    save_file(
        {**weights, "base_model.model.lm_head.weight": torch.zeros(size)},
        folder / "adapter_model.safetensors",
    )
    write_language(tmp_path, "en")
    data = {"en": "data/en", **brought(tmp_path, "zh")}
    config = write_config(tmp_path, settings(baseline="none", data=data))
    assert "of modules_to_save, and the adapter of en, trained here, has none" in complaint(config)
    alone = write_config(tmp_path, settings(baseline="none", data=brought(tmp_path, "zh")))
    assert sabir.Project(alone).check()["ok"]


def test_one_adapter_under_two_languages_is_warned_of(tmp_path):
    for language in ("en", "de", "fr"):
        adapter(tmp_path / "adapters" / language, seed=int(language == "fr"))
    config = write_config(tmp_path, settings(baseline="none", data=brought(tmp_path, "en", "de", "fr")))
    warnings = [w for w in sabir.Project(config).check()["warnings"] if "same adapter" in w]
    assert warnings == [
        "data.de.adapter: is the same adapter as data.en's, so it counts twice in every merge."
    ]


# --- merges ----------------------------------------------------------------------------------------------


def test_a_merge_that_equals_a_simpler_one_says_so(tmp_path):
    merges = {
        "dare": {"method": "dare_ties", "density": {"grid": [0.2, 1.0]}},
        "ties": {"method": "ties", "density": 0.2},
    }
    config = write_project(tmp_path, ("en", "de"), merges=merges)
    warnings = [w for w in sabir.Project(config).check()["warnings"] if w.startswith("merges.")]
    assert warnings == ["merges.dare: At density 1 nothing is dropped: 'dare_ties' is 'ties'."]


def test_a_search_without_optuna_is_refused_before_the_run(tmp_path, monkeypatch):
    from sabir.work import search

    merges = {"tuned": {"method": "ties", "search": {"budget": 2}}}
    config = write_project(tmp_path, ("en", "de"), merges=merges)
    assert sabir.Project(config).check()["ok"]
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    for verb in ("check", "plan", "run"):
        assert complaint(config, verb) == (
            "merges.tuned.search: a search needs Optuna. Install it: pip install 'sabir[search]'."
        )


def test_a_whole_model_needs_its_room_on_the_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")

    def needed(rank):
        merges = {"t": {"method": "ties", "rank": rank}}
        config = write_project(tmp_path / str(rank), ("en", "de"), merges=merges)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
        return int(complaint(config, "run").partition("may need ")[2].partition(" MiB")[0])

    base = sum(path.stat().st_size for path in EMBEDDED_FOLDER.glob("*.safetensors"))
    assert needed("fold") - needed(1) >= base / 2**20 - 2


def test_all_linear_means_the_modules_that_peft_adapts():
    """The oracle is PEFT itself, on the embedded base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER, dtype=torch.float32, local_files_only=True)
    model = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in model.named_modules()
        if name.endswith("lora_A.default")
    }
    assert adapted == set(SHAPES)


# --- rows ------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    config = write_project(tmp_path, ("en", "de"))
    (tmp_path / "data/de/test.jsonl").unlink()
    assert complaint(config) == (
        f"data.de: {tmp_path}/data/de has no test file. Add test.jsonl, test.csv, test.tsv or test.parquet."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "train.jsonl: there are no rows."),
        ('{"input": "a", "output": "delivery"}\n{"input": \n', "train.jsonl, line 2: is not valid JSON"),
        ('{"output": "delivery"}\n', "train.jsonl, line 1:"),
        ('{"input": "a", "output": " "}\n', "train.jsonl, line 1:"),
        (
            '{"input": "a", "output": "delivry"}\n',
            "train.jsonl, line 1: the label 'delivry' is not declared.",
        ),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, text, said):
    config = write_project(tmp_path, ("en", "de"))
    (tmp_path / "data/de/train.jsonl").write_text(text, encoding="utf-8")
    for verb in ("check", "plan", "run"):
        assert said in complaint(config, verb)


def test_all_wrong_things_are_said_at_once(tmp_path):
    config = write_project(tmp_path, ("en", "de"))
    for language in ("en", "de"):
        write_rows(tmp_path / f"data/{language}/valid.jsonl", [{"input": "a", "output": "other"}])
    said = complaint(config).splitlines()
    assert len(said) == 2
    assert "data/en" in said[0]
    assert "data/de" in said[1]


def test_an_answer_that_is_longer_than_a_row_is_refused(tmp_path):
    config = write_project(tmp_path, ("en",), task="summarization", lora={"max_length": 128})
    assert sabir.Project(config).check()["ok"]
    long = [{"input": "a", "output": "palabra " * 200}]
    write_rows(tmp_path / "data/en/train.jsonl", rows("en", "train", 4) + long)
    said = complaint(config)
    assert "train.jsonl, line 5: the answer takes" in said
    assert "a row has lora.max_length = 128. Answers are never cut: raise max_length or drop the row." in said


def test_the_combined_adapter_is_held_to_its_own_length(tmp_path):
    data = {"en": {"folder": "data/en", "lora": {"max_length": 512}}, "de": "data/de"}
    changes = {"task": "summarization", "lora": {"max_length": 100}, "data": data}
    config = write_project(tmp_path, ("en", "de"), **changes)
    write_config(tmp_path, settings(**changes, baseline="none"))
    long = [{"input": "a", "output": "palabra " * 60}]
    write_rows(tmp_path / "data/en/train.jsonl", rows("en", "train", 4) + long)
    assert sabir.Project(config).check()["ok"]
    write_config(tmp_path, settings(**changes, baseline="combined"))
    assert "lora.max_length = 100" in complaint(config)


def test_texts_that_are_in_train_and_test_are_counted_and_warned_of(tmp_path):
    config = write_project(tmp_path, ("en", "de"))
    write_rows(tmp_path / "data/de/test.jsonl", rows("de", "train", 3) + rows("de", "test", 4))
    warnings = sabir.Project(config).check()["warnings"]
    assert any(warning.startswith("data.de: 3 of 7 test texts are also in train") for warning in warnings)
    assert warnings == sabir.Project(config).plan()["warnings"]


# --- names, base, disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merges": {"a": {"method": "tis"}}}, "Did you mean 'ties'?"),
        ({"task": {"name": "clasification", "labels": ["a", "b"]}}, "Did you mean 'classification'?"),
        ({"merges": {"a": {"method": "ties", "densty": 0.2}}}, "Did you mean 'density'?"),
        ({"lora": {"epoch": 3}}, "Did you mean 'epochs'?"),
        ({"select": {"metric": "rouge1"}}, "select.metric: 'rouge1' is not among the task's metrics"),
        ({"lora": {"targets": ["q_porj"]}}, "lora.targets: the base has no linear module 'q_porj'."),
        ({"lora": {"max_length": 10**6}}, "the base reads at most"),
        ({"base": "./nowhere"}, "'./nowhere' is no folder."),
        ({"base": "nobody/no-such-model"}, "'nobody/no-such-model' is not in the local cache"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(tmp_path, changes, said):
    config = write_config(tmp_path, {**settings(("en", "de")), **changes})
    for language in ("en", "de"):
        write_language(tmp_path, language)
    with pytest.raises(InputError) as caught:
        sabir.Project(config).check()
    assert said in str(caught.value)


def test_an_unknown_metric_is_found_by_plan_as_well(tmp_path):
    task = {"name": "classification", "labels": ["delivery", "payment"], "metrics": ["acuracy"]}
    config = write_project(tmp_path, ("en", "de"), task=task)
    for verb in ("check", "plan", "run"):
        assert "task.metrics: no such metric: 'acuracy'." in complaint(config, verb)


def test_a_full_disk_is_seen_before_the_run(tmp_path, monkeypatch):
    config = write_project(tmp_path, ("en", "de"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 2**20, 2**20))
    said = complaint(config, "run")
    assert "has 1 MiB free, and this run may need" in said
    assert said.endswith("Free some space or point run.store elsewhere.")


def test_a_broken_lock_is_said_to_be(tmp_path):
    config = write_project(tmp_path, ("en", "de"))
    (tmp_path / "sabir.lock").write_text(json.dumps({"base": "x"}), encoding="utf-8")
    assert "is not a lock that sabir wrote" in complaint(config)
    (tmp_path / "sabir.lock").write_bytes(b"\xff\xfe")
    assert "UTF-8" in complaint(config)


def test_an_instruction_that_leaves_no_room_is_found_before_any_training(tmp_path):
    config = write_project(tmp_path, ("en",))
    long = " ".join(["Say which of these it is, and think of every word twice before you answer."] * 8)
    project = sabir.Project(config, overrides={"task.instruction": long})
    with pytest.raises(InputError, match=r"instruction, cue and answer take .* tokens before any text"):
        project.check()


def test_of_many_answers_that_are_too_long_a_few_are_told_and_the_rest_counted(tmp_path):
    config = write_project(tmp_path, ("en",))
    with pytest.raises(InputErrors) as error:
        sabir.Project(config, overrides=["lora.max_length=3", "lora.rank=2"]).check()
    told = [str(problem) for problem in error.value.problems() if "the answer takes" in str(problem)]
    assert 1 <= len(told) <= SHOWN
    assert any("more answers are too long likewise" in str(problem) for problem in error.value.problems())
