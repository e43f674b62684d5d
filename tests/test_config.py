"""Config files: what loads, and what is said about what does not."""

from __future__ import annotations

import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sabir.config import (
    Config,
    GateConfig,
    Grid,
    MergeConfig,
    RunConfig,
    SearchConfig,
    ServeConfig,
    load_config,
    members,
)
from sabir.errors import InputError
from sabir.languages import LoraConfig, UpdateConfig

DESIGN = """\
base:   Qwen/Qwen3-0.6B          # hub name or folder; the commit is pinned in sabir.lock
task:   {name: classification, labels: [negative, positive], \
instruction: "Is this review positive or negative?"}
data:
  en: data/en
  de: {folder: data/de, lora: {epochs: 5}}
  fr: data/fr.jsonl
  ja: {train: data/ja.jsonl, valid: data/ja-valid.jsonl, test: data/ja-test.jsonl, \
fields: {input: text, output: label}}
  zh: {adapter: adapters/zh, valid: data/zh-valid.jsonl, test: data/zh-test.jsonl}
lora:   {rank: 16, alpha: 32, targets: all-linear, epochs: 3, learning_rate: 2e-4, batch_size: 16, \
max_length: 512, seed: 0}
baseline: combined               # none | combined
merges:
  average:    {method: linear}
  ties:       {method: ties, density: {grid: [0.2, 0.5, 1.0]}, scale: {grid: [0.5, 1.0]}}
  ties-knots: {method: ties, space: knots, scale: {grid: [0.5, 1.0]}, weights: {en: 1.0, de: 2.0}}
select: {by: macro_mean}
gate:   {max_drop: 0.02, undecided: pass}   # pass | refuse
prices: {usd_per_hour: 2.5}
run:    {backend: local, workers: 2, device: auto, store: .sabir}
"""

MINIMAL = """\
base: embedded
task: summarization
data:
  de: data/de
  en: data/en
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with the files the configs here name."""
    folder = tmp_path_factory.mktemp("project")
    for language in ("en", "de", "no"):
        (folder / "data" / language).mkdir(parents=True)
    for name in (
        "fr.jsonl",
        "ja.jsonl",
        "ja-valid.jsonl",
        "ja-test.jsonl",
        "zh-valid.jsonl",
        "zh-test.jsonl",
    ):
        (folder / "data" / name).touch()
    for name in ("it.csv", "it.tsv", "it.json", "it.parquet", "it.txt"):
        (folder / "data" / name).touch()
    (folder / "adapters" / "zh").mkdir(parents=True)
    (folder / "adapters" / "zh" / "adapter_config.json").write_text("{}")
    (folder / "base").mkdir()
    return folder


