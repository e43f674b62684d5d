"""Scores and comparisons as CSV."""

from __future__ import annotations

import csv
import io

from judged import TIES, comparison, document, score_row

from sabir.report.sheets import COMPARISON_FIELDS, SCORE_FIELDS, comparisons_csv, scores_csv


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_score_is_a_line_with_every_field_unrounded():
    answers = {"rows": 500, "empty": 1, "cut": 2, "unread": 3}
    scored = [
        score_row("adapter/combined[rank=32,scale=0.5]", "de", 1 / 3, answers=answers),
        score_row(TIES, "macro", None, answers=None, seed=None, split="short", signature='a,"b"'),
    ]
    first, second = read(scores_csv(document(scores=scored)))
    assert tuple(first) == SCORE_FIELDS
    assert first["model"] == "adapter/combined[rank=32,scale=0.5]"
    assert float(first["value"]) == 1 / 3
    assert (first["empty"], first["cut"], first["unread"]) == ("1", "2", "3")
    assert (second["value"], second["seed"], second["cut"]) == ("", "", ""), "unknown is empty, never 0"
    assert (second["split"], second["signature"]) == ("short", 'a,"b"')


def test_every_field_of_a_score_that_programs_read_is_in_its_line():
    assert {key for key in score_row("base", "de", 0.5) if key != "answers"} <= set(SCORE_FIELDS)
    assert set(comparison("base")) == set(COMPARISON_FIELDS)


def test_a_comparison_is_a_line():
    rows = [
        comparison("base", "de", 0.125, 0.0625, "better"),
        comparison("base", why="Not, so.", detectable=None),
    ]
    first, second = read(comparisons_csv(document(comparisons=rows)))
    assert tuple(first) == COMPARISON_FIELDS
    assert (first["difference"], first["low"], first["verdict"]) == ("0.125", "0.0625", "better")
    assert (second["why"], second["detectable"]) == ("Not, so.", "")


def test_without_rows_there_is_a_header():
    assert read(scores_csv(document())) == []
    assert scores_csv(document()).startswith("task,model,language,")
