"""Everything that can be wrong before anything heavy starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sabir.catalog import did_you_mean
from sabir.config import Config, MergeConfig, members
from sabir.errors import InputError
from sabir.facts import Facts
from sabir.lora.checks import base_linear_shapes, check_fits, check_mergeable, check_supported
from sabir.lora.files import Adapter, open_adapter
from sabir.lora.tokenizer import vocabulary_difference
from sabir.names import ENCODED
from sabir.own_code import is_own
from sabir.preflight.rivals import rivals_errors, rivals_warnings
from sabir.work.bases import EMBEDDED, is_hub_name, max_positions
from sabir.work.prepare import Summary
from sabir.work.sources import SHOWN

_KINDS = {
    "label": "one of its labels",
    "choice": "one of the row's choices",
    "text": "a text",
    "phrases": "phrases",
}
SPARE_BYTES = 64 * 2**20  # logs, records, rows


@dataclass(frozen=True)
class Findings:
    """What `check` found: errors stop a run, warnings are shown."""

    errors: tuple[InputError, ...]
    warnings: tuple[str, ...]


def inspect(config: Config, facts: Facts, *, to_train: int, to_merge: int, to_fold: int = 0) -> Findings:
    """Hold config, rows, base, adapters and disk against each other; without the base's folder, what can be.

    Args:
        to_train, to_merge, to_fold: how many adapters, merged adapters and whole models are not in the store
            yet (for the disk).
    """
    errors = _metrics(config, facts) + _baseline(config, facts) + _searches(config) + _holds(facts)
    errors += rivals_errors(config, facts) + _encoder(config, facts)
    if facts.base_folder is not None:
        shapes = base_linear_shapes(facts.base_folder)
        errors += _lengths(config, facts, facts.base_folder)
        errors += _targets(config, shapes)
        errors += _adapters(config, facts, shapes)
        errors += _incumbent(config, facts.base_folder, shapes)
        errors += _disk(config, facts.base_folder, shapes, to_train, to_merge, to_fold)
    return Findings(tuple(errors), tuple(_warnings(config, facts)))


def _metrics(config: Config, facts: Facts) -> list[InputError]:
    errors = []
    if config.task.settings.get("metrics") or is_own(config.task.name):
        from sabir.metrics import (  # a task's own need no check, and the import costs `plan` 0.1 s
            METRICS,
            fitting,
        )

        fits = {*fitting(facts.task.answer), *(fitting("label") if facts.task.labels else ())}
        for metric in facts.task.metrics:
            known = [name for name in METRICS.names() if name in fits]
            fix = f"Those that fit are: {', '.join(known)}.{did_you_mean(metric, known)}"
            if metric not in METRICS:
                errors.append(InputError("task.metrics", f"no such metric: {metric!r}.", fix))
            elif metric not in fits:
                found = f"{metric!r} does not fit a task that is answered by {_KINDS[facts.task.answer]}."
                errors.append(InputError("task.metrics", found, fix))
    if ENCODED in facts.task.metrics and config.evaluate.encoder is None:
        fix = "Name one, such as encoder: xlm-roberta-large, encoder_layer: 17; or a folder."
        errors.append(InputError("evaluate.encoder", f"{ENCODED} needs an encoder.", fix))
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


def _encoder(config: Config, facts: Facts) -> list[InputError]:
    """What BERTScore reads with: an encoder, with the layer that is asked for."""
    name, folder = config.evaluate.encoder, facts.encoder_folder
    if name is None or folder is None or ENCODED not in facts.task.metrics:
        return []
    from sabir.model.encoder import check_encoder

    try:
        check_encoder(folder, name, config.evaluate.encoder_layer)
    except InputError as error:
        return [InputError(f"evaluate.{error.where}", error.message, error.fix)]
    return []


def _holds(facts: Facts) -> list[InputError]:
    """Languages that went back to an adapter which is lost: today's rows are not taken in its place unasked."""
    fix = "Put it back, change the rows, or take the language out of holds: in sabir.lock to train on today's rows."
    return [InputError(f"data.{language}", found, fix) for language, found in facts.lost_holds.items()]


def _baseline(config: Config, facts: Facts) -> list[InputError]:
    if config.baseline == "none" or len(facts.adapters) < len(config.languages):
        return []
    fix = "Write baseline: none, or give a language train: rows."
    return [InputError("baseline", f"is {config.baseline}, and no language has training rows.", fix)]


def _searches(config: Config) -> list[InputError]:
    """Searches without their optimiser; found here, because it is looked for only where it is needed."""
    from sabir.work.search import check_installed

    for merge in config.merges.values():
        if merge.search is not None:
            try:
                check_installed(f"merges.{merge.name}.search")
            except InputError as error:
                return [error]
    return []


