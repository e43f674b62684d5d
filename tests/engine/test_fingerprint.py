"""Identity: what enters a fingerprint, exactly, and what cannot."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.engine.fingerprint import Canonical, canonical, differences, digest, fingerprint

GOLDEN = Path(__file__).parent / "golden_fingerprints.json"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, {1, 2}, frozenset(), object(), b"bytes", Path("x"), 1j, len]
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value):
    with pytest.raises(TypeError, match=r"settings\.lora\[1\].*no canonical form"):
        canonical({"lora": [0, value]})


@pytest.mark.parametrize("key", [1, None, 1.5, True, ("a",)])
def test_keys_that_are_not_strings_are_refused(key):
    with pytest.raises(TypeError, match="keys must be strings"):
        digest({"a": {key: 1}})


@settings(max_examples=50, deadline=None)
@given(json_values)
def test_canonical_form_is_stable_and_survives_json(value):
    once = canonical(value)
    assert canonical(once) == once
    assert digest(json.loads(json.dumps(once))) == digest(value)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=5), st.randoms())
def test_order_of_keys_does_not_matter(mapping, random):
    keys = list(mapping)
    random.shuffle(keys)
    assert digest({key: mapping[key] for key in keys}) == digest(mapping)


def test_order_of_a_list_matters():
    assert digest([1, 2]) != digest([2, 1])


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_enter_exactly(a, b):
    assert (digest(a) == digest(b)) == (a == b)


def test_neighbouring_floats_differ_and_zero_has_no_sign():
    assert digest(0.1) != digest(math.nextafter(0.1, 1))
    assert digest(0.0) == digest(-0.0)


def test_true_one_and_one_point_zero_are_different_settings():
    assert len({digest(True), digest(1), digest(1.0), digest("1"), digest([1])}) == 5
    assert len({digest(False), digest(0), digest(0.0), digest(None), digest("")}) == 5


def test_tuples_are_lists_and_any_mapping_is_a_dict():
    assert digest((1, (2, 3))) == digest([1, [2, 3]])
    assert digest(MappingProxyType({"a": 1})) == digest({"a": 1})


def test_scripts_and_lone_surrogates_have_a_digest():
    assert len({digest("日本語"), digest("\ud800"), digest("é"), digest("e\u0301")}) == 4


def test_kind_version_settings_and_roles_all_count():
    told = [
        fingerprint("a", 1, {"x": 1}, {"r": "f"}),
        fingerprint("b", 1, {"x": 1}, {"r": "f"}),
        fingerprint("a", 2, {"x": 1}, {"r": "f"}),
        fingerprint("a", 1, {"x": 2}, {"r": "f"}),
        fingerprint("a", 1, {"x": 1}, {"r": "g"}),
        fingerprint("a", 1, {"x": 1}, {"s": "f"}),
        fingerprint("a", 1, {"x": 1}, {}),
    ]
    assert len(set(told)) == len(told)


@settings(max_examples=50, deadline=None)
@given(
    st.text(),
    st.integers(),
    st.dictionaries(st.text(), json_values, max_size=3),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_a_fingerprint_is_the_digest_of_the_four_together(kind, version, given, deps):
    whole = digest({"kind": kind, "version": version, "settings": given, "deps": deps})
    assert fingerprint(kind, version, given, deps) == whole
    assert fingerprint(kind, version, Canonical.of(given), deps) == whole


@settings(max_examples=50, deadline=None)
@given(json_values)
def test_what_was_written_canonically_reads_as_the_canonical_form(value):
    assert Canonical.of(value).value() == canonical(value)


def test_fingerprints_are_those_of_the_golden_file():
    """A shift here redoes everybody's work: raise a version instead, or say so in the changelog."""
    for case in json.loads(GOLDEN.read_text()):
        told = fingerprint(case["kind"], case["version"], case["settings"], case["deps"])
        assert told == case["fingerprint"], case


def test_fingerprints_do_not_depend_on_the_process():
    code = "from sabir.engine.fingerprint import digest; print(digest({'b': 1, 'a': [0.1, None, 'é']}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {digest({"b": 1, "a": [0.1, None, "é"]})}


def test_differences_name_the_leaves():
    old = {"lora": {"rank": 16, "epochs": 3}, "same": [1]}
    new = {"lora": {"rank": 32, "epochs": 3}, "same": [1], "seed": 0}
    assert list(differences(old, new)) == [("lora.rank", 16, 32), ("seed", None, 0)]


def test_differences_see_what_fingerprints_see_and_no_more():
    assert list(differences({"a": [1]}, {"a": [True]})) == [("a", [1], [True])]
    assert list(differences({"a": [1, 2]}, {"a": (1, 2)})) == []
