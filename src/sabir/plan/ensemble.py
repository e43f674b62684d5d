"""Who answers beside a model, so that their disagreement tells of its error: the members, and the steps they take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sabir.config import MergeConfig, members
from sabir.engine.steps import Dep, Graph, Part, Step
from sabir.lock import PinnedBase
from sabir.names import BASE, OWN
from sabir.plan.names import PRELOAD, PRIORITY, VERSIONS, shots_name
from sabir.plan.steps import Steps
from sabir.work.endpoint import identity

OTHER_DRAWS = 1000  # from where on the seeds of masks are counted: no recipe's own, and no training's
PRODUCTION = "production"  # in a split's place: texts without labels
LANGUAGE = "<language>"
ENDPOINT = "endpoint"  # the job in which a server is asked
_ENDPOINT = (
    "language",
    "answer",
    "labels",
    "max_new_tokens",
)  # what of a question's settings a server is told


@dataclass(frozen=True)
class Member:
    """One that answers: a model, or one for each language (`<language>` stands in its name).

    Args:
        kind: of members, see `config.KINDS`; "" of the model that is asked about.
        steps: what makes it, where the plan has nothing of it.
        base: another base that answers by itself, with its folder.
        endpoint: the settings of a server that answers.
    """

    name: str
    kind: str = ""
    steps: tuple[Step, ...] = ()
    base: tuple[PinnedBase, Path] | None = None
    endpoint: Mapping[str, Any] | None = None

    def on(self, language: str) -> str:
        """The name of the model that answers in a language."""
        return self.name.replace(LANGUAGE, language)

    @property
    def own(self) -> bool:
        """Whether each language has its own: such a member says nothing in another language."""
        return LANGUAGE in self.name


@dataclass(frozen=True)
class Texts:
    """Texts without labels in one language: what the step that renders them is told, and how much there is."""

    digest: str
    args: Mapping[str, Any]
    characters: int
    known: bool = field(default=True)  # whether the config has the language


def free_members(make: Steps, best: Mapping[str, str]) -> list[Member]:
    """What a project has anyway.

    Args:
        best: the chosen member of each recipe.
    """
    found: list[Member] = []
    free = make.config.ensemble.free
    if "own" in free:
        found.append(Member(OWN, "own"))
    if "adapters" in free:
        found += [Member(f"adapter/{language}", "adapters") for language in make.languages]
    if "merges" in free:
        found += [Member(name, "merges") for name in best.values()]
    if "masks" in free:
        for merge in make.config.merges.values():
            found += _masks(make, merge, best.get(merge.name, ""))
    if "checkpoints" in free:
        found += _checkpoints(make)
    return found


def trained_members(make: Steps) -> list[Member]:
    """What is trained for this alone: further seeds, or halves of the rows. A project with `seeds:` has them anyway."""
    ensemble, found = make.config.ensemble, []
    halves = ensemble.data == "halves"
    last = max(make.config.seeds, 1 if halves else ensemble.seeds + 1)
    for nth in range(2, last + 1):
        other = Steps(make.config, make.facts, nth)
        steps = [other.adapter(language) for language in make.languages if not make.is_one(language)]
        found.append(Member(f"{OWN}#{nth}", "seeds", tuple(steps)))
    for half in range(1, ensemble.seeds + 1) if halves else ():
        other = Steps(make.config, make.facts, 1)
        steps = [
            _other_seed(other, language, half) for language in make.languages if not make.is_one(language)
        ]
        found.append(Member(f"{OWN}[half={half}]", "halves", tuple(steps)))
    return found


def prompted_members(make: Steps) -> list[Member]:
    """The bare base, asked in other ways."""
    ensemble = make.config.ensemble
    names = {"zero-shot": BASE, "few-shot": shots_name(ensemble.shots)}
    return [Member(names[prompt], "prompts") for prompt in ensemble.prompts]


def other_bases(bases: Mapping[str, tuple[PinnedBase, Path]]) -> list[Member]:
    """Other base models, by the name the config has for them."""
    return [Member(name, "bases", base=base) for name, base in bases.items()]


def _masks(make: Steps, merge: MergeConfig, best: str) -> Iterator[Member]:
    """The chosen member of a recipe that draws by chance, drawn anew."""
    from sabir.merging.methods import METHODS

    weighted = merge.weighted({one: make.facts.trained_on(one) for one in make.languages})
    for member in members(weighted) if merge.search is None else ():
        if member.name != best or "seed" not in METHODS.get(merge.made(member.settings).method).settings:
            continue
        for nth in range(1, make.config.ensemble.masks + 1):
            seed = member.settings.get("seed", 0)
            assert isinstance(seed, int)
            recipe = weighted.made({**member.settings, "seed": seed + OTHER_DRAWS + nth}).identity()
            name = f"{best.removesuffix(']')},mask={nth}]" if best.endswith("]") else f"{best}[mask={nth}]"
            yield Member(name, "masks", (make.merge(name, recipe, make.own_adapters()),))


def _checkpoints(make: Steps) -> Iterator[Member]:
    """Each language's own adapter as it was after each epoch but the last."""
    epochs = {
        language: math.ceil(make.config.languages[language].lora.epochs) - 1
        for language in make.languages
        if not make.is_one(language)
    }
    for epoch in range(1, max(epochs.values(), default=0) + 1):
        steps = [
            Step(
                name=f"adapter/{language}[epoch={epoch}]",
                kind="checkpoint",
                run="sabir.work.epochs:checkpoint",
                version=VERSIONS["checkpoint"],
                settings={"epoch": epoch},
                deps={"adapter": f"adapter/{language}"},
                batch="checkpoint",
                priority=PRIORITY["checkpoint"],
            )
            for language, last in epochs.items()
            if epoch <= last
        ]
        yield Member(f"{OWN}[epoch={epoch}]", "checkpoints", tuple(steps))


