"""How far two answers are the same, by the task's own metric: what a model's disagreement with others is made of.

Labels and choices agree or do not. Keyphrases agree as far as F1@M says of the two sets, texts as far as ROUGE-L does:
neither answer is the gold one, and either order gives the same. Two answers without a phrase (a word) agree; an answer
without any and one that has some do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np

from sabir.metrics.catalog import same_length
from sabir.metrics.keyphrases import _APART, _key, _pieces
from sabir.metrics.words import words

Answers = Sequence[str | None]
Alike = Callable[[int, int], float]  # of two answers by their places among the distinct ones


def agreement(answers_a: Answers, answers_b: Answers, *, answer: str, language: str) -> np.ndarray:
    """How far each answer is the other one's, by the task's own metric.

    Args:
        answers_a, answers_b: one per text; None where there is none.
        answer: the kind of answer: "label", "choice", "phrases" or "text".
        language: BCP-47; decides how phrases and words are compared.
    Returns: (n,) in [0, 1]; NaN where one of the two is None.
    """
    return all_agreements(answers_a, [answers_b], answer=answer, language=language)[0][:, 0]


def all_agreements(
    model_answers: Answers, members: Sequence[Answers], *, answer: str, language: str
) -> tuple[np.ndarray, np.ndarray]:
    """How far a model's answers are those of each member of an ensemble, and theirs each other's.

    Every distinct answer is read once, however many members gave it.

    Args:
        model_answers, members: M members; otherwise as for `agreement`.
    Returns: (n, M), and (n, M * (M - 1) / 2) in the order (0, 1), (0, 2), ..., (1, 2), ...
    """
    for number, answers in enumerate(members):
        same_length(model_answers, answers, f"answers of member {number}")
    distinct: dict[str, int] = {}
    model, *others = [_places(answers, distinct) for answers in (model_answers, *members)]
    alike = _alike(distinct, answer, language)
    agreements = [_column(model, other, alike) for other in others]
    pairs = [_column(a, b, alike) for a, b in combinations(others, 2)]
    return _side_by_side(agreements, len(model)), _side_by_side(pairs, len(model))


def _places(answers: Answers, distinct: dict[str, int]) -> np.ndarray:
    """The place of each answer among the distinct ones, to which new ones are added; -1 for None."""
    return np.array(
        [-1 if one is None else distinct.setdefault(one, len(distinct)) for one in answers], dtype=np.int64
    )


def _column(a: np.ndarray, b: np.ndarray, alike: Alike) -> np.ndarray:
    column = np.where((a < 0) | (b < 0), np.nan, (a == b).astype(float))
    unequal = np.flatnonzero(column == 0)
    column[unequal] = [alike(i, j) for i, j in zip(a[unequal].tolist(), b[unequal].tolist(), strict=True)]
    return column


def _side_by_side(columns: Sequence[np.ndarray], n: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.empty((n, 0))


def _alike(distinct: Iterable[str], answer: str, language: str) -> Alike:
    """How far two distinct answers agree."""
    if answer in ("label", "choice"):
        return lambda i, j: 0.0
    if answer == "phrases":
        sets = _phrase_sets(distinct, language)
        return lambda i, j: _of_sets(sets[i], sets[j])
    if answer == "text":
        texts = _word_runs(distinct, language)
        return lambda i, j: _of_texts(texts[i], texts[j])
    raise ValueError(f"answer is {answer!r}; expected label, choice, phrases or text")


def _phrase_sets(answers: Iterable[str], language: str) -> list[frozenset[int]]:
    """The phrases of each answer, each phrase by a number of its own; what is written alike is read once."""
    numbers: dict[str, int] = {}
    written: dict[str, int] = {"": -1}

    def number_of(text: str) -> int:
        if text not in written:
            pieces = _pieces(text, language)
            written[text] = numbers.setdefault(_key(pieces, language), len(numbers)) if pieces else -1
        return written[text]

    return [frozenset(map(number_of, _APART.split(answer))) - {-1} for answer in answers]


def _of_sets(a: frozenset[int], b: frozenset[int]) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


def _word_runs(answers: Iterable[str], language: str) -> list[tuple[list[int], dict[int, int]]]:
    """Of each answer its words by number, and for each word the places where it stands, as bits."""
    numbers: dict[str, int] = {}
    found = []
    for answer in answers:
        run = [numbers.setdefault(word, len(numbers)) for word in words(answer, language=language)]
        places: dict[int, int] = {}
        for place, word in enumerate(run):
            places[word] = places.get(word, 0) | 1 << place
        found.append((run, places))
    return found


def _of_texts(a: tuple[list[int], dict[int, int]], b: tuple[list[int], dict[int, int]]) -> float:
    """F of the longest run of words that both have in order, gaps allowed.

    Source: the length by the bits of one number, Hyyrö (2004), "Bit-parallel LCS-length computation revisited"; some
    fifty times as fast as the table of rouge-score, whose F this is.
    """
    (run_a, places), (run_b, _) = a, b
    if not run_a or not run_b:
        return float(not run_a and not run_b)
    whole = (1 << len(run_a)) - 1
    left = whole  # a bit falls to 0 for each word of a that the run takes in
    for word in run_b:
        met = left & places.get(word, 0)
        left = ((left + met) | (left - met)) & whole
    longest = len(run_a) - left.bit_count()
    if not longest:
        return 0.0
    of_a, of_b = longest / len(run_a), longest / len(run_b)
    return 2 * of_a * of_b / (of_a + of_b)
