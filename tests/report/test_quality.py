"""Tables of quality, and of what a new release changed."""

from __future__ import annotations

import pytest
from bookkeeping import SEARCH, TRIALS
from judged import OWN, TIES, comparison, document, score_row, standing
from judged import scores as rows_of

from sabir.report.quality import changed, compared, matrix, quality
from sabir.report.tables import markdown

COMBINED = "adapter/combined"
SCORES = rows_of(
    {
        TIES: {"de": 0.5, "fr": 0.5},
        COMBINED: {"de": 0.625, "fr": 0.5},
        OWN: {"de": 0.75, "fr": 0.25},
        "base": {"de": 0.125, "fr": 0.25},
    }
)


def quality_document(**changes):
    return document(**{"scores": SCORES, **changes})


def column(table, head):
    return {row[0]: row[table.columns.index(head)] for row in table.rows}


# --- models and languages ----------------------------------------------------------------------------------


def test_models_are_rows_and_languages_columns_with_mean_and_worst_language():
    table = quality(quality_document())
    assert table.title == "Quality: accuracy, 500 test rows a language"
    assert table.columns == ("model", "de", "fr", "mean [95 % interval]", "worst")
    assert table.rows == (
        ("bare base model", "0.125", "0.250", "0.188 [0.125, 0.250]", "de 0.125"),
        ("each language's own adapter", "0.750*", "0.250", "0.500", "fr 0.250"),
        ("combined: one adapter on all data", "0.625", "0.500*", "0.562* [0.500, 0.625]", "fr 0.500"),
        (f"{TIES}  <- selected", "0.500", "0.500*", "0.500 [0.438, 0.562]", "de 0.500"),
    )
    assert table.strong == {(1, 1), (2, 2), (3, 2), (2, 3)}
    assert table.notes == ("* the largest of its column; whether others are worse was not tested.",)


def test_the_difference_to_the_combined_adapter_stands_beside_the_mean():
    rows = [
        comparison(COMBINED, "macro", -0.0625, 0.03125, "worse"),
        comparison(COMBINED, "de", -0.125, 0.03125, "worse"),
        comparison(COMBINED, "macro", 0.125, 0.03125, "better", a=OWN),
    ]
    table = quality(quality_document(comparisons=rows))
    assert column(table, "against combined") == {
        "bare base model": "",
        "each language's own adapter": "+0.125 [+0.094, +0.156]",
        "combined: one adapter on all data": "",
        f"{TIES}  <- selected": "-0.062 [-0.094, -0.031]",
    }
    assert column(table, "verdict")[f"{TIES}  <- selected"] == "worse"


def test_what_is_tied_with_the_best_is_marked_and_what_is_only_near_it_is_not():
    standings = [
        standing("adapter/de", COMBINED, language="de"),
        standing(COMBINED, TIES, language="macro"),
    ]
    table = quality(quality_document(standings=standings))
    assert list(column(table, "de").values()) == ["0.125", "0.750*", "0.625=", "0.500"]
    assert [cell.split()[0] for cell in column(table, "mean [95 % interval]").values()] == [
        *("0.188", "0.500", "0.562*", "0.500=")
    ]
    assert table.notes == (
        "* the best of its column, = not significantly worse than it (corrected over models).",
    )


def test_standings_by_another_metric_mark_nothing():
    other = {**standing("base", language="de"), "metric": "macro_f1"}
    assert column(quality(quality_document(standings=[other])), "de")["bare base model"] == "0.125"


def test_the_combined_adapter_continued_is_a_row_of_its_own_and_no_languages_own_adapter():
    scored = rows_of({"base": {"de": 0.25}, "adapter/continued": {"de": 0.875}})
    table = quality(quality_document(scores=scored, languages=["de"]))
    assert [row[0] for row in table.rows] == ["bare base model", "combined, continued on new rows"]


def test_with_one_language_there_is_no_worst_one():
    scored = rows_of({"base": {"de": 0.25}, OWN: {"de": 0.5}})
    assert quality(quality_document(scores=scored)).columns == ("model", "de", "mean [95 % interval]")


def test_a_model_without_some_language_has_an_empty_cell_and_no_mean():
    scored = [row for row in SCORES if (row["model"], row["language"]) != ("adapter/fr", "fr")]
    table = quality(quality_document(scores=scored))
    assert table.rows[1] == ("each language's own adapter", "0.750*", "", "", "de 0.750")


def test_a_score_that_is_not_known_is_empty():
    scored = rows_of({"base": {"de": 0.25, "fr": 0.25}})
    scored[0] |= {"value": None, "low": None, "high": None}
    (row,) = quality(quality_document(scores=scored)).rows
    assert row[1:3] == ("", "0.250*")


def test_only_test_rows_and_the_metric_asked_for_count():
    others = [score_row("base", "de", 1.0, split="short"), score_row("base", "de", 0.875, metric="macro_f1")]
    table = quality(quality_document(scores=[*SCORES, *others]))
    assert column(table, "de")["bare base model"] == "0.125"
    assert quality(quality_document(scores=others), "macro_f1").rows[0][1] == "0.875*"
    assert quality(quality_document(scores=others)) is None


