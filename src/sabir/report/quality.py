"""Tables of quality: every model on every language, and what the comparisons allow to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sabir.names import COMBINED, MACRO
from sabir.report.models import in_one_row, in_table, of_language, training_of
from sabir.report.tables import Document, Table
from sabir.report.verdicts import conclusion, pairs, verdicts
from sabir.report.words import (
    difference,
    listed,
    metric_name,
    number_range,
    p_value,
    percent,
    score,
    with_interval,
)

BEST, TIED = "*", "="
MANY = 12  # languages beyond which the summary stands before them
MOST_MODELS = 6  # by name in one note
_ANSWERS = {
    "empty": "Empty answers",
    "cut": "Answers cut at the length limit",
    "unread": "Answers that are none of the options",
}

Row = Mapping[str, Any]
Scores = Mapping[tuple[str, str], Row]  # by model and language
Column = tuple[str, list[str]]  # its head, and a cell a model


def quality(document: Document, metric: str | None = None) -> Table | None:
    """One row a model, one column a language, on the test rows; None before anything was scored.

    Then the mean over languages, the worst language, and the mean's difference to the combined adapter with its
    verdict, as far as they are known. `*` marks the best of a column, `=` those not significantly worse.
    """
    metric = metric or document["metric"]
    scores = on_split(document, "test", metric)
    languages = [language for language in document["languages"] if any(key[1] == language for key in scores)]
    if not languages:
        return None
    models = in_one_row(model for model, _ in scores)
    marks = _marks(document, metric, scores, models, languages)
    of_languages = _of_languages(scores, models, languages, marks)
    summary = [*_summary(scores, models, languages, marks), *_against_combined(document, metric, models)]
    columns = [*of_languages, *summary] if len(languages) <= MANY else [*summary, *of_languages]
    names = [in_table(model) + ("  <- selected" if model == document["selected"] else "") for model in models]
    heads = ["model", *(head for head, _ in columns)]
    strong = {
        (row, column)
        for column, (_, cells) in enumerate(columns, 1)
        for row, cell in enumerate(cells)
        if _is_marked(cell, BEST)
    }
    n = number_range(row["n"] for (_, language), row in scores.items() if language != MACRO)
    concluded = conclusion(document, metric)
    return Table(
        title=f"Quality: {metric_name(metric)}, {n} test rows a language",
        columns=tuple(heads),
        rows=tuple(zip(names, *(cells for _, cells in columns), strict=True)),
        notes=(
            *([concluded] if concluded else []),
            *verdicts(document, metric),
            _legend(document, metric),
            *_trainings(document),
            *_left_out(scores, models, languages),
            *choices(document),
            *document.get("notes", ()),
        ),
        strong=frozenset(strong),
    )


def on_split(document: Document, split: str, metric: str) -> dict[tuple[str, str], Row]:
    """The scores of a split by model and language, without those of single trainings that have a mean."""
    found = {
        (row["model"], row["language"]): row
        for row in document["scores"]
        if row["split"] == split and row["metric"] == metric
    }
    return {
        (model, language): row
        for (model, language), row in found.items()
        if training_of(model)[1] is None or (training_of(model)[0], language) not in found
    }


def scored(scores: Scores, model: str, language: str) -> float | None:
    """A model's score on a language, of the own adapters that language's; None where there is none."""
    row = scores.get((of_language(model, language), language))
    return None if row is None else row["value"]


def mean_of(scores: Scores, model: str, languages: Sequence[str]) -> Row | None:
    """The row of a model's mean over languages; without one, the plain mean where all of them are scored."""
    if (row := scores.get((model, MACRO))) is not None:
        return row
    values = [scored(scores, model, language) for language in languages]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"value": sum(known) / len(known), "low": None, "high": None}


def _of_languages(
    scores: Scores, models: Sequence[str], languages: Sequence[str], marks: Mapping[tuple[str, str], str]
) -> list[Column]:
    return [
        (
            language,
            [score(scored(scores, model, language)) + marks.get((model, language), "") for model in models],
        )
        for language in languages
    ]


