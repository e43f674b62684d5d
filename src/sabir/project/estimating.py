"""The error on texts without labels: estimated, kept, and turned into advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sabir.catalog import Entry
from sabir.errors import InputError, StoreError
from sabir.estimate.advice import Advice, Cost, advise
from sabir.estimate.backtest import backtest
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence, Segment, joined, segmented
from sabir.estimate.judged import truth_of
from sabir.estimate.labels import ENOUGH, standing_for
from sabir.estimate.means import FEWEST
from sabir.project.alarms import Before, drifted, flagged, watched
from sabir.project.asking import Asking, answered, asking, labelled_evidence, refuse_without_members
from sabir.project.given import (
    Given,
    agree_to_the_price,
    answered_elsewhere,
    chance_of,
    of_outputs,
    of_texts,
)
from sabir.project.history import Estimated, History
from sabir.project.running import Hand, writing
from sabir.project.standing import Standing
from sabir.report.backtests import backtest_document
from sabir.report.estimates import estimate_document

Document = dict[str, Any]

DEFAULT = "calibrated-disagreement"
MARGIN = 0.05  # of error that one would bear beside what the labelled test rows have


@dataclass(frozen=True)
class Wanted:
    """What the command line has in place of the config's sections; None: what these say."""

    model: str | None = None
    members: str | None = None
    estimator: str | None = None
    window: Any = None


def estimate(
    standing: Standing,
    path: Path,
    *,
    labels: Path | None,
    choose: int | None,
    out: Path | None,
    wanted: Wanted,
    hand: Hand,
) -> Document:
    """The error of the model in use on the texts of a file, by language, domain and window, with advice."""
    name, kind = _chosen(standing, wanted)
    entry = ESTIMATORS.get(name, where="--estimator")
    if "labels" in entry.facts["needs"] and labels is None:
        fix = "Give some: --labels FILE; --choose says of which texts."
        raise InputError("--estimator", f"{name} needs labels of some of these texts.", fix)
    who = asking(standing, model=wanted.model, kinds={kind}, judged="judged" in entry.facts["needs"])
    _refuse_unfitting(who, entry, kind)
    if elsewhere := answered_elsewhere(path):
        _refuse_beside_outputs(path, entry, labels=labels, choose=choose)
        given = of_outputs(who, path, elsewhere, hand=hand)
    else:
        window = wanted.window if wanted.window is not None else standing.config.estimate.window
        given = of_texts(who, path, window=window, labels=labels, choose=choose, out=out, hand=hand)
    release = standing.current.name if standing.current is not None and wanted.model is None else None
    return _concluded(given, entry, kind, release)


def _concluded(given: Given, entry: Entry, kind: str, release: str | None) -> Document:
    """The document of what is given, which is kept in the history."""
    who, reference, asked = given.who, given.reference, given.asked
    standing = who.standing
    config = standing.config.estimate
    found = _with_labels(entry, reference, asked, config.level)
    facts = _facts(reference, asked, given.before)
    found = _near_chance(flagged(found, facts, config.false_alarms), reference, given.chance)
    languages = list(dict.fromkeys(one.segment.language for one in found))
    usual, metric = given.before.reference if given.before else reference, entry.facts["metric"]
    budgets = _budgets(config.budget, errors_by_language(usual, metric), languages)
    told = {"kind": kind, "names": who.names(), "n": len(who.members)}
    kept = Estimated(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        release=release,
        model=who.model.name,
        fingerprint=who.fingerprint,
        production=given.digest,
        estimator=entry.name,
        members=told,
    )
    history = History(standing.store.path, standing.config.name)
    watch = watched(
        reference,
        asked,
        _budgets(None if metric != "error" else config.budget, errors_by_language(usual), languages),
        false_alarms=config.false_alarms,
        earlier=history.streams(kept),
        labelled=_by_labels(reference, asked, config.false_alarms),
    )
    unwatched = ", ".join(map(str, watch.unwatched))
    warnings = given.warnings
    if unwatched:
        warnings = (
            *warnings,
            f"no alarm can be raised in {unwatched}: too little is labelled, or it differs too much.",
        )
    document = estimate_document(
        found,
        _advice(who, found, errors_by_language(reference, metric), asked, budgets),
        release=release,
        model=kept.model,
        members=told,
        estimator=entry.name,
        level=config.level,
        budgets=budgets,
        alarms=watch.alarming,
        facts=facts,
        warnings=warnings,
    )
    kept = replace(kept, estimates=tuple(document["estimates"]), streams=watch.streams)
    document["history"] = history.earlier(kept)
    try:
        with writing(standing.store):
            history.add(kept)
    except StoreError as error:  # what was found is shown all the same
        document["warnings"].append(f"{error.where}: {error.message} It is not in the history.")
    return document


