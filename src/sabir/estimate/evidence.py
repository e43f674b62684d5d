"""What is known of one model's answers to some texts, as plain arrays: what estimators read and give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, order=True)
class Segment:
    """Texts that are judged together: of one language, one domain and one stretch of time; "" where nothing is said."""

    language: str
    domain: str = ""
    window: str = ""

    def __str__(self) -> str:
        """ "de/books/2026-11", without what is not said."""
        return "/".join(part for part in (self.language, self.domain, self.window) if part)


@dataclass(frozen=True)
class Evidence:
    """One model's answers to n texts, held against the answers of M members of an ensemble and whatever else is known.

    A row stands for `count` texts that are equal in everything (10 million texts of five members are some hundred
    rows). What is not known is None.

    Args:
        segments: names of the segments, each once.
        segment: (n,) int, the place of each row's segment.
        agreement: (n, M) in [0, 1], how far the model's answer is each member's, by the task's own metric; NaN where a
            member has no answer.
        pairs: (n, M * (M - 1) / 2) in [0, 1], how far the members agree among each other, in the order (0, 1), (0, 2),
            ..., (1, 2), ...
        member_error: (n, M) in [0, 1], the error of each member where the row is labelled, else NaN.
        confidence: (n,) in [0, 1], the model's probability of its own answer.
        probabilities: (n, K), of each of K labels; rows sum to 1.
        answer: (n,) int, the model's label of those K; -1 where it is none.
        truth: (n,) int, the gold label of those K; -1 where the row is not labelled.
        judged: (n,) in [0, 1], how far the answer is the judge's; NaN where the judge has none.
        error: (n,) in [0, 1], the error where the row is labelled, else NaN.
        keys: (n,) what a text has in common with others: texts of one key are translations or parts of one source.
        count: (n,) int, how many texts a row stands for; None: one each.
        weight: (n,) the traffic that each text of a row stands for; None: 1 each.
        inclusion: (n,) in (0, 1], the probability with which the row was chosen for labelling; None: all alike.
    Raises ValueError for arrays that are not of one length, and values out of range.
    """

    segments: tuple[Segment, ...]
    segment: np.ndarray
    agreement: np.ndarray | None = None
    pairs: np.ndarray | None = None
    member_error: np.ndarray | None = None
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    answer: np.ndarray | None = None
    truth: np.ndarray | None = None
    judged: np.ndarray | None = None
    error: np.ndarray | None = None
    keys: np.ndarray | None = None
    count: np.ndarray | None = None
    weight: np.ndarray | None = None
    inclusion: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != len(self.segment):
                raise ValueError(f"{name} has {len(value)} rows, segment has {len(self.segment)}")
            if name in _SHARES and ((value < 0) | (value > 1)).any():
                wrong = value[(value < 0) | (value > 1)].flat[0]
                raise ValueError(f"{name} holds {wrong:g}; expected numbers in [0, 1]")
        if len(self.segment) and not 0 <= self.segment.min() <= self.segment.max() < len(self.segments):
            raise ValueError(f"segment holds {self.segment.max()}; there are {len(self.segments)} segments")
        if len(set(self.segments)) != len(self.segments):
            raise ValueError(f"segments holds a name twice: {', '.join(map(str, self.segments))}")

    def __len__(self) -> int:
        return len(self.segment)

    @property
    def counts(self) -> np.ndarray:
        """(n,) texts that each row stands for."""
        return np.ones(len(self)) if self.count is None else self.count.astype(float)

    @property
    def weights(self) -> np.ndarray:
        """(n,) what each row counts for in a mean: its texts' traffic together."""
        return self.counts if self.weight is None else self.counts * self.weight

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool, rows whose error is known."""
        return np.zeros(len(self), bool) if self.error is None else ~np.isnan(self.error)

    @property
    def n(self) -> np.ndarray:
        """(S,) texts of each segment."""
        return self.total(self.counts)

    @property
    def effective_n(self) -> np.ndarray:
        """(S,) as many texts of equal traffic say as much (Kish); 0 of an empty segment."""
        squares = self.total(self.counts * (1.0 if self.weight is None else self.weight**2))
        return np.divide(
            self.total(self.weights) ** 2, squares, out=np.zeros(len(squares)), where=squares > 0
        )

    def total(self, values: np.ndarray) -> np.ndarray:
        """(S,) the sum of values, (n,), over the rows of each segment."""
        return np.bincount(self.segment, values, minlength=len(self.segments))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(S,) the weighted mean of values, (n,), over the rows of each segment that have one; NaN where none has."""
        known = ~np.isnan(values)
        weights = np.where(known, self.weights, 0.0)
        whole = self.total(weights)
        sums = self.total(np.where(known, values, 0.0) * weights)
        return np.divide(sums, whole, out=np.full(len(whole), np.nan), where=whole > 0)

    def take(self, rows: np.ndarray) -> Evidence:
        """The rows at these places, or where a mask is True; segments that are left without rows go."""
        chosen = {name: _rows(getattr(self, name), rows) for name in _ARRAYS}
        present, codes = np.unique(chosen.pop("segment"), return_inverse=True)
        return replace(self, segments=tuple(self.segments[i] for i in present), segment=codes, **chosen)

    def of(self, segment: Segment) -> Evidence:
        """The rows of one segment."""
        return self.take(self.segment == self.segments.index(segment))

    def without_labels(self) -> Evidence:
        """The same as if nothing were labelled."""
        return replace(self, error=None, truth=None, member_error=None, inclusion=None)