@pytest.fixture
def read(project, monkeypatch):
    """Loads a YAML text as `config.yaml` of the project."""
    monkeypatch.chdir(project)

    def load(text: str | bytes, *overrides: str) -> Config:
        Path("config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config("config.yaml", overrides=overrides)

    return load


@pytest.fixture
def refusals(read):
    """The sentences a YAML text earns."""

    def told(text: str, *overrides: str) -> list[str]:
        with pytest.raises(InputError) as caught:
            read(text, *overrides)
        assert caught.value.exit_code == 2
        return [str(error) for error in caught.value.problems()]

    return told


# --- what loads ------------------------------------------------------------------------------------------


def test_the_example_of_the_design_loads(read, project):
    config = read(DESIGN)
    assert config.path == project / "config.yaml"
    assert config.folder == project
    assert config.base == "Qwen/Qwen3-0.6B"
    assert config.task.name == "classification"
    assert config.task.settings["labels"] == ("negative", "positive")
    assert list(config.languages) == ["en", "de", "fr", "ja", "zh"]
    assert config.languages["en"].folder == project / "data/en"
    assert config.languages["fr"].file == project / "data/fr.jsonl"
    ja = config.languages["ja"]
    assert (ja.train, ja.valid, ja.test) == tuple(
        project / f"data/{name}.jsonl" for name in ("ja", "ja-valid", "ja-test")
    )
    assert ja.fields == {"input": "text", "output": "label"}
    assert config.languages["zh"].adapter == project / "adapters/zh"
    assert config.lora == LoraConfig()
    assert config.baseline == "combined"
    assert config.gate.undecided == "pass"
    assert config.prices.usd_per_hour == 2.5
    assert config.run.workers == 2
    assert config.run.store == project / ".sabir"


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


def test_the_combined_baseline_may_be_continued(read):
    assert read(MINIMAL + "baseline: continued\n").baseline == "continued"


def test_the_place_to_serve_from_starts_at_the_config(read, project):
    config = read(MINIMAL)
    assert (config.serve.folder, config.serve.form) == (None, "adapter")
    config = read(MINIMAL + "serve: {folder: ../served, form: model}\n")
    assert (config.serve.folder, config.serve.form) == (project.parent / "served", "model")


def test_the_model_in_use_before_is_an_adapter_or_a_model(read, project, refusals):
    assert read(MINIMAL).gate.incumbent is None
    assert read(MINIMAL + "gate: {incumbent: adapters/zh}\n").gate.incumbent == project / "adapters/zh"
    (project / "base" / "config.json").write_text("{}")
    try:
        assert read(MINIMAL + "gate: {incumbent: base}\n").gate.incumbent == project / "base"
    finally:
        (project / "base" / "config.json").unlink()
    assert refusals(MINIMAL + "gate: {incumbent: base}\n") == [
        "config.yaml, line 6: gate.incumbent: 'base' holds no adapter and no model. Looked for "
        f"adapter_config.json or config.json in {project / 'base'}."
    ]


def test_a_cluster_has_an_address_and_a_job_its_memory(read):
    run = read(MINIMAL + "run: {backend: ray, address: auto, memory_gib: 12}\n").run
    assert (run.backend, run.address, run.memory_gib) == ("ray", "auto", 12.0)
    assert (read(MINIMAL).run.address, read(MINIMAL).run.memory_gib) == (None, None)


def test_a_grid_becomes_one_model_per_point_named_by_its_settings_in_alphabetical_order(read):
    merges = read(DESIGN).merges
    assert [member.name for member in members(merges["average"])] == ["merged/average"]
    ties = members(merges["ties"])
    assert ties[0].name == "merged/ties[density=0.2,scale=0.5]"
    assert ties[0].settings == {"density": 0.2, "scale": 0.5}
    assert len({member.name for member in ties}) == 6
    assert merges["ties-knots"].weights == {"en": 1.0, "de": 2.0}


def test_whole_numbers_where_the_method_takes_floats_give_the_same_models(read):
    merge = "merges:\n  ties: {method: ties, density: %s, scale: {grid: %s}}\n"
    whole, exact = (
        read(MINIMAL + merge % written).merges["ties"] for written in (("1", "[1, 2]"), ("1.0", "[1.0, 2.0]"))
    )
    assert members(whole) == members(exact)
    assert [member.name for member in members(whole)] == ["merged/ties[scale=1.0]", "merged/ties[scale=2.0]"]


def test_members_write_every_kind_of_value():
    grid = {"b": Grid((True, False)), "a": Grid((1, "x")), "c": 3}
    names = [member.name for member in members(MergeConfig("m", "m", None, None, grid, None, None))]
    assert names == [
        "merged/m[a=1,b=true]",
        "merged/m[a=1,b=false]",
        "merged/m[a=x,b=true]",
        "merged/m[a=x,b=false]",
    ]


DOCS = Path(__file__).parents[1] / "docs" / "config.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[1].strip()[:20])
def test_every_example_of_the_docs_loads(example, tmp_path):
    for language in ("de", "en"):
        (tmp_path / "data" / language).mkdir(parents=True)
    for name in ("data/fr.jsonl", "a.jsonl", "b.jsonl", "c.jsonl", "v.jsonl", "t.jsonl"):
        (tmp_path / name).touch()
    for adapter in ("zh", "in-use"):
        (tmp_path / "adapters" / adapter).mkdir(parents=True)
        (tmp_path / "adapters" / adapter / "adapter_config.json").write_text("{}")
    section = example.partition(":")[0]
    kept = "base: embedded\ntask: summarization\n" + (
        "" if section == "data" else MINIMAL[MINIMAL.index("data") :]
    )
    (tmp_path / "config.yaml").write_text(kept + example, encoding="utf-8")
    config = load_config(tmp_path / "config.yaml")
    assert section in ("data", "update", "merges", "gate", "serve", "run")
    for merge in config.merges.values():
        for member in members(merge):
            assert merge.made(member.settings).method


def test_the_docs_name_every_key():
    text = DOCS.read_text(encoding="utf-8")
    for kind in (MergeConfig, SearchConfig, UpdateConfig, GateConfig, ServeConfig, RunConfig):
        for field in dataclasses.fields(kind):
            assert field.name in ("name", "settings") or re.search(rf"`(\w+\.)?{field.name}`", text)


def test_a_minimal_config_has_the_defaults(read):
    config = read(MINIMAL)
    assert config.lora == LoraConfig()
    assert config.baseline == "none"
    assert list(config.merges) == ["average", "ties", "ties-knots"]
    assert all(merge.recipe == name for name, merge in config.merges.items())
    assert config.select.metric is None
    assert config.gate.max_drop == 0.02
    assert config.prices.usd_per_hour is None
    assert config.run.workers is None
    assert config.evaluate.level == 0.95


def test_default_merges_have_the_recommended_settings(read):
    from sabir.merging.published import RECIPES

    config = read(MINIMAL)
    assert config.merges["ties"].settings == dict(RECIPES["ties"].recommended)


def test_sections_left_empty_are_as_if_absent(read):
    empty = "lora:\nupdate:\nmerges:\nselect:\ngate:\nserve:\nprices:\nrun:\nevaluate:\n"
    assert read(MINIMAL + empty) == read(MINIMAL)


def test_no_merges_can_be_asked_for(read):
    assert read(MINIMAL + "merges: {}\n").merges == {}


def test_a_bare_text_names_a_recipe(read):
    merge = read(MINIMAL + "merges: {mine: ties-knots}\n").merges["mine"]
    assert (merge.recipe, merge.method, merge.settings) == ("ties-knots", None, {})
    assert [member.name for member in members(merge)] == ["merged/mine"]


def test_a_list_of_names_is_a_merge_each_and_one_name_a_list_of_one(read):
    assert read(MINIMAL + "merges: [ties-knots, average]\n").merges == (
        read(MINIMAL + "merges: {ties-knots: ties-knots, average: average}\n").merges
    )
    assert list(read(MINIMAL + "merges: average\n").merges) == ["average"]


@pytest.mark.parametrize("written", ["paper-eight", "[paper-eight]", "{mine: {preset: paper-eight}}"])
def test_the_preset_of_the_paper_is_eight_merges_in_its_dialect(read, written):
    merges = read(MINIMAL + f"merges: {written}\n").merges
    names = [member.name for merge in merges.values() for member in members(merge)]
    assert len(set(names)) == 8
    made = [merge.made(member.settings) for merge in merges.values() for member in members(merge)]
    assert {(one.method, one.space, one.dialect) for one in made} == {
        (method, space, "paper") for method in ("ties", "dare_ties") for space in ("delta", "knots")
    }
    assert len({str(one.identity()) for one in made}) == 8


def test_a_presets_merges_may_be_folded_and_stand_beside_others(read):
    merges = read(MINIMAL + "merges: {eight: {preset: paper-eight, rank: fold}, mine: average}\n").merges
    assert [merge.rank for merge in merges.values()] == ["fold"] * 4 + [None]


def test_names_that_other_tools_use_are_understood(read):
    theirs = read(MINIMAL + "merges: {a: dare_ties, b: ties_svd, c: DT, d: DTS, e: knots-ties}\n").merges
    made = {name: merge.made({}) for name, merge in theirs.items()}
    assert [(one.method, one.space) for one in made.values()] == [
        *(("dare_ties", "delta"), ("ties", "delta"), ("dare_ties", "delta")),
        *(("dare_ties", "knots"), ("ties", "knots")),
    ]


def test_settings_and_weights_may_differ_by_module(read):
    text = """\
merges:
  deep:
    method: ties
    density: {depth: [0.2, 1]}
    scale: {"*.mlp.*": 1, "*": {depth: [0, 2]}}
    weights: {de: {q_proj: 2, "*": 1}}
"""
    deep = read(MINIMAL + text).merges["deep"]
    assert deep.settings == {
        "density": {"depth": [0.2, 1.0]},
        "scale": {"*.mlp.*": 1.0, "*": {"depth": [0.0, 2.0]}},
    }
    assert deep.weights == {"de": {"q_proj": 2, "*": 1}}
    assert [member.name for member in members(deep)] == ["merged/deep"]


@pytest.mark.parametrize("rank", ["exact", "serve", "fold", "16"])
def test_a_rank_is_a_number_or_what_it_is_for(read, rank):
    merge = f"{{method: ties, space: knots, rank: {rank}, dialect: paper, dtype: bfloat16}}"
    made = read(f"{MINIMAL}merges: {{t: {merge}}}\n").merges["t"].made({})
    assert str(made.rank) == rank
    assert (made.dialect, made.dtype) == ("paper", "bfloat16")


def test_words_are_settings_too(read):
    merge = read(MINIMAL + "merges: {t: {method: ties, density: 0.2, trim_over: module}}\n").merges["t"]
    assert merge.settings == {"density": 0.2, "trim_over": "module"}


def test_a_search_has_its_defaults_and_is_one_merge(read):
    searched = read(MINIMAL + "merges: {t: {method: ties, search: {budget: 5}}}\n").merges["t"]
    assert searched.search == SearchConfig(method="tpe", budget=5, seed=0, over=None)
    assert [member.name for member in members(searched)] == ["merged/t"]
    assert read(MINIMAL + "merges: {t: {method: ties, search: }}\n").merges["t"].search is None


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


def test_absolute_paths_and_paths_from_another_folder_work(read, project, tmp_path, monkeypatch):
    text = MINIMAL.replace("data/en", str(project / "data/en")) + f"run: {{store: {tmp_path}}}\n"
    here = read(text)
    monkeypatch.chdir(tmp_path)
    there = load_config(project / "config.yaml")
    assert here == there
    assert there.run.store == tmp_path


@pytest.mark.parametrize("base", ["embedded", "base", "./base", "org/model-1.5B", "org/model@0123abc"])
def test_a_base_is_a_folder_a_hub_name_or_embedded(read, base):
    assert read(MINIMAL.replace("embedded", base)).base == base


@pytest.mark.parametrize(
    "code", ["de", "yue", "zh-Hant", "pt-BR", "es-419", "sr-Latn-RS", "de-1996", "en-x-formal"]
)
def test_language_tags_have_the_form_of_bcp_47(read, code):
    assert code in read(MINIMAL.replace("de:", f"{code}:")).languages


def test_windows_newlines_and_a_byte_order_mark_change_nothing(read):
    assert read(b"\xef\xbb\xbf" + DESIGN.replace("\n", "\r\n").encode()) == read(DESIGN)


def test_a_config_can_be_sent_to_another_process(read):
    config = read(DESIGN)
    assert pickle.loads(pickle.dumps(config)) == config


def test_settings_from_the_command_line_win(read):
    config = read(
        DESIGN, "lora.epochs=0.5", "baseline=none", "merges.average.scale=0.3", "task.labels=[x, y]"
    )
    assert config.lora.epochs == 0.5
    assert config.baseline == "none"
    assert config.merges["average"].settings == {"scale": 0.3}
    assert config.task.settings["labels"] == ("x", "y")


def test_settings_from_the_command_line_may_open_a_section(read, project):
    assert read(MINIMAL, "run.workers=3").run.workers == 3
    by_name = load_config(project / "config.yaml", overrides={"evaluate.level": "0.9"})
    assert by_name.evaluate.level == 0.9


def test_importing_config_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'peft', 'numpy', 'scipy', 'pydantic', 'ray'}"
    code = f"import sys, sabir.config\nassert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_a_config_imports_no_torch(project, read):
    read(DESIGN)
    code = (
        "import sys\nfrom sabir.config import load_config\nload_config(sys.argv[1])\n"
        "assert not {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, project / "config.yaml"], check=False)
    assert done.returncode == 0


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "merge: {}",
            "line 6: merge: no such setting. A config takes: base, task, data, lora, update, baseline, "
            "merges, select, gate, serve, prices, run, evaluate, rivals, seeds. Did you mean 'merges'?",
        ),
        (
            "lora:\n  rnk: 3",
            "line 7: lora.rnk: no such setting. 'lora' takes: rank, alpha, targets, dropout, rslora, "
            "epochs, learning_rate, batch_size, max_length, seed, warmup, schedule, weight_decay. "
            "Did you mean 'rank'?",
        ),
        (
            "select: {bye: x}",
            "line 6: select.bye: no such setting. 'select' takes: by, metric. Did you mean 'by'?",
        ),
        (
            "gate: {maxdrop: 0.1}",
            "line 6: gate.maxdrop: no such setting. 'gate' takes: max_drop, undecided, incumbent. "
            "Did you mean 'max_drop'?",
        ),
        (
            "update: {epoch: 1}",
            "line 6: update.epoch: no such setting. 'update' takes: mode, replay, epochs, learning_rate. "
            "Did you mean 'epochs'?",
        ),
        (
            "serve: {dir: x}",
            "line 6: serve.dir: no such setting. 'serve' takes: folder, form.",
        ),
        ("prices: {usd: 1}", "line 6: prices.usd: no such setting. 'prices' takes: usd_per_hour."),
        (
            "run: {worker: 1}",
            "line 6: run.worker: no such setting. 'run' takes: backend, workers, device, store, "
            "micro_batch, address, memory_gib. Did you mean 'workers'?",
        ),
        (
            "evaluate: {levels: 1}",
            "line 6: evaluate.levels: no such setting. 'evaluate' takes: batch_size, level, resamples, "
            "max_unscored, generator, encoder, encoder_layer. Did you mean 'level'?",
        ),
        (
            "merges:\n  a: average\n  dare:\n    method: dare\n    densty: 0.2",
            "line 10: merges.dare.densty: no such setting. 'dare' takes: density, scale, seed. "
            "Did you mean 'density'?",
        ),
        (
            "merges: {t: {method: ties, weights: {dee: 1}}}",
            "line 6: merges.t.weights.dee: no such setting. 'weights' takes: de, en. Did you mean 'de'?",
        ),
        (
            "  ja: {fille: data/fr.jsonl, file: data/fr.jsonl}",
            "line 6: data.ja.fille: no such setting. A language "
            "takes: folder, file, train, valid, test, adapter, fields, lora, update. Did you mean 'file'?",
        ),
        (
            "  ja: {file: data/fr.jsonl, update: {reply: 0.2}}",
            "line 6: data.ja.update.reply: no such setting. 'update' "
            "takes: mode, replay, epochs, learning_rate. Did you mean 'replay'?",
        ),
        (
            "  ja: {file: data/fr.jsonl, lora: {epoch: 1}}",
            "line 6: data.ja.lora.epoch: no such setting. 'lora' takes: "
            "rank, alpha, targets, dropout, rslora, epochs, learning_rate, batch_size, max_length, seed, "
            "warmup, schedule, weight_decay. Did you mean 'epochs'?",
        ),
        (
            "  ja: {file: data/fr.jsonl, fields: {inputs: x}}",
            "line 6: data.ja.fields.inputs: no such setting. 'fields' "
            "takes: input, output, id, instruction, domain, choices, group. Did you mean 'input'?",
        ),
    ],
)
def test_unknown_keys_are_refused_at_every_level_with_line_and_suggestion(refusals, text, sentence):
    assert refusals(f"{MINIMAL}{text}\n") == [f"config.yaml, {sentence}"]


