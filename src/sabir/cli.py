"""The command line: the verbs, and the only file that prints."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sabir import __version__
from sabir.errors import InputError, SabirError

if TYPE_CHECKING:
    from sabir.report.tables import Table

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
    typer.Option("--set", metavar="KEY=VALUE", help="a setting in place of the file's, as lora.epochs=5"),
]
WithBaseline = Annotated[
    bool, typer.Option("--with-baseline", help="train the combined baseline again if its data changed")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="jobs side by side (default: one per GPU or core)")
]


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="where to write the project")] = Path(
        "sabir-demo"
    ),
    workers: Workers = None,
) -> None:
    """Write a small five-language project into DIR and run it: no network, no GPU, a few minutes."""
    from sabir.demo.story import play

    with _interruptible():
        play(directory, show=_show_scene, listener=_listener(), workers=workers)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="where to write sabir.yaml")] = Path("."),
) -> None:
    """Write a commented config to start from."""
    from sabir.starter import write

    path = write(directory)
    _say(f"Wrote {path}. Fill in base, task and data, then: sabir check {path}")


@app.command()
def check(config: ConfigPath, override: Override = None, as_json: AsJson = False) -> None:
    """Find everything that can be wrong, before anything heavy starts."""
    document = _project(config, override).check()
    if as_json:
        return _print_json(document)
    for warning in document["warnings"]:
        _say(f"warning: {warning}")
    rows = ", ".join(f"{language} {sum(counts.values())}" for language, counts in document["rows"].items())
    _say(f"{config} is fine. Rows: {rows}. Base: {document['base']['name']}.")


@app.command()
def plan(
    config: ConfigPath,
    with_baseline: WithBaseline = False,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run and why, and what it would take; run nothing."""
    document = _project(config, override).plan(with_baseline=with_baseline)
    if as_json:
        return _print_json(document)
    from sabir.report.tables import planned

    _print_table(planned(document))


@app.command()
def run(
    config: ConfigPath,
    with_baseline: WithBaseline = False,
    workers: Workers = None,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Do what is missing: train, merge, score, select. Ctrl-C once saves and stops; the next run goes on."""
    project = _project(config, override)
    with _interruptible():
        document = project.run(with_baseline=with_baseline, workers=workers, listener=_listener())
    if as_json:
        return _print_json(document)
    if document["run"]["phase"] == "none" and not any(step["status"] == "run" for step in document["steps"]):
        _say("Nothing to do: everything is up to date.")
    _print_results(document)


@app.command()
def show(
    config: ConfigPath,
    scores: Annotated[
        bool, typer.Option("--scores", help="every model on every language, all metrics")
    ] = False,
    steps: Annotated[bool, typer.Option("--steps", help="what each training and merge took")] = False,
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Show quality, time and cost as they stand."""
    document = _project(config, override).show()
    if as_json:
        return _print_json(document)
    if scores or steps:
        from sabir.report.tables import matrix, ran

        for wanted, table in ((scores, matrix), (steps, ran)):
            if wanted:
                _print_table(table(document))
        return None
    _print_results(document)


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
    answers = _project(config, override).predict(texts)
    if as_json:
        return _print_json({"predictions": answers})
    for answer in answers:
        print(answer["prediction"])


@app.command()
def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="PEFT adapter folders")],
    out: Annotated[Path, typer.Option("--out", help="folder for the merged adapter")],
    recipe: Annotated[str | None, typer.Option("--recipe", help="a named recipe, as ties-knots")] = None,
    method: Annotated[str | None, typer.Option("--method", help="linear, ties, dare or dare_ties")] = None,
    space: Annotated[str | None, typer.Option("--space", help="delta or knots")] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="share of entries kept, above 0 to 1")
    ] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="factor on the merged delta")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of the masks of DARE")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="one per adapter in the order given: 1,0.5,2")
    ] = None,
    rank: Annotated[str | None, typer.Option("--rank", help="exact (the default), or a number")] = None,
    as_json: AsJson = False,
) -> None:
    """Merge any PEFT adapters into one: no config, no base model, no GPU."""
    from sabir.work.merge import merge_folders

    document = merge_folders(
        adapters,
        out=out,
        recipe=recipe,
        method=method,
        space=space,
        settings={
            k: v for k, v in {"density": density, "scale": scale, "seed": seed}.items() if v is not None
        },
        weights=_numbers(weights),
        rank=int(rank) if rank is not None and rank.isdigit() else rank,
        on_module=_module_progress(),
    )
    if as_json:
        return _print_json(document)
    kept = ", ".join(f"{name} {share:.3f}" for name, share in document["energy_kept_by_adapter"].items())
    _say(
        f"Wrote {document['out']}: rank {document['rank']}, {document['modules']} modules, "
        f"{document['parameters']:,} parameters, in {document['wall_s']:.1f} s. "
        f"Energy kept: {document['energy_kept']:.3f} ({kept})."
    )


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="methods, spaces, recipes, tasks, metrics or backends")
    ],
    as_json: AsJson = False,
) -> None:
    """List methods, spaces, recipes, tasks, metrics or backends, with their settings and sources."""
    from sabir.report.catalogue import entries, table

    found = entries(what)
    if as_json:
        return _print_json({what: found})
    _print_table(table(what, found))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version and end")] = False,
) -> None:
    if version:
        print(f"sabir {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error of the user's is a sentence, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except SabirError as error:
        code = _complain(error)
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the next run goes on from there.", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if not hasattr(error, "format_message"):  # a click error: a wrong option or a missing argument
            raise
        error.show(sys.stderr)  # type: ignore[attr-defined]
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: SabirError) -> int:
    if "--json" in sys.argv:
        problems = [
            {"kind": one.kind, "where": one.where, "message": one.message, "fix": one.fix}
            for one in error.problems()
        ]
        _print_json({"error": problems[0], "errors": problems})
    for one in error.problems():
        print(one, file=sys.stderr)
    return error.exit_code


