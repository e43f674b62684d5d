"""Tables for people, from the documents that programs read. Rounding happens here and nowhere before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, the columns' heads, rows of texts, and what a reader may conclude, a sentence each.

    `strong` names cells to set off, as (row, column).
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    strong: frozenset[tuple[int, int]] = frozenset()


# --- quality ---------------------------------------------------------------------------------------------


def quality(document: Document, metric: str | None = None) -> Table | None:
    """One row a model, one column a language, on the test rows; None before anything was scored."""
    metric = metric or document["metric"]
    scores = {
        (row["model"], row["language"]): row
        for row in document["scores"]
        if row["split"] == "test" and row["metric"] == metric
    }
    if not scores:
        return None
    languages = [language for language in document["languages"] if any(key[1] == language for key in scores)]
    models = list(dict.fromkeys(model for model, _ in scores))
    own = {model for model in models if model.startswith("adapter/") and model != "adapter/combined"}
    rows: list[tuple[str, list[float | None], str]] = []
    for model in models:
        if model in own:
            continue
        values = [_value(scores.get((model, language))) for language in languages]
        rows.append((_model_name(model, document), values, _with_interval(scores.get((model, "macro")))))
    if own:
        values = [_value(scores.get((f"adapter/{language}", language))) for language in languages]
        mean = "" if None in values else _score(sum(values) / len(values))  # type: ignore[arg-type]
        rows.insert(1, ("each language's own adapter", values, mean))
    cells = tuple((name, *map(_score, values), mean) for name, values, mean in rows)
    strong = set()
    for column in range(len(languages)):
        known = [values[column] for _, values, _ in rows if values[column] is not None]
        for number, (_, values, _) in enumerate(rows):
            if known and values[column] == max(known):  # type: ignore[type-var]
                strong.add((number, column + 1))
    n = max(row["n"] for key, row in scores.items() if key[1] != "macro")
    return Table(
        title=f"Quality: {_metric_name(metric)} on test rows (up to {n} a language; bold: best of its column)",
        columns=("model", *languages, "mean [95 % interval]"),
        rows=cells,
        notes=tuple(verdicts(document)) + tuple(document.get("notes", ())),
        strong=frozenset(strong),
    )


def verdicts(document: Document) -> list[str]:
    """What the comparisons of the selected merge allow to say, a sentence each."""
    selected = document["selected"]
    sentences = []
    for row in document["comparisons"]:
        if row["a"] != selected or row["language"] != "macro":
            continue
        other = {
            "adapter/combined": "the combined adapter",
            "base": "the bare base model",
        }.get(row["b"], "each language's own adapter")
        sentences.append(
            f"{selected} against {other}: {_signed(row['difference'])} on average "
            f"[{_signed(row['low'])}, {_signed(row['high'])}], so {_VERDICTS[row['verdict']].format(row['margin'])}."
        )
    return sentences


_VERDICTS = {
    "better": "it is better",
    "not worse": "it is not worse by more than {:g}",
    "worse": "it is worse",
    "undecided": "these rows cannot decide whether it is worse by {:g}",
}


def matrix(document: Document, split: str = "test") -> Table:
    """Every score there is: each model on each language, every metric, with its interval."""
    rows = tuple(
        (
            row["model"],
            row["language"],
            row["metric"],
            _with_interval(row),
            str(row["n"]),
            str(row["unscored"]),
        )
        for row in document["scores"]
        if row["split"] == split
    )
    return Table(f"Scores on {split} rows", ("model", "language", "metric", "score", "n", "unscored"), rows)


# --- time and cost ---------------------------------------------------------------------------------------


def costs(document: Document) -> Table | None:
    """Set-up and updates by both routes, in the layout of the paper; None before anything has run."""
    runs = list(dict.fromkeys(row["run"] for row in document["costs"]))
    rows: list[tuple[str, ...]] = []
    priced = any(row["usd"] is not None for row in document["costs"])
    notes = ["Side by side: a device for every training at once. One device: the same work on a single one."]
    for number, run in enumerate(runs):
        here = [row for row in document["costs"] if row["run"] == run]
        phase = here[0]["phase"]
        if phase == "none" and not any(row["component"] == "train" for row in here):
            continue
        label = {"setup": "set-up", "update": "update", "add": "new language", "none": "other"}[phase]
        found = {(row["route"], row["component"]): row for row in here}
        train = [found.get((route, "train")) for route in ("combined", "merged")]
        for route, row in zip(
            ("retrain all (combined)", "one adapter a language, merged"), train, strict=True
        ):
            if row is not None:
                rows.append((f"{number + 1}. {label}", _route_name(route, row), *_cost_cells(row, priced)))
        if all(train):
            rows.append((f"{number + 1}. {label}", "  change", *_changes(train[0], train[1], priced)))  # type: ignore[arg-type]
        for route in ("combined", "merged"):
            for component in ("merge", "search", "evaluate"):
                if row := found.get((route, component)):
                    name = {
                        "merge": "merging",
                        "search": "choosing on validation",
                        "evaluate": "evaluating on test",
                    }
                    rows.append(
                        (
                            f"{number + 1}. {label}",
                            f"  {name[component]} ({route})",
                            *_cost_cells(row, priced),
                        )
                    )
    if not rows:
        return None
    if any(not row["measured"] for row in document["costs"]):
        notes.append("~ not trained this time: predicted from the speed it was last trained with.")
    if not priced:
        notes.append("No price is set (prices: usd_per_hour), so hours are counted and money is not.")
    columns = ("run", "work", "side by side", "one device", "device hours")
    return Table("Time and cost", (*columns, "USD") if priced else columns, tuple(rows), tuple(notes))


def _route_name(route: str, row: Mapping[str, Any]) -> str:
    return f"train: {route}" + ("" if row["measured"] else " ~")


def _cost_cells(row: Mapping[str, Any], priced: bool) -> tuple[str, ...]:
    cells = (duration(row["wall_s_unlimited"]), duration(row["device_s"]), f"{row['device_s'] / 3600:.4f}")
    return (*cells, "" if row["usd"] is None else f"{row['usd']:.4f}") if priced else cells


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], priced: bool) -> tuple[str, ...]:
    cells = [_percent(before[key], after[key]) for key in ("wall_s_unlimited", "device_s", "device_s")]
    return (*cells, _percent(before["device_s"], after["device_s"])) if priced else tuple(cells)


def _percent(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


# --- plan and steps --------------------------------------------------------------------------------------


def planned(document: Document) -> Table:
    """What a plan would run and why; the rows of answers and scores in one line a model."""
    rows: list[tuple[str, ...]] = []
    steps = document["steps"]
    reused = [step for step in steps if step["status"] == "reused"]
    for step in steps:
        if step["kind"] not in ("outputs", "scores", "macro", "judge", "select"):
            rows.append((step["name"], step["status"], step["why"], duration(step["estimated_wall_s"])))
    for title, kinds in (
        ("answers", ("outputs",)),
        ("scores", ("scores", "macro")),
        ("selection, comparisons", ("select", "judge")),
    ):
        group = [step for step in steps if step["kind"] in kinds]
        todo = [step for step in group if step["status"] == "run"]
        if group:
            seconds = [step["estimated_wall_s"] for step in todo]
            total = None if None in seconds else sum(seconds)
            reasons = list(dict.fromkeys(step["why"] for step in todo))
            why = "; ".join(reasons[:2]) + (
                f"; and {len(reasons) - 2} more reasons" if len(reasons) > 2 else ""
            )
            status = f"run {len(todo)} of {len(group)}" if todo else "reused"
            rows.append(
                (
                    f"{title} ({len(group)})",
                    status,
                    why or "nothing they stand on has changed",
                    duration(total),
                )
            )
    todo = len(steps) - len(reused)
    notes = (
        [f"{len(reused)} steps reused, {todo} to run."]
        if todo
        else ["Nothing to do: everything is up to date."]
    )
    for row in document["totals"]:
        if todo and row["estimated_device_s"] is not None:
            route = "retraining all" if row["route"] == "combined" else "one adapter a language"
            price = "" if row["estimated_usd"] is None else f", {row['estimated_usd']:.4f} USD"
            notes.append(
                f"{row['phase']} by {route}: about {duration(row['estimated_wall_s'])} "
                f"({duration(row['estimated_device_s'])} of device time{price})."
            )
    return Table("Plan", ("step", "status", "why", "takes about"), tuple(rows), tuple(notes))


def ran(document: Document) -> Table:
    """What the last run did with each training and merge."""
    rows = [
        (
            step["name"],
            step["status"],
            step["why"],
            duration(step["wall_s"]),
            _count(step["tokens"]),
            _mib(step["peak_bytes"]),
        )
        for step in document["steps"]
        if step["kind"] in ("adapter", "adopted", "merged")
    ]
    return Table("Steps", ("step", "status", "why", "took", "tokens", "peak memory"), tuple(rows))


# --- words for numbers -----------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min; "?" when unknown."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:,.0f} MiB"


def _value(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else row["value"]


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.3f}"


def _with_interval(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _model_name(model: str, document: Document) -> str:
    if model == document["selected"]:
        return f"{model}  <- selected"
    return {"base": "bare base model", "adapter/combined": "combined: one adapter on all data"}.get(
        model, model
    )


def _metric_name(metric: str) -> str:
    return metric.replace("_", " ")


def markdown(tables: Iterable[Table | None]) -> str:
    """Tables as Markdown, with their notes below."""
    return "\n".join(_markdown(table) for table in tables if table is not None)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rows = [
        [f"**{cell}**" if (i, j) in table.strong else cell for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    body = [
        f"**{table.title}**",
        "",
        line(table.columns),
        line(["---"] * len(table.columns)),
        *map(line, rows),
        "",
    ]
    return "\n".join([*body, *(f"{note}\n" for note in table.notes)])
