"""From YAML to a `Config`, section by section; what is wrong goes to the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sabir.catalog import did_you_mean
from sabir.config.estimate import check_estimate, read_ensemble, read_estimate
from sabir.config.merges import read_merges
from sabir.config.rivals import check_model, check_rivals, read_rivals
from sabir.config.task import read_task
from sabir.config.values import (
    Config,
    EvaluationConfig,
    GateConfig,
    PricesConfig,
    RunConfig,
    SelectConfig,
    ServeConfig,
)
from sabir.languages import LANGUAGE_FORM, LoraConfig, UpdateConfig, read_languages, read_update, resolved
from sabir.settings import Range, Reader, Text, shown


def read_config(
    reader: Reader, given: dict[str, Any], file: Path, allow_code: bool, *, task_name: str | None = None
) -> Config:
    """A config from what its file says.

    Args:
        allow_code: whether functions of the user's own may be loaded: they say which settings they take.
        task_name: of one of several tasks; `given` is then what holds for that one.
    """
    refuse_unknown_sections(reader, given)
    for name in _MISSING:
        if given.get(name) is None:
            reader.wrong((name,), "it is missing.", _MISSING[name])
    folder = file.parent
    lora = reader.section(LoraConfig(), given, ("lora",))
    update = read_update(reader, UpdateConfig(), given, ("update",))
    languages = read_languages(reader, given, folder, lora, update)
    baseline = reader.one(given, "baseline", Literal["none", "combined", "continued"], (), "none")
    run = reader.section(RunConfig(), given, ("run",))
    run = replace(run, store=resolved(folder, str(run.store)))
    code = folder if allow_code else None
    config = Config(
        path=file,
        folder=folder,
        base=_base(reader, given, folder),
        task=read_task(reader, given, languages, folder, code),
        languages=languages,
        lora=lora,
        update=update,
        baseline=baseline,
        merges=read_merges(reader, given, list(languages)),
        select=reader.section(SelectConfig(), given, ("select",)),
        gate=_gate(reader, given, folder),
        serve=_serve(reader, given, folder),
        prices=reader.section(PricesConfig(), given, ("prices",)),
        run=run,
        evaluate=_evaluate(reader, given, folder),
        rivals=read_rivals(reader, given, folder, languages, code),
        ensemble=read_ensemble(reader, given, folder),
        estimate=read_estimate(reader, given, folder, languages),
        seeds=reader.one(given, "seeds", Annotated[int, Range(ge=1, le=20)], (), 1),
        allow_code=allow_code,
        task_name=task_name,
    )
    _check_seeds(reader, config)
    _check_rows_to_count(reader, config)
    check_rivals(reader, config)
    check_estimate(reader, config)
    return config


def refuse_unknown_sections(reader: Reader, given: Mapping[str, Any]) -> None:
    """Complain about each key at the top of a config that is no section."""
    reader.refuse_unknown(given, _SECTIONS, (), "a config")


_SECTIONS = (
    *("base", "task", "data", "tasks", "lora", "update", "baseline", "merges"),
    *("select", "gate", "serve", "prices", "run", "evaluate", "rivals", "ensemble", "estimate", "seeds"),
)
_MISSING = {
    "base": "Write `base: embedded`, a folder, or a hub name such as Qwen/Qwen3-0.6B.",
    "task": "Write `task: summarization`, or {name: classification, labels: [...]}.",
    "data": LANGUAGE_FORM,
}


def _base(reader: Reader, given: Mapping[str, Any], folder: Path) -> str:
    base = reader.one(given, "base", Text, (), "") if given.get("base") is not None else ""
    if base and base != "embedded":
        fix = f"'embedded' is the base that ships with sabir.{did_you_mean(base, ['embedded'])}"
        check_model(reader, base, ("base",), folder, fix)
    return base


def _evaluate(reader: Reader, given: Mapping[str, Any], folder: Path) -> EvaluationConfig:
    evaluate = reader.section(EvaluationConfig(), given, ("evaluate",))
    path = ("evaluate", "encoder")
    if evaluate.encoder is not None:
        check_model(reader, evaluate.encoder, path, folder, "Name a multilingual encoder.")
    elif evaluate.encoder_layer is not None:
        reader.wrong(
            ("evaluate", "encoder_layer"), "there is no encoder.", "Name it: evaluate: {encoder: ...}."
        )
    return evaluate


def _check_seeds(reader: Reader, config: Config) -> None:
    """Several trainings of everything have no one history, and no one search to write down."""
    if config.seeds == 1:
        return
    going_on = [name for name, one in config.languages.items() if one.update.mode == "continue"]
    if going_on:
        found = f"{config.seeds} trainings do not go with update: continue (of {', '.join(going_on)})."
        fix = "A continuation goes on from one adapter: write update: scratch, or seeds: 1."
        reader.wrong(("seeds",), found, fix)
    if config.baseline == "continued":
        found = f"{config.seeds} trainings do not go with baseline: continued."
        reader.wrong(("seeds",), found, "Write baseline: combined, or seeds: 1.")
    for merge in config.merges.values():
        if merge.search is not None:
            found = f"{config.seeds} trainings do not go with the search of merges.{merge.name}."
            fix = (
                "Each training would choose other settings: write a grid in place of the search, or seeds: 1."
            )
            reader.wrong(("seeds",), found, fix)


def _check_rows_to_count(reader: Reader, config: Config) -> None:
    """`weights: rows` counts training rows, and a language that brings its adapter has none."""
    brought = [name for name, one in config.languages.items() if one.adapter is not None]
    for merge in config.merges.values():
        if merge.weights == "rows" and brought:
            found = f"there are no training rows of {', '.join(brought)} to count: an adapter is given."
            reader.wrong(("merges", merge.name, "weights"), found, "Write the weights as numbers.")


def _gate(reader: Reader, given: Mapping[str, Any], folder: Path) -> GateConfig:
    gate = reader.section(GateConfig(), given, ("gate",))
    if gate.incumbent is None:
        return gate
    place = resolved(folder, str(gate.incumbent))
    if not any((place / name).is_file() for name in ("adapter_config.json", "config.json")):
        fix = f"Looked for adapter_config.json or config.json in {place}."
        reader.wrong(
            ("gate", "incumbent"), f"{shown(str(gate.incumbent))} holds no adapter and no model.", fix
        )
    return replace(gate, incumbent=place)


def _serve(reader: Reader, given: Mapping[str, Any], folder: Path) -> ServeConfig:
    serve = reader.section(ServeConfig(), given, ("serve",))
    return serve if serve.folder is None else replace(serve, folder=resolved(folder, str(serve.folder)))
