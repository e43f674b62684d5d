"""The reason why a step runs again, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toys import do, step

from sabir.engine.backends.inline import InlineBackend
from sabir.engine.steps import Graph, Part
from sabir.engine.store import Store
from sabir.engine.why import assess
from sabir.errors import StoreError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def data(train="t", valid="v"):
    return step("data/de", settings={"train": train, "valid": valid}, parts={"train": train, "valid": valid})


def adapter(rank=16, **rest):
    settings = {"lora": {"rank": rank}, "targets": ("q", "v")}
    return step("adapter/de", settings=settings, deps={"rows": Part("data/de", "train")}, **rest)


def merged(**rest):
    return step("merged", deps={"de": "adapter/de", **rest.pop("deps", {})}, **rest)


def reasons(store, before, after):
    """Name -> (status, why), when `before` was run and `after` is planned."""
    do(before, store, InlineBackend())
    found = assess(Graph(after), store, Graph(before).fingerprints)
    return {name: (a.status, a.why) for name, a in found.items()}


def test_everything_is_new_at_first(store):
    found = assess(Graph([data(), adapter()]), store, {})
    assert [(a.status, a.why, a.record) for a in found.values()] == [("run", "new", None)] * 2


def test_nothing_runs_again_when_nothing_changed(store):
    steps = [data(), adapter(), merged()]
    found = reasons(store, steps, steps)
    assert set(found.values()) == {("reused", "nothing it stands on has changed")}


def test_a_changed_setting_is_named_with_both_values_and_so_is_what_stands_on_it(store):
    found = reasons(store, [data(), adapter(16), merged()], [data(), adapter(32), merged()])
    assert found["data/de"][0] == "reused"
    assert found["adapter/de"] == ("run", "lora.rank: 16 -> 32")
    assert found["merged"] == ("run", "adapter/de changed")


def test_a_setting_that_comes_or_goes_is_named_against_its_default(store):
    before = step("a", settings={"density": 0.5})
    assert reasons(store, [before], [step("a", settings={})])["a"][1] == "density: 0.5 -> default"


def test_long_values_are_cut(store):
    found = reasons(store, [step("a", settings={"x": "p" * 100})], [step("a", settings={"x": "q" * 100})])
    assert len(found["a"][1]) < 100


def test_a_changed_part_is_named_and_the_steps_on_another_part_are_reused(store):
    found = reasons(store, [data(), adapter()], [data(valid="V"), adapter()])
    assert found["data/de"] == ("run", "valid rows changed")
    assert found["adapter/de"][0] == "reused"


def test_a_changed_part_below_is_named(store):
    found = reasons(store, [data(), adapter()], [data(train="T"), adapter()])
    assert found["adapter/de"] == ("run", "train rows of data/de changed")


def test_a_part_that_is_gone_is_named(store):
    after = step("data/de", settings={"train": "t"}, parts={"train": "t"})
    assert reasons(store, [data()], [after])["data/de"][1] == "valid rows changed"


def test_a_step_with_parts_names_its_other_settings_too(store):
    before = replace(data(), settings={**data().settings, "task": "a"})
    after = replace(data(), settings={**data().settings, "task": "b"})
    assert reasons(store, [before], [after])["data/de"][1] == "task: 'a' -> 'b'"


def test_a_raised_version_is_named(store):
    found = reasons(store, [data(), adapter()], [data(), adapter(version=2)])
    assert found["adapter/de"][1] == "sabir computes 'toy' anew (version 1 -> 2)"


def test_a_new_dependency_is_named(store):
    two = [data(), adapter(), step("adapter/ja"), merged(deps={"ja": "adapter/ja"})]
    one = [data(), adapter(), step("adapter/ja"), merged()]
    assert reasons(store, one, two)["merged"][1] == "now also stands on adapter/ja"


def test_a_dependency_that_is_gone_is_named(store):
    two = [data(), adapter(), step("adapter/ja"), merged(deps={"ja": "adapter/ja"})]
    assert reasons(store, two, [data(), adapter(), merged()])["merged"][1] == "no longer stands on ja"


def test_what_is_missing_from_the_store_is_said(store):
    graph = Graph([step("a")])
    found = assess(graph, store, graph.fingerprints)
    assert found["a"].why == "not finished yet, or its output is missing from the store"


def test_what_was_forgotten_has_simply_changed(store):
    found = assess(Graph([step("a")]), store, {"a": "f" * 64})
    assert (found["a"].status, found["a"].why) == ("run", "changed")


def test_a_pinned_result_is_reused_with_its_note_and_missed_with_a_sentence(store):
    old = step("a", settings={"v": 1})
    do([old], store, InlineBackend())
    pinned = replace(step("a", settings={"v": 2}), pinned=Graph([old]).fingerprints["a"], note="older data")
    found = assess(Graph([pinned]), store, {})
    assert (found["a"].status, found["a"].why) == ("reused", "older data")
    with pytest.raises(StoreError, match="the old result of a is gone"):
        assess(Graph([replace(pinned, pinned="f" * 64)]), store, {})
