"""Rows of each state that an adapter may be in, and texts of each kind that it may meet."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STATES = (
    "before",
    "short",
    "new",
    "foreign",
)  # what an adapter has learnt: at first; and with rows of a drift
PLAIN = "plain"
KNOWN = {
    "zh": ("hotels", "clothes", "fruit")
}  # kinds of product that an adapter is first trained on; of the others:
USUAL = ("books", "music")
OTHER = {
    "de": "en",
    "en": "de",
    "fr": "en",
    "ja": "en",
}  # the language of foreign texts; zh has no kinds in common
NEW = {"zh": "tablets"}  # the kind that comes within the year
LATER = "dvd"
CHARACTERS = {"ja": 80, "zh": 60}  # a review is cut to; the others:
MOST = 200
UNSPACED = ("ja", "zh")  # languages that write no blanks between words
ROWS = {"train": 400, "valid": 50, "arriving": 150, "reference": 120, "reference, drifted": 60, "pool": 160}
POOL_OF_NEW = 120

Row = Mapping[str, Any]


def short(text: str, language: str) -> str:
    """Four words of the headline, or ten characters of it: all that somebody in a hurry writes."""
    head = text.split("\n")[0]
    return head[:10] if language in UNSPACED else " ".join(head.split()[:4])


def write_rows(reviews: Path, out: Path, language: str) -> None:
    """Write OUT/<state>/<language>/{train,valid,test}.jsonl; test rows are of all texts that a year may draw from, and
    their domain says which.

    No review is in two parts. The new rows that a state learns from are of other reviews than its old ones.
    """
    known, new = _reviews(reviews / language, language)
    parts = {name: [next(known) for _ in range(count)] for name, count in ROWS.items()}
    new_parts = {name: [next(new) for _ in range(ROWS[name])] for name in ("arriving", "reference, drifted")}
    new_parts["pool"] = [next(new) for _ in range(POOL_OF_NEW)]
    shorter = {name: [next(known) for _ in range(ROWS[name])] for name in new_parts}
    drifts = {
        "short": {name: _rows(rows, language, cut=True) for name, rows in shorter.items()},
        "new": {name: _rows(rows, language) for name, rows in new_parts.items()},
    }
    if (other := OTHER.get(language)) is not None:
        foreign, _ = _reviews(reviews / other, other)
        drifts["foreign"] = {
            name: _rows([next(foreign) for _ in range(ROWS[name])], other) for name in new_parts
        }
    for state in ("before", *drifts):
        folder = out / state / language
        arrived = [] if state == "before" else drifts[state]["arriving"]
        tests = [
            *_in("reference/plain", _rows(parts["reference"], language)),
            *_in("production/plain", _rows(parts["pool"], language)),
        ]
        for kind, found in drifts.items():
            if state in ("before", kind):
                tests += _in(f"reference/{kind}", found["reference, drifted"])
                tests += _in(f"production/{kind}", found["pool"])
        _write(folder / "train.jsonl", [*_rows(parts["train"], language), *arrived])
        _write(folder / "valid.jsonl", _rows(parts["valid"], language))
        _write(folder / "test.jsonl", tests)


def _reviews(folder: Path, language: str) -> tuple[Iterator[Row], Iterator[Row]]:
    """Reviews of the known kinds and of the new one, in a random order, each text once."""
    found: dict[str, Row] = {}
    for split in ("train", "valid", "test"):
        for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["input"], row)
    rows = list(found.values())
    random.Random(0).shuffle(rows)
    known, new = KNOWN.get(language, USUAL), NEW.get(language, LATER)
    return (row for row in rows if row["domain"] in known), (row for row in rows if row["domain"] == new)


def _rows(reviews: Sequence[Row], language: str, *, cut: bool = False) -> list[dict[str, Any]]:
    limit = CHARACTERS.get(language, MOST)
    return [
        {
            "id": row["id"],
            "input": short(row["input"], language) if cut else row["input"][:limit],
            "output": row["domain"],
        }
        for row in reviews
    ]


def _in(domain: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**row, "domain": domain} for row in rows]


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Files as they are to be; those that are there already keep their time, so that nothing is read again."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
