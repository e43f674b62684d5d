"""Which of several models is best on the same examples, and which cannot be told from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sabir.stats.macro import keys_of_groups, macro_p_of
from sabir.stats.results import Value, check_settings, holm
from sabir.stats.samples import Keys, pair_of, score, unscored, with_seeds
from sabir.stats.single import Settings, p_of


@dataclass(frozen=True)
class Standing:
    """The best of several models, and those tied with it.

    Attributes:
        best: the model with the highest score, None when no model can be ranked; of equal ones the first given.
        tied: the other models that are not significantly worse, in the order given.
    """

    best: str | None
    tied: tuple[str, ...]


def standings(
    statistics: Mapping[str, np.ndarray],
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    clusters: Keys | None = None,
) -> Standing:
    """The model with the highest score on these examples, and all that are not significantly worse.

    On the examples that all of them have scored. Each is compared with the best by `paired_difference`, and the
    p-values are corrected over the models (Holm): the model that is truly best is then among best and tied at least
    as often as `level` says. A model without a scored example is neither; where the others have no example in
    common there is no best.

    Args:
        statistics: per model, rows from the same examples, as in `bootstrap`.
        clusters: as in `bootstrap`.
    """
    by_model = {model: [rows] for model, rows in statistics.items()}
    return standings_macro(
        by_model,
        value,
        seed=seed,
        level=level,
        resamples=resamples,
        keys=None if clusters is None else [clusters],
    )


def standings_macro(
    by_model: Mapping[str, Sequence[np.ndarray]],
    value: Value,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    keys: Sequence[Keys] | None = None,
) -> Standing:
    """As `standings`, by the mean score over several groups (languages).

    A model that has a group without a scored example is left out: its mean is unknown.

    Args:
        by_model: per model its statistics of every group, in one order.
        keys: as in `bootstrap_macro`.
    """
    check_settings(level, resamples)
    settings = Settings(seed, level, resamples)
    stacked = {model: [with_seeds(rows) for rows in groups] for model, groups in by_model.items()}
    if len({tuple(rows.shape[1:] for rows in groups) for groups in stacked.values()}) > 1:
        raise ValueError("models have statistics of different shapes; a ranking needs the same examples")
    ranked = {
        model: groups for model, groups in stacked.items() if all((~unscored(rows)).any() for rows in groups)
    }
    if not ranked:
        return Standing(None, ())
    of_groups = keys_of_groups(next(iter(ranked.values())), keys)
    kept = [~np.any([unscored(rows) for rows in of], axis=0) for of in zip(*ranked.values(), strict=True)]
    if not all(rows.any() for rows in kept):
        return Standing(None, ())
    common = {
        model: [rows[:, scored] for rows, scored in zip(groups, kept, strict=True)]
        for model, groups in ranked.items()
    }
    keys_kept = [
        None if of is None else [of[i] for i in np.flatnonzero(scored).tolist()]
        for of, scored in zip(of_groups, kept, strict=True)
    ]
    scores = {
        model: np.mean([float(score(value, rows.mean(axis=1))) for rows in groups])
        for model, groups in common.items()
    }
    best = max(scores, key=lambda model: scores[model])  # the first of equal ones
    others = [model for model in common if model != best]
    found = holm([_p(common[model], common[best], keys_kept, value, settings) for model in others])
    tied = [model for model, p in zip(others, found, strict=True) if p is None or p > 1 - level]
    return Standing(best, tuple(tied))


def _p(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    keys: Sequence[Keys | None],
    value: Value,
    settings: Settings,
) -> float:
    """Of the difference between two models, in one group or in the mean over several."""
    pairs = [pair_of(ours, theirs, of) for ours, theirs, of in zip(a, b, keys, strict=True)]
    return p_of(pairs[0], value, settings) if len(pairs) == 1 else macro_p_of(pairs, value, settings)