def test_unknown_settings_of_a_task_are_refused_with_a_suggestion(refusals):
    text = MINIMAL.replace("summarization", "{name: summarization, instrction: x}")
    (sentence,) = refusals(text)
    assert sentence.startswith(
        "config.yaml, line 2: task.instrction: no such setting. 'summarization' takes: "
    )
    assert sentence.endswith("Did you mean 'instruction'?")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "lora: {rank: '16'}",
            "lora.rank: '16' is not a whole number of at least 1. Write 16 without quotes.",
        ),
        ("lora: {rank: 16.0}", "lora.rank: 16.0 is not a whole number of at least 1."),
        ("lora: {rank: true}", "lora.rank: true is not a whole number of at least 1."),
        ("lora: {rank: 0}", "lora.rank: 0 is not a whole number of at least 1."),
        ("lora: {rank: }", "lora.rank: no value is given. Expected a whole number of at least 1."),
        (
            "lora: {max_length: 1_000}",
            "lora.max_length: '1_000' is not a whole number of at least 1. Write 1000.",
        ),
        ("lora: {alpha: 0}", "lora.alpha: 0 is not a number above 0."),
        ("lora: {dropout: 1}", "lora.dropout: 1 is not a number of at least 0 and below 1."),
        (
            "lora: {dropout: '0,1'}",
            "lora.dropout: '0,1' is not a number of at least 0 and below 1. Write 0.1.",
        ),
        ("lora: {warmup: 3}", "lora.warmup: 3 is not a number of at least 0 and below 1."),
        ("lora: {rslora: yes}", "lora.rslora: 'yes' is not true or false. Write true."),
        (
            "lora: {schedule: cosin}",
            "lora.schedule: 'cosin' is not 'linear', 'cosine' or 'constant'. Did you mean 'cosine'?",
        ),
        ("lora: {targets: []}", "lora.targets: [] is not 'all-linear' or a non-empty list of texts."),
        ("lora: {targets: all}", "lora.targets: 'all' is not 'all-linear' or a non-empty list of texts."),
        ("lora: {epochs: -1}", "lora.epochs: -1 is not a number above 0."),
        ("lora: 3", "lora: 3 is not a mapping. Expected `key: value` pairs here."),
        ("lora: {alpha: .nan}", "lora.alpha: nan is not a number to compute with. Write a finite one."),
        (
            "baseline: combine",
            "baseline: 'combine' is not 'none', 'combined' or 'continued'. Did you mean 'combined'?",
        ),
        ("baseline: ~", "baseline: no value is given. Expected 'none', 'combined' or 'continued'."),
        ("update: contine", "update: 'contine' is not 'scratch' or 'continue'. Did you mean 'continue'?"),
        ("update: {mode: yes}", "update.mode: 'yes' is not 'scratch' or 'continue'."),
        ("update: {replay: 1.5}", "update.replay: 1.5 is not a number from 0 to 1."),
        ("update: {epochs: 0}", "update.epochs: 0 is not a number above 0."),
        ("update: {learning_rate: fast}", "update.learning_rate: 'fast' is not a number above 0."),
        ("update: 3", "update: 3 is not a mapping. Expected `key: value` pairs here."),
        ("serve: {form: gguf}", "serve.form: 'gguf' is not 'adapter' or 'model'."),
        ("serve: {folder: 3}", "serve.folder: 3 is not a path. Put it in quotes: '3'."),
        ("gate: {incumbent: 3}", "gate.incumbent: 3 is not a path. Put it in quotes: '3'."),
        ("gate: {max_drop: 2}", "gate.max_drop: 2 is not a number from 0 to 1."),
        ("gate: {undecided: fail}", "gate.undecided: 'fail' is not 'pass' or 'refuse'."),
        ("select: {by: mean}", "select.by: 'mean' is not 'macro_mean'."),
        ("select: {metric: 3}", "select.metric: 3 is not a text. Put it in quotes: '3'."),
        ("prices: {usd_per_hour: 0}", "prices.usd_per_hour: 0 is not a number above 0."),
        ("prices: {usd_per_hour: cheap}", "prices.usd_per_hour: 'cheap' is not a number above 0."),
        ("run: {backend: rey}", "run.backend: 'rey' is not 'local', 'inline' or 'ray'. Did you mean 'ray'?"),
        ("run: {memory_gib: 0}", "run.memory_gib: 0 is not a number above 0."),
        ("run: {workers: 0}", "run.workers: 0 is not a whole number of at least 1."),
        ("run: {device: gpu}", "run.device: 'gpu' is not 'auto', 'cpu' or 'cuda'. Write cuda."),
        ("run: {store: 3}", "run.store: 3 is not a path. Put it in quotes: '3'."),
        ("evaluate: {level: 95}", "evaluate.level: 95 is not a number above 0 and below 1."),
        (
            "merges: [ties, {method: ties}]",
            "merges[1]: {'method': 'ties'} is no name of a recipe. A list holds names; write settings as "
            "`name: {method: ties, density: 0.5}`.",
        ),
        ("merges: [ties, ties]", "merges[1]: 'ties' stands there twice. Keep one of the two."),
        ("merges: 3", "merges: 3 is not a mapping. Expected `key: value` pairs here."),
        ("merges: {t: 3}", "merges.t: 3 is not a mapping. Expected `key: value` pairs here."),
        (
            "merges: {t: }",
            "merges.t: nothing is given. Write one, such as `t: {method: ties}`; see `sabir list recipes`.",
        ),
        (
            "merges: {t: {density: 0.5}}",
            "merges.t: neither recipe: nor method: is given. "
            "Write one, such as `t: {method: ties}`; see `sabir list recipes`.",
        ),
        (
            "merges: {t: {method: ties, recipe: ties}}",
            "merges.t: recipe: and method: are both given. "
            "Write one, such as `t: {method: ties}`; see `sabir list recipes`.",
        ),
        ("merges: {'a.b': ties}", "merges.a.b: 'a.b' cannot name a merge. Use letters, digits, - and _."),
        (
            "merges: {t: {method: ties, density: [0.1]}}",
            "merges.t.density: [0.1] is not a single value. To try several, write {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: 3}}}",
            "merges.t.density: 3 is no grid. Expected values: {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: []}}}",
            "merges.t.density: [] is no grid. Expected values: {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: [1, 1.0]}}}",
            "merges.t.density: [1, 1.0] names a value twice. Keep one of the two.",
        ),
        ("merges: {t: {method: ties, weights: {de: x}}}", "merges.t.weights.de: 'x' is not a number."),
        (
            "merges: {t: {method: ties, rank: 0}}",
            "merges.t.rank: 0 is not a whole number of at least 1, 'exact', 'serve' or 'fold'.",
        ),
        (
            "merges: {t: {method: ties, density: {}}}",
            "merges.t.density: {} is not a single value. To try several, write {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: [0.2], depth: [0.1, 0.2]}}}",
            "merges.t.density: a grid stands alone. Write {grid: [0.2, 0.5]} and nothing else.",
        ),
        (
            "merges: {t: {preset: paper-eigth}}",
            "merges.t.preset: no such preset: 'paper-eigth'. Known are: paper-eight. "
            "Did you mean 'paper-eight'?",
        ),
        (
            "merges: {t: {preset: paper-eight, density: 0.2}}",
            "merges.t.density: no such setting. A preset takes: preset, rank, dtype.",
        ),
        (
            "merges: {t: {preset: paper-eight}, ties-knots: average}",
            "merges.t: its preset has a merge named 'ties-knots' too. Give your own entry another name.",
        ),
        (
            "merges: {t: {method: ties, search: {budgt: 3}}}",
            "merges.t.search.budgt: no such setting. 'search' takes: method, budget, seed, over. "
            "Did you mean 'budget'?",
        ),
        (
            "merges: {t: {method: ties, search: {method: tpa}}}",
            "merges.t.search.method: 'tpa' is not 'tpe', 'gp' or 'random'. Did you mean 'tpe'?",
        ),
        (
            "merges: {t: {method: ties, search: {budget: 501}}}",
            "merges.t.search.budget: 501 is not a whole number from 1 to 500.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: [0.2, 1]}, search: {budget: 3}}}",
            "merges.t.density: a grid and a search do not go together. Leave the setting out, so that the "
            "search looks for it, or leave out search:.",
        ),
        (
            "merges: {t: {method: ties, search: {over: [densty]}}}",
            "merges.t.search.over: 'densty' cannot be searched. 'ties' can be searched over: scale, density, "
            "weights. Did you mean 'density'?",
        ),
        (
            "merges: {t: {method: ties, scale: 1, search: {over: [scale]}}}",
            "merges.t.search.over: 'scale' is fixed by this entry. Leave out one of the two.",
        ),
        (
            "merges: {t: {method: linear, scale: 1, weights: {de: 1, en: 1}, search: {budget: 3}}}",
            "merges.t.search: there is nothing to search: every setting is fixed. Leave one open.",
        ),
    ],
)
def test_wrong_values_are_refused_with_what_was_expected(refusals, text, sentence):
    assert refusals(f"{MINIMAL}{text}\n") == [f"config.yaml, line 6: {sentence}"]


