"""Tables of the store: what can go, what is damaged, where forgotten rows still lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sabir.report.tables import Document, Table
from sabir.report.words import by_number, counted, listed, releases_named, size

Row = Mapping[str, Any]

MOST_NAMES = 4
MOST_RELEASES = 12
MADE = "made of it"


def junk(document: Document) -> Table:
    """What nothing stands on any more, by kind, the largest first."""
    kinds: dict[str, list[Row]] = {}
    for row in document["junk"]:
        kinds.setdefault(row["what"], []).append(row)
    by_size = sorted(kinds.items(), key=lambda kind: -_bytes(kind[1]))
    rows = tuple(
        (
            what,
            f"{len(found):,}",
            size(_bytes(found)),
            listed(sorted({row["name"] for row in found}), MOST_NAMES),
        )
        for what, found in by_size
    )
    total = size(document["freed_bytes"])
    if not rows:
        note = "Nothing to free: releases and the last runs stand on all of it."
    elif document["dry_run"]:
        note = f"{total} would be freed; nothing was deleted."
    else:
        note = f"{total} freed."
    return Table("Not needed any more", ("what", "how many", "size", "names"), rows, (note,))


def _bytes(rows: list[Row]) -> int:
    return sum(row["size_bytes"] for row in rows)


def damaged(document: Document) -> Table:
    """The steps whose files are not what they were when they were made."""
    rows = tuple(
        (row["name"], row["kind"], row["what"], row["fingerprint"][:12]) for row in document["damaged"]
    )
    note = f"{len(rows):,} of {counted(document['checked'], 'step')} read are damaged; the next run makes them again."
    if not rows:
        note = f"{counted(document['checked'], 'step')} read: nothing is damaged."
    return Table("Damage", ("step", "kind", "what", "fingerprint"), rows, (note,))


def copies(document: Document) -> Table:
    """Where rows that are to be forgotten were found, and which results in the store still hold them."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in document["copies"]:  # rows and adapters by name, what was made of them by kind
        family = row["name"].partition("/")[0]
        of_its_own = row["what"] != MADE or family == "merged"
        found.setdefault((row["what"], row["name"] if of_its_own else family), []).append(row)
    rows = tuple(
        (
            what,
            name,
            f"{len(group):,}",
            ", ".join(by_number(row["release"] for row in group if row["release"])),
            listed([row["fingerprint"][:12] for row in group], MOST_NAMES),
        )
        for (what, name), group in sorted(found.items(), key=lambda each: (each[0][0] == MADE, each[0]))
    )
    places = [f"{row['language']} {row['split']} {row['id']} ({row['place']})" for row in document["rows"]]
    notes = [f"Forgotten: {listed(places, MOST_NAMES, '; ')}."] if places else []
    releases = [row["release"] for row in document["copies"] if row["release"]]
    if not rows:
        notes.append("Nothing in the store holds a forgotten row.")
    elif document["purged"]:
        notes.append(f"{counted(len(document['copies']), 'copy', 'copies')} purged.")
    else:
        old = counted(len(document["copies"]), "old copy", "old copies")
        notes.append(f"{old} in the store; --purge deletes them.")
    if releases:
        verb = "can no longer be gone back to" if document["purged"] else "would be lost with them"
        notes.append(f"{releases_named(releases, MOST_RELEASES)} {verb}.")
    return Table(
        "Copies in the store", ("what", "step", "how many", "release", "fingerprints"), rows, tuple(notes)
    )