def judged(standing: Standing, *, wanted: Wanted, kinds: Sequence[str], hand: Hand) -> Document:
    """How far off each estimator would have been on the labelled test rows; the best is what is used from then on."""
    config = standing.config
    who = asking(standing, model=wanted.model, kinds=kinds or ("all",), judged=True)
    for warning in who.missing:
        hand.warn(warning)
    agree_to_the_price(who, {}, hand)
    graph = answered(who, {}, hand=hand)
    found = {"all": labelled_evidence(who, graph)}
    if not found["all"].labelled.any():
        fix = "Add test rows that no model was trained on."
        raise InputError(
            standing.where, "there are no labelled test rows to judge by.", " ".join([*who.missing, fix])
        )
    found |= {kind: labelled_evidence(who, graph, kind=kind) for kind in who.kinds if len(who.kinds) > 1}
    answer = standing.facts.task.answer
    fitting = [one.name for one in ESTIMATORS if answer in one.facts["answers"]]
    chance = chance_of(who, graph, found["all"])
    tested = backtest(found, estimators=fitting, level=config.estimate.level, chance=chance)
    if wanted.model is None and not kinds and tested.best is not None:
        with writing(standing.store):
            History(standing.store.path, config.name).choose(
                tested.best.estimator, tested.best.members or "all"
            )
    document = backtest_document(tested, model=who.model.name, warnings=who.missing)
    return {**document, "kept": wanted.model is None and not kinds and tested.best is not None}


# --- what is asked for -------------------------------------------------------------------------------------


def _chosen(standing: Standing, wanted: Wanted) -> tuple[str, str]:
    """The estimator and the kind of members: as asked for, as configured, as the last backtest chose, or as a rule."""
    config = standing.config.estimate
    kept = History(standing.store.path, standing.config.name).chosen()
    name = wanted.estimator or config.estimator or kept.get("estimator") or DEFAULT
    kind = wanted.members or config.members or kept.get("members") or "all"
    return name, kind


def _refuse_unfitting(who: Asking, entry: Entry, kind: str) -> None:
    """Raise InputError for an estimator that cannot judge this task's answers, or lacks what it needs."""
    facts, answer = entry.facts, who.standing.facts.task.answer
    if answer not in facts["answers"]:
        fitting = [one.name for one in ESTIMATORS if answer in one.facts["answers"]]
        found = (
            f"{entry.name} is for answers that are {' or '.join(facts['answers'])}, and these are {answer}."
        )
        raise InputError("estimate.estimator", found, f"Fitting are: {', '.join(fitting)}.")
    if "judged" in facts["needs"] and who.judge is None:
        raise InputError(
            "estimate.judge", f"{entry.name} needs a judge.", "Write estimate: {judge: adapter/combined}."
        )
    refuse_without_members(who, kind, facts["needs"])


def _refuse_beside_outputs(path: Path, entry: Entry, *, labels: Path | None, choose: int | None) -> None:
    """Raise InputError for what cannot be had of texts that were answered elsewhere: nobody sees the texts."""
    for option, asked in (("--labels", labels), ("--choose", choose)):
        if asked is not None:
            raise InputError(option, f"does not go with {path.name}, which holds outputs.", "Give the texts.")
    lacking = [need for need in entry.facts["needs"] if need not in ("agreement", "error")]
    if lacking:
        fix = "Of outputs there are disagreement, calibrated-disagreement and constant."
        raise InputError(
            "--estimator", f"{entry.name} needs {', '.join(lacking)}, which outputs do not have.", fix
        )


# --- what comes out of it ----------------------------------------------------------------------------------


def _with_labels(entry: Entry, reference: Evidence, asked: Evidence, level: float) -> list[Estimate]:
    """The estimates; in place of those of segments with labels enough the ones that stand on these.

    Segments in which labels are many are known as well as the reference: what is learnt from that is learnt from them
    too, for all the other segments.
    """
    by_labels = "ppi-macro-f1" if entry.facts["metric"] == "macro_f1" else "ppi"
    if not asked.labelled.any() or entry.name == by_labels:
        return list(entry.function(reference, asked, level=level))
    powered = ESTIMATORS.get(by_labels).function(reference, asked, level=level)
    found = entry.function(joined(reference, _well_labelled(asked)), asked, level=level)
    return [
        of_labels if of_labels.n_labelled >= FEWEST and of_labels.low is not None else one
        for one, of_labels in zip(found, powered, strict=True)
    ]


