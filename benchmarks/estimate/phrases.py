"""Keyphrase lists of a model and five members, from texts to the agreement of all pairs: time and memory.

    python benchmarks/estimate/phrases.py FOLDER [--rows 100000] [--fresh]

FOLDER holds keyphrase data: .../<language>/<split>.jsonl with `output`, a list of phrases or one text. Rows are drawn
from its documents, languages as often as they come. A member's list is the document's own with some phrases left out,
some cut short and some of other documents of the language put in, so that lists agree about as far as those of real
models do; the mean agreement is printed. With --fresh every row's own phrases end in a number that no other row has: as
if no two documents had a phrase in common. What is measured is `all_agreements` alone, in this process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from pathlib import Path

import numpy as np

from sabir.metrics.agreement import all_agreements

MEMBERS = 5


def documents(folder: Path) -> dict[str, list[list[str]]]:
    """By language the lists of phrases of all documents."""
    found: dict[str, list[list[str]]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                output = json.loads(line)["output"]
                phrases = output if isinstance(output, list) else output.split(";")
                found.setdefault(path.parent.name, []).append([phrase.strip() for phrase in phrases])
    return found


def answer(rng: random.Random, gold: list[str], others: list[list[str]]) -> str:
    """What a model might say of a document."""
    said = []
    for phrase in gold:
        fate = rng.random()
        if fate < 0.55:
            said.append(phrase)
        elif fate < 0.75:
            said.append(" ".join(phrase.split()[1:]) or phrase[1:] or phrase)
    said += [rng.choice(rng.choice(others)) for _ in range(rng.randrange(4))]
    rng.shuffle(said)
    return "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--fresh", action="store_true", help="no phrase twice among rows")
    arguments = parser.parse_args()
    lists = documents(arguments.folder)
    rng = random.Random(0)
    drawn: dict[str, list[list[str]]] = {language: [] for language in lists}
    for language in rng.choices(list(lists), [len(one) for one in lists.values()], k=arguments.rows):
        gold = rng.choice(lists[language])
        if arguments.fresh:
            number = len(drawn[language])
            gold = [f"{phrase} {number}" for phrase in gold]
        drawn[language].append([answer(rng, gold, lists[language]) for _ in range(1 + MEMBERS)])
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    agreements = []
    for language, rows in drawn.items():
        if rows:
            model, *members = map(list, zip(*rows, strict=True))
            found = all_agreements(model, members, answer="phrases", language=language)
            agreements.append(np.concatenate(found, axis=1))
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    whole = np.concatenate(agreements)
    distinct = sum(len({one for row in rows for one in row}) for rows in drawn.values())
    written = sum(one.count(";") + 1 for rows in drawn.values() for row in rows for one in row)
    print(
        f"{len(whole)} rows of {1 + MEMBERS} lists in {', '.join(drawn)}: {distinct} different lists, {written} "
        f"phrases; {whole.shape[1]} agreements a row, {whole.mean():.3f} on average"
    )
    print(
        f"{wall:.1f} s ({after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.1f} s of one processor), "
        f"{after.ru_maxrss / 1e3:.0f} MB at most, of which {before.ru_maxrss / 1e3:.0f} MB are the lists"
    )


if __name__ == "__main__":
    main()