def _summary(
    scores: Scores, models: Sequence[str], languages: Sequence[str], marks: Mapping[tuple[str, str], str]
) -> list[Column]:
    """The mean over languages with its interval, and the worst language where there are several."""
    level = next(iter(scores.values()))["level"]
    means = [
        with_interval(mean_of(scores, model, languages), marks.get((model, MACRO), "")) for model in models
    ]
    columns = [(f"mean [{100 * level:g} % interval]", means)]
    if len(languages) > 1:
        columns.append(("worst", [_worst(scores, model, languages) for model in models]))
    return columns


def _worst(scores: Scores, model: str, languages: Sequence[str]) -> str:
    values = {language: scored(scores, model, language) for language in languages}
    known = {language: value for language, value in values.items() if value is not None}
    if not known:
        return ""
    language = min(known, key=lambda each: known[each])
    return f"{language} {score(known[language])}"


def _against_combined(document: Document, metric: str, models: Sequence[str]) -> list[Column]:
    """The mean's difference to the combined adapter and its verdict; no columns where nothing was held against it."""
    found = {pair.a: pair.mean for pair in pairs(document, metric) if pair.b == COMBINED}
    rows = [found.get(model) for model in models]
    if not any(rows):
        return []
    return [
        ("against combined", [difference(row) if row else "" for row in rows]),
        ("verdict", [row["verdict"] if row else "" for row in rows]),
    ]


def _marks(
    document: Document, metric: str, scores: Scores, models: Sequence[str], languages: Sequence[str]
) -> dict[tuple[str, str], str]:
    """`BEST` and `TIED` by model and language; without standings the largest of a column, and no ties."""
    found: dict[tuple[str, str], str] = {}
    standings = {row["language"]: row for row in document.get("standings", ()) if row["metric"] == metric}
    for language in (*languages, MACRO):
        values = {
            model: value
            for model in models
            if (value := _value(scores, model, language, languages)) is not None
        }
        if language in standings:
            found |= {(model, language): TIED for model in in_one_row(standings[language]["tied"])}
            best = in_one_row([standings[language]["best"]])
        else:
            best = [model for model, value in values.items() if value == max(values.values())]
        found |= {(model, language): BEST for model in best}
    return found


def _value(scores: Scores, model: str, language: str, languages: Sequence[str]) -> float | None:
    if language != MACRO:
        return scored(scores, model, language)
    row = mean_of(scores, model, languages)
    return None if row is None else row["value"]


def _is_marked(cell: str, mark: str) -> bool:
    return cell.partition(" ")[0].endswith(mark)


# --- notes -----------------------------------------------------------------------------------------------


def _legend(document: Document, metric: str) -> str:
    if any(row["metric"] == metric for row in document.get("standings", ())):
        return (
            f"{BEST} the best of its column, {TIED} not significantly worse than it (corrected over models)."
        )
    return f"{BEST} the largest of its column; whether others are worse was not tested."


def _trainings(document: Document) -> list[str]:
    count = document.get("seeds") or 1
    if count < 2:
        return []
    return [f"Each number is the mean of {count} trainings; the intervals hold trainings and rows."]


