"""Whether a language is surely over its budget, however often one looks; and whether it has drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sabir.estimate.agreement import disagreement, disagreements
from sabir.estimate.calibration import curve
from sabir.estimate.change import risen, worse
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence, Segment, span_of
from sabir.estimate.sequence import Stream, alarms, drift

CALIBRATED = "calibrated-disagreement"


@dataclass(frozen=True)
class Watched:
    """What watching says of the segments.

    Args:
        alarming: segments whose error is surely over budget, all looks and languages together.
        streams: to be kept for the next look: a mapping a language and domain.
        unwatched: languages and domains in which no alarm is possible: nothing bounds how wrong the curve may be there.
    """

    alarming: frozenset[Segment]
    streams: tuple[Mapping[str, Any], ...]
    unwatched: tuple[Segment, ...] = ()


def watched(
    reference: Evidence,
    asked: Evidence,
    budgets: Mapping[str, float],
    *,
    false_alarms: float,
    earlier: Sequence[Mapping[str, Any]],
    labelled: Sequence[Estimate],
) -> Watched:
    """The alarms of today's texts, going on from what earlier windows of time said.

    Expected errors by the calibrated curve are bet against the budget and as much more as the curve may be too high in
    a language it was not fitted on, whatever the number of texts. Half of the false alarms are borne for that, half
    for the bets. Windows of time are bet on once: the newest one again, from where the bets stood before it, when more
    of it is known. Texts that are not parted by time are a look by themselves; nobody knows which were seen before.

    Args:
        budgets: by language.
        earlier: streams that were kept.
        labelled: estimates that stand on labels, at a level that holds for all languages together: such a segment is
            alarming by these alone, if its whole interval is over.
    """
    known_by_labels = {one.segment for one in labelled}
    alarming = {
        one.segment for one in labelled if one.low is not None and one.low > budgets[one.segment.language]
    }
    values = curve(reference).rows(asked)
    usable = asked.take(~np.isnan(values))
    places = {_place(one) for one in usable.segments}
    slack = _slack(reference, usable, 1 - false_alarms / max(1, len(places)))
    kept = {Segment(row["language"], row["domain"]): row for row in earlier}
    bounds, before = {}, {}
    for place in sorted(places):
        row = _goes_on(kept.get(place), usable, place, budgets[place.language])
        if row is not None:
            bounds[place] = row["budget"]
            before[place] = row
        elif place in slack and budgets[place.language] + slack[place] < 1:
            bounds[place] = budgets[place.language] + slack[place]
    rows = dict(kept)
    for window in sorted({one.window for one in usable.segments}):
        here = usable.take(
            np.array(
                [
                    one.window == window and _place(one) in bounds and not _is_over(one, before)
                    for one in usable.segments
                ],
                dtype=bool,
            )[usable.segment]
        )
        streams = {place: _stand(row, window) for place, row in before.items()}
        found = alarms(
            here, curve(reference).rows(here), bounds, false_alarms=false_alarms / 2, earlier=streams
        )
        for one in found:
            place = _place(one.segment)
            if one.raised and one.segment not in known_by_labels:
                alarming.add(one.segment)
            stood = streams.get(place, Stream(bounds[place]))
            before[place] = {
                "language": place.language,
                "domain": place.domain,
                "base": budgets[place.language],
                "budget": bounds[place],
                "window": window,
                "before": [stood.looks, list(stood.capital)] if stood.looks else None,
                "after": [one.stream.looks, list(one.stream.capital)],
            }
            if span_of(window) is not None:
                rows[place] = before[place]
    return Watched(frozenset(alarming), tuple(rows.values()), tuple(sorted(places - set(bounds))))


def _place(segment: Segment) -> Segment:
    return Segment(segment.language, segment.domain)


def _goes_on(
    row: Mapping[str, Any] | None, asked: Evidence, place: Segment, budget: float
) -> Mapping[str, Any] | None:
    """A kept stream, where today's texts go on from it: against the same budget, in windows of the same span."""
    if row is None or row["base"] != budget:
        return None
    spans = {span_of(one.window) for one in asked.segments if _place(one) == place}
    return row if spans == {span_of(row["window"])} else None


def _is_over(segment: Segment, before: Mapping[Segment, Mapping[str, Any]]) -> bool:
    """Whether a window lies before the newest one that was bet on."""
    row = before.get(_place(segment))
    return row is not None and segment.window < row["window"]


