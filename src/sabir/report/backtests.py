"""What a backtest found: the document, a table of estimators by how far off they were, and the segments of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sabir.report.tables import Document, Table
from sabir.report.words import counted, metric_name, score, signed

if TYPE_CHECKING:
    from sabir.estimate.backtest import Backtest
    from sabir.estimate.judged import Judged
    from sabir.estimate.summary import Bounds, Summary

Row = Mapping[str, Any]

BEST = "  <- best"
_KEPT = {
    True: "sabir estimate goes by this from now on.",
    False: "Not kept for sabir estimate: another model, or some kinds of members only, were asked about.",
}
LEFT_OUT = {"language": "Languages left out in turn", "domain": "Domains left out in turn"}


def backtest_document(backtest: Backtest, *, model: str, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The `backtest` document: `segments`, `summary`, `best` (null where nothing could be judged), `warnings`."""
    best = backtest.best
    return {
        "model": model,
        "level": backtest.level,
        "segments": [_segment(row) for row in backtest.segments],
        "summary": [_summed(row) for row in backtest.summary],
        "best": None
        if best is None
        else {"estimator": best.estimator, "members": best.members, "why": best.why},
        "warnings": [*warnings, *backtest.warnings],
    }


def backtests(document: Document) -> list[Table]:
    """A table for each way of leaving out: a row an estimator and kind of members, the nearest first.

    Under the last stands whom to trust and why, and what could not be judged.
    """
    folds = list(dict.fromkeys(row["fold"] for row in document["summary"]))
    best = document["best"]
    kept = () if best is None or "kept" not in document else (_KEPT[document["kept"]],)
    last = (*([] if best is None else [best["why"]]), *kept, *document["warnings"])
    if not folds:
        return [Table("Nothing was judged", ("estimator",), (), last)] if last else []
    return [_of_fold(document, fold, last if fold == folds[-1] else ()) for fold in folds]


def segments(document: Document, estimator: str | None = None, members: str | None = None) -> Table | None:
    """Every segment that was left out, by one estimator: estimated beside true error; None where it was not judged.

    Args:
        estimator, members: as in the document; None: the best.
    """
    if estimator is None:
        if document["best"] is None:
            return None
        estimator, members = document["best"]["estimator"], document["best"]["members"]
    rows = [row for row in document["segments"] if (row["estimator"], row["members"]) == (estimator, members)]
    if not rows:
        return None
    columns = {
        "language": [row["language"] for row in rows],
        **({"domain": [row["domain"] for row in rows]} if any(row["domain"] for row in rows) else {}),
        **({"left out": [row["fold"] for row in rows]} if len({row["fold"] for row in rows}) > 1 else {}),
        f"estimated [{100 * document['level']:g} % interval]": [_estimated(row) for row in rows],
        "true": [score(row["true"]) + _outside(row) for row in rows],
        "n": [f"{row['n']:,}" for row in rows],
    }
    notes = []
    if any(_outside(row) for row in rows):
        notes.append("* outside the interval.")
    if near := list(dict.fromkeys(_place(row) for row in rows if row["near_chance"])):
        notes.append(f"{', '.join(near)}: the model is near chance there; its error says nothing.")
    title = f"Estimated and true error: {_named(rows[0])}"
    return Table(title, tuple(columns), tuple(zip(*columns.values(), strict=True)), tuple(notes))


def _of_fold(document: Document, fold: str, last: Sequence[str]) -> Table:
    rows = [row for row in document["summary"] if row["fold"] == fold]
    rows.sort(key=lambda row: (row["mae"] is None, row["mae"]))
    best = document["best"]
    chosen = [
        best is not None
        and (row["estimator"], row["members"], row["labels"]) == (best["estimator"], best["members"], 0)
        for row in rows
    ]
    level = f"[{100 * document['level']:g} % interval]"
    columns = {
        "estimator": [_named(row) + (BEST if yes else "") for row, yes in zip(rows, chosen, strict=True)],
        f"off by {level}": [_mae(row) for row in rows],
        "against constant": [_difference(row["against_constant"]) for row in rows],
        "covers": [_coverage(row) for row in rows],
        "Spearman": ["" if row["spearman"] is None else f"{row['spearman']:+.2f}" for row in rows],
        "regret": [score(row["regret"]) for row in rows],
    }
    if any(row["better_than_silver"] is not None for row in rows):
        columns["better than silver"] = [_share(row["better_than_silver"]) for row in rows]
    return Table(
        f"{LEFT_OUT.get(fold, fold)}: how far off estimates were",
        tuple(columns),
        tuple(zip(*columns.values(), strict=True)),
        (*_floors(rows), *_legend(rows), *last),
        frozenset((at, 0) for at, yes in enumerate(chosen) if yes),
    )


