"""The error on texts without labels: estimated, kept, and turned into advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sabir.catalog import Entry, did_you_mean
from sabir.config import KINDS
from sabir.engine.steps import Graph
from sabir.errors import InputError
from sabir.estimate.advice import Advice, Cost, advise
from sabir.estimate.backtest import backtest
from sabir.estimate.calibration import curve
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence, Segment
from sabir.estimate.labels import choose as choose_texts
from sabir.estimate.ppi import FEWEST
from sabir.plan import PRODUCTION, Texts, answers_name
from sabir.plan.steps import Steps
from sabir.project.alarms import Before, drifted, flagged, watched
from sabir.project.asking import (
    Asking,
    answered,
    asking,
    evidence,
    graph_of,
    in_use,
    labelled_evidence,
    refuse_without_members,
    texts_of,
)
from sabir.project.history import Estimated, History
from sabir.project.running import Hand, writing
from sabir.project.standing import Standing
from sabir.report.backtests import backtest_document
from sabir.report.estimates import estimate_document
from sabir.work.labelling import Labels, read_labels, write_choice
from sabir.work.prepare import Example, load
from sabir.work.production import Production, digest_of, read_production, rendered

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
    config = standing.config
    fields = {language: one.fields for language, one in config.languages.items()}
    window = wanted.window if wanted.window is not None else config.estimate.window
    production = read_production(path, fields=fields, window=window)
    facts = standing.facts
    given = None if labels is None else read_labels(labels, production, tasks=facts.tasks, task=facts.task)
    name, kind = _chosen(standing, wanted)
    entry = ESTIMATORS.get(name, where="--estimator")
    who = asking(standing, model=wanted.model, kinds={kind}, judged="judged" in entry.facts["needs"])
    _refuse_unfitting(who, entry, kind)
    rendered_texts = _texts(who.make, production)
    warnings = [*production.warnings, *(given.warnings if given else []), *who.missing]
    for warning in warnings:
        hand.warn(warning)
    _agree_to_the_price(who, rendered_texts, hand)
    texts = {language: one.texts for language, one in rendered_texts.items()}
    graph = answered(who, texts, hand=hand)
    reference = labelled_evidence(who, graph)
    known = _told(production, given)
    asked = evidence(who, graph, production.rows, split=PRODUCTION, known=known)
    if not asked.segments:
        nobody = f"{who.model.name} answers none of the languages in it."
        raise InputError(str(path), nobody, f"There are: {', '.join(config.languages)}.")
    level = config.estimate.level
    found = list(entry.function(reference, asked, level=level))
    if given is not None:
        found = _with_labels(found, reference, asked, level)
    if choose is not None and out is not None:
        _write_choice(out, choose, who, graph, production, reference, asked)
    before = _before(who, production, known, texts, hand)
    facts_of = _facts(reference, asked, before)
    found = flagged(found, facts_of, config.estimate.false_alarms)
    languages = list(dict.fromkeys(one.segment.language for one in found))
    budgets = _budgets(config.estimate.budget, before.reference if before else reference, languages)
    told = {"kind": kind, "names": who.names(), "n": len(who.members)}
    current = standing.current if wanted.model is None else None
    kept = Estimated(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        release=None if current is None else current.name,
        model=who.model.name,
        fingerprint=who.fingerprint,
        production=production.digest,
        estimator=name,
        members=told,
    )
    history = History(standing.store.path, config.name)
    watch = watched(
        reference,
        asked,
        budgets,
        false_alarms=config.estimate.false_alarms,
        earlier=history.streams(kept),
        labelled=[one for one in found if one.n_labelled >= FEWEST],
    )
    document = estimate_document(
        found,
        _advice(who, found, reference, asked, budgets),
        release=kept.release,
        model=kept.model,
        members=told,
        estimator=name,
        level=level,
        budgets=budgets,
        alarms=watch.alarming,
        facts=facts_of,
        warnings=warnings,
    )
    kept = replace(kept, estimates=tuple(document["estimates"]), streams=watch.streams)
    document["history"] = history.earlier(kept)
    with writing(standing.store):
        history.add(kept)
    return document


def judged(standing: Standing, *, wanted: Wanted, kinds: Sequence[str], hand: Hand) -> Document:
    """How far off each estimator would have been on the labelled test rows; the best is what is used from then on."""
    config = standing.config
    who = asking(standing, model=wanted.model, kinds=kinds or ("all",), judged=True)
    for warning in who.missing:
        hand.warn(warning)
    _agree_to_the_price(who, {}, hand)
    graph = answered(who, {}, hand=hand)
    found = {"all": labelled_evidence(who, graph)}
    found |= {kind: labelled_evidence(who, graph, kind=kind) for kind in who.kinds if len(who.kinds) > 1}
    tested = backtest(found, level=config.estimate.level, chance=chance_of(found["all"]))
    if wanted.model is None and not kinds and tested.best is not None:
        with writing(standing.store):
            History(standing.store.path, config.name).choose(
                tested.best.estimator, tested.best.members or "all"
            )
    return backtest_document(tested, model=who.model.name, warnings=who.missing)


# --- what is asked for -------------------------------------------------------------------------------------


def _chosen(standing: Standing, wanted: Wanted) -> tuple[str, str]:
    """The estimator and the kind of members: as asked for, as configured, as the last backtest chose, or as a rule."""
    config = standing.config.estimate
    kept = History(standing.store.path, standing.config.name).chosen()
    name = wanted.estimator or config.estimator or kept.get("estimator") or DEFAULT
    kind = wanted.members or config.members or kept.get("members") or "all"
    if kind not in KINDS:
        fix = f"Known are: {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}"
        raise InputError("--members", f"there are no members of a kind {kind!r}.", fix)
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


@dataclass(frozen=True)
class Rendered:
    """The texts of one language as they are asked, and what the plan is told of them."""

    examples: Sequence[Example]
    texts: Texts


def _texts(make: Steps, production: Production) -> dict[str, Rendered]:
    found = {}
    for language, rows in production.rows.items():
        examples = rendered(rows, make.facts.tasks.get(language, make.facts.task))
        characters = sum(example.characters for example in examples)
        args = production.step_args(language, make.task(language))
        found[language] = Rendered(examples, Texts(digest_of(examples), args, characters))
    return found


def _told(production: Production, given: Labels | None) -> dict[str, dict[str, Any]]:
    """What of each text is known beside its words, by language and id."""
    told: dict[str, dict[str, Any]] = {"windows": {}, "weights": {}, "truth": {}, "inclusion": {}}
    for language, rows in production.rows.items():
        told["windows"][language] = {one.row.id: one.window for one in rows}
        told["weights"][language] = {one.row.id: one.weight for one in rows}
        labels = {one.row.id: label for one in rows if given is not None and (label := given.of(one))}
        told["truth"][language] = {key: label.target for key, label in labels.items()}
        told["inclusion"][language] = {
            key: label.inclusion for key, label in labels.items() if label.inclusion is not None
        }
    return told


def _agree_to_the_price(who: Asking, texts: Mapping[str, Rendered], hand: Hand) -> None:
    """Ask before a judge is paid; raise InputError where it would cost more than is allowed, or nobody agrees."""
    if who.judge is None or who.judge.endpoint is None:
        return
    from sabir.work.endpoint import check_endpoint, expected_cost, refuse_above

    judge, store = who.judge.endpoint, who.standing.store
    check_endpoint(judge)
    graph = graph_of(who, {language: one.texts for language, one in texts.items()})
    costs = []
    for (language, split), rows in _to_be_asked(who, graph, texts).items():
        name = answers_name(who.judge, language, split)
        if name in graph and not store.has(graph.fingerprints[name]):
            step = graph[name]
            costs.append(expected_cost(rows, step.settings, judge, answers=Path(step.args["answers"])))
    refuse_above(costs, judge)
    count = sum(cost["questions"] for cost in costs)
    if not count:
        return
    usd = [cost["usd"] for cost in costs]
    price = "at a price that the config does not say" if None in usd else f"for about {sum(usd):.2f} USD"
    question = f"{judge['model']} would be asked {count:,} questions, {price}."
    if not hand.agree(question):
        raise InputError("estimate.judge", question, "If that is meant, say so: --yes.")


def _to_be_asked(
    who: Asking, graph: Graph, texts: Mapping[str, Rendered]
) -> dict[tuple[str, str], Sequence[Example]]:
    """The rows of every language and split, rendered."""
    facts = who.standing.facts
    found: dict[tuple[str, str], Sequence[Example]] = {
        (language, PRODUCTION): one.examples for language, one in texts.items()
    }
    for language in who.standing.config.languages:
        splits, _ = load(facts.sources[language], facts.tasks[language])
        found[language, "test"] = splits["test"]
    return found


# --- what comes out of it ----------------------------------------------------------------------------------


def _with_labels(
    found: Sequence[Estimate], reference: Evidence, asked: Evidence, level: float
) -> list[Estimate]:
    """The estimates, and in their place those that stand on labels where a segment has enough of them."""
    by_labels = ESTIMATORS.get("ppi").function(reference, asked, level=level)
    return [
        powered if powered.n_labelled >= FEWEST else one
        for one, powered in zip(found, by_labels, strict=True)
    ]


def _write_choice(
    path: Path,
    count: int,
    who: Asking,
    graph: Graph,
    production: Production,
    reference: Evidence,
    asked: Evidence,
) -> None:
    """Write down which texts to label, and with what probability each was chosen."""
    rows = {(row.language, row.row.id): row for row in production.every}
    order = [
        rows[language, text.id] for language, text in texts_of(who, graph, production.rows, split=PRODUCTION)
    ]
    expected = curve(reference).rows(asked) if asked.agreement is not None else np.full(len(asked), np.nan)
    choice = choose_texts(asked, expected, min(count, len(order)), seed=who.standing.config.lora.seed)
    write_choice(path, [(order[place], float(choice.inclusion[place])) for place in choice.rows])


def _before(
    who: Asking, production: Production, known: Mapping[str, Any], texts: Mapping[str, Texts], hand: Hand
) -> Before | None:
    """The model in use on the same texts, where another one is asked about; both held against the adapters of the
    former."""
    before = in_use(who)
    if before is None:
        return None
    other = replace(before, model=who.model)
    graph = answered(before, texts, hand=hand)
    with_other = answered(other, texts, hand=hand)
    return Before(
        labelled_evidence(before, graph),
        evidence(before, graph, production.rows, split=PRODUCTION, known=known),
        evidence(other, with_other, production.rows, split=PRODUCTION, known=known),
    )


def _budgets(
    given: float | Mapping[str, float] | None, in_use: Evidence, languages: Iterable[str]
) -> dict[str, float]:
    """The largest error one would bear, by language: as configured, else that of the model in use on the labelled rows,
    and a little more."""
    errors = errors_by_language(in_use)
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


def errors_by_language(labelled: Evidence) -> dict[str, float]:
    """The mean error on the labelled rows of each language."""
    assert labelled.error is not None
    found = {}
    for language in dict.fromkeys(segment.language for segment in labelled.segments):
        mine = np.array([segment.language == language for segment in labelled.segments])[labelled.segment]
        known = mine & labelled.labelled
        if known.any():
            found[language] = float(np.average(labelled.error[known], weights=labelled.weights[known]))
    return found


def _advice(
    who: Asking, found: Sequence[Estimate], reference: Evidence, asked: Evidence, budgets: Mapping[str, float]
) -> Sequence[Advice]:
    """What to do first, from the last window of each language."""
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
        reference_error=errors_by_language(reference),
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


def chance_of(labelled: Evidence) -> dict[Segment, float]:
    """The error of always answering a segment's most frequent label; where answers are not labels, 1."""
    found = {}
    for place, segment in enumerate(labelled.segments):
        truth = None if labelled.truth is None else labelled.truth[labelled.segment == place]
        found[segment] = 1.0 if truth is None or not len(truth) else 1 - np.bincount(truth).max() / len(truth)
    return found
