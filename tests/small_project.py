"""Small projects on disk for the tests of plan, project and command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sabir.config import load_config
from sabir.engine.store import Store
from sabir.facts import Facts, gather
from sabir.lock import Lock
from sabir.plan import Plan, plan

WORDS = {
    "en": ("the parcel is late", "my card was refused"),
    "de": ("das Paket kommt spät", "die Karte geht nicht"),
    "fr": ("le colis est en retard", "ma carte est refusée"),
    "ja": ("荷物が遅れています", "カードが使えません"),
    "zh": ("包裹迟到了", "银行卡被拒绝"),
}
LABELS = ("delivery", "payment")
FIVE = tuple(WORDS)


def rows(language: str, split: str, count: int, tag: str = "") -> list[dict[str, str]]:
    return [
        {"input": f"{WORDS[language][i % 2]} {split} {i}{tag}", "output": LABELS[i % 2]} for i in range(count)
    ]


def write_rows(path: Path, given: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given), encoding="utf-8")


def write_language(
    folder: Path, language: str, *, train: int = 24, valid: int = 6, test: int = 6, tag: str = ""
) -> None:
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        if count:
            write_rows(folder / "data" / language / f"{split}.jsonl", rows(language, split, count, tag))


def settings(languages: Sequence[str] = FIVE, **changes: Any) -> dict[str, Any]:
    """A config as a mapping; what is given stands in place of the section of that name."""
    return {
        "base": "embedded",
        "task": {"name": "classification", "labels": list(LABELS)},
        "data": {language: f"data/{language}" for language in languages},
        "lora": {"rank": 4, "epochs": 1, "max_length": 64, "batch_size": 8},
        "baseline": "combined",
        "merges": {
            "average": {"method": "linear", "scale": 0.5},
            "ties": {"method": "ties", "density": 0.5},
        },
        "evaluate": {"resamples": 100},
        "run": {"workers": 2},
        **changes,
    }


def write_config(folder: Path, given: Mapping[str, Any], name: str = "sabir.yaml") -> Path:
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(given), allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def write_project(folder: Path, languages: Sequence[str] = FIVE, **changes: Any) -> Path:
    for language in languages:
        write_language(folder, language)
    return write_config(folder, settings(languages, **changes))


def planned(
    config: Path,
    selection: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
) -> tuple[Plan, Facts]:
    """The plan of a config, read from disk and held against no store."""
    read = load_config(config, overrides=overrides, allow_code=allow_code)
    facts = gather(read, Lock(), {}, with_base=False, store=Store(read.run.store))
    return plan(read, facts, selection=selection, stale={}), facts


SELECTED = {"selected": "merged/average", "best": {"average": "merged/average", "ties": "merged/ties"}}


def identities(config: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Fingerprint of every step by name, with the average selected."""
    return dict(planned(config, SELECTED, overrides)[0].graph.fingerprints)


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Names of steps that a run would do anew."""
    known = set(before.values())
    return {name for name, fingerprint in after.items() if fingerprint not in known}
