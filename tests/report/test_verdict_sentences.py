"""What a reader may conclude: one sentence on the combined adapter, and one on every other rival."""

from __future__ import annotations

from judged import OWN, TIES, comparison, document

from sabir.report.verdicts import between, conclusion, verdicts

COMBINED = "adapter/combined"
FIVE = ("de", "en", "fr", "ja", "zh")


def against(*verdicts_of, mean, **changes):
    """A document of as many languages as verdicts are given, with a mean: (difference, half width, verdict)."""
    rows = [
        comparison(COMBINED, language, mean[0], mean[1], verdict)
        for language, verdict in zip(FIVE, verdicts_of, strict=False)
    ]
    return document(comparisons=[*rows, comparison(COMBINED, "macro", *mean, **changes)])


def test_a_merge_that_loses_on_average_and_in_most_languages_is_advised_against():
    found = conclusion(against(*["worse"] * 5, mean=(-0.25, 0.125, "worse")))
    assert found == (
        f"{TIES} loses to the combined adapter by 0.250 [0.125, 0.375] on average and in 5 of 5 languages; do not "
        "merge here."
    )


def test_a_loss_on_average_that_few_languages_share_is_no_advice_against_merging():
    found = conclusion(against("worse", "better", "not worse", "undecided", mean=(-0.25, 0.125, "worse")))
    assert found == (
        f"{TIES} loses to the combined adapter by 0.250 [0.125, 0.375] on average and in 1 of 4 languages; better in "
        "en; not worse in fr; undecided in ja (test rows that show differences from 0.090 on)."
    )


def test_parity_is_told_with_its_margin_and_the_languages_where_it_is_open():
    rows = ("not worse", "not worse", "not worse", "undecided", "undecided")
    found = against(*rows, mean=(-0.0, 0.0125, "not worse"))
    found["comparisons"][3]["detectable"] = 0.125
    assert conclusion(found) == (
        f"{TIES} is not worse than the combined adapter by more than 0.02 (+0.000 [-0.013, +0.013]) on average and in "
        "3 of 5 languages; undecided in ja, zh (test rows that show differences from 0.090 to 0.125 on)."
    )


def test_a_better_merge_is_told_with_its_gain():
    assert conclusion(against("undecided", "undecided", mean=(0.25, 0.125, "better"), detectable=None)) == (
        f"{TIES} is better than the combined adapter by 0.250 [0.125, 0.375] on average, in no single language; "
        "undecided in de, en (test rows that show differences from 0.090 on)."
    )


def test_what_is_undecided_is_never_told_as_parity():
    found = conclusion(against("undecided", "worse", mean=(-0.0625, 0.125, "undecided")))
    assert found == (
        f"It is undecided whether {TIES} is worse than the combined adapter by 0.02 on average: -0.062 [-0.188, "
        "+0.062] (test rows that show differences from 0.090 on); worse in en; undecided in de (test rows that show "
        "differences from 0.090 on)."
    )
    assert "not worse" not in found


def test_refused_parity_is_told_with_its_reason():
    why = "adapter/combined is not better than the bare base here, and two models at chance are not on par"
    found = against("undecided", mean=(0.0, 0.0125, "undecided"), why=why)
    assert conclusion(found) == (
        f"No parity of {TIES} with the combined adapter can be claimed (+0.000 [-0.013, +0.013] on average): {why}."
    )
    found["comparisons"].append(comparison("routed", "macro", 0.0, 0.0125, why=why))
    assert verdicts(found) == [
        f"{TIES} against routing to own adapters: +0.000 on average [-0.013, +0.013]; no parity is claimed: {why}."
    ]


def test_parity_refused_in_single_languages_is_told_once_with_all_of_them():
    found = against("not worse", "undecided", "undecided", mean=(0.0, 0.0125, "not worse"))
    for row in found["comparisons"][1:3]:
        row["why"] = "It is at chance."
    assert conclusion(found).endswith("and in 1 of 3 languages; nothing is claimed for en, fr, see below.")
    assert verdicts(found) == ["No parity is claimed in en, fr: It is at chance."]


def test_without_a_combined_adapter_the_conclusion_is_about_the_own_adapters():
    rows = [
        comparison("base", "macro", 0.25, 0.125, "better"),
        comparison(OWN, "macro", -0.25, 0.125, "worse"),
    ]
    found = document(comparisons=rows)
    assert (
        conclusion(found)
        == f"{TIES} loses to each language's own adapter by 0.250 [0.125, 0.375] on average."
    )
    assert verdicts(found) == [
        f"{TIES} against the bare base model: +0.250 on average [+0.125, +0.375], so it is better."
    ]


def test_with_one_language_the_mean_is_all_there_is_to_say():
    assert conclusion(against("worse", mean=(-0.25, 0.125, "worse"))) == (
        f"{TIES} loses to the combined adapter by 0.250 [0.125, 0.375] on average; do not merge here."
    )


def test_of_what_was_not_compared_nothing_is_concluded():
    assert conclusion(document()) is None
    assert conclusion(document(comparisons=[comparison(COMBINED, a="routed")])) is None
    other = comparison(COMBINED, metric="macro_f1")
    assert conclusion(document(comparisons=[other])) is None, "another metric's"
    assert verdicts(document()) == []


def test_unknown_bounds_are_told_as_unknown():
    row = comparison(COMBINED, "macro", low=None, high=None, detectable=None)
    assert "+0.000 [?, ?]." in conclusion(document(comparisons=[row]))


def test_a_hundred_languages_are_not_all_named():
    rows = [comparison(COMBINED, f"l{number:02}", 0.0, 0.1) for number in range(100)]
    found = conclusion(document(comparisons=[*rows, comparison(COMBINED)]))
    assert "l07, and 92 more" in found
    assert len(found) < 400


def test_a_pair_is_found_whichever_way_round_it_was_compared():
    found = document(comparisons=[comparison(TIES, "macro", 0.25, 0.125, a="routed")])
    assert between(found, TIES, "routed") == {"difference": -0.25, "low": -0.375, "high": -0.125}
    assert between(found, "routed", TIES) == {"difference": 0.25, "low": 0.125, "high": 0.375}
    assert between(found, TIES, "base") is None
