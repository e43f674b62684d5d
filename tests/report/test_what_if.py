"""What an update would take before its data exist."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bookkeeping import step

from sabir.report.costs import Rates
from sabir.report.what_if import Language, supposed, what_if

# Every training takes 0.01 s a character and epoch; French rows are three times as long as German ones and have
# twice the tokens a character: 0.5 and 0.25. The combined training reads 50 tokens a second.
LANGUAGES = {"de": Language(100, 1000, 2.0), "fr": Language(100, 3000, 2.0)}
ADAPTERS = {
    "de": {"wall_s": 20.0, "tokens": 500, "size": 2000.0},
    "fr": {"wall_s": 60.0, "tokens": 3000, "size": 6000.0},
}
COMBINED = {"wall_s": 70.0, "tokens": 3500, "size": 8000.0}
STEPS = [
    step("adapter/de", "adapter", 20.0, size=2000.0),
    step("adapter/fr", "adapter", 60.0, size=6000.0),
    step("adapter/combined", "adapter", 70.0, size=8000.0),
    step("merged/ties", "merged", 4.0, size=2.0),
    step("release/1", "merged", 4.0, size=2.0),
    *(
        step(f"outputs/{model}/{language}/test", "outputs", seconds)
        for language, seconds in (("de", 10.0), ("fr", 30.0))
        for model in ("base", f"adapter/{language}", "merged/ties", "adapter/combined", "release/1")
    ),
    step("changes", "changes", 0.5, size=None),
]


def asked(added, *, devices=(1,), **changes):
    given = {
        "languages": LANGUAGES,
        "steps": STEPS,
        "rates": Rates(STEPS),
        "adapters": ADAPTERS,
        "combined": COMBINED,
        "epochs": 2.0,
        "usd_per_hour": 36.0,
        **changes,
    }
    return what_if(added, devices=devices, **given)


def estimates(document):
    return {(row["devices"], row["route"]): row for row in document["estimates"]}


def test_an_update_takes_its_training_the_merges_and_what_is_answered_anew():
    document = asked({"de": 100}, devices=(1, 2))
    assert document["languages"] == [
        {
            "language": "de",
            "rows": 100,
            "added": 100,
            "new": False,
            "mode": "scratch",
            "estimated_wall_s": pytest.approx(40.0),
        }
    ]
    found = estimates(document)
    merged = found[1, "merged"]
    assert merged["components"] == pytest.approx({"train": 40, "merge": 4, "evaluate": 10 + 30 + 10})
    assert merged["estimated_device_s"] == merged["estimated_wall_s"] == pytest.approx(94)
    assert merged["estimated_usd"] == pytest.approx(0.94)
    assert found[2, "merged"]["estimated_wall_s"] == pytest.approx(40 + 4 + 30)
    assert found[2, "merged"]["estimated_device_s"] == pytest.approx(94)


def test_retraining_everything_is_one_training_on_one_device_and_told_as_if_split_too():
    found = estimates(asked({"de": 100}, devices=(1, 2)))
    alone, two = found[1, "combined"], found[2, "combined"]
    assert alone["estimated_device_s"] == pytest.approx((1000 + 3000) / 50 + 40)
    assert alone["estimated_wall_s"] == alone["estimated_wall_s_split"] == pytest.approx(120)
    assert two["estimated_wall_s"] == pytest.approx(80 + 30)
    assert two["estimated_wall_s_split"] == pytest.approx(40 + 30)


def test_going_on_trains_on_the_new_rows_and_the_replayed_share_of_the_old():
    replayed = {**LANGUAGES, "de": replace(LANGUAGES["de"], replay=0.1)}
    document = asked({"de": 100}, languages=replayed)
    assert document["languages"][0]["mode"] == "continue"
    assert document["languages"][0]["estimated_wall_s"] == pytest.approx((1000 + 100) * 2 * 0.01)
    shorter = {**LANGUAGES, "de": replace(LANGUAGES["de"], replay=0.1, update_epochs=1.0)}
    assert asked({"de": 100}, languages=shorter)["languages"][0]["estimated_wall_s"] == pytest.approx(11)
    whole = estimates(document)[1, "combined"]["estimated_device_s"]
    assert whole == pytest.approx(120), "retraining everything replays everything"


def test_a_new_language_has_the_mean_of_the_others():
    document = asked({"pt": 50})
    assert document["languages"][0]["new"] is True
    assert document["languages"][0]["estimated_wall_s"] == pytest.approx(50 * 20 * 2 * 0.01)
    found = estimates(document)
    assert found[1, "merged"]["components"] == pytest.approx(
        {"train": 20, "merge": 6, "evaluate": 10 + 30 + 3 * 20}
    ), "merging three in place of two; the base, its own adapter and the merge answer its rows"
    tokens = 3500 + 2000 * 3500 / 8000
    assert found[1, "combined"]["estimated_device_s"] == pytest.approx(tokens / 50 + 40 + 20)


def test_the_break_even_is_the_most_languages_for_which_the_merged_route_takes_less():
    """Of 100 more rows each: one language 144 s against 145 s, both 244 s against 180 s.

    On two devices both train at once: 124 s against 170 s, or 100 s were the combined training split; one alone
    takes 114 s against 135 s, or 82.5 s.
    """
    even = asked({"de": 100}, devices=(1, 2))["break_even"]
    assert even == {
        "of": 2,
        "rows": 100,
        "device_time": 1,
        "wall": [
            {"devices": 1, "languages": 1, "languages_if_split": 1},
            {"devices": 2, "languages": 2, "languages_if_split": 0},
        ],
    }


def test_without_growth_the_break_even_is_of_an_average_language_trained_again():
    """One language: 40 + 44 + 20 s, both 168 s, against 70 + 40 s."""
    document = asked({})
    assert document["estimates"] == []
    assert document["break_even"]["device_time"] == 1
    assert supposed(document).notes[0] == (
        "Up to 1 of 2 languages may change in one update before retraining everything takes less device time."
    )


def test_without_evaluation_and_merging_all_languages_may_change_but_never_for_less():
    bare = [one for one in STEPS if one["kind"] == "adapter"]
    outputs = [one for one in STEPS if "combined/" in one["name"]]
    even = asked({}, steps=[*bare, *outputs], rates=Rates(STEPS))["break_even"]
    assert even["device_time"] == 2, (
        "80 s of training against 70 s and the evaluation of the combined adapter"
    )


def test_one_language_is_never_cheaper_by_itself():
    alone = {"de": LANGUAGES["de"]}
    steps = [one for one in STEPS if "fr" not in one["name"]]
    even = asked({"de": 10}, languages=alone, steps=steps, adapters={"de": ADAPTERS["de"]})["break_even"]
    assert (even["of"], even["device_time"]) == (1, 0)


def test_nothing_is_known_before_anything_was_measured():
    document = asked({"de": 100, "pt": 5}, devices=(1, 4), rates=Rates([]), adapters={}, combined=None)
    for row in document["estimates"]:
        assert (row["estimated_wall_s"], row["estimated_device_s"], row["estimated_usd"]) == (
            None,
            None,
            None,
        )
    assert document["break_even"]["device_time"] is None
    assert {row["languages"] for row in document["break_even"]["wall"]} == {None}
    table = supposed(document)
    assert table.rows == (("1", "?", "?", "?"), ("4", "?", "?", "?"))
    assert table.notes == (
        "How long it takes is not known: nothing, or not enough, was measured in this store yet.",
    )


def test_where_every_language_brought_its_adapter_nothing_is_known_either():
    document = asked({"de": 100}, languages={}, adapters={}, combined=None)
    assert estimates(document)[1, "merged"]["estimated_device_s"] is None
    assert document["break_even"]["device_time"] is None


def test_the_combined_training_has_its_own_epochs():
    found = estimates(asked({"de": 100}, epochs=4.0))
    assert found[1, "combined"]["estimated_device_s"] == pytest.approx(2 * 80 + 40)
    assert found[1, "merged"]["components"]["train"] == pytest.approx(40)


def test_without_a_price_there_is_time_and_no_money():
    document = asked({"de": 100}, usd_per_hour=None)
    assert estimates(document)[1, "merged"]["estimated_usd"] is None
    assert "USD" not in " ".join(supposed(document).notes)


def test_people_read_both_routes_the_difference_and_the_break_even():
    table = supposed(asked({"de": 100, "pt": 50}, devices=(1, 2)))
    assert table.title == "What if: rows of de +100, pt (new) +50"
    assert table.rows[0][0] == "1"
    assert table.columns == (
        *("devices", "by language, merged", "retraining everything", "the same, split over them"),
    )
    (single,) = [note for note in supposed(asked({"de": 100})).notes if note.startswith("Device time")]
    assert single == (
        "Device time: 1 min 34 s (0.9400 USD) by one adapter a language, merged; 2 min 0 s (1.20 USD) by retraining "
        "everything. That is 21.7 % less."
    )
    assert any(note.startswith("A new language counts with the mean") for note in table.notes)
    (sooner,) = [note for note in supposed(asked({"de": 100}, devices=(1, 2))).notes if "sooner" in note]
    assert sooner == "It ends sooner with up to 1 on 1 device, 2 on 2 devices (0 split)."


def walls(*languages):
    """Sentences of a break-even in wall clock: (devices, languages, languages if split)."""
    document = asked({"de": 100})
    rows = [
        {"devices": places, "languages": most, "languages_if_split": split}
        for places, most, split in languages
    ]
    table = supposed({**document, "break_even": {**document["break_even"], "wall": rows}})
    return [note for note in table.notes if "sooner" in note]


def test_where_retraining_ends_sooner_from_the_first_language_on_that_is_said():
    assert walls((1, 0, 0), (4, 0, 0), (8, 0, 0)) == [
        "On 1, 4 or 8 devices retraining everything ends sooner already when one changes."
    ]
    assert walls((1, 0, 0), (4, 2, 1)) == [
        "It ends sooner with up to 2 on 4 devices (1 split).",
        "On 1 device retraining everything ends sooner already when one changes.",
    ]


def test_rates_of_a_few_seconds_of_training_are_said_to_hold_the_start_up():
    caveat = (
        "The rates come from 15 s of training: starting up is in them, so for many more rows the estimates are "
        "too high."
    )
    short = {name: {**cost, "wall_s": 5.0} for name, cost in ADAPTERS.items()}
    document = asked({"de": 100}, adapters=short, combined={**COMBINED, "wall_s": 5.0})
    assert document["measured_training_s"] == 15.0
    assert caveat in supposed(document).notes
    assert not any("starting up" in note for note in supposed(asked({"de": 100})).notes), "150 s"
