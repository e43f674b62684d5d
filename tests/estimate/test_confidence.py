"""What a model's confidence says of its error: softmax, temperatures, and the estimators confidence, doc and atc."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.special import softmax as scipy_softmax

from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.estimators.atc import threshold
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.probabilities import confidences, softmax, temperatures, tempered


def estimated(name: str, reference: Evidence, production: Evidence) -> list[float | None]:
    estimates = ESTIMATORS.get(name).function(reference, production, level=0.9)
    assert [one.segment for one in estimates] == list(production.segments)
    return [one.error for one in estimates]


def of(confidence: np.ndarray, error: np.ndarray | None = None, language: str = "en") -> Evidence:
    return Evidence((Segment(language),), np.zeros(len(confidence), int), confidence=confidence, error=error)


def together(*parts: Evidence) -> Evidence:
    """Evidence of one segment each as one; what the first part knows."""
    names = ("confidence", "probabilities", "answer", "truth", "error")
    known = [name for name in names if getattr(parts[0], name) is not None]
    return Evidence(
        tuple(one.segments[0] for one in parts),
        np.repeat(np.arange(len(parts)), [len(one) for one in parts]),
        **{name: np.concatenate([getattr(one, name) for one in parts]) for name in known},
    )


def labelled(
    rng: np.random.Generator, n: int, temperature: float, language: str = "en", labels: int = 4
) -> Evidence:
    """Texts whose labels are drawn by the softmax of logits; the model reports these logits times temperature."""
    logits = rng.normal(0, 2, (n, labels))
    true = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    said = softmax(logits * temperature)
    answer = said.argmax(axis=1)
    return Evidence(
        (Segment(language),),
        np.zeros(n, int),
        probabilities=said,
        confidence=said.max(axis=1),
        answer=answer,
        truth=true,
        error=(answer != true).astype(float),
    )


# Probabilities


def test_softmax_is_scipys_also_of_numbers_that_overflow_and_of_missing_options():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 5, (50, 6)) - np.where(rng.random((50, 1)) < 0.5, 2000.0, -2000.0)
    scores[::7, 4:] = -np.inf
    np.testing.assert_allclose(softmax(scores), scipy_softmax(scores, axis=1), rtol=1e-12)
    assert (softmax(scores)[::7, 4:] == 0).all()


def test_a_temperature_divides_the_logits():
    logits = np.random.default_rng(1).normal(0, 1, (20, 3))
    heat = np.linspace(0.5, 3, 20)
    expected = scipy_softmax(logits / heat[:, None], axis=1)
    np.testing.assert_allclose(tempered(softmax(logits), heat), expected, rtol=1e-9)


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.5])
def test_the_temperature_of_many_texts_is_the_one_they_were_made_with(heat):
    found = temperatures(labelled(np.random.default_rng(2), 20_000, heat))
    assert found.pooled == pytest.approx(heat, rel=0.05)
    assert found.languages["en"] == pytest.approx(heat, rel=0.05)


def test_the_pooled_temperature_is_the_likeliest_by_a_general_optimiser():
    evidence = labelled(np.random.default_rng(3), 300, 1.8)

    def loss(log_inverse: float) -> float:
        shares = tempered(evidence.probabilities, np.full(300, np.exp(-log_inverse)))
        return -np.log(shares[np.arange(300), evidence.truth]).sum() + log_inverse**2 / 2

    expected = np.exp(
        -optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    )
    assert temperatures(evidence).pooled == pytest.approx(expected, rel=1e-5)


def test_a_language_of_few_texts_stays_near_the_pool_and_one_of_many_does_not():
    rng = np.random.default_rng(4)
    pool = labelled(rng, 5000, 1.0, "en")
    few, many = labelled(rng, 10, 3.0, "ja"), labelled(rng, 5000, 3.0, "de")
    for other, nearer, further in ((few, 1.0, 3.0), (many, 3.0, 1.0)):
        found = temperatures(together(pool, other))
        own = found.languages[other.segments[0].language]
        assert abs(np.log(own / nearer)) < abs(np.log(own / further))
        assert (
            found.rows(replace(pool, segments=(Segment("xx"),)))[0] == found.pooled
        )  # a language never seen


def test_a_row_counted_five_times_is_five_rows():
    rng = np.random.default_rng(5)
    evidence = labelled(rng, 60, 1.5)
    times = rng.integers(1, 6, 60)
    repeated = evidence.take(np.repeat(np.arange(60), times))
    counted = replace(evidence, count=times)
    assert temperatures(counted).pooled == pytest.approx(temperatures(repeated).pooled, rel=1e-9)
    for name in ("confidence", "doc", "atc", "cbpe"):
        ours, theirs = (estimated(name, one, one)[0] for one in (counted, repeated))
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_no_labels_no_temperature():
    found = temperatures(of(np.array([0.9, 0.8])))
    assert (found.pooled, found.languages["en"]) == (1.0, 1.0)


def test_evidence_without_any_confidence_is_refused():
    with pytest.raises(ValueError, match="neither confidence nor probabilities"):
        temperatures(Evidence((Segment("en"),), np.zeros(2, int), error=np.zeros(2)))


# Average confidence


def test_confidence_is_one_less_its_mean_by_weight():
    production = replace(of(np.array([0.9, 0.5, np.nan])), weight=np.array([3.0, 1.0, 9.0]))
    reference = of(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert estimated("confidence", reference, production) == [pytest.approx(1 - (2.7 + 0.5) / 4)]


# Difference of confidence


def test_doc_moves_the_error_of_the_same_language_by_the_confidence_lost():
    reference = together(
        of(np.array([0.8, 0.6]), np.array([0.0, 1.0]), "de"), of(np.array([0.9]), np.array([0.0]), "en")
    )
    production = together(*(of(np.array([0.65]), language=name) for name in ("de", "en", "ja")))
    pooled = 1 / 3 + (0.8 + 0.6 + 0.9) / 3 - 0.65
    expected = [0.5 + 0.7 - 0.65, 0.0 + 0.9 - 0.65, pooled]
    np.testing.assert_allclose(estimated("doc", reference, production), expected)


def test_doc_gives_the_reference_its_own_error():
    evidence = labelled(np.random.default_rng(6), 200, 2.0)
    assert estimated("doc", evidence, evidence) == [pytest.approx(evidence.error.mean())]


def test_doc_stays_within_the_scale():
    reference = of(np.array([0.2]), np.array([0.0]))
    assert estimated("doc", reference, of(np.array([0.9]))) == [0.0]


# Average thresholded confidence


def test_atc_gives_uniform_scores_that_are_true_the_accuracy_of_the_reference():
    # the vector: scores U(0, 1), each answer right with the probability that is its score
    rng = np.random.default_rng(7)
    scores = rng.random(2000)
    reference = of(scores, (rng.random(2000) > scores).astype(float))
    [error] = estimated("atc", reference, reference)
    assert abs(error - reference.error.mean()) <= 1 / 2000
    fresh = of(rng.random(100_000))  # and others of the same kind, as far as either sample's size allows
    assert estimated("atc", reference, fresh)[0] == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("scores", [np.linspace(0.1, 0.9, 7), np.full(7, 0.5)], ids=["apart", "tied"])
@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_atc_of_a_reference_without_errors_or_without_hits_says_so_of_any_scores(scores, wrong):
    reference = of(scores, np.full(7, wrong))
    for production in (scores, np.full(4, 0.001), np.full(4, 0.999)):
        assert estimated("atc", reference, of(production)) == [wrong]


def test_atc_gives_the_reference_its_own_error_where_scores_tie():
    rng = np.random.default_rng(8)
    scores = rng.choice([0.2, 0.4, 0.6, 0.8, 1.0], 500)  # as the agreement of five members
    reference = of(scores, (rng.random(500) < 0.37).astype(float))
    assert estimated("atc", reference, reference) == [pytest.approx(reference.error.mean(), abs=1e-12)]


def test_an_atc_threshold_has_as_much_below_it_as_is_wrong():
    rng = np.random.default_rng(9)
    for scores in (rng.random(101), rng.choice(np.arange(4.0), 101)):
        weights = rng.random(101)
        errors = (rng.random(101) < 0.3).astype(float)
        found = threshold(scores, errors, weights)
        share = weights @ found.wrong(scores) / weights.sum()
        assert share == pytest.approx(weights @ errors / weights.sum(), abs=1e-12)
        assert weights[scores < found.at].sum() <= weights @ errors <= weights[scores <= found.at].sum()


def test_atc_has_a_threshold_for_each_language():
    rng = np.random.default_rng(10)
    sure, unsure = 0.6 + 0.4 * rng.random(400), 0.6 * rng.random(400)
    parts = [
        of(scores, (rng.random(400) < wrong).astype(float), name)
        for scores, wrong, name in ((sure, 0.4, "de"), (unsure, 0.1, "en"))
    ]
    reference = together(*parts)
    expected = [one.error.mean() for one in parts]
    np.testing.assert_allclose(estimated("atc", reference, reference), expected, atol=1 / 400)
    [unseen] = estimated("atc", reference, replace(parts[0], segments=(Segment("ja"),), error=None))
    assert unseen < expected[0]  # by the threshold of all


def test_scaled_confidence_keeps_the_order_of_texts_of_a_language():
    evidence = of(np.linspace(0.05, 0.95, 40), (np.arange(40) % 3 == 0).astype(float))
    assert (np.diff(confidences(evidence)(evidence)) > 0).all()


@pytest.mark.parametrize("name", ["confidence", "doc", "atc", "cbpe"])
def test_texts_without_confidence_are_left_out(name):
    rng = np.random.default_rng(11)
    whole = of(rng.random(60), (rng.random(60) < 0.5).astype(float))
    missing = rng.random(60) < 0.3
    holes = replace(whole, confidence=np.where(missing, np.nan, whole.confidence))
    ours, theirs = (estimated(name, one, one)[0] for one in (holes, whole.take(~missing)))
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("name", ["confidence", "doc", "atc", "cbpe"])
def test_a_model_far_less_sure_than_on_any_labelled_text_is_flagged(name):
    rng = np.random.default_rng(12)

    def sure(least: float) -> np.ndarray:
        return least + 0.1 * rng.random(200)

    wrong = (np.arange(200) % 3 == 0).astype(float)
    reference = together(of(sure(0.7), wrong, "de"), of(sure(0.8), wrong, "en"))
    production = together(of(sure(0.5), language="de"), of(sure(0.75), language="en"))
    far, near = ESTIMATORS.get(name).function(reference, production, level=0.9)
    assert "extrapolating: mean confidence 0.55, on labelled segments 0.75 to 0.85" in far.flags
    assert not [flag for flag in near.flags if flag.startswith("extrapolating")]


def test_one_text_is_no_sign_of_change():
    reference = of(np.array([0.7, 0.8, 0.9, 0.6] * 20), np.array([0.0, 1.0] * 40))
    [found] = ESTIMATORS.get("doc").function(reference, of(np.array([0.5, 0.95])), level=0.9)
    assert not [flag for flag in found.flags if flag.startswith("extrapolating")]


@pytest.mark.parametrize("name", ["doc", "atc"])
def test_without_a_labelled_text_there_is_nothing_to_say(name):
    reference = of(np.array([0.5, 0.6]), np.full(2, np.nan))
    assert estimated(name, reference, of(np.array([0.5]))) == [None]
