"""One real project on the embedded base, from set-up to a new language, with tiny data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sabir
from sabir import lock
from sabir.errors import InputError, StepFailed, StoreError
from sabir.project.documents import _cut
from sabir.project.standing import Standing
from sabir.work.bases import EMBEDDED_FOLDER
from small_project import rows, settings, write_config, write_language, write_project, write_rows

INLINE = ["run.backend=inline"]
GRID = {
    "average": {"method": "linear", "scale": {"grid": [0.5, 1.0]}},
    "ties": {"method": "ties", "density": 0.5},
}
TRAININGS = {"adapter/en", "adapter/de", "adapter/combined"}


def ran(document) -> set[str]:
    return {step["name"] for step in document["steps"] if step["status"] == "run"}


def trained(document) -> set[str]:
    return {name for name in ran(document) if name.startswith("adapter/")}


def costs(document, **wanted):
    return [row for row in document["costs"] if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Set-up in processes of their own, then every kind of update; each document by its scene."""
    folder = tmp_path_factory.mktemp("story")
    config = write_project(folder, ("en", "de"), merges=GRID, prices={"usd_per_hour": 2.0})
    scenes = SimpleNamespace(folder=folder, config=config, warnings=[])
    project = sabir.Project(config)
    scenes.first_plan = project.plan()
    scenes.shown_before = project.show()
    scenes.setup = project.run(warn=scenes.warnings.append)
    scenes.lock = (folder / lock.NAME).read_text(encoding="utf-8")
    scenes.again = sabir.Project(config).run()
    scenes.shown = sabir.Project(config).show()
    scenes.idle_plan = sabir.Project(config).plan()
    scenes.compared = sabir.Project(config).show(compare=("merged/ties", "adapter/<language>"))
    scenes.answers = sabir.Project(config).predict(["Wo bleibt das Paket?", "Karte"])

    write_rows(folder / "data/de/test.jsonl", rows("de", "test", 8))
    scenes.new_test = sabir.Project(config, overrides=INLINE).run()
    write_rows(folder / "data/de/train.jsonl", rows("de", "train", 32))
    scenes.update_plan = sabir.Project(config).plan()
    scenes.stale_show = sabir.Project(config).show()
    scenes.update = sabir.Project(config, overrides=INLINE).run()
    scenes.baseline = sabir.Project(config, overrides=INLINE).run(with_baseline=True)
    write_language(folder, "fr")
    write_config(folder, settings(("en", "de", "fr"), merges=GRID))
    scenes.added = sabir.Project(config, overrides=INLINE).run()
    return scenes


def test_the_documents_have_the_fields_of_the_contract(story):
    for document in (story.setup, story.again, story.shown, story.update, story.shown_before):
        assert {"run", "steps", "scores", "comparisons", "costs", "selected", "release", "store"} <= {
            *document
        }
        assert {"id", "phase", "languages_changed"} <= {*document["run"]}
        json.dumps(document, allow_nan=False)
    for step in story.setup["steps"]:
        assert {"name", "kind", "fingerprint", "status", "why", "wall_s", "device_s", "usd"} <= {*step}
        assert {"tokens", "peak_bytes"} <= {*step}
        assert step["status"] in ("run", "reused", "failed", "blocked")
    for row in story.setup["scores"]:
        assert {"task", "model", "language", "split", "metric", "value", "low", "high", "level"} <= {*row}
        assert {"n", "unscored", "seed", "signature"} <= {*row}
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    for row in story.setup["comparisons"]:
        assert {"a", "b", "language", "split", "metric", "difference", "low", "high", "p"} <= {*row}
        assert row["verdict"] in ("better", "not worse", "worse", "undecided")
        assert row["margin"] == 0.02
    for row in story.setup["costs"]:
        assert {"run", "phase", "route", "component", "devices", "wall_s", "wall_s_unlimited"} <= {*row}
        assert {"device_s", "usd", "measured"} <= {*row}
        assert row["component"] in ("train", "merge", "search", "evaluate", "total")
        assert row["route"] in ("merged", "combined")
    for document in (story.first_plan, story.idle_plan, story.update_plan):
        for step in document["steps"]:
            assert {"name", "kind", "fingerprint", "status", "why", "estimated_wall_s", "estimated_usd"} <= {
                *step
            }
            assert step["status"] in ("run", "reused")
        for row in document["totals"]:
            assert {"route", "phase", "estimated_wall_s", "estimated_device_s", "estimated_usd"} <= {*row}


