"""From what a model and the members of an ensemble answered to what estimators read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sabir.errors import InputError
from sabir.estimate.evidence import Evidence, Segment, segmented
from sabir.estimate.probabilities import softmax
from sabir.metrics import measure
from sabir.metrics.agreement import all_agreements
from sabir.tasks import Task
from sabir.work.incoming import LANGUAGE, folded
from sabir.work.meant import meant
from sabir.work.outputs import read_answers
from sabir.work.prepare import Example, read_examples

METRIC = {"label": "accuracy", "choice": "accuracy", "phrases": "f1_at_m", "text": "rougeL"}
"""By kind of answer: how far two answers agree, and 1 - the error of one."""

UNTOLD = {"judged": math.nan, "inclusion": 1.0}
"""In a language of which these are not known, where of others they are."""

Answers = Mapping[str, str | None]  # by the id of a row


@dataclass(frozen=True)
class Answered:
    """One language's texts with all that was answered to them.

    Args:
        task: as this language has it.
        rows: the texts; their targets are the gold answers where there are any.
        model: folder of the outputs step of the model that is asked about.
        members: likewise of the members, by name; a path to a file where the answers came from elsewhere, None where
            a member has nothing to say in this language.
        judge: likewise of the judge.
        windows, weights: of each text, by id; none where nothing is said.
        truth: gold answers by id, of those that are labelled; None: every row's target.
        inclusion: by id, the probability with which a labelled one was chosen.
    """

    language: str
    task: Task
    rows: Path
    model: Path
    members: Mapping[str, Path | Answers | None]
    judge: Path | None = None
    windows: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    truth: Mapping[str, str] | None = None
    inclusion: Mapping[str, float] = field(default_factory=dict)


def evidence_of(parts: Sequence[Answered]) -> Evidence:
    """The evidence of one model's answers in some languages; members are columns in the order of their names' first
    mention.

    Raises InputError for answers from elsewhere that lack a row.
    """
    everyone = list(dict.fromkeys(name for part in parts for name in part.members))
    found = [_of_language(part, everyone) for part in parts]
    names = [segment for one in found for segment in one.pop("segments")]
    segments, places = segmented(names)
    if not found:
        return Evidence((), np.zeros(0, int))
    sizes = [len(one["error"]) for one in found]
    together = {name: _below(name, [one[name] for one in found], sizes) for name in found[0]}
    if together["probabilities"] is not None and len({one["probabilities"].shape[1] for one in found}) > 1:
        together["probabilities"] = None
    return Evidence(segments, places, **together)


def _below(name: str, columns: Sequence[np.ndarray | None], sizes: Sequence[int]) -> np.ndarray | None:
    """The columns of all languages, one below the other; None where one does not know what all must know."""
    known = [column for column in columns if column is not None]
    if not known or (len(known) < len(columns) and name not in UNTOLD):
        return None
    return np.concatenate(
        [
            np.full(size, UNTOLD[name]) if column is None else column
            for column, size in zip(columns, sizes, strict=True)
        ]
    )


def _of_language(part: Answered, everyone: Sequence[str]) -> dict[str, Any]:
    """Columns of one language's rows, and `segments`, the name of each."""
    task, language = part.task, part.language
    rows = read_examples(part.rows, "test")
    said = read_answers(part.model)
    model = _read(task, said)
    members = [_answers(part.members.get(name), part, rows) for name in everyone]
    agreement, pairs = all_agreements(model, members, answer=task.answer, language=language)
    truth = [row.target for row in rows] if part.truth is None else [part.truth.get(row.id) for row in rows]
    chosen = task.answer in ("label", "choice")
    scores = [one.get("scores") for one in said] if chosen else None
    probabilities = _probabilities(scores, task.labels) if scores and task.answer == "label" else None
    return {
        "segments": [Segment(language, row.domain, part.windows.get(row.id, "")) for row in rows],
        "agreement": agreement,
        "pairs": pairs,
        "member_error": _side_by_side([_errors(task, one, truth, language) for one in members], len(rows)),
        "confidence": None if scores is None else _confidence(scores),
        "probabilities": probabilities,
        "answer": _places(model, task.labels) if task.answer == "label" else None,
        "truth": _places(truth, task.labels) if task.answer == "label" else None,
        "judged": _judged(part, model),
        "error": _errors(task, model, truth, language),
        "keys": np.array([row.group or row.id for row in rows], dtype=object),
        "weight": np.array([part.weights.get(row.id, 1.0) for row in rows]),
        "inclusion": np.array([part.inclusion.get(row.id, 1.0) for row in rows]) if part.inclusion else None,
    }


