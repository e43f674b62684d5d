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
from sabir.errors import InputError, SabirError, Stopped

if TYPE_CHECKING:
    from sabir.report.tables import Table

INTERRUPTED = 130
KEPT_WHOLE = 22  # columns up to this width are not folded: numbers, intervals, short names
_SPLITS = ("train", "valid", "test")

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
WithBaseline = Annotated[
    bool,
    typer.Option(
        "--with-baseline",
        help="train the combined baseline again if its data changed (else the old one stands in)",
    ),
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

    with _interruptible(), _progress() as listener:
        play(directory, show=_show_scene, listener=listener, workers=workers)


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
        _warn(warning)
    for language, counts in document["rows"].items():
        splits = ", ".join(f"{counts[split]:,} {split}" for split in _SPLITS if split in counts)
        _say(f"{language}: {splits} rows")
    _say(f"{config} is fine; its base is {document['base']['name']}. See what would run: sabir plan {config}")


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

    for warning in document["warnings"]:
        _warn(warning)
    _print_table(planned(document))


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
    project = _project(config, [*(override or []), *([f"run.backend={backend}"] if backend else [])])
    with _interruptible(), _progress() as listener:
        document = project.run(with_baseline=with_baseline, workers=workers, listener=listener, warn=_warn)
    if as_json:
        return _print_json(document)
    if document["run"]["id"] is None:
        _say("Nothing to do: everything is up to date.\n")
    _print_results(document)


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
    document = _project(config, override).show(compare=compare)
    if as_json:
        return _print_json(document)
    if document["run"]["id"] is None:
        return _say(f"Nothing has been run yet. Start with: sabir run {config}")
    from sabir.report.tables import compared, matrix, ran

    for wanted, table in ((scores, matrix), (steps, ran), (compare, compared)):
        if wanted:
            _print_table(table(document))
    if analysis and document["analysis"]:
        _print_analysis(document["analysis"])
    elif analysis:
        _say("The adapters were not analyzed yet: that takes two languages and a merge, and a run.")
    if not (scores or steps or compare or analysis):
        _print_results(document)
    if document["pending"]:
        _say(f"{document['pending']} steps are missing or out of date. See why: sabir plan {config}")


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
        _say(answer["prediction"])


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
        with _interruptible(), _nothing_written():
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
        return _print_json(document)
    if analyze:
        _print_analysis(document["analysis"])
    if out is not None:
        for warning in document["warnings"]:
            _warn(warning)
        _say(_merged(document))


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
            metavar="WHAT", help="methods, spaces, dialects, recipes, presets, tasks, metrics or backends"
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """List what a config can name, with settings and sources."""
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
        _say(f"sabir {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error of the user's is a sentence, never a traceback."""
    try:
        code = app(standalone_mode=False, prog_name="sabir")
    except SabirError as error:
        sys.exit(_complain(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if type(error).__name__ == "Abort":  # Ctrl-C, as older versions of typer say it
            code = INTERRUPTED
        elif hasattr(error, "format_message"):  # typer's own: a wrong option, a missing argument
            error.show(sys.stderr)  # type: ignore[attr-defined]
            code = 2
            if "--json" in sys.argv:
                _print_errors([InputError("", error.format_message())])
        else:
            raise
    if code == INTERRUPTED:
        _complain(Stopped("", "stopped; what was finished is kept, and the next run goes on from there."))
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: SabirError) -> int:
    if "--json" in sys.argv:
        _print_errors(error.problems())
    for one in error.problems():
        print(one, file=sys.stderr)
    return error.exit_code


def _print_errors(errors: Sequence[SabirError]) -> None:
    """The error document: the first one, and all of them."""
    problems = [
        {"kind": one.kind, "where": one.where, "message": one.message, "fix": one.fix} for one in errors
    ]
    _print_json({"error": problems[0], "errors": problems})


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
    """A line on standard output. A reader that has seen enough (`sabir show | head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(warning: str) -> None:
    print(f"warning: {warning}", file=sys.stderr)


def _print_json(document: Mapping[str, Any]) -> None:
    _say(json.dumps(document, ensure_ascii=False, indent=1))


def _print_results(document: Mapping[str, Any]) -> None:
    from sabir.report.tables import costs, quality

    for table in (quality(document), costs(document)):
        if table is not None:
            _print_table(table)


def _print_table(table: Table) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    console = _console()
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    widest = [max(map(cell_len, cells)) for cells in zip(*table.rows, strict=True)] or [0] * len(
        table.columns
    )
    kept = [width if width <= KEPT_WHOLE else None for width in widest]
    if sum((width or 8) + 2 for width in kept) > console.width:  # else the table would be cut off
        kept = [None] * len(kept)
    for name, width in zip(table.columns, kept, strict=True):
        drawn.add_column(name, overflow="fold", min_width=width)
    for i, row in enumerate(table.rows):
        drawn.add_row(
            *(Text(cell, style="bold green" if (i, j) in table.strong else "") for j, cell in enumerate(row))
        )
    with console.capture() as captured:
        console.print(drawn)
        for note in table.notes:
            console.print(Text(note))
    _say("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def _console() -> Any:
    """A console as wide as the terminal; wide enough for every table where there is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def _show_scene(title: str, text: str, document: Mapping[str, Any] | None) -> None:
    """One scene of the demo: a heading, a few sentences, and the tables when there are any."""
    from rich.rule import Rule

    console = _console()
    with console.capture() as captured:
        if title:
            console.print()
            console.print(Rule(title, align="left", style="bold cyan"))
        console.print(text)
    _say(captured.get().rstrip("\n"))
    if document is not None:
        _print_results(document)


def _print_analysis(analysis: Mapping[str, Any]) -> None:
    from sabir.report.analysis import tables

    for table in tables(analysis):
        _print_table(table)


@contextmanager
def _progress() -> Iterator[Any]:
    """What draws a run on standard error; taken off the screen however the run ends."""
    from sabir.progress import Progress

    progress = Progress(sys.stderr)
    try:
        yield progress
    finally:
        progress.close()
