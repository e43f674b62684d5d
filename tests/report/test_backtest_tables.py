"""What a backtest found, as a document and as tables."""

from __future__ import annotations

import json
from dataclasses import replace

from sabir.estimate.backtest import Backtest
from sabir.estimate.best import best_of
from sabir.estimate.evidence import Segment
from sabir.estimate.judged import Judged
from sabir.estimate.summary import summarised
from sabir.report.backtests import backtest_document, backtests, segments
from sabir.report.layout import laid_out, parted

TRUE = {"de": 0.1, "fr": 0.2, "ja": 0.4, "pt": 0.15, "sv": 0.25, "tr": 0.3}
CLUSTERS = ("part", "language")


def judged(estimator, off, *, members=None, half=0.05, fold="language", **more):
    return [
        Judged(
            Segment(language, "web"),
            estimator,
            members,
            fold,
            "error",
            true + each,
            true,
            true + each - half,
            true + each + half,
            200,
            sampling=0.0123,
            **more,
        )
        for (language, true), each in zip(TRUE.items(), off, strict=True)
    ]


CONSTANT = judged("constant", (0.15, 0.04, -0.19, 0.1, -0.1, -0.12), informed=False)
OURS = judged("calibrated-disagreement", (0.01, -0.02, 0.02, 0.06, -0.01, 0.01), members="adapters")
SILVER = judged("silver", (0.04, -0.05, 0.04, 0.05, -0.03, 0.04))


def document(*groups, warnings=()):
    rows = tuple(row for group in groups for row in group)
    summary = summarised(rows, level=0.9, clusters=CLUSTERS)
    best = best_of(rows, summary, level=0.9, clusters=CLUSTERS)
    return backtest_document(Backtest(rows, summary, best, 0.9, tuple(warnings)), model="merged/ties")


def test_the_document_holds_what_the_contract_says():
    found = document(CONSTANT, OURS, SILVER, warnings=["atc was not judged"])
    assert json.loads(json.dumps(found)) == found
    assert len(found["segments"]) == 18
    assert set(found["segments"][0]) >= {
        *("language", "domain", "estimator", "members", "estimated", "true", "low", "high", "n"),
    }
    assert set(found["summary"][0]) >= {
        *("estimator", "members", "mae", "mae_low", "mae_high", "noise_floor", "coverage", "spearman"),
        *("regret", "better_than_silver", "near_chance", "n"),
    }
    best = found["best"]
    assert (best["estimator"], best["members"]) == ("calibrated-disagreement", "adapters")
    assert found["warnings"] == ["atc was not judged"]
    assert document()["best"] is None


def test_estimators_stand_in_the_order_of_how_far_off_they_are():
    [table] = backtests(document(CONSTANT, SILVER, OURS))
    assert table.title == "Languages left out in turn: how far off estimates were"
    assert [row[0] for row in table.rows] == [
        "calibrated-disagreement over adapters  <- best",
        "silver",
        "constant",
    ]
    assert table.strong == {(0, 0)}
    ours, silver, constant = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert ours["off by [90 % interval]"].startswith("0.022 [0.0")
    assert ours["against constant"].startswith("-0.095 [-0.")
    assert ours["covers"] == "0.83 of 6"  # of pt the interval is missed
    assert ours["better than silver"] == "+48 %"  # 0.0417 against 0.0217
    assert (silver["better than silver"], constant["against constant"]) == ("", "")
    assert (constant["Spearman"], constant["regret"]) == ("", "0.167")  # by chance: 0.4 - 0.2333
    assert table.notes[0].startswith("Noise floor: 0.012.")
    assert table.notes[-1].startswith("calibrated-disagreement over adapters is off by 0.022")


def test_each_way_of_leaving_out_has_a_table_and_the_reason_stands_under_the_last():
    by_domain = [replace(row, fold="domain") for row in (*CONSTANT, *OURS)]
    first, last = backtests(document(CONSTANT, OURS, by_domain))
    assert last.title.startswith("Domains left out in turn")
    why = "calibrated-disagreement over adapters is off by"
    assert not any(note.startswith(why) for note in first.notes)
    assert any(note.startswith(why) for note in last.notes)


def test_what_could_not_be_judged_stands_under_the_last_table():
    silent = "agreement-on-the-line over seeds said nothing of 6 of 6 segments: no line through 2 models"
    by_domain = [replace(row, fold="domain") for row in (*CONSTANT, *OURS)]
    first, last = backtests(document(CONSTANT, OURS, by_domain, warnings=[silent]))
    assert last.notes[-1] == silent
    assert silent not in first.notes
    nothing = "Nothing can be left out: there is one language and one domain."
    [alone] = backtests(document(warnings=[nothing]))
    assert (alone.rows, alone.notes) == ((), (nothing,))
    assert laid_out(alone.columns, alone.rows, 80).width <= 80
    assert backtests(document()) == []


def test_labels_shown_silence_and_near_chance_are_said():
    silent = [replace(row, estimated=None, low=None, high=None) for row in SILVER[:2]] + SILVER[2:]
    ppi = judged("ppi", (0.01,) * 6, labels=50)
    near = [replace(row, estimator="disagreement", members="prompts", near_chance=True) for row in OURS]
    [table] = backtests(document(CONSTANT, silent, ppi, near))
    names = [row[0].removesuffix("  <- best") for row in table.rows]
    assert {"ppi, 50 labels", "silver (4 of 6 segments)", "disagreement over prompts"} <= set(names)
    assert any(
        "near chance" in note and "disagreement over prompts says nothing" in note for note in table.notes
    )
    assert any("labels: shown to the estimator" in note for note in table.notes)


def test_the_segments_of_the_best_are_shown_unless_others_are_asked_for():
    found = document(CONSTANT, OURS, SILVER)
    table = segments(found)
    assert table.title == "Estimated and true error: calibrated-disagreement over adapters"
    assert table.columns == ("language", "domain", "estimated [90 % interval]", "true", "n")
    assert table.rows[0] == ("de", "web", "0.110 [0.060, 0.160]", "0.100", "200")
    assert table.rows[3][3] == "0.150*"
    assert table.notes == ("* outside the interval.",)
    assert segments(found, "silver").rows[0][2] == "0.140 [0.090, 0.190]"
    assert segments(found, "atc") is None
    assert segments(document()) is None


def test_tables_fit_eighty_columns():
    found = document(CONSTANT, OURS, SILVER)
    for table in (*backtests(found), segments(found)):
        for part in parted(table, 80):
            assert laid_out(part.columns, part.rows, 80).width <= 80
