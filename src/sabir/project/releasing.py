"""Releases of a project: promote through the gate, go back, hold a language, export."""

from __future__ import annotations

import contextlib
import getpass
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from sabir import lock
from sabir.catalog import did_you_mean
from sabir.engine.leases import exclusive
from sabir.errors import InputError
from sabir.lock import Hold
from sabir.names import COMBINED, CONTINUED
from sabir.plan import Released, against
from sabir.power import detectable_from_n
from sabir.project.documents import at_once
from sabir.project.running import writing
from sabir.project.servers import base_folder, must_be_there, named_base, put_there, serve, serving_folder
from sabir.project.standing import Standing, State
from sabir.releases import INCUMBENT, Release, Verdict, gate, refusal
from sabir.report.documents import score_rows

Document = dict[str, Any]
Form = Literal["adapter", "model"]


# --- forward ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A model that may be put to use: it passed the gate, or is in use already (then `verdict` is None)."""

    standing: Standing
    state: State
    model: str
    in_use: Released | None
    verdict: Verdict | None
    changes: Sequence[Mapping[str, Any]]

    @property
    def fingerprint(self) -> str:
        """Of its folder in the store."""
        return self.state.assessments[self.model].fingerprint


def promote(standing: Standing, model: str | None, *, accept: Sequence[str], by: str | None) -> Document:
    """Make a model the current release, if it passes the gate; the serving folder follows."""
    return put_to_use([judged(standing, model, accept=accept)], by=by)[0]


def judged(standing: Standing, model: str | None, *, accept: Sequence[str]) -> Candidate:
    """Ask the gate; nothing is changed. Raises GateNotMet with the reason, InputError for a model without scores."""
    state = standing.state()
    name = _candidate(standing, state, model)
    _must_be_scored(standing, state, name)
    in_use = standing.release
    if in_use is not None and in_use.fingerprint == state.assessments[name].fingerprint:
        return Candidate(standing, state, name, in_use, None, ())
    changes = None if in_use is None else _changes(standing, state, name, in_use)
    config = standing.config
    verdict = gate(
        changes,
        max_drop=config.gate.max_drop,
        undecided=config.gate.undecided,
        level=config.evaluate.level,
        accept=accept,
        lost=standing.unlike,
    )
    if not verdict.promoted:
        raise refusal(standing.log.next_name(), verdict)
    return Candidate(standing, state, name, in_use, verdict, changes or ())


def put_to_use(candidates: Sequence[Candidate], *, by: str | None) -> list[Document]:
    """Make each of them the current release of its task, all or none: every folder for servers is built before the
    first is written down. Gives a document each."""
    store, by = candidates[0].standing.store, by or _user()
    made: list[Release | None] = []

    def write_down() -> None:
        for one in candidates:
            one.standing.log.refuse_later(_seen(one))
        made.extend(_written_down(one, by) for one in candidates)

    def served(rest: Sequence[Candidate]) -> None:
        if not rest:
            return write_down()
        put_there(rest[0].standing, rest[0].fingerprint, then=lambda: served(rest[1:]))

    with writing(store), exclusive(store, "serve"):
        served(candidates)
    return [_promoted(one, release) for one, release in zip(candidates, made, strict=True)]


def _seen(candidate: Candidate) -> int:
    """Number of the newest event that was known when the candidate was judged."""
    events = candidate.standing.events
    return events[-1].number if events else 0


def _written_down(candidate: Candidate, by: str) -> Release | None:
    """The release, in the log; None for what is in use already: a run that died between the log and the folder is
    made good."""
    standing, in_use = candidate.standing, candidate.in_use
    if candidate.verdict is None:
        return None
    release = _release(standing, candidate.state, candidate.model, candidate.verdict, candidate.changes, by)
    seen = _seen(candidate)
    if in_use is not None and standing.current is None:
        standing.log.adopt(_incumbent(standing, candidate.state, in_use, by))
        seen += 1
    return standing.log.promote(release, after=seen)