def test_without_scores_there_is_no_quality_table():
    assert quality(quality_document(scores=[])) is None


def test_of_many_languages_the_summary_stands_first():
    scored = rows_of({"base": {f"l{number:02}": 0.5 for number in range(13)}})
    table = quality(quality_document(scores=scored, languages=sorted({row["language"] for row in scored})))
    assert table.columns[:4] == ("model", "mean [95 % interval]", "worst", "l00")
    assert (0, 1) in table.strong


# --- trainings with several seeds --------------------------------------------------------------------------


def test_single_trainings_are_not_in_the_table_where_their_mean_is():
    single = [score_row(f"{TIES}#{number}", "de", 0.5) for number in (1, 2, 3)]
    table = quality(quality_document(scores=[*SCORES, *single], seeds=3))
    assert len(table.rows) == 4
    assert table.notes[-1] == "Each number is the mean of 3 trainings; the intervals hold trainings and rows."


# --- what was left out -------------------------------------------------------------------------------------


def test_unscored_rows_are_told_where_there_are_any():
    scored = rows_of({"base": {"de": 0.25}, TIES: {"de": 0.5}})
    scored[0] |= {"n": 450, "unscored": 50}
    table = quality(quality_document(scores=scored))
    assert table.title.endswith("450 to 500 test rows a language")
    assert table.notes[-1] == "Unscored: bare base model 10.0 % of de."


def test_answers_that_are_empty_cut_or_no_option_are_told_with_their_languages():
    scored = rows_of({"base": dict.fromkeys(("de", "fr", "ja", "zh"), 0.25), TIES: {"de": 0.5}})
    for row, cut in zip(scored, (5, 50, 0, 25), strict=False):
        row["answers"] = {"rows": 500, "empty": 0, "cut": cut, "unread": 0}
    scored[5]["answers"] = {"rows": 500, "empty": 500, "cut": 1, "unread": 100}
    notes = quality(quality_document(scores=scored, languages=["de", "fr", "ja", "zh"])).notes
    assert notes[-3:] == (
        f"Empty answers: {TIES} 100.0 % of de.",
        f"Answers cut at the length limit: bare base model 10.0 % of fr, 5.0 % of zh, 1.0 % of de; {TIES} 0.2 % of de.",
        f"Answers that are none of the options: {TIES} 20.0 % of de.",
    )


def test_rows_that_share_a_source_are_said_to_count_as_one():
    scored = rows_of({"base": {"de": 0.25}, TIES: {"de": 0.5}}, groups=100)
    notes = quality(quality_document(scores=scored)).notes
    assert notes[-1] == "Rows that share a source count as one there: de 500 of 100 sources."


# --- what follows ------------------------------------------------------------------------------------------


def test_the_conclusion_is_the_first_note_and_the_other_rivals_follow():
    rows = [
        comparison("base", "macro", 0.25, 0.125, "better"),
        comparison(COMBINED, "macro", -0.25, 0.125, "worse"),
    ]
    first, second, *_ = quality(quality_document(comparisons=rows)).notes
    assert first.startswith(f"{TIES} loses to the combined adapter by 0.250 [0.125, 0.375] on average")
    assert (
        second == f"{TIES} against the bare base model: +0.250 on average [+0.125, +0.375], so it is better."
    )


def test_a_searchs_choice_is_a_sentence_below_the_quality():
    found = quality_document(searches={"merged/tuned": SEARCH}, notes=["And a note."])
    assert quality(found).notes[-2:] == (
        "merged/tuned: of 2 merges tried on validation rows the best (accuracy 0.812) has scale 0.31; "
        "density 0.2; weights de 1.5, en 0.25.",
        "And a note.",
    )
    alike = {**SEARCH, "chosen": TRIALS[0]}
    sentence = quality({**found, "searches": {"merged/tuned": alike}}).notes[-2]
    assert sentence.endswith("(accuracy 0.750) has scale 0.5; density 1.")


# --- every comparison, every score -------------------------------------------------------------------------


def test_a_comparison_is_a_row_with_what_the_rows_would_show():
    rows = [
        comparison(COMBINED, "de", -0.0625, 0.125, p=None),
        comparison(COMBINED, "fr", detectable=None, why="It is at chance."),
        comparison(COMBINED, "macro", why="It is at chance."),
    ]
    table = compared(quality_document(comparisons=rows))
    assert table.rows[0] == (TIES, COMBINED, "de", "-0.062 [-0.188, +0.062]", "?", "undecided", "0.090")
    assert table.rows[1][-1] == "?"
    assert table.notes[0] == "Not worse: not worse by more than 0.02 (gate.max_drop)."
    assert table.notes[-1] == f"fr, macro: {TIES} against {COMBINED}: It is at chance."
    assert len(table.notes) == 4


