"""Whether a language is surely over its budget, however often one looks; and whether it has drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sabir.estimate.agreement import disagreement, disagreements
from sabir.estimate.calibration import curve
from sabir.estimate.change import risen, worse
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.estimate.sequence import Stream, alarms, drift

CALIBRATED = "calibrated-disagreement"


@dataclass(frozen=True)
class Watched:
    """What watching says of the segments.

    Args:
        alarming: segments whose error is surely over budget, all looks and languages together.
        streams: to be kept for the next look: a mapping a language and domain.
    """

    alarming: frozenset[Segment]
    streams: tuple[Mapping[str, Any], ...]


def watched(
    reference: Evidence,
    asked: Evidence,
    budgets: Mapping[str, float],
    *,
    false_alarms: float,
    earlier: Sequence[Mapping[str, Any]],
    labelled: Sequence[Estimate],
) -> Watched:
    """The alarms of today's texts, going on from what earlier ones said.

    Expected errors by the calibrated curve are bet against the budget and as much more as the curve may be too high in
    a language it was not fitted on. Half of the false alarms are borne for that, half for the bets. A segment with
    labels enough is alarming by these alone: if its whole interval is over.

    Args:
        budgets: by language.
        earlier: streams that were kept. Of texts parted by time, windows that were bet on before are left out.
        labelled: estimates that stand on labels.
    """
    known_by_labels = {one.segment for one in labelled}
    by_labels = {
        one.segment for one in labelled if one.low is not None and one.low > budgets[one.segment.language]
    }
    kept = {Segment(row["language"], row["domain"]): row for row in earlier}
    seen = np.array([_is_new(one, kept) for one in asked.segments], dtype=bool)[asked.segment]
    values = curve(reference).rows(asked)
    new = asked.take(seen & ~np.isnan(values))
    if not len(new):
        return Watched(frozenset(by_labels), tuple(earlier))
    places = {Segment(one.language, one.domain) for one in new.segments}
    slack = _slack(reference, new, 1 - false_alarms / len(places))
    bounds = {}
    for place in places:
        before = kept.get(place)
        if before is not None and before["base"] == budgets[place.language]:
            bounds[place] = before["budget"]
        elif place in slack:
            bounds[place] = min(1.0, budgets[place.language] + slack[place])
    told = new.take(
        np.array([Segment(one.language, one.domain) in bounds for one in new.segments])[new.segment]
    )
    streams = {
        place: Stream(row["budget"], row["looks"], tuple(row["capital"])) for place, row in kept.items()
    }
    found = alarms(told, curve(reference).rows(told), bounds, false_alarms=false_alarms / 2, earlier=streams)
    rows = dict(kept)
    for one in found:
        place = Segment(one.segment.language, one.segment.domain)
        rows[place] = {
            "language": place.language,
            "domain": place.domain,
            "base": budgets[place.language],
            "window": one.segment.window,
            **asdict(one.stream),
        }
    raised = {one.segment for one in found if one.raised} - known_by_labels
    return Watched(frozenset(by_labels | raised), tuple(rows.values()))


def _is_new(segment: Segment, kept: Mapping[Segment, Mapping[str, Any]]) -> bool:
    """Whether a window was not bet on before; those without a name, or with one by number, are new each time."""
    before = kept.get(Segment(segment.language, segment.domain))
    return before is None or "-" not in segment.window or segment.window > before["window"]


def _slack(reference: Evidence, asked: Evidence, level: float) -> dict[Segment, float]:
    """How much too high the curve may be, by language and domain; those it says nothing of are left out."""
    found: dict[Segment, float] = {}
    for one in ESTIMATORS.get(CALIBRATED).function(reference, asked, level=level):
        if one.error is not None and one.low is not None:
            place = Segment(one.segment.language, one.segment.domain)
            # an interval that ends at 0 does not say how far it would have gone
            wide = one.error - one.low if one.low > 0 else max(one.error, (one.high or 0.0) - one.error)
            found[place] = max(found.get(place, 0.0), wide)
    return found


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
