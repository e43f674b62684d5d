"""Identity: what a change makes run again, on five languages, two merges and the baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sabir.config import load_config
from sabir.errors import InputError
from sabir.lock import PinnedBase
from sabir.plan import plan
from small_project import (
    FIVE,
    LABELS,
    SELECTED,
    changed,
    identities,
    planned,
    rows,
    settings,
    write_config,
    write_language,
    write_project,
    write_rows,
)

GOLDEN = Path(__file__).parent / "golden" / "fingerprints.json"
OWN = {f"adapter/{language}" for language in FIVE}


@pytest.fixture
def config(tmp_path):
    return write_project(tmp_path)


def rewrite(config: Path, **changes) -> Path:
    return write_config(config.parent, settings(**changes), config.name)


def adapters(names):
    return {name for name in names if name.startswith("adapter/")}


def kinds(names):
    return {name.partition("/")[0] for name in names}


def test_reading_the_same_project_again_changes_nothing(config):
    assert identities(config) == identities(config)


def test_a_setting_of_one_merge_changes_only_that_merge_and_what_stands_on_it(config):
    before = identities(config)
    merges = {"average": {"method": "linear", "scale": 0.5}, "ties": {"method": "ties", "density": 0.25}}
    again = changed(before, identities(rewrite(config, merges=merges)))
    assert "merged/ties" in again
    assert {name for name in again if "merged/ties" not in name} == {"select", "comparisons"}
    assert len(again) == 1 + 2 * (5 + 5 + 1) + 2


def test_german_training_rows_change_german_the_combined_adapter_and_the_merges_only(config):
    before = identities(config)
    write_rows(config.parent / "data/de/train.jsonl", rows("de", "train", 30))
    again = changed(before, identities(config))
    assert adapters(again) == {"adapter/de", "adapter/combined"}
    assert {name for name in again if name.startswith("data/")} == {"data/de"}
    assert {"merged/average", "merged/ties"} <= again
    touched = ("adapter/de", "adapter/combined", "merged/average", "merged/ties")
    assert all(
        any(model in name for model in touched) or name in ("data/de", "select", "comparisons", "analysis")
        for name in again
    )


def test_new_test_rows_change_answers_and_scores_and_no_adapter_no_merge_no_selection(config):
    before = identities(config)
    write_rows(config.parent / "data/de/test.jsonl", rows("de", "test", 9))
    again = changed(before, identities(config))
    assert kinds(again) == {"data", "outputs", "scores", "comparisons"}
    assert all("/de/test" in name or "/macro/test" in name for name in again if "/" in name[5:])
    assert "select" not in again


def test_new_validation_rows_change_the_selection_and_no_adapter(config):
    before = identities(config)
    write_rows(config.parent / "data/de/valid.jsonl", rows("de", "valid", 9))
    again = changed(before, identities(config))
    assert not adapters(again)
    assert "select" in again
    assert not any(name.endswith("/test") for name in again)


@pytest.mark.parametrize(
    "change",
    [
        {"evaluate": {"resamples": 200}},
        {"evaluate": {"resamples": 100, "level": 0.9}},
        {"task": {"name": "classification", "labels": ["delivery", "payment"], "metrics": ["accuracy"]}},
    ],
)
def test_metrics_level_and_resamples_change_scores_only(config, change):
    again = changed(identities(config), identities(rewrite(config, **change)))
    assert kinds(again) == {"scores", "select", "comparisons"}


def test_the_margin_of_the_gate_changes_the_comparisons_only(config):
    assert changed(identities(config), identities(rewrite(config, gate={"max_drop": 0.05}))) == {
        "comparisons"
    }


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"workers": 7, "device": "cpu", "backend": "inline", "store": "elsewhere", "micro_batch": 2}},
        {"prices": {"usd_per_hour": 2.5}},
        {"evaluate": {"resamples": 100, "batch_size": 3}},
        {"data": {language: f"data/{language}" for language in reversed(FIVE)}},
        {"baseline": "combined", "select": {"by": "macro_mean"}},
    ],
)
def test_what_says_where_and_how_fast_changes_nothing(config, change):
    assert identities(rewrite(config, **change)) == identities(rewrite(config))


def test_moving_the_project_and_the_order_of_rows_change_nothing(config, tmp_path):
    before = identities(config)
    moved = write_project(tmp_path / "moved")
    path = moved.parent / "data/de/train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(reversed(lines)), encoding="utf-8")
    assert identities(moved) == before


def test_the_form_of_a_file_changes_nothing(config):
    before = identities(config)
    folder = config.parent / "data/de"
    given = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    (folder / "train.jsonl").unlink()
    text = "input\toutput\n" + "".join(f"{row['input']}\t{row['output']}\n" for row in given)
    (folder / "train.tsv").write_text(text, encoding="utf-8")
    assert identities(config) == before


def test_a_setting_at_its_default_is_the_setting_left_out(config):
    lora = {"rank": 4, "epochs": 1, "max_length": 64, "batch_size": 8}
    defaults = {"alpha": 32, "targets": "all-linear", "learning_rate": 2e-4, "seed": 0, "dropout": 0}
    merges = {
        "average": {"method": "linear", "scale": 0.5, "space": "delta", "rank": "exact"},
        "ties": {"method": "ties", "density": 0.5, "scale": 1},
    }
    written = rewrite(config, lora={**lora, **defaults}, merges=merges, gate={"max_drop": 0.02})
    assert identities(written) == identities(rewrite(config))


def test_one_languages_training_settings_change_that_language_only(config):
    before = identities(config)
    data = {language: f"data/{language}" for language in FIVE}
    data["de"] = {"folder": "data/de", "lora": {"epochs": 2}}
    assert adapters(changed(before, identities(rewrite(config, data=data)))) == {"adapter/de"}


def test_a_new_language_changes_no_other_languages_adapter(tmp_path):
    config = write_project(tmp_path, FIVE[:4])
    before = identities(config)
    write_language(tmp_path, "zh")
    again = changed(before, identities(rewrite(config)))
    assert adapters(again) == {"adapter/zh", "adapter/combined"}


def test_a_command_line_setting_is_the_same_as_the_files(config):
    lora = {"rank": 4, "epochs": 2, "max_length": 64, "batch_size": 8}
    assert identities(config, ["lora.epochs=2"]) == identities(rewrite(config, lora=lora))


def test_the_seed_of_a_language_is_its_own(config):
    """Two languages with the same settings are two adapters, and the seed of LoRA's A differs."""
    from sabir.model.train import seed_of

    assert len({seed_of(0, language) for language in FIVE}) == len(FIVE)
    graph = planned(config)[0].graph
    assert len({graph.fingerprints[name] for name in OWN}) == len(FIVE)