def test_every_score_is_a_row_and_columns_that_say_nothing_are_left_out():
    table = matrix(quality_document())
    assert table.columns == ("model", "language", "metric", "score", "n", "unscored")
    assert len(table.rows) == len(SCORES)
    assert table.rows[0] == (TIES, "de", "accuracy", "0.500 [0.438, 0.562]", "500", "0")


@pytest.mark.parametrize(
    ("changes", "head", "cells"),
    [
        ({"groups": 100}, "sources", ("500", "100")),
        ({"undefined": 7}, "undefined", ("0", "7")),
        ({"seed": None}, "seed", ("0", "mean")),
        ({"seed": 1}, "seed", ("0", "1")),
    ],
)
def test_what_differs_from_row_to_row_has_a_column(changes, head, cells):
    scored = [score_row("base", "de", 0.25), score_row("base", "fr", 0.25, **changes)]
    table = matrix(quality_document(scores=scored))
    assert table.columns == ("model", "language", "metric", "score", "n", "unscored", head)
    assert tuple(row[-1] for row in table.rows) == cells


def test_signatures_are_shown_when_asked_for_and_other_splits_by_name():
    scored = [score_row("base", "de", 0.25), score_row("base", "de", 0.125, split="short")]
    (row,) = matrix(quality_document(scores=scored), "short", signatures=True).rows
    assert row == ("base", "de", "accuracy", "0.125 [0.062, 0.188]", "500", "0", "accuracy|v:1")


# --- Markdown ----------------------------------------------------------------------------------------------


def test_markdown_keeps_cells_apart_and_sets_off_the_best():
    text = markdown([quality(quality_document()), None])
    assert f"| {TIES}  \\<- selected | 0.500 | **0.500\\*** |" in text
    assert "\n\\* the largest of its column" in text
    assert all(line.count(" | ") == 4 for line in text.splitlines() if line.startswith("| "))


# --- what a new release changed ----------------------------------------------------------------------------


def change(language, old, new, low, high, p, **more):
    return {
        "a": "merged/ties",
        "b": "release/2",
        "language": language,
        "metric": "macro_f1",
        "old": old,
        "new": new,
        "difference": None if old is None else new - old,
        "low": low,
        "high": high,
        "p": p,
        "margin": 0.01,
        "verdict": "undecided",
        "n": 500,
        "changed": 0.125,
        "detectable": 0.0312,
        "served": True,
        **more,
    }


CHANGES = [
    change("de", 0.412, 0.371, -0.07, -0.012, 0.012),
    change("fr", 0.5, 0.56, 0.02, 0.1, 0.0001),
    change("ja", 0.6, 0.59, -0.03, 0.01, 0.051),
    change("pt", 0.1, 0.7, 0.5, 0.7, 0.0001, served=False),
    change("macro", 0.504, 0.507, -0.01, 0.02, 0.6),
]


def test_a_language_has_moved_where_its_corrected_p_says_so_and_only_there():
    table = changed({"changes": CHANGES, "level": 0.95})
    assert [(row[0], row[5]) for row in table.rows] == [
        *(("de", "down"), ("fr", "up"), ("ja", ""), ("pt (new)", "up"), ("mean", "")),
    ]
    assert table.rows[0] == (
        *("de", "0.412", "0.371", "-0.041 [-0.070, -0.012]", "0.012", "down", "12.5 %", "0.031"),
    )
    assert table.notes[:3] == (
        "Significantly fell: de from 0.412 to 0.371.",
        "Significantly rose: fr from 0.500 to 0.560, pt from 0.100 to 0.700.",
        "No significant change in ja.",
    )
    assert table.title == "merged/ties against release/2: macro f1 on test rows, paired by row"


def test_what_is_significant_depends_on_the_level():
    table = changed({"changes": CHANGES[:1], "level": 0.99})
    assert table.rows[0][5] == ""
    assert table.notes[0] == "No significant change in any language."


def test_what_cannot_be_known_of_a_change_is_left_open():
    unknown = change("de", None, None, None, None, None, changed=None, detectable=None)
    (row,) = changed({"changes": [unknown], "level": 0.95}).rows
    assert row == ("de", "", "", "? [?, ?]", "?", "", "?", "?")


def test_without_an_earlier_release_nothing_has_changed():
    assert changed({"changes": []}) is None


def test_what_the_gate_said_stands_below_the_changes():
    reasons = ["de fell from 0.412 to 0.371 (limit 0.010)."]
    assert changed({"changes": CHANGES, "level": 0.95, "reasons": reasons}).notes[-1] == reasons[0]


def test_models_that_answer_every_row_alike_are_said_to():
    alike = [{**row, "changed": 0.0} for row in CHANGES]
    sentence = "Both give the same answer to every row."
    assert sentence in changed({"changes": alike, "level": 0.95}).notes
    assert sentence not in changed({"changes": [*alike[:-1], CHANGES[0]], "level": 0.95}).notes
    unknown = [{**row, "changed": None} for row in CHANGES]
    assert sentence not in changed({"changes": unknown, "level": 0.95}).notes
