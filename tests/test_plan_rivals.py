"""What a plan has beside one merge of one training: other trainings, and what merging is held against."""

from __future__ import annotations

from collections import Counter

import pytest

from sabir.engine.steps import Part
from small_project import (
    planned,
    rows,
    settings,
    write_config,
    write_language,
    write_project,
    write_rows,
)

TWO = ("de", "en")
CHOSEN = {"selected": "merged/average", "best": {"average": "merged/average", "ties": "merged/ties"}}


def graph_of(config, selection=None, *, allow_code=False):
    return planned(config, selection, allow_code=allow_code)[0].graph


def project(tmp_path, **changes):
    return write_project(tmp_path, TWO, **changes)


# --- several trainings -------------------------------------------------------------------------------------


def test_three_seeds_train_and_merge_three_times_and_the_first_is_what_was_there(tmp_path):
    once = graph_of(project(tmp_path))
    three = graph_of(project(tmp_path, seeds=3))
    for model in ("adapter/de", "adapter/en", "adapter/combined", "merged/ties"):
        ways = [model, f"{model}#2", f"{model}#3"]
        assert len({three.fingerprints[way] for way in ways}) == 3
        assert three.fingerprints[model] == once.fingerprints[model]
    assert set(three["merged/ties#2"].deps.values()) == {"adapter/de#2", "adapter/en#2"}
    assert three["adapter/de#3"].args["lora"]["seed"] == three["adapter/de"].args["lora"]["seed"] + 2


def test_the_choice_among_merges_and_the_comparisons_stand_on_all_trainings(tmp_path):
    graph = graph_of(project(tmp_path, seeds=2), CHOSEN)
    assert set(graph["select"].deps) == {
        *("merged/average", "merged/average#2", "merged/ties", "merged/ties#2"),
    }
    roles = graph["comparisons"].deps
    assert roles["merged/average#2/de"] == "scores/merged/average#2/de/test"
    assert roles["adapter/<language>#2/de"] == "scores/adapter/de#2/de/test"
    assert "base/de" in roles
    assert "base#2/de" not in roles


def test_a_language_of_another_training_is_scored_on_itself_only(tmp_path):
    graph = graph_of(project(tmp_path, seeds=2))
    assert "outputs/adapter/de#2/de/test" in graph
    assert "outputs/adapter/de#2/en/test" not in graph
    assert "scores/adapter/combined#2/macro/test" in graph


def test_a_merge_that_draws_by_chance_draws_anew_in_every_training(tmp_path):
    merges = {"dare": {"method": "dare", "density": 0.5}, "average": {"method": "linear"}}
    graph = graph_of(project(tmp_path, seeds=2, merges=merges))
    assert graph["merged/dare"].settings != graph["merged/dare#2"].settings
    assert graph["merged/average"].settings == graph["merged/average#2"].settings


# --- rivals ------------------------------------------------------------------------------------------------


def test_rivals_change_nothing_of_what_is_there_without_them(tmp_path):
    without = planned(project(tmp_path))[0].graph.fingerprints
    rivals = {"shots": 2, "merged_rank": True, "routed": "py3langid", "stress": ["short", "mislabelled"]}
    beside = planned(project(tmp_path, rivals=rivals))[0].graph.fingerprints
    assert {name: beside[name] for name in without} == without
    assert len(beside) > len(without)


def test_few_shot_takes_its_examples_from_the_training_rows_of_the_language(tmp_path):
    graph = graph_of(project(tmp_path, rivals={"shots": 3}))
    step = graph["outputs/base[shots=3]/de/test"]
    assert step.deps == {"rows": Part("data/de", "test"), "shots": Part("data/de", "train")}
    assert step.settings["shots"] == {"count": 3, "seed": 0}
    assert "model" not in step.deps


