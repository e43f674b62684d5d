"""What retraining everything would take where it was not done."""

from __future__ import annotations

import pytest
from bookkeeping import found, rows_of, step, trainings

from sabir.report.baseline import (
    Prediction,
    evaluation,
    predicted_baseline,
    predicted_training,
    prediction_error,
)

# German has 0.25 tokens a character, Japanese 1; 100 and 50 tokens a second; together 60.
ADAPTERS = {
    "de": {"wall_s": 10.0, "tokens": 1000, "size": 4000.0},
    "ja": {"wall_s": 40.0, "tokens": 2000, "size": 2000.0},
}
COMBINED = {"wall_s": 25.0, "tokens": 2000, "size": 4000.0}


def test_each_language_counts_with_its_own_tokens_a_character_at_the_speed_of_the_last_combined_training():
    prediction = predicted_training({"de": 8000.0, "ja": 2000.0}, adapters=ADAPTERS, combined=COMBINED)
    assert prediction == Prediction(tokens=4000.0, wall_s=50.0, speed_of="combined")


def test_without_a_combined_training_the_speed_is_that_of_the_languages_together():
    prediction = predicted_training({"de": 8000.0, "ja": 2000.0}, adapters=ADAPTERS, combined=None)
    assert prediction == Prediction(tokens=4000.0, wall_s=pytest.approx(4000 / 60), speed_of="languages")


def test_a_language_without_a_measured_adapter_has_the_tokens_a_character_of_the_others():
    brought = {**ADAPTERS, "pt": {"wall_s": 1.0, "tokens": None, "size": None}}
    prediction = predicted_training({"pt": 6000.0}, adapters=brought, combined=COMBINED)
    assert prediction.tokens == 3000.0


def test_with_own_adapters_brought_along_the_combined_training_alone_says_all():
    prediction = predicted_training({"de": 8000.0}, adapters={}, combined=COMBINED)
    assert prediction == Prediction(tokens=4000.0, wall_s=50.0, speed_of="combined")


def test_before_anything_was_measured_nothing_is_predicted():
    assert predicted_training({"de": 8000.0}, adapters={}, combined=None) is None
    assert predicted_training({}, adapters=ADAPTERS, combined=COMBINED) is None
    assert predicted_training({"de": 1.0}, adapters={"de": {"wall_s": 1.0}}, combined={}) is None


def test_a_prediction_of_what_was_measured_has_no_error():
    sizes = {"de": 4000.0, "ja": 2000.0}
    measured = {"wall_s": 77.0, "tokens": 3000, "size": 6000.0}
    prediction = predicted_training(sizes, adapters=ADAPTERS, combined=measured)
    assert prediction_error(prediction.wall_s, 77.0) == pytest.approx(0.0)
    assert prediction_error(110.0, 100.0) == pytest.approx(0.1)
    assert prediction_error(90.0, 100.0) == pytest.approx(-0.1)


# --- cost rows -------------------------------------------------------------------------------------------


def entry(steps, **changes):
    return {
        "id": "7",
        "phase": "update",
        "devices": 2,
        "usd_per_hour": 3600.0,
        "steps": steps,
        "costs": rows_of([one for one in steps if one["status"] == "run"], run="7", phase="update"),
        "complete": True,
        **changes,
    }


FORESEEN = Prediction(1000.0, 120.0, "combined")


def test_an_update_without_the_baseline_gets_its_predicted_cost_marked_as_such():
    rows = predicted_baseline(FORESEEN, entry=entry(trainings({"de": 20.0})))
    train = found(rows, "combined", "train")
    assert (train["device_s"], train["usd"], train["measured"], train["run"]) == (120.0, 120.0, False, "7")


