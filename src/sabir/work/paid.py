"""Answers of an endpoint kept by content: what was paid for once is not paid for again.

answers/<endpoint>/<time>-<random>.jsonl   one file per process that asked, a line per answer, as it came

A killed process loses nothing that had come: a line is there as soon as its answer is. A line that is not whole is
passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = 1  # raise it when the same text is asked otherwise
DIGITS = 32  # of an answer's key: two of a billion share one with a probability of 1e-21


@dataclass(frozen=True)
class Answer:
    """What an endpoint wrote, whether it was `cut` at the length limit, and what that took; usd None: not known."""

    text: str
    cut: bool
    input_tokens: int
    output_tokens: int
    usd: float | None


def endpoint_key(url: str, model: str) -> str:
    """The folder below answers/ of a model at an endpoint."""
    return _digest(["endpoint", url, model])


def answer_key(text: str, max_tokens: int) -> str:
    """What a question's answer is kept under."""
    return _digest([FORMAT, text, max_tokens])[:DIGITS]


class Paid:
    """The answers of one model at one endpoint, those of other processes too.

    Args:
        folder: of this model, below answers/; None: nothing is kept.
        since: what was paid from then on, in seconds of Unix time, counts in `spent_usd`.
    """

    def __init__(self, folder: Path | None, *, since: float):
        self.spent_usd = 0.0
        self._folder, self._since = folder, since
        self._known: dict[str, Answer] = {}
        self._read: dict[str, int] = {}  # bytes read of the others' files
        self._own = f"{time.time_ns()}-{uuid.uuid4().hex}.jsonl"
        self.look()

    def get(self, key: str) -> Answer | None:
        """What was answered, or None."""
        return self._known.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer, at once."""
        self._take({"key": key, **asdict(answer), "t": time.time()})
        if self._folder is None:
            return
        line = json.dumps({"key": key, **asdict(answer), "t": time.time()}, ensure_ascii=False) + "\n"
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / self._own, "ab", buffering=0) as file:
            file.write(line.encode())

    def look(self) -> None:
        """Read what other processes kept meanwhile."""
        for name, size_bytes in _files(self._folder):
            before = self._read.get(name, 0)
            if name == self._own or size_bytes <= before:
                continue
            assert self._folder is not None
            try:
                with open(self._folder / name, "rb") as file:
                    file.seek(before)
                    data = file.read()
            except OSError:  # swept meanwhile
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._read[name] = before + len(whole)
            for line in whole.splitlines():
                self._take(_line(line))

    def _take(self, line: Mapping[str, Any] | None) -> None:
        if line is None:
            return
        fields = {name: line[name] for name in Answer.__annotations__}
        self._known[line["key"]] = Answer(**fields)
        if line["t"] >= self._since:
            self.spent_usd += line["usd"] or 0.0


def _files(folder: Path | None) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files with answers, by name."""
    try:
        found = [] if folder is None else [(one.name, one.stat().st_size) for one in os.scandir(folder)]
    except OSError:  # nothing was kept, or it is being swept
        return
    yield from sorted(one for one in found if one[0].endswith(".jsonl") and not one[0].startswith("."))


def _line(data: bytes) -> dict[str, Any] | None:
    """A whole line of a file, or None: a disk that was full, or two lines written into one."""
    try:
        line = json.loads(data)
    except ValueError:
        return None
    whole = isinstance(line, dict) and {"key", "t", *Answer.__annotations__} <= line.keys()
    return line if whole else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
