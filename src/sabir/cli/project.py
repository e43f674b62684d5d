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
    Yes,
    agreement,
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
    as_json: AsJson = False,
) -> None:
    """Say what would run and why, and what it would take; run nothing."""
    project = open_project(config, override)
    if what_if is not None:
        return _print_what_if(project.what_if(_added(what_if), devices=_numbers(devices)), as_json)
    if devices is not None:
        raise InputError(
            "--devices", "goes with --what-if.", "Where a run runs is a matter of run: and --workers."
        )
    document = project.plan(with_baseline=with_baseline)
    if as_json:
        return print_json(document)
    from sabir.report.plans import planned

    for warning in document["warnings"]:
        warn(warning)
    print_table(planned(document))


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
    as_json: AsJson = False,
) -> None:
    """Do what is missing: train, merge, score, select. Ctrl-C once saves and stops; the next run goes on."""
    project = open_project(config, [*(override or []), *([f"run.backend={backend}"] if backend else [])])
    with interruptible(), progress() as listener:
        document = project.run(
            with_baseline=with_baseline, workers=workers, listener=listener, warn=warn, agree=agreement(yes)
        )
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
    changes: Annotated[
        bool, typer.Option("--changes", help="the selected merge against the current release, by language")
    ] = False,
    costs: Annotated[
        bool, typer.Option("--costs", help="time and money of every run, and what it saved so far")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="DATE", help="costs from this date, run's number or id on"),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="print the rows of --costs as CSV and nothing else")
    ] = False,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Show quality, time and cost as they stand."""
    if csv and as_json:
        raise InputError("--csv", "and --json are two forms of one thing.", "Keep one of them.")
    if (since is not None or csv) and not costs:
        raise InputError("--csv" if csv else "--since", "goes with --costs.", "Add it.")
    document = open_project(config, override).show(compare=compare, since=since)
    if csv:
        from sabir.report.money import csv_text

        return say(csv_text(document["costs"]).rstrip("\n"))
    if as_json:
        return print_json(document)
    if document["run"]["id"] is None:
        return say(f"Nothing has been run yet. Start with: sabir run {config}")
    from sabir.report.plans import ran
    from sabir.report.quality import changed, compared, matrix

    for wanted, table in ((scores, matrix), (steps, ran), (compare, compared), (changes, changed)):
        if wanted:
            print_table(table(document))
    if changes and not document["changes"]:
        say("Nothing to hold against: there is no release yet, or the selected merge is the one in use.")
    if costs:
        _print_costs(document, since)
    if analysis and document["analysis"]:
        print_analysis(document["analysis"])
    elif analysis:
        say("The adapters were not analyzed yet: that takes two languages and a merge, and a run.")
    if not (scores or steps or compare or analysis or changes or costs):
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


def _print_costs(document: dict, since: str | None) -> None:
    from sabir.report.money import costs, savings

    tables = [costs(document, since), savings(document, since)]
    if not any(tables):
        say("No run is that young.")
    for table in tables:
        print_table(table)


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
