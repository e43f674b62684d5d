"""The sections `ensemble` and `estimate`: who answers beside the model in use, and how its error is estimated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sabir.catalog import did_you_mean
from sabir.config.rivals import check_model
from sabir.config.values import KINDS, Config, EnsembleConfig, EstimateConfig, JudgeConfig
from sabir.languages import resolved
from sabir.settings import Range, Reader, Text, shown

_SHARE = Annotated[float, Range(gt=0, lt=1)]
_ERROR = Annotated[float, Range(ge=0, le=1)]
_HINTS = {
    "estimator": Text | None,
    "members": Text | None,
    "level": _SHARE,
    "budget": _ERROR | Mapping[str, _ERROR] | None,
    "window": Literal["day", "week", "month"] | Annotated[int, Range(ge=1)] | None,
    "false_alarms": _SHARE,
    "judge": Any,
}
PROJECT_MODELS = ("adapter/", "merged/", "base")  # how models of the project are called, in a judge's place


def read_ensemble(reader: Reader, given: Mapping[str, Any], folder: Path) -> EnsembleConfig:
    """The section `ensemble`; what is wrong goes to the reader."""
    ensemble = reader.section(EnsembleConfig(), given, ("ensemble",))
    for name in ("free", "prompts", "bases"):
        values = getattr(ensemble, name)
        for twice in sorted({str(one) for one in values if values.count(one) > 1}):
            reader.wrong(("ensemble", name), f"{twice!r} stands there twice.", "Keep one of the two.")
    for base in ensemble.bases:
        check_model(reader, base, ("ensemble", "bases"), folder, "Name base models that answer too.")
    files = {name: resolved(folder, str(path)) for name, path in ensemble.files.items()}
    for name, path in files.items():
        if not path.is_file():
            fix = f'Looked for {path}. It holds a row a line: {{"id": ..., "prediction": ...}}.'
            reader.wrong(("ensemble", "files", name), f"{shown(str(ensemble.files[name]))} is no file.", fix)
    return replace(ensemble, files=files)


def read_estimate(
    reader: Reader, given: Mapping[str, Any], folder: Path, languages: Collection[str]
) -> EstimateConfig:
    """The section `estimate`; what is wrong goes to the reader."""
    path = ("estimate",)
    written = reader.mapping(given, path)
    read = reader.settings(written, _HINTS, path, "'estimate'")
    read["judge"] = _judge(reader, written, folder)
    budget = read.get("budget")
    for language in budget if isinstance(budget, Mapping) else ():
        if languages and language not in languages:
            fix = f"There are: {', '.join(languages)}.{did_you_mean(language, languages)}"
            reader.wrong((*path, "budget", language), "there is no such language.", fix)
    return EstimateConfig(**read)


def _judge(reader: Reader, given: Mapping[str, Any], folder: Path) -> JudgeConfig | None:
    path = ("estimate", "judge")
    if given.get("judge") is None:
        return None
    written = {"model": given["judge"]} if isinstance(given["judge"], str) else reader.mapping(given, path)
    if written.get("model") is None:
        fix = (
            "Write a model of the project (adapter/combined), a folder, a hub name, or a name at an endpoint."
        )
        reader.wrong((*path, "model"), "it is missing.", fix)
        return None
    judge = reader.section(JudgeConfig(model=""), {"judge": written}, path)
    if judge.endpoint is not None:
        if not judge.endpoint.startswith(("http://", "https://")):
            fix = "Write a URL such as https://api.example.com/v1."
            reader.wrong((*path, "endpoint"), f"{shown(judge.endpoint)} is no URL.", fix)
    elif judge.model and not judge.model.startswith(PROJECT_MODELS):
        fix = "Or a model of the project: adapter/combined."
        check_model(reader, judge.model, (*path, "model"), folder, fix)
    return judge


def check_estimate(reader: Reader, config: Config) -> None:
    """Complain about what there is no such thing of, and what this project's models cannot have."""
    if config.estimate.estimator is not None:
        from sabir.estimate.estimators import ESTIMATORS

        _check_known(reader, "estimator", config.estimate.estimator, ESTIMATORS.names())
    if config.estimate.members is not None:
        _check_known(reader, "members", config.estimate.members, KINDS)
    brought = [name for name, one in config.languages.items() if one.adapter is not None]
    if config.ensemble.seeds and brought:
        found = f"there are no training rows of {', '.join(brought)}: an adapter is given."
        reader.wrong(("ensemble", "seeds"), found, "Write seeds: 0.")


def _check_known(reader: Reader, key: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        fix = f"Known are: {', '.join(known)}.{did_you_mean(name, known)}"
        reader.wrong(("estimate", key), f"{shown(name)} is none.", fix)
