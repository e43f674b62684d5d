"""What can be wrong with the rivals of merging, before anything heavy starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sabir.config import Config
from sabir.errors import InputError
from sabir.facts import Facts
from sabir.own_code import is_own, own_function
from sabir.work.bases import max_positions


def rivals_errors(config: Config, facts: Facts) -> list[InputError]:
    """Rivals that these rows cannot give, or that lack a package."""
    every = (_few_shot, _routed, _translated, _generated)
    return [error for each in every for error in each(config, facts)]


def rivals_warnings(config: Config, facts: Facts) -> list[str]:
    """Examples in a prompt that must be cut, all of them and the question, for the base to read them."""
    shots = config.rivals.shots
    reads = max_positions(facts.base_folder) if shots and facts.base_folder is not None else None
    length = max((one.lora.max_length for one in config.languages.values()), default=0)
    needed = (shots + 1) * length
    if reads is None or needed <= reads:
        return []
    return [
        f"rivals.shots: {shots} examples and the question of up to {length} tokens each are {needed:,} tokens, and the "
        f"base reads {reads:,}: long texts are cut so that each takes about {reads // (shots + 1)}, the question too. "
        "Lower shots where texts are long."
    ]


def _few_shot(config: Config, facts: Facts) -> Iterator[InputError]:
    """Examples are never the asked row itself, so there must be one more than is shown."""
    for language, summary in facts.rows.items():
        rows = summary.rows.get("train", 0)
        if 0 < rows <= config.rivals.shots:
            counted = "1 training row" if rows == 1 else f"{rows} training rows"
            found = f"is {config.rivals.shots}, and {language} has {counted}."
            yield InputError("rivals.shots", found, "Lower it, or add rows.")


def _routed(config: Config, facts: Facts) -> Iterator[InputError]:
    name = config.rivals.routed
    if name is None or facts.base_folder is None:  # its model takes half a second to load: not for a plan
        return
    from sabir.work.detect import detector

    try:
        detector(name, list(config.languages), config.code)
    except InputError as error:
        yield InputError("rivals.routed", error.message, error.fix)


def _translated(config: Config, facts: Facts) -> Iterator[InputError]:
    asked = config.rivals.translate
    if asked is not None and is_own(asked.model):
        yield from _own(asked.model, config, "rivals.translate.model")
    elif asked is not None and facts.translator_place is not None:
        from sabir.work.translate import check_translator

        try:
            check_translator(Path(facts.translator_place), asked.model)
        except InputError as error:
            yield InputError("rivals.translate.model", error.message, error.fix)


def _generated(config: Config, facts: Facts) -> Iterator[InputError]:
    generator = config.evaluate.generator
    if generator == "transformers":
        return
    if facts.task.answer not in ("text", "phrases"):
        found = f"{generator} writes texts, and this task's answers are scored."
        yield InputError("evaluate.generator", found, "Leave it out.")
    from sabir.model.vllm_generator import generator_missing

    if (command := generator_missing(generator)) is not None:
        yield InputError("evaluate.generator", f"{generator} is not installed.", f"Install it: {command}")


def _own(name: str, config: Config, where: str) -> Iterator[InputError]:
    try:
        own_function(name, config.code, where=where)
    except InputError as error:
        yield error
