"""The verbs that need no project: merge any adapters, list what a config can name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sabir.cli.app import AsJson, app, interruptible
from sabir.cli.printing import print_analysis, print_json, print_table, say, warn
from sabir.errors import InputError, Stopped


@app.command()
def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="PEFT adapter folders")],
    out: Annotated[Path | None, typer.Option("--out", help="folder for the merged adapter or model")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="a named recipe, as ties-knots (sabir list recipes)")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="a method, as ties (sabir list methods)")
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="where it merges: delta, knots, core, compressed or factors")
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="share of entries kept, above 0 to 1")
    ] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="factor on the merged delta")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of the random draws (DARE, DELLA)")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="another setting of the method, or one by module: density='{depth: [0.2, 0.8]}'; weights too",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", help="one per adapter in the order given: 1,0.5,2; or by folder: de=1,fr=0.5"
        ),
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            "--rank", help="a number, exact, serve (what servers take), or fold; else what the space gives"
        ),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            "--dialect", help="whose rules hold where programs differ: sabir, paper, mergekit, peft"
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="of what is written: float32, bfloat16 or float16")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", help="the base model's folder: to fold into, to check against, for its tokenizer"
        ),
    ] = None,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="show how the adapters relate; merges too where --out is given")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Merge any PEFT adapters into one: no config, no base model, no GPU."""
    from sabir.progress import module_count
    from sabir.work.merge import analyze_folders, merge_folders

    if out is None and (recipe or method or not analyze):
        found = "there is no folder to write to."
        raise InputError("merge", found, "Give one with --out, or ask for --analyze alone.")
    document: dict[str, Any] = {}
    if analyze:
        with _nothing_written():
            document["analysis"] = analyze_folders(adapters, on_module=module_count("analyzing", sys.stderr))
    if out is not None:
        settings = _method_settings(override, density=density, scale=scale, seed=seed)
        by_name = settings.pop("weights", None)  # --set weights='{de: {depth: [0.2, 1]}, en: 1}'
        if by_name is not None and weights is not None:
            raise InputError("--weights", "are given twice.", "Keep one of --weights and --set weights=.")
        with interruptible(), _nothing_written():
            document |= merge_folders(
                adapters,
                out=out,
                recipe=recipe,
                method=method,
                space=space,
                settings=settings,
                weights=_adapter_weights(weights) if by_name is None else by_name,
                rank=_rank(rank),
                dialect=dialect,
                dtype=dtype,
                base=base,
                on_module=module_count("merging", sys.stderr),
            )
    if as_json:
        return print_json(document)
    if analyze:
        print_analysis(document["analysis"])
    if out is not None:
        for warning in document["warnings"]:
            warn(warning)
        say(_merged(document))


def _rank(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else text


@contextmanager
def _nothing_written() -> Iterator[None]:
    """What an interruption means where nothing is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("", "stopped; nothing was written.") from None


def _merged(document: Mapping[str, Any]) -> str:
    """What was merged, in a sentence or two."""
    kept = ", ".join(f"{name} {share:.3f}" for name, share in document["energy_kept_by_adapter"].items())
    what = "the folded model" if document["rank"] is None else f"rank {document['rank']}"
    return (
        f"Wrote {document['out']}: {what}, {document['modules']} modules, {document['parameters']:,} parameters, "
        f"in {document['wall_s']:.1f} s. Energy kept: {document['energy_kept']:.3f} ({kept})."
    )


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="methods, spaces, dialects, recipes, presets, tasks, metrics, estimators or backends",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """List what a config can name, with settings and sources."""
    from sabir.report.catalogue import entries, table

    found = entries(what)
    if as_json:
        return print_json({what: found})
    print_table(table(what, found))


def _method_settings(override: Sequence[str] | None, **given: float | None) -> dict[str, Any]:
    """The settings given by name, and those of --set, read as YAML."""
    from sabir.settings import parse_overrides

    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for path, value in parse_overrides(override or ()):
        name = ".".join(map(str, path))
        if name in settings:
            raise InputError(f"--set {name}", "is given twice.", "Keep one of the two.")
        settings[name] = value
    return settings


def _adapter_weights(text: str | None) -> list[float] | dict[str, float] | None:
    """ "1,0.5,2" in the order of the adapters, or "de=1,fr=0.5" by name."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    try:
        if all("=" in part for part in parts):
            pairs = [part.rpartition("=") for part in parts]
            named = {name: float(number) for name, _, number in pairs}
            if len(named) < len(pairs):
                raise InputError("--weights", f"{text!r} names an adapter twice.", "Keep one of the two.")
            return named
        return [float(part) for part in parts]
    except ValueError as error:
        raise InputError(
            "--weights", f"{text!r} is not a list of numbers.", "Write them as 1,0.5,2 or de=1,fr=0.5."
        ) from error
