"""Estimates for people with models of their own: answers as plain lists or arrays, no config, no store, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sabir.catalog import did_you_mean
from sabir.estimate.agreement import Agree, absent, among_answers, among_labels, coded, of_answers, of_labels
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Estimate, Evidence, Segment, segmented

_NEEDED = ("answer", "members", "language")
_COLUMNS = (*_NEEDED, "domain", "window", "truth", "error", "weight", "keys", "count")
_TOLD = ("agreement", "pairs", "member_error", "error", "labels")  # what such columns tell estimators
_UNLABELLED = "disagreement"  # the one that can do without any label


def disagreement(
    reference: Mapping[str, Any],
    production: Mapping[str, Any],
    *,
    level: float = 0.9,
    agree: Agree | None = None,
    estimator: str = "calibrated-disagreement",
) -> list[Estimate]:
    """The error of a model on texts without labels, from how far other models disagree with it.

        sabir.estimate.disagreement(
            {"answer": [...], "members": {"a": [...], "b": [...]}, "language": [...], "truth": [...]},
            {"answer": [...], "members": {"a": [...], "b": [...]}, "language": [...]},
        )

    Both are mappings of columns, a value a text (lists, arrays, the columns of a table):

    - `answer`: the model's. `members`: other models', a mapping from name to column, or an array (n, M). None or NaN
      where there is none; a model without an answer is wrong.
    - `language`: a column, or one for all. `domain`, `window`: likewise, where the error of each is asked for.
    - `truth`: the gold answers; or `error`, numbers in [0, 1], where they are known already. None or NaN where a text
      is not labelled. The reference needs one of the two; in production only estimators that live on a few labels
      look at them.
    - `weight`: the traffic that a text stands for. `count`: how many texts a row stands for. `keys`: texts of one key
      are translations or parts of one source; None: of none.

    Args:
        level: of the intervals. There is one from four labelled segments on, each a language, domain and window.
        agree: how far two answers agree, in [0, 1]; None: whether they are equal. Give the task's own metric for lists
            and texts. Where `error` is not given it tells that too, 1 - agree(answer, truth).
        estimator: one of the catalogue that needs no more than this.
    Returns an `Estimate` for each segment of production, in the order of their names. Raises ValueError for columns
    that are missing, unknown or not of one length, and for values out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; expected a number between 0 and 1, such as 0.9")
    needs = _needs(estimator)
    known, asked = _read("reference", reference), _read("production", production)
    if set(known.members) != set(asked.members):
        raise ValueError(
            f"the reference has the members {', '.join(known.members)}, production {', '.join(asked.members)}; "
            "expected the same ones"
        )
    labelled = known.evidence(list(known.members), agree, needs)
    if not labelled.labelled.any() and estimator != _UNLABELLED:
        raise ValueError(
            f"reference: no text is labelled. Give 'truth' or 'error', or take estimator={_UNLABELLED!r}, "
            "which can do without"
        )
    evidence = asked.evidence(list(known.members), agree, needs)
    return ESTIMATORS.get(estimator).function(labelled, evidence, level=level)


def _needs(estimator: str) -> Sequence[str]:
    """What this estimator must be given. Raises ValueError where columns of answers cannot tell it."""
    possible = [entry.name for entry in ESTIMATORS if set(entry.facts["needs"]) <= set(_TOLD)]
    if estimator not in ESTIMATORS:
        known = ", ".join(possible)
        raise ValueError(
            f"estimator {estimator!r} is none; expected one of {known}.{did_you_mean(estimator, possible)}"
        )
    needs = ESTIMATORS.get(estimator).facts["needs"]
    if estimator not in possible:
        lacking = ", ".join(one for one in needs if one not in _TOLD)
        raise ValueError(
            f"estimator {estimator!r} needs {lacking}, which members do not tell; expected one of {', '.join(possible)}"
        )
    return needs


@dataclass(frozen=True)
class _Table:
    """Columns of one length, checked."""

    where: str
    segments: list[Segment]
    answer: list[Any]
    members: dict[str, list[Any]]
    truth: list[Any] | None
    error: np.ndarray | None
    keys: np.ndarray | None
    weight: np.ndarray | None
    count: np.ndarray | None

    def evidence(self, order: Sequence[str], agree: Agree | None, needs: Sequence[str]) -> Evidence:
        """What these answers are to each other; members in this order."""
        members = [self.members[name] for name in order]
        compared = self._labels(members, needs) if agree is None else self._answers(members, agree, needs)
        names, segment = segmented(self.segments)
        if self.error is not None:
            compared["error"] = self.error
        return Evidence(names, segment, keys=self.keys, weight=self.weight, count=self.count, **compared)

    def _labels(self, members: list[list[Any]], needs: Sequence[str]) -> dict[str, np.ndarray]:
        truths = [] if self.truth is None else [self.truth]
        try:
            (own, *others), _ = coded(self.answer, *members, *truths)
        except TypeError:
            raise ValueError(
                f"{self.where}: answers such as {_example(self.answer)!r} cannot be held against each other by "
                "equality; give agree=, a function of two answers such as their F1"
            ) from None
        for name, column in (*self.members.items(), *([("truth", self.truth)] if self.truth else [])):
            _check_alike(self.where, self.answer, name, column)
        labels = np.stack(others[: len(members)], axis=1)
        found = {"agreement": of_labels(own, labels)}
        if "pairs" in needs:
            found["pairs"] = among_labels(labels)
        if truths:
            gold = others[-1]
            found["error"] = np.where(gold < 0, np.nan, own != gold)
            if "member_error" in needs:
                found["member_error"] = np.where(
                    (gold[:, None] < 0) | (labels < 0), np.nan, labels != gold[:, None]
                )
        return found

    def _answers(self, members: list[list[Any]], agree: Agree, needs: Sequence[str]) -> dict[str, np.ndarray]:
        found = {"agreement": of_answers(self.answer, members, agree)}
        if "pairs" in needs:
            found["pairs"] = among_answers(members, agree)
        if self.truth is not None:
            if self.error is None:
                found["error"] = 1 - of_answers(self.answer, [self.truth], agree)[:, 0]
            if "member_error" in needs:
                shares = [among_answers([member, self.truth], agree)[:, 0] for member in members]
                found["member_error"] = 1 - np.stack(shares, axis=1)
        return found


