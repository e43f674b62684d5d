"""Models by name: what they are called in tables and in sentences, and in which order they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sabir.names import BASE, COMBINED, CONTINUED, OWN, ROUTED, TRANSLATED

_NUMBERED = re.compile(r"(.+)#(\d+)")
_INSIDE = re.compile(r"[^\[]+\[(.*)\]")


def training_of(model: str) -> tuple[str, int | None]:
    """A model's plain name, and which training of several it is of: ("adapter/de", 2) of "adapter/de#2"; else None."""
    found = _NUMBERED.fullmatch(model)
    return (found[1], int(found[2])) if found else (model, None)


def settings_of(model: str) -> dict[str, str]:
    """What stands in a name's brackets: {"shots": "4"} of "base[shots=4]"."""
    found = _INSIDE.fullmatch(model)
    parts = found[1].split(",") if found else []
    return dict(part.split("=", 1) for part in parts if "=" in part)


def is_combined(model: str) -> bool:
    """The combined adapter: as the baseline is, at the merged rank, at a scale."""
    return model == COMBINED or model.startswith(f"{COMBINED}[")


def is_own(model: str) -> bool:
    """One language's own adapter, or all of them under one name."""
    return model.startswith("adapter/") and not is_combined(model) and model != CONTINUED


def is_untrained(model: str) -> bool:
    """The bare base model, with examples in its prompt or without."""
    return model == BASE or model.startswith(f"{BASE}[")


def of_language(model: str, language: str) -> str:
    """The model as scored on a language: of the own adapters that language's."""
    return f"adapter/{language}" if model == OWN else model


def in_one_row(models: Iterable[str]) -> list[str]:
    """Models in the order they are shown, from untrained to merged; the languages' own adapters are one."""
    return sorted(dict.fromkeys(OWN if is_own(model) else model for model in models), key=_place)


def _place(model: str) -> int:
    known = (BASE, None, OWN, ROUTED, TRANSLATED, COMBINED, CONTINUED)
    if model in known:
        return known.index(model)
    if is_untrained(model):
        return known.index(None)
    if is_combined(model):
        return len(known)
    return len(known) + (1 if model.startswith("merged/") else 2)  # last: releases


def in_table(model: str) -> str:
    """What a model is called in the first column of a table."""
    if is_untrained(model) and model != BASE:
        return f"base model with {_examples(model)}"
    if is_combined(model) and model != COMBINED:
        return f"combined, {_as_told(model)}"
    return {
        BASE: "bare base model",
        OWN: "each language's own adapter",
        ROUTED: "routed: own adapter by detector",
        COMBINED: "combined: one adapter on all data",
        CONTINUED: "combined, continued on new rows",
    }.get(model, model)


def in_prose(model: str) -> str:
    """What a model is called within a sentence."""
    if is_own(model):
        return "each language's own adapter"
    if is_untrained(model) and model != BASE:
        return f"the base model with {_examples(model)} in its prompt"
    if is_combined(model) and model != COMBINED:
        return f"the combined adapter of {_as_told(model)}"
    return {
        BASE: "the bare base model",
        ROUTED: "routing to own adapters",
        TRANSLATED: "translating the question",
        COMBINED: "the combined adapter",
        CONTINUED: "the combined adapter, continued",
    }.get(model, model)


def _examples(model: str) -> str:
    shots = settings_of(model).get("shots", "?")
    return f"{shots} example{'' if shots == '1' else 's'}"


def _as_told(model: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings_of(model).items())
