"""A simulated year: five languages, twelve months, a retraining now and then. Which policy spends it best?

    python benchmarks/year/simulate.py [--pool .sabir/year] [--seeds 40] [--every 1] [--texts 100]

Each seed is a year: which languages drift when, how, and how much of their traffic, which texts come each month, how
many labelled rows of the usual kinds. All policies live through the same years. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import policies
from drifts import PLAIN
from policies import Policy, View
from pool import CHECKPOINTS, EVERYONE, OTHERS, TRAINED, Pool, read_pool

from sabir.estimate.advice import LABELS
from sabir.estimate.evidence import Evidence, Segment

MONTHS = 12
DRIFTING = 0.7  # how likely a language drifts within the year
# Of a language's texts, those that are of the drifted kind from then on, at least and at most.
SHARES = {"short": (0.3, 0.8), "new": (0.08, 0.22), "foreign": (0.3, 0.8)}
POLICIES = (
    Policy("never", policies.never),
    Policy("retrain all", policies.everything),
    Policy("round-robin", policies.round_robin),
    Policy("most new data", policies.most_new_data),
    Policy("confidence", policies.confidence),
    Policy("confidence, when sure", policies.surely_less_confident),
    Policy("confidence, up or down", policies.changed_confidence),
    Policy("disagreement, others", policies.disagreement, OTHERS),
    Policy("disagreement up or down, checkpoints", policies.changed_disagreement, CHECKPOINTS),
    Policy("disagreement up or down, others", policies.changed_disagreement, OTHERS),
    Policy("the same, when sure", policies.surely_changed, OTHERS),
    Policy("calibrated disagreement, checkpoints", policies.calibrated, CHECKPOINTS),
    Policy("calibrated disagreement, other seed", policies.calibrated, TRAINED),
    Policy("calibrated disagreement, others", policies.calibrated, OTHERS),
    Policy("calibrated disagreement, all", policies.calibrated, EVERYONE),
    Policy("sabir's advice, others", policies.advised, OTHERS),
    Policy("sabir's advice, all", policies.advised, EVERYONE),
    Policy("sabir's flag extrapolating, checkpoints", policies.extrapolating, CHECKPOINTS),
    Policy("sabir's flag extrapolating, others", policies.extrapolating, OTHERS),
    Policy("the flag, others, with labels", policies.extrapolating_with_labels, OTHERS),
    Policy("sabir's advice, others, with labels", policies.advised_with_labels, OTHERS),
    Policy("labels in turn, others", policies.labels_in_turn, OTHERS),
    Policy("oracle", policies.oracle),
)


@dataclass(frozen=True)
class Drift:
    """From this month on this share of a language's texts is of this kind."""

    kind: str
    month: int
    share: float


@dataclass(frozen=True)
class Year:
    """What happens in a year, whatever is done.

    Args:
        drifts: by language; those that are not in it do not drift.
        keys: the texts of each month, by language.
        arrivals: labelled rows of the usual kinds that come each month, by language.
        turn: the order of round-robin.
    """

    drifts: Mapping[str, Drift]
    keys: Sequence[Mapping[str, Sequence[str]]]
    arrivals: Sequence[Mapping[str, float]]
    turn: Sequence[str]

    def active(self, language: str, month: int) -> str:
        """The state that a training in this month would lead to."""
        drift = self.drifts.get(language)
        return drift.kind if drift is not None and month >= drift.month else "before"


@dataclass
class Lived:
    """How a year went with one policy.

    Args:
        quality: accuracy by month, mean over languages.
        labels: that were made to decide.
        right, retrained: retrainings of a language with something to learn, and all.
        waited: months from each drift to the retraining that mended it, or to the year's end.
    """

    quality: list[float] = field(default_factory=list)
    training_s: float = 0.0
    watching_s: float = 0.0
    labels: int = 0
    right: int = 0
    retrained: int = 0
    waited: list[int] = field(default_factory=list)

    @property
    def device_h(self) -> float:
        return (self.training_s + self.watching_s) / 3600


