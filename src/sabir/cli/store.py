"""The verbs of the store: why a step runs, what may go, what is damaged, what must be forgotten."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sabir.cli.app import AllowCode, AsJson, ConfigPath, Override, TaskName, app, open_project
from sabir.cli.printing import print_json, print_table, say

DAMAGED = 1  # exit code of `verify` when it found something


@app.command(rich_help_panel="Store")
def why(
    config: ConfigPath,
    step: Annotated[str, typer.Argument(metavar="STEP", help="a step's name, as sabir plan --json has it")],
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Say why a step runs again: what of its identity differs, down to where the change began."""
    document = open_project(config, override, allow_code, task).why(step)
    if as_json:
        return print_json(document)
    from sabir.report.plans import why as table

    print_table(table(document))


@app.command(rich_help_panel="Store")
def gc(
    config: ConfigPath,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be freed")] = False,
    keep_runs: Annotated[
        int, typer.Option("--keep-runs", min=0, help="how many of the last runs keep what they made")
    ] = 3,
    override: Override = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Free what neither releases nor the last runs stand on; the ledger stays."""
    document = open_project(config, override, allow_code).gc(dry_run=dry_run, keep_runs=keep_runs)
    if as_json:
        return print_json(document)
    from sabir.report.care import junk

    print_table(junk(document))


@app.command(rich_help_panel="Store")
def verify(
    config: ConfigPath, override: Override = None, allow_code: AllowCode = False, as_json: AsJson = False
) -> None:
    """Read every file of the store again; what is damaged is put aside, and the next run makes it anew."""
    from sabir.progress import module_count

    document = open_project(config, override, allow_code).verify(
        on_step=module_count("verifying", sys.stderr)
    )
    if as_json:
        print_json(document)
    else:
        from sabir.report.care import damaged

        print_table(damaged(document))
        if document["damaged"]:
            say(f"It is put aside. Make it again with: sabir run {config}")
    if document["damaged"]:
        raise typer.Exit(DAMAGED)


@app.command(rich_help_panel="Store")
def forget(
    config: ConfigPath,
    rows: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROW...", help="ids or whole texts; none: those forgotten before"),
    ] = None,
    language: Annotated[str | None, typer.Option("--language", help="look in this language only")] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="delete the store's copies, and all that was made of them")
    ] = False,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Leave rows out from now on, as if they had never been there; list the old copies, or purge them."""
    document = open_project(config, override, allow_code, task).forget(
        rows or (), language=language, purge=purge
    )
    if as_json:
        return print_json(document)
    from sabir.report.care import copies

    print_table(copies(document))