def test_the_combined_adapter_of_the_merged_rank_is_as_strong_and_has_as_many_candidates(tmp_path):
    merges = {"ties": {"method": "ties", "density": {"grid": [0.2, 0.5, 1.0]}, "scale": {"grid": [0.5, 1.0]}}}
    graph = graph_of(project(tmp_path, merges=merges, rivals={"merged_rank": True}))
    large = graph["adapter/combined[rank=8]"].args["lora"]  # two languages of rank 4, alpha 32
    assert (large["rank"], large["alpha"]) == (8, 64.0)
    candidates = graph["select/combined"].settings["candidates"]["combined"]
    assert len(candidates) == 6 == len([name for name in graph["select"].deps])
    assert len({graph.fingerprints[name] for name in candidates}) == 6
    assert graph[candidates[1]].deps == {"combined": "adapter/combined[rank=8]"}
    assert "outputs/adapter/combined[rank=8]/de/valid" in graph
    assert "outputs/adapter/combined[rank=8]/de/test" not in graph


def test_the_chosen_scale_of_the_large_combined_adapter_is_scored_on_test_and_compared(tmp_path):
    config = project(tmp_path, rivals={"merged_rank": True})
    chosen = "adapter/combined[rank=8]"
    graph = graph_of(config, {**CHOSEN, "combined": chosen})
    assert f"outputs/{chosen}/de/test" in graph
    assert ["merged/average", chosen] in graph["comparisons"].settings["pairs"]


def test_a_combined_adapter_with_one_rival_merge_has_one_candidate(tmp_path):
    config = project(tmp_path, merges={"average": {"method": "linear"}}, rivals={"merged_rank": True})
    graph = graph_of(config)
    assert graph["select/combined"].settings["candidates"] == {"combined": ["adapter/combined[rank=8]"]}


def test_routed_stands_on_every_own_adapter_of_its_training(tmp_path):
    graph = graph_of(project(tmp_path, seeds=2, rivals={"routed": "py3langid"}), CHOSEN)
    for ending in ("", "#2"):
        step = graph[f"outputs/routed{ending}/de/test"]
        assert step.deps["model/en"] == f"adapter/en{ending}"
        assert step.settings["detector"].startswith("py3langid")
    assert ["merged/average", "routed"] in graph["comparisons"].settings["pairs"]


def test_a_translated_question_is_answered_by_the_adapter_of_the_other_language(tmp_path):
    (tmp_path / "mine.py").write_text("def turn(texts, source, target):\n    return texts\n")
    config = project(tmp_path, rivals={"translate": {"model": "mine:turn", "to": "en"}})
    graph = graph_of(config, allow_code=True)
    assert graph["outputs/translate-test/de/test"].deps == {"rows": "translated/de", "model": "adapter/en"}
    same = ("outputs/translate-test/en/test", "outputs/adapter/en/en/test")
    assert len({graph.fingerprints[name] for name in same}) == 1
    assert "translated/en" not in graph


def test_stress_sets_are_made_of_test_rows_and_answered_by_all_who_can(tmp_path):
    rivals = {"stress": ["short", "mislabelled"], "routed": "py3langid", "shots": 1}
    graph = graph_of(project(tmp_path, rivals=rivals), CHOSEN)
    assert graph["stress/short/de"].deps == {"rows/de": Part("data/de", "test")}
    assert "rows/en" in graph["stress/mislabelled/de"].deps
    asked = {
        name.split("/short")[0]
        for name in graph.fingerprints
        if name.startswith("outputs/") and "/short" in name
    }
    models = {name.removeprefix("outputs/").rpartition("/")[0] for name in asked}
    assert models == {
        *("base", "base[shots=1]", "adapter/de", "adapter/en", "adapter/combined", "routed"),
        *("merged/average", "merged/ties"),
    }
    assert graph["outputs/merged/average/de/short"].deps["rows"] == "stress/short/de"


def test_a_language_without_an_adapter_is_answered_by_whoever_needs_none_of_it(tmp_path):
    write_rows(tmp_path / "data/es/test.jsonl", rows("fr", "test", 5))
    graph = graph_of(project(tmp_path, rivals={"unseen": {"es": "data/es"}, "shots": 1}), CHOSEN)
    models = {
        name.removeprefix("outputs/").removesuffix("/es/unseen")
        for name in graph.fingerprints
        if name.startswith("outputs/") and name.endswith("/es/unseen")
    }
    assert models == {"base", "adapter/combined", "merged/average", "merged/ties"}
    assert graph["scores/base/macro/unseen"].deps == {"es": "scores/base/es/unseen"}
    assert not any("/es/" in name and name.endswith(("/test", "/valid")) for name in graph.fingerprints)


