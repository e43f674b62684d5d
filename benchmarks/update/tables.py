"""The figures of an update as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sabir.report.words import difference, percent, score, signed

COMPONENTS = ("train", "merge", "search", "evaluate", "rest", "whole")
SHARES = ("tokens_share", "train_share", "without_search_share", "whole_share")


def tables(trial: Mapping[str, Any]) -> str:
    """Quality and cost of one seed's update, and the error of the predicted cost."""
    rows, language, found = trial["rows"], trial["language"], trial["prediction"]
    title = f"{language}: {rows['before']:,} training rows, then {rows['after']:,}; seed {trial['seed']}"
    said = (
        f"Training the combined adapter was predicted to take {found['predicted_s']:.1f} s and took "
        f"{found['measured_s']:.1f} s: {percent(found['error'])} off."
    )
    return f"{title}\n\n{_quality(trial['quality'], language)}\n{_costs(trial)}\n{_kinds(trial)}\n{said}\n"


def _quality(rows: Sequence[Mapping[str, Any]], language: str) -> str:
    heads = (
        *("model", language, "to before", "to scratch", "verdict"),
        *("others", "to before", "to scratch"),
    )
    cells = [
        [
            row["name"] + ("" if row["name"].startswith(("own", "combined")) else f" ({row['model']})"),
            score(row["updated"]["score"]),
            _difference(row["updated"]["to_before"]),
            _difference(row["updated"]["to_scratch"]),
            (row["updated"]["to_scratch"] or {}).get("verdict", ""),
            score(row["others"]["score"]),
            _difference(row["others"]["to_before"]),
            _difference(row["others"]["to_scratch"]),
        ]
        for row in rows
    ]
    return _markdown(heads, cells)


def _difference(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return difference(row) if row["low"] is not None else signed(row["difference"])


def _costs(trial: Mapping[str, Any]) -> str:
    heads = (
        *("way", *COMPONENTS, "wall clock", "USD"),
        *("tokens trained on", "train", "whole but search", "whole: of retraining"),
    )
    cells = [
        [
            row["name"],
            *(f"{row[part]:.1f}" for part in COMPONENTS),
            "" if row["wall_s"] is None else f"{row['wall_s']:.1f}",
            f"{row['usd']:.4f}",
            *(percent(row[share]) if share in row else "" for share in SHARES),
        ]
        for row in trial["costs"]
    ]
    return _markdown(heads, cells) + f"\nSeconds on one device; {trial['usd_per_hour']:g} USD an hour.\n"


def _kinds(trial: Mapping[str, Any]) -> str:
    """Where the time of the update from scratch went, by kind of step."""
    rows = {row["name"]: row for row in trial["costs"]}
    scratch, whole = rows["scratch"], rows["retrained"]["whole"]
    cells = [
        [kind, str(row["steps"]), f"{row['device_s']:.1f}", percent(row["device_s"] / whole)]
        for kind, row in scratch["kinds"].items()
    ]
    cells.append(["no step", "", f"{scratch['rest']:.1f}", percent(scratch["rest"] / whole)])
    return _markdown(("kind of step, scratch", "steps", "seconds", "of retraining everything"), cells)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
