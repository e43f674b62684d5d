"""How far models' answers agree, and what that says of their errors: of labels, or by any measure of agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from sabir.estimate.evidence import Evidence

NONE = -1  # in the place of a label: no answer
Agree = Callable[[Any, Any], float]  # how far two answers agree, in [0, 1]: the task's own metric


def coded(*columns: Iterable[Any]) -> tuple[list[np.ndarray], list[Any]]:
    """Answers as numbers: each column as (n,) int, equal answers alike and -1 for none (None, NaN); and the answers.

    Raises TypeError for answers that cannot be held against each other by equality, such as lists.
    """
    numbers: dict[Any, int] = {}
    found = []
    for column in columns:
        values = column.tolist() if isinstance(column, np.ndarray) else column
        places = (NONE if absent(one) else numbers.setdefault(one, len(numbers)) for one in values)
        found.append(np.fromiter(places, dtype=np.int64))
    return found, list(numbers)


def absent(answer: Any) -> bool:
    """Whether this stands for no answer: None, or a NaN such as tables have in empty places."""
    return answer is None or (isinstance(answer, float) and answer != answer)


def of_labels(answer: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(n, M) 1 where a member has the model's label, 0 where another, NaN where it has none.

    A model without an answer agrees with nobody.

    Args:
        answer: (n,) int, the model's labels, -1 for none.
        members: (n, M) int, likewise.
    """
    same = (members == answer[:, None]).astype(float)
    same[members == NONE] = np.nan
    return same


def among_labels(members: np.ndarray) -> np.ndarray:
    """(n, M * (M - 1) / 2) the same between members, in the order (0, 1), (0, 2), ..., (1, 2), ..."""
    first, second = np.triu_indices(members.shape[1], 1)
    same = (members[:, first] == members[:, second]).astype(float)
    same[(members[:, first] == NONE) | (members[:, second] == NONE)] = np.nan
    return same


def of_answers(answer: Sequence[Any], members: Sequence[Sequence[Any]], agree: Agree) -> np.ndarray:
    """(n, M) how far each of M members, `members[j][i]`, agrees with the model; as `of_labels`.

    Raises ValueError where `agree` gives what is no number in [0, 1].
    """
    return _columns([_agreements(answer, member, agree, own=True) for member in members], len(answer))


def among_answers(members: Sequence[Sequence[Any]], agree: Agree) -> np.ndarray:
    """(n, M * (M - 1) / 2) the same between members; as `among_labels`."""
    pairs = [_agreements(first, second, agree, own=False) for first, second in combinations(members, 2)]
    return _columns(pairs, len(members[0]) if members else 0)


def disagreement(agreement: np.ndarray) -> np.ndarray:
    """(n,) 1 less the mean agreement of each row; NaN where no column has a value.

    Of `Evidence.agreement`: how far the members disagree with the model in use. Of `Evidence.pairs`: how far they
    disagree with each other.

    Source: Jiang et al. (2022), https://arxiv.org/abs/2106.13799
    """
    known = ~np.isnan(agreement)
    number = known.sum(axis=1)
    sums = np.where(known, agreement, 0.0).sum(axis=1)
    return 1 - np.divide(sums, number, out=np.full(len(sums), np.nan), where=number > 0)


def disagreements(evidence: Evidence) -> np.ndarray:
    """(S,) the mean disagreement with the model in use in each segment; NaN where nothing is known of it."""
    if evidence.agreement is None:
        return np.full(len(evidence.segments), np.nan)
    return evidence.mean(disagreement(evidence.agreement))


@dataclass(frozen=True)
class Shared:
    """What the errors of classifiers consist of; means over their pairs.

    Args:
        disagreement: the share of texts on which two differ.
        both_wrong: on which both are wrong; same_wrong: on which both give the same wrong answer.
    """

    disagreement: float
    both_wrong: float
    same_wrong: float

    @property
    def error(self) -> float:
        """The mean error of the members: an identity. Half the disagreement is thus a lower bound of it."""
        return (self.disagreement + self.both_wrong + self.same_wrong) / 2


def shared_mistakes(members: np.ndarray, truth: np.ndarray) -> Shared:
    """How many mistakes labels of members, (n, M) int, share, held against the gold labels, (n,) int."""
    wrong = members != truth[:, None]
    first, second = np.triu_indices(members.shape[1], 1)
    differ = members[:, first] != members[:, second]
    both = wrong[:, first] & wrong[:, second]
    return Shared(float(differ.mean()), float(both.mean()), float((both & ~differ).mean()))


def independent_disagreement(error: float, labels: int) -> float:
    """What two classifiers of this error disagree if they err independently, and over all wrong labels alike."""
    return 2 * error * (1 - error) + error**2 * (labels - 2) / (labels - 1)


def krippendorff_alpha(
    ratings: np.ndarray, *, scale: Literal["nominal", "interval"] = "nominal"
) -> float | None:
    """How far answers agree beyond chance: 1 all, 0 as if drawn by lot. None where all answers are the same.

    Args:
        ratings: (units, raters) numbers; NaN for none.
    Source: Krippendorff (2011), https://repository.upenn.edu/handle/20.500.14332/2089
    """
    known = ~np.isnan(ratings)
    known &= (known.sum(axis=1) > 1)[:, None]  # an answer that stands alone can be held against none
    values, places = np.unique(ratings[known], return_inverse=True)
    units = np.broadcast_to(np.arange(len(ratings))[:, None], ratings.shape)[known]
    counts = np.zeros((len(ratings), len(values)))
    np.add.at(counts, (units, places), 1)
    distance = values[:, None] != values if scale == "nominal" else (values[:, None] - values) ** 2
    size = counts.sum(axis=1)
    within = ((counts @ distance) * counts).sum(axis=1)
    whole = counts.sum(axis=0)
    expected = whole @ distance @ whole / max(1.0, whole.sum() - 1)
    if expected == 0:
        return None
    return float(1 - np.divide(within, size - 1, out=np.zeros(len(size)), where=size > 1).sum() / expected)


def _agreements(first: Sequence[Any], second: Sequence[Any], agree: Agree, *, own: bool) -> np.ndarray:
    """(n,) of two columns of answers; first is the model's `own`, and where it has none it agrees with nobody."""
    found = np.empty(len(first))
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        if absent(other) or (absent(one) and not own):
            found[row] = np.nan
        else:
            found[row] = 0.0 if absent(one) else float(agree(one, other))
            if not 0 <= found[row] <= 1:
                raise ValueError(
                    f"agree({_short(one)}, {_short(other)}) gave {found[row]:g}; expected a number in [0, 1]"
                )
    return found


def _columns(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))


def _short(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) <= 60 else text[:57] + "..."