def _project(config: Path, override: Sequence[str] | None) -> Any:
    from sabir.project import Project

    return Project(config, overrides=override or ())


def _lines(file: Path | None) -> list[str]:
    if file is None and sys.stdin.isatty():
        return []
    try:
        text = sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file or "standard input"), f"cannot be read ({error}).") from error
    return [line for line in text.splitlines() if line.strip()]


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            "--weights", f"{text!r} is not a list of numbers.", "Write them as 1,0.5,2."
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does: what runs is saved."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- printing --------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(text)


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1))


def _print_results(document: Mapping[str, Any]) -> None:
    from sabir.report.tables import costs, quality

    for table in (quality(document), costs(document)):
        if table is not None:
            _print_table(table)


def _print_table(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(table.title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left")
    for number, column in enumerate(table.columns):
        drawn.add_column(column, overflow="fold", justify="left" if number == 0 else "default")
    for i, row in enumerate(table.rows):
        drawn.add_row(
            *(Text(cell, style="bold green" if (i, j) in table.strong else "") for j, cell in enumerate(row))
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note))
    console.print()


def _show_scene(title: str, text: str, document: Mapping[str, Any] | None) -> None:
    """One scene of the demo: a heading, a few sentences, and the tables when there are any."""
    from rich.console import Console
    from rich.rule import Rule

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if title:
        console.print()
        console.print(Rule(title, align="left", style="bold cyan"))
    console.print(text)
    if document is not None:
        _print_results(document)


def _module_progress() -> Any:
    """A line on standard error that counts modules; nothing without a terminal."""
    if not sys.stderr.isatty():
        return None

    def show_progress(done: int, total: int) -> None:
        print(
            f"\rmerging: module {done} of {total}",
            end="\n" if done == total else "",
            file=sys.stderr,
            flush=True,
        )

    return show_progress


def _listener() -> Any:
    from sabir.progress import Progress

    return Progress(sys.stderr)
