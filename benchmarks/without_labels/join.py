"""The keyphrase sets of one language in one folder, each row with its `domain`; rows that sabir refuses are left out.

Of each set 150 training and 100 test rows a language at most: generation takes the time of this study.

Usage: python benchmarks/without_labels/join.py SOURCE OUT
"""

import json
import sys
from pathlib import Path

SPLITS = {"train": 150, "valid": 50, "test": 100}  # rows of one set at most


def usable(row: dict) -> bool:
    return not any(";" in phrase for phrase in row["output"])


def main(source: Path, out: Path) -> None:
    languages = sorted({folder.name for data in source.iterdir() for folder in data.iterdir()})
    for language in languages:
        for split, most in SPLITS.items():
            kept = []
            for data in sorted(source.iterdir()):
                place = data / language / f"{split}.jsonl"
                lines = place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
                rows = [row for row in map(json.loads, lines) if usable(row)]
                kept += [{**row, "id": f"{data.name}-{row['id']}"} for row in rows[:most]]
            place = out / language / f"{split}.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            place.write_text(text, encoding="utf-8")
            print(f"{language}/{split}: {len(kept)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