@dataclass(frozen=True)
class Estimate:
    """The error of a model on the texts of one segment.

    Args:
        estimator: its name in the catalogue.
        error: in [0, 1]; None where nothing can be said.
        low, high: the interval at `level`; None where none can be given, and `how` says why.
        n: texts; n_labelled: labelled ones among them.
        how: by what the interval was made, for people: "regression-t over 5 labelled segments".
        flags: what to beware of, see `flags`.
    """

    segment: Segment
    estimator: str
    error: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    n_labelled: int = 0
    how: str = ""
    flags: tuple[str, ...] = ()


def segmented(names: Sequence[Segment]) -> tuple[tuple[Segment, ...], np.ndarray]:
    """The segments there are, sorted, and each row's place among them."""
    segments = tuple(sorted(set(names)))
    places = {segment: place for place, segment in enumerate(segments)}
    return segments, np.array([places[name] for name in names], dtype=int)


def joined(first: Evidence, second: Evidence) -> Evidence:
    """Both as one, of the same members in the same order; segments of one name become one.

    What only one of them knows is unknown, but for labels, counts and weights: rows without them have none, or 1.
    Raises ValueError for evidence of other members.
    """
    names = [one.segments[place] for one in (first, second) for place in one.segment.tolist()]
    segments, places = segmented(names)
    arrays: dict[str, Any] = {}
    for name in _ARRAYS:
        values = [getattr(one, name) for one in (first, second)]
        known = [value for value in values if value is not None]
        if name == "segment" or not known or (len(known) == 1 and name not in _UNTOLD):
            continue
        if len({value.shape[1:] for value in known}) > 1:
            shapes = " and ".join(str(value.shape[1]) for value in known)
            raise ValueError(f"{name} has {shapes} columns; expected the same members")
        told = [
            np.full((len(one), *known[0].shape[1:]), _UNTOLD[name]) if value is None else value
            for one, value in zip((first, second), values, strict=True)
        ]
        arrays[name] = np.concatenate(told)
    return Evidence(segments, places, **arrays)


def span_of(window: str) -> str | None:
    """Whether a window is a "day", a "week" or a "month", by its name; None of others."""
    return next((span for span, form in _SPANS.items() if form.fullmatch(window)), None)


_SPANS = {
    "day": re.compile(r"\d{4}-\d\d-\d\d"),
    "week": re.compile(r"\d{4}-W\d\d"),
    "month": re.compile(r"\d{4}-\d\d"),
}


def _rows(value: Any, rows: np.ndarray) -> Any:
    return None if value is None else value[rows]


_ARRAYS = tuple(one.name for one in fields(Evidence) if one.name != "segments")
_SHARES = (
    "agreement",
    "pairs",
    "member_error",
    "confidence",
    "probabilities",
    "judged",
    "error",
    "inclusion",
)
_UNTOLD = {"error": np.nan, "member_error": np.nan, "truth": -1, "count": 1, "weight": 1.0, "inclusion": 1.0}