def _left_out(scores: Scores, models: Sequence[str], languages: Sequence[str]) -> list[str]:
    """What was not scored, and what is wrong with answers, where it is not nothing: a sentence each."""
    shares: dict[str, dict[str, dict[str, float]]] = {}  # by what, model and language
    grouped = []
    for model in models:
        for language in languages:
            row = scores.get((of_language(model, language), language))
            if row is None:
                continue
            rows = row["n"] + row["unscored"] + (row.get("undefined") or 0)
            answers = row.get("answers") or {}
            counts = {
                "Unscored": (row["unscored"], rows),
                **{
                    words: (answers.get(key) or 0, answers.get("rows", rows))
                    for key, words in _ANSWERS.items()
                },
            }
            for words, (count, of) in counts.items():
                if count:
                    shares.setdefault(words, {}).setdefault(model, {})[language] = count / of
            if (row.get("groups") or row["n"]) < row["n"]:
                grouped.append((language, row["n"], row["groups"]))
    sentences = [
        f"{words}: {listed([_shares(model, found) for model, found in by_model.items()], MOST_MODELS, '; ')}."
        for words in ("Unscored", *_ANSWERS.values())
        if (by_model := shares.get(words))
    ]
    if sources := [f"{language} {n} of {groups}" for language, n, groups in dict.fromkeys(grouped)]:
        sentences.append(
            f"Rows that share a source count as one there: {listed(sources, MOST_MODELS)} sources."
        )
    return sentences


def _shares(model: str, by_language: Mapping[str, float]) -> str:
    """ "bare base model 40.0 % of ja, 2.0 % of de and 3 more": the languages where it is most."""
    most = sorted(by_language, key=lambda language: -by_language[language])
    return f"{in_table(model)} {listed([f'{percent(by_language[one])} of {one}' for one in most], 3)}"


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


# --- every score, every comparison -----------------------------------------------------------------------


def compared(document: Document) -> Table:
    """The comparisons of a document, a row a language: differences with their intervals, and what follows."""
    found = document["comparisons"]
    rows = tuple(
        (
            row["a"],
            row["b"],
            row["language"],
            difference(row),
            p_value(row["p"]),
            row["verdict"],
            "?" if row.get("detectable") is None else score(row["detectable"]),
        )
        for row in found
    )
    notes = [
        f"Not worse: not worse by more than {margin:g} (gate.max_drop)."
        for margin in dict.fromkeys(row["margin"] for row in found)
    ]
    notes.append("The p-values of one pair are corrected over its languages (Holm).")
    notes.append(
        "The last column: the smallest true difference that these rows would show in four of five cases."
    )
    refused: dict[str, list[str]] = {}
    for row in found:
        if row.get("why"):
            refused.setdefault(f"{row['a']} against {row['b']}: {row['why']}", []).append(row["language"])
    notes += [f"{listed(languages, 8)}: {why}" for why, languages in refused.items()]
    metric = next((row["metric"] for row in document["comparisons"]), document["metric"])
    title = f"Differences in {metric_name(metric)} on test rows, paired by row"
    heads = ("a", "b", "language", "a - b", "p", "verdict", "would show")
    return Table(title, heads, rows, tuple(notes))


def matrix(document: Document, split: str = "test", *, signatures: bool = False) -> Table:
    """Every score there is: each model on each language, every metric, with its interval.

    Columns that would say the same in every row (sources, undefined rows, seeds) are left out.
    Args:
        signatures: with what each score stands on (metric, words, labels, versions), in a last column.
    """
    found = [row for row in document["scores"] if row["split"] == split]
    optional: dict[str, list[str]] = {}
    if any(row.get("groups") not in (None, row["n"]) for row in found):
        optional["sources"] = ["" if row.get("groups") is None else str(row["groups"]) for row in found]
    if any(row.get("undefined") for row in found):
        optional["undefined"] = [str(row.get("undefined") or 0) for row in found]
    if len({row.get("seed") for row in found}) > 1:
        optional["seed"] = ["mean" if row.get("seed") is None else str(row["seed"]) for row in found]
    if signatures:
        optional["signature"] = [row.get("signature") or "" for row in found]
    rows = tuple(
        (
            row["model"],
            row["language"],
            row["metric"],
            with_interval(row),
            str(row["n"]),
            str(row["unscored"]),
            *(cells[at] for cells in optional.values()),
        )
        for at, row in enumerate(found)
    )
    heads = ("model", "language", "metric", "score", "n", "unscored", *optional)
    return Table(f"Scores on {split} rows", heads, rows)


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
