"""Tables of releases and of whom to blame."""

from __future__ import annotations

from sabir.report.history import blamed, releases


def release(name, parent, languages, **changes):
    return {
        "name": name,
        "created": f"2026-11-2{name}T09:30:00+00:00",
        "by": "ana",
        "model": "merged/ties",
        "languages": languages,
        "parent": parent,
        "recipe": {"method": "ties"},
        "data": {language: {"rows": {"train": 1000, "test": 500}} for language in languages},
        "verdict": "pass",
        "reasons": [],
        "accepted": [],
        "scores": [
            {"language": "de", "metric": "accuracy", "value": 0.9},
            {"language": "macro", "metric": "accuracy", "value": 0.8123},
            {"language": "macro", "metric": "mcc", "value": 0.5},
        ],
        "usd": 31.5,
        "device_s": 3600.0,
        **changes,
    }


FIRST = release("1", None, {"de": "a", "fr": "b"})


def test_the_history_tells_what_was_made_of_what_when_by_whom_and_for_how_much():
    second = release("2", "1", {"de": "c", "pt": "d"}, recipe={"method": "dare"}, usd=5.0)
    second["data"]["de"]["rows"]["train"] = 1400
    table = releases({"current": "2", "releases": [FIRST, second], "metric": "accuracy"})
    assert table.columns[5] == "mean accuracy"
    assert table.rows == (
        *(("1", "2026-11-21 09:30", "ana", "merged/ties", "de, fr", "0.812", "pass", "1.00", "31.50"),),
        (
            *("2  <- current", "2026-11-22 09:30", "ana", "merged/ties"),
            *("de (+400 rows), +pt, -fr, recipe", "0.812", "pass", "1.00", "5.00"),
        ),
    )
    assert table.strong == {(1, 0)}
    assert table.notes == ()


def test_a_language_trained_anew_on_as_many_rows_is_named_without_a_number():
    second = release("2", "1", {"de": "a", "fr": "c"})
    assert releases({"current": "1", "releases": [FIRST, second]}).rows[1][4] == "fr"


def test_a_single_row_that_came_or_went_is_one_row():
    second = release("2", "1", {"de": "c", "fr": "d"})
    second["data"]["de"]["rows"]["train"] = 999
    second["data"]["fr"]["rows"]["train"] = 1001
    assert releases({"current": "2", "releases": [FIRST, second]}).rows[1][4] == "de (-1 row), fr (+1 row)"


def test_releases_whose_models_are_gone_are_one_sentence():
    gone = [release(name, None, {"de": name}, in_store=False) for name in ("1", "2", "10")]
    assert releases({"current": "10", "releases": gone}).notes == (
        "Releases 1, 2, 10: their models are no longer in the store.",
    )


def test_what_spoke_against_a_release_that_was_accepted_stays_visible():
    reasons = ["de fell from 0.412 to 0.371 (limit 0.010)."]
    second = release("2", "1", {"de": "c"}, verdict="fail", reasons=reasons, accepted=["de"], in_store=False)
    table = releases({"current": "2", "releases": [FIRST, second]})
    assert table.rows[1][6] == "fail (accepted)"
    assert table.notes == (
        "Release 2: de fell from 0.412 to 0.371 (limit 0.010).",
        "Release 2: its model is no longer in the store.",
    )


def test_the_model_before_sabir_has_no_languages_scores_or_cost():
    incumbent = release("0", None, {}, scores=[], usd=None, device_s=None, recipe=None)
    table = releases({"current": "0", "releases": [incumbent]})
    assert table.rows == (("0  <- current", "2026-11-20 09:30", "ana", "merged/ties", "", "", "pass", "?"),)
    after = releases({"current": "1", "releases": [incumbent, release("1", "0", {"de": "a"})]})
    assert after.rows[1][4] == "de", "against what was no merge of ours everything is new"
    assert after.rows[0][-1] == "?"


def test_without_releases_there_is_no_history():
    assert releases({"current": None, "releases": []}) is None


def suspect(name, difference, low, high):
    value = None if difference is None else 0.4 + difference
    return {
        "suspect": name,
        "value": value,
        "difference": difference,
        "low": low,
        "high": high,
        "p": 0.03,
        "n": 500,
    }


def blame(*suspects):
    return blamed(
        {"release": "3", "parent": "2", "language": "fr", "metric": "accuracy", "suspects": list(suspects)}
    )


def test_the_change_whose_going_back_helps_most_comes_first_and_is_named():
    table = blame(
        suspect("pt", None, None, None),
        suspect("ja", -0.01, -0.03, 0.01),
        suspect("recipe", 0.01, -0.01, 0.03),
        suspect("de", 0.041, 0.012, 0.07),
    )
    assert [row[0] for row in table.rows] == ["de", "recipe", "ja", "pt"]
    assert table.rows[0] == ("de", "0.441", "+0.041 [+0.012, +0.070]", "0.030", "500")
    assert table.notes[0] == (
        "de made fr worse: with release 2's put back, it scores +0.041 [+0.012, +0.070]."
    )
    assert "by chance" in table.notes[1]


def test_nobody_is_blamed_for_what_may_be_chance():
    table = blame(suspect("de", 0.041, -0.001, 0.08))
    assert table.notes == ("No single change can be told to have made fr worse on these rows.",)