@pytest.mark.parametrize(
    ("merge", "path", "what"),
    [
        ("{method: teis}", "merges.t", "Did you mean 'ties'?"),
        ("tise", "merges.t", "Did you mean 'ties'?"),
        ("{method: ties, space: knot}", "merges.t.space", "Did you mean 'knots'?"),
        ("{method: ties, density: 1.5}", "merges.t.density", "1.5"),
        ("{method: ties, density: {grid: [0.5, 1.5]}}", "merges.t.density", "1.5"),
        ("{method: ties, density: much}", "merges.t.density", "'much'"),
        ("{method: linear, space: knots}", "merges.t.space", "Leave the space out"),
        ("{method: linear, weights: {de: 1}}", "merges.t.weights", "no weight for 'en'"),
        ("{method: ties, dialect: mergkit}", "merges.t.dialect", "Did you mean 'mergekit'?"),
        ("{method: tsv, dialect: peft}", "merges.t.dialect", "'peft' has no 'tsv'"),
        ("{method: ties, dtype: float64}", "merges.t.dtype", "Known are: float32, bfloat16, float16."),
        (
            "{method: ties, trim_over: layer}",
            "merges.t.trim_over",
            "expected 'adapter' or 'module', got 'layer'",
        ),
        ("{method: ties, density: {depth: [0.2, 1.5]}}", "merges.t.density.depth", "got 1.5"),
        ("{method: ties, density: {depth: [0.2]}}", "merges.t.density.depth", "two points or more"),
        ("{method: ties, scale: {'*.mlp.*': x, '*': 1}}", "merges.t.scale.*.mlp.*", "got 'x'"),
        ("{method: ties, weights: {de: {depth: [1]}}}", "merges.t.weights.de.depth", "two points or more"),
        ("{method: ties, rank: exact}", "merges.t.rank", "has full rank"),
        ("{preset: paper-eight, dtype: float63}", "merges.t.dtype", "Did you mean 'float32'?"),
    ],
)
def test_what_merging_says_about_a_recipe_gets_its_line_and_is_told_once(refusals, merge, path, what):
    (sentence,) = refusals(f"{MINIMAL}merges:\n  t: {merge}\n")
    assert sentence.startswith(f"config.yaml, line 7: {path}: ")
    assert what in sentence