def test_test_answers_of_a_grid_wait_for_the_selection(tmp_path):
    grid = {"ties": {"method": "ties", "density": {"grid": [0.2, 1.0]}}}
    config = write_project(tmp_path, ("en", "de"), merges=grid)
    open_plan = planned(config)[0]
    assert {step.name for step in open_plan.later} == {
        *(f"{kind}/merged/ties[*]/{lang}/test" for kind in ("outputs", "scores") for lang in ("en", "de")),
        "scores/merged/ties[*]/macro/test",
        "comparisons",
    }
    chosen = "merged/ties[density=0.2]"
    known = planned(config, {"selected": chosen, "best": {"ties": chosen}})[0]
    assert not known.later
    assert f"outputs/{chosen}/de/test" in known.graph
    assert "outputs/merged/ties[density=1.0]/de/test" not in known.graph


SEARCH = {"method": "ties", "space": "knots", "search": {"budget": 4, "over": ["scale"]}}
SEARCHED = {"average": {"method": "linear"}, "ties": SEARCH}


def test_a_search_stands_on_the_adapters_and_the_validation_rows_and_on_no_test_row(config):
    def search():
        return identities(rewrite(config, merges=SEARCHED))["merged/ties"]

    before = search()
    write_rows(config.parent / "data/de/test.jsonl", rows("de", "test", 9))
    assert search() == before
    write_rows(config.parent / "data/de/valid.jsonl", rows("de", "valid", 9))
    after_valid = search()
    assert after_valid != before
    write_rows(config.parent / "data/de/train.jsonl", rows("de", "train", 30))
    assert search() != after_valid


@pytest.mark.parametrize(
    "change",
    [
        {"search": {"budget": 5, "over": ["scale"]}},
        {"search": {"budget": 4, "over": ["density"]}},
        {"search": {"budget": 4, "over": ["scale"], "seed": 1}},
        {"search": {"budget": 4, "over": ["scale"], "method": "random"}},
        {"density": 0.5},
        {"rank": 4},
    ],
)
def test_what_is_searched_and_how_is_the_identity_of_a_search(config, change):
    other = {**SEARCHED, "ties": {**SEARCH, **change}}
    again = changed(identities(rewrite(config, merges=SEARCHED)), identities(rewrite(config, merges=other)))
    assert "merged/ties" in again


@pytest.mark.parametrize(
    ("change", "searches_again"),
    [
        ({"evaluate": {"resamples": 200}}, False),
        ({"evaluate": {"resamples": 100, "batch_size": 2}}, False),
        ({"gate": {"max_drop": 0.1}}, False),
        ({"select": {"metric": "macro_f1"}}, True),
    ],
)
def test_a_search_runs_again_for_the_metric_it_is_judged_by_and_not_for_intervals(
    config, change, searches_again
):
    before = identities(rewrite(config, merges=SEARCHED))
    after = identities(rewrite(config, merges=SEARCHED, **change))
    assert ("merged/ties" in changed(before, after)) is searches_again


