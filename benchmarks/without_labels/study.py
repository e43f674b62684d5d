"""Error without labels on real data: every estimator held against the truth, in four settings, over several trainings.

Settings, each a model with its ensemble:

- fine-tuned: each language's own adapter; members are the other trainings of it
- merged: a merge of them; members are what a project has for free (adapters of all languages, other merges, masks)
- zero-shot, few-shot: the bare base; members are the same base with other examples in its prompt

Silver labels are those of a larger own model (`adapter/combined` with `--judge`), and of judges whose quality is swept
from chance to perfect: the gold answer with that probability, else another one.

Usage: python benchmarks/without_labels/study.py CONFIG... --out study.json [--judge adapter/combined] [--merged MODEL]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sabir.engine.run import Listener
from sabir.estimate.backtest import Backtest, backtest, pooled
from sabir.estimate.evidence import Evidence
from sabir.names import BASE, OWN
from sabir.plan.ensemble import Member, free_members, trained_members
from sabir.plan.names import shots_name
from sabir.plan.steps import Steps
from sabir.project import Project
from sabir.project.asking import Asking, answered, labelled_evidence
from sabir.project.given import chance_of
from sabir.project.running import Hand

DRAWS = 2  # of the examples of few-shot prompts
SWEPT = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # how far a judge is from chance (0) to perfect (1)
MERGED_KINDS = ("adapters", "merges", "masks")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("configs", type=Path, nargs="+")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--judge", help="a model of the project whose answers are silver labels")
    asked.add_argument("--merged", help="a merge of the project, for the setting of that name")
    asked.add_argument("--settings", default="fine-tuned,merged,zero-shot,few-shot")
    asked.add_argument("--workers", type=int, default=2)
    given = asked.parse_args()
    tested: dict[str, dict[str, list[Backtest]]] = {}
    swept: dict[str, list[dict[str, Any]]] = {}
    kept: dict[str, Any] = {}
    for config in given.configs:
        for setting, replicates in _evidence(config, given):
            if setting not in given.settings.split(","):
                continue
            runs = []
            for number, (found, chance) in enumerate(replicates):
                runs.append(backtest(found, chance=chance))
                swept.setdefault(setting, []).extend(_sweep(found, chance, config.stem, number))
                print(
                    f"{config.stem}, {setting}, training {number + 1}: {len(runs[-1].segments)} estimates",
                    flush=True,
                )
            if runs:
                tested.setdefault(setting, {})[config.stem] = runs
    for setting, by_data in tested.items():
        whole = pooled(by_data)
        kept[setting] = {
            "summary": [asdict(row) for row in whole.summary],
            "by_data": {
                name: [asdict(row) for row in pooled({name: runs}).summary] for name, runs in by_data.items()
            },
            "segments": [_row(row) for row in whole.segments],
            "best": None if whole.best is None else asdict(whole.best),
            "sweep": swept[setting],
        }
    given.out.write_text(json.dumps(kept, indent=1, default=float) + "\n", encoding="utf-8")


Replicates = Iterator[tuple[dict[str, Evidence], Mapping[Any, float]]]


def _evidence(config: Path, given: argparse.Namespace) -> Iterator[tuple[str, Replicates]]:
    """The settings of one data set, each with its replicates: evidence by kind of members, and the error of chance."""
    project = Project(config)
    standing = project._standing(project.config, with_base=True)
    make = Steps(standing.config, standing.facts)
    state = standing.state()
    own = [Member(OWN), *(one for one in trained_members(make) if one.kind == "seeds")]
    shots = [Member(shots_name(standing.config.ensemble.shots, draw), "prompts") for draw in range(DRAWS)]
    judge = Member(given.judge) if given.judge in state.plan.graph else None
    best = {name: f"merged/{name}" for name in standing.config.merges}
    free = [one for one in free_members(make, best) if one.name != given.merged]

    def replicates(models: Sequence[Member], members: Sequence[Member]) -> Replicates:
        everyone = {one.name: one for one in [*models, *members]}
        for model in models:
            others = [
                replace(one, kind=one.kind or "seeds") for name, one in everyone.items() if name != model.name
            ]
            asking = Asking(standing, state, model, tuple(others), {}, judge, ())
            graph = answered(asking, {}, hand=Hand(given.workers, Listener()))
            kinds = asking.kinds
            found = {kind: labelled_evidence(asking, graph, kind=kind) for kind in kinds if len(kinds) > 1}
            found = (
                {"all": labelled_evidence(asking, graph), **found}
                if len(kinds) != 1
                else {kinds[0]: labelled_evidence(asking, graph)}
            )
            yield found, chance_of(asking, graph, next(iter(found.values())))

    yield "fine-tuned", replicates(own, ())
    if given.merged:
        yield "merged", replicates([Member(given.merged)], free)
    yield "zero-shot", replicates([Member(BASE)], shots)
    yield "few-shot", replicates(shots, [Member(BASE, "prompts")])


def evidence_of_config(config: Path, setting: str) -> Iterator[Evidence]:
    """The evidence of one setting of a data set, of all members together: one for each training."""
    given = argparse.Namespace(judge=None, merged=None, workers=2)
    for name, replicates in _evidence(config, given):
        if name == setting:
            for found, _ in replicates:
                yield next(iter(found.values()))


def _sweep(found: Mapping[str, Evidence], chance: Any, data: str, training: int) -> list[dict[str, Any]]:
    """How far off silver labels are with judges of every quality, beside calibrated disagreement."""
    kind, evidence = next(iter(found.items()))
    rng = np.random.default_rng(training)
    rows = []
    for quality in SWEPT:
        judged = _judged(evidence, quality, rng)
        if judged is None:
            return []
        tried = {kind: replace(evidence, judged=judged)}
        names = ("silver", "silver-corrected", "calibrated-disagreement", "constant")
        tested = backtest(tried, estimators=names, chance=chance, by=("language",))
        for row in tested.summary:
            rows.append(
                {
                    "data": data,
                    "training": training,
                    "quality": quality,
                    "judge_accuracy": _accuracy(evidence, quality),
                    "estimator": row.estimator,
                    "mae": None if row.mae is None else row.mae.value,
                }
            )
    return rows


def _judged(evidence: Evidence, quality: float, rng: np.random.Generator) -> np.ndarray | None:
    """How far the model's labels are those of a judge that knows the gold label with this probability, and else
    answers by chance."""
    if evidence.truth is None or evidence.answer is None or evidence.probabilities is None:
        return None
    labels = evidence.probabilities.shape[1]
    guessed = rng.integers(0, labels, len(evidence))
    judge = np.where(rng.random(len(evidence)) < quality, evidence.truth, guessed)
    return (judge == evidence.answer).astype(float)


def _accuracy(evidence: Evidence, quality: float) -> float:
    """Of such a judge."""
    assert evidence.probabilities is not None
    return quality + (1 - quality) / evidence.probabilities.shape[1]


def _row(row: Any) -> dict[str, Any]:
    told = asdict(row)
    return {**told.pop("segment"), **told}


if __name__ == "__main__":
    main()