def test_before_any_run_nothing_is_measured_and_nothing_is_zero(story):
    assert story.shown_before["run"]["id"] is None
    assert story.shown_before["scores"] == story.shown_before["costs"] == []
    assert all(step["estimated_wall_s"] is None for step in story.first_plan["steps"])
    assert all(row["estimated_device_s"] is None for row in story.first_plan["totals"])


def test_setup_trains_every_adapter_and_selects_a_merge(story):
    assert story.setup["run"]["phase"] == "setup"
    assert story.setup["run"]["languages_changed"] == ["de", "en"]
    assert trained(story.setup) == TRAININGS
    assert story.setup["selected"].startswith("merged/")
    assert {step["status"] for step in story.setup["steps"]} == {"run"}


def test_the_plan_named_every_step_that_the_run_then_did(story):
    named = {re.sub(r"\[.*\]", "", step["name"]) for step in story.first_plan["steps"]}
    assert {re.sub(r"\[.*\]", "", name) for name in ran(story.setup)} == named


def test_every_training_says_what_it_took(story):
    for step in story.setup["steps"]:
        if step["kind"] == "adapter":
            assert step["wall_s"] > 0
            assert step["tokens"] > 100
            assert step["peak_bytes"] > 10**7
            assert step["usd"] == pytest.approx(step["device_s"] / 3600 * 2.0)


def test_few_rows_are_warned_of_before_the_run(story):
    assert any("few rows" in warning and "de 6 valid" in warning for warning in story.warnings)


def test_a_run_with_nothing_to_do_does_nothing(story):
    assert story.again["run"] == {"id": None, "phase": "none", "languages_changed": []}
    assert {step["status"] for step in story.again["steps"]} == {"reused"}
    assert story.again["scores"] == story.setup["scores"]
    assert {step["status"] for step in story.idle_plan["steps"]} == {"reused"}


def test_show_repeats_the_last_run(story):
    for key in ("scores", "comparisons", "costs", "selected", "steps"):
        assert story.shown[key] == story.setup[key]
    assert story.shown["pending"] == 0


def test_trainings_of_which_more_than_a_few_rows_were_cut_stand_in_the_notes(story):
    def trained(cut, kind="adapter"):
        return {"kind": kind, "result": {"rows": 100, "cut_rows": cut}}

    assert not [note for note in story.setup["notes"] if "max_length" in note]
    records = {"adapter/de": trained(89), "adapter/fr": trained(5), "adapter/ja": trained(6)}
    brought = {"adapter/nl": {"kind": "adopted", "result": {}}, "adapter/de#2": trained(89)}
    assert _cut({**records, **brought}) == [
        "Training rows whose text was cut to fit lora.max_length: adapter/de 89 of 100, adapter/ja 6 of 100."
    ]
    assert _cut({}) == []


def test_two_models_are_compared_by_any_metric_of_the_task(story):
    shown = sabir.Project(story.config).show(compare=("merged/ties", "base"), metric="macro_recall")
    recall = {
        row["language"]: row["value"]
        for row in shown["scores"]
        if (row["model"], row["metric"], row["split"]) == ("merged/ties", "macro_recall", "test")
    }
    base = {
        row["language"]: row["value"]
        for row in shown["scores"]
        if (row["model"], row["metric"], row["split"]) == ("base", "macro_recall", "test")
    }
    for row in shown["comparisons"]:
        assert row["metric"] == "macro_recall"
        assert row["difference"] == pytest.approx(recall[row["language"]] - base[row["language"]])
    with pytest.raises(
        InputError, match=r"there are no scores by 'macro_recal'.*Did you mean 'macro_recall'"
    ):
        sabir.Project(story.config).show(compare=("merged/ties", "base"), metric="macro_recal")


