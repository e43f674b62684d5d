"""Steps and their graph: what a step stands on, and what its identity leaves out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from toys import step

from sabir.engine.fingerprint import Canonical
from sabir.engine.steps import Graph, Part, Step


def told(*steps):
    return Graph(steps).fingerprints


def rows(train="t", valid="v"):
    return step("data", settings={"train": train, "valid": valid}, parts={"train": train, "valid": valid})


@pytest.mark.parametrize(
    "outside",
    [
        {"name": "other"},
        {"run": "toys:slow"},
        {"args": {"path": "/elsewhere", "device": "cuda"}},
        {"batch": "b"},
        {"size": 3.0},
        {"priority": 9},
        {"resumable": True},
        {"preload": "torch"},
        {"note": "n"},
    ],
    ids=lambda outside: next(iter(outside)),
)
def test_what_lies_outside_the_identity_does_not_change_it(outside):
    before = step("a")
    after = replace(before, **outside)
    assert told(before)["a"] == told(after)[after.name]


def test_a_change_below_changes_everything_above():
    def chain(value):
        return told(
            step("a", settings={"v": value}),
            step("b", deps={"x": "a"}),
            step("c", deps={"x": "b"}),
            step("d"),
        )

    before, after = chain(1), chain(2)
    assert {name for name in before if before[name] != after[name]} == {"a", "b", "c"}


def test_the_name_of_a_dependency_does_not_matter_and_its_role_does():
    one, two = step("one", settings={}), step("two", settings={})
    assert told(one, step("b", deps={"x": "one"}))["b"] == told(two, step("b", deps={"x": "two"}))["b"]
    assert told(one, step("b", deps={"x": "one"}))["b"] != told(one, step("b", deps={"y": "one"}))["b"]


def test_swapping_two_roles_is_another_step():
    one, two = step("one"), step("two")
    straight = told(one, two, step("b", deps={"x": "one", "y": "two"}))
    crossed = told(one, two, step("b", deps={"x": "two", "y": "one"}))
    assert straight["b"] != crossed["b"]


def test_a_change_in_another_part_changes_nothing():
    trained = step("adapter", deps={"rows": Part("data", "train")})
    before = told(rows(), trained)
    other_part = told(rows(valid="V"), trained)
    own_part = told(rows(train="T"), trained)
    assert before["data"] != other_part["data"]
    assert before["adapter"] == other_part["adapter"] != own_part["adapter"]


def test_a_part_is_not_the_whole():
    part = told(rows(), step("b", deps={"rows": Part("data", "train")}))
    whole = told(rows(), step("b", deps={"rows": "data"}))
    assert part["b"] != whole["b"]


def test_a_pinned_step_has_the_fingerprint_it_was_given_and_hands_it_on():
    old = told(step("a", settings={"v": 1}), step("b", deps={"x": "a"}))
    pinned = told(
        replace(step("a", settings={"v": 2}), pinned=old["a"]),
        step("b", deps={"x": "a"}),
    )
    assert pinned == old


def test_any_order_of_steps_gives_the_same_fingerprints_and_an_order_that_can_run():
    steps = [step("c", deps={"x": "b"}), step("b", deps={"x": "a"}), step("a"), step("d", deps={"x": "a"})]
    found = set()
    for order in itertools.permutations(steps):
        graph = Graph(order)
        names = [placed.name for placed in graph]
        assert names.index("a") < names.index("b") < names.index("c")
        found.add(tuple(sorted(graph.fingerprints.items())))
    assert len(found) == 1


def test_all_that_stands_on_a_step_is_found_through_parts_too():
    graph = Graph(
        [
            rows(),
            step("a", deps={"r": Part("data", "train")}),
            step("b", deps={"x": "a"}),
            step("c"),
            step("d", deps={"b": "b", "c": "c"}),
        ]
    )
    assert graph.below("data") == {"a", "b", "d"}
    assert graph.below("c") == {"d"}
    assert graph.below("d") == set()


def test_a_chain_longer_than_the_stack_is_placed_from_either_end():
    chain = [step("0"), *(step(str(i), deps={"x": str(i - 1)}) for i in range(1, 3000))]
    assert [placed.name for placed in Graph(reversed(chain))] == [placed.name for placed in chain]
    assert Graph(reversed(chain)).fingerprints == Graph(chain).fingerprints
    assert len(Graph(chain).below("0")) == 2999


def test_a_graph_on_another_is_the_graph_of_both_and_leaves_the_other_as_it_was():
    below, beyond = [rows(), step("a", deps={"r": Part("data", "train")})], [step("b", deps={"x": "a"})]
    first = Graph(below)
    assert first.below("data") == {"a"}
    both = Graph(beyond, on=first)
    assert both.fingerprints == told(*below, *beyond)
    assert [placed.name for placed in both] == ["data", "a", "b"]
    assert both.below("data") == {"a", "b"}
    assert "b" not in first
    assert first.below("data") == {"a"}
    with pytest.raises(ValueError, match="two steps are named 'a'"):
        Graph([step("a")], on=first)


def test_a_circle_is_refused_with_its_path():
    with pytest.raises(ValueError, match="circle: a -> b -> c -> a"):
        Graph([step("a", deps={"x": "b"}), step("b", deps={"x": "c"}), step("c", deps={"x": "a"})])
    with pytest.raises(ValueError, match="circle: a -> a"):
        Graph([step("a", deps={"x": "a"})])


def test_an_unknown_dependency_is_refused_with_both_names():
    with pytest.raises(ValueError, match="'a' stands on 'b', which is not in the graph"):
        Graph([step("a", deps={"x": "b"})])


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="part 'tset' of 'data'"):
        Graph([rows(), step("a", deps={"x": Part("data", "tset")})])


def test_two_steps_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two steps are named 'a'"):
        Graph([step("a"), step("a", settings={"v": 2})])


def test_settings_that_cannot_be_hashed_are_refused_with_the_name_of_the_step():
    with pytest.raises(TypeError, match=r"step 'a': settings\.x is a set"):
        step("a", settings={"x": {1}})


def test_steps_may_share_their_settings():
    given = {"targets": ("q", "v"), "rank": 1}
    shared = Canonical.of(given)
    one, two = step("one", settings=shared), step("two", settings=shared)
    assert one.settings == two.settings == {"targets": ["q", "v"], "rank": 1}
    assert told(one, two)["one"] == told(step("one", settings=given))["one"]


def test_settings_that_were_read_and_changed_change_no_step():
    shared = Canonical.of({"targets": ["q"]})
    one, two = step("one", settings=shared), step("two", settings=shared)
    before = told(one, two)
    one.settings["targets"].append("v")
    one.settings["rank"] = 3
    assert one.settings == two.settings == {"targets": ["q"]}
    assert told(one, two) == before


def test_a_step_that_is_copied_keeps_its_settings():
    assert replace(step("a", settings={"v": [1]}), name="b").settings == {"v": [1]}
    assert step("a", settings={"v": 1}) != step("a", settings={"v": 2})
    assert Step("a", "toy", "toys:fill").settings == {}


def test_settings_are_kept_in_their_canonical_form():
    mine = {"targets": ("q", "v")}
    made = step("a", settings=mine)
    mine["targets"] = ()
    assert made.settings == {"targets": ["q", "v"]}
