"""The verb `show`: quality, time and cost as they stand, as tables, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sabir.cli.app import AllowCode, AsJson, ConfigPath, Override, TaskName, app, open_project
from sabir.cli.printing import print_json, print_shown, print_task, results, say
from sabir.errors import InputError, raise_all

if TYPE_CHECKING:
    from sabir.report.tables import Table

Document = Mapping[str, Any]


@dataclass(frozen=True)
class _Wanted:
    """What is to be shown; the fields are the options of the verb."""

    scores: bool
    metric: str | None
    steps: bool
    compare: tuple[str, str] | None
    analysis: bool
    changes: bool
    costs: bool
    since: str | None

    @property
    def summary(self) -> bool:
        """Whether nothing was asked for by name."""
        return not (self.scores or self.steps or self.compare or self.analysis or self.changes or self.costs)


@app.command()
def show(
    config: ConfigPath,
    scores: Annotated[
        bool, typer.Option("--scores", help="every model on every language, all metrics")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="by this metric only, as macro_f1 (default: the one that selects; with --scores all)",
        ),
    ] = None,
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
        bool, typer.Option("--csv", help="print the rows of --scores, --compare or --costs as CSV")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the tables as Markdown")] = False,
    override: Override = None,
    allow_code: AllowCode = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Show quality, time and cost as they stand."""
    wanted = _Wanted(scores, metric, steps, compare, analysis, changes, costs, since)
    _check_forms({"--csv": csv, "--markdown": markdown, "--json": as_json}, wanted)
    document = open_project(config, override, allow_code, task).show(
        compare=compare, metric=metric if compare else None, since=since
    )
    if as_json:
        return print_json(document)
    from sabir.project.tasks import parts
    from sabir.report.tables import markdown as as_markdown

    documents = parts(document)
    if metric is not None:
        _must_be_scored(documents, metric)
    if csv:
        return say(_csv(document, wanted).rstrip("\n"))
    if markdown:
        texts = [
            as_markdown([shown]) if not isinstance(shown, str) else f"{shown}\n"
            for name, one in documents
            for shown in (*([f"## {name}"] if name else []), *_shown(one, wanted))
        ]
        return say("\n".join(texts).rstrip("\n"))
    for name, one in documents:
        print_task(name)
        if one["run"]["id"] is None:
            say(f"Nothing has been run yet. Start with: sabir run {config}")
            continue
        for shown in _shown(one, wanted):
            print_shown(shown)
        if one["pending"]:
            say(f"{one['pending']} steps are missing or out of date. See why: sabir plan {config}")


def _check_forms(forms: Mapping[str, bool], wanted: _Wanted) -> None:
    """Refuse two forms of one thing, and options that do not go with the others."""
    asked = [form for form, given in forms.items() if given]
    if len(asked) > 1:
        raise InputError(asked[0], f"and {asked[1]} are two forms of one thing.", "Keep one of them.")
    if wanted.since is not None and not wanted.costs:
        raise InputError("--since", "goes with --costs.", "Add it.")
    if wanted.metric is not None and not (wanted.scores or wanted.compare or wanted.summary):
        found = "goes with --scores, --compare, or the table of quality."
        raise InputError("--metric", found, "Leave it out.")
    rows = [wanted.scores, wanted.compare is not None, wanted.costs]
    if forms["--csv"] and sum(rows) != 1:
        raise InputError("--csv", "goes with one of --scores, --compare and --costs.", "Add that one.")


def _must_be_scored(documents: Sequence[tuple[str | None, Document]], metric: str) -> None:
    """Raise for each task that has scores and none by this metric; tasks that have it are named."""
    scored = {name: list(dict.fromkeys(row["metric"] for row in one["scores"])) for name, one in documents}
    alone = next(
        (f" Or show one task: --task {name}." for name in scored if name and metric in scored[name]), ""
    )
    errors = []
    for name, known in scored.items():
        if known and metric not in known:
            from sabir.catalog import did_you_mean

            fix = f"There are: {', '.join(known)}.{did_you_mean(metric, known)}{alone}"
            where = "--metric" if name is None else f"{name}: --metric"
            errors.append(InputError(where, f"there are no scores by {metric!r}.", fix))
    raise_all(errors)


def _csv(document: Document, wanted: _Wanted) -> str:
    """The rows that were asked for; those of several tasks together."""
    if wanted.costs:
        from sabir.report.money import csv_text

        return csv_text(document["costs"])
    from sabir.report.sheets import comparisons_csv, scores_csv

    if wanted.compare is not None:
        return comparisons_csv(document)
    return scores_csv(_by(document, wanted.metric))


def _by(document: Document, metric: str | None) -> Document:
    """The document with the scores by one metric only; None: all of them."""
    if metric is None:
        return document
    return {**document, "scores": [row for row in document["scores"] if row["metric"] == metric]}


def _shown(document: Document, wanted: _Wanted) -> Iterator[Table | str]:
    """The tables of one task that were asked for, and sentences where there is nothing to show."""
    from sabir.report.plans import ran
    from sabir.report.quality import changed, compared

    if wanted.summary:
        yield from results(document) if wanted.metric is None else _of_quality(document, wanted.metric)
    if wanted.scores:
        yield from _of_scores(_by(document, wanted.metric))
    if wanted.steps:
        yield ran(document)
    if wanted.compare:
        yield compared(document)
    if wanted.changes:
        table = changed(document)
        yield (
            table
            or "Nothing to hold against: there is no release yet, or the selected merge is the one in use."
        )
    if wanted.costs:
        yield from _of_costs(document, wanted.since)
    if wanted.analysis and document["analysis"]:
        from sabir.report.analysis import tables

        yield from tables(document["analysis"])
    elif wanted.analysis:
        yield "The adapters were not analyzed yet: that takes two languages and a merge, and a run."


def _of_quality(document: Document, metric: str) -> Iterator[Table]:
    from sabir.report.quality import quality
    from sabir.report.stress import stress

    yield from (table for table in (quality(document, metric), stress(document, metric)) if table is not None)


def _of_scores(document: Document) -> Iterator[Table]:
    """A table for the test rows, and one for each other set that models were judged on."""
    from sabir.report.quality import matrix

    splits = dict.fromkeys(row["split"] for row in document["scores"] if row["split"] != "valid")
    yield from (matrix(document, split) for split in sorted(splits, key=lambda split: split != "test"))


def _of_costs(document: Document, since: str | None) -> Iterator[Table | str]:
    from sabir.report.money import costs, savings

    tables = [table for table in (costs(document, since), savings(document, since)) if table is not None]
    if not tables:
        yield "No run is that young."
    yield from tables