def test_a_comparison_of_ones_choice_is_that_pair_only(story):
    assert [(row["a"], row["b"], row["language"]) for row in story.compared["comparisons"]] == [
        ("merged/ties", "adapter/de", "de"),
        ("merged/ties", "adapter/en", "en"),
        ("merged/ties", "adapter/<language>", "macro"),
    ]
    with pytest.raises(InputError, match="Did you mean 'merged/ties'"):
        sabir.Project(story.config).show(compare=("merged/tise", "base"))
    with pytest.raises(InputError, match=r"'base' is not compared with itself\. Name two models\."):
        sabir.Project(story.config).show(compare=("base", "base"))


def test_predictions_are_labels_with_the_likelihood_of_each(story):
    assert [answer["input"] for answer in story.answers] == ["Wo bleibt das Paket?", "Karte"]
    for answer in story.answers:
        assert answer["prediction"] == max(answer["scores"], key=answer["scores"].get)
        assert set(answer["scores"]) == {"delivery", "payment"}


def test_test_rows_change_no_adapter_and_never_the_selection(story):
    assert not trained(story.new_test)
    assert story.new_test["selected"] == story.setup["selected"]
    assert not any(name.startswith("merged/") or name == "select" for name in ran(story.new_test))
    german = [row for row in story.new_test["scores"] if (row["language"], row["split"]) == ("de", "test")]
    assert {row["n"] for row in german} == {8}


def test_german_rows_train_german_alone_and_the_old_baseline_stands_in(story):
    assert story.update["run"]["phase"] == "update"
    assert story.update["run"]["languages_changed"] == ["de"]
    assert trained(story.update) == {"adapter/de"}
    combined = next(step for step in story.update["steps"] if step["name"] == "adapter/combined")
    assert combined["status"] == "reused"
    assert combined["why"].startswith("trained on older data (de changed since)")
    assert story.update["notes"][0] == f"adapter/combined: {combined['why']}."
    before = next(step for step in story.setup["steps"] if step["name"] == "adapter/combined")
    assert combined["fingerprint"] == before["fingerprint"]
    assert combined["wall_s"] == before["wall_s"], "a reused step repeats the cost it had"


def test_what_was_not_run_yet_is_not_shown_as_run(story):
    assert story.stale_show["pending"] > 0
    german = next(step for step in story.stale_show["steps"] if step["name"] == "adapter/de")
    assert (german["status"], german["wall_s"]) == ("blocked", None)
    assert german["why"] == "not run yet: train rows of data/de changed"


def test_with_baseline_trains_the_combined_adapter_on_todays_rows(story):
    assert trained(story.baseline) == {"adapter/combined"}
    assert not any(note.startswith("adapter/combined") for note in story.baseline["notes"])
    assert not any("merged" in name for name in ran(story.baseline) - {"comparisons"})


def test_a_new_language_is_an_addition(story):
    assert story.added["run"]["phase"] == "add"
    assert story.added["run"]["languages_changed"] == ["fr"]
    assert trained(story.added) == {"adapter/fr"}
    assert "fr is new" in story.added["notes"][0]


def test_a_run_pays_for_what_it_ran_and_no_more(story):
    run = story.setup["run"]["id"]
    train = costs(story.setup, run=run, component="train", route="merged")[0]
    own = [step for step in story.setup["steps"] if step["name"] in ("adapter/en", "adapter/de")]
    rows_read = [step for step in story.setup["steps"] if step["kind"] == "data"]
    assert train["devices"] == 2
    assert train["device_s"] == pytest.approx(sum(step["device_s"] for step in own + rows_read))
    chain = max(step["wall_s"] for step in rows_read) + max(step["wall_s"] for step in own)
    assert train["wall_s_unlimited"] == pytest.approx(chain), "side by side: the longest chain"
    assert train["wall_s_unlimited"] <= train["wall_s"] <= train["device_s"]
    update = costs(story.update, run=story.update["run"]["id"], component="train", route="merged")[0]
    german = next(step for step in story.update["steps"] if step["name"] == "adapter/de")
    assert german["wall_s"] <= update["device_s"] < german["wall_s"] + 1
    assert update["devices"] == 1


