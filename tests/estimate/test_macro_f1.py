"""Macro F1 from a few labels: what is counted, that intervals cover, and what the unlabelled texts add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.expected_counts import Expected, counts_of, expected_labels, macro_f1, mistakes_of
from sabir.metrics import METRICS

MACRO_F1 = ESTIMATORS.get("ppi-macro-f1").function
K = 4
DE = Segment("de")


def draw(rng: np.random.Generator, n: int, error: float, labelled: int) -> Evidence:
    """Four uneven labels; the model, and four members that find the same texts hard."""
    truth = rng.choice(K, n, p=[0.4, 0.3, 0.2, 0.1])
    hard = rng.beta(0.7 * error, 0.7 * (1 - error), n)
    given = (truth[:, None] + (rng.random((n, 5)) < hard[:, None]) * rng.integers(1, K, (n, 5))) % K
    answer, known = given[:, 0], np.arange(n) < labelled
    return Evidence(
        (DE,),
        np.zeros(n, int),
        agreement=(given[:, 1:] == answer[:, None]).astype(float),
        answer=answer,
        truth=np.where(known, truth, -1),
        error=np.where(known, answer != truth, np.nan),
    )


@pytest.fixture(scope="module")
def reference() -> Evidence:
    return draw(np.random.default_rng(0), 2000, 0.15, 2000)


def test_from_labels_alone_it_is_the_metric():
    evidence = draw(np.random.default_rng(1), 120, 0.3, 120)
    entry = METRICS.get("macro_f1")
    names = ["a", "b", "c", "d"]
    answers, truth = ([names[i] for i in codes] for codes in (evidence.answer, evidence.truth))
    rows = entry.function(answers, truth, labels=tuple(names))
    (found,) = MACRO_F1(evidence, evidence, level=0.9)
    assert found.error == pytest.approx(1 - entry.facts["value"](rows.mean(axis=0)), abs=1e-12)
    assert found.how == "bootstrap of 120 labels"


def test_an_answer_that_is_no_label_is_a_hit_of_none():
    answers, expected = np.array([0, 1, -1]), np.array([0.2, 0.0, 0.3])
    mistakes = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    shares = expected_labels(answers, expected, mistakes)
    assert shares.tolist() == [[0.8, 0.1, 0.1], [0, 1, 0], [0.2, 0.3, 0.5]]
    hits, predicted, actual = np.split(counts_of(answers, shares), 3, axis=1)
    assert hits.tolist() == [[0.8, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert predicted.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert actual.tolist() == shares.tolist()


def test_mistakes_are_the_references_with_each_counted_once_more(reference):
    evidence = Evidence(
        (DE,),
        np.zeros(5, int),
        answer=np.array([0, 0, 0, 0, -1]),
        truth=np.array([1, 1, 2, 0, 2]),
        count=np.array([1, 2, 1, 9, 4]),
    )
    assert mistakes_of(evidence, 3) == pytest.approx(
        np.array([[0, 4 / 6, 2 / 6], [0.5, 0, 0.5], [0.5, 0.5, 0], [1 / 7, 1 / 7, 5 / 7]])
    )


def test_the_rest_has_the_mean_and_the_covariance_of_its_texts(reference):
    rng = np.random.default_rng(2)
    texts = replace(draw(rng, 500, 0.3, 0), weight=rng.exponential(size=500))
    expected, mistakes = rng.random(500), mistakes_of(reference, K)
    rest = Expected.of(texts, np.ones(500, bool), expected, mistakes)
    counts = counts_of(texts.answer, expected_labels(texts.answer, expected, mistakes))
    mean = np.average(counts, axis=0, weights=texts.weight)
    assert rest.mean == pytest.approx(mean, abs=1e-12)
    pulls = texts.weight[:, None] * (counts - mean) / texts.weight.sum()
    assert rest.counts.T @ rest.covariance @ rest.counts == pytest.approx(pulls.T @ pulls, abs=1e-12)
    doubled = Expected.of(replace(texts, count=np.full(500, 2)), np.ones(500, bool), expected, mistakes)
    assert doubled.covariance == pytest.approx(rest.covariance / 2, abs=1e-15)
    assert doubled.mean == pytest.approx(rest.mean, abs=1e-12)


def trials(rng: np.random.Generator, number: int, n: int, error: float) -> Evidence:
    """As many segments, each of n labelled texts and 1,000 others."""
    rows = n + 1000
    found = draw(rng, number * rows, error, number * rows)
    known = np.tile(np.arange(rows) < n, number)
    return replace(
        found,
        segments=tuple(Segment(f"x{i:04}") for i in range(number)),
        segment=np.repeat(np.arange(number), rows),
        truth=np.where(known, found.truth, -1),
        error=np.where(known, found.error, np.nan),
    )


TRIALS = {20: 50, 50: 500, 200: 300, 500: 150}


@pytest.mark.parametrize("error", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("n", TRIALS)
def test_intervals_cover_where_there_are_any(reference, n, error):
    everything = draw(np.random.default_rng(3), 300_000, error, 300_000)
    truth = 1 - macro_f1(counts_of(everything.answer, np.eye(K)[everything.truth]).mean(axis=0))
    production = trials(np.random.default_rng([n, round(100 * error)]), TRIALS[n], n, error)
    found = MACRO_F1(reference, production, level=0.95)
    assert all(one.error is not None for one in found)
    held = [one.low <= truth <= one.high for one in found if one.low is not None]
    # Five errors of 50 texts are rare where one text of 50 is wrong: nothing is said there.
    least = {(20, error): 0, (50, 0.02): 0, (50, 0.1): 0.5, (200, 0.02): 0.3}.get((n, error), 0.9)
    assert len(held) >= least * len(found)
    if least:
        assert np.mean(held) >= 0.9
    else:
        assert len(held) <= 0.01 * len(found)


def test_there_is_an_interval_from_50_labels_with_five_errors_and_five_right_answers_on(reference):
    def of(n, wrong):
        truth = np.arange(n) % K
        answer = (truth + (np.arange(n) < wrong)) % K
        return Evidence((DE,), np.zeros(n, int), answer=answer, truth=truth, error=(answer != truth) * 1.0)

    def how(evidence):
        (found,) = MACRO_F1(reference, evidence, level=0.9)
        assert found.error is not None
        assert (found.low is None) == (found.high is None) == ("no interval" in found.how)
        return found.how.partition(", no interval: ")[2]

    assert how(of(50, 5)) == how(of(50, 45)) == ""
    assert how(of(49, 10)) == "49 independent labels, at least 50 are needed"
    assert how(of(50, 4)) == "4 errors among them, at least 5 are needed"
    assert how(of(50, 47)) == "3 right answers among them, at least 5 are needed"
    pairs = replace(of(98, 10), keys=np.arange(98) // 2)
    assert how(pairs) == "49 independent labels, at least 50 are needed"


def test_from_200_labels_the_unlabelled_texts_narrow_the_interval(reference):
    rng, widths = np.random.default_rng(4), []
    for _ in range(10):
        helped = draw(rng, 2200, 0.2, 200)
        alone = replace(helped, agreement=None)
        (with_members,), (without,) = (MACRO_F1(reference, one, level=0.95) for one in (helped, alone))
        assert with_members.how.startswith("prediction-powered bootstrap from 200 labels, λ ")
        assert without.how == "bootstrap of 200 labels"
        widths.append((with_members.high - with_members.low) / (without.high - without.low))
    assert np.mean(widths) < 0.8


def test_below_200_labels_the_labels_speak_alone_and_below_20_nothing_is_said(reference):
    rng = np.random.default_rng(5)
    (alone,) = MACRO_F1(reference, draw(rng, 900, 0.2, 199), level=0.9)
    (few,) = MACRO_F1(reference, draw(rng, 900, 0.2, 19), level=0.9)
    (none,) = MACRO_F1(reference, draw(rng, 900, 0.2, 0), level=0.9)
    (unknown,) = MACRO_F1(reference, Evidence((DE,), np.zeros(9, int)), level=0.9)
    assert alone.how == "bootstrap of 199 labels"
    assert (few.error, few.how, few.n_labelled) == (None, "too few labels (19; at least 20)", 19)
    assert (none.error, none.how) == (unknown.error, unknown.how) == (None, "no labels")


def test_rare_labels_are_named(reference):
    evidence = draw(np.random.default_rng(6), 300, 0.2, 300)
    known = np.where((evidence.truth == 3) & (np.cumsum(evidence.truth == 3) > 4), -1, evidence.truth)
    (found,) = MACRO_F1(reference, replace(evidence, truth=known), level=0.9)
    assert "rare labels: 1 of 4 have fewer than 5 labelled texts; too narrow an interval" in found.flags
