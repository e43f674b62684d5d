"""The pool of a simulated year: adapters in every state, and what they and their ensembles answer to every text.

    python benchmarks/year/make.py DATA/sentiment/reviews [--out .sabir/year]

Trains with sabir, in OUT/store, each language's adapter as it is before any drift (twice, the second is a member), and
as it is after having learnt from rows of each drift. Answers all texts with them, with what they were after epochs 2
and 3, and with the first adapters of all languages. Writes OUT/pool.npz (arrays) and OUT/pool.json (what trainings and
answers cost). What is there is taken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from drifts import STATES, write_rows

from sabir import Project
from sabir.engine.run import Listener
from sabir.engine.steps import Graph
from sabir.estimate.evidence import Evidence
from sabir.names import OWN
from sabir.plan.ensemble import Member, answers_name, free_members, trained_members
from sabir.plan.steps import Steps
from sabir.project.asking import Asking, graph_of, labelled_evidence, texts_of
from sabir.project.running import Hand, do_graph
from sabir.strict_yaml import load
from sabir.work.outputs import read_answers

TEMPLATE = Path(__file__).with_name("year.yaml")
CHECKPOINTS = ("[epoch=2]", "[epoch=3]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".sabir/year"))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    settings, _ = load(TEMPLATE.read_text(encoding="utf-8"), where=str(TEMPLATE))
    for language in settings["data"]:
        write_rows(given.reviews, given.out / "data", language)
    arrays: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    for state in STATES:
        evidence, cost, said = _answers(settings, state, given.out, given.workers)
        costs[state] = cost
        for language in sorted({segment.language for segment in evidence.segments}):
            for name, values in _columns(evidence, language).items():
                arrays[f"{state}/{language}/{name}"] = values
            if said:
                keys = arrays[f"{state}/{language}/keys"]
                arrays[f"{state}/{language}/others"] = np.array([said[language, key] for key in keys])
        print(
            state,
            *(f"{one} {value:.3f}" for one, value in _accuracy(evidence).items()),
            sep="\n  ",
            flush=True,
        )
    np.savez_compressed(given.out / "pool.npz", **arrays)
    (given.out / "pool.json").write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


def _answers(settings: Mapping[str, Any], state: str, out: Path, workers: int) -> tuple[Evidence, Any, Any]:
    """What the adapters in a state and their members answer, what that cost, and what other languages' say."""
    data = {one: f"data/{state}/{one}" for one in settings["data"] if (out / "data" / state / one).exists()}
    config = out / f"{state}.yaml"
    config.write_text(
        json.dumps({**settings, "data": data, "run": {"store": "store"}}, indent=1), encoding="utf-8"
    )
    project = Project(config)
    standing = project._standing(project.config, with_base=True)
    make = Steps(standing.config, standing.facts)
    members = [one for one in free_members(make, {}) if one.name.endswith(CHECKPOINTS)]
    others = []
    if state == "before":
        members += [one for one in trained_members(make) if one.kind == "seeds"]
        others = [Member(f"adapter/{language}", "adapters") for language in sorted(data)]
    asking = Asking(standing, standing.state(), Member(OWN), (*members, *others), {}, None, ())
    graph = graph_of(asking, {})
    records = do_graph(standing, graph, Hand(workers, Listener()))
    steps = {
        name: record["cost"]
        for name, record in records.items()
        if name.startswith(("adapter/", "outputs/")) and record["cost"].get("tokens")
    }
    evidence = labelled_evidence(replace(asking, members=tuple(members)), graph)
    return evidence, steps, _said(asking, graph, others)


def _said(asking: Asking, graph: Graph, others: Sequence[Member]) -> dict[tuple[str, str], list[int]]:
    """What each of the others answers (the place of its label, -1 to texts of its own language), by language and id."""
    found: dict[tuple[str, str], list[int]] = {}
    labels = asking.standing.facts.task.labels
    for language in asking.standing.config.languages:
        rows = [row for _, row in texts_of(asking, graph, [language], split="test")]
        for other in others:
            folder = asking.standing.store.folder(graph.fingerprints[answers_name(other, language, "test")])
            own = other.name == f"adapter/{language}"
            for row, said in zip(rows, read_answers(folder), strict=True):
                found.setdefault((language, row.id), []).append(
                    -1 if own else labels.index(said["prediction"])
                )
    return found


def _columns(evidence: Evidence, language: str) -> dict[str, np.ndarray]:
    """The rows of one language as plain arrays; `place` is reference/plain, production/short and so on."""
    mine = np.array([segment.language == language for segment in evidence.segments])[evidence.segment]
    part = evidence.take(mine)
    places = np.array([segment.domain for segment in part.segments])[part.segment]
    assert part.agreement is not None
    assert part.keys is not None
    found = {"place": places, "keys": part.keys.astype(str), "agreement": part.agreement}
    return found | {name: getattr(part, name) for name in ("error", "confidence", "answer")}


def _accuracy(evidence: Evidence) -> dict[str, float]:
    assert evidence.error is not None
    means = 1 - evidence.mean(evidence.error)
    return {str(segment): float(mean) for segment, mean in zip(evidence.segments, means, strict=True)}


if __name__ == "__main__":
    main()