def year_of(pool: Pool, seed: int, texts: int, *, every_kind: bool) -> Year:
    """The year of a seed, with drifts that a retraining mends, or with all."""
    rng = np.random.default_rng(seed)
    drifts = {}
    for language in pool.languages:
        kind = str(rng.choice(pool.kinds(language) if every_kind else pool.mended(language)))
        drift = Drift(kind, int(rng.integers(1, MONTHS - 2)), float(rng.uniform(*SHARES[kind])))
        if rng.random() < DRIFTING:
            drifts[language] = drift
    keys, arrivals = [], []
    for month in range(MONTHS):
        keys.append({one: _drawn(pool, one, drifts.get(one), month, texts, rng) for one in pool.languages})
        arrivals.append({one: float(rng.lognormal(4, 0.8)) for one in pool.languages})
    return Year(drifts, keys, arrivals, [str(one) for one in rng.permutation(pool.languages)])


def _drawn(
    pool: Pool, language: str, drift: Drift | None, month: int, texts: int, rng: np.random.Generator
) -> list[str]:
    """A month's texts of a language, each at most once."""
    share = drift.share if drift is not None and month >= drift.month else 0.0
    of_kind = int(rng.binomial(texts, share))
    plain = rng.choice(pool.drawable(language, PLAIN), texts - of_kind, replace=False)
    if drift is None or not of_kind:
        return list(plain)
    drawn = [*plain, *rng.choice(pool.drawable(language, drift.kind), of_kind, replace=False)]
    return [str(one) for one in rng.permutation(drawn)]


def live(pool: Pool, year: Year, policy: Policy, every: int) -> Lived:
    """A year with a policy, which may retrain in each `every`-th month; what it trains serves from the next on."""
    lived, turn = Lived(), list(year.turn)
    states = dict.fromkeys(pool.languages, "before")
    arrived = dict.fromkeys(pool.languages, 0.0)
    watched = policy.members or EVERYONE
    # The labelled rows are answered once by each member, and the other seeds are trained once.
    lived.watching_s += sum(policy.asked * _reference_s(pool, one, "before") for one in pool.languages)
    if set(TRAINED) <= set(policy.members):
        lived.watching_s += sum(pool.training_s[one, "before"] for one in pool.languages)
    for month, keys in enumerate(year.keys):
        now = pool.evidence(states, keys, watched)
        accuracy = 1 - _errors(now)
        lived.quality.append(float(accuracy.mean()))
        for language, rows in year.arrivals[month].items():
            arrived[language] += rows
        if (month + 1) % every:
            continue
        lived.watching_s += sum(policy.asked * len(keys[one]) * pool.answer_s[one] for one in pool.languages)
        then = {one: year.active(one, month) for one in pool.languages}
        view = View(
            reference=pool.evidence(states, None, watched),
            production=now.without_labels(),
            turn=turn,
            arrived=arrived,
            training_s={one: pool.training_s[one, states[one]] for one in pool.languages},
            labelled=partial(_labelled, lived, now),
            gain={
                one: float(gain)
                for one, gain in zip(
                    pool.languages, 1 - _errors(pool.evidence(then, keys, watched)) - accuracy, strict=True
                )
            },
        )
        for language in policy.choose(view):
            lived.retrained += 1
            lived.right += then[language] != states[language]
            lived.training_s += pool.training_s[language, then[language]]
            lived.watching_s += policy.asked * _reference_s(pool, language, then[language])
            if then[language] != states[language]:
                lived.waited.append(month + 1 - year.drifts[language].month)
            states[language], arrived[language] = then[language], 0.0
            turn.remove(language)
            turn.append(language)
    lived.waited += [MONTHS - drift.month for one, drift in year.drifts.items() if states[one] != drift.kind]
    return lived


def _labelled(lived: Lived, now: Evidence, language: str) -> Evidence:
    """The month's texts with some of a language labelled; these come in a random order."""
    assert now.error is not None
    rows = np.flatnonzero(now.segment == now.segments.index(Segment(language)))[:LABELS]
    error = np.full(len(now), np.nan)
    error[rows] = now.error[rows]
    lived.labels += len(rows)
    return replace(now, error=error)


