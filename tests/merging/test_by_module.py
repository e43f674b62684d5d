"""Values that differ from module to module."""

from __future__ import annotations

import pytest

from sabir.errors import InputError
from sabir.merging import by_module

Q = "model.layers.{}.self_attn.q_proj"


def along(value, layers):
    return [by_module.at(value, Q.format(layer), layers) for layer in range(layers)]


@pytest.mark.parametrize(
    ("points", "layers", "expected"),
    [
        ([0.2, 1.0], 5, [0.2, 0.4, 0.6, 0.8, 1.0]),
        ([0.2, 0.5, 1.0], 5, [0.2, 0.35, 0.5, 0.75, 1.0]),
        ([1.0, 0.0], 3, [1.0, 0.5, 0.0]),
        ([0.0, 1.0, 0.0, 1.0], 4, [0.0, 1.0, 0.0, 1.0]),
        ([0.0, 1.0, 0.0], 2, [0.0, 0.0]),
        ([0.3, 0.9], 1, [0.3]),  # one layer is the first
        ([0.1, 0.2, 0.3], 1, [0.1]),
        ([0.7, 0.7], 3, [0.7, 0.7, 0.7]),
    ],
)
def test_a_gradient_runs_in_straight_lines_from_the_first_layer_to_the_last(points, layers, expected):
    assert along({"depth": points}, layers) == pytest.approx(expected)


@pytest.mark.parametrize("points", [[0.1, 0.7], [0.3, 0.1, 0.9], [0.9, 0.3]])
@pytest.mark.parametrize("layers", [2, 3, 7, 32, 80])
def test_a_gradient_ends_in_its_own_points_to_the_last_bit(points, layers):
    values = along({"depth": points}, layers)
    assert (values[0], values[-1]) == (points[0], points[-1])
    assert all(min(points) <= value <= max(points) for value in values)


def test_a_number_holds_everywhere():
    assert by_module.at(0.5, "lm_head", 3) == 0.5
    assert by_module.at(0, Q.format(1), 3) == 0


def test_the_first_pattern_that_matches_wins():
    module = Q.format(0)
    assert by_module.at({"q_proj": 0.1, "*": 0.2}, module, 2) == 0.1
    assert by_module.at({"*": 0.2, "q_proj": 0.1}, module, 2) == 0.2
    assert by_module.at({"*.mlp.*": 0.1, "*.layers.0.*": 0.3, "*": 0.2}, module, 2) == 0.3


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        ("layers.1.*", True),
        ("model.layers.1.self_attn.q_proj", True),
        ("*", True),
        ("*q_proj", True),
        ("[qk]_proj", True),
        ("?_proj", True),
        ("proj", False),  # from a dot on
        ("_attn.q_proj", False),
        ("layers.1", False),
        ("Q_proj", False),
        ("layers.11.*", False),
        ("model", False),
    ],
)
def test_a_pattern_is_of_the_name_or_the_end_of_it(pattern, matches):
    assert by_module.matches(pattern, Q.format(1)) is matches


def test_a_pattern_may_hold_a_gradient():
    value = {"lm_head": 0.9, "*.mlp.*": {"depth": [0.0, 1.0]}, "*": 0.5}
    assert by_module.at(value, "lm_head", 3) == 0.9
    assert [by_module.at(value, f"layers.{i}.mlp.up_proj", 3) for i in range(3)] == [0.0, 0.5, 1.0]
    assert by_module.at(value, Q.format(2), 3) == 0.5


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (Q.format(12), 12),
        ("transformer.h.3.attn.c_attn", 3),
        ("model.layers.2.experts.7.w1", 2),
        ("7", 7),
        ("3.q_proj", 3),
        ("encoder.4", 4),
        ("lm_head", None),
        ("embed_tokens2.proj", None),
        ("layer1.proj", None),
    ],
)
def test_a_module_lies_in_the_layer_its_name_says_first(module, layer):
    assert by_module.layer_of(module) == layer


def test_layers_are_counted_from_zero_to_the_largest():
    assert by_module.layer_count([Q.format(0), Q.format(5), "lm_head"]) == 6
    assert by_module.layer_count(["lm_head"]) == 0
    assert by_module.layer_count([]) == 0


@pytest.mark.parametrize(
    ("value", "module", "sentence"),
    [
        ({"k_proj": 0.5}, Q.format(0), "no pattern matches module 'model.layers.0.self_attn.q_proj'."),
        ({"depth": [0.1, 0.2]}, "lm_head", "module 'lm_head' lies in no layer"),
        ({"*": {"depth": [0.1, 0.2]}}, "lm_head", "module 'lm_head' lies in no layer"),
    ],
)
def test_a_value_that_says_nothing_of_a_module_is_an_error(value, module, sentence):
    with pytest.raises(InputError) as caught:
        by_module.at(value, module, 2, "merges.a.density")
    assert str(caught.value).startswith(f"merges.a.density: {sentence}")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"depth": [0.5]}, "d.depth: expected two points or more, got [0.5]."),
        ({"depth": []}, "d.depth: expected two points or more, got []."),
        ({"depth": 0.5}, "d.depth: expected two points or more, got 0.5."),
        ({"depth": "ab"}, "d.depth: expected two points or more, got 'ab'."),
        ({"*": {"depth": [1]}}, "d.*.depth: expected two points or more, got [1]."),
        ({"*": {"q_proj": 0.5}}, "d.*: {'q_proj': 0.5} is no value of a pattern."),
        ({"*": {}}, "d.*: {} is no value of a pattern."),
        ({"depth": [0.1, 0.2], "*": 0.5}, "d.depth: [0.1, 0.2] is no value of a pattern."),
    ],
)
def test_a_value_of_the_wrong_form_is_an_error(value, sentence):
    with pytest.raises(InputError) as caught:
        list(by_module.leaves(value, "d"))
    assert str(caught.value).startswith(sentence)


def test_every_single_value_is_told_with_its_place():
    value = {"q_proj": 0.1, "*": {"depth": [0.2, 0.3]}}
    assert list(by_module.leaves(value, "d")) == [("d.q_proj", 0.1), ("d.*.depth", 0.2), ("d.*.depth", 0.3)]
    assert list(by_module.leaves(0.5, "d")) == [("d", 0.5)]


def test_conversion_reaches_every_single_value():
    value = {"q_proj": 1, "*": {"depth": [0, 2]}}
    converted = by_module.converted(value, float)
    assert converted == {"q_proj": 1.0, "*": {"depth": [0.0, 2.0]}}
    assert all(isinstance(one, float) for _, one in by_module.leaves(converted))
    assert by_module.converted({"depth": (1, 2)}, float) == {"depth": [1.0, 2.0]}
