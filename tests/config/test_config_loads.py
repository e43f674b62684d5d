"""What a config file may say, and how it is read."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from config_texts import DESIGN, MINIMAL

from sabir.config import (
    load_config,
)
from sabir.languages import LoraConfig


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


def test_sections_left_empty_are_as_if_absent(read):
    empty = "lora:\nupdate:\nmerges:\nselect:\ngate:\nserve:\nprices:\nrun:\nevaluate:\n"
    assert read(MINIMAL + empty) == read(MINIMAL)


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
