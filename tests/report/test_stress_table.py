"""The table of harder texts, and where the detector sent them."""

from __future__ import annotations

from judged import OWN, TIES, document, scores

from sabir.report.stress import stress

TEST = scores(
    {"base": {"de": 0.25, "fr": 0.25}, "routed": {"de": 0.75, "fr": 0.75}, TIES: {"de": 0.5, "fr": 0.5}}
)
SHORT = scores(
    {"routed": {"de": 0.375, "fr": 0.625}, TIES: {"de": 0.5, "fr": 0.5}, OWN: {"de": 0.5, "fr": 0.25}},
    split="short",
)
UNSEEN = scores({"routed": {"pt": 0.125}, TIES: {"pt": 0.375}}, split="unseen")
ROUTES = {"de": {"de": 50, "fr": 50}, "fr": {"fr": 80, "de": 15, "pt": 5}}


def test_a_column_is_a_test_set_and_a_row_a_model_that_was_judged_on_one():
    table = stress(document(scores=[*TEST, *SHORT, *UNSEEN]))
    assert table.columns == ("model", "test", "short", "unseen")
    assert table.rows == (
        ("each language's own adapter", "", "0.375", ""),
        (
            "routed: own adapter by detector",
            "0.750* [0.688, 0.812]",
            "0.500* [0.438, 0.562]",
            "0.125 [0.062, 0.188]",
        ),
        (f"{TIES}  <- selected", "0.500 [0.438, 0.562]", "0.500* [0.438, 0.562]", "0.375* [0.312, 0.438]"),
    )
    assert table.strong == {(1, 1), (1, 2), (2, 2), (2, 3)}
    assert "unseen: languages without an adapter" in table.notes[0]
    assert "mislabelled" not in table.notes[0]


def test_the_share_that_the_detector_sends_right_is_a_row():
    found = document(
        scores=[*TEST, *SHORT, *UNSEEN], routes=ROUTES, stress_routes={"short": {"de": {"fr": 4, "de": 1}}}
    )
    table = stress(found)
    assert table.rows[-1] == ("routed to their own language's adapter", "65.0 %", "20.0 %", "")
    assert table.notes[-1] == (
        "Test rows sent to another language's adapter: de 50.0 % (most to fr), fr 20.0 % (most to de)."
    )


def test_where_no_route_is_the_right_one_no_share_is_said():
    mislabelled = scores({"routed": {"de": 0.5}}, split="mislabelled")
    found = document(scores=mislabelled, stress_routes={"mislabelled": {"de": {"fr": 4}}})
    assert stress(found).rows[-1] == ("routed to their own language's adapter", "")


def test_a_detector_that_is_always_right_is_not_said_to_err():
    found = document(scores=[*TEST, *SHORT], routes={"de": {"de": 9}, "fr": {"fr": 9, "de": 0}})
    assert stress(found).rows[-1][1] == "100.0 %"
    assert len(stress(found).notes) == 1


def test_without_harder_texts_there_is_no_table():
    assert stress(document(scores=TEST, routes=ROUTES)) is None
    assert stress(document()) is None
    assert stress(document(scores=scores({TIES: {"de": 0.5}}, split="valid"))) is None


def test_scores_by_another_metric_do_not_count():
    assert stress(document(scores=[*TEST, *SHORT]), "macro_f1") is None
