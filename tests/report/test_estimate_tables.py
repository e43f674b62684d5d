"""What is said of errors without labels: the document, and the tables made of it."""

from __future__ import annotations

import json

import pytest

from sabir.estimate.advice import advise
from sabir.estimate.evidence import Estimate, Segment
from sabir.report.estimates import advice, estimate_document, estimates, trend
from sabir.report.layout import laid_out

BUDGETS = {"de": 0.2, "ja": 0.2, "fr": 0.2}
T5 = "regression-t over 5 labelled segments"
DOUBT = "unseen language: the reference has de, ja"


def estimate(language, error, *, half=0.04, domain="", window="", n=500, flags=(), how=T5, labelled=0):
    bounds = (None, None) if half is None or error is None else (error - half, error + half)
    return Estimate(
        Segment(language, domain, window),
        "calibrated-disagreement",
        error,
        *bounds,
        0.9,
        n,
        labelled,
        how,
        flags,
    )


def document(*found, **more):
    told = advise(found, BUDGETS, reference_error=dict.fromkeys(BUDGETS, 0.1))
    return estimate_document(
        found,
        told,
        **{
            "release": "3",
            "model": "merged/ties",
            "members": {"kind": "adapters", "names": ["adapter/de", "adapter/ja"], "n": 2},
            "estimator": "calibrated-disagreement",
            "level": 0.9,
            "budgets": BUDGETS,
            **more,
        },
    )


def test_the_document_holds_what_the_contract_says():
    known = {
        Segment("ja"): {
            "raw": 0.3,
            "disagreement_reference": 0.1,
            "drift_p": 0.001,
            "rise": 0.1,
            "weight": 500.0,
        }
    }
    found = document(estimate("ja", 0.375, half=0.125, flags=(DOUBT,)), facts=known, warnings=["many texts"])
    assert json.loads(json.dumps(found)) == found
    [row] = found["estimates"]
    assert row == {
        **{"language": "ja", "domain": "", "window": "", "estimator": "calibrated-disagreement"},
        **{"error": 0.375, "low": 0.25, "high": 0.5, "level": 0.9, "n": 500, "n_labelled": 0},
        **{"budget": 0.2, "alarm": True, "flags": [DOUBT], "how": T5},
        **known[Segment("ja")],
    }
    assert set(found["advice"][0]) >= {
        *("action", "language", "p_over_budget", "expected_gain"),
        *("estimated_usd", "estimated_device_s", "why"),
    }
    assert found["warnings"] == ["many texts"]


def test_what_is_not_known_of_a_segment_is_null_and_never_alarming():
    [row] = document(estimate("ja", 0.35, half=None))["estimates"]
    assert (row["raw"], row["drift_p"], row["low"], row["alarm"]) == (None, None, None, False)
    given = estimate("ja", 0.35)
    assert (
        estimate_document(
            [given], [], release=None, model="m", members={}, estimator="", level=0.9, budgets={}
        )["estimates"][0]["budget"]
        is None
    )
    [quiet] = document(given, alarms=())["estimates"]
    assert not quiet["alarm"]  # corrected over segments elsewhere


def test_the_error_stands_beside_raw_disagreement_and_its_budget():
    known = {Segment("de"): {"raw": 0.051}, Segment("ja"): {"raw": 0.302}}
    table = estimates(document(estimate("de", 0.1), estimate("ja", 0.35), facts=known))
    assert table.title == "Estimated error of release 3 (merged/ties)"
    assert table.columns == ("language", "error [90 % interval]", "raw", "budget", "", "n")
    assert table.rows == (
        ("de", "0.100 [0.060, 0.140]", "0.051", "0.200", "", "500"),
        ("ja", "0.350 [0.310, 0.390]", "0.302", "0.200", "ALARM", "500"),
    )
    assert table.strong == {(1, 4)}
    assert table.notes[0] == "ALARM: ja is over budget beyond doubt, all that is looked at together."
    assert "over 2 members (adapters: adapter/de, adapter/ja)" in " ".join(table.notes)
    assert f"Intervals by {T5}." in table.notes


def test_flags_and_missing_intervals_are_notes_with_the_segments_that_have_them():
    few = "too few labelled segments (3; at least 4)"
    table = estimates(
        document(
            estimate("de", 0.1, half=None, how=few, flags=("small: 12 texts",)),
            estimate("ja", None, how="nothing to estimate it from"),
            estimate("fr", 0.1, half=None, how=few, flags=("small: 12 texts", DOUBT)),
        )
    )
    assert [row[1] for row in table.rows] == ["0.100", "?", "0.100"]
    assert f"No interval for de, fr: {few}." in table.notes
    assert "No interval for ja: nothing to estimate it from." in table.notes
    assert table.notes[-2:] == ("de, fr: small: 12 texts.", f"fr: {DOUBT}.")


