"""Where the store still holds a forgotten row: in rows, in answers, in what an adapter was trained on."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from sabir.tasks import Prompt
from sabir.work.copies import holding, splits_holding
from sabir.work.outputs import write_answers
from sabir.work.prepare import Example
from sabir.work.rows import write_rows
from sabir.work.sources import Forgotten, hash_of

ROWS = [Example(f"id-{text}", Prompt("Good?\n\n", text, "\n\nAnswer:"), "yes") for text in ("a", "b", "c")]
BY_ID = Forgotten(hash_of("id-b"), None)
BY_TEXT = Forgotten(None, hash_of("b"))
OTHER = Forgotten(hash_of("id-x"), hash_of("x"))


@pytest.fixture
def data(tmp_path):
    """A data step's folder: `b` stands in valid alone."""
    for split, some in (("train", ROWS[:1]), ("valid", ROWS[1:2]), ("test", ROWS[2:])):
        lines = [json.dumps(asdict(row)) + "\n" for row in some]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("one", [BY_ID, BY_TEXT, Forgotten(BY_ID.id, BY_TEXT.text)])
def test_rows_are_found_by_id_or_text_in_any_split(data, one):
    assert holding(data, "data", [OTHER, one])
    assert splits_holding(data, [OTHER, one]) == ["valid"]
    assert not holding(data, "data", [OTHER])
    (data / "train.jsonl").unlink()  # a language with its own adapter has none
    assert splits_holding(data, [one]) == ["valid"]


def test_an_adapter_is_found_by_the_texts_it_was_trained_on(tmp_path):
    write_rows(tmp_path, ROWS, {})
    assert holding(tmp_path, "adapter", [OTHER, BY_TEXT])
    assert not holding(tmp_path, "adapter", [OTHER, BY_ID])
    write_rows(tmp_path, [ROWS[0], ROWS[2]], {})
    assert not holding(tmp_path, "adapter", [BY_TEXT])


def test_an_adapter_that_goes_on_from_one_that_saw_the_row_has_seen_it(tmp_path):
    from sabir.work.rows import read_rows

    write_rows(tmp_path, ROWS[1:2], {})
    write_rows(tmp_path, ROWS[:1], read_rows(tmp_path))
    assert holding(tmp_path, "adapter", [BY_TEXT])


def test_an_adapter_that_does_not_say_what_it_was_trained_on_counts_as_one_that_was(tmp_path):
    assert holding(tmp_path, "adapter", [BY_TEXT])


def test_answers_are_found_by_id(tmp_path):
    write_answers(tmp_path, [{"id": row.id, "prediction": "yes"} for row in ROWS])
    assert holding(tmp_path, "outputs", [OTHER, BY_ID])
    assert not holding(tmp_path, "outputs", [OTHER])


@pytest.mark.parametrize("kind", ["merged", "scores", "select"])
def test_other_steps_hold_no_rows_of_their_own(tmp_path, kind):
    assert not holding(tmp_path, kind, [BY_ID, BY_TEXT])
