"""Drift of a project, on arrays: against the labelled rows, against the model in use; and what silences an alarm."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.project.alarms import Before, drifted, flagged, watched
from sabir.project.history import Estimated, History

REFERENCE = [f"l{i:02}" for i in range(20)]
IN_USE = REFERENCE[:5]
USUAL, RISEN = 0.15, 0.6  # how many texts the member disagrees on
ONE_ROSE = [USUAL, USUAL, USUAL, RISEN, USUAL]
WRONG = (0.03, 0.5)  # how often the model is wrong where it agrees, and where it does not
BUDGETS = dict.fromkeys(REFERENCE, WRONG[0] + USUAL * (WRONG[1] - WRONG[0]) + 0.05)


def drawn(rng, names, n, apart, labelled=False):
    """n texts of each segment, on which one member disagrees as often as `apart` says, by segment or of all."""
    shares = np.broadcast_to(apart, len(names))
    differ = (rng.random((len(names), n)) < shares[:, None]).ravel()
    wrong = (rng.random(differ.shape) < np.where(differ, WRONG[1], WRONG[0])).astype(float)
    segments = tuple(one if isinstance(one, Segment) else Segment(one) for one in names)
    agreement = np.where(differ, 0.0, 1.0)[:, None]
    error = wrong if labelled else None
    return Evidence(segments, np.repeat(np.arange(len(names)), n), agreement=agreement, error=error)


def reference(rng):
    return drawn(rng, REFERENCE, 200, USUAL, labelled=True)


def look(labelled, asked, earlier=(), *, by_labels=()):
    return watched(labelled, asked, BUDGETS, false_alarms=0.05, earlier=earlier, labelled=by_labels)


def week(number):
    return [Segment(one, "", f"2026-W{number}") for one in IN_USE]


def looks(streams):
    return {row["language"]: row["after"][0] for row in streams}


# --- alarms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_rise_is_named_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    assert look(reference(rng), drawn(rng, IN_USE, 500, ONE_ROSE)).alarming == {Segment(IN_USE[3])}


def test_what_too_few_texts_of_one_week_show_those_of_several_do():
    rng = np.random.default_rng(0)
    labelled, streams, first = reference(rng), (), None
    for number in range(10, 30):
        found = look(labelled, drawn(rng, week(number), 12, ONE_ROSE), streams)
        streams = found.streams
        if found.alarming and first is None:
            first = number
            assert {one.language for one in found.alarming} == {IN_USE[3]}
    assert first is not None
    assert first > 10


def test_windows_by_number_are_a_look_by_themselves():
    """Nobody knows which of their texts were seen before."""
    rng = np.random.default_rng(1)
    labelled = reference(rng)
    streams = look(labelled, drawn(rng, week(46), 100, USUAL)).streams
    asked = drawn(rng, [Segment(one, "", "0001") for one in IN_USE], 500, ONE_ROSE)
    found = look(labelled, asked, streams)
    assert found.streams == streams
    assert found.alarming == look(labelled, asked).alarming == {Segment(IN_USE[3], "", "0001")}


def test_streams_of_languages_that_are_not_in_a_file_wait():
    rng = np.random.default_rng(2)
    labelled = reference(rng)
    streams = look(labelled, drawn(rng, week(46), 100, USUAL)).streams
    now = look(labelled, drawn(rng, week(47)[:2], 100, USUAL), streams).streams
    assert looks(now) == {**dict.fromkeys(IN_USE, 1), **dict.fromkeys(IN_USE[:2], 2)}


def test_what_is_kept_of_a_stream_is_read_again_as_it_was():
    rng = np.random.default_rng(4)
    labelled = reference(rng)
    kept = look(labelled, drawn(rng, week(46), 100, ONE_ROSE)).streams
    written = json.loads(json.dumps(kept))
    later = drawn(rng, week(47), 100, USUAL)
    assert look(labelled, later, written) == look(labelled, later, kept)


def test_without_members_nothing_is_alarming_and_streams_wait():
    rng = np.random.default_rng(6)
    labelled = reference(rng)
    streams = look(labelled, drawn(rng, week(46), 100, USUAL)).streams
    silent = replace(drawn(rng, week(47), 500, 0.9), agreement=np.full((2500, 1), np.nan))
    found = look(labelled, silent, streams)
    assert (found.alarming, found.streams) == (frozenset(), streams)


def by_labels(language, low, high):
    return Estimate(Segment(language), "ppi", (low + high) / 2, low, high, 0.9, 500, n_labelled=100)


def test_a_segment_with_labels_is_alarming_by_these_alone():
    """However its members disagree: labels within the budget silence them."""
    rng = np.random.default_rng(7)
    labelled, asked = reference(rng), drawn(rng, IN_USE, 500, ONE_ROSE)
    given = [by_labels(IN_USE[3], 0.01, 0.05), by_labels(IN_USE[0], 0.3, 0.5), by_labels(IN_USE[1], 0.1, 0.5)]
    assert look(labelled, asked, by_labels=given).alarming == {Segment(IN_USE[0])}
    assert look(labelled, asked, by_labels=given[1:]).alarming == {Segment(IN_USE[0]), Segment(IN_USE[3])}


def test_bets_go_on_after_the_newest_estimate_of_the_same_model(tmp_path):
    history = History(tmp_path, "sabir.yaml")

    def estimated(model, **more):
        return Estimated("2026-11-21", None, "merged/ties", model, "texts", "constant", **more)

    assert history.streams(estimated("new")) == ()
    for number, model in enumerate(("old", "new", "new", "old")):
        history.add(estimated(model, streams=({"n": number},)))
    assert history.streams(estimated("new")) == ({"n": 2},)
    assert history.streams(estimated("other")) == ()


def test_what_was_estimated_of_a_candidate_is_no_trend_of_the_releases(tmp_path):
    history = History(tmp_path, "sabir.yaml")

    def estimated(model, release, window):
        row = {"language": "de", "domain": "", "window": window, "error": 0.1, "n_labelled": 0}
        return Estimated("2026-11-21", release, model, model, window, "constant", estimates=(row,))

    history.add(estimated("first", "1", "2026-W45"))
    history.add(estimated("candidate", None, "2026-W46"))
    history.add(estimated("second", "2", "2026-W46"))
    trend = history.earlier(estimated("second", "2", "2026-W47"))
    assert [(row["model"], row["window"]) for row in trend] == [("first", "2026-W45"), ("second", "2026-W46")]


# --- drift -----------------------------------------------------------------------------------------------


def test_drift_is_held_against_the_same_language_and_domain_or_else_the_language():
    rng = np.random.default_rng(8)
    known = [Segment("de", "books"), Segment("de", "news"), Segment("en", "books")]
    labelled = drawn(rng, known, 400, [0.1, 0.5, 0.2], labelled=True)
    asked = drawn(
        rng, [*known, Segment("de", "mail"), Segment("it", "books")], 400, [0.5, 0.5, 0.2, 0.3, 0.3]
    )
    found = drifted(labelled, asked)
    raw = 1 - asked.mean(asked.agreement[:, 0])
    usual = dict(zip(known, 1 - labelled.mean(labelled.agreement[:, 0]), strict=True))
    pool = 1 - labelled.agreement[labelled.segment < 2, 0].mean()
    for place, segment in enumerate(asked.segments):
        assert found[segment]["raw"] == pytest.approx(raw[place])
        assert found[segment]["rise"] is None
    assert {one: found[one]["disagreement_reference"] for one in known} == pytest.approx(usual)
    assert found[Segment("de", "mail")]["disagreement_reference"] == pytest.approx(pool)
    assert found[known[0]]["drift_p"] < 0.001, "books disagree as news did"
    assert found[known[1]]["drift_p"] > 0.05
    assert found[known[2]]["drift_p"] > 0.05
    assert found[Segment("it", "books")]["disagreement_reference"] is None
    assert found[Segment("it", "books")]["drift_p"] is None


def test_without_members_there_is_no_drift():
    rng = np.random.default_rng(9)
    asked = replace(drawn(rng, IN_USE, 10, USUAL), agreement=np.zeros((50, 0)))
    assert drifted(reference(rng), asked) == {}


def test_beside_the_model_in_use_it_is_the_same_texts_that_count():
    """A candidate is worse in one language; in all of them texts are harder than the labelled ones: that is no fault of
    the candidate's. A language that only one of the two answers says nothing."""
    rng = np.random.default_rng(10)
    labelled = reference(rng)
    before = drawn(rng, IN_USE, 400, 0.4)
    agreement = before.agreement.copy()
    poisoned = before.segment == 2
    agreement[poisoned] = (rng.random((poisoned.sum(), 1)) > 0.8).astype(float)
    other = replace(before, agreement=agreement)
    asked = drawn(rng, [*IN_USE, "it"], 400, 0.4)
    found = drifted(labelled, asked, Before(labelled, before, other))
    named = {one.language for one, facts in found.items() if (facts["drift_p"] or 0) < 0.01 and facts["rise"]}
    assert named == {IN_USE[2]}
    expected = (WRONG[1] - WRONG[0]) * 0.4
    assert found[Segment(IN_USE[2])]["rise"] == pytest.approx(expected, abs=0.07)
    assert {found[Segment(one)]["rise"] for one in (*IN_USE[:2], *IN_USE[3:])} == {0.0}
    assert (found[Segment("it")]["drift_p"], found[Segment("it")]["rise"]) == (None, None)
    alone = drifted(labelled, asked)
    assert all(alone[Segment(one)]["drift_p"] < 0.01 for one in IN_USE), "the texts are harder"


def test_what_has_drifted_is_said_in_a_sentence_before_other_flags():
    def flags(**facts):
        one = Estimate(Segment("de"), "constant", 0.1, None, None, 0.9, 50, flags=("small: 5 texts",))
        [found] = flagged([one], {Segment("de"): facts}, 0.05)
        return found.flags

    usual = {"raw": 0.41, "disagreement_reference": 0.2}
    drift = "drift: members disagree 0.41, on the labelled texts 0.20 (p 0.010)"
    assert flags(**usual, drift_p=0.01, rise=None) == (drift, "small: 5 texts")
    worse = "worse: by 0.123 than the model in use, on the same texts (p below 0.001)"
    assert flags(**usual, drift_p=0.0001, rise=0.1234) == (worse, "small: 5 texts")
    for p in (None, 0.06):
        assert flags(**usual, drift_p=p, rise=0.5) == ("small: 5 texts",)
    assert flags() == ("small: 5 texts",)
