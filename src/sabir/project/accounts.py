"""The ledger's entries of a project: opened when a run begins, closed when it ends or was found dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sabir.engine import ledger
from sabir.engine.store import Store
from sabir.names import COMBINED
from sabir.project.standing import Standing, State
from sabir.report.baseline import Prediction, predicted_training
from sabir.report.costs import Rates, in_full
from sabir.report.documents import SELECTION, ledger_entry
from sabir.report.what_if import Language, what_if

REMEMBERED_RUNS = 5  # whose costs serve the estimates


def settle(store: Store) -> None:
    """Close the entries of runs that died: what they finished and what they spent is on the disk.

    Raises StoreError for a store of a newer version, and when the disk is full.
    """
    store.check_format()
    for entry in ledger.unsettled(store):
        ledger.write(store, closed(store, entry, failures={}))


def closed(store: Store, opening: Mapping[str, Any], *, failures: Mapping[str, str]) -> dict[str, Any]:
    """The entry of a run that ended, from the one it began with and from what the store has now.

    Args:
        opening: `steps` with name, kind, fingerprint and why of each step.
        failures: messages of the steps that failed, by name.
    """
    records = {}
    rows = []
    for row in [*opening["steps"], *_unforeseen(store, opening)]:
        record = store.record(row["fingerprint"])
        if record is not None:
            records[row["name"]] = record
        rows.append({**row, "status": "run" if record is None else "reused"})
    run = opening["id"]
    entry = ledger_entry(
        rows,
        {row["name"]: row["why"] for row in rows},
        records,
        run=run,
        phase=opening["phase"],
        devices=opening["devices"],
        usd_per_hour=opening["usd_per_hour"],
        ran={name for name, record in records.items() if (record.get("run"), record["name"]) == (run, name)},
        failures=failures,
        attempts=ledger.attempts(store, run),
    )
    return {**opening, **entry, "open": False}


def rates(entries: Sequence[Mapping[str, Any]]) -> Rates:
    """The speed of every kind of step, from the last runs."""
    recent = entries[-REMEMBERED_RUNS:]
    ran = (step for entry in recent for step in entry["steps"] if step["status"] == "run")
    return Rates(ran, (attempt for entry in recent for attempt in entry.get("attempts", ())))


def size_from_nothing(standing: Standing, name: str) -> dict[str, float]:
    """The size a continued training would have from scratch, as the plan wants it; empty for any other step."""
    language = name.removeprefix("adapter/")
    if language not in standing.facts.ancestors:
        return {}
    epochs = standing.config.languages[language].lora.epochs
    return {"size_from_nothing": standing.facts.rows[language].characters["train"] * epochs}


def retraining(standing: Standing) -> Prediction | None:
    """What training one adapter on all of today's rows would take, from what the runs so far measured."""
    adapters, combined = _trainings(standing)
    sizes = {
        language: summary.characters["train"] * standing.config.lora.epochs
        for language, summary in standing.facts.rows.items()
        if "train" in summary.characters
    }
    return predicted_training(sizes, adapters=adapters, combined=combined)


def supposed(
    standing: Standing, state: State, added: Mapping[str, int], *, devices: Sequence[int]
) -> dict[str, Any]:
    """What an update would take before its rows exist: the document of `plan --what-if`."""
    adapters, combined = _trainings(standing)
    later = [asdict(step) for step in state.plan.later]
    return what_if(
        added,
        languages={
            language: Language(
                rows=summary.rows["train"],
                characters=summary.characters["train"],
                epochs=standing.config.languages[language].lora.epochs,
                replay=update.replay if update.mode == "continue" else None,
                update_epochs=update.epochs,
            )
            for language, summary in standing.facts.rows.items()
            if "train" in summary.rows
            for update in [standing.config.languages[language].update]
        },
        steps=[*state.rows(), *later],
        rates=rates(standing.entries),
        adapters=adapters,
        combined=combined,
        devices=devices,
        usd_per_hour=standing.config.prices.usd_per_hour,
        epochs=standing.config.lora.epochs,
    )


def _trainings(standing: Standing) -> tuple[dict[str, Mapping[str, Any]], Mapping[str, Any] | None]:
    """What the newest training of each language took, and that of the combined adapter."""
    attempts = [attempt for entry in standing.entries for attempt in entry.get("attempts", ())]
    trained = [
        entry
        for entry in standing.entries
        if any(row["component"] == "train" and row["measured"] for row in entry["costs"])
    ]
    costs = {
        step["name"]: in_full(step, step["fingerprint"], attempts)
        for entry in trained
        for step in entry["steps"]
        if step["kind"] == "adapter" and step.get("wall_s") is not None
    }
    own: dict[str, Mapping[str, Any]] = {
        one: costs[f"adapter/{one}"] for one in standing.facts.rows if f"adapter/{one}" in costs
    }
    return own, costs.get(COMBINED)


def _unforeseen(store: Store, opening: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Steps of a run that died after it knew which merge was selected: the entry it began with has them not."""
    known = {row["fingerprint"] for row in opening["steps"]}
    for record in store.records() if opening.get("open") else ():
        if record.get("run") == opening["id"] and record["fingerprint"] not in known:
            yield {**{key: record[key] for key in ("name", "kind", "fingerprint")}, "why": SELECTION}