def test_a_grid_too_large_to_search_is_refused(refusals):
    grid = f"{{grid: [{', '.join(str(n / 100) for n in range(1, 41))}]}}"
    (sentence,) = refusals(f"{MINIMAL}merges: {{t: {{method: ties, density: {grid}, scale: {grid}}}}}\n")
    assert "its grid has 1600 members" in sentence


@pytest.mark.parametrize(
    ("task", "path", "what"),
    [
        ("sumarization", "task.name", "Did you mean 'summarization'?"),
        ("classification", "task.labels", "'classification' needs a list of texts here"),
        ("{labels: [a, b]}", "task.name", "it is missing"),
        ("{}", "task.name", "it is missing"),
        ("{name: 3}", "task.name", "3 is not a non-empty text"),
        ("''", "task.name", "'' is not a non-empty text"),
        ("[classification]", "task", "is not a mapping"),
        ("{name: classification, labels: a}", "task.labels", "'a' is not a list of texts"),
        ("{name: classification, labels: [1, 2]}", "task.labels", "[1, 2] is not a list of texts"),
        ("{name: classification, labels: [a, a]}", "task", "none twice"),
        ("{name: summarization, max_new_tokens: 1.5}", "task.max_new_tokens", "1.5 is not a whole number"),
    ],
)
def test_wrong_tasks_are_refused(refusals, task, path, what):
    (sentence,) = refusals(MINIMAL.replace("summarization", task))
    assert sentence.startswith(f"config.yaml, line 2: {path}: ")
    assert what in sentence