def _promoted(candidate: Candidate, release: Release | None) -> Document:
    if release is None or candidate.verdict is None:
        assert candidate.in_use is not None
        name = candidate.in_use.name
        said = f"{candidate.model} is release {name} already."
        return {"promoted": False, "release": name, "verdict": None, "reasons": [said], "changes": []}
    return {
        "promoted": True,
        "release": release.name,
        "verdict": candidate.verdict.verdict,
        "reasons": list(release.reasons),
        "changes": list(candidate.changes),
        "level": candidate.standing.config.evaluate.level,
        "serve": str(serving_folder(candidate.standing) / "current"),
    }


def _release(
    standing: Standing,
    state: State,
    model: str,
    verdict: Verdict,
    changes: Sequence[Mapping[str, Any]],
    by: str,
) -> Release:
    """A model with all that it stands on, as it will be written down."""
    served = standing.current.languages if standing.current else {}
    gone = sorted(set(served) - set(standing.config.languages))
    in_use = standing.current or standing.release
    return Release(
        name="",
        created=_now(),
        by=by,
        model=model,
        kind=state.assessments[model].step.kind,
        fingerprint=state.assessments[model].fingerprint,
        recipe=_recipe(state, model),
        languages=_adapters(state, model),
        data=_data(standing),
        base=standing.facts.base.identity,
        parent=in_use.name if in_use else None,
        verdict=verdict.verdict,
        reasons=(*verdict.reasons, *(f"{language} is no longer served" for language in gone)),
        accepted=verdict.accepted,
        scores=_scores(standing, state, model),
        changes=changes,
        evaluated=_evaluated(state, model, standing),
        usd=_spent_since(standing, "usd"),
        device_s=_spent_since(standing, "device_s"),
        run=standing.last["id"] if standing.last else None,
    )


def detectable_drops(standing: Standing, state: State) -> list[dict[str, Any]]:
    """The drop that the test rows can show, by language and for the mean (`macro`): from how the selected merge and the
    release in use differ there, or the releases before; else from the number of rows alone."""
    config, facts = standing.config, standing.facts
    level, tests = config.evaluate.level, len(config.languages)
    record = state.record("changes")
    changes = record["result"]["changes"] if record else standing.current.changes if standing.current else ()
    known = {row["language"]: row["detectable"] for row in changes}
    counts = {language: facts.rows[language].rows["test"] for language in config.languages}
    found = [
        {
            "language": language,
            "drop": known.get(language) or detectable_from_n(n, level=level, tests=tests),
            "n": n,
        }
        for language, n in counts.items()
    ]
    alone = [detectable_from_n(n, level=level, tests=1) for n in counts.values()]
    known_alone = [drop for drop in alone if drop is not None]
    whole = len(known_alone) == len(alone)
    mean = math.hypot(*known_alone) / len(alone) if whole else None  # languages err independently
    return [*found, {"language": "macro", "drop": known.get("macro") or mean, "n": sum(counts.values())}]


def _candidate(standing: Standing, state: State, model: str | None) -> str:
    if model is None:
        if not standing.config.merges:
            raise InputError(
                standing.where, "there is no merge to promote.", "Add one under merges: and run it."
            )
        if state.selected is None:
            found = "no merge of today's data is selected yet."
            raise InputError(standing.where, found, standing.run_first)
        return state.selected
    known = [
        name for name in state.plan.reported if name.startswith("merged/") or name in (COMBINED, CONTINUED)
    ]
    if model not in known:
        others = (
            f"Evaluated on the test rows are: {', '.join(known)}." if known else "Nothing is evaluated yet."
        )
        raise InputError(f"promote {model}", "is not evaluated.", f"{others}{did_you_mean(model, known)}")
    return model


def _scores(standing: Standing, state: State, model: str) -> list[dict[str, Any]]:
    """A model's scores on the test rows, those that are there."""
    config = standing.config
    kinds = ("scores", "outputs")  # of the latter it is told what was asked, in the signatures
    languages = (*config.languages, "macro")
    names = [f"{kind}/{model}/{language}/test" for kind in kinds for language in languages]
    records = {name: record for name in names if (record := state.record(name)) is not None}
    return score_rows(config.task_title, config.lora.seed, records)


