"""Who is asked what: the model, the members of its ensemble, a judge; and the evidence that their answers are."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sabir.catalog import did_you_mean
from sabir.config import KINDS
from sabir.config.estimate import PROJECT_MODELS
from sabir.engine.steps import Graph, Step
from sabir.errors import InputError
from sabir.estimate.evidence import Evidence
from sabir.facts import model_beside
from sabir.names import COMBINED, OWN, ROUTED, TRANSLATED
from sabir.plan import PRODUCTION, Member, Texts, answers_name, asked, released
from sabir.plan import ensemble as made
from sabir.plan.ensemble import LANGUAGE
from sabir.plan.steps import Steps
from sabir.project import releasing
from sabir.project.running import Hand, do_graph
from sabir.project.servers import must_be_there
from sabir.project.standing import Standing, State
from sabir.work.evidence import Answered, evidence_of, read_member_file
from sabir.work.prepare import Example, read_examples

FILE = "file/"  # how members whose answers came from elsewhere are called
JUDGE = "estimate.judge.model"
NOT_THERE = "members that are not there"


@dataclass(frozen=True)
class Asking:
    """A model to be estimated, with those whose answers it is held against.

    Args:
        model: whose error is asked for.
        members: of all kinds that are wanted.
        files: answers from elsewhere, by the member's name.
        judge: whose answers stand in for labels; None: nobody's.
        missing: sentences on what is wanted and cannot be had.
        since: when it was asked, in Unix time.
    """

    standing: Standing
    state: State
    model: Member
    members: tuple[Member, ...]
    files: Mapping[str, Path]
    judge: Member | None
    missing: tuple[str, ...]
    since: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Of the model: by it an estimate is known to be of the same one."""
        return _fingerprint(self.standing, self.state, self.model)

    @property
    def make(self) -> Steps:
        return Steps(self.standing.config, self.standing.facts)

    def names(self, kind: str = "all") -> list[str]:
        """Names of the members of a kind."""
        return [one.name for one in self.members if kind in ("all", one.kind)]

    @property
    def kinds(self) -> list[str]:
        """The kinds of members there are."""
        return [kind for kind in KINDS if any(one.kind == kind for one in self.members)]


def asking(standing: Standing, *, model: str | None, kinds: Collection[str], judged: bool) -> Asking:
    """Who is to be asked.

    Args:
        model: a name; "own" is each language's own adapter; None: the model in use, or the selected merge.
        kinds: of members, "all" among them for every one there is.
        judged: whether the judge is asked too, where the config names one.
    Raises InputError for a model that is not there, and for members that cannot be had.
    """
    state = standing.state()
    make = Steps(standing.config, standing.facts)
    asked_about = _model(standing, state, make, model)
    best = _best(make, state)
    found = [
        *made.free_members(make, best),
        *made.trained_members(make),
        *made.prompted_members(make),
        *made.other_bases(_other_bases(standing)),
    ]
    files = {f"{FILE}{name}": path for name, path in standing.config.ensemble.files.items()}
    found += [Member(name, "files") for name in files]
    for kind in kinds:
        if kind not in KINDS:
            fix = f"Known are: {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}"
            raise InputError("--members", f"there are no members of a kind {kind!r}.", fix)
        if kind != "all" and not any(one.kind == kind for one in found):
            there = list(dict.fromkeys(one.kind for one in found))
            fix = f"There are: {', '.join(there)}. More: ensemble: in the config."
            raise InputError("--members", f"the config has no {kind} for members.", fix)
    wanted = [one for one in found if "all" in kinds or one.kind in kinds]
    members, missing = _there(standing, state, wanted)
    members = [one for one in members if one.name != asked_about.name]
    judge = _judge(standing, state) if judged else None
    if judge is not None and _fingerprint(standing, state, judge) == _fingerprint(
        standing, state, asked_about
    ):
        itself = f"{judge.name} is the model that is asked about, and agrees with itself."
        raise InputError(JUDGE, itself, "Name another one.")
    files = {name: path for name, path in files.items() if any(one.name == name for one in members)}
    missing += [
        f"data.{language}: {summary.overlap} test rows are among the training rows; they are left out of the reference."
        for language, summary in standing.facts.rows.items()
        if summary.overlap
    ]
    return Asking(standing, state, asked_about, tuple(members), files, judge, tuple(missing), time.time())


