"""The verbs of a project: set up, check, plan, run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sabir.cli.app import (
    AllowCode,
    AsJson,
    ConfigPath,
    Override,
    TaskName,
    WithBaseline,
    Workers,
    Yes,
    agreement,
    app,
    interruptible,
    open_project,
    progress,
)
from sabir.cli.printing import print_json, print_results, print_table, print_task, say, show_scene, warn
from sabir.errors import InputError

_SPLITS = ("train", "valid", "test")


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="where to write the project")] = Path(
        "sabir-demo"
    ),
    workers: Workers = None,
) -> None:
    """Write a small five-language project into DIR and run it: no network, no GPU, a few minutes."""
    from sabir.demo.story import play

    with interruptible(), progress() as listener:
        play(directory, show=show_scene, listener=listener, workers=workers)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="where to write sabir.yaml")] = Path("."),
) -> None:
    """Write a commented config to start from."""
    from sabir.starter import write

    path = write(directory)
    say(f"Wrote {path}. Fill in base, task and data, then: sabir check {path}")


@app.command()
def check(
    config: ConfigPath,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Find everything that can be wrong, before anything heavy starts."""
    document = open_project(config, override, allow_code, task).check()
    if as_json:
        return print_json(document)
    from sabir.project.tasks import parts

    for warning in document["warnings"]:
        warn(warning)
    for name, one in parts(document):
        for language, counts in one["rows"].items():
            splits = ", ".join(f"{counts[split]:,} {split}" for split in _SPLITS if split in counts)
            say(f"{language if name is None else f'{name}, {language}'}: {splits} rows")
    say(f"{config} is fine; its base is {document['base']['name']}. See what would run: sabir plan {config}")


@app.command()
def plan(
    config: ConfigPath,
    with_baseline: WithBaseline = False,
    what_if: Annotated[
        str | None,
        typer.Option(
            "--what-if",
            metavar="ROWS",
            help="rows that may come, as de=+20000,pt=+5000: what both routes would take, and from where on "
            "retraining all is cheaper",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option("--devices", metavar="N,N", help="numbers of devices for --what-if, as 1,4,8"),
    ] = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run and why, and what it would take; run nothing."""
    project = open_project(config, override, allow_code, task)
    if what_if is not None:
        return _print_what_if(project.what_if(_added(what_if), devices=_numbers(devices)), as_json)
    if devices is not None:
        raise InputError(
            "--devices", "goes with --what-if.", "Where a run runs is a matter of run: and --workers."
        )
    document = project.plan(with_baseline=with_baseline)
    if as_json:
        return print_json(document)
    from sabir.project.tasks import parts
    from sabir.report.plans import planned

    for warning in document["warnings"]:
        warn(warning)
    for name, one in parts(document):
        print_task(name)
        print_table(planned(one))


@app.command()
def run(
    config: ConfigPath,
    with_baseline: WithBaseline = False,
    workers: Workers = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="where jobs run: local, ray or inline (sabir list backends)"),
    ] = None,
    yes: Yes = False,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Do what is missing: train, merge, score, select. Ctrl-C once saves and stops; the next run goes on."""
    override = [*(override or []), *([f"run.backend={backend}"] if backend else [])]
    project = open_project(config, override, allow_code, task)
    with interruptible(), progress() as listener:
        document = project.run(
            with_baseline=with_baseline, workers=workers, listener=listener, warn=warn, agree=agreement(yes)
        )
    if as_json:
        return print_json(document)
    from sabir.project.tasks import parts

    for name, one in parts(document):
        print_task(name)
        if one["run"]["id"] is None:
            say("Nothing to do: everything is up to date.\n")
        print_results(one)


def _added(text: str) -> dict[str, int]:
    """ "de=+20000,pt=+5000": rows to come, by language."""
    added = {}
    for part in text.split(","):
        language, _, number = part.strip().partition("=")
        try:
            if language in added:
                raise InputError("--what-if", f"{language!r} is given twice.", "Keep one of the two.")
            added[language] = int(number)
        except ValueError:
            found = f"{part.strip()!r} is no language and number."
            raise InputError("--what-if", found, "Write them as de=+20000,pt=+5000.") from None
    return added


def _numbers(text: str | None) -> list[int]:
    try:
        found = [int(part) for part in (text or "1,4,8").split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise InputError("--devices", f"{text!r} is no list of numbers above 0.", "Write them as 1,4,8.")
    return found


def _print_what_if(document: dict, as_json: bool) -> None:
    from sabir.report.what_if import supposed

    if as_json:
        print_json(document)
    else:
        print_table(supposed(document))