def test_a_search_runs_again_when_sabir_merges_answers_or_scores_otherwise(config, monkeypatch):
    from sabir.plan import steps as module

    before = identities(rewrite(config, merges=SEARCHED))["merged/ties"]
    for kind in ("merged", "outputs", "scores"):
        with monkeypatch.context() as patch:
            patch.setitem(module.VERSIONS, kind, 99)
            assert identities(config)["merged/ties"] != before


def test_two_searches_that_are_the_same_are_refused(config):
    twins = {"a": SEARCH, "b": SEARCH}
    with pytest.raises(InputError, match=r"merges\.b: is the same merge as merges\.a"):
        planned(rewrite(config, merges=twins))


@pytest.mark.parametrize(
    ("languages", "merges", "there"),
    [(FIVE, None, True), (("en",), None, False), (("en", "de"), {}, False)],
)
def test_adapters_that_are_merged_are_analysed(tmp_path, languages, merges, there):
    config = write_project(tmp_path, languages, **({} if merges is None else {"merges": merges}))
    graph = planned(config)[0].graph
    assert ("analysis" in graph) is there
    if there:
        assert set(graph["analysis"].deps.values()) == {f"adapter/{language}" for language in languages}
        assert not graph.below("analysis"), "nothing waits for it"


def test_eight_merges_of_the_paper_are_eight_steps(config):
    graph = planned(rewrite(config, merges="paper-eight"))[0].graph
    merges = [step for step in graph if step.kind == "merged"]
    assert len({graph.fingerprints[step.name] for step in merges}) == 8
    assert {step.settings["dialect"] for step in merges} == {"paper"}


def test_two_merges_that_are_the_same_are_refused(config):
    twins = {"a": {"method": "ties", "density": 0.5}, "b": {"method": "ties", "density": 0.5, "scale": 1.0}}
    with pytest.raises(InputError, match=r"merges\.b: is the same merge as merges\.a"):
        planned(rewrite(config, merges=twins))


def test_two_languages_with_the_same_rows_are_refused(config):
    data = {"en": "data/en", "de": "data/en"}
    with pytest.raises(InputError, match=r"data\.de: has the same rows as data\.en"):
        planned(rewrite(config, data=data))


def test_two_languages_may_share_their_test_rows(config):
    for language in ("en", "de"):
        write_rows(config.parent / f"data/{language}/test.jsonl", rows("fr", "test", 7))
    fingerprints = identities(config)
    assert len(set(fingerprints.values())) == len(fingerprints)


def test_fingerprints_are_those_of_the_golden_file(tmp_path):
    """The identities of a fixed project: a shift is seen in review and retrains nobody by accident."""
    config = write_project(tmp_path)
    plan, facts = planned(config, SELECTED)
    found = {"base": facts.base.identity, **plan.graph.fingerprints}
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    shifted = sorted(name for name in {*found, *golden} if found.get(name) != golden.get(name))
    if shifted:
        aside = tmp_path / "fingerprints.json"
        aside.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert not shifted, (
        f"{len(shifted)} fingerprints shifted, such as {shifted[:3]}: with this change everybody's next run "
        "does those steps again. If results really change, raise the kind's number in sabir.plan.names.VERSIONS "
        f"and say so in the CHANGELOG; then copy {aside} to {GOLDEN}. If they do not, keep the fingerprint."
    )


def test_another_word_splitter_scores_texts_again_and_labels_not(tmp_path, monkeypatch):
    from sabir.metrics import words

    def scores(task):
        config = write_project(tmp_path / task["name"], ("ja",), task=task)
        graph = planned(config)[0].graph
        return graph.fingerprints["scores/base/ja/test"], graph.fingerprints["outputs/base/ja/test"]

    tasks = [
        {"name": "summarization", "max_new_tokens": 8},
        {"name": "classification", "labels": list(LABELS)},
    ]
    before = [scores(task) for task in tasks]
    monkeypatch.setattr(words, "describe_words", lambda language: "another splitter")
    after = [scores(task) for task in tasks]
    assert before[0][0] != after[0][0], "ROUGE counts words"
    assert before[0][1] == after[0][1], "answers do not"
    assert before[1] == after[1]


def test_adapters_name_a_hub_base_apart_from_its_revision(tmp_path):
    config = write_project(tmp_path, ("en",))
    for name, revision, written in (
        ("org/name@main", "a" * 40, "org/name"),
        ("org/name", "a" * 40, "org/name"),
        ("models/mine@home", None, "models/mine@home"),
    ):
        facts = replace(planned(config)[1], base=PinnedBase(name, "identity", revision))
        graph = plan(load_config(config), facts, selection=None, stale={}).graph
        base = graph["adapter/en"].args["base"]
        assert (base["name"], base["revision"]) == (written, revision)
