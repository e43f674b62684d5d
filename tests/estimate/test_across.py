"""Intervals across segments: by what they are made, and what is left out for them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from mistakes_of_models import evidence
from scipy import stats

from sabir.estimate.across import across_segments, part_left_out, predicted_apart
from sabir.estimate.agreement import disagreements
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.folds import OF_BACKTESTS, OF_INTERVALS, halves


def segments_of(errors: dict[tuple[str, str], list[float]], **columns) -> Evidence:
    names = tuple(Segment(*name) for name in errors)
    segment = np.repeat(np.arange(len(names)), [len(one) for one in errors.values()])
    return Evidence(
        names, segment, error=np.concatenate([np.array(one, float) for one in errors.values()]), **columns
    )


def of_languages(*shares: float, n: int = 50) -> Evidence:
    """A language for each share of errors."""
    return segments_of(
        {
            (f"x{i}", ""): [1.0] * round(share * n) + [0.0] * round((1 - share) * n)
            for i, share in enumerate(shares)
        }
    )


def unlabelled(n: int = 50, language: str = "new", domain: str = "") -> Evidence:
    return Evidence((Segment(language, domain),), np.zeros(n, int))


def mean_of_segments(reference):
    """As if all segments were alike: the mean of theirs."""
    mean = reference.mean(reference.error)[reference.total(reference.labelled.astype(float)) > 0].mean()
    return lambda asked: np.full(len(asked.segments), mean)


def estimate(reference, production, *, fit=mean_of_segments, level=0.9):
    return across_segments("x", fit, reference, production, level=level)


SHARES = (0.04, 0.1, 0.12, 0.2, 0.26, 0.3, 0.3, 0.34, 0.42, 0.5)


def residuals(shares):
    """Of leaving one out of these, where the others' mean is the estimate."""
    return [one - (sum(shares) - one) / (len(shares) - 1) for one in shares]


@pytest.mark.parametrize(("number", "level"), [(4, 0.9), (5, 0.9), (8, 0.9), (4, 0.99), (5, 0.95)])
def test_few_segments_give_students_interval_of_their_residuals(number, level):
    shares = SHARES[:number]
    (found,) = estimate(of_languages(*shares), unlabelled(), level=level)
    scale = math.sqrt(np.mean(np.square(residuals(shares))))
    half = stats.t(number - 2).ppf((1 + level) / 2) * scale
    assert found.error == pytest.approx(np.mean(shares))
    assert (found.low, found.high) == pytest.approx((max(0, np.mean(shares) - half), np.mean(shares) + half))
    assert found.how == f"regression-t over {number} labelled languages"


def test_nine_segments_give_the_largest_residual_and_more_the_one_of_its_rank():
    (nine,) = estimate(of_languages(*SHARES[:9]), unlabelled())
    assert nine.high - nine.error == pytest.approx(max(map(abs, residuals(SHARES[:9]))))
    assert nine.how == "residuals of 9 labelled languages, each left out in turn"
    (ten,) = estimate(of_languages(*SHARES), unlabelled())
    *_, second, largest = sorted(map(abs, residuals(SHARES)))
    assert ten.high - ten.error == pytest.approx(0.1 * second + 0.9 * largest)  # rank 11 * 0.9 = 9.9


def test_at_95_percent_the_order_is_used_from_19_segments_on():
    shares = [0.02 * i for i in range(19)]
    assert estimate(of_languages(*shares[:18]), unlabelled(), level=0.95)[0].how.startswith("regression-t")
    assert estimate(of_languages(*shares), unlabelled(), level=0.95)[0].how.startswith("residuals of 19")


@pytest.mark.parametrize("number", [1, 3])
def test_too_few_segments_give_no_interval_and_say_so(number):
    (found,) = estimate(of_languages(*SHARES[:number]), unlabelled(language="x0"))
    assert (found.low, found.high) == (None, None)
    assert found.how == f"too few labelled segments ({number}; at least 4)"
    assert found.error == pytest.approx(np.mean(SHARES[:number]))


def test_segments_that_could_not_be_estimated_are_not_said_to_lack_labels():
    def fit(reference):
        return lambda asked: np.array([np.nan if one.language != "new" else 0.2 for one in asked.segments])

    (found,) = estimate(of_languages(*SHARES[:5]), unlabelled(), fit=fit)
    assert (found.error, found.low, found.high) == (0.2, None, None)
    assert found.how == "of 5 labelled languages 0 could be estimated; at least 4 are needed"


