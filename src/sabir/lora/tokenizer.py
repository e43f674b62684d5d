"""The tokenizer beside a model or an adapter: which files it is, and whether two are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sabir.errors import InputError

TOKENIZER = "tokenizer.json"
# What transformers 5 reads of a tokenizer, fast or slow, and of its chat template.
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    TOKENIZER,
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def tokenizer_files(folder: str | Path) -> list[Path]:
    """The tokenizer's files and the chat template in a folder, sorted; empty where there are none."""
    return [path for name in TOKENIZER_FILES if (path := Path(folder) / name).is_file()]


def vocabulary_difference(x: str | Path, y: str | Path) -> str:
    """What differs between the vocabularies two folders bring along; "" when nothing does or one brings none.

    Raises InputError for a tokenizer.json that is no tokenizer.
    """
    files = [Path(folder) / TOKENIZER for folder in (x, y)]
    if not all(file.is_file() for file in files) or files[0].read_bytes() == files[1].read_bytes():
        return ""
    first, second = (_tokens(file) for file in files)
    differing = sorted(
        token for token in first.keys() | second.keys() if first.get(token) != second.get(token)
    )
    if not differing:
        return ""
    token = differing[0]
    return (
        f"their tokenizers differ in {len(differing)} tokens: {token!r} is {_number(first, token)} in one "
        f"and {_number(second, token)} in the other."
    )


def _number(tokens: dict[str, int], token: str) -> str:
    return f"number {tokens[token]}" if token in tokens else "missing"


def _tokens(path: Path) -> dict[str, int]:
    """The number of each token of a tokenizer.json, added ones too."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = document["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: [token, log probability] in order
            tokens = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
        else:
            tokens = dict(vocabulary)
        return tokens | {entry["content"]: entry["id"] for entry in document.get("added_tokens") or []}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(str(path), f"is no tokenizer ({error}).", "Save it again.") from error
