"""Answers kept by content: what a model with these very weights once answered to these very tokens.

answers/<model>/<digest>.json   one file per step that answered something new, named by the digest of its bytes

Neither names nor paths enter a key, so a model that was trained again under its old name finds nothing of its
predecessor's. A file is never changed; one that is not what its name says is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from sabir.work.questions import Question

FORMAT = 1  # raise it when the same tokens and weights are answered otherwise
READ_BYTES = 1 << 26  # of one model, the newest files first: some 400,000 answers
DIGITS = 32  # of a row's key: two of a billion rows share one with a probability of 1e-21
CONFIGS = ("adapter_config.json", "config.json")
LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "vllm")


def model_key(folder: Path | None, base: str) -> str:
    """The folder below answers/ of a model: a digest of its weights and config.

    Args:
        folder: of an adapter or a whole model; None is the bare base.
        base: the identity of the base.
    """
    if folder is None:
        return _digest(["base", base])
    files = {}
    for path in folder.iterdir():
        if _decides(path.name):
            with open(path, "rb") as file:
                files[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digest(files)


def model_keys(records: Iterable[Mapping[str, Any]], base: str) -> set[str]:
    """The folders below answers/ of the bare base and of every model among some steps' records."""
    found = {model_key(None, base)}
    for record in records:
        files = {name: file["sha256"] for name, file in record.get("files", {}).items() if _decides(name)}
        if any(name in CONFIGS for name in files):
            found.add(_digest(files))
    return found


class Answers:
    """The answers of one model, read when first asked for; new ones are kept by `save`.

    An answer is what a model gives before it is put into words: `scores` in the order of the options, or `text`.

    Args:
        folder: the folder answers/ of a store; None: nothing is kept.
        model: see `model_key`.
        settings: of the step: what of them decides an answer enters the keys.
        device: "cpu" or "cuda".
    """

    def __init__(self, folder: Path | None, *, model: str, settings: Mapping[str, Any], device: str):
        self._folder = None if folder is None else folder / model
        written = {key: settings.get(key) for key in ("max_new_tokens", "generator")}
        made_by = [settings.get("base"), device, platform.machine(), _versions()]
        self._common = _digest([FORMAT, made_by, written])
        self._known: dict[str, Any] | None = None
        self._new: dict[str, Any] = {}

    def get(self, question: Question) -> dict[str, Any] | None:
        """What was answered to it, bit for bit, or None."""
        if self._folder is None:
            return None
        if self._known is None:
            self._known = dict(_read(self._folder))
        return self._known.get(self._key(question))

    def add(self, question: Question, answer: Mapping[str, Any]) -> None:
        """Keep an answer that is not there yet."""
        self._new[self._key(question)] = dict(answer)

    def save(self) -> None:
        """Write what was added, aside and then by one rename: a reader sees all of it or none."""
        if self._folder is None or not self._new:
            return
        data = json.dumps(self._new, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        path = self._folder / f"{hashlib.sha256(data).hexdigest()}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            aside.write_bytes(data)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        self._new = {}

    def _key(self, question: Question) -> str:
        return _digest([self._common, question.digest])[:DIGITS]


def _read(folder: Path) -> Iterator[tuple[str, Any]]:
    """Every answer in a model's folder, the newest files' last, up to `READ_BYTES` of them."""
    for path in reversed(list(_newest(folder))):
        try:
            data = path.read_bytes()
        except OSError:  # swept meanwhile
            continue
        if hashlib.sha256(data).hexdigest() == path.stem:
            yield from json.loads(data).items()


def _newest(folder: Path) -> Iterator[Path]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    status = entry.stat()
                    found.append((status.st_mtime_ns, entry.name, status.st_size))
    except OSError:  # nothing was kept, or it is being swept
        return
    left = READ_BYTES
    for _, name, size_bytes in sorted(found, reverse=True):
        left -= size_bytes
        if left < 0:
            return
        yield folder / name


def _decides(name: str) -> bool:
    """Whether a file of a model's folder decides what it answers."""
    return name in CONFIGS or (name.endswith(".safetensors") and "/" not in name)


@cache
def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