def test_a_smaller_segment_has_a_wider_interval_by_its_sampling_error():
    shares = (0.2, 0.22, 0.24, 0.26, 0.28)
    reference = of_languages(*shares)
    (large,), (small,) = (estimate(reference, unlabelled(n)) for n in (50, 10))
    t = stats.t(3).ppf(0.95)
    within = sum(50 * one * (1 - one) for one in shares) / (250 - 5)
    added = t**2 * within * (1 / 10 - 1 / 50)
    assert (small.high - small.error) ** 2 == pytest.approx((large.high - large.error) ** 2 + added)
    assert estimate(reference, unlabelled(10_000))[0].high == pytest.approx(large.high)


def test_intervals_are_made_of_shares():
    (found,) = estimate(of_languages(0.0, 0.0, 1.0, 1.0, 0.5), unlabelled())
    assert (found.low, found.high) == (0, 1)


def test_where_nothing_can_be_said_nothing_is_said():
    (found,) = estimate(
        of_languages(*SHARES[:5]), unlabelled(), fit=lambda _: lambda asked: np.array([np.nan])
    )
    assert (found.error, found.low, found.high) == (None, None, None)


def test_beyond_what_was_seen_the_outer_bound_alone_is_further_off():
    reference = evidence(np.random.default_rng(0), [0.1, 0.12, 0.14, 0.16, 0.2], [0.3] * 5, 400)
    inside = replace(reference.of(Segment("x002")).without_labels(), segments=(Segment("new"),))
    beyond = replace(inside, agreement=np.full_like(inside.agreement, 0.6))
    (usual,), (far,) = (estimate(reference, one, fit=lambda _: disagreements) for one in (inside, beyond))
    half = usual.high - usual.error
    out = far.error - disagreements(reference).max()
    assert out > 0.1
    assert far.error - far.low == pytest.approx(half, rel=1e-6)
    assert far.high - far.error == pytest.approx(math.hypot(half, stats.t(3).ppf(0.95) * out), rel=1e-6)


def test_an_interval_also_holds_what_it_would_be_if_the_language_were_unknown():
    reference = of_languages(*SHARES[:5])
    constant = ESTIMATORS.get("constant").function
    (known,) = constant(reference, unlabelled(language="x0"), level=0.9)
    (stranger,) = constant(reference, unlabelled(language="new"), level=0.9)
    assert known.error == pytest.approx(SHARES[0])
    assert known.high == pytest.approx(stranger.high)
    assert known.high - known.error > stranger.high - stranger.error


# -- what is left out ----------------------------------------------------------------------------------------

GRID = {
    (language, domain): [0.0, 1.0]
    for language in ("de", "en", "fr", "ja", "zh")
    for domain in ("a", "b", "c", "d")
}


