"""A slice of a data folder: the first usable rows of each split of each language.

Rows with a choice that is there twice, and phrases that hold a semicolon, are left out and counted: sabir refuses them.
With --group, rows get a `group` from their id: rows of one document then count as one witness in every interval.

Usage: python examples/slice_data.py SOURCE OUT --languages en,de --rows 400,40,100 [--group 'c3-[a-z]+-[a-z]+-\\d+']
"""

import argparse
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

SPLITS = ("train", "valid", "test")


def usable(row: dict) -> bool:
    """Whether sabir takes the row."""
    choices = [choice.strip() for choice in row.get("choices", ())]
    phrases = row["output"] if isinstance(row["output"], list) else []
    return len(set(choices)) == len(choices) and not any(";" in phrase for phrase in phrases)


def rows_of(path: Path, group: str | None) -> Iterator[dict | None]:
    """The rows of a file; None for one that is not taken."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if group and (found := re.match(group, row["id"])):
            row["group"] = found[0]
        yield row if usable(row) else None


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("source", type=Path)
    asked.add_argument("out", type=Path)
    asked.add_argument("--languages", required=True, help="en,de,fr")
    asked.add_argument("--rows", default="1000000,1000000,1000000", help="of train, valid and test at most")
    asked.add_argument("--group", help="what of an id names its document, as a regular expression")
    given = asked.parse_args()
    sizes = dict(zip(SPLITS, map(int, given.rows.split(",")), strict=True))
    for language, split in itertools.product(given.languages.split(","), SPLITS):
        rows = list(rows_of(given.source / language / f"{split}.jsonl", given.group))
        kept = [row for row in rows if row is not None][: sizes[split]]
        place = given.out / language / f"{split}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8"
        )
        if refused := rows.count(None):
            print(f"{language}/{split}: {refused} of {len(rows)} rows left out")


if __name__ == "__main__":
    main()
