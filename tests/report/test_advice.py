"""Which recipe to take, and when not to merge: every piece of advice, and what keeps it from being given."""

from __future__ import annotations

import pytest
from judged import OWN, TIES, comparison, document, scores, standing

from sabir.report.advice import advice

AVERAGE = "merged/average"
COMBINED = "adapter/combined"
SHOTS = "base[shots=4]"
LINEAR, TRIMMED = {"method": "linear"}, {"method": "ties", "settings": {"density": 0.2}}


def by_mean(means):
    return scores({model: {"de": mean, "fr": mean} for model, mean in means.items()})


MEANS = {"base": 0.25, OWN: 0.75, "routed": 0.75, COMBINED: 0.625, TIES: 0.5, AVERAGE: 0.5}


def judged(*comparisons, best=None, **changes):
    standings = [standing(*best)] if best else []
    return document(
        **{"scores": by_mean(MEANS), "comparisons": list(comparisons), "standings": standings, **changes}
    )


def only(found, start):
    """The sentences that begin so."""
    return [sentence for sentence in advice(found) if sentence.startswith(start)]


def loses_to(rival, difference=-0.25, **changes):
    return comparison(rival, "macro", difference, 0.125, "worse", **changes)


# --- not to train, not to merge ----------------------------------------------------------------------------


def test_a_prompt_with_examples_that_beats_every_trained_model_needs_no_training():
    found = judged(best=(SHOTS,), scores=by_mean({**MEANS, SHOTS: 0.875}))
    assert advice(found)[0] == (
        "Do not train for this: the base model with 4 examples in its prompt (0.875) is significantly better on "
        f"average than every trained model; the selected merge is {TIES} (0.500)."
    )


@pytest.mark.parametrize("best", [(SHOTS, COMBINED, AVERAGE), (COMBINED, SHOTS)])
def test_a_prompt_with_examples_that_is_tied_with_the_best_is_told(best):
    found = judged(best=best, scores=by_mean({**MEANS, SHOTS: 0.625}))
    assert len(only(found, "These rows do not show that training helps: the base model with 4 examples")) == 1
    assert not only(found, "Do not train")


def test_training_is_not_advised_against_where_a_trained_model_is_best():
    found = judged(best=(COMBINED, TIES))
    assert not [sentence for sentence in advice(found) if "train" in sentence.lower().split(":")[0]]


def test_refused_parity_asks_for_better_training_first():
    found = judged(comparison(COMBINED, why="It is at chance."), best=(COMBINED, TIES))
    assert only(found, "Train better before comparing merges: the combined adapter (0.625) is not better")
    said = judged(comparison(COMBINED, why="It is at chance."), best=(COMBINED, TIES, "base"))
    assert not only(said, "Train better"), "that training shows nothing is said already"


def test_translation_is_advised_where_it_is_surely_better():
    assert only(judged(loses_to("translate-test")), "Translate instead") == [
        f"Translate instead: translating the question and asking one adapter is better than {TIES} by 0.250 [0.125, "
        "0.375] on average, at the price of a translation for each question."
    ]
    assert not only(judged(comparison("translate-test", "macro", -0.1, 0.125)), "Translate instead")


def test_adapters_are_served_side_by_side_where_routing_gains_more_than_the_margin():
    found = judged(loses_to("routed"), parameters={TIES: 1_000_000, "routed": 2_000_000})
    assert only(found, "Serve the adapters side by side") == [
        f"Serve the adapters side by side: routing to own adapters is better than {TIES} by 0.250 [0.125, 0.375] on "
        "average, more than the margin of 0.02. It keeps 2 adapters in memory in place of one: 2,000,000 parameters "
        "in place of 1,000,000."
    ]
    unknown = only(judged(loses_to("routed")), "Serve the adapters side by side")[0]
    assert unknown.endswith("It keeps 2 adapters in memory in place of one.")


@pytest.mark.parametrize(
    "row",
    [
        comparison("routed", "macro", -0.015625, 0.0078125, "worse", margin=0.02),
        comparison("routed", "macro", -0.25, 0.375),
        comparison("routed", low=None, high=None),
    ],
)
def test_a_small_or_unsure_gain_of_routing_is_no_reason_to_serve_many_adapters(row):
    assert not only(judged(row), "Serve the adapters")


def test_own_adapters_that_win_without_a_detector_are_advised_where_the_language_is_known():
    (sentence,) = only(judged(loses_to(OWN)), "Serve the adapters")
    assert "rivals: {routed: ...}" in sentence
    (sentence,) = only(judged(loses_to(OWN), comparison("routed")), "Serve the adapters")
    assert "a detector loses too much of it: each language's own adapter is better" in sentence


