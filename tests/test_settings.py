"""Values against type hints: pydantic, in its strict JSON mode, is the oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sabir.errors import InputError
from sabir.settings import Filled, Range, Reader, conform, expected, parse_overrides, shown

HINTS = [
    int,
    float,
    str,
    bool,
    Path,
    None,
    int | None,
    int | str,
    str | int | float | bool,
    float | int,
    Literal["a", "b"],
    Literal["all"] | int | None,
    list[int],
    tuple[float, ...],
    tuple[int, str],
    Sequence[str],
    dict[str, float],
    Mapping[str, int | None],
    tuple[tuple[int, ...], ...],
    Any,
]

plain = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-3, 3)
    | st.sampled_from(["a", "b", "all", "1"])
)
written = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@hypothesis_settings(max_examples=600, deadline=None)
@given(st.sampled_from(HINTS), written)
def test_a_value_fits_a_hint_just_when_pydantic_says_so(hint, value):
    pydantic = pytest.importorskip("pydantic")
    try:
        oracle = pydantic.TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError:
        with pytest.raises(ValueError, match=r"Expected|is not"):
            conform(value, hint)
    else:
        ours = conform(value, hint)
        if hint == Sequence[str]:  # a tuple with us, a list with pydantic
            oracle = tuple(oracle)
        assert ours == oracle
        assert type(ours) is type(oracle)


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        (Range(ge=1), [1, 2], [0, 0.5]),
        (Range(gt=0), [0.1], [0, -1]),
        (Range(ge=0, le=1), [0, 0.5, 1], [-0.1, 1.1]),
        (Range(ge=0, lt=1), [0], [1]),
        (Range(), [-1e300, 0, 1e300], []),
    ],
)
def test_a_range_has_its_limits_and_never_nan_or_infinity(limits, inside, outside):
    assert all(number in limits for number in inside)
    assert not any(number in limits for number in [*outside, math.nan, math.inf, -math.inf])


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Annotated[int, Range(ge=1)] | None, "a whole number of at least 1"),
        (Annotated[float, Range(ge=0, le=1)], "a number from 0 to 1"),
        (Annotated[float, Range(gt=0, lt=1)], "a number above 0 and below 1"),
        (Literal["a", "b", "c"], "'a', 'b' or 'c'"),
        (tuple[str, ...], "a list of texts"),
        (Annotated[list[int], Filled()], "a non-empty list of whole numbers"),
        (list[Literal["a", "b"]], "a list, each 'a' or 'b'"),
        (Mapping[str, float], "a mapping"),
        (bool, "true or false"),
    ],
)
def test_a_hint_is_told_in_words(hint, words):
    assert expected(hint) == words


def test_values_are_shown_as_users_write_them():
    assert [shown(value) for value in (None, True, False, "x", 1.0)] == [
        "nothing",
        "true",
        "false",
        "'x'",
        "1.0",
    ]


def test_a_hint_that_no_setting_can_have_is_a_bug_and_not_the_users():
    with pytest.raises(TypeError, match="no setting can have the type"):
        conform(1, complex)


def test_a_place_is_the_nearest_line_or_the_option_that_set_it():
    reader = Reader("c.yaml", {(): 1, ("lora",): 4, ("lora", "rank"): 5})
    reader.override({"gate": {}}, ("gate", "max_drop"), 3)
    assert reader.where(("lora", "rank")) == "c.yaml, line 5: lora.rank"
    assert reader.where(("lora", "alpha")) == "c.yaml, line 4: lora.alpha"
    assert reader.where(("task",)) == "c.yaml: task"
    assert reader.where(("gate", "max_drop")) == "--set gate.max_drop"


def test_errors_of_lower_layers_get_the_place_of_the_key_they_name_and_are_kept_once():
    reader = Reader("c.yaml", {("merges", "t"): 2, ("merges", "t", "density"): 3})

    def check(*, where: str) -> None:
        raise InputError(f"{where}.density", "too much.")

    assert reader.attempt(check, ("merges", "t")) is None
    assert reader.attempt(check, ("merges", "t")) is None
    assert [str(error) for error in reader.errors] == ["c.yaml, line 3: merges.t.density: too much."]


def test_overrides_are_keys_with_dots_and_values_in_yaml():
    assert parse_overrides(["lora.epochs=5", "a=b=c", "x.y=[1, no]"]) == [
        (("lora", "epochs"), 5),
        (("a",), "b=c"),
        (("x", "y"), [1, "no"]),
    ]
    assert parse_overrides({"lora.learning_rate": "1e-4"}) == [(("lora", "learning_rate"), 1e-4)]
