"""Who answers beside a model: which members there are, what makes them, and what they are asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sabir.config import load_config
from sabir.lock import Hold, PinnedBase
from sabir.plan import Member, Texts, answers_name, asked
from sabir.plan.ensemble import free_members, other_bases, prompted_members, trained_members
from sabir.plan.names import shots_name, shots_of
from sabir.plan.steps import Steps
from small_project import planned, write_project

TWO = ("de", "en")
BEST = {"ties": "merged/ties", "dare": "merged/dare[scale=2.0]"}
MERGES = {
    "ties": {"method": "ties", "density": 0.5},
    "dare": {"method": "dare_ties", "density": 0.5, "scale": {"grid": [1.0, 2.0]}},
}


def made(tmp_path, *, languages=TWO, **changes):
    config = write_project(tmp_path, languages, **{"merges": MERGES, **changes})
    plan, facts = planned(config)
    return Steps(load_config(config), facts), plan.graph


def names(members, kind=None):
    return [one.name for one in members if kind in (None, one.kind)]


def test_adapters_and_the_best_of_each_recipe_are_free_unless_others_are_named(tmp_path):
    make, _ = made(tmp_path)
    assert names(free_members(make, BEST)) == [
        "adapter/<language>",
        "adapter/de",
        "adapter/en",
        *BEST.values(),
    ]
    make, _ = made(tmp_path, ensemble={"free": ["merges"]})
    assert names(free_members(make, BEST)) == list(BEST.values())


def test_masks_are_the_chosen_merge_drawn_anew_and_only_where_a_recipe_draws(tmp_path):
    make, graph = made(tmp_path, ensemble={"free": ["masks"], "masks": 2})
    masks = free_members(make, BEST)
    assert names(masks) == ["merged/dare[scale=2.0,mask=1]", "merged/dare[scale=2.0,mask=2]"]
    seeds = [one.steps[0].settings["settings"]["seed"] for one in masks]
    assert len({*seeds, graph["merged/dare[scale=2.0]"].settings["settings"].get("seed", 0)}) == 3
    one, other = (one.steps[0].settings for one in masks)
    assert {**one, "settings": 0} == {**other, "settings": 0}


def test_checkpoints_are_each_epoch_but_the_last_of_each_own_adapter(tmp_path):
    lora = {"rank": 4, "epochs": 3, "max_length": 64}
    make, graph = made(tmp_path, lora=lora, ensemble={"free": ["checkpoints"]})
    members = free_members(make, BEST)
    assert names(members) == ["adapter/<language>[epoch=1]", "adapter/<language>[epoch=2]"]
    assert members[1].steps[0].deps == {"adapter": "adapter/de"}
    assert graph["adapter/de"].args["keep_epochs"]


def test_keeping_epochs_trains_nothing_again(tmp_path):
    _, plain = made(tmp_path / "a")
    _, kept = made(tmp_path / "b", ensemble={"free": ["checkpoints"]})
    assert plain.fingerprints["adapter/de"] == kept.fingerprints["adapter/de"]
    assert "keep_epochs" not in plain["adapter/de"].args


def test_further_seeds_are_the_trainings_that_seeds_would_make(tmp_path):
    make, _ = made(tmp_path / "a", ensemble={"seeds": 2})
    members = trained_members(make)
    assert names(members, "seeds") == ["adapter/<language>#2", "adapter/<language>#3"]
    _, whole = made(tmp_path / "b", seeds=3)
    graph = asked(
        make, planned(tmp_path / "a" / "sabir.yaml")[0].graph, members, production={}, reference=TWO
    )
    assert graph.fingerprints["adapter/de#3"] == whole.fingerprints["adapter/de#3"]


def test_the_trainings_a_project_has_anyway_are_members_without_being_asked_for(tmp_path):
    make, _ = made(tmp_path, seeds=3)
    assert names(trained_members(make)) == ["adapter/<language>#2", "adapter/<language>#3"]


def test_halves_are_trained_on_other_rows_with_other_seeds(tmp_path):
    make, graph = made(tmp_path, ensemble={"seeds": 2, "data": "halves"})
    members = trained_members(make)
    assert names(members, "halves") == ["adapter/<language>[half=1]", "adapter/<language>[half=2]"]
    whole = asked(make, graph, members, production={}, reference=TWO)
    halves = [whole[f"adapter/de[half={half}]"] for half in (1, 2)]
    assert [step.settings["half"] for step in halves] == [1, 2]
    seeds = {step.args["lora"]["seed"] for step in (*halves, whole["adapter/de"])}
    assert len(seeds) == 3


def test_a_language_that_is_held_at_an_earlier_adapter_has_no_other_training(tmp_path):
    make, graph = made(tmp_path, ensemble={"seeds": 1})
    held = Hold(make.facts.rows["de"].digests["train"], "0" * 64, "1")
    make = Steps(make.config, replace(make.facts, holds={"de": held}))
    whole = asked(make, graph, trained_members(make), production={}, reference=TWO)
    assert "outputs/adapter/en#2/en/test" in whole
    assert "outputs/adapter/de#2/de/test" not in whole


def test_a_member_answers_texts_without_labels_by_the_same_step_as_test_rows(tmp_path):
    make, graph = made(tmp_path)
    texts = {"de": Texts("abc", {"file": "x.jsonl"}, 100)}
    whole = asked(make, graph, [Member("adapter/en")], production=texts, reference=["de"])
    test, production = whole["outputs/adapter/en/de/test"], whole["outputs/adapter/en/de/production"]
    assert test.settings == production.settings
    assert production.deps == {"rows": "production/de", "model": "adapter/en"}
    assert whole["production/de"].settings == {"rows": "abc", "language": "de"}


def test_in_a_language_without_an_adapter_own_members_say_nothing_and_others_do(tmp_path):
    make, graph = made(tmp_path)
    texts = {"pt": Texts("abc", {"file": "x.jsonl"}, 100, known=False)}
    members = [Member("adapter/<language>"), Member("adapter/en"), Member(shots_name(4))]
    whole = asked(make, graph, members, production=texts, reference=[])
    new = {step.name for step in whole} - {step.name for step in graph}
    assert new == {"production/pt", "outputs/adapter/en/pt/production"}
    assert whole["outputs/adapter/en/pt/production"].settings["language"] == "pt"


def test_another_base_answers_by_itself_in_a_job_of_its_own(tmp_path):
    make, graph = made(tmp_path)
    base = PinnedBase("org/other", "commit:1", "1")
    (member,) = other_bases({"org/other": (base, Path("/models/other"))})
    whole = asked(make, graph, [member], production={}, reference=["de"])
    step, plain = whole["outputs/org/other/de/test"], whole["outputs/base/de/test"]
    assert step.settings["base"] == "commit:1"
    assert step.args["base"]["folder"] == "/models/other"
    assert step.batch != plain.batch
    assert whole.fingerprints[step.name] != whole.fingerprints[plain.name]


def test_a_server_answers_without_a_base(tmp_path):
    make, graph = made(tmp_path)
    judge = {"endpoint": "http://127.0.0.1/v1", "model": "big", "key": "KEY"}
    member = Member("judge/big", endpoint=judge)
    whole = asked(make, graph, [member], production={}, reference=["de"])
    step = whole[answers_name(member, "de", "test")]
    assert step.run == "sabir.work.endpoint:outputs"
    assert (step.settings["endpoint"]["url"], step.settings["endpoint"]["model"]) == (
        judge["endpoint"],
        "big",
    )
    assert "model" not in step.deps


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [(["zero-shot"], ["base"]), (["zero-shot", "few-shot"], ["base", "base[shots=2]"])],
)
def test_the_bare_base_is_asked_in_other_ways(tmp_path, prompts, expected):
    make, _ = made(tmp_path, ensemble={"prompts": prompts, "shots": 2})
    assert names(prompted_members(make)) == expected


def test_a_name_says_how_many_examples_and_which_draw_of_them():
    assert shots_of(shots_name(4), seed=7) == {"count": 4, "seed": 7}
    assert shots_of(shots_name(2, draw=3), seed=7) == {"count": 2, "seed": 10}