def in_use(asking: Asking) -> Asking | None:
    """The model in use with the adapter that it has of each language as the member, where another model is asked about;
    None where it is the same, or there is none.

    Members of today would side with a model of today: what spoilt one adapter spoilt the merges of it too.
    """
    standing, current = asking.standing, asking.standing.current
    if current is None or standing.unlike:
        return None
    other = _model(standing, asking.state, asking.make, None)
    if other.name == asking.model.name:
        return None
    own = _own_of_release(standing, asking.state)
    members = () if own is None else (own,)
    return replace(asking, model=other, members=members, files={}, judge=None, missing=())


def answered(asking: Asking, production: Mapping[str, Texts], *, reference: bool = True, hand: Hand) -> Graph:
    """Have everyone answer what they have not yet answered; gives the graph of these steps.

    Args:
        production: texts without labels, by language.
        reference: whether the labelled test rows are answered too.
    """
    graph = graph_of(asking, production, reference=reference)
    do_graph(asking.standing, graph, hand)
    return graph


def graph_of(asking: Asking, production: Mapping[str, Texts], *, reference: bool = True) -> Graph:
    """The steps by which everyone answers, and what these stand on; nothing else of the plan."""
    everyone = [asking.model, *(one for one in asking.members if one.kind != "files")]
    if asking.judge is not None and asking.judge.name not in {one.name for one in everyone}:
        everyone.append(asking.judge)
    languages = list(asking.standing.config.languages) if reference else []
    planned = asking.state.plan.graph
    whole = asked(
        asking.make, planned, everyone, production=production, reference=languages, since=asking.since
    )
    names = [
        name
        for member in everyone
        for language, split in [
            *((one, "test") for one in languages),
            *((one, PRODUCTION) for one in production),
        ]
        if (name := answers_name(member, language, split)) in whole
    ]
    rows = [f"{PRODUCTION}/{language}" for language in production]
    return whole.only([*names, *rows, *(f"data/{language}" for language in languages)])