def _must_be_scored(standing: Standing, state: State, model: str) -> None:
    """Raise InputError for a model that lacks a score on today's test rows."""
    for language in (*standing.config.languages, "macro"):
        name = f"scores/{model}/{language}/test"
        if state.record(name) is None:
            found = f"{name} is not in the store: {model} is not evaluated on today's rows."
            raise InputError(standing.where, found, standing.run_first)


def _changes(standing: Standing, state: State, model: str, in_use: Released) -> list[dict[str, Any]]:
    """The model against the release in use, on the same test rows. Raises InputError when those have no scores."""
    record = state.record("changes")
    if record is not None and record["settings"]["a"] == model:
        return record["result"]["changes"]
    from sabir.work.judge import changes

    graph, step = against(standing.config, standing.facts, state.plan.graph, model, in_use)
    inputs = {role: graph.result_of(dep) for role, dep in step.deps.items()}
    if not all(standing.store.has(fingerprint) for fingerprint in inputs.values()):
        found = f"release {in_use.name} has no scores on today's test rows yet."
        raise InputError(standing.where, found, standing.run_first)
    return next(iter(changes([at_once(standing, step, inputs)])))[1]["result"]["changes"]


def _data(standing: Standing) -> dict[str, Any]:
    """What the release stands on, by language; of one that is held, the rows its adapter was trained on."""
    found: dict[str, Any] = {}
    for language, summary in standing.facts.rows.items():
        found[language] = {"digests": dict(summary.digests), "rows": dict(summary.rows)}
        if hold := standing.facts.holds.get(language):
            then = standing.log.named(hold.release).data[language]
            for what in ("digests", "rows"):
                found[language][what]["train"] = then[what]["train"]
    return found


def _recipe(state: State, model: str) -> Mapping[str, Any] | None:
    """The recipe with which the model can be made again from its adapters; None for what is no merge."""
    assessment = state.assessments[model]
    if assessment.step.kind == "search":
        assert assessment.record is not None
        return assessment.record["result"]["recipe"]
    return assessment.step.settings if assessment.step.kind == "merged" else None


def _adapters(state: State, model: str) -> dict[str, str]:
    step = state.assessments[model].step
    own = state.language_adapters
    return {language: own[language] for language in step.deps if language in own}


def _evaluated(state: State, model: str, standing: Standing) -> list[str]:
    names = [
        f"{kind}/{model}/{language}/test"
        for kind in ("outputs", "scores")
        for language in standing.config.languages
    ]
    return [state.assessments[name].fingerprint for name in (*names, "changes") if state.record(name)]


def _spent_since(standing: Standing, what: str) -> float | None:
    """What all runs since the newest promotion spent, in seconds of devices or in dollars; None when not known."""
    promoted = [event.at for event in standing.events if event.promoted is not None]
    rows = [
        row
        for entry in standing.entries
        if not promoted or entry.get("started", "") >= promoted[-1]
        for row in entry["costs"]
        if row["component"] == "total" and row["measured"]
    ]
    if any(row[what] is None for row in rows):
        return None
    return sum(row[what] for row in rows)


def _incumbent(standing: Standing, state: State, in_use: Released, by: str) -> Release:
    """The model in use before sabir, as release 0."""
    return Release(
        name=INCUMBENT,
        created=_now(),
        by=by,
        model=in_use.model,
        kind=in_use.kind,
        fingerprint=in_use.fingerprint,
        base=standing.facts.base.identity,
        reasons=("it was in use before sabir",),
        scores=_scores(standing, state, in_use.model),
    )


# --- back ------------------------------------------------------------------------------------------------


def roll_back(standing: Standing, to: str | None, *, by: str | None) -> Document:
    """Put an earlier release to use again, at once: nothing is computed."""
    log = standing.log
    current = log.current()
    if current is None:
        raise InputError(
            standing.where, "there is no release to go back from.", "Promote one: sabir promote."
        )
    target = log.named(to) if to is not None else log.before_current()
    if target is None:
        raise InputError(
            standing.where, f"release {current.name} is the first one: nothing was in use before it."
        )
    must_be_there(standing, target)

    def write_down() -> None:
        if target.name != current.name:
            standing.log.roll_back(target.name, by or _user())

    serve(standing, target.fingerprint, then=write_down)
    return {
        "release": target.name,
        "before": current.name,
        "serve": str(serving_folder(standing) / "current"),
    }


