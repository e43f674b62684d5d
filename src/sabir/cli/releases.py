"""The verbs of releases: promote, go back, look back, hand to a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sabir.cli.app import (
    AllowCode,
    AsJson,
    ConfigPath,
    Override,
    TaskName,
    Workers,
    Yes,
    agreement,
    app,
    interruptible,
    open_project,
    progress,
)
from sabir.cli.printing import print_json, print_table, print_task, say, warn
from sabir.errors import InputError

Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="WHAT",
        help="let through all the same: a language that is worse, macro, undecided or all; may be given several times",
    ),
]
By = Annotated[str | None, typer.Option("--by", help="who promotes (default: the user of this process)")]


@app.command(rich_help_panel="Releases")
def promote(
    config: ConfigPath,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="an evaluated model (default: the selected merge)")
    ] = None,
    accept: Accept = None,
    by: By = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Make a model the current release if it passes the gate (else exit 3), and put it where servers look."""
    document = open_project(config, override, allow_code, task).promote(model, accept=accept or (), by=by)
    if as_json:
        return print_json(document)
    from sabir.project.tasks import parts

    for name, one in parts(document):
        print_task(name)
        _say_promotion(one)


def _say_promotion(document: dict) -> None:
    from sabir.report.quality import changed

    if not document["promoted"]:
        return say(document["reasons"][0])
    print_table(changed({**document, "reasons": ()}))  # they are said in the sentence below
    say(
        f"Release {document['release']} is in use. Verdict: {document['verdict']}; {'; '.join(document['reasons'])}."
    )
    say(f"Servers find it in {document['serve']}.")


@app.command(rich_help_panel="Releases")
def rollback(
    config: ConfigPath,
    to: Annotated[
        str | None, typer.Option("--to", help="the release to go back to (default: the one before)")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            help="go back with this language only: its earlier adapter is merged with today's others, and promoted",
        ),
    ] = None,
    lift: Annotated[
        bool,
        typer.Option(
            "--lift", help="end the hold of --language: today's adapter again, from the next run on"
        ),
    ] = False,
    accept: Accept = None,
    by: By = None,
    workers: Workers = None,
    yes: Yes = False,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Go back to an earlier release, at once; or with one language only, which is then held there."""
    project = open_project(config, override, allow_code, task)
    if lift:
        return _lift(project, language, as_json)
    with interruptible(), progress() as listener:
        document = project.rollback(
            to=to,
            language=language,
            accept=accept or (),
            by=by,
            workers=workers,
            listener=listener,
            warn=warn,
            agree=agreement(yes),
        )
    if as_json:
        return print_json(document)
    if language is not None:
        _say_promotion(document)
        if document["trained"]:
            say(f"Trained too, as its rows had changed: {', '.join(document['trained'])}.")
        return say(
            f"{language} is held at its earlier adapter until its training rows change; --lift ends that."
        )
    say(f"Release {document['release']} is in use again, in place of {document['before']}.")
    say(f"Servers find it in {document['serve']}.")


def _lift(project: Any, language: str | None, as_json: bool) -> None:
    if language is None:
        raise InputError("--lift", "goes with --language.", "Name the language that is held.")
    document = project.lift(language)
    if as_json:
        return print_json(document)
    say(f"{language} is held no longer. At the next run its adapter is that of today's rows again.")


@app.command(rich_help_panel="Releases")
def releases(
    config: ConfigPath,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Show every release: what it was made of, how good it is, what it cost, who promoted it."""
    document = open_project(config, override, allow_code, task).releases()
    if as_json:
        return print_json(document)
    from sabir.project.tasks import parts
    from sabir.report.history import releases as table

    for name, one in parts(document):
        print_task(name)
        if one["releases"]:
            print_table(table(one))
        else:
            say(f"There is no release yet. Make one with: sabir promote {config}")


@app.command(rich_help_panel="Releases")
def blame(
    config: ConfigPath,
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="the release that is worse than its parent")
    ],
    language: Annotated[str, typer.Argument(metavar="LANGUAGE", help="the language that got worse")],
    workers: Workers = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Find which changed adapter of a release made a language worse: each is put back by itself."""
    project = open_project(config, override, allow_code, task)
    with interruptible(), progress() as listener:
        document = project.blame(release, language, workers=workers, listener=listener)
    if as_json:
        return print_json(document)
    from sabir.report.history import blamed

    print_table(blamed(document))


@app.command(rich_help_panel="Releases")
def export(
    config: ConfigPath,
    out: Annotated[Path, typer.Option("--out", help="a folder that is not there yet")],
    form: Annotated[
        str,
        typer.Option(
            "--as", help="adapter: canonical, for PEFT, vLLM, llama.cpp; model: folded into the base"
        ),
    ] = "adapter",
    release: Annotated[
        str | None, typer.Option("--release", help="which one (default: the model in use)")
    ] = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Write the model in use for a server."""
    document = open_project(config, override, allow_code, task).export(out, form=form, release=release)
    if as_json:
        return print_json(document)
    say(f"Wrote {document['out']}. Its README.md has the line that serves it.")
