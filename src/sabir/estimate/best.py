"""Which estimator and which members a project should trust, from a backtest, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sabir.estimate.judged import Judged
from sabir.estimate.summary import CONSTANT, Bounds, Summary, difference

FREE = ("own", "adapters", "merges", "masks", "checkpoints", "files")
PROMPTED = ("prompts", "bases")
TRAINED = ("seeds", "halves")
_JUDGED = ("silver", "silver-corrected")


@dataclass(frozen=True)
class Best:
    """The estimator and kind of members to use; `why` is a sentence or several, with their numbers."""

    estimator: str
    members: str | None
    why: str


def best_of(
    rows: Sequence[Judged], summary: Sequence[Summary], *, level: float, clusters: Sequence[str]
) -> Best | None:
    """The nearest to the truth, if it is nearer than the constant, else the constant.

    Few languages seldom prove anything: the reason gives the difference to the constant with its interval, its level
    corrected for how many stood for election (Bonferroni), and says where it may be chance. Of those nearer than the
    constant that are not farther off than the nearest by more than chance the one that costs least is taken: what a
    project has anyway before prompts, these before a judge, this before trainings. Only estimates of the mean error
    that need no labels stand for election, judged on languages left out, or where there is but one on domains. None
    where there are none.
    """
    folds = [one.fold for one in summary]
    standing = [
        one
        for one in summary
        if one.fold == ("language" if "language" in folds else "domain")
        and one.metric == "error"
        and not one.labels
        and one.told == one.n
        and one.mae is not None
    ]
    if not standing:
        return None
    by_mae = sorted(standing, key=_mae)
    constant = next((one for one in standing if one.estimator == CONSTANT), None)
    if all(one.near_chance for one in standing):
        why = "The model is near chance on most of these segments: no estimate of its error says anything."
        return Best(CONSTANT, None, why)
    others = [one for one in by_mae if one is not constant]
    nearer = [one for one in others if constant is None or (one.to_constant and one.to_constant.value < 0)]
    if constant is not None and not nearer:
        return Best(CONSTANT, None, _nothing_beats(constant, others))

    def of(one: Summary) -> list[Judged]:
        key = (one.fold, *one.name, 0)
        return [row for row in rows if (row.fold, row.estimator, row.members, row.labels) == key]

    nearest = nearer[0]
    tied = [nearest]
    for one in nearer[1:]:
        apart = difference(of(one), of(nearest), level=level, clusters=clusters)
        if apart is not None and (apart.low is None or apart.low <= 0):
            tied.append(one)
    kinds = {one.members for one in standing}
    chosen = min(tied, key=lambda one: (_cost(one, kinds), _mae(one)))
    sentences = [f"{_named(chosen)} is off by {_mae(chosen):.3f} on average, chosen out of {len(standing)}"]
    if constant is None:
        sentences[0] += "; the constant was not judged."
    else:
        corrected = 1 - (1 - level) / len(others)
        gain = difference(of(constant), of(chosen), level=corrected, clusters=clusters)
        sentences[0] += f", {_less(gain, corrected)}."
    if chosen is not nearest:
        sentences.append(
            f"{_named(nearest)} is off by {_mae(nearest):.3f}, less by what may be chance, and costs more."
        )
    sentences += _free_members(chosen, standing)
    return Best(*chosen.name, " ".join(sentences))


def _mae(one: Summary) -> float:
    assert one.mae is not None
    return one.mae.value


def _cost(one: Summary, kinds: set[str | None]) -> int:
    """What an estimate takes, in steps: nothing, the model's own outputs, free members, prompts, a judge, trainings."""
    if one.estimator == CONSTANT:
        return 0
    if one.estimator in _JUDGED:
        return 4
    if one.members is None:
        return 1
    members = kinds - {"all", None} if one.members == "all" else {one.members}
    if members & set(TRAINED):
        return 5
    return 3 if members & set(PROMPTED) else 2


def _named(one: Summary) -> str:
    return one.estimator if one.members is None else f"{one.estimator} over {one.members}"


def _less(gain: Bounds | None, level: float) -> str:
    """ "0.012 less than constant (98 % interval 0.003 to 0.021)", and whether that may be chance."""
    assert gain is not None  # to be nearer than constant it was held against it
    said = f"{gain.value:.3f} less than constant"
    if gain.low is None or gain.high is None:
        return f"{said}, which may be chance: there are too few for an interval"
    may_be = "" if gain.low > 0 else ", which may be chance"
    return f"{said} ({100 * level:.3g} % interval {gain.low:.3f} to {gain.high:.3f}){may_be}"


def _nothing_beats(constant: Summary, others: Sequence[Summary]) -> str:
    same = '"as good as on the labelled rows"'
    said = f"Nothing judged is nearer than constant, {same} (off by {_mae(constant):.3f})"
    if not others:
        return f"{said}."
    return f"{said}: {_named(others[0])}, the nearest other, is off by {_mae(others[0]):.3f}."


def _free_members(chosen: Summary, standing: Sequence[Summary]) -> list[str]:
    """Which of the free members predict best, by the chosen estimator or, where it has no members, by the nearest."""
    over = [one for one in standing if one.members in FREE]
    if not over:
        return []
    names = [one.estimator for one in over]
    estimator = chosen.estimator if chosen.estimator in names else min(over, key=_mae).estimator
    ranked = sorted((one for one in over if one.estimator == estimator), key=_mae)
    if len(ranked) < 2:
        return []
    told = ", ".join(f"{one.members} {_mae(one):.3f}" for one in ranked)
    return [f"Of the free members {ranked[0].members} predict best by {estimator}: {told}."]
