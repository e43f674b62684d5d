"""A slice of a data folder: the first rows of each split of each language.

Usage: python examples/slice_phpdoc.py SOURCE OUT [TRAIN VALID TEST]
"""

import itertools
import sys
from pathlib import Path

LANGUAGES = ("en", "de", "fr", "ja", "zh")


def main(source: Path, out: Path, sizes: dict[str, int]) -> None:
    for language, (split, size) in itertools.product(LANGUAGES, sizes.items()):
        lines = (source / language / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        target = out / language / f"{split}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(lines[:size]), encoding="utf-8")


if __name__ == "__main__":
    wanted = [int(number) for number in sys.argv[3:6]] or [400, 40, 100]
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(zip(("train", "valid", "test"), wanted, strict=True)))
