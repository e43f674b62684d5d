"""Alarms over the life of a project: once a window, whatever comes again, and rarely without a reason."""

from __future__ import annotations

import numpy as np
import pytest

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment, segmented, span_of
from sabir.project.alarms import flagged, watched

LANGUAGES = ("de", "en", "fr", "ja", "zh")
USUAL = 0.15
BUDGETS = dict.fromkeys(LANGUAGES, USUAL + 0.05)


def drawn(rng, n, *, window="", ja=USUAL, labelled=False, languages=LANGUAGES):
    """Texts of five languages with four members that see most mistakes."""
    names, agreement, errors = [], [], []
    for language in languages:
        wrong = rng.random(n) < (ja if language == "ja" else USUAL)
        differs = rng.random((n, 4)) < np.where(wrong, 0.6, 0.05)[:, None]
        names += [Segment(language, "", window)] * n
        agreement.append(1.0 - differs)
        errors.append(wrong.astype(float))
    segments, places = segmented(names)
    error = np.concatenate(errors) if labelled else None
    return Evidence(segments, places, agreement=np.concatenate(agreement), error=error)


def look(reference, asked, earlier=(), *, budgets=BUDGETS, labelled=()):
    return watched(reference, asked, budgets, false_alarms=0.05, earlier=earlier, labelled=list(labelled))


@pytest.fixture(scope="module")
def reference():
    return drawn(np.random.default_rng(7), 500, labelled=True)


def languages(watch):
    return {segment.language for segment in watch.alarming}


def test_a_language_that_went_bad_is_told_within_days_and_no_other(reference):
    rng, streams, told = np.random.default_rng(1), (), set()
    for day in range(1, 6):
        watch = look(reference, drawn(rng, 500, window=f"2026-11-0{day}", ja=0.5), streams)
        streams = watch.streams
        told |= languages(watch)
    assert told == {"ja"}


def test_looking_daily_where_nothing_changed_alarms_in_at_most_a_twentieth_of_projects():
    raised = 0
    for seed in range(40):
        rng, streams = np.random.default_rng(seed), ()
        labelled = drawn(rng, 200, labelled=True)
        told = set()
        for day in range(1, 11):
            watch = look(labelled, drawn(rng, 100, window=f"2026-11-{day:02}"), streams)
            streams = watch.streams
            told |= languages(watch)
        raised += bool(told)
    assert raised <= 2


def test_a_week_that_comes_again_with_more_texts_is_bet_on_anew_from_where_it_began(reference):
    monday = drawn(np.random.default_rng(2), 100, window="2026-W47", ja=0.6)
    whole = drawn(np.random.default_rng(3), 2000, window="2026-W47", ja=0.6)
    first = look(reference, monday)
    again = look(reference, whole, first.streams)
    alone = look(reference, whole)
    assert languages(again) == languages(alone) == {"ja"}
    assert {row["after"][0] for row in again.streams} == {1}
    assert look(reference, whole, again.streams).streams == again.streams, "the same file twice"


def test_windows_before_the_newest_are_not_bet_on_again(reference):
    rng = np.random.default_rng(4)
    newest = look(reference, drawn(rng, 200, window="2026-W47"))
    older = look(reference, drawn(rng, 2000, window="2026-W46", ja=0.9), newest.streams)
    assert older.streams == newest.streams
    assert not older.alarming


def test_windows_of_another_span_begin_anew(reference):
    rng = np.random.default_rng(5)
    weeks = look(reference, drawn(rng, 200, window="2026-W47"))
    months = look(reference, drawn(rng, 2000, window="2026-12", ja=0.6), weeks.streams)
    assert languages(months) == {"ja"}
    assert {row["window"] for row in months.streams} == {"2026-12"}
    assert {row["after"][0] for row in months.streams} == {1}


def test_texts_that_are_not_parted_by_time_leave_nothing_to_go_on_from(reference):
    watch = look(reference, drawn(np.random.default_rng(6), 3000, ja=0.7))
    assert languages(watch) == {"ja"}
    assert watch.streams == ()


def test_a_few_texts_at_first_do_not_blunt_later_looks(reference):
    rng = np.random.default_rng(8)
    few = look(reference, drawn(rng, 15, window="2026-11-01"))
    plenty = look(reference, drawn(rng, 3000, window="2026-11-02", ja=0.6), few.streams)
    assert languages(plenty) == {"ja"}


def test_another_budget_begins_anew(reference):
    rng = np.random.default_rng(9)
    first = look(reference, drawn(rng, 100, window="2026-11-01"))
    budgets = dict.fromkeys(LANGUAGES, 0.3)
    second = look(reference, drawn(rng, 100, window="2026-11-02"), first.streams, budgets=budgets)
    assert {row["base"] for row in second.streams} == {0.3}
    assert {row["after"][0] for row in second.streams} == {1}


def test_where_nothing_bounds_the_curve_no_alarm_is_possible_and_that_is_said():
    rng = np.random.default_rng(10)
    three = drawn(rng, 200, labelled=True, languages=LANGUAGES[:3])
    watch = look(three, drawn(rng, 500, languages=LANGUAGES[:3]))
    assert not watch.alarming
    assert [place.language for place in watch.unwatched] == list(LANGUAGES[:3])


def test_labels_speak_for_themselves(reference):
    rng = np.random.default_rng(11)
    asked = drawn(rng, 200, ja=0.5, labelled=True)
    by_labels = ESTIMATORS.get("ppi").function(reference, asked, level=0.98)
    assert languages(look(reference, asked, labelled=by_labels)) == {"ja"}
    calm = drawn(rng, 200, labelled=True)
    by_labels = ESTIMATORS.get("ppi").function(reference, calm, level=0.98)
    assert not look(reference, calm, labelled=by_labels).alarming


@pytest.mark.parametrize(
    ("window", "span"),
    [("2026-11-21", "day"), ("2026-W47", "week"), ("2026-11", "month"), ("0001", None), ("", None)],
)
def test_a_window_says_its_span(window, span):
    assert span_of(window) == span


def test_what_has_drifted_is_flagged_and_what_has_not_is_left(reference):
    asked = drawn(np.random.default_rng(12), 100)
    found = ESTIMATORS.get("constant").function(reference, asked, level=0.9)
    facts = {
        Segment("ja"): {"drift_p": 0.0001, "rise": 0.2, "raw": 0.3, "disagreement_reference": 0.1},
        Segment("de"): {"drift_p": 0.01, "rise": None, "raw": 0.3, "disagreement_reference": 0.1},
        Segment("fr"): {"drift_p": 0.5, "rise": None, "raw": 0.1, "disagreement_reference": 0.1},
    }
    flags = {one.segment.language: one.flags for one in flagged(found, facts, 0.05)}
    assert flags["ja"][0].startswith("worse: by 0.200")
    assert flags["de"][0] == "drift: members disagree 0.30, on the labelled texts 0.10 (p 0.010)"
    assert not [flag for flag in flags["fr"] if flag.startswith(("drift", "worse"))]