def _well_labelled(asked: Evidence) -> Evidence:
    """The labelled rows of segments that have labels enough to be learnt from, as segments of a reference: each label
    counts as one, and stands for as many texts of its segment as it was chosen for."""
    labels = asked.total(asked.counts * asked.labelled)
    rows = asked.take((labels >= ENOUGH)[asked.segment] & asked.labelled)
    named = tuple(replace(one, window=one.window or "labelled") for one in rows.segments)
    weight = standing_for(rows)
    mean = rows.total(rows.counts * weight) / rows.n
    return replace(rows, segments=named, weight=weight / mean[rows.segment], inclusion=None)


def _near_chance(
    found: Sequence[Estimate], reference: Evidence, chance: Mapping[Segment, float]
) -> list[Estimate]:
    """The estimates, flagged where the model is hardly better than guessing on the labelled texts."""
    labelled = reference.take(reference.labelled)
    near = truth_of(labelled, "error", chance).near_chance
    places = {
        (one.language, one.domain) for one, is_near in zip(labelled.segments, near, strict=True) if is_near
    }
    said = "near chance: the model is hardly better than guessing on the labelled texts, and its error says nothing"
    return [
        replace(one, flags=(said, *one.flags))
        if (one.segment.language, one.segment.domain) in places
        else one
        for one in found
    ]


def _by_labels(reference: Evidence, asked: Evidence, false_alarms: float) -> list[Estimate]:
    """Estimates that stand on labels enough, at a level that holds for all of them together; of one look."""
    if not asked.labelled.any():
        return []
    level = 1 - min(0.5, 2 * false_alarms / len(asked.segments))
    found = ESTIMATORS.get("ppi").function(reference, asked, level=level)
    return [one for one in found if one.n_labelled >= FEWEST]


def _budgets(
    given: float | Mapping[str, float] | None, errors: Mapping[str, float], languages: Iterable[str]
) -> dict[str, float]:
    """The largest error one would bear, by language: as configured, else that of the model in use on the labelled rows,
    and a little more."""
    pool = sum(errors.values()) / len(errors) if errors else 0.0
    found = {}
    for language in languages:
        budget = given.get(language) if isinstance(given, Mapping) else given
        usual = min(1.0, errors.get(language, pool) + MARGIN)
        found[language] = usual if budget is None else budget
    return found


def _facts(reference: Evidence, asked: Evidence, before: Before | None) -> dict[Segment, dict[str, Any]]:
    """What else is known of each segment: its traffic, and its raw disagreement beside that of the labelled rows."""
    drift = drifted(reference, asked, before)
    return {
        segment: {"weight": float(weight), **drift.get(segment, {})}
        for segment, weight in zip(asked.segments, asked.total(asked.weights), strict=True)
    }


def errors_by_language(evidence: Evidence, metric: str = "error") -> dict[str, float]:
    """The error on the labelled rows of each language; `metric` as of an estimator."""
    labelled = evidence.take(evidence.labelled)
    if not len(labelled):
        return {}
    languages, places = segmented([Segment(one.language) for one in labelled.segments])
    whole = replace(labelled, segments=languages, segment=places[labelled.segment])
    true = truth_of(whole, metric).true
    return {segment.language: float(error) for segment, error in zip(languages, true, strict=True)}


def _advice(
    who: Asking,
    found: Sequence[Estimate],
    errors: Mapping[str, float],
    asked: Evidence,
    budgets: Mapping[str, float],
) -> Sequence[Advice]:
    """What to do first, from the last window of each language.

    Args:
        errors: on the labelled rows, by language.
    """
    last: dict[tuple[str, str], Estimate] = {}
    for one in found:  # windows sort as time goes, and segments are sorted
        last[one.segment.language, one.segment.domain] = one
    traffic: dict[str, float] = {}
    for segment, weight in zip(asked.segments, asked.total(asked.weights), strict=True):
        if segment == last[segment.language, segment.domain].segment:
            traffic[segment.language] = traffic.get(segment.language, 0.0) + float(weight)
    prices = who.standing.config.prices
    return advise(
        list(last.values()),
        budgets,
        costs=_costs(who),
        reference_error=errors,
        traffic=traffic,
        usd_per_label=prices.usd_per_label,
    )


def _costs(who: Asking) -> dict[str, Cost]:
    """What training each language's own adapter took."""
    usd_per_hour = who.standing.config.prices.usd_per_hour
    found = {}
    for language in who.standing.config.languages:
        record = who.state.record(f"adapter/{language}")
        if record is not None and (device_s := record["cost"].get("device_s")) is not None:
            usd = None if usd_per_hour is None else device_s / 3600 * usd_per_hour
            found[language] = Cost(device_s, usd)
    return found
