"""From a language's files to rendered rows: what is asked, and the gold answer, per split."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sabir.errors import InputError, SabirError, raise_all
from sabir.tasks import Prompt, Row, Task, make_task
from sabir.work import Outcome, Work
from sabir.work.sources import SHOWN, Source, read_splits, without_forgotten

KEPT_TARGETS = 200  # the longest in bytes is not always the longest in tokens


@dataclass(frozen=True)
class Example:
    """A row as the model meets it: the prompt, the gold answer, and the answers to choose among where it has its own.

    `group` names what it has in common with other rows (a document), `domain` what it is about; "" where nothing is
    said.
    """

    id: str
    prompt: Prompt
    target: str
    options: tuple[str, ...] = ()
    group: str = ""
    domain: str = ""

    @property
    def characters(self) -> int:
        """Length of prompt and answer together."""
        return len(self.prompt.text) + len(self.target)

    @property
    def digest(self) -> str:
        """Content of the row as it is trained on: its id, its group, its domain and its options are left out."""
        parts = (self.prompt.before, self.prompt.source, self.prompt.after, self.target)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Summary:
    """What a plan needs to know of one language's rows, without keeping them.

    Per split: `digests` (order-free; ids, groups, domains and options enter those of valid and test, and not train's),
    `rows`, `characters`. `overlap` counts texts that are in train and in test; `longest_targets`
    are the longest training answers, and the longest choices of all rows, (bytes of UTF-8, place, text), the
    longest first; `longest_frame` is the longest prompt without its text, in the same form; `forgotten` counts
    the rows that were left out.
    """

    digests: Mapping[str, str]
    rows: Mapping[str, int]
    characters: Mapping[str, int]
    overlap: int
    longest_targets: tuple[tuple[int, str, str], ...]
    longest_frame: tuple[int, str, str]
    forgotten: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Summary:
        return cls(
            **{
                **value,
                "longest_targets": tuple(map(tuple, value["longest_targets"])),
                "longest_frame": tuple(value["longest_frame"]),
            }
        )


def load(source: Source, task: Task, *, only_test: bool = False) -> tuple[dict[str, list[Example]], Summary]:
    """Rendered rows by split, in an order that depends on their content alone, and their summary.

    Args:
        only_test: of a language without an adapter: other rows are neither asked for nor read.
    Forgotten rows are left out before anything else is looked at. Raises InputErrors for every wrong row.
    """
    splits: dict[str, list[Example]] = {}
    errors: list[InputError] = []
    targets: list[tuple[int, str, str]] = []
    frame = (0, "", "")
    remaining, forgotten = without_forgotten(source, read_splits(source))
    needed = (
        ("test",) if only_test else ("train", "valid", "test") if "train" in remaining else ("valid", "test")
    )
    for split, rows in remaining.items():
        wrong = 0
        examples = []
        for place, row in rows:
            try:
                examples.append(_render(row, task))
            except ValueError as error:
                wrong += 1
                if wrong <= SHOWN:
                    errors.append(InputError(place, str(error)))
                continue
            alone = examples[-1].prompt.before + examples[-1].prompt.after
            frame = max(frame, (len(alone.encode()), place, alone))
            answers = examples[-1].options or ((examples[-1].target,) if split == "train" else ())
            if answers:
                longest = max(answers, key=lambda answer: len(answer.encode()))
                targets.append((len(longest.encode()), place, longest))
        if wrong > SHOWN:
            rest = "1 more row is" if wrong == SHOWN + 1 else f"{wrong - SHOWN} more rows are"
            errors.append(InputError(f"{source.language}/{split}", f"{rest} wrong likewise."))
        splits[split] = sorted(examples, key=lambda example: (example.digest, example.id))
    raise_all(errors)
    _check_not_empty(source, splits, needed)
    return splits, _summary(splits, targets, frame, forgotten)


def _render(row: Row, task: Task) -> Example:
    return Example(row.id, task.prompt(row), task.target(row), task.options(row), row.group, row.domain)


def _check_not_empty(source: Source, splits: Mapping[str, Sequence[Example]], needed: Sequence[str]) -> None:
    errors = []
    for split in needed:
        if not splits.get(split):
            errors.append(
                InputError(
                    f"data.{source.language}",
                    f"there are no {split} rows (read: {source.places}).",
                    f"Add a {split} file, or more rows.",
                )
            )
    raise_all(errors)


def _summary(
    splits: Mapping[str, Sequence[Example]],
    targets: list[tuple[int, str, str]],
    frame: tuple[int, str, str],
    forgotten: int,
) -> Summary:
    train = {example.prompt.source for example in splits.get("train", ())}
    return Summary(
        digests={split: _digest(examples, judged=split != "train") for split, examples in splits.items()},
        rows={split: len(examples) for split, examples in splits.items()},
        characters={split: sum(e.characters for e in examples) for split, examples in splits.items()},
        overlap=sum(example.prompt.source in train for example in splits["test"]),
        longest_targets=tuple(heapq.nlargest(KEPT_TARGETS, targets)),
        longest_frame=frame,
        forgotten=forgotten,
    )


def _digest(examples: Iterable[Example], *, judged: bool) -> str:
    """Content of a split, order-free: rows that models are judged on also by what pairs and groups them."""
    keys = sorted(example.digest + (_judged_by(example) if judged else "") for example in examples)
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def _judged_by(example: Example) -> str:
    more = [example.options, example.group, *([example.domain] if example.domain else [])]
    return example.id + (json.dumps(more) if any(more) else "")


def prepare(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Step `data`: write each split's rendered rows as JSONL."""
    for work in works:
        source = Source.from_json(work.args["source"])
        splits, summary = load(source, task_of(work), only_test="valid" not in work.settings)
        if dict(summary.digests) != dict(work.settings):
            raise SabirError(
                f"data.{source.language}", "the files changed while the run began.", "Run again."
            )
        for split, examples in splits.items():
            write_examples(work.out, split, examples)
        yield work.name, {"result": {"rows": dict(summary.rows), "overlap": summary.overlap}}


def task_of(work: Work) -> Task:
    """The task that a step is told of in its `args`: name, settings, and the folder of the user's own code."""
    told = work.args["task"]
    code = told.get("code")
    return make_task(told["name"], told["settings"], code=Path(code) if code else None)


def write_examples(folder: Path, split: str, examples: Iterable[Example]) -> None:
    """Keep rendered rows as JSONL."""
    with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")


def read_examples(folder: Path, split: str) -> list[Example]:
    """The rendered rows of one split, from the folder of a data step."""
    with open(folder / f"{split}.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [
        Example(
            record["id"],
            Prompt(**record["prompt"]),
            record["target"],
            tuple(record.get("options", ())),
            record.get("group", ""),
            record.get("domain", ""),
        )
        for record in records
    ]
