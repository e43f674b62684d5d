"""What retraining everything would take where it was not done: from measured speeds, marked as predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sabir.names import COMBINED
from sabir.report.costs import component, cost_rows, route

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Prediction:
    """A training of the combined adapter: tokens read over all epochs, and the time on one device.

    `speed_of` names the trainings whose tokens per second were taken: "combined" or "languages".
    """

    tokens: float
    wall_s: float
    speed_of: str


def predicted_training(
    sizes: Mapping[str, float], *, adapters: Mapping[str, Row], combined: Row | None
) -> Prediction | None:
    """What training one adapter on all languages together would take; None before anything was measured.

    Tokens: of each language its size times the tokens per size of its own adapter; of one without a measured
    adapter those of all the measured ones together. Seconds: at the tokens per second of the last combined
    training, else of the languages' adapters together.
    Args:
        sizes: characters times epochs to train on, by language.
        adapters: cost (`wall_s`, `tokens`, `size`) of each language's newest adapter, by language.
        combined: the same of the newest combined training, on whatever rows, or None.
    """
    own = {language: cost for language, cost in adapters.items() if _measured(cost)}
    whole = combined if combined is not None and _measured(combined) else None
    known = list(own.values()) or ([whole] if whole else [])
    if not known or not sum(sizes.values()):
        return None
    common = sum(cost["tokens"] for cost in known) / sum(cost["size"] for cost in known)
    tokens = sum(
        size * (own[language]["tokens"] / own[language]["size"] if language in own else common)
        for language, size in sizes.items()
    )
    timed = [whole] if whole else known
    speed = sum(cost["tokens"] for cost in timed) / sum(cost["wall_s"] for cost in timed)
    return Prediction(tokens, tokens / speed, "combined" if whole else "languages")


def _measured(cost: Row) -> bool:
    return bool(cost.get("tokens") and cost.get("size") and cost.get("wall_s"))


def prediction_error(predicted: float, measured: float) -> float:
    """By how much of the measured value the prediction was too high (positive) or too low (negative)."""
    return predicted / measured - 1.0


def evaluation(steps: Iterable[Row]) -> list[dict[str, Any]]:
    """The steps that answer and score for the combined adapter, of the steps given.

    Where it is not part of the project those of the bare base model stand for them, under their names: it
    answers the same rows.
    """
    steps = list(steps)
    own = [dict(step) for step in steps if (route(step), component(step)) == ("combined", "evaluate")]
    return own or [
        {**step, "name": step["name"].replace("/base/", f"/{COMBINED}/", 1)}
        for step in steps
        if step["name"].startswith(("outputs/base/", "scores/base/"))
    ]


def predicted_baseline(
    prediction: Prediction | None, *, entry: Row, before: Sequence[Row] = ()
) -> list[dict[str, Any]]:
    """Cost rows for the combined baseline in an update that did not train it: its training and evaluation.

    What the run itself measured of them (test answers of an older baseline on new test rows) is in the costs of
    `entry` already and not predicted again. Empty when nothing is known, when the run was not a whole update, and
    where it spared no training: one that only waited for another's run, or that holds a language to an earlier
    adapter, replaces no retraining of everything.
    Args:
        before: the ledger's entries before this one, the oldest first: the last ones, where they were stopped,
            belong to the same update.
    """
    trained = any((row["route"], row["component"]) == ("combined", "train") for row in entry["costs"])
    if prediction is None or trained or not entry["complete"] or entry["phase"] not in ("update", "add"):
        return []
    stopped = takewhile(lambda one: not one["complete"] and one["phase"] == entry["phase"], reversed(before))
    if not (_took_out(entry) or any(map(_trained, (entry, *stopped)))):
        return []
    own = any(route(step) == "combined" for step in entry["steps"])
    unpaid = [
        step
        for step in evaluation(entry["steps"])
        if step["wall_s"] is not None and not (own and step["status"] == "run")
    ]
    training = {"name": COMBINED, "kind": "adapter", "wall_s": prediction.wall_s}
    rows = cost_rows(
        [training, *unpaid],
        run=entry["id"],
        phase=entry["phase"],
        devices=entry["devices"],
        usd_per_hour=entry["usd_per_hour"],
        measured=False,
    )
    return [row for row in rows if row["component"] != "total"]


def _trained(entry: Row) -> bool:
    """Whether a run trained a language's adapter, or a part of one."""
    steps = [step for step in entry["steps"] if step["status"] == "run"]
    return any(
        step["kind"] == "adapter" and route(step) == "merged" for step in (*steps, *entry.get("attempts", ()))
    )


def _took_out(entry: Row) -> bool:
    """Whether a language is gone: one adapter on all rows would have to be trained without it."""
    return bool(set(entry.get("languages_changed", ())) - set(entry.get("languages", ())))
