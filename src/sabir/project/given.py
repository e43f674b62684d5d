"""What is known of texts without labels: what the model and its members answer to them, or answered elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sabir.catalog import did_you_mean
from sabir.engine.steps import Graph
from sabir.errors import InputError
from sabir.estimate.calibration import curve
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.labels import choose as choose_texts
from sabir.plan import PRODUCTION, Texts, answers_name
from sabir.plan.steps import Steps
from sabir.project.alarms import Before
from sabir.project.asking import Asking, answered, evidence, graph_of, in_use, labelled_evidence, texts_of
from sabir.project.running import Hand
from sabir.work.labelling import Labels, read_labels, write_choice
from sabir.work.member_outputs import first_names, read_outputs
from sabir.work.prepare import Example, load
from sabir.work.production import Production, digest_of, read_production, rendered

RELEASE = "release"  # in a file of outputs the model that is asked about, under whatever name it has


@dataclass(frozen=True)
class Given:
    """What is known of the texts of a file.

    Args:
        who: the model, and the members whose answers there are.
        reference: evidence of the labelled test rows.
        asked: evidence of the texts, labelled as far as they are.
        digest: of the texts.
        before: where another model than the one in use is asked about, that one on the same texts.
        warnings: what a user should know.
        chance: the error of guessing, of each labelled segment.
    """

    who: Asking
    reference: Evidence
    asked: Evidence
    digest: str
    before: Before | None
    warnings: tuple[str, ...]
    chance: Mapping[Segment, float]


def of_texts(
    who: Asking,
    path: Path,
    *,
    window: Any,
    labels: Path | None,
    choose: int | None,
    out: Path | None,
    hand: Hand,
) -> Given:
    """Have everyone answer the texts of a file.

    Args:
        window: how they are parted.
        labels: a file of labels for some of them.
        choose, out: how many to write down that are worth a label, and where.
    """
    config, facts = who.standing.config, who.standing.facts
    fields = {language: one.fields for language, one in config.languages.items()}
    production = read_production(path, fields=fields, window=window)
    given = None if labels is None else read_labels(labels, production, tasks=facts.tasks, task=facts.task)
    rendered_texts = _texts(who.make, production)
    if labels is not None and choose is not None:
        fix = "Choose without labels, or estimate with them."
        raise InputError(
            "--choose", "does not go with --labels: two draws have two sets of probabilities.", fix
        )
    warnings = [*production.warnings, *(given.warnings if given else []), *who.missing]
    there = sum(map(len, production.rows.values()))
    if choose is not None and choose > there:
        warnings.append(f"--choose {choose}: there are {there:,} texts; all of them are written.")
    for warning in warnings:
        hand.warn(warning)
    agree_to_the_price(who, rendered_texts, hand)
    texts = {language: one.texts for language, one in rendered_texts.items()}
    graph = answered(who, texts, hand=hand)
    reference = labelled_evidence(who, graph)
    known = _told(production, given)
    asked = evidence(who, graph, production.rows, split=PRODUCTION, known=known)
    if not asked.segments:
        nobody = f"{who.model.name} answers none of the languages in it."
        raise InputError(str(path), nobody, f"There are: {', '.join(config.languages)}.")
    for language in production.rows:
        if answers_name(who.model, language, PRODUCTION) not in graph:
            warnings.append(
                f"{path}: {who.model.name} answers nothing in {language!r}: its texts are left out."
            )
            hand.warn(warnings[-1])
    if choose is not None and out is not None:
        _write_choice(out, choose, who, graph, production, reference, asked)
    before = _before(who, production, known, texts, hand)
    chance = chance_of(who, graph, reference)
    return Given(who, reference, asked, production.digest, before, tuple(warnings), chance)


def answered_elsewhere(path: Path) -> list[str]:
    """Who answered the texts of a file, from its first row; nobody where its rows hold no outputs."""
    try:
        return first_names(path)
    except (OSError, UnicodeDecodeError, ValueError):
        return []  # whoever reads the texts says what is wrong


def of_outputs(who: Asking, path: Path, names: Sequence[str], *, hand: Hand) -> Given:
    """Count the answers in a file of outputs, as it is read; nobody is asked anything but the labelled test rows.

    Args:
        names: who answered there: the model, as `release` or by its name, and members by theirs.
    Raises InputError for an answer that is no label, a file without the model, and for names that are no members.
    """
    task = who.standing.facts.task
    if task.answer != "label":
        raise InputError(
            str(path), f"holds outputs, and the answers of {task.name} are no labels.", "Give texts."
        )
    model = next((name for name in (RELEASE, who.model.name) if name in names), None)
    if model is None:
        fix = f"Write it as {RELEASE!r} or {who.model.name!r} beside {', '.join(names)}."
        raise InputError(str(path), "its outputs lack the model that is asked about.", fix)
    wanted = [name for name in names if name != model]
    known = who.names()
    for name in wanted:
        if name not in known:
            fix = f"There are: {', '.join(known)}.{did_you_mean(name, known)}"
            raise InputError(str(path), f"its outputs name {name!r}, which is no member.", fix)
    who = replace(who, members=tuple(one for one in who.members if one.name in wanted), judge=None)
    for warning in who.missing:
        hand.warn(warning)
    graph = answered(who, {}, hand=hand)
    found = read_outputs(path, model=model, members=who.names(), fields={})
    warnings = list(who.missing)
    if found.duplicates:
        warnings.append(f"{path}: {found.duplicates:,} rows have the id of another; each is counted.")
        hand.warn(warnings[-1])
    reference = labelled_evidence(who, graph)
    chance = chance_of(who, graph, reference)
    return Given(who, reference, found.evidence, found.digest, None, tuple(warnings), chance)


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
    both = [
        language
        for language in production.rows
        if all(
            answers_name(one.model, language, PRODUCTION) in made
            for one, made in ((before, graph), (other, with_other))
        )
    ]
    return Before(
        labelled_evidence(before, graph),
        evidence(before, graph, both, split=PRODUCTION, known=known),
        evidence(other, with_other, both, split=PRODUCTION, known=known),
    )


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


def agree_to_the_price(who: Asking, texts: Mapping[str, Rendered], hand: Hand) -> None:
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
    usd = sum(cost["usd"] for cost in costs)
    question = f"{judge['model']} would be asked {count:,} questions, for about {usd:.2f} USD."
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


def chance_of(who: Asking, graph: Graph, labelled: Evidence) -> dict[Segment, float]:
    """The error of guessing in each labelled segment: of always answering its most frequent label, of any of a row's
    choices; 1 where answers are written."""
    by_language: dict[str, list[float]] = {}
    if who.standing.facts.task.answer == "choice":
        for language, row in texts_of(who, graph, who.standing.config.languages, split="test"):
            by_language.setdefault(language, []).append(1 - 1 / len(row.options))
    found = {}
    for place, segment in enumerate(labelled.segments):
        truth = None if labelled.truth is None else labelled.truth[labelled.segment == place]
        known = truth[truth >= 0] if truth is not None else np.zeros(0, int)
        chances = by_language.get(segment.language, [1.0])
        found[segment] = 1 - np.bincount(known).max() / len(known) if len(known) else float(np.mean(chances))
    return found
