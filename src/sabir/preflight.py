"""Everything that can be wrong before anything heavy starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sabir.catalog import did_you_mean
from sabir.config import Config
from sabir.errors import InputError
from sabir.facts import Facts
from sabir.lora.files import (
    Adapter,
    base_linear_shapes,
    check_fits,
    check_mergeable,
    check_supported,
    open_adapter,
)
from sabir.metrics import METRICS
from sabir.work.bases import is_hub_name, max_positions

SPARE_BYTES = 64 * 2**20  # logs, records, rows


@dataclass(frozen=True)
class Findings:
    """What `check` found: errors stop a run, warnings are shown."""

    errors: tuple[InputError, ...]
    warnings: tuple[str, ...]


def inspect(config: Config, facts: Facts, *, to_train: int, to_merge: int) -> Findings:
    """Hold config, rows, base, adapters and disk against each other. `facts` must have the base's folder.

    Args:
        to_train, to_merge: how many adapters and merges are not in the store yet (for the disk).
    """
    assert facts.base_folder is not None
    errors: list[InputError] = []
    shapes = base_linear_shapes(facts.base_folder)
    errors += _metrics(config, facts)
    errors += _lengths(config, facts)
    errors += _targets(config, shapes)
    errors += _adapters(config, facts, shapes)
    errors += _disk(config, shapes, to_train, to_merge)
    return Findings(tuple(errors), tuple(_warnings(config, facts)))


def _metrics(config: Config, facts: Facts) -> list[InputError]:
    errors = []
    for metric in facts.task.metrics:
        if metric not in METRICS:
            known = METRICS.names()
            fix = f"Known are: {', '.join(known)}.{did_you_mean(metric, known)}"
            errors.append(InputError("task.metrics", f"no such metric: {metric!r}.", fix))
    chosen = config.select.metric
    if chosen is not None and chosen not in facts.task.metrics:
        errors.append(
            InputError(
                "select.metric",
                f"{chosen!r} is not among the task's metrics ({', '.join(facts.task.metrics)}).",
                f"Choose one of them.{did_you_mean(chosen, facts.task.metrics)}",
            )
        )
    return errors


def _lengths(config: Config, facts: Facts) -> list[InputError]:
    """Answers that do not fit into a row; a base that cannot read rows of that length."""
    errors = []
    limit = max_positions(facts.base_folder) if facts.base_folder else None
    count = None
    for language, settings in config.languages.items():
        length = settings.lora.max_length
        if limit is not None and length > limit:
            errors.append(
                InputError(
                    f"data.{language}: lora.max_length",
                    f"is {length}, and the base reads at most {limit} tokens.",
                    "Lower it.",
                )
            )
        if facts.task.max_new_tokens >= length:
            errors.append(
                InputError(
                    f"data.{language}: lora.max_length",
                    f"is {length}, and task.max_new_tokens alone is {facts.task.max_new_tokens}.",
                    "Raise the one or lower the other.",
                )
            )
        size, place, target = facts.rows[language].longest_target
        if size + 2 < length:  # a token holds at least one byte; the end token and the blank before
            continue
        count = count or _token_counter(facts.base_folder)
        tokens = count(f" {target}") + 1
        if tokens >= length:
            errors.append(
                InputError(
                    place,
                    f"the answer takes {tokens} tokens, and a row has lora.max_length = {length}.",
                    "Answers are never cut: raise max_length or drop the row.",
                )
            )
    return errors


def _token_counter(folder: Path | None):  # type: ignore[no-untyped-def]
    """Number of tokens of a text, by the base's tokenizer alone (no torch)."""
    assert folder is not None
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer

    slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda text: len(slow(text, add_special_tokens=False)["input_ids"])


def _targets(config: Config, shapes: dict[str, tuple[int, int]]) -> list[InputError]:
    errors = []
    for where, lora in [
        ("lora", config.lora),
        *((f"data.{k}.lora", v.lora) for k, v in config.languages.items()),
    ]:
        if isinstance(lora.targets, str) or (where != "lora" and lora.targets == config.lora.targets):
            continue
        leaves = sorted({name.rpartition(".")[2] for name in shapes})
        for target in lora.targets:
            if not any(name == target or name.endswith(f".{target}") for name in shapes):
                errors.append(
                    InputError(
                        f"{where}.targets",
                        f"the base has no linear module {target!r}.",
                        f"It has: {', '.join(leaves)}.{did_you_mean(target, leaves)}",
                    )
                )
    return errors


def _adapters(config: Config, facts: Facts, shapes: dict[str, tuple[int, int]]) -> list[InputError]:
    """Adapters people brought: of a supported kind, made for this base, and mergeable with each other."""
    errors = []
    opened = {}
    for language in facts.adapters:
        path = config.languages[language].adapter
        assert path is not None
        try:
            adapter = open_adapter(path)
            check_supported(adapter)
            check_fits(adapter, shapes, where=f"data.{language}.adapter")
            _check_base(adapter, config, where=f"data.{language}.adapter")
            opened[language] = adapter
        except InputError as error:
            errors.extend(error.problems())
    if len(opened) > 1 and not errors:
        try:
            check_mergeable(opened)
        except InputError as error:
            errors.extend(error.problems())
    return errors  # type: ignore[return-value]


def _check_base(adapter: Adapter, config: Config, *, where: str) -> None:
    """Refuse an adapter that names another base; folders of other machines say nothing, shapes must do."""
    named, ours = adapter.base_model, config.base.partition("@")[0]
    if named is None or named == ours or ours in named or not is_hub_name(named, config.folder):
        return
    raise InputError(
        where, f"was made for {named!r}, and the base is {ours!r}.", "Give an adapter of this base."
    )


def _disk(
    config: Config, shapes: dict[str, tuple[int, int]], to_train: int, to_merge: int
) -> list[InputError]:
    per_rank = 4 * sum(rows + columns for rows, columns in shapes.values())
    rank = max(lora.rank for lora in [config.lora, *(one.lora for one in config.languages.values())])
    adapter = rank * per_rank
    checkpoints = 2 * 3 * adapter  # two kept, each with two moments of the optimizer
    merged = len(config.languages) * adapter
    needed = to_train * (adapter + checkpoints) + to_merge * merged + SPARE_BYTES
    place = config.run.store
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free >= needed:
        return []
    return [
        InputError(
            "run.store",
            f"{config.run.store} has {free / 2**20:.0f} MiB free, and this run may need {needed / 2**20:.0f} MiB.",
            "Free some space or point run.store elsewhere.",
        )
    ]


def _warnings(config: Config, facts: Facts) -> list[str]:
    found = []
    if config.baseline == "combined" and facts.adapters:
        found.append(
            f"baseline: {', '.join(facts.adapters)} brings an adapter and no training rows, so the combined "
            "adapter is trained without them and cannot be expected to know them."
        )
    for language, summary in facts.rows.items():
        if summary.overlap:
            found.append(
                f"data.{language}: {summary.overlap} of {summary.rows['test']} test texts are also in train; "
                "scores on them show memory, not skill."
            )
        for split in ("valid", "test"):
            if summary.rows[split] < 50:
                found.append(
                    f"data.{language}: only {summary.rows[split]} {split} rows; intervals will be wide."
                )
    return found
