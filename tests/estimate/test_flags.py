"""What to beware of is said where it holds, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mistakes_of_models import evidence

from sabir.estimate.agreement import disagreements
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.flags import general, of_disagreement


@pytest.fixture
def reference():
    return evidence(np.random.default_rng(0), [0.1, 0.15, 0.2, 0.25, 0.3], [0.3] * 5, 200)


def of(language="x000", domain="", *, agreement=None, n=200):
    """Texts of one segment; each row of them all if agreement is one row."""
    segment = Segment(language, domain)
    if agreement is None:
        return Evidence((segment,), np.zeros(n, int))
    return Evidence(
        (segment,), np.zeros(n, int), agreement=np.broadcast_to(agreement, (n, np.shape(agreement)[-1]))
    )


def alike(reference):
    """Texts like those of a segment in the middle of the reference, as of a language that it has."""
    return reference.of(Segment("x002")).without_labels()


def test_where_all_is_as_it_was_nothing_is_said(reference):
    assert general(reference, alike(reference)) == [()]
    assert of_disagreement(reference, alike(reference)) == [()]


@pytest.mark.parametrize(("n", "found"), [(20, ()), (19, ("small: 19 texts",)), (1, ("small: 1 text",))])
def test_a_small_segment_is_named(reference, n, found):
    assert general(reference, of(n=n)) == [found]


def test_small_is_by_texts_and_not_by_rows(reference):
    assert general(reference, replace(of(n=2), count=np.array([10, 10]))) == [()]


@pytest.mark.parametrize(("number", "found"), [(4, ()), (3, ("few references: 3 labelled segments",))])
def test_few_labelled_segments_are_counted(reference, number, found):
    few = replace(reference, error=np.where(reference.segment < number, reference.error, np.nan))
    assert general(few, of()) == [found]


def test_without_a_label_there_is_no_reference(reference):
    assert general(reference.without_labels(), of()) == [("no reference: none of its texts is labelled",)]


def test_a_language_without_labels_is_unseen(reference):
    assert general(reference, of("new")) == [
        ("unseen language: the reference has x000, x001, x002, x003, x004",)
    ]
    unlabelled = replace(reference, error=np.where(reference.segment > 0, reference.error, np.nan))
    assert general(unlabelled, of("x000")) == [("unseen language: the reference has x001, x002, x003, x004",)]


def test_a_domain_is_unseen_only_where_the_reference_has_others(reference):
    news = replace(reference, segments=tuple(replace(one, domain="news") for one in reference.segments))
    assert general(news, of(domain="mail")) == [("unseen domain: the reference has news",)]
    assert general(news, of(domain="news")) == [()]
    assert general(news, of()) == [()]
    assert general(reference, of(domain="mail")) == [()]


@pytest.mark.parametrize("agreement", [[0, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
def test_disagreement_outside_what_labelled_segments_have_is_extrapolation(reference, agreement):
    (found,) = of_disagreement(reference, of(agreement=agreement))
    seen = disagreements(reference)
    said = f"{1 - np.mean(agreement):.2f}, on labelled segments {seen.min():.2f} to {seen.max():.2f}"
    assert found == (f"extrapolating: members disagree {said}",)


def test_what_chance_does_to_few_texts_is_no_extrapolation(reference):
    """Of samples of the segment that disagrees most half are beyond it, and few by two standard errors."""
    most = reference.of(Segment("x004"))
    rng = np.random.default_rng(1)
    samples = [most.take(rng.integers(0, len(most), 20)) for _ in range(300)]
    assert sum(disagreements(one)[0] > disagreements(reference).max() for one in samples) > 120
    assert sum(bool(of_disagreement(reference, one)[0]) for one in samples) <= 15


def test_one_member_is_named(reference):
    one = replace(reference, agreement=reference.agreement[:, :1])
    (found,) = of_disagreement(one, replace(alike(reference), agreement=alike(reference).agreement[:, :1]))
    assert found == ("one member: what it alone gets wrong counts as the model's mistake",)


def test_members_that_all_say_the_same_are_named(reference):
    def copied(evidence):
        return replace(evidence, agreement=np.repeat(evidence.agreement[:, :1], 3, axis=1))

    (found,) = of_disagreement(copied(reference), copied(alike(reference)))
    assert found == ("members all say the same: they are worth one member",)
    differing = replace(copied(reference), pairs=np.zeros((len(reference), 3)))
    assert of_disagreement(differing, copied(alike(reference))) == [()]


def test_members_that_never_contradict_teach_nothing(reference):
    yes = replace(reference, agreement=np.ones_like(reference.agreement))
    (found,) = of_disagreement(yes, of(agreement=[1, 1, 1, 1, 1]))
    assert "nothing to learn from: members disagree alike on every labelled text" in found


def test_a_segment_without_an_answer_is_named_and_has_no_estimate(reference):
    silent = of("x001", agreement=[np.nan] * 5)
    assert of_disagreement(reference, silent) == [("no answers: no member has one",)]
    (found,) = ESTIMATORS.get("calibrated-disagreement").function(reference, silent, level=0.9)
    assert (found.error, found.low, found.high) == (None, None, None)
    assert found.how == "nothing to estimate it from"


@pytest.mark.parametrize("name", ["disagreement", "calibrated-disagreement", "constant"])
def test_estimates_carry_the_flags_of_their_kind(reference, name):
    (found,) = ESTIMATORS.get(name).function(reference, of("new", agreement=[0, 0, 0, 0, 0], n=5), level=0.9)
    assert [one.partition(":")[0] for one in found.flags] == [
        "small",
        "unseen language",
        *(["extrapolating"] if name != "constant" else []),
    ]