def test_what_was_not_compared_is_taken_from_the_standings_without_an_interval():
    found = judged(best=("routed", OWN))
    assert (
        "is better than merged/ties[density=0.2] by 0.250 on average" in only(found, "Serve the adapters")[0]
    )
    assert not only(judged(best=("routed", TIES)), "Serve the adapters"), "tied"


# --- retraining --------------------------------------------------------------------------------------------


def update(run, seconds, phase="update"):
    return [
        {
            "run": run,
            "phase": phase,
            "route": route,
            "component": "train",
            "devices": 1,
            "wall_s": paid,
            "wall_s_unlimited": paid,
            "device_s": paid,
            "usd": None,
            "measured": True,
        }
        for route, paid in zip(("merged", "combined"), seconds, strict=True)
    ]


def test_retraining_is_advised_where_it_is_better_with_the_saving_that_would_be_lost():
    costs = [
        *update("1", (9.0, 9.0), "setup"),
        *update("2", (1800.0, 9000.0)),
        *update("3", (1800.0, 9000.0)),
    ]
    assert only(judged(loses_to(COMBINED), costs=costs), "Where updates are rare") == [
        f"Where updates are rare, retrain on all data: the combined adapter is better than {TIES} by 0.250 [0.125, "
        "0.375] on average. Merging saved 2.00 device h (80.0 %) at each of 2 updates so far; that would be lost."
    ]


def test_before_the_first_update_the_saving_is_said_to_be_unknown():
    (sentence,) = only(judged(loses_to(COMBINED)), "Where updates are rare")
    assert sentence.endswith("was not measured yet: sabir plan --what-if estimates it.")


def test_a_merge_that_saved_nothing_is_said_to():
    found = judged(loses_to(COMBINED), costs=update("2", (9.0, 9.0)))
    assert only(found, "Where updates are rare")[0].endswith(
        "Merging saved no device time in 1 update so far."
    )


def test_of_several_retrained_adapters_the_best_one_is_named():
    large = f"{COMBINED}[rank=32]"
    found = judged(loses_to(COMBINED), loses_to(large, -0.375))
    assert "the combined adapter of rank 32 is better" in only(found, "Where updates are rare")[0]
    trained_on = judged(loses_to(COMBINED), loses_to("adapter/continued", -0.375))
    assert only(trained_on, "Train the combined adapter on with new rows instead of merging: ")


# --- single languages --------------------------------------------------------------------------------------


def test_languages_that_lose_by_merging_are_to_be_left_out():
    rows = [
        comparison(OWN, "de", -0.25, 0.125, "worse"),
        comparison(OWN, "fr", 0.0, 0.01, "not worse"),
        comparison(OWN, "ja", -0.5, 0.25, "worse"),
    ]
    assert only(judged(*rows), "Leave") == [
        f"Leave ja, de out of the merge and serve their own adapters: {TIES} loses 0.500 [0.250, 0.750] in ja; 0.250 "
        "[0.125, 0.375] in de."
    ]
    assert only(judged(*rows[:2]), "Leave de out of the merge and serve its own adapter: ")
    assert not only(judged(rows[0], rows[2]), "Leave"), "nothing would be left to merge"
    assert not only(judged(rows[1]), "Leave")


# --- which recipe ------------------------------------------------------------------------------------------


def test_the_selected_merge_is_to_be_taken_with_what_it_cannot_be_told_from():
    scored = {**MEANS, "merged/dare": 0.5}
    del scored[AVERAGE]
    found = judged(best=(COMBINED, TIES, "merged/dare"), scores=by_mean(scored))
    assert only(found, "Take") == [
        f"Take {TIES} (0.500): it is the best on the validation rows; on the test rows it cannot be told from "
        "merged/dare (0.500)."
    ]


def test_plain_averaging_is_to_be_taken_where_it_is_tied():
    found = judged(best=(COMBINED, TIES, AVERAGE))
    assert only(found, "Take") == [
        f"Take {AVERAGE} (0.500), plain averaging: neither it nor {TIES} (0.500) can be told from the best, the "
        "combined adapter (0.625) on the test rows."
    ]
    compared = judged(comparison(AVERAGE, "macro", 0.015625, 0.125))
    assert only(compared, "Take") == [
        f"Take {AVERAGE} (0.500), plain averaging: {TIES} (0.500) is not significantly better on average (+0.016 "
        "[-0.109, +0.141])."
    ]
    better = judged(comparison(AVERAGE, "macro", -0.25, 0.125, "worse"))
    assert only(better, "If you merge, take") == [
        f"If you merge, take {AVERAGE} (0.500), plain averaging: it is better than {TIES} (0.500) by 0.250 [0.125, "
        "0.375] on average."
    ]