class Spy:
    """A fit that keeps what it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, reference):
        def predict(asked):
            self.seen.append((reference, asked))
            return np.full(len(asked.segments), 0.5)

        return predict

    def left_out(self):
        return [(reference, asked) for reference, asked in self.seen if reference is not self.seen[0][0]]


@pytest.mark.parametrize(
    ("language", "domain", "part", "folds"),
    [
        ("de", "a", "segments", 20),
        ("de", "", "segments", 20),
        ("xx", "a", "languages", 5),
        ("xx", "", "languages", 5),
        ("de", "z", "domains", 4),
        ("xx", "z", "languages and domains", 20),
    ],
)
def test_left_out_is_what_the_segment_is_to_the_reference(language, domain, part, folds):
    spy, reference = Spy(), segments_of(GRID)
    (found,) = estimate(reference, unlabelled(50, language, domain), fit=spy)
    assert part_left_out(reference, Segment(language, domain)) == part
    assert found.how.partition("labelled ")[2].startswith(part)
    assert len(spy.left_out()) == folds
    for rest, held in spy.left_out():
        for one in held.segments:
            assert one not in rest.segments
            if "languages" in part:
                assert one.language not in {other.language for other in rest.segments}
            if "domains" in part:
                assert one.domain not in {other.domain for other in rest.segments}


def test_a_domain_is_not_unknown_where_the_reference_has_none():
    assert part_left_out(of_languages(0.1, 0.2), Segment("x0", "news")) == "segments"


def test_residuals_of_one_language_count_as_one_where_languages_are_left_out():
    found = estimate(segments_of(GRID), unlabelled(language="xx", domain="a"))[0]
    assert found.how == "regression-t over 5 labelled languages"  # of twenty segments
    few = {name: one for name, one in GRID.items() if name[0] in ("de", "en", "fr")}
    assert estimate(segments_of(few), unlabelled(language="xx"))[0].how.startswith(
        "too few labelled languages (3;"
    )


def test_no_estimate_sees_a_label_of_what_it_is_about():
    spy, reference = Spy(), segments_of(GRID)
    production = replace(unlabelled(4, "de", "a"), error=np.array([0, 1, np.nan, np.nan]))
    (found,) = estimate(reference, production, fit=spy)
    assert found.n_labelled == 2
    assert all(asked.error is None for _, asked in spy.seen)


def test_no_estimate_sees_a_translation_of_what_it_is_about():
    reference = segments_of(
        {(f"x{i}", ""): [0.0, 1.0] * 20 for i in range(5)}, keys=np.tile(np.arange(40), 5)
    )
    spy = Spy()
    estimate(reference, unlabelled(), fit=spy)
    assert len(spy.left_out()) == 10  # two halves a language
    asked_about = {}
    for rest, held in spy.left_out():
        assert not set(rest.keys) & set(held.keys)
        assert len(rest.segments) == 4
        asked_about.setdefault(held.segments[0], []).extend(held.keys)
    assert all(sorted(keys) == list(range(40)) for keys in asked_about.values())


def test_texts_that_are_translations_of_none_need_no_halves_and_are_never_left_out():
    held = segments_of({("de", ""): [0, 1, 0]}, keys=np.array(["a", "b", "c"]))
    rest = segments_of({("en", ""): [0, 1, 0]}, keys=np.array(["d", "e", "f"]))
    spy = Spy()
    predicted_apart(spy, rest, held)
    assert [len(one) for one, _ in spy.seen] == [3]
    spy = Spy()
    predicted_apart(spy, replace(rest, keys=np.array(["a", "e", "f"])), held)
    assert all({"e", "f"} <= set(one.keys) for one, _ in spy.seen)


def test_texts_without_a_key_are_nobodys_translations():
    held, rest = (
        segments_of({(name, ""): [0, 1, 0]}, keys=np.array(["a", None, None], dtype=object))
        for name in ("de", "en")
    )
    spy = Spy()
    predicted_apart(spy, rest, held)
    assert [len(one) for one, _ in spy.seen if len(one) < 3] == [2]  # where "a" was asked about
    assert sum(len(one) for _, one in spy.seen) == 3


def test_what_one_coin_has_parted_another_parts_anew():
    keys = np.array([f"{i}" for i in range(400)])
    first, second = (halves(keys, coin=coin) for coin in (OF_BACKTESTS, OF_INTERVALS))
    for mine in (first, ~first):
        assert 160 < mine.sum() < 240
        assert 70 < second[mine].sum() < 130
    assert halves(keys[::-1], coin=OF_BACKTESTS).tolist() == first[::-1].tolist()


def test_few_shared_texts_are_left_out_and_nothing_is_halved():
    held, rest = (
        segments_of({(name, ""): [0.0, 1.0] * 5}, keys=np.array(["both", *(f"{name} {i}" for i in range(9))]))
        for name in ("de", "en")
    )
    spy = Spy()
    predicted_apart(spy, rest, held)
    assert [(len(one), len(asked)) for one, asked in spy.seen] == [(9, 10)]


def test_halves_count_by_their_texts():
    keys = np.array([f"{i}" for i in range(30)])
    both = segments_of({("de", ""): [0.0] * 30}, keys=keys)
    found = predicted_apart(
        lambda rest: lambda asked: np.array([len(asked) / 30]),
        segments_of({("en", ""): [0.0] * 30}, keys=keys),
        both,
    )
    sizes = []
    predicted_apart(lambda rest: lambda asked: sizes.append(len(asked)) or np.zeros(1), both, both)
    assert sum(sizes) == 30
    assert found[0] == pytest.approx(sum((one / 30) ** 2 for one in sizes))