@contextlib.contextmanager
def held(standing: Standing, language: str, to: str | None) -> Iterator[None]:
    """Take a language back to an earlier release's adapter, until its training rows change; if the block raises,
    the language is as it was.

    Args:
        to: name of that release; None: the one in use, where its adapter is not today's; else the newest
            before it with another adapter.
    """
    config = standing.config
    standing.must_have(language, f"--language {language}")
    where = f"rollback --language {language}"
    rows = standing.facts.rows[language].digests.get("train")
    if rows is None:
        raise InputError(where, "it brings its own adapter.", "Name the earlier one under data: and run.")
    today = standing.state().language_adapters[language]
    current = standing.current
    if current is None:
        raise InputError(where, "there is no release to go back to.", "Promote one: sabir promote.")
    if to is not None:
        target: Release | None = standing.log.named(to)
    elif current.languages.get(language) not in (None, today):
        target = current
    else:
        target = standing.log.last_with_other(language, today)
    if target is None or language not in target.languages:
        raise InputError(
            where, f"no earlier release has another adapter of {language!r}.", "See `sabir releases`."
        )
    adapter = target.languages[language]
    if not standing.same_base(target):
        raise InputError(where, f"release {target.name} stands on another base than {config.base!r}.")
    if not standing.store.has(adapter):
        raise InputError(where, f"the adapter of release {target.name} is no longer in the store.")
    if adapter == today:
        raise InputError(
            where, f"its adapter is that of release {target.name} already.", "See `sabir releases`."
        )
    before = lock.read(config.where).holds.get(language)
    _hold(config.where, language, Hold(rows, adapter, target.name))
    try:
        yield
    except BaseException:
        _hold(config.where, language, before)
        raise


def lift(standing: Standing, language: str) -> Document:
    """End a hold: at the next run the language's adapter is that of today's rows again."""
    standing.must_have(language, f"--language {language}")
    held = standing.locked.holds.get(language)
    if held is None:
        found = "is not held."
        raise InputError(f"data.{language}", found, "What is held stands under holds: in sabir.lock.")
    _hold(standing.config.where, language, None)
    return {"language": language, "release": held.release}


def _hold(config: Path, language: str, hold: Hold | None) -> None:
    locked = lock.read(config)
    holds = {key: value for key, value in locked.holds.items() if key != language}
    lock.write(config, replace(locked, holds=holds if hold is None else {**holds, language: hold}))


# --- for servers -----------------------------------------------------------------------------------------


def model_in_use(standing: Standing) -> Path:
    """Folder of the current release's model; with no release, of the selected merge.

    Raises InputError when there is neither.
    """
    current = standing.current
    if current is not None:
        must_be_there(standing, current)
        return standing.store.folder(current.fingerprint)
    if not standing.config.merges:
        found = "no release is in use, and there is no merge that could stand in for one."
        fix = "Add one under merges: and run it, or put another model to use: sabir promote CONFIG MODEL."
        raise InputError(standing.where, found, fix)
    state = standing.state()
    name = _candidate(standing, state, None)
    if state.record(name) is None:
        found = "there is no selected merge of today's data yet."
        raise InputError(standing.where, found, standing.run_first)
    return standing.store.folder(state.assessments[name].fingerprint)


def export(standing: Standing, out: Path, *, form: Form, name: str | None) -> Document:
    """Write a release, or the model in use, for a server."""
    from sabir.work.export import export as write

    if form not in get_args(Form):
        known = get_args(Form)
        raise InputError(
            "--as", f"{form!r} is no form.", f"Known are: {', '.join(known)}.{did_you_mean(form, known)}"
        )
    if name is None:
        folder = model_in_use(standing)
    else:
        release = standing.log.named(name)
        must_be_there(standing, release)
        folder = standing.store.folder(release.fingerprint)
    write(folder, out, base=named_base(standing), base_folder=base_folder(standing), form=form)
    return {"out": str(out), "form": form, "release": name or _current_name(standing)}


def _current_name(standing: Standing) -> str | None:
    current = standing.current
    return current.name if current else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user of that number
        return "unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