def test_domains_windows_and_labels_have_columns_where_there_are_any():
    found = document(
        estimate("de", 0.1, domain="web", window="9"),
        estimate("de", 0.3, domain="web", window="10", labelled=50),
        estimate("de", 0.2, domain="news", window="9"),
        facts={Segment("de", "web", "10"): {"drift_p": 0.0001}},
    )
    table = estimates(found)
    assert table.columns[:3] == ("language", "domain", "window")
    assert table.columns[-2:] == ("labelled", "drift p")
    assert [row[:3] for row in table.rows] == [("de", "web", "10"), ("de", "news", "9")]  # 10 comes after 9
    assert [row[-2:] for row in table.rows] == [("50", "<0.001"), ("0", "")]


def test_advice_says_what_to_do_first_and_why():
    table = advice(document(estimate("de", 0.1), estimate("fr", 0.21), estimate("ja", 0.35)))
    assert [row[:2] for row in table.rows] == [("retrain", "ja"), ("label 50", "fr"), ("wait", "de")]
    assert table.rows[0][2] == "100.0 %"
    assert float(table.rows[0][3]) == pytest.approx(1000 * (0.35 - 0.1) / 3, abs=0.1)
    assert table.rows[0][4:] == ("?", "?")  # no costs are known
    assert table.notes[0].startswith("Retrain ja: error 0.350, budget 0.200, over it with probability 1.00:")
    assert table.notes[1].startswith("Label fr: ")
    assert not any("de:" in note for note in table.notes)
    calm = advice(document(estimate("de", 0.1)))
    assert calm.notes[0].startswith("Nothing to do")
    assert advice({**document(), "advice": []}) is None


def over_time(errors, language="de", **more):
    return [
        estimate(language, error, window=f"2026-{month:02}", **more) for month, error in enumerate(errors, 1)
    ]


def test_the_trend_is_drawn_with_its_numbers_and_the_height_of_the_budget():
    found = document(*over_time([0.05, 0.1, 0.15, 0.2, 0.3, 0.4]))
    table = trend(found)
    assert table.title == "Error over time: 2026-01 to 2026-06"
    # Eighths of 0.4, the most there is; 0.30 - 0.04 is over the budget of 0.2.
    assert table.rows == (("de", "▂▃▄▅▇!█!", "0.050", "0.400", "0.400 (2026-06)", "0.200 ▅"),)
    assert "! the window before it is alarming" in table.notes[0]
    assert "small" not in table.notes[0]


def test_small_and_empty_windows_are_marked():
    rows = [*over_time([0.1, 0.1]), estimate("de", 0.1, window="2026-03", flags=("small: 7 texts",))]
    table = trend(document(*rows, estimate("ja", None, window="2026-02")))
    assert [row[1] for row in table.rows] == ["▅▅▅·", "---"]
    assert table.rows[1][2:5] == ("?", "?", "?")
    assert "· the window before it is small; - no estimate" in table.notes[0]


def test_earlier_windows_come_from_the_history_and_a_window_estimated_again_counts_once():
    earlier = document(*over_time([0.1, 0.1]))["estimates"]
    table = trend(document(estimate("de", 0.2, window="2026-02"), history=earlier))
    assert table.rows[0][1:4] == ("▅█", "0.100", "0.200")
    assert trend(document(estimate("de", 0.2))) is None


def test_of_many_windows_the_last_are_drawn():
    found = document(*(estimate("de", 0.1, window=str(number)) for number in range(1, 41)))
    table = trend(found)
    assert table.title == "Error over time: 25 to 40, the last 16 of 40 windows"
    assert len(table.rows[0][1]) == 16


def test_tables_fit_eighty_columns():
    rows = [
        estimate(language, error, domain=domain, window=f"2026-W{week:02}", n=1200)
        for language, error in (("de", 0.1), ("ja", 0.4), ("fr", 0.2))
        for domain in ("electronics", "books")
        for week in range(1, 14)
    ]
    found = document(*rows)
    for table in (estimates(found), advice(found), trend(found)):
        assert laid_out(table.columns, table.rows, 80).width <= 80
        assert {len(row) for row in table.rows} == {len(table.columns)}
