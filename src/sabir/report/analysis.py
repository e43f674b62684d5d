"""Tables of what adapters look like before they are merged, from the document of `merging.analysis.analyze`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sabir.report.tables import Document, Table

MOST_PAIRS = 15  # of 6 adapters; of more, the pairs with the largest cosines


def tables(document: Document) -> list[Table]:
    """Adapters, cosines, pairs and energy by rank, a table each; what to act on stands below the last."""
    pairs = [_cosines(document), _pairs(document)] if document["pairs"] else []
    return [_adapters(document), *pairs, _energy(document)]


def _adapters(document: Document) -> Table:
    """A column an adapter: its size, its norm in whole, by layer and by kind of module."""
    adapters = document["adapters"]
    kinds = sorted(
        {kind for row in adapters for kind in row["by_kind"]},
        key=lambda kind: -sum(row["by_kind"].get(kind, 0.0) ** 2 for row in adapters),
    )
    rows = [
        ("rank", *(str(row["rank"]) for row in adapters)),
        ("modules", *(str(row["modules"]) for row in adapters)),
        ("effective rank", *(_number(row["effective_rank"]) for row in adapters)),
        ("norm", *(_number(row["norm"]) for row in adapters)),
        ("smallest layer", *(_layer(row["by_layer"], min) for row in adapters)),
        ("largest layer", *(_layer(row["by_layer"], max) for row in adapters)),
        *((kind, *(_number(row["by_kind"].get(kind)) for row in adapters)) for kind in kinds),
    ]
    return Table(
        "Adapters",
        ("", *(row["name"] for row in adapters)),
        tuple(rows),
        (
            "Norms of the delta: whole, by layer (its number in brackets), by kind of module.",
            document["inputs"]["reading"],
        ),
    )


def _layer(rows: Sequence[Mapping[str, Any]], which: Any) -> str:
    numbered = [row for row in rows if row["layer"] is not None]
    if not numbered:
        return ""
    row = which(numbered, key=lambda row: row["norm"])
    return f"{_number(row['norm'])} ({row['layer']})"


def _cosines(document: Document) -> Table:
    names = [row["name"] for row in document["adapters"]]
    found = {(row["a"], row["b"]): row["cosine"] for row in document["pairs"]}
    rows = tuple(
        (
            a,
            *(_share(found[min(a, b), max(a, b)]) if a != b else "" for b in names),
        )
        for a in names
    )
    return Table("Cosines", ("", *names), rows)


def _pairs(document: Document) -> Table:
    """A row a pair: where its cosine is least and most, which spaces it shares, where its signs conflict."""
    by_size = sorted(document["pairs"], key=lambda row: -abs(row["cosine"] or 0.0))
    shown = [row for row in document["pairs"] if any(row is one for one in by_size[:MOST_PAIRS])]
    rows = [
        (
            f"{row['a']} {row['b']}",
            _layer_range(row["by_layer"]),
            _beside_chance(row["inputs"]),
            _beside_chance(row["outputs"]),
            _with_error(row["signs"], "conflict"),
            _with_error(row["signs"], "losing"),
        )
        for row in shown
    ]
    signs = document["signs"]
    if len(document["adapters"]) > 2:
        together = (_with_error(signs, "conflict"), _with_error(signs, "losing"))
        rows.append(("all", "", "", "", *together))
    notes = [
        "Inputs, outputs: share of row and column space in common (in brackets: by chance). Signs: share of "
        f"{signs['positions']:,} sampled positions where they conflict. Losing: share of magnitude on the side "
        "with less."
    ]
    if len(shown) < len(by_size):
        notes.append(f"{len(by_size) - len(shown)} pairs with smaller cosines are not shown.")
    columns = ("pair", "cosine by layer", "inputs", "outputs", "signs", "losing")
    return Table("Pairs", columns, tuple(rows), tuple(notes))


def _layer_range(rows: Sequence[Mapping[str, Any]]) -> str:
    """The smallest and largest cosine of a layer, with the layers."""
    known = [row for row in rows if row["layer"] is not None and row["cosine"] is not None]
    if not known:
        return ""
    low, high = (which(known, key=lambda row: row["cosine"]) for which in (min, max))
    return f"{low['cosine']:z.2f} ({low['layer']}) to {high['cosine']:z.2f} ({high['layer']})"


def _energy(document: Document) -> Table:
    """A row a rank: the share of energy its output directions hold, in total and of each adapter."""
    names, energy = [row["name"] for row in document["adapters"]], document["energy"]
    rows = [
        (
            str(row["rank"]),
            _share(row["total"]),
            *(_share(row["by_adapter"][name]) for name in names),
        )
        for row in energy["kept"]
        if row["rank"] <= energy["rank"]
    ]
    rows += [
        (
            f"rank for {row['share']:g}",
            *(
                "" if rank is None else str(rank)
                for rank in (row["total"], *map(row["by_adapter"].get, names))
            ),
        )
        for row in energy["rank_for"]
    ]
    return Table(
        "Energy kept by rank",
        ("rank", "total", *names),
        tuple(rows),
        tuple(document["findings"]),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:z.3f}"


def _beside_chance(row: Mapping[str, Any]) -> str:
    return "" if row["overlap"] is None else f"{row['overlap']:.3f} ({row['chance']:.3f})"


def _with_error(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    error = row[f"{name}_standard_error"]
    return f"{row[name]:.3f} ± {error:.3f}" if error else f"{row[name]:.3f}"
