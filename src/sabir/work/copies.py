"""Which folders of the store still hold a copy, or a trace, of a row that is forgotten."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sabir.work.outputs import read_answers
from sabir.work.prepare import read_examples
from sabir.work.rows import DIGITS, read_rows
from sabir.work.sources import SPLITS, Forgotten, hash_of


def holding(folder: Path, kind: str, forgotten: Collection[Forgotten]) -> bool:
    """Whether what a finished step wrote itself goes back to one of these rows, of its own languages.

    Of a `data` step the rows, by id or text; of an `adapter` what it was trained on, by text (an adapter that
    does not say what that was counts as one that does); of `outputs` the answers, by id. What stands on such
    a step (merges, scores) is not looked at.
    """
    if kind == "data":
        return bool(splits_holding(folder, forgotten))
    if kind == "adapter":
        lines = read_rows(folder)
        starts = {one.text[:DIGITS] for one in forgotten if one.text is not None}
        return lines is None or any(line.split()[1] in starts for line in lines)
    if kind == "outputs":
        ids = {one.id for one in forgotten}
        return any(hash_of(answer["id"]) in ids for answer in read_answers(folder))
    return False


def splits_holding(folder: Path, forgotten: Collection[Forgotten]) -> list[str]:
    """The splits in the folder of a `data` step that hold one of these rows, by id or text."""
    ids = {one.id for one in forgotten}
    texts = {one.text for one in forgotten}
    return [
        split
        for split in SPLITS
        if (folder / f"{split}.jsonl").is_file()
        and any(
            hash_of(row.id) in ids or hash_of(row.prompt.source) in texts
            for row in read_examples(folder, split)
        )
    ]
