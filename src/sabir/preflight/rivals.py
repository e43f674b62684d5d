"""What can be wrong with the rivals of merging, before anything heavy starts."""

from __future__ import annotations

from collections.abc import Iterator

from sabir.config import Config
from sabir.errors import InputError
from sabir.facts import Facts
from sabir.own_code import is_own, own_function


def rivals_errors(config: Config, facts: Facts) -> list[InputError]:
    """Rivals that this task cannot have, or that lack a package."""
    return [*_of_the_task(config, facts), *_routed(config), *_translated(config), *_generated(config, facts)]


def _of_the_task(config: Config, facts: Facts) -> Iterator[InputError]:
    if facts.task.answer == "label":
        return
    asked = config.rivals
    if asked.stress:
        found = "such test sets are made for tasks that are answered by one of their labels."
        yield InputError("rivals.stress", found, "Leave it out.")
    if asked.translate is not None:
        found = "a translated question is answered in another language; only labels are the same in all."
        yield InputError("rivals.translate", found, "Leave it out.")


def _routed(config: Config) -> Iterator[InputError]:
    name = config.rivals.routed
    if name is None:
        return
    from sabir.work.detect import detector_missing

    if len(config.languages) < 2:
        yield InputError("rivals.routed", "there is one language, so nothing to route.", "Leave it out.")
    if is_own(name):
        yield from _own(name, config, "rivals.routed")
    elif (command := detector_missing(name)) is not None:
        found = f"the language detector {name!r} is not installed."
        yield InputError("rivals.routed", found, f"Install it: {command}")


def _translated(config: Config) -> Iterator[InputError]:
    asked = config.rivals.translate
    if asked is not None and is_own(asked.model):
        yield from _own(asked.model, config, "rivals.translate.model")


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