@pytest.mark.parametrize(
    ("language", "path", "what"),
    [
        ("data/nowhere", "data.it", "neither a folder nor a file ending in .jsonl, .csv or .tsv"),
        ("data/it.txt", "data.it", "neither a folder nor a file"),
        ("data/nowhere.jsonl", "data.it", "there is no file 'data/nowhere.jsonl'"),
        ("data/it.parquet", "data.it", "Convert it to .jsonl, .csv or .tsv"),
        ("data/it.json", "data.it", "it is .jsonl: rename it"),
        ("{file: data/it.txt}", "data.it.file", "does not end in .jsonl"),
        ("{folder: data/nowhere}", "data.it.folder", "there is no folder"),
        ("{folder: }", "data.it.folder", "no value is given"),
        ("{folder: 3}", "data.it.folder", "3 is not a non-empty text"),
        ("{hub: org/set}", "data.it.hub", "data sets of the hub are not read"),
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


@pytest.mark.parametrize(
    ("base", "what"),
    [
        ("embeded", "Did you mean 'embedded'?"),
        ("gpt2", "neither a folder nor a hub name"),
        ("./nowhere", "'./nowhere' is no folder"),
        ("a/b/c", "neither a folder nor a hub name"),
        ("3", "3 is not a non-empty text. Put it in quotes: '3'."),
    ],
)
def test_a_base_that_is_neither_folder_nor_hub_name_is_refused(refusals, base, what):
    (sentence,) = refusals(MINIMAL.replace("embedded", base))
    assert sentence.startswith("config.yaml, line 1: base: ")
    assert what in sentence


def test_what_is_missing_is_named(refusals):
    assert [sentence.split(". Write")[0] for sentence in refusals("baseline: none\n")] == [
        "config.yaml: base: it is missing",
        "config.yaml: task: it is missing",
        "config.yaml: data: it is missing",
    ]
    assert len(refusals("base:\ntask:\ndata:\n")) == 3
    assert "there is no language" in refusals(MINIMAL.split("data:")[0] + "data: {}\n")[0]


def test_everything_wrong_is_told_at_once(refusals):
    told = refusals(
        "base: embeded\ntask: {name: classification, label: [a]}\ndata:\n  DE: data/nowhere\n"
        "lora: {rank: x, alfa: 3}\nbaseline: all\nmerges:\n  a: {method: dare, densty: 0.1, scale: big}\n"
        "gate: {max_drop: 7}\nrum: {}\n"
    )
    places = {sentence.split(": ")[1] for sentence in told}
    assert places == {
        "rum",
        "base",
        "task.label",
        "task.labels",
        "data.DE",
        "lora.rank",
        "lora.alfa",
        "baseline",
        "merges.a.densty",
        "merges.a.scale",
        "gate.max_drop",
    }
    assert len(told) == 12  # data.DE twice: its name and its folder
    in_file = [sentence for sentence in told if ", line " in sentence]
    assert in_file == sorted(in_file, key=lambda sentence: int(sentence.split("line ")[1].split(":")[0]))


def test_duplicate_keys_are_refused_with_both_lines(refusals):
    (sentence,) = refusals(f"{MINIMAL}  de: data/no\n")
    assert sentence.startswith("config.yaml, line 6: data.de stands here and in line 4 already.")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lora.epoch=5", "--set lora.epoch: no such setting."),
        ("lora.epochs=many", "--set lora.epochs: 'many' is not a number above 0."),
        ("nothing.at.all=5", "config.yaml: nothing: no such setting."),
        ("lora={epoch: 5}", "--set lora: lora.epoch: no such setting."),
        (
            "data.de.lora.epochs=5",
            "--set data.de.lora.epochs: data.de is 'data/de' in config.yaml, not a mapping.",
        ),
        ("lora.epochs", "--set lora.epochs: there is no value. Write key=value, such as lora.epochs=5."),
        ("=5", "--set =5: '' is no key."),
        ("lora..rank=5", "--set lora..rank=5: 'lora..rank' is no key."),
        ("lora.rank=[1", "--set lora.rank, line 1: not valid YAML"),
        ("data.de=data/nowhere", "--set data.de: 'data/nowhere' is neither a folder nor"),
    ],
)
def test_wrong_settings_from_the_command_line_are_named_as_such(refusals, override, sentence):
    (told,) = refusals(MINIMAL, override)
    assert told.startswith(sentence)