def _side_by_side(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))


def _judged(part: Answered, model: Sequence[str | None]) -> np.ndarray | None:
    """(n,) how far the model's answers are the judge's."""
    if part.judge is None:
        return None
    judge = _read(part.task, read_answers(part.judge))
    found, _ = all_agreements(model, [judge], answer=part.task.answer, language=part.language)
    return found[:, 0]


def _answers(given: Path | Answers | None, part: Answered, rows: Sequence[Example]) -> list[str | None]:
    """A member's answers to the rows; None to all where it has nothing to say."""
    if given is None:
        return [None] * len(rows)
    if isinstance(given, Path):
        return _read(part.task, read_answers(given))
    return [None if (said := given.get(row.id)) is None else _meant(part.task, said, row) for row in rows]


def _meant(task: Task, said: str, row: Example) -> str | None:
    """What an answer from elsewhere says; where one is to be chosen None, if it is none of them."""
    chosen = task.answer in ("label", "choice")
    found = meant(said, task.labels or row.options) if chosen else said
    return None if found is None else task.read(found)


def _read(task: Task, said: Sequence[Answers]) -> list[str | None]:
    return [None if one["prediction"] is None else task.read(one["prediction"]) for one in said]


def _errors(
    task: Task, answers: Sequence[str | None], truth: Sequence[str | None], language: str
) -> np.ndarray:
    """(n,) 1 - the metric, NaN where there is no gold answer, or no answer that can be read."""
    known = [place for place, target in enumerate(truth) if target is not None]
    errors = np.full(len(truth), np.nan)
    if known:
        measured = measure(
            METRIC[task.answer],
            [answers[place] for place in known],
            [str(truth[place]) for place in known],
            labels=task.labels or None,
            language=language,
        )
        errors[known] = 1 - measured.statistics[:, 0]
    return errors


def _probabilities(scores: Sequence[Mapping[str, float] | None], labels: Sequence[str]) -> np.ndarray:
    """(n, K) of each label among all; NaN where a row has none."""
    nothing = dict.fromkeys(labels, math.nan)
    return softmax(np.array([[(row or nothing)[label] for label in labels] for row in scores]))


def _confidence(scores: Sequence[Mapping[str, float] | None]) -> np.ndarray:
    """(n,) the probability of the likeliest option among all of a row; NaN where a row has none."""
    found = np.full(len(scores), np.nan)
    for place, row in enumerate(scores):
        if row:
            logs = np.array(list(row.values()))
            found[place] = 1 / np.exp(logs - logs.max()).sum()
    return found


def _places(answers: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """(n,) the place of each label; -1 for what is none."""
    places = {label: place for place, label in enumerate(labels)}
    return np.array([-1 if one is None else places.get(one, -1) for one in answers], dtype=int)


def read_member_file(path: Path, *, ids: Sequence[str], language: str) -> dict[str, str | None]:
    """Answers from elsewhere to the rows of a language: JSONL with `id` and `prediction`, null for none; where an id
    stands for texts of several languages also `language`.

    Args:
        ids: rows that must be there.
    Raises InputError for lines that are none of this, and where a row is not there.
    """
    found: dict[str, str | None] = {}
    try:
        whole = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read: {error}.", "It is to be JSONL, in UTF-8.") from error
    for number, line in enumerate(whole.split("\n"), 1):  # other breaks of lines may stand within texts
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            identity, said, tag = str(row["id"]), row["prediction"], row.get(LANGUAGE)
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(where, "is no answer.", 'Write {"id": "...", "prediction": "..."}.') from None
        if tag is not None and folded(str(tag)) != folded(language):
            continue
        text = "; ".join(map(str, said)) if isinstance(said, list) else None if said is None else str(said)
        if found.setdefault(identity, text) != text:
            fix = "Keep one of the two, or give each its `language`."
            raise InputError(where, f"answers row {identity!r} again, otherwise.", fix)
    missing = [one for one in ids if one not in found]
    if missing:
        rows = "1 row is" if len(missing) == 1 else f"{len(missing):,} rows are"
        fix = "A member answers every test row and every text."
        raise InputError(str(path), f"{rows} missing of {language}, the first {missing[0]!r}.", fix)
    return found
