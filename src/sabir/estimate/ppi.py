"""The error of a segment from a few labels and a guess at every text: prediction-powered inference.

The guess (say, of a text's error from how its answers disagree) may be as wrong as it likes: labels say how wrong it is
on average, and that is taken off. A guess of no use gets the factor 0, and the labels stand alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sabir.estimate.means import FEWEST, groups_of, mean_of
from sabir.stats.shares import independent_rows

FOLDS = 5
# Errors, and right answers: Wilson's interval covers 92.2 % at 50 texts and an error of 0.02.
FEWEST_OF_A_KIND = 5
SURPRISES = 0.5  # of each kind, see `from_labels`; twice as many widen 20 labels' intervals by up to a half
_LOG_U = -25.0, 25.0  # beyond, characteristic functions of values in [0, 1] add less than 1e-9


@dataclass(frozen=True)
class Powered:
    """A mean with its interval, and the factor that the guesses got; 0 leaves the labels alone."""

    mean: float
    low: float
    high: float
    factor: float


@dataclass(frozen=True)
class Guesses:
    """Guesses at texts, as rows that stand for several: (n,) each; counts, weights: None is 1 each."""

    values: np.ndarray
    counts: np.ndarray | None = None
    weights: np.ndarray | None = None


def powered_mean(
    values: np.ndarray,
    guesses: np.ndarray,
    rest: Guesses,
    *,
    level: float,
    weights: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    folds: int = FOLDS,
    student: bool = True,
    surprises: float = 0.0,
) -> Powered:
    """The mean of all texts, from the labelled ones' values and everyone's guesses.

    mean = Ȳ_n + λ (f̄_N - f̄_n), λ = Cov(Y, f) / ((1 + n / N) Var f) in [0, 1], variance = Var(Y - λ f) / n +
    λ² Var f / N. With weights n and N are those of equal weights that say as much (Kish).

    Args:
        values: (n,) of labelled texts.
        guesses: (n,) at the same texts.
        rest: guesses at the N texts that speak for all. Where the labelled are a plain random sample: those without a
            label. Where they were chosen with known probabilities: all texts, the labelled too (difference estimator).
        weights: (n,) what each labelled text stands for: its traffic, over the probability with which it was chosen.
        keys: (n,) labelled texts of one key are not independent, see `mean_of`.
        folds: λ for one fold of the labelled texts comes from the others; 1: one λ for all, from all (plug-in), as for
            texts that were chosen in strata: there folds make up for each other, and λ from the others is biased (by up
            to 0.15 standard errors).
        student: Student's t rather than the normal distribution.
        surprises: for values in [0, 1]: the interval, not the mean, is that of so many labels more of value 1 where the
            guess was lowest, and as many of value 0 where it was highest: what 20 labels happen not to hold.
    Source: PPI++, https://arxiv.org/abs/2311.01453, sections 2 and 6; folds, Cross-PPI, https://arxiv.org/abs/2309.16598;
        known probabilities, Särndal, Swensson and Wretman (1992), section 6.3.
    """
    from scipy.special import ndtri, stdtrit

    others = mean_of(rest.values, weights=rest.weights, counts=rest.counts)
    groups = groups_of(keys, len(values))
    units = np.arange(len(values)) if groups is None else groups
    each = np.ones(len(values)) if weights is None else weights
    factors = np.zeros(len(values))
    if len(rest.values):
        for fold in range(folds):
            mine = units % folds == fold
            learnt = ~mine if folds > 1 else mine
            factors[mine] = _factor(values[learnt], guesses[learnt], each[learnt], rest, others.units)
    factor = float(np.average(factors, weights=each))
    # Around the mean of the rest, so that folds with different factors agree on where 0 is.
    centre = others.value if len(rest.values) else 0.0
    left = mean_of(values - factors * (guesses - centre), weights=weights, keys=keys)
    middle, variance = left.value, left.variance
    if surprises:
        seen = np.concatenate([guesses, rest.values])
        ends = np.array([1 - factor * (seen.min() - centre), -factor * (seen.max() - centre)])
        texts = left.units + 2 * surprises
        middle = (left.units * left.value + surprises * ends.sum()) / texts
        squares = left.units * (left.units * variance + (left.value - middle) ** 2)
        variance = float(squares + surprises * ((ends - middle) ** 2).sum()) / texts**2
    if factor:
        variance += factor**2 * others.variance
    upper = (1 + level) / 2
    quantile = (
        float(stdtrit(left.units - 1, upper) if student else ndtri(upper)) if left.units > 1 else math.inf
    )
    half = quantile * math.sqrt(variance) if variance else 0.0
    return Powered(left.value, middle - half, middle + half, factor)


def from_labels(
    errors: np.ndarray,
    guesses: np.ndarray,
    rest: Guesses,
    *,
    level: float,
    weights: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    folds: int = FOLDS,
) -> tuple[Powered, str]:
    """The mean error with the interval that this many labels allow, and by what it was made.

    From 20 independent labels with five errors and five right answers (in sum, where errors come in degrees) it is
    `powered_mean`, else `bounded_mean` of the labels alone. Arguments as for `powered_mean`; at least one label.

    Departs from PPI++ by half an error that no guess foresaw and half a right answer that all took for an error
    (`surprises`; less where errors come in degrees and vary less than 0 and 1 do). Without them 95 % intervals cover
    0.88 to 0.92 where most errors, but not all, are foreseen (members with shared mistakes; 20 and 50 labels, errors of
    0.1 to 0.3), since the labels then often hold no surprise; with them 0.93 and more.
    """
    plain = mean_of(errors, weights=weights, keys=keys)
    wrong = float(errors.sum())
    enough = min(wrong, len(errors) - wrong) >= FEWEST_OF_A_KIND
    if plain.units >= FEWEST and enough:
        degrees = float(errors.var() / (errors.mean() * (1 - errors.mean())))
        found = powered_mean(
            errors,
            guesses,
            rest,
            level=level,
            weights=weights,
            keys=keys,
            folds=folds,
            surprises=SURPRISES * degrees,
        )
        return found, "PPI++"
    low, high = bounded_mean(errors, level=level, weights=weights, keys=keys)
    graded = not np.isin(errors, (0.0, 1.0)).all()
    return Powered(plain.value, low, high, 0.0), "Gaffke" if graded else "Clopper-Pearson"


def bounded_mean(
    values: np.ndarray,
    *,
    level: float,
    weights: np.ndarray | None = None,
    keys: np.ndarray | None = None,
) -> tuple[float, float]:
    """An interval for the mean of values in [0, 1] that needs no bell curve: for few labels, or few errors.

    For values of 0 and 1 Clopper and Pearson's. For others Gaffke's: the values and, for the upper end, a 1 get random
    weights, the gaps between uniform numbers, and the end is the quantile of their weighted mean. With 0 and 1 both are
    the same (Beta). No values are known for which it covers less than it says; a proof there is for 0 and 1 alone.
    Unequal weights and shared keys count as that many fewer texts.

    Args:
        values: (n,) in [0, 1], at least one.
        weights, keys: as in `powered_mean`.
    Source: Clopper and Pearson (1934); Gaffke (2005), https://arxiv.org/abs/1905.06208 (Learned-Miller and Thomas);
        the number of independent texts, Korn and Graubard (1998).
    """
    n = _independent(values, weights, keys, level)
    shares = np.ones(len(values)) if weights is None else weights
    shapes = shares / shares.sum() * n
    low = 1 - _upper_end(1 - values, shapes, level)
    return low, _upper_end(values, shapes, level)


def _factor(
    values: np.ndarray, guesses: np.ndarray, weights: np.ndarray, rest: Guesses, units: float
) -> float:
    """λ, in [0, 1]; the variance of guesses is that of the labelled and the rest together."""
    if len(values) < 2:
        return 0.0
    whole = weights.sum()
    n = whole**2 / (weights**2).sum()
    if n <= 1:
        return 0.0
    about, centre = np.average(values, weights=weights), np.average(guesses, weights=weights)
    covariance = float((weights * (values - about) * (guesses - centre)).sum() / whole * n / (n - 1))
    # Both kinds of text count as many as they are, and within their kind by their weight.
    scale = len(values) / whole
    own = _ones(rest.values) if rest.weights is None else rest.weights
    counted = _ones(rest.values) if rest.counts is None else rest.counts
    own = counted * own * (counted.sum() / (counted * own).sum())
    pooled = np.concatenate([guesses, rest.values])
    shares = np.concatenate([weights * scale, own])
    middle = np.average(pooled, weights=shares)
    texts = shares.sum()
    variance = float((shares * (pooled - middle) ** 2).sum() / (texts - 1))
    # A variance below the rounding of the sums is none.
    if variance <= 1e-18:
        return 0.0
    return min(1.0, max(0.0, covariance / ((1 + n / units) * variance)))


def _independent(
    values: np.ndarray, weights: np.ndarray | None, keys: np.ndarray | None, level: float
) -> float:
    groups = groups_of(keys, len(values))
    kish = mean_of(values, weights=weights, keys=keys).units
    if groups is None or groups.max() == 0:
        return kish
    sums, squares = np.bincount(groups, values), np.bincount(groups, values**2)
    return min(kish, independent_rows(sums, squares, np.bincount(groups).astype(float), level))


def _upper_end(values: np.ndarray, shapes: np.ndarray, level: float) -> float:
    """The quantile of the mean of values and a 1, by Dirichlet weights of these shapes and of shape 1."""
    from scipy.optimize import brentq

    if values.min() == 1:
        return 1.0
    upper = (1 + level) / 2
    found, places = np.unique(np.append(values, 1.0), return_inverse=True)
    shape = np.bincount(places, np.append(shapes, 1.0))
    # The mean is at most t where the sum of gamma variables, each times its value - t, is at most 0: the probability
    # of that by the characteristic function (Gil-Pelaez), over log u in steps that follow how fast it turns. With 0 and
    # 1 it is Clopper and Pearson's end to 1e-9.
    step = min(0.2, 1 / math.sqrt(shape.sum()))
    u = np.exp(np.arange(*_LOG_U, step))

    def beyond(end: float) -> float:
        turned = np.outer(u, found - end)
        size = np.exp(-0.5 * np.log1p(turned**2) @ shape)
        below = 0.5 - float((size * np.sin(np.arctan(turned) @ shape)).sum()) * step / math.pi
        return below - upper

    return float(brentq(beyond, found[0], 1.0, xtol=1e-9))


def _ones(values: np.ndarray) -> np.ndarray:
    return np.ones(len(values))