def _lengths(config: Config, facts: Facts, base: Path) -> list[InputError]:
    """Answers that do not fit into a row; a base that cannot read rows of that length."""
    errors = []
    limit = max_positions(base)
    count = _token_counter(base)
    lengths = [
        (f"data.{language}: lora.max_length", settings.lora.max_length, [language])
        for language, settings in config.languages.items()
    ]
    if config.baseline != "none":  # trained on everybody's rows, at the common length
        lengths.append(("lora.max_length", config.lora.max_length, list(config.languages)))
    for where, length, languages in lengths:
        if limit is not None and length > limit:
            errors.append(
                InputError(where, f"is {length}, and the base reads at most {limit} tokens.", "Lower it.")
            )
        if facts.task.max_new_tokens >= length:
            errors.append(
                InputError(
                    where,
                    f"is {length}, and task.max_new_tokens alone is {facts.task.max_new_tokens}.",
                    "Raise the one or lower the other.",
                )
            )
        for language in languages:
            size, place, frame = facts.rows[language].longest_frame
            longest_choice = [text for _, _, text in facts.rows[language].longest_targets[:1]]
            options = facts.task.labels or (longest_choice if facts.task.answer == "choice" else [])
            longest = facts.task.max_new_tokens or max((len(one.encode()) + 2 for one in options), default=1)
            if size + 1 + longest <= length:  # a token holds at least a byte
                tokens = 0
            else:
                answers = [count(f" {option}") + 1 for option in options] or [longest]
                tokens = count(frame) + 1 + max(answers)
            if tokens > length:
                errors.append(
                    InputError(
                        place,
                        f"instruction, cue and answer take {tokens} tokens before any text, and a row has "
                        f"lora.max_length = {length}.",
                        "Raise max_length or shorten the instruction.",
                    )
                )
            errors += _long_targets(facts.rows[language], length, count)
    return list({str(error): error for error in errors}.values())


def _long_targets(rows: Summary, length: int, count: Callable[[str], int]) -> list[InputError]:
    """Answers that alone fill a row: the first few by place, the rest in number."""
    found = []
    for size, place, target in rows.longest_targets:
        if size + 2 < length:  # a token holds at least a byte; the end token and the blank before
            break
        tokens = count(f" {target}") + 1
        if tokens >= length:
            found.append((place, tokens))
    errors = [
        InputError(
            place,
            f"the answer takes {tokens} tokens, and a row has lora.max_length = {length}.",
            "Answers are never cut: raise max_length or drop the row.",
        )
        for place, tokens in found[:SHOWN]
    ]
    if len(found) > SHOWN:
        path = found[0][0].rpartition(", line")[0]
        more = "at least " if len(found) == len(rows.longest_targets) else ""
        errors.append(InputError(path, f"{more}{len(found) - SHOWN} more answers are too long likewise."))
    return errors


def _token_counter(folder: Path) -> Callable[[str], int]:
    """Number of tokens of a text, by the base's tokenizer alone (no torch); loaded when first asked."""
    tokenizer: list[Callable[[str], int]] = []

    def count(text: str) -> int:
        if not tokenizer:
            tokenizer.append(_counting(folder))
        return tokenizer[0](text)

    return count


def _counting(folder: Path) -> Callable[[str], int]:
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
    errors: list[InputError] = []
    opened = {}
    for language in facts.adapters:
        path = config.languages[language].adapter
        assert path is not None
        try:
            adapter = open_adapter(path)
            check_supported(adapter, where=f"data.{language}.adapter")
            check_fits(adapter, shapes, where=f"data.{language}.adapter")
            _check_base(adapter, config, where=f"data.{language}.adapter")
            _check_whole_modules(adapter, config, where=f"data.{language}.adapter")
            opened[language] = adapter
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    if config.merges and len(opened) > 1 and not errors:
        try:
            check_mergeable(opened)
        except InputError as error:
            errors.extend(error.problems())  # type: ignore[arg-type]
    return errors


def _incumbent(config: Config, base: Path, shapes: dict[str, tuple[int, int]]) -> list[InputError]:
    """The model in use before sabir: an adapter of this base, or a model that reads text as the base does."""
    path, where = config.gate.incumbent, "gate.incumbent"
    if path is None:
        return []
    try:
        if (path / "adapter_config.json").is_file():
            check_fits(open_adapter(path), shapes, where=where)
        elif difference := vocabulary_difference(base, path):
            fix = "It is asked with the base's tokenizer: name a model with the same one."
            return [InputError(where, difference, fix)]
    except InputError as error:
        return list(error.problems())  # type: ignore[arg-type]
    return []