def test_an_updates_baseline_is_predicted_and_said_to_be(story):
    predicted = costs(story.update, run=story.update["run"]["id"], component="train", route="combined")[0]
    assert predicted["measured"] is False
    measured = costs(story.baseline, run=story.baseline["run"]["id"], component="train", route="combined")[0]
    assert measured["measured"] is True
    setup = costs(story.setup, run=story.setup["run"]["id"], component="train", route="combined")[0]
    assert predicted["device_s"] > setup["device_s"], "there are more rows than at set-up"


def test_totals_are_the_sum_of_the_components(story):
    for route in ("merged", "combined"):
        found = costs(story.setup, run=story.setup["run"]["id"], route=route)
        parts = [row for row in found if row["component"] != "total"]
        (total,) = [row for row in found if row["component"] == "total"]
        for key in ("wall_s", "wall_s_unlimited", "device_s", "usd"):
            assert total[key] == pytest.approx(sum(row[key] for row in parts))


def test_the_plan_of_an_update_prices_both_routes(story):
    totals = {(row["phase"], row["route"]): row for row in story.update_plan["totals"]}
    assert set(totals) == {(p, r) for p in ("setup", "update") for r in ("merged", "combined")}
    for row in totals.values():
        assert 0 < row["estimated_wall_s"] <= row["estimated_device_s"]
        assert row["estimated_usd"] == pytest.approx(row["estimated_device_s"] / 3600 * 2.0)
    assert totals["update", "merged"]["estimated_device_s"] < totals["setup", "merged"]["estimated_device_s"]


def test_the_lock_pins_the_base(story):
    pinned = lock.read(story.config).bases.get("embedded")
    assert pinned is not None
    assert pinned.name == "embedded"
    assert pinned.identity.startswith("sha256:")
    assert story.lock == (story.folder / lock.NAME).read_text(encoding="utf-8")


def test_a_selected_merge_is_an_adapter_that_peft_loads(story):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    selected = next(step for step in story.added["steps"] if step["name"] == story.added["selected"])
    folder = Path(story.added["store"]) / "steps" / selected["fingerprint"]
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER, local_files_only=True)
    assert PeftModel.from_pretrained(base, str(folder)).peft_config["default"].r > 0


# --- merges of every sort --------------------------------------------------------------------------------

MERGES = {
    "average": {"method": "linear"},
    "tuned": {"method": "ties", "space": "knots", "search": {"budget": 4, "over": ["scale", "weights"]}},
    "whole": {"method": "ties", "density": 0.5, "rank": "fold"},
    "eight": {"preset": "paper-eight"},
}


@pytest.fixture(scope="module")
def sorts(tmp_path_factory):
    """A project with a search, a whole model and the eight merges of the paper; run, and run again on new rows."""
    folder = tmp_path_factory.mktemp("sorts")
    lora = {"rank": 4, "epochs": 2, "max_length": 64, "batch_size": 4, "learning_rate": 2e-3}
    config = write_project(folder, ("en", "de"), merges=MERGES, lora=lora, baseline="none")
    scenes = SimpleNamespace(config=config, project=sabir.Project(config, overrides=INLINE))
    scenes.setup = scenes.project.run()
    write_rows(folder / "data/de/test.jsonl", rows("de", "test", 8, tag="!"))
    scenes.new_test = sabir.Project(config, overrides=INLINE).run()
    return scenes


def folder_of(document, name) -> Path:
    step = next(step for step in document["steps"] if step["name"] == name)
    return Path(document["store"]) / "steps" / step["fingerprint"]