def test_evaluating_the_baseline_is_predicted_from_what_it_took_when_it_was_last_done():
    steps = [
        *trainings({"de": 20.0}),
        step("outputs/adapter/combined/de/test", "outputs", 5.0, status="reused"),
        step("outputs/adapter/combined/fr/test", "outputs", 6.0, status="reused"),
        step("outputs/adapter/combined/it/test", "outputs", 7.0),  # a new language: measured in this run
        step("outputs/base/it/test", "outputs", 100.0),
    ]
    rows = predicted_baseline(FORESEEN, entry=entry(steps))
    assert found(rows, "combined", "evaluate")["device_s"] == 11.0
    assert found(entry(steps)["costs"], "combined", "evaluate")["device_s"] == 7.0


def test_without_any_baseline_evaluating_it_takes_what_the_bare_base_takes():
    steps = [
        *trainings({"de": 20.0}),
        step("outputs/base/de/test", "outputs", 5.0, status="reused"),
        step("scores/base/de/test", "scores", 1.0),
        step("outputs/merged/ties/de/test", "outputs", 50.0),
    ]
    rows = predicted_baseline(FORESEEN, entry=entry(steps))
    assert found(rows, "combined", "evaluate")["device_s"] == 6.0
    assert [one["name"] for one in evaluation(steps)] == [
        "outputs/adapter/combined/de/test",
        "scores/adapter/combined/de/test",
    ]


@pytest.mark.parametrize("changes", [{"phase": "setup"}, {"phase": "none"}, {"complete": False}])
def test_no_baseline_is_predicted_for_what_is_no_whole_update(changes):
    assert predicted_baseline(FORESEEN, entry=entry(trainings({"de": 20.0}), **changes)) == []


def test_no_baseline_is_predicted_where_it_was_trained_or_nothing_is_known():
    assert predicted_baseline(FORESEEN, entry=entry(trainings({"combined": 20.0}))) == []
    assert predicted_baseline(None, entry=entry(trainings({"de": 20.0}))) == []


def test_nothing_is_predicted_where_no_adapter_was_trained():
    """Rows were read and merges made, but the training was another's, or a language went back to an old adapter."""
    steps = [
        *trainings({"de": 20.0, "fr": 20.0}, status="reused"),
        step("data/de", "data", 1.0),
        step("merged/ties", "merged", 4.0),
    ]
    held = entry(steps, languages_changed=["de"], languages={"de": "a", "fr": "b"})
    assert predicted_baseline(FORESEEN, entry=held) == []


def test_a_training_that_was_begun_in_this_run_and_finished_by_another_counts():
    attempts = [{"name": "adapter/de", "kind": "adapter", "fingerprint": "de", "wall_s": 9.0}]
    steps = trainings({"de": 20.0}, status="reused")
    assert predicted_baseline(FORESEEN, entry=entry(steps, attempts=attempts))
    attempts = [{**attempts[0], "name": "adapter/combined"}]
    assert predicted_baseline(FORESEEN, entry=entry(steps, attempts=attempts)) == []


def test_without_a_language_that_was_taken_out_everything_would_be_retrained():
    steps = [*trainings({"de": 20.0}, status="reused"), step("merged/ties", "merged", 4.0)]
    gone = entry(steps, languages_changed=["fr"], languages={"de": "a"})
    assert found(predicted_baseline(FORESEEN, entry=gone), "combined", "train")["device_s"] == 120.0


def test_an_update_that_was_stopped_after_its_training_is_one_update_with_the_run_that_went_on():
    trained = entry(trainings({"de": 20.0}), complete=False)
    went_on = entry([*trainings({"de": 20.0}, status="reused"), step("merged/ties", "merged", 4.0)])
    assert predicted_baseline(FORESEEN, entry=went_on, before=[trained])
    finished = {**trained, "complete": True}
    assert predicted_baseline(FORESEEN, entry=went_on, before=[finished]) == []
    assert predicted_baseline(FORESEEN, entry=went_on, before=[trained, finished]) == []
    set_up = {**trained, "phase": "setup"}
    assert predicted_baseline(FORESEEN, entry=went_on, before=[set_up]) == []