def evidence(
    asking: Asking,
    graph: Graph,
    languages: Iterable[str],
    *,
    split: str,
    kind: str = "all",
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evidence:
    """What everyone's answers to the rows of some languages say.

    Args:
        graph: of steps that are done.
        split: "test" or "production".
        kind: of members that are taken.
        known: fields of `Answered` (windows, weights, truth, inclusion), each by language.
    """
    standing = asking.standing
    members = [one for one in asking.members if kind in ("all", one.kind)]

    def folder(name: str) -> Path | None:
        return standing.store.folder(graph.fingerprints[name]) if name in graph else None

    parts = []
    for language in languages:
        rows = folder(_rows_name(language, split))
        model = folder(answers_name(asking.model, language, split))
        if rows is None or model is None:
            continue
        ids = [row.id for row in read_examples(rows, "test")] if asking.files else []
        said: dict[str, Any] = {
            one.name: read_member_file(asking.files[one.name], ids=ids, language=language)
            if one.kind == "files"
            else folder(answers_name(one, language, split))
            for one in members
        }
        said = _each_once(said, model)
        judge = None if asking.judge is None else folder(answers_name(asking.judge, language, split))
        task = standing.facts.tasks.get(language, standing.facts.task)
        told = {key: value[language] for key, value in (known or {}).items() if language in value}
        parts.append(Answered(language, task, rows, model, said, judge, **told))
    return evidence_of(parts)


def _each_once(said: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """The answers of members but for those that are the model's own, or another member's, under another name."""
    found: dict[str, Any] = {}
    for name, answers in said.items():
        again = isinstance(answers, Path) and (answers == model or answers in found.values())
        found[name] = None if again else answers
    return found


def texts_of(
    asking: Asking, graph: Graph, languages: Iterable[str], *, split: str
) -> list[tuple[str, Example]]:
    """The rows of `evidence`, in its order, each with its language."""
    store = asking.standing.store
    return [
        (language, row)
        for language in languages
        if answers_name(asking.model, language, split) in graph
        for row in read_examples(store.folder(graph.fingerprints[_rows_name(language, split)]), "test")
    ]


def labelled_evidence(asking: Asking, graph: Graph, *, kind: str = "all") -> Evidence:
    """What everyone's answers to the labelled test rows say, but for rows that were trained on: of these nobody's error
    is that of new texts."""
    standing = asking.standing
    languages = list(standing.config.languages)
    found = evidence(asking, graph, languages, split="test", kind=kind)
    overlapping = {one for one in languages if standing.facts.rows[one].overlap}
    if not overlapping:
        return found
    trained = {
        (language, row.prompt.source)
        for language in overlapping
        for row in read_examples(standing.store.folder(graph.fingerprints[f"data/{language}"]), "train")
    }
    rows = texts_of(asking, graph, languages, split="test")
    return found.take(np.array([(language, row.prompt.source) not in trained for language, row in rows]))


def _rows_name(language: str, split: str) -> str:
    return f"data/{language}" if split == "test" else f"{PRODUCTION}/{language}"


# --- the model -------------------------------------------------------------------------------------------


def _model(standing: Standing, state: State, make: Steps, name: str | None) -> Member:
    if name is None:
        current = standing.current
        if current is None:
            releasing.model_in_use(standing)  # or says why there is none
            return Member(str(state.selected))
        must_be_there(standing, current)
        if standing.unlike:
            raise InputError(standing.where, f"{standing.unlike}.", "Name another: --model.")
        for one in (state.selected, COMBINED):
            if one in state.assessments and state.assessments[str(one)].fingerprint == current.fingerprint:
                return Member(str(one))
        assert standing.release is not None
        return Member(standing.release.model, steps=(released(make, standing.release),))
    if name in ("own", OWN):
        return _made(standing, state, Member(OWN), "--model")
    known = [*state.plan.reported, *state.plan.merges]
    if name not in known:
        fix = f"There are: own, {', '.join(dict.fromkeys(known))}.{did_you_mean(name, known)}"
        raise InputError("--model", f"there is no model {name!r}.", fix)
    if name.startswith("adapter/") and name != COMBINED and "[" not in name:
        fix = "Write own: each language is then answered by its own adapter."
        raise InputError("--model", f"{name!r} answers in one language only.", fix)
    if name == TRANSLATED:
        fix = "Name a model that answers texts as they are."
        raise InputError("--model", f"{name} answers translations, and these texts have none.", fix)
    return _made(standing, state, Member(name), "--model")


def _fingerprint(standing: Standing, state: State, model: Member) -> str:
    """Of a model, or of each language's own together."""
    known = {**state.plan.graph.fingerprints, **Graph(model.steps).fingerprints}
    names = [model.on(language) for language in standing.config.languages]
    found = [known.get(name, name) for name in names]
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if model.own else found[0]


def _made(standing: Standing, state: State, model: Member, where: str) -> Member:
    """The model, if all that the plan makes for it is there: to estimate trains nothing of the plan."""
    lacking = _lacking(standing, state, model)
    if lacking is not None:
        raise InputError(where, f"{lacking} is not there yet.", standing.run_first)
    return model


def _lacking(standing: Standing, state: State, member: Member) -> str | None:
    """What of the plan a member is, or is made from, and is not there; None where nothing is lacking."""
    languages = standing.config.languages
    if member.name == ROUTED:
        names = [f"adapter/{language}" for language in languages]
    elif member.steps:
        below = (dep for step in member.steps for dep in step.deps.values() if isinstance(dep, str))
        names = [*(step.name for step in member.steps), *below]
    else:
        names = [member.on(language) for language in languages]
    return next((one for one in names if one in state.assessments and not state.record(one)), None)


# --- the members -----------------------------------------------------------------------------------------


def _best(make: Steps, state: State) -> dict[str, str]:
    """The chosen member of each recipe; where nothing is chosen yet the recipe itself, which is not there."""
    record = state.record("select")
    return dict(record["result"]["best"]) if record else {one: f"merged/{one}" for one in make.config.merges}


def _there(standing: Standing, state: State, wanted: Sequence[Member]) -> tuple[list[Member], list[str]]:
    """The members that can be had now, and sentences on those that cannot.

    What a project should have and has not (rows have changed since the last run) is not trained here: a release's own
    adapters stand in for those of its languages. What is trained or drawn for this alone is made.
    """
    found, missing = [], []
    for one in wanted:
        member = one if _can_be_had(standing, state, one) else _in_its_place(standing, state, one)
        if member is None:
            missing.append(one)
        else:
            found.append(member)
    kept = [one.name for one in missing if one.kind == "checkpoints"]
    others = [one.name for one in missing if one.kind != "checkpoints"]
    said = []
    if others:
        said.append(f"{NOT_THERE}: {_some(others)}. {standing.run_first}")
    if kept:
        said.append(
            f"{NOT_THERE}: {_some(kept)}. Trainings keep them from then on where ensemble.free names "
            "checkpoints."
        )
    return found, said


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _can_be_had(standing: Standing, state: State, member: Member) -> bool:
    if member.kind == "checkpoints":
        return _kept_epochs(state, member)
    if member.kind == "merges":
        return state.record(member.name) is not None
    return _lacking(standing, state, member) is None


def _in_its_place(standing: Standing, state: State, member: Member) -> Member | None:
    """What the current release has in place of an adapter that is not trained yet."""
    if member.kind == "own":
        return _own_of_release(standing, state)
    step = (
        _of_release(standing, state, member.name.removeprefix("adapter/"))
        if member.kind == "adapters"
        else None
    )
    return None if step is None else Member(step.name, member.kind, (step,))


def _of_release(standing: Standing, state: State, language: str) -> Step | None:
    """The adapter that the current release has of a language; None where it has none that is there."""
    current = standing.current
    adapter = None if current is None else current.languages.get(language)
    if (
        current is None
        or adapter is None
        or not standing.same_base(current)
        or not standing.store.has(adapter)
    ):
        return None
    return replace(
        state.assessments[f"adapter/{language}"].step,
        name=f"release/{current.name}/{language}",
        deps={},
        pinned=adapter,
        note=f"of release {current.name}",
    )


def _own_of_release(standing: Standing, state: State) -> Member | None:
    """The adapters that the current release has, each in its own language; None where one is not there."""
    found = [_of_release(standing, state, language) for language in standing.config.languages]
    steps = tuple(step for step in found if step is not None)
    if standing.current is None or len(steps) < len(found):
        return None
    return Member(f"release/{standing.current.name}/{LANGUAGE}", "own", steps)


def _kept_epochs(state: State, member: Member) -> bool:
    """Whether each language's training kept the adapter that the member is."""
    from sabir.lora.files import WEIGHTS
    from sabir.work.train import EPOCHS

    for step in member.steps:
        record = state.record(str(step.deps["adapter"]))
        if record is None or f"{EPOCHS}/{step.settings['epoch']}/{WEIGHTS}" not in record["files"]:
            return False
    return bool(member.steps)


def _other_bases(standing: Standing) -> dict[str, Any]:
    config = standing.config
    return {
        name: model_beside(name, config, standing.locked, standing.facts.memory, where="ensemble.bases")
        for name in config.ensemble.bases
    }


def _judge(standing: Standing, state: State) -> Member | None:
    judge = standing.config.estimate.judge
    if judge is None:
        return None
    if judge.endpoint is not None:
        return Member(f"judge/{judge.model}", endpoint=asdict(judge))
    if judge.model in ("own", OWN):
        return _made(standing, state, Member(OWN), JUDGE)
    if judge.model.startswith(PROJECT_MODELS):
        if judge.model not in state.assessments and not judge.model.startswith("base"):
            known = [*state.plan.reported, *state.plan.merges]
            fix = f"There are: {', '.join(known)}.{did_you_mean(judge.model, known)}"
            raise InputError(JUDGE, f"there is no model {judge.model!r}.", fix)
        return _made(standing, state, Member(judge.model), JUDGE)
    pinned = model_beside(judge.model, standing.config, standing.locked, standing.facts.memory, where=JUDGE)
    return Member(judge.model, base=pinned)


def refuse_without_members(asking: Asking, kind: str, needs: Iterable[str]) -> None:
    """Raise InputError where an estimator needs members and there is none."""
    if "agreement" in needs and not asking.names(kind):
        fix = "Name more under ensemble: (free: [adapters, merges], seeds: 3, files: ...)."
        lacking = [one for one in asking.missing if one.startswith(NOT_THERE)]
        raise InputError("ensemble", f"nobody answers beside {asking.model.name}.", " ".join(lacking) or fix)
