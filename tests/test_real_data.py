"""The loop on small slices of the real data beside the project; skipped where that is absent."""

from __future__ import annotations

import json

import pytest

from sabir import Project

TOPICS = "[entertainment, geography, health, politics, science/technology, sports, travel]"


def _slice(source, target, sizes):
    for split, size in sizes.items():
        lines = (source / f"{split}.jsonl").read_text("utf-8").splitlines(keepends=True)[:size]
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{split}.jsonl").write_text("".join(lines), "utf-8")


def _project(tmp_path, folder, languages, task, sizes):
    for language in languages:
        _slice(folder / language, tmp_path / "data" / language, sizes)
    data = "".join(f"  {language}: data/{language}\n" for language in languages)
    config = tmp_path / "sabir.yaml"
    config.write_text(
        f"base: embedded\ntask: {task}\ndata:\n{data}"
        "lora: {rank: 4, alpha: 8, epochs: 1, learning_rate: 2e-3, max_length: 128}\n"
        "baseline: combined\nmerges: {average: average, ties-knots: {method: ties, space: knots}}\n"
        "run: {workers: 2}\n",
        "utf-8",
    )
    return Project(config)


@pytest.mark.slow
def test_topics_in_five_languages_end_to_end(shared, tmp_path):
    task = f"{{name: classification, labels: {TOPICS}}}"
    languages = ["en", "de", "fr", "ja", "zh"]
    sizes = {"train": 16, "valid": 8, "test": 8}
    project = _project(tmp_path, shared / "data/topic/sib200", languages, task, sizes)
    document = project.run()
    models = {row["model"] for row in document["scores"] if row["split"] == "test"}
    assert models == {
        *("base", "adapter/combined", "merged/average", "merged/ties-knots"),
        *(f"adapter/{x}" for x in (*languages, "<language>")),
    }
    assert document["selected"] in ("merged/average", "merged/ties-knots")
    scored = {row["language"] for row in document["scores"] if row["model"] == document["selected"]}
    assert scored == {*languages, "macro"}
    assert {row["b"] for row in document["comparisons"] if row["language"] == "ja"} >= {
        "adapter/combined",
        "adapter/ja",
    }


@pytest.mark.slow
def test_summaries_are_generated_and_scored_in_japanese_and_chinese(shared, tmp_path):
    task = "{name: summarization, max_new_tokens: 8}"
    sizes = {"train": 8, "valid": 3, "test": 3}
    project = _project(tmp_path, shared / "data/summarization/phpdoc", ["ja", "zh"], task, sizes)
    document = project.run()
    rouge = [
        row for row in document["scores"] if row["metric"] == "rougeL" and row["language"] in ("ja", "zh")
    ]
    assert all(0 <= row["value"] <= 1 and row["unscored"] == 0 for row in rouge)
    assert any(row["value"] > 0 for row in rouge), (
        "by characters or words, some overlap is certain to be found"
    )
    assert len({row["signature"].partition("|base:")[0] for row in rouge}) == 2


@pytest.mark.parametrize("dataset", ["topic/sib200", "sentiment/reviews", "summarization/phpdoc"])
def test_every_real_row_is_read(shared, dataset, tmp_path):
    from sabir.work.sources import Source, read_splits, split_files

    folder = shared / "data" / dataset / "ja"
    rows = read_splits(Source("ja", files=split_files(folder)))
    for split, read in rows.items():
        lines = (folder / f"{split}.jsonl").read_text("utf-8").splitlines()
        assert [row.output for _, row in read] == [json.loads(line)["output"] for line in lines]