def test_every_merge_answers_and_is_scored(sorts):
    scored = {row["model"] for row in sorts.setup["scores"] if row["split"] == "valid"}
    assert scored >= {"merged/average", "merged/tuned", "merged/whole"}
    assert len([model for model in scored if "[density=" in model]) == 8


def test_what_a_search_chose_is_in_the_documents_and_is_what_was_scored(sorts):
    for document in (sorts.setup, sorts.project.show()):
        search = document["searches"]["merged/tuned"]
        assert len(search["trials"]) == search["budget"] == 4
        assert search["chosen"]["value"] == max(trial["value"] for trial in search["trials"])
        (score,) = [
            row["value"]
            for row in document["scores"]
            if (row["model"], row["language"], row["split"]) == ("merged/tuned", "macro", "valid")
            and row["metric"] == search["metric"]
        ]
        assert score == pytest.approx(search["chosen"]["value"], abs=1e-12)


def test_a_search_is_on_the_bill_as_search(sorts):
    step = next(step for step in sorts.setup["steps"] if step["name"] == "merged/tuned")
    assert step["kind"] == "search"
    (row,) = costs(sorts.setup, run=sorts.setup["run"]["id"], component="search")
    answers = [s for s in sorts.setup["steps"] if s["name"].endswith("/valid") or s["name"] == "select"]
    assert row["device_s"] == pytest.approx(step["device_s"] + sum(s["device_s"] for s in answers))


def test_a_folded_merge_is_a_whole_model_that_answers_as_transformers_loads_it(sorts):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder_of(sorts.setup, "merged/whole")
    assert not (folder / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER, local_files_only=True)
    from sabir.model.likelihood import option_scores
    from sabir.model.text import TextBuilder
    from sabir.work.outputs import read_answers
    from sabir.work.prepare import read_examples

    builder = TextBuilder(tokenizer, max_length=64)
    labels = ["delivery", "payment"]
    examples = read_examples(folder_of(sorts.setup, "data/de"), "valid")
    found = option_scores(
        model,
        [builder.prompt(example.prompt, room=60)[0] for example in examples],
        [[builder.answer(label) for label in labels]] * len(examples),
        pad_id=builder.pad_id,
        batch_size=2,
    )
    kept = read_answers(folder_of(sorts.setup, "outputs/merged/whole/de/valid"))
    for row, answer in zip(found, kept, strict=True):
        assert row == pytest.approx([answer["scores"][label] for label in labels], abs=1e-4)  # batches differ


def test_a_whole_model_that_is_selected_predicts(sorts, monkeypatch):
    from sabir.project.standing import State

    monkeypatch.setattr(State, "selected", "merged/whole")
    (answer,) = sorts.project.predict(["Wo bleibt das Paket?"])
    assert set(answer["scores"]) == {"delivery", "payment"}


def test_new_test_rows_search_nothing_and_fold_nothing(sorts):
    assert not {name for name in ran(sorts.new_test) if name.startswith("merged/")}
    assert sorts.new_test["searches"] == sorts.setup["searches"]


def test_the_adapters_are_analysed_beside_the_run(sorts):
    assert sorts.project.show()["analysis"] == sorts.setup["analysis"]
    assert {row["name"] for row in sorts.setup["analysis"]["adapters"]} == {"en", "de"}
    json.dumps(sorts.setup["analysis"], allow_nan=False)


def test_what_a_merge_warned_of_stands_in_the_notes(sorts):
    cut = next(
        note for note in sorts.setup["notes"] if note.startswith("merged/ties[density=0.2]: Rank 8 keeps")
    )
    assert "rank: fold" in cut
    assert not any(note.startswith("merged/whole") for note in sorts.setup["notes"]), "nothing was cut there"


# --- when something goes wrong ---------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """Two languages with a handful of rows, one merge, no baseline."""
    for language in ("en", "de"):
        write_language(tmp_path, language, train=8, valid=2, test=2)
    merges = {"average": {"method": "linear"}}
    return write_config(tmp_path, settings(("en", "de"), merges=merges, baseline="none"))


