"""Tables of quality, and of what a new release changed."""

from __future__ import annotations

from bookkeeping import SEARCH, TRIALS

from sabir.report.quality import changed, compared, quality
from sabir.report.tables import markdown


def scores(**models):
    """Rows of `scores`: model -> (en, de)."""
    return [
        {
            "model": model.replace("__", "/"),
            "language": language,
            "split": "test",
            "metric": "accuracy",
            "value": value,
            "low": value,
            "high": value,
            "level": 0.9,
            "n": 4,
            "unscored": 0,
        }
        for model, values in models.items()
        for language, value in (*zip(("en", "de"), values, strict=True), ("macro", sum(values) / 2))
    ]


def quality_document(**changes):
    return {
        "scores": scores(
            base=(0.1, 0.2), adapter__en=(0.5, 0.1), adapter__de=(0.1, 0.75), merged__ties=(0.5, 0.5)
        ),
        "metric": "accuracy",
        "languages": ["de", "en"],
        "selected": "merged/ties",
        "comparisons": [],
        "notes": [],
        **changes,
    }


def test_each_languages_own_adapter_is_one_row_scored_on_its_language():
    table = quality(quality_document())
    assert table.columns == ("model", "de", "en", "mean [90 % interval]")
    assert table.rows[1] == ("each language's own adapter", "0.750", "0.500", "0.625")
    assert table.rows[2][0] == "merged/ties  <- selected"
    assert table.strong == {(1, 1), (1, 2), (2, 2)}


def test_the_combined_adapter_continued_is_a_row_of_its_own_and_no_languages_own_adapter():
    document = quality_document(
        scores=scores(
            base=(0.1, 0.2),
            adapter__en=(0.5, 0.1),
            adapter__de=(0.1, 0.75),
            adapter__continued=(0.625, 0.875),
        )
    )
    assert quality(document).rows[1:] == (
        ("each language's own adapter", "0.750", "0.500", "0.625"),
        ("combined, continued on new rows", "0.875", "0.625", "0.750 [0.750, 0.750]"),
    )
    alone = quality(quality_document(scores=scores(base=(0.1, 0.2), adapter__continued=(0.6, 0.9))))
    assert [row[0] for row in alone.rows] == ["bare base model", "combined, continued on new rows"]


def test_a_searchs_choice_is_a_sentence_below_the_quality():
    document = quality_document(searches={"merged/tuned": SEARCH}, notes=["And a note."])
    assert quality(document).notes == (
        "merged/tuned: of 2 merges tried on validation rows the best (accuracy 0.812) has scale 0.31; "
        "density 0.2; weights de 1.5, en 0.25.",
        "And a note.",
    )
    alike = {**SEARCH, "chosen": TRIALS[0]}
    (sentence, _) = quality({**document, "searches": {"merged/tuned": alike}}).notes
    assert sentence.endswith("(accuracy 0.750) has scale 0.5; density 1.")


def test_without_scores_there_is_no_quality_table():
    assert quality(quality_document(scores=[])) is None


def test_verdicts_say_no_more_than_was_found():
    row = {
        "a": "merged/ties",
        "b": "adapter/combined",
        "language": "macro",
        "difference": -0.01,
        "low": -0.015,
        "high": 0.005,
        "p": None,
        "margin": 0.02,
        "verdict": "not worse",
    }
    table = quality(quality_document(comparisons=[row]))
    assert table.notes == (
        "merged/ties against the combined adapter: -0.010 on average [-0.015, +0.005], "
        "so it is not worse by more than 0.02.",
    )
    continued = quality(quality_document(comparisons=[{**row, "b": "adapter/continued"}]))
    assert continued.notes[0].startswith(
        "merged/ties against the combined adapter, continued: -0.010 on average"
    )
    assert compared(quality_document(comparisons=[row])).rows[0][3:] == (
        "-0.010 [-0.015, +0.005]",
        "?",
        "not worse",
    )


def test_markdown_keeps_cells_apart_and_sets_off_the_best():
    text = markdown([quality(quality_document(languages=["de"])), None])
    assert "| merged/ties  <- selected | 0.500 |" in text
    assert "| **0.750** |" in text


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
