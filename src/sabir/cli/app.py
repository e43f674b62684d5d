"""The application, and what its verbs share: options, the project, an interruption taken in hand."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sabir import __version__
from sabir.cli.printing import say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One LoRA adapter per language, merged into one model; retrain only what changed. Start: sabir demo",
)

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="the project's YAML file", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="a setting in place of the file's, as lora.epochs=5; may be given several times",
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="run functions of your own that the config names, as my.module:task"),
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME", help="one of several tasks of the config (tasks:)"),
]
WithBaseline = Annotated[
    bool,
    typer.Option(
        "--with-baseline",
        help="train the combined baseline again if its data changed (else the old one stands in)",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="go on where a language lost more than half of its rows")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="jobs side by side (default: one per GPU or core)")
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version and end")] = False,
) -> None:
    if version:
        say(f"sabir {__version__}")
        raise typer.Exit


def open_project(
    config: Path, override: Sequence[str] | None, allow_code: bool, task: str | None = None
) -> Any:
    from sabir.project import Project

    return Project(config, overrides=override or (), allow_code=allow_code, task=task)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does: what runs is saved."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress() -> Iterator[Any]:
    """What draws a run on standard error; taken off the screen however the run ends."""
    from sabir.progress import Progress

    progress = Progress(sys.stderr)
    try:
        yield progress
    finally:
        progress.close()


def agreement(yes: bool) -> Callable[[str], bool]:
    """Who is asked: nobody after --yes, the user of a terminal, else it is refused."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return lambda question: yes
    return lambda question: typer.confirm(f"{question} Go on?", err=True)
