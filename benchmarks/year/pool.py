"""The pool that make.py wrote, and the evidence of a month that is drawn from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from drifts import PLAIN

from sabir.estimate.evidence import Evidence, Segment

# Columns of agreement: members of an ensemble.
CHECKPOINTS = (0, 1)  # the same adapter after its second and third epoch
TRAINED = (2,)  # another training: of another seed; after a retraining the adapter that was there before
OTHERS = (3, 4, 5, 6, 7)  # the first adapters of all languages; of a text's own language it says nothing
EVERYONE = (*CHECKPOINTS, *TRAINED, *OTHERS)
MENDED = 0.05


@dataclass(frozen=True)
class Answers:
    """What a language's adapter in one state answers to all texts it may be asked.

    Args:
        state: what the adapter has learnt.
        place: (n,) reference/plain, production/short and so on; keys: (n,) of the texts.
        error, confidence: (n,); agreement: (n, 8) with the members above.
    """

    state: str
    place: np.ndarray
    keys: np.ndarray
    error: np.ndarray
    confidence: np.ndarray
    agreement: np.ndarray

    def accuracy(self, kind: str) -> float:
        """On the texts of a kind that production may hold."""
        return float(1 - self.error[self.place == f"production/{kind}"].mean())

    @cached_property
    def row_of(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def reference(self) -> np.ndarray:
        """Rows of the project's labelled test rows: those of a drift come with the rows that are learnt from."""
        return np.flatnonzero(np.isin(self.place, ["reference/plain", f"reference/{self.state}"]))


@dataclass(frozen=True)
class Pool:
    """Answers by language and state, and seconds on a device: of trainings by language and state, and of one answer by
    language."""

    answers: Mapping[tuple[str, str], Answers]
    training_s: Mapping[tuple[str, str], float]
    answer_s: Mapping[str, float]

    @property
    def languages(self) -> list[str]:
        return sorted(self.answer_s)

    def kinds(self, language: str) -> list[str]:
        """The kinds of drift that a language may meet."""
        return sorted(state for one, state in self.answers if one == language and state != "before")

    def mended(self, language: str) -> list[str]:
        """Those of them that a retraining mends: texts of the kind gain 5 points or more, usual ones lose no more."""
        before = self.answers[language, "before"]
        return [
            kind
            for kind in self.kinds(language)
            if self.answers[language, kind].accuracy(kind) - before.accuracy(kind) >= MENDED
            and before.accuracy(PLAIN) - self.answers[language, kind].accuracy(PLAIN) <= MENDED
        ]

    def drawable(self, language: str, kind: str) -> list[str]:
        """Keys of the texts of a kind that production may hold: every adapter that may meet them was asked them."""
        asked = [
            set(answers.keys[answers.place == f"production/{kind}"])
            for (one, state), answers in self.answers.items()
            if one == language and (kind == PLAIN or state in ("before", kind))
        ]
        return sorted(set.intersection(*asked))

    def evidence(
        self, states: Mapping[str, str], keys: Mapping[str, Sequence[str]] | None, members: Sequence[int]
    ) -> Evidence:
        """What adapters in these states, and some columns of their members, say to texts.

        Args:
            keys: by language; None: the labelled test rows.
        """
        parts = []
        for language in self.languages:
            answers = self.answers[language, states[language]]
            rows = (
                answers.reference
                if keys is None
                else np.array([answers.row_of[one] for one in keys[language]])
            )
            parts.append((answers, rows))
        return Evidence(
            tuple(Segment(language) for language in self.languages),
            np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts]),
            agreement=np.concatenate([one.agreement[rows][:, list(members)] for one, rows in parts]),
            confidence=np.concatenate([one.confidence[rows] for one, rows in parts]),
            error=np.concatenate([one.error[rows] for one, rows in parts]),
        )


def read_pool(folder: Path) -> Pool:
    """What make.py wrote.

    The machine was loaded, and how much differs from step to step: so a step's seconds are its tokens times the mean
    seconds a token of all steps of its sort.
    """
    arrays = np.load(folder / "pool.npz")
    costs = json.loads((folder / "pool.json").read_text(encoding="utf-8"))
    languages = sorted({name.split("/")[1] for name in arrays.files})
    there = [(one, state) for one in languages for state in costs if f"{state}/{one}/keys" in arrays]
    answers = {(one, state): _read(arrays, state, one) for one, state in there}
    steps = [(state, name, cost) for state, found in costs.items() for name, cost in found.items()]
    rate = {
        sort: _rate([cost for _, name, cost in steps if name.startswith(sort)])
        for sort in ("adapter/", "outputs/")
    }
    training_s = {
        (one, state): costs[state][f"adapter/{one}"]["tokens"] * rate["adapter/"] for one, state in there
    }
    # All of these texts are whole reviews, and all were asked at once: what was known already cost nothing.
    answer_s = {
        one: costs["new"][f"outputs/adapter/{one}/{one}/test"]["tokens"]
        * rate["outputs/"]
        / len(answers[one, "new"][0])
        for one in languages
    }
    return Pool({key: Answers(key[1], *found) for key, found in answers.items()}, training_s, answer_s)


def _read(
    arrays: Mapping[str, np.ndarray], state: str, language: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place, keys, error, confidence, agreement of each text.

    An adapter that was retrained is held against those that were there before it, which answered these texts too.
    """
    place, keys, error, confidence, agreement, answer = (
        arrays[f"{state}/{language}/{name}"]
        for name in ("place", "keys", "error", "confidence", "agreement", "answer")
    )
    row_of = {key: row for row, key in enumerate(arrays[f"before/{language}/keys"])}
    there = np.array(
        [key in row_of for key in keys]
    )  # but for headlines that were in training rows of the first
    rows = np.array([row_of.get(key, 0) for key in keys])
    known = [arrays[f"before/{language}/others"][rows]]
    if agreement.shape[1] == len(CHECKPOINTS):
        known.insert(0, arrays[f"before/{language}/answer"][rows][:, None])
    said = np.concatenate(known, axis=1)
    same = np.where(there[:, None] & (said >= 0), said == answer[:, None], np.nan)
    return place, keys, error, confidence, np.concatenate([agreement, same], axis=1)


def _rate(costs: Sequence[Mapping[str, float]]) -> float:
    """Device seconds a token."""
    return sum(one["device_s"] for one in costs) / sum(one["tokens"] for one in costs)