@pytest.mark.parametrize(
    "found",
    [
        judged(comparison(AVERAGE, "macro", 0.25, 0.125, "better"), best=(TIES,)),
        judged(best=(TIES,)),
        judged(best=(COMBINED, TIES)),
    ],
)
def test_plain_averaging_that_is_worse_is_not_to_be_taken(found):
    assert only(found, f"Take {TIES} (0.500): it is the best on the validation rows.")


def test_a_merge_that_loses_to_a_rival_is_taken_only_if_one_merges():
    assert only(judged(loses_to(COMBINED)), f"If you merge, take {TIES}")
    assert only(judged(loses_to("base")), f"Take {TIES}"), "the bare base is no way to serve"


def test_what_a_merge_is_stands_in_the_document_and_not_in_its_name():
    recipes = {TIES: LINEAR, AVERAGE: TRIMMED}
    found = judged(best=(TIES, AVERAGE), recipes=recipes)
    assert only(found, f"Take {TIES} (0.500): ")
    weighted = {TIES: TRIMMED, AVERAGE: {**LINEAR, "weights": {"de": 0.75}}}
    assert only(
        judged(best=(TIES, AVERAGE), recipes=weighted), f"Take {AVERAGE} (0.500), weighted averaging: "
    )
    knots = {TIES: TRIMMED, AVERAGE: {**LINEAR, "space": "knots"}}
    assert only(judged(best=(TIES, AVERAGE), recipes=knots), f"Take {TIES} (0.500): ")


def test_a_merge_that_took_a_search_gives_way_to_one_that_took_none():
    found = judged(
        best=(TIES, "merged/dare"), searches={TIES: {}}, scores=by_mean({TIES: 0.5, "merged/dare": 0.5})
    )
    assert only(found, "Take merged/dare (0.500), a recipe without a search: neither it nor")


def test_without_plain_averaging_among_the_merges_it_is_asked_for():
    asked = "Plain averaging was not tried"
    scored = by_mean({TIES: 0.5, COMBINED: 0.5})
    assert only(judged(best=(TIES,), scores=scored, recipes={TIES: TRIMMED}), asked)
    assert not only(judged(best=(TIES,), recipes={TIES: TRIMMED, AVERAGE: LINEAR}), asked)
    assert not only(judged(best=(TIES,), scores=scored), asked), "not known"


# --- more rows ---------------------------------------------------------------------------------------------


def test_undecided_languages_say_how_many_rows_it_takes():
    rows = [
        comparison(COMBINED, "de", n=94, detectable=0.09),
        comparison(COMBINED, "fr", 0.0, 0.01, "not worse"),
        comparison(COMBINED, "ja", n=3, detectable=None),
    ]
    assert only(judged(*rows), "More test rows") == [
        f"More test rows are needed before {TIES} can be told from the combined adapter in every language. To show a "
        "difference of 0.02: de some 1,900 (there are 94); ja many more than the 3 there are."
    ]
    assert "in any language" in only(judged(rows[0], rows[2]), "More test rows")[0]


def test_four_times_the_rows_show_half_the_difference():
    row = comparison(COMBINED, "de", n=100, detectable=0.04)
    assert "de some 400 (there are 100)" in only(judged(row), "More test rows")[0]


@pytest.mark.parametrize(
    "row",
    [
        comparison(COMBINED, "de", detectable=0.015625),
        comparison(COMBINED, "de", why="At chance."),
        comparison(COMBINED, "de", margin=0.0),
        comparison("base", "de"),
    ],
)
def test_more_rows_are_not_asked_for_where_they_would_decide_nothing(row):
    assert not only(judged(row), "More test rows")


# --- nothing to go by --------------------------------------------------------------------------------------


def test_without_a_selection_or_comparisons_nothing_is_advised():
    assert advice(document()) == []
    assert advice(judged(comparison(COMBINED), selected=None)) == []


def test_a_document_that_lacks_everything_else_is_advised_on():
    row = comparison(COMBINED, "macro", 0.25, 0.125, "better")
    found = {
        key: value for key, value in judged(row).items() if key not in ("standings", "costs", "searches")
    }
    assert advice(found) == [f"Take {TIES} (0.500): it is the best on the validation rows."]