def _floors(rows: Sequence[Row]) -> list[str]:
    """What nobody could fall below, by what was estimated."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["metric"], []).append(row["noise_floor"])
    sentences = []
    for metric, floors in found.items():
        low, high = score(min(floors)), score(max(floors))
        told = low if low == high else f"{low} to {high}"
        of = "" if metric == "error" else f" of 1 - {metric_name(metric)}"
        sentences.append(
            f"Noise floor{of}: {told}. As far test sets of this size are off themselves: only an estimate that looks "
            "at these very texts can be nearer."
        )
    return sentences


def _legend(rows: Sequence[Row]) -> list[str]:
    parts = [
        "Off by: mean of |estimated - true|",
        "covers: share of intervals that hold the truth, of how many",
        "regret: error of the worst language less that of the one held to be worst",
    ]
    if any(row["labels"] for row in rows):
        parts.append("labels: shown to the estimator, of each segment")
    sentences = ["; ".join(parts) + "."]
    if near := [_named(row) for row in rows if row["near_chance"]]:
        who = "everything here" if len(near) == len(rows) else ", ".join(near)
        sentences.append(f"The model is near chance on half of the segments or more: {who} says nothing.")
    return sentences


def _named(row: Row) -> str:
    over = "" if row["members"] is None else f" over {row['members']}"
    shown = f", {counted(row['labels'], 'label')}" if row["labels"] else ""
    told = row.get("told")
    silent = f" ({told} of {row['n']} segments)" if told is not None and told < row["n"] else ""
    return f"{row['estimator']}{over}{shown}{silent}"


def _place(row: Row) -> str:
    return "/".join(part for part in (row["language"], row["domain"]) if part)


def _mae(row: Row) -> str:
    if row["mae"] is None:
        return "?"
    if row["mae_low"] is None or row["mae_high"] is None:
        return score(row["mae"])
    return f"{row['mae']:.3f} [{row['mae_low']:.3f}, {row['mae_high']:.3f}]"


def _difference(found: Row | None) -> str:
    if found is None:
        return ""
    if found["low"] is None or found["high"] is None:
        return signed(found["difference"])
    return f"{signed(found['difference'])} [{signed(found['low'])}, {signed(found['high'])}]"


def _coverage(row: Row) -> str:
    return "" if row["coverage"] is None else f"{row['coverage']:.2f} of {row['intervals']}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:+.0f} %"


def _estimated(row: Row) -> str:
    if row["estimated"] is None:
        return "?"
    if row["low"] is None or row["high"] is None:
        return score(row["estimated"])
    return f"{row['estimated']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _outside(row: Row) -> str:
    held = row["low"] is None or row["high"] is None or row["low"] <= row["true"] <= row["high"]
    return "" if held else "*"


# --- the document ----------------------------------------------------------------------------------------


def _segment(row: Judged) -> dict[str, Any]:
    return {
        "language": row.segment.language,
        "domain": row.segment.domain,
        "estimator": row.estimator,
        "members": row.members,
        "estimated": row.estimated,
        "true": row.true,
        "low": row.low,
        "high": row.high,
        "n": row.n,
        "fold": row.fold,
        "labels": row.labels,
        "metric": row.metric,
        "near_chance": row.near_chance,
    }


def _summed(row: Summary) -> dict[str, Any]:
    mae, better = row.mae, row.better_than_silver
    return {
        "estimator": row.estimator,
        "members": row.members,
        "mae": None if mae is None else mae.value,
        "mae_low": None if mae is None else mae.low,
        "mae_high": None if mae is None else mae.high,
        "noise_floor": row.noise_floor,
        "coverage": row.coverage,
        "intervals": row.intervals,
        "spearman": row.spearman,
        "regret": row.regret,
        "better_than_silver": None if better is None else better.value,
        "better_than_silver_low": None if better is None else better.low,
        "better_than_silver_high": None if better is None else better.high,
        "against_constant": _bounds(row.to_constant),
        "against_raw": _bounds(row.to_raw),
        "against_silver": _bounds(row.to_silver),
        "near_chance": row.near_chance,
        "n": row.n,
        "told": row.told,
        "fold": row.fold,
        "labels": row.labels,
        "metric": row.metric,
    }


def _bounds(found: Bounds | None) -> dict[str, float | None] | None:
    return None if found is None else {"difference": found.value, "low": found.low, "high": found.high}
