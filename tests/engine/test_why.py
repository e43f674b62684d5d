"""The reason why a step runs again, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toys import do, step

from sabir.engine.backends.inline import InlineBackend
from sabir.engine.steps import Graph, Known, Part
from sabir.engine.store import Store
from sabir.engine.why import Assessment, Difference, assess, difference, roots
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


def began(store, before, after, name):
    """Where the change of a step began, when `before` was run and `after` is planned: name -> in words."""
    do(before, store, InlineBackend())
    return {root.name: root.why for root in roots(name, Graph(after), store, Graph(before).fingerprints)}


def records_read(store, monkeypatch):
    """Fingerprints of the records that are read from now on."""
    read = []
    record = store.record
    monkeypatch.setattr(store, "record", lambda fingerprint: read.append(fingerprint) or record(fingerprint))
    return read


def test_numbers_are_told_with_four_digits_where_these_tell_them_apart(store):
    def why(before, after):
        found = reasons(store, [step("m", settings=before)], [step("m", settings=after)])
        return found["m"][1]

    weights = {"de": 13 / 23, "en": 10 / 23}
    assert why({"weights": None}, {"weights": weights}) == (
        "weights: default -> {'de': 0.5652, 'en': 0.4348}"
    )
    assert why({"scale": 1 / 3}, {"scale": 0.5}) == "scale: 0.3333 -> 0.5"
    assert why({"scale": 0.2}, {"scale": 0.2000001}) == "scale: 0.2 -> 0.2000001"


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


def test_a_record_that_is_gone_is_said_where_it_is_asked_for(store):
    do([step("a")], store, InlineBackend())
    graph = Graph([step("a")])
    (store.folder(graph.fingerprints["a"]) / "record.json").unlink()
    found = assess(graph, store, {})["a"]
    with pytest.raises(StoreError, match=r"the record of this step is gone\. `sabir verify` mends it"):
        assert found.record


# --- what is read for it ---------------------------------------------------------------------------------


def test_a_plan_of_finished_steps_reads_no_record_until_it_is_asked_for(store, monkeypatch):
    steps = [data(), adapter(), merged()]
    do(steps, store, InlineBackend())
    read = records_read(store, monkeypatch)
    graph = Graph(steps)
    found = assess(graph, store, graph.fingerprints)
    assert {a.why for a in found.values()} == {"nothing it stands on has changed"}
    assert read == []
    assert found["merged"].record["name"] == "merged"
    assert read == [graph.fingerprints["merged"]]


def test_a_step_of_which_only_what_is_below_changed_needs_no_record_for_its_reason(store, monkeypatch):
    before, after = [data(), adapter(16), merged()], [data(), adapter(32), merged()]
    do(before, store, InlineBackend())
    read = records_read(store, monkeypatch)
    assert assess(Graph(after), store, Graph(before).fingerprints)["merged"].why == "adapter/de changed"
    assert read == []


def test_a_step_that_changed_with_what_is_below_is_told_with_both(store):
    before = [data(), adapter(16), merged(settings={"density": 0.5})]
    after = [data(), adapter(32), merged(settings={"density": 0.2})]
    assert reasons(store, before, after)["merged"][1] == "density: 0.5 -> 0.2; adapter/de changed"


def test_a_step_that_was_to_run_has_no_record_even_when_it_was_run_since(store):
    graph = Graph([step("a")])
    before: Assessment = assess(graph, store, {})["a"]
    do([step("a")], store, InlineBackend())
    assert (before.record, before.why) == (None, "new")


# --- field by field --------------------------------------------------------------------------------------


def test_a_difference_names_every_field_of_the_identity(store):
    before = [
        data(),
        step("adapter/ja"),
        step(
            "a", settings={"lora": {"rank": 16}}, deps={"rows": Part("data/de", "train"), "x": "adapter/ja"}
        ),
    ]
    after = [
        data(train="T"),
        step("adapter/pt"),
        step(
            "a",
            settings={"lora": {"rank": 32}},
            version=2,
            deps={"rows": Part("data/de", "train"), "y": "adapter/pt"},
        ),
    ]
    do(before, store, InlineBackend())
    old, new = Graph(before), Graph(after)
    assert difference(new["a"], new, store, old.fingerprints["a"]) == [
        ("version", 1, 2),
        ("settings.lora.rank", 16, 32),
        ("deps.rows", "t", "T"),
        ("deps.x", old.fingerprints["adapter/ja"], None),
        ("deps.y", None, new.fingerprints["adapter/pt"]),
    ]
    assert difference(new["data/de"], new, store, old.fingerprints["data/de"]) == [("parts.train", "t", "T")]


def test_a_step_of_another_kind_is_told_so(store):
    before, after = [step("a", settings={})], [replace(step("a", settings={}), kind="adopted")]
    assert reasons(store, before, after)["a"][1] == "kind: 'toy' -> 'adopted'"


def test_nothing_differs_where_nothing_changed_or_nothing_is_known(store):
    graph = Graph([data()])
    for before in (None, graph.fingerprints["data/de"], "f" * 64):
        assert difference(graph["data/de"], graph, store, before) == []


def test_a_result_that_stands_in_differs_by_that_alone(store):
    graph = Graph([replace(step("a"), pinned="e" * 64, note="held at the adapter of release 3")])
    assert difference(graph["a"], graph, store, "f" * 64) == [Difference("pinned", "f" * 64, "e" * 64)]


def test_a_known_result_is_told_by_its_name_and_day(store):
    first, second = step("adapter/de", settings={"v": 1}), step("adapter/de", settings={"v": 2})
    old, new = (Graph([one]).fingerprints["adapter/de"] for one in (first, second))
    for one in (first, second):
        do([one], store, InlineBackend())
    before = step("a", deps={"parent": Known(old)})
    after = step("a", deps={"parent": Known(new)})
    day = store.record(new)["created"][:10]
    why = reasons(store, [before], [after])["a"][1]
    assert why == f"parent: adapter/de of {day} ({old[:8]}) -> adapter/de of {day} ({new[:8]})"
    do([step("a")], store, InlineBackend())
    found = assess(Graph([after]), store, {"a": Graph([step("a")]).fingerprints["a"]})
    assert found["a"].why == f"now also stands on adapter/de of {day} ({new[:8]})"
    gone = step("b", deps={"parent": Known("e" * 64)})
    do([step("b")], store, InlineBackend())
    found = assess(Graph([gone]), store, {"b": Graph([step("b")]).fingerprints["b"]})
    assert found["b"].why == "now also stands on eeeeeeee"


# --- where it began --------------------------------------------------------------------------------------


def scored(**rest):
    return [merged(**rest), step("scores", deps={"model": "merged", "rows": Part("data/de", "test")})]


def three(train="t", valid="v", test="x"):
    digests = {"train": train, "valid": valid, "test": test}
    return step("data/de", settings=digests, parts=digests)


def test_a_change_is_followed_down_to_the_rows_that_changed(store):
    before, after = [three(), adapter(), *scored()], [three(train="T"), adapter(), *scored()]
    assert began(store, before, after, "scores") == {"data/de": "train rows changed"}


def test_rows_that_changed_and_that_the_step_does_not_stand_on_are_not_named(store):
    before, after = [three(), adapter(), *scored()], [three(train="T", valid="V"), adapter(), *scored()]
    assert began(store, before, after, "scores") == {"data/de": "train rows changed"}
    assert began(store, before, after, "data/de") == {"data/de": "train, valid rows changed"}


def test_several_changes_are_all_found(store):
    before = [three(), adapter(16), *scored(settings={"density": 0.5})]
    after = [three(train="T", test="X"), adapter(32), *scored(settings={"density": 0.2})]
    assert began(store, before, after, "scores") == {
        "data/de": "test, train rows changed",
        "adapter/de": "lora.rank: 16 -> 32",
        "merged": "density: 0.5 -> 0.2",
    }


def test_a_new_language_is_where_it_began_and_the_merge_that_now_has_it_is_not(store):
    two = [
        three(),
        adapter(),
        replace(three("1", "2", "3"), name="data/pt"),
        step("adapter/pt", deps={"rows": Part("data/pt", "train")}),
        *scored(deps={"pt": "adapter/pt"}),
    ]
    assert began(store, [three(), adapter(), *scored()], two, "scores") == {"data/pt": "new"}
    assert began(store, [three(), adapter(), *scored()], two, "adapter/pt") == {"data/pt": "new"}


def test_a_language_that_is_gone_is_named_at_the_merge(store):
    ja = step("adapter/ja")
    before = [three(), adapter(), ja, *scored(deps={"ja": "adapter/ja"})]
    after = [three(), adapter(), ja, *scored()]
    assert began(store, before, after, "scores") == {"merged": "no longer stands on ja"}


def test_a_new_merge_is_where_it_began_whatever_changed_below_it(store):
    before, after = [three(), adapter()], [three(train="T"), adapter(), *scored()]
    assert began(store, before, after, "scores") == {"merged": "new"}


def test_another_known_result_is_where_it_began(store):
    parents = [step("old"), step("new")]
    do(parents, store, InlineBackend())
    old, new = Graph(parents).fingerprints.values()
    before = [step("a", deps={"parent": Known(old)}), step("b", deps={"x": "a"})]
    after = [step("a", deps={"parent": Known(new)}), step("b", deps={"x": "a"})]
    (name, why), *others = began(store, before, after, "b").items()
    assert (name, others) == ("a", [])
    assert why.startswith("parent: old of ")


def test_a_result_that_stands_in_is_where_it_began(store):
    before = [three(), adapter(), *scored()]
    held = replace(adapter(), pinned="e" * 64, note="held at the adapter of release 3")
    assert began(store, before, [three(), held, *scored()], "scores") == {
        "adapter/de": "held at the adapter of release 3"
    }


def test_where_the_earlier_record_is_gone_the_change_is_followed_by_fingerprints(store):
    before = [step("a", settings={"v": 1}), merged(deps={"de": "a"})]
    after = [step("a", settings={"v": 2}), merged(deps={"de": "a"}, settings={"density": 0.2})]
    found = roots("merged", Graph(after), store, Graph(before).fingerprints)
    assert [(root.name, root.differences, root.why) for root in found] == [("a", (), "changed")]


def test_a_step_that_is_what_it_was_began_nowhere(store):
    steps = [three(), adapter(), *scored()]
    assert began(store, steps, steps, "scores") == {}
