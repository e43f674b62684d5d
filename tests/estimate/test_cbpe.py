"""Calibrated probabilities come true as often as they say, and so accuracy and macro F1 are what they let expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import f1_score

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.probabilities import calibrated, softmax, temperatures, tempered


def of(probabilities: np.ndarray, answer: np.ndarray, truth: np.ndarray, segments: int = 1) -> Evidence:
    n = len(answer)
    return Evidence(
        tuple(Segment("en", "", f"{i}") for i in range(segments)),
        np.arange(n) * segments // n,
        probabilities=probabilities,
        answer=answer,
        truth=truth,
        confidence=probabilities.max(axis=1),
        error=(answer != truth).astype(float),
    )


def drawn(
    rng: np.random.Generator, n: int, *, hard: float = 2.0, twist: float = 1.0, segments: int = 1
) -> Evidence:
    """Three labels drawn by probabilities p; the model reports p ** twist, normalised; a small `hard` is hard."""
    shares = softmax(rng.normal([0.5, 0.0, -0.5], hard, (n, 3)))
    truth = (shares.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    said = shares**twist / (shares**twist).sum(axis=1, keepdims=True)
    return of(said, said.argmax(axis=1), truth, segments)


def estimate(name, reference, production):
    return ESTIMATORS.get(name).function(reference, production, level=0.9)


def one_less_f1(evidence: Evidence) -> float:
    return 1 - f1_score(evidence.truth, evidence.answer, labels=[0, 1, 2], average="macro", zero_division=0)


@pytest.mark.parametrize("n", [100, 3000], ids=["temperature", "curves"])
@pytest.mark.parametrize("twist", [0.5, 1.0, 3.0])
def test_cbpe_finds_the_error_of_texts_that_got_harder(n, twist):
    # over draws of the reference: the estimate is right on average, and far nearer than "as before"
    off, as_before = [], []
    for seed in range(30):
        rng = np.random.default_rng([seed, n])
        reference, harder = drawn(rng, n, twist=twist), drawn(rng, 4000, hard=1.0, twist=twist)
        off.append(estimate("cbpe", reference, harder.without_labels())[0].error - harder.error.mean())
        as_before.append(reference.error.mean() - harder.error.mean())
    assert abs(np.mean(off)) < 0.02
    assert np.mean(np.abs(off)) < 0.5 * np.mean(np.abs(as_before))


def test_cbpe_macro_f1_finds_the_macro_f1_of_texts_that_got_harder():
    off = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reference, harder = drawn(rng, 3000, twist=2.0), drawn(rng, 4000, hard=1.0, twist=2.0)
        [found] = estimate("cbpe-macro-f1", reference, harder.without_labels())
        off.append(found.error - one_less_f1(harder))
    assert abs(np.mean(off)) < 0.01
    assert np.max(np.abs(off)) < 0.06


def test_macro_f1_of_probabilities_that_are_certain_is_that_of_the_labels():
    truth, answer = np.random.default_rng(1).integers(0, 3, (2, 200))
    evidence = of(np.eye(3)[truth], answer, truth)
    [found] = estimate("cbpe-macro-f1", evidence, evidence.without_labels())
    assert found.error == pytest.approx(one_less_f1(evidence), abs=2e-5)  # 1e-6 is left of a probability of 0


def test_an_answer_that_is_no_label_is_wrong_and_misses_its_label():
    evidence = of(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, -1]), np.array([0, 1, 2, 0]))
    assert estimate("cbpe", evidence, evidence)[0].error == pytest.approx(0.25, abs=1e-4)
    f1 = (2 / 3 + 1 + 1) / 3
    assert estimate("cbpe-macro-f1", evidence, evidence)[0].error == pytest.approx(1 - f1, abs=1e-4)


def test_curves_are_sklearns_isotonic_ones_at_the_temperature_of_the_language():
    rng = np.random.default_rng(2)
    reference, new = drawn(rng, 2000, twist=2.0), drawn(rng, 300, twist=2.0)
    heat = temperatures(reference)
    given, asked = (tempered(one.probabilities, heat.rows(one)) for one in (reference, new))
    curves = [
        IsotonicRegression(out_of_bounds="clip").fit(given[:, k], reference.truth == k).predict(asked[:, k])
        for k in range(3)
    ]
    expected = np.stack(curves, axis=1)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrated(reference)(new), expected, rtol=1e-6, atol=1e-9)


def test_calibrated_rows_are_distributions():
    rng = np.random.default_rng(3)
    for n in (50, 3000):
        found = calibrated(drawn(rng, n, twist=3.0))(drawn(rng, 500, hard=5.0))
        assert ((found >= 0) & (found <= 1)).all()
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_confidence_alone_is_calibrated_against_how_right_answers_were():
    rng = np.random.default_rng(4)
    said = rng.random(5000)
    right = rng.random(5000) < said**2
    reference = Evidence((Segment("en"),), np.zeros(5000, int), confidence=said, error=1.0 - right)
    for level in (0.3, 0.6, 0.9):
        alike = Evidence((Segment("en"),), np.zeros(10, int), confidence=np.full(10, level))
        assert estimate("cbpe", reference, alike)[0].error == pytest.approx(1 - level**2, abs=0.05)


def test_intervals_of_cbpe_hold_the_truth_of_segments_like_those_of_the_reference():
    held = {"cbpe": [], "cbpe-macro-f1": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        reference, production = drawn(rng, 960, segments=12), drawn(rng, 300)
        for name, truth in (("cbpe", production.error.mean()), ("cbpe-macro-f1", one_less_f1(production))):
            [found] = estimate(name, reference, production.without_labels())
            held[name].append(found.low <= truth <= found.high)
    # 30 draws at level 0.9: 22 or fewer come by chance in 1 of 100 tests
    assert {name: sum(hits) >= 23 for name, hits in held.items()} == dict.fromkeys(held, True), held


def test_cbpe_and_its_macro_f1_look_at_no_label_of_production():
    rng = np.random.default_rng(5)
    reference, production = drawn(rng, 800), drawn(rng, 300)
    lied = replace(production, truth=2 - production.truth, error=1 - production.error)
    for name in ("cbpe", "cbpe-macro-f1"):
        ours, theirs = (estimate(name, reference, one)[0].error for one in (production, lied))
        assert ours == theirs