def _other_seed(make: Steps, language: str, half: int) -> Step:
    """An adapter of one half of the rows, with a seed of its own."""
    lora = make.config.languages[language].lora
    return make.trained(language, replace(lora, seed=lora.seed + OTHER_DRAWS + half), [language], half=half)


# --- what they are asked ---------------------------------------------------------------------------------


def asked(
    make: Steps,
    planned: Graph,
    everyone: Iterable[Member],
    *,
    production: Mapping[str, Texts],
    reference: Sequence[str],
    since: float = 0.0,
) -> Graph:
    """The steps by which everyone answers texts without labels, and the labelled test rows of the reference.

    Args:
        planned: the plan of the config, which most of it stands on.
        production: texts by language.
        reference: languages whose test rows are answered.
        since: when the command began, in Unix time: what a server may cost counts from then on.
    """
    steps: dict[str, Step] = {}
    for language, texts in production.items():
        steps[f"{PRODUCTION}/{language}"] = Step(
            name=f"{PRODUCTION}/{language}",
            kind="production",
            run="sabir.work.production:prepare",
            version=VERSIONS["production"],
            settings={"rows": texts.digest, "language": language},
            args=texts.args,
            size=float(texts.characters),
            priority=PRIORITY["production"],
        )
    for member in everyone:
        steps |= {step.name: step for step in member.steps}
        languages = [(one, "test") for one in reference] + [(one, PRODUCTION) for one in production]
        for language, split in languages:
            step = _answers(make, member, language, split, production, since)
            if step is not None:
                steps[step.name] = step
    return Graph((step for name, step in steps.items() if name not in planned), on=planned)


def _answers(
    make: Steps, member: Member, language: str, split: str, production: Mapping[str, Texts], since: float
) -> Step | None:
    """The step by which one member answers in one language; None where it has nothing to say there."""
    known = language in make.languages
    if member.own and not (known and _has_own(member, language)):
        return None
    shots = member.name.startswith(f"{BASE}[")
    if shots and (not known or language not in make.with_rows):
        return None  # there are no rows to take examples from
    stand_in = language if known else make.languages[0]
    step = make.outputs(BASE if member.base or member.endpoint else member.on(stand_in), stand_in, "test")
    settings = {**step.settings, "language": language}
    rows: Dep = f"{PRODUCTION}/{language}" if split == PRODUCTION else Part(f"data/{language}", "test")
    args, batch, run = dict(step.args), step.batch, step.run
    if member.base is not None:
        base, folder = member.base
        settings["base"] = base.identity
        args["base"] = {"name": base.name, "folder": str(folder), "revision": base.revision}
        batch = f"outputs/{base.identity}"
    if member.endpoint is not None:
        asked_for = {key: value for key, value in settings.items() if key in _ENDPOINT}
        settings = {**asked_for, "endpoint": identity(member.endpoint)}
        args |= {"judge": dict(member.endpoint), "since": since}
        batch, run = ENDPOINT, "sabir.work.endpoint:outputs"
    size = production[language].characters if split == PRODUCTION else step.size
    return replace(
        step,
        name=answers_name(member, language, split),
        run=run,
        settings=settings,
        deps={**step.deps, "rows": rows},
        args=args,
        batch=batch,
        size=None if size is None or member.endpoint is not None else float(size),
        preload=PRELOAD if member.endpoint is None else None,
    )


def _has_own(member: Member, language: str) -> bool:
    """Whether a member with an adapter for each language has one of this: an adapter that was brought, or is held, is
    the same in all trainings, and one of few epochs has few checkpoints."""
    return not member.steps or member.on(language) in {step.name for step in member.steps}


def answers_name(member: Member, language: str, split: str) -> str:
    """What the step is called by which a member answers."""
    return f"outputs/{member.on(language)}/{language}/{split}"
