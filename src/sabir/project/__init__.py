"""One config and its store, as an object: what the command line and notebooks call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sabir.config import Config, load_configs, task_of
from sabir.engine.run import Listener
from sabir.engine.store import Store
from sabir.errors import GateNotMet, InputError, SabirError, StepFailed, StoreError, raise_all
from sabir.languages import is_language_tag
from sabir.project import looking_back, releasing, running, upkeep
from sabir.project.accounts import rates, retraining, settle, size_from_nothing, supposed
from sabir.project.documents import compared, run_document
from sabir.project.places import slots
from sabir.project.running import Hand
from sabir.project.standing import Standing
from sabir.project.tasks import accepted, each, of_one, together, told
from sabir.report.documents import plan_document
from sabir.report.money import rows_since


class Project:
    """A config file and the store it names.

    Every method returns one of the documents that `--json` prints (a plain dict). Raises InputError for what
    is wrong with the config, its files or its base, StoreError when the store cannot be used, StepFailed
    when a step of a run fails, and GateNotMet when a release does not pass.

    A config with several `tasks` is a project of all of them: `check`, `plan`, `run`, `show`, `releases`, `promote`,
    `gc` and `verify` take them together and give one document (see `project.tasks.together`); the other methods need a
    project of one of them.

    Args:
        path: the config file.
        overrides: settings in place of the file's, {"lora.epochs": "5"} or ["lora.epochs=5"].
        allow_code: whether functions of your own that the config names ("my.module:function") may be run.
        task: the name of one of several tasks; None: all there are.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overrides: Mapping[str, str] | Sequence[str] = (),
        allow_code: bool = False,
        task: str | None = None,
    ):
        every = load_configs(path, overrides=overrides, allow_code=allow_code)
        self.configs: tuple[Config, ...] = every if task is None else (task_of(every, task),)
        self.store = Store(self.configs[0].run.store)
        self._every = every

    @property
    def config(self) -> Config:
        """The config, of one task. Raises InputError where there are several."""
        return task_of(self.configs, None)

    def check(self) -> dict[str, Any]:
        """Everything that can be wrong, before anything heavy starts; warnings in the document."""
        return self._all(self._check)

    def _check(self, config: Config) -> dict[str, Any]:
        standing = self._standing(config, with_base=True)
        state = standing.state()
        slots(config)
        facts = standing.facts
        return {
            "ok": True,
            "base": {
                "name": facts.base.name,
                "identity": facts.base.identity,
                "revision": facts.base.revision,
            },
            "rows": {language: dict(summary.rows) for language, summary in facts.rows.items()},
            "warnings": standing.warnings(state),
        }

    def plan(self, *, with_baseline: bool = False) -> dict[str, Any]:
        """What would run and why, and what it would take; nothing is run."""
        return self._all(lambda config: self._plan(config, with_baseline))

    def _plan(self, config: Config, with_baseline: bool) -> dict[str, Any]:
        standing = self._standing(config, with_base=False)
        state = standing.state(with_baseline=with_baseline)
        document = plan_document(
            [{**row, **size_from_nothing(standing, row["name"])} for row in state.rows()],
            [asdict(step) for step in state.plan.later],
            standing.warnings(state),
            rates(standing.entries),
            phase=standing.phase(state)[0],
            devices=len(slots(config)),
            usd_per_hour=config.prices.usd_per_hour,
            retraining=retraining(standing),
        )
        return document | {"detectable": releasing.detectable_drops(standing, state)}

    def what_if(self, added: Mapping[str, int], *, devices: Sequence[int] = (1,)) -> dict[str, Any]:
        """What an update would take before its rows exist, by both routes, and from where on retraining all is
        cheaper.

        Args:
            added: training rows to come, by language; a language that is not in the config is a new one.
            devices: numbers of devices to answer for.
        """
        _check_added(added)
        with self._one() as config:
            standing = self._standing(config, with_base=False)
            return supposed(standing, standing.state(), added, devices=devices)

    def run(
        self,
        *,
        with_baseline: bool = False,
        workers: int | None = None,
        listener: Listener | None = None,
        warn: Callable[[str], None] = lambda warning: None,
        agree: Callable[[str], bool] = lambda question: False,
    ) -> dict[str, Any]:
        """Do what is missing. What finished stays in the store whatever happens after it.

        Several tasks run one after the other; one that fails does not keep the others from running.

        Args:
            with_baseline: train the combined baseline again if its data changed; else the old one stands in.
            workers: jobs side by side, in place of the config's.
            listener: hears how far it is.
            warn: hears each warning before anything starts; the document has them too.
            agree: asked, in a sentence, whether to go on where a language lost more than half of its rows since the
                last run; without it that is an InputError.
        Raises StepFailed when a step failed (the others were kept), KeyboardInterrupt when interrupted.
        """
        hand = Hand(workers, listener or Listener(), warn, agree)
        if len(self.configs) == 1:
            with self._one() as config:
                return running.do_missing(config, self.store, with_baseline=with_baseline, hand=hand)
        self.check()  # of all, before the first one starts
        documents: dict[str, dict[str, Any]] = {}
        errors: list[SabirError] = []
        for config in self.configs:
            hand.listener.task(str(config.task_name))
            try:
                with told(config):
                    documents[str(config.task_name)] = running.do_missing(
                        config, self.store, with_baseline=with_baseline, hand=of_one(hand, config)
                    )
            except (StepFailed, InputError) as error:
                errors += error.problems()
        raise_all(errors)
        return together(documents, self.configs)

    def show(
        self,
        *,
        compare: tuple[str, str] | None = None,
        metric: str | None = None,
        since: str | None = None,
    ) -> dict[str, Any]:
        """Quality, time and cost as they stand, with the costs of all runs so far.

        Args:
            compare: two models; `comparisons` then holds the first against the second and nothing else.
            metric: that two models are compared by; None: the one that selects.
            since: a date, a run's id or its number; `costs` then begins there.
        """
        return self._all(lambda config: self._show(config, compare, metric, since))

    def _show(
        self, config: Config, compare: tuple[str, str] | None, metric: str | None, since: str | None
    ) -> dict[str, Any]:
        standing = self._standing(config, with_base=False)
        state = standing.state()
        last = standing.last
        document = run_document(
            standing,
            state,
            run_id=last["id"] if last else None,
            phase=last["phase"] if last else "none",
            changed=last["languages_changed"] if last else [],
        )
        if compare is not None:
            document["comparisons"] = compared(standing, state, *compare, metric)
        if since is not None:
            document["costs"] = rows_since(document["costs"], since)
        return document

    def predict(
        self, texts: Sequence[str | Mapping[str, Any]], *, language: str | None = None
    ) -> list[dict[str, Any]]:
        """The current release's answer to each text; with no release, the selected merge's.

        Args:
            texts: what is asked; a mapping has it as `input`, and `choices` where the task is to choose among a row's
                own.
            language: whose prompt is used; None: what all languages have in common.
        Returns: `input`, `prediction`, and where an answer is chosen the log-likelihoods of all, as `scores`.
        """
        from sabir.work.predict import answer, rows_of

        with self._one() as config:
            standing = self._standing(config, with_base=True)
            if language is not None:
                standing.must_have(language, f"--language {language}")
            facts = standing.facts
            task = facts.task if language is None else facts.tasks[language]
            rows = rows_of(texts, task)
            model = releasing.model_in_use(standing)
            assert facts.base_folder is not None
            return answer(
                rows,
                task=task,
                base=facts.base_folder,
                model=model,
                max_length=config.lora.max_length,
                batch_size=config.evaluate.batch_size,
                device=slots(config)[0].device,
            )

    # --- without labels ----------------------------------------------------------------------------------

    def estimate(
        self,
        production: str | Path,
        *,
        labels: str | Path | None = None,
        choose: int | None = None,
        out: str | Path | None = None,
        model: str | None = None,
        members: str | None = None,
        estimator: str | None = None,
        window: str | int | None = None,
        workers: int | None = None,
        listener: Listener | None = None,
        warn: Callable[[str], None] = lambda warning: None,
        agree: Callable[[str], bool] = lambda question: False,
    ) -> dict[str, Any]:
        """The error on texts that nobody labelled, by language, domain and window, with advice what to do first.

        Args:
            production: a file of texts with `input` and `language`, maybe `domain`, `time`, `weight`, `id`.
            labels: a file of labels for some of them.
            choose: how many texts to write to the file `out` that are worth a label.
            model: whose error; None: that of the release in use, with no release that of the selected merge; "own":
                that of each language's own adapter.
            members: a kind of members, see `ensemble`; None: what the config says, or the last backtest chose.
            estimator: likewise, a name of `sabir list estimators`.
            window: "day", "week", "month" or a number of texts, in place of the config's.
            workers, listener, warn: as in `run`; agree: asked before a judge that costs money.
        """
        from sabir.project.estimating import Wanted, estimate

        hand = Hand(workers, listener or Listener(), warn, agree)
        with self._one() as config:
            return estimate(
                self._standing(config, with_base=True),
                Path(production),
                labels=None if labels is None else Path(labels),
                choose=choose,
                out=None if out is None else Path(out),
                wanted=Wanted(model, members, estimator, window),
                hand=hand,
            )

    def backtest(
        self,
        *,
        model: str | None = None,
        members: Sequence[str] | None = None,
        workers: int | None = None,
        listener: Listener | None = None,
        warn: Callable[[str], None] = lambda warning: None,
        agree: Callable[[str], bool] = lambda question: False,
    ) -> dict[str, Any]:
        """How far off each estimator would have been on labelled rows, each language and domain left out in turn.

        The best one is used by `estimate` from then on.

        Args:
            model: as in `estimate`.
            members: kinds of members to try; None: all there are. With a model or members of one's own nothing is
                chosen for later.
            workers, listener, warn, agree: as in `estimate`.
        """
        from sabir.project.estimating import Wanted, judged

        hand = Hand(workers, listener or Listener(), warn, agree)
        with self._one() as config:
            standing = self._standing(config, with_base=True)
            return judged(standing, wanted=Wanted(model), kinds=members or (), hand=hand)

    # --- releases ----------------------------------------------------------------------------------------

    def promote(
        self, model: str | None = None, *, accept: Sequence[str] = (), by: str | None = None
    ) -> dict[str, Any]:
        """Make a model the current release, if it passes the gate. Of several tasks all are promoted, or none.

        Args:
            model: name of a merge, or `adapter/combined`; None: the selected merge.
            accept: languages that may be worse, "macro", "undecided" or "all".
            by: who promotes; None: the user of this process.
        Raises InputError for a model that was not evaluated, GateNotMet with the reason.
        """
        if len(self.configs) == 1:
            with self._one() as config:
                standing = self._standing(config, with_base=True)
                return releasing.promote(standing, model, accept=accept, by=by)
        candidates = {}
        errors: list[SabirError] = []
        for config in self.configs:
            try:
                with told(config):
                    standing = self._standing(config, with_base=True)
                    here = accepted(accept, config, self.configs)
                    candidates[str(config.task_name)] = releasing.judged(standing, model, accept=here)
            except (GateNotMet, InputError) as error:
                errors += error.problems()
        raise_all(errors)
        documents = releasing.put_to_use(list(candidates.values()), by=by)
        return together(dict(zip(candidates, documents, strict=True)), self.configs)

    def rollback(
        self,
        *,
        to: str | None = None,
        language: str | None = None,
        accept: Sequence[str] = (),
        by: str | None = None,
        workers: int | None = None,
        listener: Listener | None = None,
        warn: Callable[[str], None] = lambda warning: None,
        agree: Callable[[str], bool] = lambda question: False,
    ) -> dict[str, Any]:
        """Go back: to the release before the current one, at once; or with one language only.

        Args:
            to: name of the release to go back to, or to take the language's adapter from.
            language: merge this language's earlier adapter with today's others, and promote the result. The
                language is held there until its training rows change, or until `lift`.
            accept, by: as in `promote`; workers, listener, warn, agree: as in `run`.
        Raises GateNotMet when the result does not pass; nothing has changed then.
        """
        with self._one() as config:
            if language is None:
                return releasing.roll_back(self._standing(config, with_base=True), to, by=by)
            hand = Hand(workers, listener or Listener(), warn, agree)
            with releasing.held(self._standing(config, with_base=False), language, to):
                ran = running.do_missing(config, self.store, with_baseline=False, hand=hand)
                trained = [
                    step["name"]
                    for step in ran["steps"]
                    if step["kind"] == "adapter" and step["status"] == "run"
                ]
                standing = self._standing(config, with_base=True)
                promoted = releasing.promote(standing, None, accept=accept, by=by)
                return {**promoted, "trained": trained if ran["run"]["id"] else []}

    def lift(self, language: str) -> dict[str, Any]:
        """End the hold of a language: at the next run its adapter is that of today's rows again."""
        with self._one() as config:
            return releasing.lift(self._standing(config, with_base=False), language)

    def blame(
        self, release: str, language: str, *, workers: int | None = None, listener: Listener | None = None
    ) -> dict[str, Any]:
        """Which of a release's changed adapters made one language worse: each is put back by itself.

        Raises InputError for a release or a language that is not there, or a release without a parent.
        """
        hand = Hand(workers, listener or Listener())
        with self._one() as config:
            return looking_back.blame(self._standing(config, with_base=True), release, language, hand=hand)

    def releases(self) -> dict[str, Any]:
        """The history of releases, the oldest first, and which is current."""
        return self._all(lambda config: looking_back.history(self._standing(config, with_base=False)))

    def export(
        self, out: str | Path, *, form: releasing.Form = "adapter", release: str | None = None
    ) -> dict[str, Any]:
        """Write a release for a server: a canonical adapter, or the base with it folded in.

        Args:
            out: a folder that is not there yet.
            form: "adapter" or "model".
            release: its name; None: the model in use.
        """
        with self._one() as config:
            standing = self._standing(config, with_base=True)
            return releasing.export(standing, Path(out), form=form, name=release)

    # --- the store ---------------------------------------------------------------------------------------

    def why(self, step: str) -> dict[str, Any]:
        """Why a step runs again, or is reused: where its identity differs, down to where the change began."""
        with self._one() as config:
            return upkeep.why(self._standing(config, with_base=False), step)

    def gc(self, *, dry_run: bool = False, keep_runs: int = 3) -> dict[str, Any]:
        """Free what neither releases nor the last runs stand on, of any task.

        Args:
            dry_run: only say what would be freed.
            keep_runs: how many of the last runs count, of each task.
        """
        standings = []
        for config in self._every:
            with told(config):
                standings.append(self._standing(config, with_base=False))
        return upkeep.gc(standings, dry_run=dry_run, keep_runs=keep_runs)

    def verify(self, *, on_step: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
        """Read every file of the store again; what is damaged is put aside, and the next run makes it anew."""
        return upkeep.verify(self.store, on_step=on_step)

    def forget(
        self, rows: Sequence[str] = (), *, language: str | None = None, purge: bool = False
    ) -> dict[str, Any]:
        """Leave rows out from now on, by id or by text; list the store's copies of what was forgotten.

        Args:
            rows: ids or whole input texts. None: only look for copies of what was forgotten before.
            language: look in this language only.
            purge: delete the copies, and all that stands on them.
        """
        with self._one() as config:
            beside = [one.name for one in self._every if one.name != config.name]
            return upkeep.forget(config, self.store, rows, language=language, purge=purge, beside=beside)

    def _standing(self, config: Config, *, with_base: bool) -> Standing:
        with contextlib.suppress(OSError, StoreError):  # read only, or a full disk: it is shown as it is
            settle(self.store)
        return Standing(config, self.store, with_base=with_base)

    @contextlib.contextmanager
    def _one(self) -> Iterator[Config]:
        """The config of the one task; what goes wrong with it says so where it is one of several."""
        config = self.config
        with told(config):
            yield config

    def _all(self, do: Callable[[Config], dict[str, Any]]) -> dict[str, Any]:
        """The document of the one task, or of all of them."""
        if len(self.configs) == 1:
            with self._one() as config:
                return do(config)
        return together(each(self.configs, do), self.configs)


def _check_added(added: Mapping[str, int]) -> None:
    for language, rows in added.items():
        if not is_language_tag(language):
            raise InputError(
                "--what-if", f"{language!r} is no language tag (BCP 47).", "Write it as de or pt-BR."
            )
        if rows < 1:
            raise InputError(
                "--what-if", f"{rows:+} rows of {language} are none that come.", "Give a number above 0."
            )
