"""Counted rows say of each segment what its texts, one by one, say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sabir.estimate.agreement import among_labels, disagreement, of_labels
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.tally import Tally

SEGMENTS = (Segment("de", "news"), Segment("en"), Segment("ja", "web", "may"))


def drawn(n: int, members: int, *, labels: int = 4, seed: int = 0, labelled: bool = False) -> Evidence:
    """Answers that are each other's in half the cases; some are missing."""
    rng = np.random.default_rng(seed)
    model, gold = rng.integers(0, labels, (2, n))
    others = np.where(rng.random((n, members)) < 0.5, model[:, None], rng.integers(-1, labels, (n, members)))
    error = np.where(rng.random(n) < 0.8, (model != gold).astype(float), np.nan)
    return Evidence(
        SEGMENTS,
        rng.integers(0, len(SEGMENTS), n),
        agreement=of_labels(model, others),
        pairs=among_labels(others),
        error=error if labelled else None,
        member_error=(others != gold[:, None]) + 0 * error[:, None] if labelled else None,
    )


def texts(evidence: Evidence) -> Counter[tuple]:
    """What is known of each text, counted: the slow way, by Python's own equality."""
    values = np.column_stack(
        [
            getattr(evidence, name)
            for name in ("agreement", "pairs", "error", "member_error")
            if getattr(evidence, name) is not None
        ]
    )
    found: Counter[tuple] = Counter()
    for place, row, count in zip(evidence.segment, values, evidence.counts, strict=True):
        found[evidence.segments[place], *(None if np.isnan(x) else float(x) for x in row)] += int(count)
    return found


@pytest.mark.parametrize(
    ("members", "labelled"),
    [(1, False), (5, False), (5, True), (12, True)],
    ids=["1", "5", "5 gold", "12 gold"],
)
def test_pieces_of_any_size_are_counted_as_their_texts_are(members, labelled):
    # 12 members make 91 columns of three states: 3 ** 91 rows would not fit a 64-bit number
    whole = drawn(3000, members, labelled=labelled)
    tally = Tally()
    for rows in np.array_split(np.arange(3000), [0, 1, 700, 701, 2500]):
        tally.add(whole.take(rows))
    counted = tally.evidence()
    assert texts(counted) == texts(whole)
    assert len(counted) == len(texts(whole))


def test_means_of_a_segment_are_those_of_its_texts():
    whole = drawn(5000, 5, labelled=True)
    tally = Tally()
    tally.add(whole)
    counted = tally.evidence()
    assert counted.segments == whole.segments
    assert len(counted) < len(whole)
    np.testing.assert_array_equal(counted.n, whole.n)
    np.testing.assert_allclose(counted.mean(counted.error), whole.mean(whole.error), rtol=1e-12)
    for name in ("agreement", "pairs"):
        ours, theirs = (one.mean(disagreement(getattr(one, name))) for one in (counted, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_six_labellers_agree_in_203_ways_at_most():
    # partitions of six things, https://oeis.org/A000110
    tally = Tally()
    rng = np.random.default_rng(1)
    for _ in range(20):
        answers = rng.integers(0, 6, (20_000, 6))
        model, members = answers[:, 0], answers[:, 1:]
        tally.add(
            Evidence(
                (Segment("en"),),
                np.zeros(20_000, int),
                agreement=of_labels(model, members),
                pairs=among_labels(members),
            )
        )
    assert len(tally.evidence()) == 203
    assert tally.evidence().n.tolist() == [400_000]


def test_tallies_add_up_whatever_their_order():
    one, other = drawn(800, 3, seed=1), drawn(900, 3, seed=2)
    both = {}
    for order in ((one, other), (other, one)):
        whole = Tally()
        for part in order:
            apart = Tally()
            apart.add(part)
            whole.add(apart.evidence())
        both[id(order[0])] = whole.evidence()
    first, second = both.values()
    assert texts(first) == texts(second) == texts(one) + texts(other)


def test_segments_come_in_the_order_of_their_names():
    tally = Tally()
    piece = drawn(50, 2)
    tally.add(replace(piece, segments=(Segment("zh"), Segment("de", "b"), Segment("de", "a"))))
    evidence = tally.evidence()
    assert evidence.segments == (Segment("de", "a"), Segment("de", "b"), Segment("zh"))
    np.testing.assert_array_equal(evidence.n, piece.n[[2, 1, 0]])


def test_an_empty_tally_is_evidence_of_nothing():
    assert len(Tally().evidence()) == 0
    assert Tally().evidence().segments == ()


def test_what_cannot_be_counted_is_refused():
    piece = drawn(10, 2)
    tally = Tally()
    with pytest.raises(ValueError, match="a tally does not keep confidence"):
        tally.add(replace(piece, confidence=np.full(10, 0.5)))
    with pytest.raises(ValueError, match=r"agreement holds 0\.5; a tally keeps 0, 1 and NaN"):
        tally.add(replace(piece, agreement=np.full((10, 2), 0.5)))
    tally.add(piece)
    with pytest.raises(
        ValueError, match="a piece has 3 of agreement, 3 of pairs; those before it had 2 of agreement"
    ):
        tally.add(drawn(10, 3))