def _stand(row: Mapping[str, Any], window: str) -> Stream:
    """How the bets stood before a window."""
    kept = row["before"] if row["window"] == window else row["after"]
    return Stream(row["budget"]) if kept is None else Stream(row["budget"], kept[0], tuple(kept[1]))


def _slack(reference: Evidence, asked: Evidence, level: float) -> dict[Segment, float]:
    """How much too high the curve may be, by language and domain; those it says nothing of are left out."""
    many = replace(asked, count=asked.counts * _MANY)  # what chance does to few texts is the bets' to bear
    found: dict[Segment, float] = {}
    for one in ESTIMATORS.get(CALIBRATED).function(reference, many, level=level):
        if one.error is not None and one.low is not None:
            # an interval that ends at 0 does not say how far it would have gone
            wide = one.error - one.low if one.low > 0 else max(one.error, (one.high or 0.0) - one.error)
            found[_place(one.segment)] = max(found.get(_place(one.segment), 0.0), wide)
    return found


_MANY = 10**6


@dataclass(frozen=True)
class Before:
    """The model in use, where another one is asked about: its evidence on the labelled rows and on the same texts, and
    the other one's on these, held against the members that both have."""

    reference: Evidence
    asked: Evidence
    other: Evidence


def drifted(
    reference: Evidence, asked: Evidence, before: Before | None = None
) -> dict[Segment, dict[str, Any]]:
    """Of each segment its raw disagreement, that of the labelled rows of its language and domain, or else of its
    language, and how likely chance alone makes the first so much larger, corrected over all segments.

    Args:
        before: the model in use on the same texts: the last is then how likely chance alone makes the model that is
            asked about so much worse than that one, and `rise` by how much.
    """
    if asked.agreement is None or reference.agreement is None or not asked.agreement.shape[1]:
        return {}
    raw = disagreements(asked)
    usual = _nearest(reference, asked.segments)
    rise: dict[Segment, float] = {}
    if before is None:
        p = drift(reference, asked, disagreement(reference.agreement), disagreement(asked.agreement))
        chance = dict(zip(asked.segments, p, strict=True))
    else:
        fitted = curve(before.reference)
        by = before.other.mean(risen(before.asked, before.other, fitted))
        chance = dict(zip(before.other.segments, worse(before.asked, before.other, fitted), strict=True))
        rise = {
            one: value
            for one, value in zip(before.other.segments, by.tolist(), strict=True)
            if not np.isnan(value)
        }
    return {
        segment: {
            "raw": None if np.isnan(raw[place]) else float(raw[place]),
            "disagreement_reference": usual[place],
            "drift_p": chance.get(segment),
            "rise": rise.get(segment),
        }
        for place, segment in enumerate(asked.segments)
    }


def flagged(
    estimates: Sequence[Estimate], facts: Mapping[Segment, Mapping[str, Any]], false_alarms: float
) -> list[Estimate]:
    """The estimates, each that has drifted with a sentence that says so."""
    found = []
    for one in estimates:
        known = facts.get(one.segment, {})
        p, rise = known.get("drift_p"), known.get("rise")
        if p is None or p > false_alarms:
            found.append(one)
            continue
        chance = "p below 0.001" if p < 0.001 else f"p {p:.3f}"
        if rise is None:
            said = (
                f"drift: members disagree {known['raw']:.2f}, on the labelled texts "
                f"{known['disagreement_reference']:.2f} ({chance})"
            )
        else:
            said = f"worse: by {rise:.3f} than the model in use, on the same texts ({chance})"
        found.append(replace(one, flags=(said, *one.flags)))
    return found


def _nearest(reference: Evidence, segments: Sequence[Segment]) -> list[float | None]:
    """The reference's raw disagreement in each segment's language and domain, else in its language."""
    assert reference.agreement is not None
    values = disagreement(reference.agreement)
    found: list[float | None] = []
    for segment in segments:
        same = [one.language == segment.language for one in reference.segments]
        closer = [a and one.domain == segment.domain for a, one in zip(same, reference.segments, strict=True)]
        mine = np.array(closer if any(closer) else same, dtype=bool)[reference.segment] & ~np.isnan(values)
        found.append(float(np.average(values[mine], weights=reference.weights[mine])) if mine.any() else None)
    return found
