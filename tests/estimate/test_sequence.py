"""Alarms and drift: right at every look, and early when something has happened."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from sabir.estimate.corrections import benjamini_hochberg
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.sequence import Stream, alarms, drift

FIVE = ("de", "es", "fr", "ja", "pt")


# -- bets ------------------------------------------------------------------------------------------------


def after(budget: float, windows) -> list[Stream]:
    """The stream after each window."""
    return list(itertools.accumulate(windows, Stream.after, initial=Stream(budget)))[1:]


@pytest.mark.parametrize("kind", ["errors", "degrees"])
@pytest.mark.parametrize("error", [0.03, 0.2, 0.7])
def test_a_budget_that_is_kept_is_hardly_ever_refuted_at_any_look(kind, error):
    rng, refuted, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        values = (rng.random((40, 25)) < error).astype(float)
        if kind == "degrees":
            values = np.where(rng.random((40, 25)) < 0.5, error, values)
        refuted += min(one.p for one in after(error, values)) <= 0.1
    assert refuted / trials <= 0.1


def test_the_capital_is_what_bets_begun_at_each_window_make_together():
    rng = np.random.default_rng(2)
    windows, budget = rng.integers(0, 4, (3, 30)) / 3, 0.4
    stakes = 0.005 * 180 ** (np.arange(14) / 13)  # 0.005 to 0.9
    made = 0.0
    for stake in stakes:
        grown = [np.prod(1 + stake * (window / budget - 1)) for window in windows]
        made += sum(6 / (np.pi * (t + 1)) ** 2 * np.prod(grown[t:]) for t in range(3)) / 14
    assert after(budget, windows)[-1].p == pytest.approx(min(1, 1 / made))
    assert made > 1


def test_rows_that_stand_for_several_texts_bet_as_those():
    values = np.random.default_rng(3).integers(0, 4, 60) / 3
    found, counts = np.unique(values, return_counts=True)
    assert Stream(0.4).after(found, counts).p == pytest.approx(Stream(0.4).after(values).p)


def test_a_rise_after_long_calm_is_seen_before_the_mean_of_all_has_risen():
    rng = np.random.default_rng(1)
    calm, worse = ((rng.random((40, 500)) < error).astype(float) for error in (0.1, 0.25))
    found = [one.p for one in after(0.15, [*calm, *worse])]
    assert min(found[:40]) > 0.5
    assert found[43] < 0.001  # 2,000 texts after the rise, the mean of all 22,000 being 0.114


def test_an_empty_window_and_a_certain_error_are_no_trouble():
    assert Stream(0.2).after(np.zeros(0)).p == 1
    assert Stream(0.0).after(np.ones(1)).p < 1e-6
    assert Stream(1.0).after(np.ones(100)).p == 1


# -- alarms ----------------------------------------------------------------------------------------------


def year(errors: np.ndarray, per_look: int, rng: np.random.Generator) -> tuple[Evidence, np.ndarray]:
    """Labels of (looks, languages) windows, two rows each: right and wrong ones."""
    looks, languages = errors.shape
    segments = tuple(Segment(FIVE[j], "", f"{i:04}") for i in range(looks) for j in range(languages))
    wrong = rng.binomial(per_look, errors).ravel()
    counts = np.stack([per_look - wrong, wrong], axis=1).ravel()
    evidence = Evidence(segments, np.repeat(np.arange(len(segments)), 2), count=counts)
    return evidence, np.tile([0.0, 1.0], len(segments))


def test_looking_daily_at_five_languages_for_a_year_gives_few_false_alarms():
    rng, ever, trials = np.random.default_rng(0), 0, 40
    budgets = {Segment(language): 0.2 for language in FIVE}
    for _ in range(trials):
        evidence, values = year(np.full((365, 5), 0.2), 20, rng)
        ever += any(alarm.raised for alarm in alarms(evidence, values, budgets, false_alarms=0.05))
    # One in 300 trials raised any (November 2025): a year's bets hardly ever come near 1 / 0.05.
    assert ever / trials <= 0.05


def test_a_language_that_has_gone_bad_is_named_soon_and_it_alone():
    rng = np.random.default_rng(1)
    errors = np.full((60, 5), 0.15)
    errors[30:, 3] = 0.3
    budgets = {Segment(language): 0.2 for language in FIVE}
    delays, others = [], 0
    for _ in range(20):
        evidence, values = year(errors, 100, rng)
        raised = [a.segment for a in alarms(evidence, values, budgets, false_alarms=0.05) if a.raised]
        others += any(one.language != "ja" or one.window < "0030" for one in raised)
        delays.append(min(int(one.window) for one in raised) - 30)
    assert others == 0
    assert np.median(delays) <= 8  # 800 labels


def test_traffic_does_not_change_what_a_text_bets():
    evidence, values = year(np.full((10, 5), 0.3), 30, np.random.default_rng(3))
    busy = replace(evidence, weight=np.random.default_rng(4).exponential(size=len(evidence)))
    budgets = {Segment(language): 0.2 for language in FIVE}
    usual, same = (alarms(one, values, budgets, false_alarms=0.05) for one in (evidence, busy))
    assert usual == same
    assert any(one.raised for one in usual)


def test_a_history_goes_on_where_it_stopped_unless_the_budget_has_changed():
    evidence, values = year(np.full((10, 5), 0.3), 30, np.random.default_rng(4))
    budgets = {Segment(language): 0.25 for language in FIVE}
    at_once = alarms(evidence, values, budgets, false_alarms=0.05)
    early = np.array([int(one.window) < 6 for one in evidence.segments])[evidence.segment]
    first = alarms(evidence.take(early), values[early], budgets, false_alarms=0.05)
    kept = {Segment(one.segment.language): one.stream for one in first[-5:]}
    rest = alarms(evidence.take(~early), values[~early], budgets, false_alarms=0.05, earlier=kept)
    assert [one.p for one in first + rest] == pytest.approx([one.p for one in at_once])
    anew = alarms(
        evidence.take(~early), values[~early], budgets | {Segment("de"): 0.1}, false_alarms=0.05, earlier=kept
    )
    assert anew[-5].stream.looks == 4
    assert anew[-1].stream.looks == 10


def test_texts_without_a_label_are_no_evidence():
    evidence = Evidence((Segment("de"),), np.zeros(3, int))
    (found,) = alarms(evidence, np.full(3, np.nan), {Segment("de"): 0.1}, false_alarms=0.05)
    assert (found.raised, found.p) == (False, 1.0)


def test_corrected_p_values_are_those_of_scipy():
    pvalues = np.random.default_rng(5).random(9) ** 3
    assert benjamini_hochberg(pvalues.tolist()) == pytest.approx(
        scipy_stats.false_discovery_control(pvalues).tolist()
    )
    assert benjamini_hochberg([None, 0.02, None]) == [None, 0.02, None]


# -- drift -----------------------------------------------------------------------------------------------


def rows_of(values: dict[str, np.ndarray]) -> tuple[Evidence, np.ndarray]:
    names = tuple(Segment(language) for language in values)
    sizes = [len(one) for one in values.values()]
    return Evidence(names, np.repeat(np.arange(len(names)), sizes)), np.concatenate(list(values.values()))


def disagreement(rng: np.random.Generator, n: int, error: float) -> np.ndarray:
    """Of the model with four members that find the same texts hard; 30 % of its mistakes all of them make."""
    hard = rng.beta(0.6 * error, 0.6 * (1 - error), n)
    wrong = rng.random(n) < hard
    other = rng.random((n, 4)) < hard[:, None]
    apart = np.where(wrong[:, None], ~(other & (rng.random((n, 4)) < 0.5)), other)
    apart[wrong & (rng.random(n) < 0.3)] = False
    return apart.mean(axis=1)


def test_a_drop_of_ten_points_in_one_of_five_languages_is_named_from_500_texts():
    rng, named, false, trials = np.random.default_rng(0), 0, 0, 400
    for _ in range(trials):
        reference = rows_of({language: disagreement(rng, 800, 0.15) for language in FIVE})
        production = rows_of(
            {language: disagreement(rng, 500, 0.15 + 0.1 * (language == "ja")) for language in FIVE}
        )
        found = drift(reference[0], production[0], reference[1], production[1])
        low = [one for one, p in zip(FIVE, found, strict=True) if p <= 0.05]
        named += "ja" in low
        false += bool(set(low) - {"ja"})
    assert named / trials >= 0.9
    assert false / trials <= 0.05 + 0.022  # two standard errors


@pytest.mark.parametrize("n", [3, 12, 20, 60, 500])
@pytest.mark.parametrize("kind", ["rarely", "half", "nearly always"])
def test_without_drift_no_language_is_named(n, kind):
    rng, false, trials = np.random.default_rng([n, len(kind)]), 0, 150
    share = {"rarely": 0.02, "half": 0.5, "nearly always": 0.98}[kind]
    for _ in range(trials):
        drawn = [
            rows_of({one: (rng.random((size, 4)) < share).mean(axis=1) for one in FIVE}) for size in (400, n)
        ]
        found = drift(drawn[0][0], drawn[1][0], drawn[0][1], drawn[1][1])
        false += any(p <= 0.05 for p in found)
    assert false / trials <= 0.05 + 0.036  # two standard errors


def test_the_p_value_of_a_few_texts_is_the_share_of_orders_as_extreme():
    before, now = np.array([0.1, 0.2, 0.2, 0.5, 0.3, 0.4]), np.array([0.5, 0.6, 0.4])
    both = np.concatenate([before, now])
    sums = np.array([both[list(mine)].sum() for mine in itertools.combinations(range(9), 3)])
    exact = (sums > now.sum() + 1e-9).mean() + (np.abs(sums - now.sum()) < 1e-9).mean() / 2
    (evidence, values), (other, risen) = rows_of({"de": before}), rows_of({"de": now})
    (found,) = drift(evidence, other, values, risen)
    assert found == pytest.approx(exact, abs=0.01)  # 2,000 orders: three standard errors
    (back,) = drift(other, evidence, risen, values)
    assert back == pytest.approx(1 - exact, abs=0.01)


def test_drift_is_against_the_own_language_and_domain_if_the_reference_has_it():
    rng = np.random.default_rng(6)
    news, law = Segment("de", "news"), Segment("de", "law")
    reference = Evidence((news, law, Segment("ja")), np.repeat([0, 1, 2], 300))
    levels = rng.random(900) * 0.2 + np.repeat([0.1, 0.5, 0.8], 300)
    production = Evidence((law, Segment("de", "mail"), Segment("pt")), np.repeat([0, 1, 2], 300))
    same = np.concatenate([rng.random(300) * 0.2 + 0.5, rng.random(600) * 0.2 + 0.4])
    of_law, of_mail, of_pt = drift(reference, production, levels, same)
    assert of_law > 0.05
    assert of_mail < 1e-6  # against all of de, whose mean is 0.4
    assert of_pt is None


def test_rows_of_several_texts_drift_as_those_do():
    rng = np.random.default_rng(7)
    reference, production = rng.integers(0, 5, 300) / 4, rng.integers(0, 5, 80) / 4 * 0.9 + 0.1
    evidence, values = rows_of({"de": reference})
    other, risen = rows_of({"de": production})
    (plain,) = drift(evidence, other, values, risen)
    found, counts = np.unique(risen, return_counts=True)
    short = replace(other.take(np.arange(len(found))), count=counts)
    assert drift(evidence, short, values, found) == [pytest.approx(plain, abs=1e-12)]
    assert 0 < plain < 0.5


def with_traffic(rng: np.random.Generator, n: int, *, risen: float = 0.0) -> tuple[Evidence, np.ndarray]:
    """Errors of 0.2 and more in texts of much traffic, a tenth of all; these stand for half of it."""
    busy = np.arange(n) < n / 10
    values = (rng.random(n) < 0.2 + risen * busy).astype(float)
    return Evidence((Segment("de"),), np.zeros(n, int), weight=np.where(busy, 9.0, 1.0)), values


def test_drift_in_the_texts_of_much_traffic_counts_by_their_traffic():
    rng = np.random.default_rng(8)
    reference, before = with_traffic(rng, 1000)
    production, now = with_traffic(rng, 1000, risen=0.4)
    (found,) = drift(reference, production, before, now)
    (even,) = drift(replace(reference, weight=None), replace(production, weight=None), before, now)
    assert found < 1e-6 < even
    # Traffic of production may be counted in another unit than that of the reference.
    other = replace(production, weight=production.weight * 1e6)
    assert drift(reference, other, before, now) == [pytest.approx(found)]


@pytest.mark.parametrize("sizes", [(400, 12), (400, 40), (400, 300), (30, 30)])
def test_uneven_traffic_alone_is_no_drift(sizes):
    rng, false, trials = np.random.default_rng(sizes), 0, 300
    for _ in range(trials):
        (reference, before), (production, now) = (with_traffic(rng, n) for n in sizes)
        (found,) = drift(reference, production, before, now)
        false += found <= 0.05
    assert false / trials <= 0.05 + 0.025  # two standard errors


def test_texts_without_traffic_and_texts_of_one_source_show_no_drift():
    evidence, values = rows_of({"de": np.repeat([0.0, 1.0], 50)})
    silent = replace(evidence, weight=np.repeat([1.0, 0.0], 50))
    assert drift(evidence, silent, values, values)[0] > 0.9  # what is wrong there nobody asked for
    assert drift(evidence, replace(evidence, keys=np.zeros(100, int)), np.zeros(100), values) == [1.0]
