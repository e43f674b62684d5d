"""Steps of what merging is held against: other test sets, a translator, a combined adapter as large as the merge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from sabir.config import members
from sabir.engine.steps import Dep, Part, Step
from sabir.names import COMBINED, ROUTED, TRANSLATED, UNSEEN
from sabir.plan.names import PRELOAD, PRIORITY, VERSIONS, shots_name
from sabir.plan.steps import Steps

SPREAD = 0.5  # how far from 1, as it was trained, a combined adapter's scale is looked for


def rivals(make: Steps) -> list[str]:
    """The models of the section `rivals` that are known before anything is selected."""
    asked = make.config.rivals
    return [
        *([shots_name(asked.shots)] if asked.shots else []),
        *([ROUTED] if asked.routed is not None else []),
        *([TRANSLATED] if asked.translate is not None else []),
    ]


def stress_splits(make: Steps) -> list[str]:
    """The test sets beside `test` that models are judged on."""
    asked = make.config.rivals
    return [*asked.stress, *([UNSEEN] if asked.unseen else [])]


def stress_rows(make: Steps) -> Iterator[Step]:
    """The rows of every stress set, and of the languages without an adapter."""
    for language in make.facts.unseen:
        yield make.data(language)
    if make.config.rivals.stress:
        from sabir.work.stress import needs
    for kind in make.config.rivals.stress:
        for language in make.languages:
            rows: dict[str, Dep] = {
                f"rows/{one}": Part(f"data/{one}", "test") for one in needs(kind, language, make.languages)
            }
            yield Step(
                name=f"stress/{kind}/{language}",
                kind="stress",
                run="sabir.work.stress:stress",
                version=VERSIONS["stress"],
                settings={"stress": kind, "language": language, "seed": 0},
                deps=rows,
                batch="stress",
                size=float(make.facts.rows[language].rows["test"]),
                priority=PRIORITY["stress"],
            )


def translated_rows(make: Steps) -> Iterator[Step]:
    """The test rows in the language whose own adapter answers."""
    asked = make.config.rivals.translate
    if asked is None:
        return
    for language in make.languages:
        if language == asked.to:
            continue
        yield Step(
            name=f"translated/{language}",
            kind="translated",
            run="sabir.work.translate:translate",
            version=VERSIONS["translated"],
            settings={"translator": make.facts.translator, "language": language, "to": asked.to},
            deps={"rows": make.rows(language, "test")},
            args={
                "model": make.facts.translator_place,
                "languages": dict(asked.languages),
                "code": None if make.config.code is None else str(make.config.code),
                "batch_size": make.config.evaluate.batch_size,
            },
            batch="translated",
            size=float(make.facts.rows[language].characters["test"]),
            priority=PRIORITY["translated"],
            preload=PRELOAD,
        )


def large_combined(make: Steps) -> Step:
    """The combined adapter with as many parameters as the languages' own together, of the same strength."""
    lora = make.config.lora
    rank = sum(one.lora.rank for one in make.config.languages.values())
    more = rank / lora.rank
    alpha = lora.alpha * (math.sqrt(more) if lora.rslora else more)
    name = COMBINED.partition("/")[2]
    return make.trained(f"{name}[rank={rank}]", replace(lora, rank=rank, alpha=alpha), make.with_rows)


def scaled(make: Steps, trained: Step) -> Iterator[Step]:
    """The same adapter at other scales: with it as many candidates as the largest merge has members."""
    from sabir.merging.choices import make_recipe

    name = trained.name.removesuffix(make.ending)
    for scale in _scales(budget(make)):
        recipe = make_recipe("average", settings={"scale": scale}).identity()
        inside = f"{name.removesuffix(']')},scale={scale:g}]{make.ending}"
        yield make.merge(inside, recipe, {"combined": trained.name})


def budget(make: Steps) -> int:
    """How many merges the largest recipe chooses among."""
    found = (
        merge.search.budget if merge.search is not None else len(members(merge))
        for merge in make.config.merges.values()
    )
    return max(found, default=1)


def _scales(count: int) -> list[float]:
    """Scales beside 1, near ones first and evenly out to `SPREAD`, so that there are `count` with it."""
    others = count - 1
    step = SPREAD / max(1, math.ceil(others / 2))
    near_first = [1 + way * step * far for far in range(1, count) for way in (-1, 1)]
    return [round(scale, 3) for scale in near_first[:others]]
