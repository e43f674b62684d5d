"""Step `select`: which candidate is best on the validation rows, and the best setting of each recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sabir.errors import SabirError
from sabir.work import Outcome, Work


def select(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Rank the candidates by the mean over languages of one metric, each language counting the same.

    Equal means are ranked by name. `settings["candidates"]` maps each recipe to its members; the inputs are
    the members' macro scores on validation, by member, and "<member>#2" where it was trained several times: then
    the mean over trainings counts.
    """
    for work in works:
        trainings: dict[str, list[Path]] = {}
        for model, folder in work.inputs.items():
            trainings.setdefault(model.partition("#")[0], []).append(folder)
        means = {
            member: fmean(_value(folder, member, work.settings["metric"]) for folder in folders)
            for member, folders in trainings.items()
        }
        ranking = sorted(means, key=lambda member: (-means[member], member))
        best = {
            recipe: min(members, key=ranking.index) for recipe, members in work.settings["candidates"].items()
        }
        ranked = [{"model": member, "value": means[member]} for member in ranking]
        yield work.name, {"result": {"selected": ranking[0], "best": best, "ranking": ranked}}


def _value(folder: Path, member: str, metric: str) -> float:
    record: Mapping[str, Any] = json.loads((folder / "record.json").read_bytes())
    value = next(row["value"] for row in record["result"]["scores"] if row["metric"] == metric)
    if value is None:
        raise SabirError(member, f"has no {metric} on validation: a language has only unscored rows.")
    return value