def _read(where: str, given: Mapping[str, Any]) -> _Table:
    for name in given:
        if name not in _COLUMNS:
            raise ValueError(
                f"{where}: {name!r} is no column; expected {', '.join(_COLUMNS)}.{did_you_mean(name, _COLUMNS)}"
            )
    for name in _NEEDED:
        if name not in given:
            raise ValueError(f"{where}: {name!r} is missing; needed are {', '.join(_NEEDED)}")
    answer = _column(where, "answer", given["answer"])
    rows = len(answer)

    def column(name: str) -> list[Any] | None:
        found = None if name not in given else _column(where, name, given[name])
        if found is not None and len(found) != rows:
            raise ValueError(f"{where}: {name!r} has {len(found)} values, 'answer' has {rows}")
        return found

    def names(name: str) -> list[str]:
        if isinstance(given.get(name, ""), str):
            return [given.get(name, "")] * rows
        found = column(name) or []
        if any(absent(one) for one in found):
            raise ValueError(
                f"{where}: {name!r} is missing in row {[absent(one) for one in found].index(True)}"
            )
        return [str(one) for one in found]

    keys = column("keys")
    return _Table(
        where,
        [Segment(*one) for one in zip(names("language"), names("domain"), names("window"), strict=True)],
        answer,
        _members(where, given["members"], rows),
        column("truth"),
        _numbers(where, "error", column("error"), most=1.0, missing=True),
        None if keys is None else np.array([None if absent(one) else str(one) for one in keys], dtype=object),
        _numbers(where, "weight", column("weight")),
        _numbers(where, "count", column("count"), least=1.0),
    )


def _members(where: str, given: Any, rows: int) -> dict[str, list[Any]]:
    if hasattr(given, "keys"):
        found = {str(name): _column(where, f"members[{name!r}]", given[name]) for name in given}
    elif getattr(given, "ndim", None) == 2:
        found = {f"member {place + 1}": column for place, column in enumerate(given.T.tolist())}
    else:
        raise ValueError(
            f"{where}: 'members' is {type(given).__name__}; expected a mapping from name to column, or an array (n, M)"
        )
    if not found:
        raise ValueError(f"{where}: 'members' is empty; expected the answers of at least one other model")
    for name, column in found.items():
        if len(column) != rows:
            raise ValueError(f"{where}: member {name!r} has {len(column)} values, 'answer' has {rows}")
    return found


def _column(where: str, name: str, given: Any) -> list[Any]:
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise ValueError(f"{where}: {name!r} is {given!r}; expected a value a text")
    return given.tolist() if hasattr(given, "tolist") else list(given)


def _numbers(
    where: str,
    name: str,
    column: list[Any] | None,
    *,
    least: float = 0.0,
    most: float = np.inf,
    missing: bool = False,
) -> np.ndarray | None:
    if column is None:
        return None
    found = np.full(len(column), np.nan)
    for row, one in enumerate(column):
        if missing and absent(one):
            continue
        if isinstance(one, str) or absent(one) or not least <= one <= most:
            expected = (
                f"a number in [{least:g}, {most:g}]" if most < np.inf else f"a number from {least:g} on"
            )
            raise ValueError(f"{where}: {name!r} is {one!r} in row {row}; expected {expected}")
        found[row] = float(one)
    return found


def _check_alike(where: str, answer: list[Any], name: str, column: list[Any]) -> None:
    """Complain where one side is words and the other numbers: labels and their codes would never be equal."""
    sides = [{isinstance(one, str) for one in values if not absent(one)} for values in (answer, column)]
    if sides[0] and sides[1] and not sides[0] & sides[1]:
        raise ValueError(
            f"{where}: answers are such as {_example(answer)!r}, those of {name!r} such as {_example(column)!r}; "
            "expected labels of one kind"
        )


def _example(column: list[Any]) -> Any:
    return next((one for one in column if not absent(one)), None)