def test_a_missing_config_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"there is no such file\. `sabir init` writes one"):
        load_config(tmp_path / "config.yaml")


# --- whatever is written ---------------------------------------------------------------------------------

words = st.sampled_from(
    [
        "embedded",
        "de",
        "data/de",
        "ties",
        "grid",
        "depth",
        "paper-eight",
        "fold",
        "method",
        "folder",
        "lora",
        "1e-4",
        "",
        "no",
        "../..",
        "~x",
        "x" * 300,
        "\u2028",
        "a\nb",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
places = st.sampled_from(
    [
        "base",
        "task",
        "task.name",
        "task.labels",
        "task.instruction",
        "data",
        "data.de",
        "data.de.folder",
        "data.ja.fields",
        "data.zh.adapter",
        "data.ja.train",
        "lora",
        "lora.targets",
        "lora.rank",
        "merges",
        "merges.ties",
        "merges.ties.density",
        "merges.ties.weights",
        "merges.ties.rank",
        "merges.ties.dialect",
        "merges.ties.search",
        "merges.ties.search.over",
        "merges.ties.preset",
        "merges.ties.method",
        "merges.ties.space",
        "select.metric",
        "gate.max_drop",
        "prices.usd_per_hour",
        "run.store",
        "run",
        "a.b",
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(places, anything, max_size=3))
@example({"lora.rank": 10**5000})
def test_any_value_anywhere_is_taken_or_refused_in_a_sentence(read, changes):
    import yaml

    try:
        overrides = [
            f"{place}={yaml.safe_dump(value, allow_unicode=True)}" for place, value in changes.items()
        ]
    except ValueError:  # an int too long for Python to write
        overrides = [f"{place}={'9' * 5000}" for place in changes]
    try:
        config = read(DESIGN, *overrides)
    except InputError as error:
        assert str(error)  # noqa: PT017
    else:
        assert all(members(merge) for merge in config.merges.values())
