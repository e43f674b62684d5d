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
        scored = [value for value in values if value is not None]
        mean = _score(sum(scored) / len(scored)) if len(scored) == len(values) else ""
        rows.insert(1, ("each language's own adapter", values, mean))
    cells = tuple((name, *map(_score, values), mean) for name, values, mean in rows)
    strong = set()
    for column in range(len(languages)):
        known = [values[column] for _, values, _ in rows if values[column] is not None]
        for number, (_, values, _) in enumerate(rows):
            if known and values[column] == max(known):  # type: ignore[type-var]
                strong.add((number, column + 1))
    n = max(row["n"] for key, row in scores.items() if key[1] != "macro")
    level = next(iter(scores.values()))["level"]
    return Table(
        title=f"Quality: {_metric_name(metric)}, up to {n} test rows a language (bold: best of its column)",
        columns=("model", *languages, f"mean [{100 * level:g} % interval]"),
        rows=cells,
        notes=(*verdicts(document), *choices(document), *document.get("notes", ())),
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
        found = _VERDICTS[row["verdict"]].format(row["margin"])
        sentences.append(
            f"{selected} against {other}: {_signed(row['difference'])} on average "
            f"[{_signed(row['low'])}, {_signed(row['high'])}], so {found}."
        )
    return sentences


def choices(document: Document) -> list[str]:
    """What each search settled on, a sentence each."""
    sentences = []
    for name, search in document.get("searches", {}).items():
        chosen = search["chosen"]
        words = [f"{setting} {value:g}" for setting, value in chosen["settings"].items()]
        if chosen["weights"] is not None:
            by_language = (f"{language} {weight:.3g}" for language, weight in chosen["weights"].items())
            words.append(f"weights {', '.join(by_language)}")
        sentences.append(
            f"{name}: of {len(search['trials'])} merges tried on validation rows the best "
            f"({_metric_name(search['metric'])} {_score(chosen['value'])}) has {'; '.join(words)}."
        )
    return sentences


_VERDICTS = {
    "better": "it is better",
    "not worse": "it is not worse by more than {:g}",
    "worse": "it is worse",
    "undecided": "these rows cannot decide whether it is worse by {:g}",
}


def compared(document: Document) -> Table:
    """The comparisons of a document, a row a language: differences with their intervals, and what follows."""
    rows = tuple(
        (
            row["a"],
            row["b"],
            row["language"],
            f"{_signed(row['difference'])} [{_signed(row['low'])}, {_signed(row['high'])}]",
            "?" if row["p"] is None else f"{row['p']:.3f}",
            row["verdict"],
        )
        for row in document["comparisons"]
    )
    margins = {row["margin"] for row in document["comparisons"]}
    notes = [f"Not worse: not worse by more than {margin:g} (gate.max_drop)." for margin in margins]
    notes.append("The p-values of one pair are corrected over its languages (Holm).")
    title = f"Differences in {_metric_name(document['metric'])} on test rows, paired by row"
    return Table(title, ("a", "b", "language", "a - b", "p", "verdict"), rows, tuple(notes))


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


_PHASES = {"setup": "set-up", "update": "update", "add": "new language", "none": "other"}
_WORK = {
    ("combined", "train"): "train: combined",
    ("merged", "train"): "train: by language",
    ("merged", "merge"): "  merge",
    ("merged", "search"): "  choose (valid)",
    ("merged", "evaluate"): "  evaluate the rest",
    ("combined", "evaluate"): "  evaluate combined",
}


def costs(document: Document) -> Table | None:
    """Set-up and updates by both routes, in the layout of the paper; None before anything has run.

    Three clocks: a device for every job, as many devices as the run had, and one device. A run that failed or
    was stopped is added to the one that went on from it.
    """
    rows: list[tuple[str, ...]] = []
    priced = any(row["usd"] is not None for row in document["costs"])
    groups = [group for group in _tasks(document["costs"]) if _tells(group)]
    several = sorted({row["devices"] for group in groups for row in group if row["devices"] > 1})
    for number, group in enumerate(groups, start=1):
        label = f"{number}. {_PHASES[group[0]['phase']]}"
        if not group[-1]["complete"]:
            label += " (unfinished)"
        cells = {key: _cells(found, bool(several)) for key, found in _summed(group).items()}
        train = [cells.get((route, "train")) for route in ("combined", "merged")]
        lines = []
        for key, name in _WORK.items():
            if key in cells:
                predicted = any((r["route"], r["component"]) == key and not r["measured"] for r in group)
                lines.append((name + (" ~" if predicted else ""), _cost_texts(cells[key], priced)))
            if key == ("merged", "train") and train[0] and train[1]:
                lines.append(("  difference", _changes(train[0], train[1], priced)))
        rows += [(label if line == 0 else "", name, *texts) for line, (name, texts) in enumerate(lines)]
    if not rows:
        return None
    columns = ["run", "work", "a device each", "one device", "device h"]
    notes = ["Clocks: a device for every job at once; one device for all."]
    if several:
        devices = " or ".join(map(str, several))
        columns.insert(3, f"{devices} devices")
        notes = [
            f"Clocks: a device for every job at once; {devices} devices for either route (the one combined "
            "training counted as if it split over them without loss, which sabir does not do); one device."
        ]
    notes.append(
        "By language: an adapter each, then merged. Combined: one adapter on all data. The rest: the bare "
        "base, each language's own adapter, and the merges."
    )
    if any(not row["measured"] for group in groups for row in group):
        notes.append("~ not trained this time: predicted from the speed it was last trained with.")
    if not priced:
        notes.append("No price is set (prices: {usd_per_hour: ...}), so hours are counted and money is not.")
    return Table("Time and cost", (*columns, "USD") if priced else tuple(columns), tuple(rows), tuple(notes))


def _tasks(costs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Cost rows by the task they served: those of a run that did not finish, and of the one that went on."""
    groups: list[list[Mapping[str, Any]]] = []
    for row in costs:
        last = groups[-1][-1] if groups else None
        goes_on = last and not last.get("complete", True) and last["phase"] == row["phase"]
        if last and (last["run"] == row["run"] or goes_on):
            groups[-1].append({"complete": True, **row})
        else:
            groups.append([{"complete": True, **row}])
    return groups


def _tells(group: Sequence[Mapping[str, Any]]) -> bool:
    """False for a run that only merged or scored anew: it compares no routes."""
    return group[0]["phase"] != "none" or any(row["component"] == "train" for row in group)


def _summed(group: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in group:
        sums = found.setdefault((row["route"], row["component"]), {"devices": row["devices"], "usd": None})
        for key in ("wall_s", "wall_s_unlimited", "device_s"):
            sums[key] = sums.get(key, 0.0) + row[key]
        if row["usd"] is not None:
            sums["usd"] = (sums["usd"] or 0.0) + row["usd"]
        if (row["route"], row["component"]) == ("combined", "train"):
            sums["wall_s"] = sums["device_s"] / sums["devices"]  # the best case of one training, see the note
    return found


def _cells(found: Mapping[str, Any], several: bool) -> list[float | None]:
    clocks = [found["wall_s_unlimited"], *([found["wall_s"]] if several else []), found["device_s"]]
    return [*clocks, found["device_s"], found["usd"]]


def _cost_texts(cells: Sequence[float | None], priced: bool) -> tuple[str, ...]:
    *clocks, device_s, money = cells
    hours = (device_s or 0.0) / 3600
    texts = (*map(duration, clocks), f"{hours:.4f}" if hours < 1 else f"{hours:.2f}")
    return (*texts, "" if money is None else f"{money:.4f}") if priced else texts


def _changes(before: Sequence[float | None], after: Sequence[float | None], priced: bool) -> tuple[str, ...]:
    cells = tuple(
        f"{100 * (x / y - 1):+.1f} %" if x is not None and y else ""
        for x, y in zip(after, before, strict=True)
    )
    return cells if priced else cells[:-1]


# --- plan and steps --------------------------------------------------------------------------------------

_FAMILIES = {
    "data": "rows of",
    "adapter": "adapters",
    "adopted": "adapters",
    "merged": "merges",
    "search": "searches of",
    "outputs": "answers",
    "scores": "scores",
    "macro": "scores",
    "select": "selection, comparisons",
    "judge": "selection, comparisons",
    "analysis": "analysis",
}
_ROUTES = {"merged": "one adapter a language, merged", "combined": "retraining the combined adapter"}


def planned(document: Document) -> Table:
    """What a plan would run and why: a line for every training, the rest in one line a kind and status."""
    steps = document["steps"]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for step in steps:
        family = _FAMILIES[step["kind"]]
        alone = step["kind"] in ("adapter", "adopted") and (
            step["status"] == "run" or "older data" in step["why"]
        )
        groups.setdefault((family, step["status"], step["name"] if alone else ""), []).append(step)
    order = list(dict.fromkeys(_FAMILIES.values()))
    rows = []
    for key in sorted(groups, key=lambda key: order.index(key[0])):
        group = groups[key]
        seconds = [
            step["estimated_wall_s"] for step in group if step["kind"] not in ("select", "judge", "analysis")
        ]
        known = [second for second in seconds if second is not None]
        took = "" if key[1] == "reused" else duration(sum(known) if len(known) == len(seconds) else None)
        rows.append((_names(key[0], group), key[1], _reasons(group), took))
    reused = sum(step["status"] == "reused" for step in steps)
    notes = [f"{len(steps) - reused} steps to run, {reused} reused."]
    if reused == len(steps):
        notes = ["Nothing to do: everything is up to date."]
    else:
        notes += _totals(document)
    return Table("Plan", ("steps", "status", "why", "device time"), tuple(rows), tuple(notes))


def _names(family: str, group: Sequence[Mapping[str, Any]]) -> str:
    names = [step["name"] for step in group]
    if len(names) == 1 and group[0]["kind"] in ("adapter", "adopted", "merged", "search"):
        return names[0]
    if group[0]["kind"] in ("data", "adapter", "adopted", "search"):
        return f"{family} {_listed([name.partition('/')[2] for name in names], 8)}"
    if group[0]["kind"] == "merged":
        recipes: dict[str, int] = {}
        for name in names:
            recipe = name.removeprefix("merged/").partition("[")[0]
            recipes[recipe] = recipes.get(recipe, 0) + 1
        words = [recipe + (f" x {count}" if count > 1 else "") for recipe, count in recipes.items()]
        return f"{family} {_listed(words, 8)}"
    return family if group[0]["kind"] in ("select", "judge", "analysis") else f"{family} ({len(names)})"


def _reasons(group: Sequence[Mapping[str, Any]]) -> str:
    """Why the steps of one line run; what comes of other lines' steps is said in general."""
    counts: dict[str, int] = {}
    for step in group:
        for reason in step["why"].split("; ") if group[0]["kind"] != "adapter" else [step["why"]]:
            words = reason.split(" ")
            if len(words) == 2 and words[1] == "changed" and words[0].startswith(("outputs/", "scores/")):
                reason = "their answers changed" if words[0].startswith("outputs/") else "scores changed"
            elif len(words) == 2 and words[1] == "changed" and words[0].startswith("merged/"):
                reason = "merges changed"
            counts[reason] = counts.get(reason, 0) + 1
    often = sorted(counts, key=lambda reason: -counts[reason])
    return _listed(often, 3, "; ")


def _listed(words: Sequence[str], most: int, separator: str = ", ") -> str:
    if len(words) <= most:
        return separator.join(words)
    return f"{separator.join(words[:most])}{separator}and {len(words) - most} more"


def _totals(document: Document) -> list[str]:
    """What set-up takes and what this run takes, by both routes, a sentence each."""
    if all(row["estimated_device_s"] is None for row in document["totals"]):
        return ["How long it takes is not known yet: nothing has been measured in this store."]
    sentences = []
    devices = document.get("devices", 1)
    places = "one device" if devices == 1 else f"{devices} devices"
    for row in document["totals"]:
        if not row["estimated_device_s"] or (row["phase"] == "none" and row["route"] == "combined"):
            continue
        what = {"setup": "All of it from nothing", "update": "This update", "add": "This addition"}.get(
            row["phase"], "This run"
        )
        price = "" if row["estimated_usd"] is None else f", {row['estimated_usd']:.4f} USD"
        by = "" if row["phase"] == "none" else f" by {_ROUTES[row['route']]}"
        sentences.append(
            f"{what}{by}: about {duration(row['estimated_wall_s'])} on {places} "
            f"({duration(row['estimated_device_s'])} of device time{price})."
        )
    return sentences


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
        if step["kind"] in ("adapter", "adopted", "merged", "search")
    ]
    return Table("Steps", ("step", "status", "why", "took", "tokens", "peak memory"), tuple(rows))


# --- words for numbers -----------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min; "?" when unknown."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


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