def _check_base(adapter: Adapter, config: Config, *, where: str) -> None:
    """Refuse an adapter that names another base on the hub. What a folder's name is worth, nobody knows."""
    named, ours = adapter.base_model, config.base.partition("@")[0]
    if named is None or named == ours or not is_hub_name(named, config.folder):
        return
    if ours == EMBEDDED or is_hub_name(ours, config.folder):
        raise InputError(
            where, f"was made for {named!r}, and the base is {ours!r}.", "Give an adapter of this base."
        )


def _check_whole_modules(adapter: Adapter, config: Config, *, where: str) -> None:
    """Refuse what an adapter trained whole where other languages' adapters, trained here, will have no such thing."""
    trained = [language for language, settings in config.languages.items() if settings.adapter is None]
    if adapter.saved and trained and config.merges:
        raise InputError(
            where,
            f"has {min(adapter.saved)!r} of modules_to_save, and the adapter of {trained[0]}, trained here, has "
            "none, so they cannot be merged.",
            "Bring adapters for all languages, or one without modules_to_save.",
        )


def _disk(
    config: Config,
    base: Path,
    shapes: dict[str, tuple[int, int]],
    to_train: int,
    to_merge: int,
    to_fold: int,
) -> list[InputError]:
    per_rank = 4 * sum(rows + columns for rows, columns in shapes.values())
    rank = max(lora.rank for lora in [config.lora, *(one.lora for one in config.languages.values())])
    adapter = rank * per_rank
    checkpoints = 2 * 3 * adapter  # two kept, each with two moments of the optimizer
    merged = len(config.languages) * adapter
    stored = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    folded = max(stored, 4 * sum(rows * columns for rows, columns in shapes.values()))  # float32 at most
    needed = to_train * (adapter + checkpoints) + to_merge * merged + to_fold * folded + SPARE_BYTES
    place = config.run.store
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free >= needed:
        return []
    return [
        InputError(
            "run.store",
            f"{config.run.store} has {free / 2**20:.0f} MiB free, and this run may need "
            f"{needed / 2**20:.0f} MiB.",
            "Free some space or point run.store elsewhere.",
        )
    ]


FEW_ROWS = 50  # with fewer, a 95 % interval of an accuracy is wider than some 0.3


def _warnings(config: Config, facts: Facts) -> list[str]:
    found = [
        f"merges.{merge.name}: {sentence}" for merge in config.merges.values() for sentence in _simpler(merge)
    ]
    found += _unsplit(config, facts) + rivals_warnings(config, facts)
    if config.baseline != "none" and facts.adapters:
        names = ", ".join(facts.adapters)
        found.append(
            f"baseline: no training rows are given for {names} (an adapter is), so the combined adapter is "
            "trained without them and cannot be expected to know them."
        )
    for language, summary in facts.rows.items():
        if summary.overlap:
            found.append(
                f"data.{language}: {summary.overlap} of {summary.rows['test']} test texts are also in train; "
                "scores on them show memory, not skill."
            )
    few = [
        f"{language} {summary.rows[split]} {split}"
        for language, summary in facts.rows.items()
        for split in ("valid", "test")
        if summary.rows[split] < FEW_ROWS
    ]
    if few:
        found.append(f"data: few rows, so intervals will be wide: {', '.join(few)}.")
    by_content: dict[str, str] = {}
    for language, digest in facts.adapters.items():
        first = by_content.setdefault(digest, language)
        if first != language:
            found.append(
                f"data.{language}.adapter: is the same adapter as data.{first}'s, so it counts twice in every merge."
            )
    for language in facts.adapters:
        path = config.languages[language].adapter
        named = open_adapter(path).base_model if path else None
        local = config.base != EMBEDDED and not is_hub_name(config.base, config.folder)
        if named and local and Path(named).name != Path(config.base).name:
            found.append(
                f"data.{language}.adapter: was made for {named!r}; the shapes fit the base {config.base!r}, "
                "but only you can know that it is the same model."
            )
    return found


def _unsplit(config: Config, facts: Facts) -> list[str]:
    """Languages whose words are not found as they might be, and how to."""
    if facts.task.answer not in ("text", "phrases"):
        return []
    from sabir.metrics import METRICS, missing_package

    known = [metric for metric in facts.task.metrics if metric in METRICS]
    commands = {
        language: command
        for language in config.languages
        for metric in known
        if (command := missing_package(metric, language)) is not None
    }
    return [
        f"data.{language}: no word splitter is installed for it, so its texts are compared by characters or "
        f"syllables, and its scores with nobody else's. For words: {command}"
        for language, command in commands.items()
    ]


def _simpler(merge: MergeConfig) -> list[str]:
    """What is said of members that equal a simpler merge, each sentence once."""
    if merge.search is not None:
        return []
    said = (merge.made(member.settings).equivalent for member in members(merge))
    return list(dict.fromkeys(sentence for sentence in said if sentence))
