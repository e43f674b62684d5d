"""The verbs of a project: set up, check, plan, run, show, predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sabir.cli.app import (
    AsJson,
    ConfigPath,
    Override,
    WithBaseline,
    Workers,
    app,
    interruptible,
    open_project,
    progress,
)
from sabir.cli.printing import print_analysis, print_json, print_results, print_table, say, show_scene, warn
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
def check(config: ConfigPath, override: Override = None, as_json: AsJson = False) -> None:
    """Find everything that can be wrong, before anything heavy starts."""
    document = open_project(config, override).check()
    if as_json:
        return print_json(document)
    for warning in document["warnings"]:
        warn(warning)
    for language, counts in document["rows"].items():
        splits = ", ".join(f"{counts[split]:,} {split}" for split in _SPLITS if split in counts)
        say(f"{language}: {splits} rows")
    say(f"{config} is fine; its base is {document['base']['name']}. See what would run: sabir plan {config}")


@app.command()
def plan(
    config: ConfigPath,
    with_baseline: WithBaseline = False,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run and why, and what it would take; run nothing."""
    document = open_project(config, override).plan(with_baseline=with_baseline)
    if as_json:
        return print_json(document)
    from sabir.report.tables import planned

    for warning in document["warnings"]:
        warn(warning)
    print_table(planned(document))


@app.command()
def run(
    config: ConfigPath,
    with_baseline: WithBaseline = False,
    workers: Workers = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="where jobs run: local or inline (sabir list backends)")
    ] = None,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Do what is missing: train, merge, score, select. Ctrl-C once saves and stops; the next run goes on."""
    project = open_project(config, [*(override or []), *([f"run.backend={backend}"] if backend else [])])
    with interruptible(), progress() as listener:
        document = project.run(with_baseline=with_baseline, workers=workers, listener=listener, warn=warn)
    if as_json:
        return print_json(document)
    if document["run"]["id"] is None:
        say("Nothing to do: everything is up to date.\n")
    print_results(document)


@app.command()
def show(
    config: ConfigPath,
    scores: Annotated[
        bool, typer.Option("--scores", help="every model on every language, all metrics")
    ] = False,
    steps: Annotated[bool, typer.Option("--steps", help="what each training and merge took")] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare", metavar="A B", help="two models on the same test rows, as merged/ties base"
        ),
    ] = None,
    analysis: Annotated[
        bool,
        typer.Option("--analysis", help="how the languages' adapters relate: norms, cosines, signs, energy"),
    ] = False,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Show quality, time and cost as they stand."""
    document = open_project(config, override).show(compare=compare)
    if as_json:
        return print_json(document)
    if document["run"]["id"] is None:
        return say(f"Nothing has been run yet. Start with: sabir run {config}")
    from sabir.report.tables import compared, matrix, ran

    for wanted, table in ((scores, matrix), (steps, ran), (compare, compared)):
        if wanted:
            print_table(table(document))
    if analysis and document["analysis"]:
        print_analysis(document["analysis"])
    elif analysis:
        say("The adapters were not analyzed yet: that takes two languages and a merge, and a run.")
    if not (scores or steps or compare or analysis):
        print_results(document)
    if document["pending"]:
        say(f"{document['pending']} steps are missing or out of date. See why: sabir plan {config}")


@app.command()
def predict(
    config: ConfigPath,
    text: Annotated[
        list[str] | None, typer.Argument(help="texts; none: one a line from --file or stdin")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="a text file, one text a line")] = None,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Answer with the selected merge: texts from the arguments, a file, or standard input."""
    texts = text or _lines(file)
    if not texts:
        raise InputError("predict", "there is no text.", "Give one as an argument, or one a line.")
    answers = open_project(config, override).predict(texts)
    if as_json:
        return print_json({"predictions": answers})
    for answer in answers:
        say(answer["prediction"])


def _lines(file: Path | None) -> list[str]:
    if file is None and sys.stdin.isatty():
        return []
    try:
        text = sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file or "standard input"), f"cannot be read ({error}).") from error
    return [line for line in text.splitlines() if line.strip()]