def test_weights_by_rows_are_shares_of_the_training_rows(tmp_path):
    config = project(tmp_path, merges={"weighted": {"method": "linear", "weights": "rows"}})
    write_rows(tmp_path / "data/de/train.jsonl", rows("de", "train", 72))
    weights = graph_of(config)["merged/weighted"].settings["weights"]
    assert weights == pytest.approx({"de": 0.75, "en": 0.25})


def test_no_step_of_a_plan_with_everything_has_a_twin_of_another_kind(tmp_path):
    rivals = {"shots": 2, "merged_rank": True, "routed": "py3langid", "stress": ["short", "code-switched"]}
    graph = graph_of(
        project(tmp_path, seeds=2, rivals=rivals), {**CHOSEN, "combined": "adapter/combined[rank=8]"}
    )
    twice = [key for key, count in Counter(graph.fingerprints.values()).items() if count > 1]
    assert not twice


def test_an_own_task_is_scored_again_when_its_settings_or_its_code_change_and_answers_stay(tmp_path):
    code = (
        "from sabir.tasks import Task\n\n\ndef greet(*, labels: tuple[str, ...], strict: int = 0):\n"
        "    return Task('greet', 'label', '', 'A:', ('accuracy',), labels)\n"
    )
    (tmp_path / "greeting.py").write_text(code)
    task = {"name": "greeting:greet", "labels": ["delivery", "payment"]}
    first = graph_of(project(tmp_path, task=task), allow_code=True).fingerprints
    stricter = graph_of(project(tmp_path, task={**task, "strict": 1}), allow_code=True).fingerprints
    (tmp_path / "greeting.py").write_text(code + "# read otherwise\n")
    edited = graph_of(project(tmp_path, task=task), allow_code=True).fingerprints
    assert first["outputs/base/de/test"] == stricter["outputs/base/de/test"] == edited["outputs/base/de/test"]
    assert len({each["scores/base/de/test"] for each in (first, stricter, edited)}) == 3


def test_the_share_of_unscored_rows_that_is_let_pass_is_part_of_what_a_score_is(tmp_path):
    usual = graph_of(project(tmp_path)).fingerprints
    same = graph_of(project(tmp_path, evaluate={"resamples": 100, "max_unscored": 0.05})).fingerprints
    lax = graph_of(project(tmp_path, evaluate={"resamples": 100, "max_unscored": 1.0})).fingerprints
    assert usual == same
    assert usual["scores/base/de/test"] != lax["scores/base/de/test"]
    assert usual["outputs/base/de/test"] == lax["outputs/base/de/test"]


def test_a_brought_adapter_takes_no_trainings_from_the_other_languages(tmp_path):
    from test_preflight import adapter, brought

    adapter(tmp_path / "adapters/de", 1)
    write_language(tmp_path, "en")
    data = {**brought(tmp_path, "de"), "en": "data/en"}
    config = write_config(tmp_path, settings(data=data, seeds=2))
    roles = graph_of(config, CHOSEN)["comparisons"].deps
    assert "adapter/<language>#2/en" in roles
    assert "adapter/<language>#2/de" not in roles
    assert "adapter/de#2" not in graph_of(config, CHOSEN)


def test_averages_are_plain_and_weighted_each_with_its_scales(tmp_path):
    config = project(tmp_path, merges=["averages"])
    write_rows(tmp_path / "data/de/train.jsonl", rows("de", "train", 72))
    graph = graph_of(config)
    candidates = graph["select"].settings["candidates"]
    assert {name: len(members) for name, members in candidates.items()} == {"average": 3, "weighted": 3}
    assert len({graph.fingerprints[member] for members in candidates.values() for member in members}) == 6


def test_languages_with_as_many_rows_make_the_weighted_average_the_plain_one(tmp_path):
    graph = graph_of(project(tmp_path, merges=["averages"]))
    pairs = [
        (f"merged/average[scale={scale}]", f"merged/weighted[scale={scale}]") for scale in (1.0, 2.0, 3.0)
    ]
    assert all(graph.fingerprints[one] == graph.fingerprints[other] for one, other in pairs)
