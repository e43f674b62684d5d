"""Tables of quality: every model on every language, and what the comparisons allow to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sabir.report.tables import Document, Table
from sabir.report.words import difference, listed, metric_name, p_value, percent, score, signed, with_interval

BASELINES = {
    "adapter/combined": "the combined adapter",
    "adapter/continued": "the combined adapter, continued",
}


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
    own = {model for model in models if model.startswith("adapter/") and model not in BASELINES}
    rows: list[tuple[str, list[float | None], str]] = []
    for model in models:
        if model in own:
            continue
        values = [_value(scores.get((model, language))) for language in languages]
        rows.append((_model_name(model, document), values, with_interval(scores.get((model, "macro")))))
    if own:
        values = [_value(scores.get((f"adapter/{language}", language))) for language in languages]
        scored = [value for value in values if value is not None]
        mean = score(sum(scored) / len(scored)) if len(scored) == len(values) else ""
        rows.insert(1, ("each language's own adapter", values, mean))
    cells = tuple((name, *map(score, values), mean) for name, values, mean in rows)
    strong = set()
    for column in range(len(languages)):
        known = [values[column] for _, values, _ in rows if values[column] is not None]
        for number, (_, values, _) in enumerate(rows):
            if known and values[column] == max(known):  # type: ignore[type-var]
                strong.add((number, column + 1))
    n = max(row["n"] for key, row in scores.items() if key[1] != "macro")
    level = next(iter(scores.values()))["level"]
    return Table(
        title=f"Quality: {metric_name(metric)}, up to {n} test rows a language (bold: best of its column)",
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
        known = {"base": "the bare base model", **BASELINES}
        other = known.get(row["b"], "each language's own adapter")
        found = _VERDICTS[row["verdict"]].format(row["margin"])
        sentences.append(
            f"{selected} against {other}: {signed(row['difference'])} on average "
            f"[{signed(row['low'])}, {signed(row['high'])}], so {found}."
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
            f"({metric_name(search['metric'])} {score(chosen['value'])}) has {'; '.join(words)}."
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
            difference(row),
            p_value(row["p"]),
            row["verdict"],
        )
        for row in document["comparisons"]
    )
    margins = {row["margin"] for row in document["comparisons"]}
    notes = [f"Not worse: not worse by more than {margin:g} (gate.max_drop)." for margin in margins]
    notes.append("The p-values of one pair are corrected over its languages (Holm).")
    title = f"Differences in {metric_name(document['metric'])} on test rows, paired by row"
    return Table(title, ("a", "b", "language", "a - b", "p", "verdict"), rows, tuple(notes))


def matrix(document: Document, split: str = "test") -> Table:
    """Every score there is: each model on each language, every metric, with its interval."""
    rows = tuple(
        (
            row["model"],
            row["language"],
            row["metric"],
            with_interval(row),
            str(row["n"]),
            str(row["unscored"]),
        )
        for row in document["scores"]
        if row["split"] == split
    )
    return Table(f"Scores on {split} rows", ("model", "language", "metric", "score", "n", "unscored"), rows)


# --- what a new release changed --------------------------------------------------------------------------


def changed(document: Document) -> Table | None:
    """What a new model does to every language the release before it serves, and to the mean; None without one.

    A language has moved where its corrected p-value is below 1 - level; of the others nothing can be said but
    that a drop as large as the last column would most likely have shown.
    Args:
        document: `changes` (rows of the step of that name) and `level`; `reasons` of the gate where it has spoken.
    """
    changes = document["changes"]
    if not changes:
        return None
    level = document["level"]
    rows = tuple(
        (
            _of_mean(row["language"]) + ("" if row.get("served", True) else " (new)"),
            score(row["old"]),
            score(row["new"]),
            difference(row),
            p_value(row["p"]),
            _move(row, level),
            percent(row["changed"]),
            "?" if row["detectable"] is None else f"{row['detectable']:.3f}",
        )
        for row in changes
    )
    first = changes[0]
    heads = ("old", "new", "new - old", "p", "moved", "answers changed", "drop it would show")
    return Table(
        f"{first['a']} against {first['b']}: {metric_name(first['metric'])} on test rows, paired by row",
        ("language", *heads),
        rows,
        (*_moves(changes, level), *document.get("reasons", ())),
    )


def _of_mean(language: str) -> str:
    return "mean" if language == "macro" else language


def _move(row: Mapping[str, Any], level: float) -> str:
    if row["p"] is None or row["p"] >= 1 - level:
        return ""
    return "up" if row["difference"] > 0 else "down"


def _moves(changes: Sequence[Mapping[str, Any]], level: float) -> list[str]:
    """Which languages moved and which cannot be said to have, a sentence each."""
    languages = [row for row in changes if row["language"] != "macro"]
    sentences = []
    for way, verb in (("down", "fell"), ("up", "rose")):
        moved = [
            f"{row['language']} from {score(row['old'])} to {score(row['new'])}"
            for row in languages
            if _move(row, level) == way
        ]
        if moved:
            sentences.append(f"Significantly {verb}: {listed(moved, 8)}.")
    still = [row["language"] for row in languages if not _move(row, level)]
    if still:
        which = "any language" if len(still) == len(languages) else listed(still, 8)
        sentences.append(f"No significant change in {which}.")
    if languages and all(row["changed"] == 0 for row in languages):
        sentences.append("Both give the same answer to every row.")
    sentences.append(
        f"p: corrected over languages (Holm), significant below {1 - level:.2g}. The last column: the smallest "
        "true drop that these rows would show in four of five cases."
    )
    return sentences


def _value(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else row["value"]


def _model_name(model: str, document: Document) -> str:
    if model == document["selected"]:
        return f"{model}  <- selected"
    return {
        "base": "bare base model",
        "adapter/combined": "combined: one adapter on all data",
        "adapter/continued": "combined, continued on new rows",
    }.get(model, model)