def _reference_s(pool: Pool, language: str, state: str) -> float:
    """What one member's answers to the labelled rows of a language take."""
    return len(pool.answers[language, state].reference) * pool.answer_s[language]


def _errors(evidence: Evidence) -> np.ndarray:
    assert evidence.error is not None
    return evidence.mean(evidence.error)


# --- tables ------------------------------------------------------------------------------------------------


def pool_table(pool: Pool) -> str:
    """How good adapters are before and after they have learnt from a drift, and how that looks without labels."""
    lines = []
    for language in pool.languages:
        before = pool.answers[language, "before"]
        for kind in (PLAIN, *pool.kinds(language)):
            states = pool.kinds(language) if kind == PLAIN else [kind]
            after = [pool.answers[language, state].accuracy(kind) for state in states]
            there = before.place == f"production/{kind}"
            lines.append(
                [
                    language,
                    kind,
                    f"{before.accuracy(kind):.3f}",
                    f"{np.mean(after):.3f}",
                    f"{before.confidence[there].mean():.3f}",
                    *(
                        f"{1 - np.nanmean(before.agreement[there][:, list(members)]):.3f}"
                        for members in (CHECKPOINTS, TRAINED, OTHERS)
                    ),
                    "yes" if kind in pool.mended(language) else "",
                ]
            )
    heads = (
        *("", "texts", "accuracy before", "after", "confidence"),
        *("disagreement: checkpoints", "other seed", "others", "mended"),
    )
    return _markdown(heads, lines)


def policy_table(lives: Mapping[str, Sequence[Lived]]) -> str:
    """What each policy gave and cost, with 95 % intervals of the paired differences over years."""
    quality = {name: 100 * np.array([np.mean(one.quality) for one in found]) for name, found in lives.items()}
    lines = []
    for name, found in lives.items():
        hours = np.mean([one.device_h for one in found])
        gained = quality[name] - quality["never"]
        retrained, right = sum(one.retrained for one in found), sum(one.right for one in found)
        lines.append(
            [
                name,
                f"{quality[name].mean():.2f}",
                *(
                    _difference(quality[name] - quality[other]) if name != other else ""
                    for other in ("round-robin", "confidence", "oracle")
                ),
                f"{retrained / len(found):.1f}",
                f"{right / retrained:.2f}" if retrained else "",
                f"{np.mean([one.labels for one in found]):.0f}",
                f"{np.mean([month for one in found for month in one.waited]):.1f}",
                f"{hours:.3f}",
                f"{gained.mean() / hours:.1f}" if hours else "",
            ]
        )
    heads = (
        *("policy", "accuracy, %", "to round-robin", "to confidence", "to oracle"),
        *(
            "retrainings",
            "of a drifted language",
            "labels",
            "months a drift lasted",
            "device h",
            "points gained a device h",
        ),
    )
    return _markdown(heads, lines)


def _difference(values: np.ndarray) -> str:
    from scipy.special import stdtrit

    mean, n = values.mean(), len(values)
    wide = float(stdtrit(n - 1, 0.975)) * values.std(ddof=1) / math.sqrt(n)
    return f"{mean:+.2f} [{mean - wide:+.2f}, {mean + wide:+.2f}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pool", type=Path, default=Path(".sabir/year"))
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--every", type=int, default=1, help="months from one retraining to the next")
    parser.add_argument("--texts", type=int, default=100, help="a language and month")
    parser.add_argument(
        "--every-kind", action="store_true", help="of drift, also those that a retraining does not mend"
    )
    given = parser.parse_args()
    pool = read_pool(given.pool)
    print(pool_table(pool))
    years = [year_of(pool, seed, given.texts, every_kind=given.every_kind) for seed in range(given.seeds)]
    print(f"{len(years)} years, {np.mean([len(one.drifts) for one in years]):.1f} drifts in each\n")
    print(
        policy_table({one.name: [live(pool, year, one, given.every) for year in years] for one in POLICIES})
    )


if __name__ == "__main__":
    main()
