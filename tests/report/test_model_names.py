"""What models are called, and the order they stand in."""

from __future__ import annotations

import pytest

from sabir.names import OWN
from sabir.report.models import in_one_row, in_prose, in_table, settings_of, training_of


@pytest.mark.parametrize(
    ("model", "plain", "number"),
    [
        ("adapter/de#2", "adapter/de", 2),
        ("merged/ties[density=0.2,scale=1.0]#12", "merged/ties[density=0.2,scale=1.0]", 12),
        ("merged/ties", "merged/ties", None),
        ("merged/c#-like", "merged/c#-like", None),
    ],
)
def test_a_training_of_several_is_told_by_the_number_at_the_end(model, plain, number):
    assert training_of(model) == (plain, number)


def test_models_stand_from_untrained_to_merged_with_the_own_adapters_as_one():
    models = [
        *("merged/ties", "adapter/combined[rank=80]", "release/2", "adapter/fr", "translate-test", "base"),
        *("adapter/continued", "merged/average", "routed", "adapter/combined", "base[shots=4]", "adapter/de"),
    ]
    assert in_one_row(models) == [
        *("base", "base[shots=4]", OWN, "routed", "translate-test", "adapter/combined", "adapter/continued"),
        *("adapter/combined[rank=80]", "merged/ties", "merged/average", "release/2"),
    ]


def test_what_stands_in_brackets_is_told_in_words():
    assert settings_of("adapter/combined[rank=80,scale=0.75]") == {"rank": "80", "scale": "0.75"}
    assert in_table("adapter/combined[rank=80,scale=0.75]") == "combined, rank 80, scale 0.75"
    assert in_prose("adapter/combined[rank=80]") == "the combined adapter of rank 80"
    assert in_table("base[shots=4]") == "base model with 4 examples"
    assert in_prose("base[shots=4]") == "the base model with 4 examples in its prompt"
    assert in_table("base[shots=1]") == "base model with 1 example"
    assert in_prose("base[shots=1]") == "the base model with 1 example in its prompt"


def test_a_language_called_like_a_part_of_a_word_is_no_baseline():
    assert in_one_row(["adapter/co", "adapter/combined"]) == [OWN, "adapter/combined"]


def test_a_merge_is_called_by_its_name():
    assert (
        in_table("merged/ties[density=0.2]")
        == in_prose("merged/ties[density=0.2]")
        == "merged/ties[density=0.2]"
    )