def test_a_training_that_fails_keeps_the_others_and_the_next_run_goes_on(small, monkeypatch):
    from sabir.work import train as module

    whole = module.train

    def fails_on_german(works):
        if works[0].name == "adapter/de":
            raise RuntimeError("the machine caught fire")
        return whole(works)

    monkeypatch.setattr(module, "train", fails_on_german)
    with pytest.raises(StepFailed) as caught:
        sabir.Project(small, overrides=INLINE).run()
    said = str(caught.value)
    assert said.startswith("step adapter/de: failed after")
    assert "the machine caught fire" in said
    assert "were not started; the others were kept" in said
    log = Path(said.partition("Log: ")[2].partition(". ")[0])
    assert log.is_file()
    between = sabir.Project(small).show()
    status = {step["name"]: step["status"] for step in between["steps"]}
    assert status["adapter/en"] == "run"
    assert status["adapter/de"] == "failed"
    assert status["merged/average"] == "blocked"

    monkeypatch.undo()
    mended = sabir.Project(small, overrides=INLINE).run()
    assert trained(mended) == {"adapter/de"}
    assert mended["run"]["phase"] == "setup", "it goes on with what was begun"
    assert [row["complete"] for row in mended["costs"]] == sorted(row["complete"] for row in mended["costs"])


def test_an_analysis_that_fails_stops_nothing_else(small, monkeypatch):
    from sabir.work import analysis as module

    def fails(works):
        raise RuntimeError("no idea")

    monkeypatch.setattr(module, "analysis", fails)
    with pytest.raises(StepFailed, match=r"step analysis: failed .* no idea"):
        sabir.Project(small, overrides=INLINE).run()
    document = sabir.Project(small).show()
    assert document["pending"] == 1
    assert document["comparisons"], "the run went on to its end"
    assert document["analysis"] is None
    monkeypatch.undo()
    assert ran(sabir.Project(small, overrides=INLINE).run()) == {"analysis"}


def test_interrupted_it_exits_130_and_the_next_run_goes_on(small):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from sabir.cli import main; main()", "run", str(small), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    steps = small.parent / ".sabir" / "steps"
    deadline = time.monotonic() + 60
    while not (steps.is_dir() and any(steps.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "the next run goes on from there" in err
    assert "Traceback" not in err
    kept = {path.name for path in steps.iterdir()}
    whole = sabir.Project(small, overrides=INLINE).run()
    again = {step["fingerprint"] for step in whole["steps"] if step["status"] == "run"}
    assert kept
    assert not kept & again
    assert whole["run"]["phase"] == "setup"


def test_a_changed_base_folder_is_refused_and_another_name_pins_anew(tmp_path):
    for name in ("one", "two"):
        shutil.copytree(EMBEDDED_FOLDER, tmp_path / name)
    config = write_project(tmp_path, ("en", "de"), base="one")
    project = sabir.Project(config)
    base = Standing(project.config, project.store, with_base=True).facts.base
    lock.write(config, lock.Lock(bases={base.name: base}))
    edited = json.loads((tmp_path / "one/config.json").read_bytes())
    (tmp_path / "one/config.json").write_text(json.dumps({**edited, "note": "edited"}), encoding="utf-8")
    for verb in (project.plan, project.check, project.show, project.run):
        with pytest.raises(InputError, match=r"base: 'one' is not the model that sabir\.lock pins"):
            verb()
    write_config(tmp_path, settings(("en", "de"), base="two"))
    again = sabir.Project(config)
    two = Standing(again.config, again.store, with_base=True).facts.base
    lock.write(config, lock.Lock(bases={two.name: two}))
    assert lock.read(config).bases["two"] == two
    assert set(lock.read(config).bases) == {"one", "two"}


def test_a_store_that_cannot_be_written_is_said_to_be(small):
    (small.parent / ".sabir").write_text("in the way", encoding="utf-8")
    assert sabir.Project(small).plan()["steps"], "a plan writes nothing it needs"
    with pytest.raises(StoreError, match="cannot be written"):
        sabir.Project(small).run()
