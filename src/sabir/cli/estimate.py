"""The verbs that judge a model without labels: what its error is now, and which estimator to believe."""

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
    Workers,
    agreement,
    app,
    interruptible,
    open_project,
    progress,
)
from sabir.cli.printing import print_json, print_table, say, warn
from sabir.errors import InputError

ALARMED = 3  # exit code of `estimate --fail-on-alarm` when there is one
SPANS = ("day", "week", "month")

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="whose error, as merged/ties; own: each language's own adapter (default: the model in use)",
    ),
]
Spend = Annotated[
    bool,
    typer.Option("--yes", help="let a judge be paid, up to judge.max_usd, without being asked"),
]


@app.command(rich_help_panel="Without labels")
def estimate(
    config: ConfigPath,
    production: Annotated[
        Path,
        typer.Argument(
            metavar="PRODUCTION",
            help="texts without labels: .jsonl, .csv, .tsv or .parquet with input and language, maybe domain, time, "
            "weight, id",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="labels for some of them: id or input, and output"),
    ] = None,
    choose: Annotated[
        int | None,
        typer.Option("--choose", metavar="N", min=1, help="write N texts to --out that are worth a label"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="where --choose writes them, as JSONL")
    ] = None,
    model: Model = None,
    members: Annotated[
        str | None,
        typer.Option(
            "--members",
            metavar="KIND",
            help="who is asked beside it, as adapters, merges, seeds (default: what the last backtest chose, else all)",
        ),
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(
            "--estimator",
            metavar="NAME",
            help="how the error is estimated, see sabir list estimators (default: what the last backtest chose)",
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--window", metavar="WINDOW", help="part texts by day, week or month, or so many at a time"
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="also show what was estimated before, as a trend")
    ] = False,
    fail_on_alarm: Annotated[
        bool, typer.Option("--fail-on-alarm", help="exit 3 where a language is surely over its budget")
    ] = False,
    yes: Spend = False,
    workers: Workers = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the error of the model in use on texts without labels, by language and domain, and say what to do."""
    _check_choice(choose, out)
    project = open_project(config, override, allow_code, task)
    with interruptible(), progress() as listener:
        document = project.estimate(
            production,
            labels=labels,
            choose=choose,
            out=out,
            model=model,
            members=members,
            estimator=estimator,
            window=_window(window),
            workers=workers,
            listener=listener,
            warn=warn,
            agree=agreement(yes),
        )
    if as_json:
        print_json(document)
    else:
        from sabir.report.estimates import advice, estimates, trend

        print_table(estimates(document))
        print_table(trend(document if history else {**document, "history": []}))
        print_table(advice(document))
        if out is not None:
            say(f"Wrote {out}. Fill in the empty `output` of each text, then add: --labels {out}")
    if fail_on_alarm and any(row["alarm"] for row in document["estimates"]):
        raise typer.Exit(ALARMED)


@app.command(rich_help_panel="Without labels")
def backtest(
    config: ConfigPath,
    model: Model = None,
    members: Annotated[
        list[str] | None,
        typer.Option(
            "--members",
            metavar="KIND",
            help="who is asked beside it, as adapters; may be given several times (default: every kind there is)",
        ),
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="also show what the best one said of each language and domain")
    ] = False,
    yes: Spend = False,
    workers: Workers = None,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Find which estimator to believe: each estimates languages and domains whose labels it does not see."""
    project = open_project(config, override, allow_code, task)
    with interruptible(), progress() as listener:
        document = project.backtest(
            model=model,
            members=members or None,
            workers=workers,
            listener=listener,
            warn=warn,
            agree=agreement(yes),
        )
    if as_json:
        return print_json(document)
    from sabir.report.backtests import backtests
    from sabir.report.backtests import segments as of_segments

    if segments:
        print_table(of_segments(document))
    for table in backtests(document):
        print_table(table)


def _check_choice(choose: int | None, out: Path | None) -> None:
    """Refuse one without the other, and a file that is there: it may hold labels already."""
    if choose is not None and out is None:
        raise InputError("--choose", "needs a file to write to.", "Add --out to-label.jsonl.")
    if out is None:
        return
    if choose is None:
        raise InputError("--out", "goes with --choose.", "Say how many texts: --choose 200.")
    if out.suffix != ".jsonl":
        raise InputError("--out", f"{out} does not end in .jsonl.", "It is written as JSONL: call it so.")
    if not out.absolute().parent.is_dir():
        raise InputError("--out", f"{out.parent} is no folder.", "Make it first, or name another.")
    if out.exists():
        raise InputError("--out", f"{out} is there already.", "Name a new file: it may hold labels.")


def _window(text: str | None) -> str | int | None:
    """A span of time, or a number of texts."""
    if text is None or text in SPANS:
        return text
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    from sabir.catalog import did_you_mean

    fix = f"Write {', '.join(SPANS)} or a number of texts.{did_you_mean(text, SPANS)}"
    raise InputError("--window", f"{text!r} is none.", fix)
