"""What a reader should act on before a merge, in sentences, from the document of `analysis.analyze`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sabir.lora.write import SERVED_RANKS

# When a finding is worth a sentence. Ours: round figures for reading, no test of significance.
SAME_SPACE = 0.5  # of the way from the overlap of chance to the same space
ALIKE = 0.5  # cosine from which two language vectors are mostly one
NEARLY_ORTHOGONAL = 0.1  # largest |cosine| at which adapters add up without getting in each other's way
OUTWEIGHS = 2.0  # ratio of norms from which the larger one dominates a sum of equal weights
CONFLICT = 0.1  # share of the magnitude on the losing side from which an election of signs has work to do
LEFT_BEHIND = 0.1  # an adapter keeps this much less of its energy than all together do


def findings(document: Mapping[str, Any]) -> list[str]:
    """What a reader should act on, a sentence each, from a document of `analyze`."""
    adapters, pairs = document["adapters"], document["pairs"]
    sentences = [
        f"{row['name']} is zero: it changes nothing. Leave it out, or train it."
        for row in adapters
        if row["norm"] == 0
    ]
    sentences += [
        f"{row['name']} lacks {_counted(row['missing'], 'module', ' that all others have')}: there it counts as absent."
        for row in adapters
        if row["missing"] and len(adapters) > 1
    ]
    sentences += [
        f"{row['name']} also trained {_counted(row['saved'], 'tensor', ' whole')}: no delta, so "
        "no part of these figures."
        for row in adapters
        if row["saved"]
    ]
    sentences += [
        f"{row['a']} and {row['b']} are one adapter: their content is the same. Leave one out."
        for row in pairs
        if row["same_content"]
    ]
    known = [row for row in pairs if row["cosine"] is not None and not row["same_content"]]
    sentences += [*_of_norms(adapters), *_of_cosines(known), *_of_spaces(known)]
    if any(row["cosine"] is not None for row in pairs):
        sentences += _of_signs(document["signs"])
    return sentences + _of_energy(document)


def _of_norms(adapters: Sequence[Mapping[str, Any]]) -> list[str]:
    sized = sorted((row for row in adapters if row["norm"] > 0), key=lambda row: row["norm"])
    if len(sized) < 2 or sized[-1]["norm"] < OUTWEIGHS * sized[0]["norm"]:
        return []
    small, large = sized[0], sized[-1]
    return [
        f"{large['name']} is {large['norm'] / small['norm']:.3g} times as large as {small['name']} (norms "
        f"{large['norm']:.3g} and {small['norm']:.3g}): with equal weights it outweighs it."
    ]


def _of_cosines(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not pairs:
        return []
    alike = [row for row in pairs if row["cosine"] >= ALIKE]
    opposed = [row for row in pairs if row["cosine"] <= -NEARLY_ORTHOGONAL]
    sentences = []
    if alike:
        told = _some(alike, lambda row: f"{_pair(row)} {row['cosine']:.2f}")
        sentences.append(f"Mostly one direction (cosine): {told}. An average of them keeps most of either.")
    if opposed:
        told = _some(opposed, lambda row: f"{_pair(row)} {row['cosine']:.2f}")
        sentences.append(f"Pull against each other (cosine): {told}. A sum cancels a part of both.")
    largest = max((row["cosine"] for row in pairs), key=abs)
    if abs(largest) < NEARLY_ORTHOGONAL:
        sentences.append(
            f"Language vectors are nearly orthogonal (largest cosine {largest:z.2f}): weights add up rather than "
            "interfere."
        )
    return sentences


def _of_spaces(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    sentences = []
    for side, why in (
        ("inputs", "as adapters do that were started from the same A"),
        ("outputs", "so they write to the same directions"),
    ):
        shared = [
            row
            for row in pairs
            if row[side]["overlap"] is not None
            and row[side]["chance"] < 1
            and row[side]["overlap"] - row[side]["chance"] >= SAME_SPACE * (1 - row[side]["chance"])
        ]
        if shared:
            told = _some(shared, lambda row, side=side: f"{_pair(row)} {row[side]['overlap']:.2f}")  # type: ignore[misc]
            sentences.append(f"Share of their {side[:-1]} space in common: {told}, {why}.")
    return sentences


def _of_signs(signs: Mapping[str, Any]) -> list[str]:
    if signs["conflict"] is None:
        return []
    told = (
        f"Signs conflict at {signs['conflict']:.2f} of positions ({signs['independent_conflict']:.2f} if "
        f"independent), with {signs['losing']:.2f} of the magnitude on the losing side "
        f"({signs['independent_losing']:.2f} if independent and of one size)"
    )
    if signs["losing"] < CONFLICT:
        return [f"{told}: a plain average loses little to it."]
    return [f"{told}: a sum cancels it, an election of signs (TIES) drops it."]


def _of_energy(document: Mapping[str, Any]) -> list[str]:
    energy = document["energy"]
    most = energy["rank_for"][-1]
    if most["total"] is None:
        return []
    sentences = []
    one = max(row["rank"] for row in document["adapters"])
    told = f"Rank {most['total']} is needed to keep {most['share']:g} of the energy"
    kept = {row["rank"]: row for row in energy["kept"]}
    if len(document["adapters"]) > 1 and one < most["total"]:
        told += f"; rank {one}, that of one adapter, keeps {kept[one]['total']:.2f}{_least(kept[one])}"
    sentences.append(f"{told}.")
    served = SERVED_RANKS[-1]
    if energy["rank"] > served:
        sentences.append(
            f"An exact merge has rank {energy['rank']}, above the {served} that vLLM takes: rank {served} keeps "
            f"{kept[served]['total']:.3f}{_least(kept[served])}."
        )
    return sentences


def _least(row: Mapping[str, Any]) -> str:
    """Who is left behind at a rank, in brackets, or nothing."""
    shares = {name: share for name, share in row["by_adapter"].items() if share is not None}
    name = min(shares, key=lambda name: shares[name])
    if shares[name] > row["total"] - LEFT_BEHIND:
        return ""
    return f" (least: {name} {shares[name]:.2f})"


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['a']} and {row['b']}"


def _some(rows: Sequence[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str], most: int = 3) -> str:
    """The first few, and how many more."""
    told = "; ".join(text(row) for row in rows[:most])
    return told if len(rows) <= most else f"{told}; and {len(rows) - most} pairs more"


def _counted(names: Sequence[str], noun: str, which: str) -> str:
    if len(names) == 1:
        return f"1 {noun}{which} ({names[0]})"
    return f"{len(names)} {noun}s{which} ({names[0]}, ...)"
