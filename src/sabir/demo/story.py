"""The demo: a small project written to disk and run, in acts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sabir.demo.texts import (
    LABELS,
    LANGUAGES,
    Message,
    mixed_up,
    production_messages,
    splits,
    update_messages,
)
from sabir.engine.run import Listener
from sabir.errors import GateNotMet, InputError
from sabir.project import Project
from sabir.report.words import duration

Show = Callable[[str, str, Mapping[str, Any] | None], None]

SEED = 7
TRAIN, VALID, TEST, UPDATE, PRODUCTION = 500, 80, 200, 400, 150
NAME = "sabir.yaml"
WEEK = "this-week.jsonl"

CONFIG = """\
# The demo project: a shop's support desk, messages in five languages, sorted by topic.
# Change anything and type: sabir plan sabir.yaml, then sabir run sabir.yaml.
base: embedded              # the 3-million-parameter model that ships with sabir
task:
  name: classification
  labels: [{labels}]
  cue: "Topic:"
data:
{data}
lora: {{rank: 16, alpha: 32, epochs: 4, learning_rate: 2e-3, batch_size: 8, max_length: 160}}
baseline: combined          # one adapter on all five languages together, to compare with
merges:
  average: {{method: linear, scale: {{grid: [1.0, 2.0]}}}}
  ties: {{method: ties, density: 1.0, scale: {{grid: [1.0, 1.5]}}}}
  ties-knots: {{method: ties, space: knots, density: 1.0, scale: {{grid: [1.0, 1.5]}}}}
  dare-ties: {{method: dare_ties, density: 0.5, scale: 1.0}}
"""


def write_project(folder: Path) -> Path:
    """Write config and data of the demo; its own folder of an earlier time is taken up again.

    Raises InputError when the folder holds something else, or a demo whose config was changed.
    """
    config = folder / NAME
    data = "\n".join(f"  {language}: data/{language}" for language in LANGUAGES)
    text = CONFIG.format(labels=", ".join(LABELS), data=data)
    ours = config.is_file() and config.read_text(encoding="utf-8") == text
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise InputError(
            str(folder), "is not empty.", f"Choose another folder, or go on with: sabir run {config}"
        )
    try:
        for language in LANGUAGES:
            parts = splits(language, train=TRAIN, valid=VALID, test=TEST, seed=SEED)
            for split, messages in parts.items():
                _write(folder / "data" / language / f"{split}.jsonl", messages)
        config.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            str(folder), f"cannot be written ({error.strerror}).", "Choose another folder."
        ) from error
    return config


def add_german(folder: Path) -> Path:
    """The new German data arrives: chat messages are appended to the German training file."""
    path = folder / "data" / "de" / "train.jsonl"
    _write(path, update_messages(UPDATE, seed=SEED), mode="a")
    return path


def mix_up_japanese(folder: Path) -> Path:
    """The Japanese training file comes again, its topics mixed up by an export that slipped by one."""
    path = folder / "data" / "ja" / "train.jsonl"
    parts = splits("ja", train=TRAIN, valid=VALID, test=TEST, seed=SEED)
    _write(path, mixed_up(parts["train"]))
    return path


def write_week(folder: Path) -> Path:
    """Messages as they came this week, in all languages, without topics."""
    path = folder / WEEK
    with open(path, "w", encoding="utf-8") as file:
        for language in LANGUAGES:
            test = splits(language, train=TRAIN, valid=VALID, test=TEST, seed=SEED)["test"]
            for message in production_messages(language, PRODUCTION, seed=SEED, test=test):
                row = {"id": message.id, "language": language, "input": message.text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def play(folder: Path, *, show: Show, listener: Listener, workers: int | None = None) -> None:
    """Write the project and run its acts; `show(title, text, document)` presents each scene."""
    clock = time.perf_counter()
    config = write_project(folder)
    show(
        "Act 1: set-up",
        f"A shop gets messages in five languages ({', '.join(LANGUAGES)}) and sorts them by topic "
        f"({', '.join(LABELS)}).\nIn {folder} now: sabir.yaml, and {TRAIN} training, {VALID} validation and "
        f"{TEST} test messages a language.\nTo do: one LoRA adapter per language; the combined adapter, trained "
        "on everything, to compare with; the merges of the five; all scores.",
        None,
    )
    first = Project(config).run(workers=workers, listener=listener)
    show("", "", first)
    show(
        "",
        "A merge of five adapters on a base of 3 million parameters loses much of what each knows: that is what "
        "the table says, and the price of a demo without a GPU. On bases of billions the published merges are on "
        "par with the combined adapter; your own numbers will stand in this place.\n\n"
        f"{_promoted(config)}",
        None,
    )
    path = add_german(folder)
    project = Project(config)
    planned = project.plan()
    kept = [s["name"] for s in planned["steps"] if s["kind"] == "adapter" and s["status"] == "reused"]
    show(
        "Act 2: new German data arrives",
        f"{UPDATE} messages in a tone the German adapter has not seen (chat, lower case, slang) were added to\n"
        f"{path}. Only German trains again; reused: {', '.join(n for n in kept if n != 'adapter/combined')}.",
        None,
    )
    second = project.run(workers=workers, listener=listener)
    show("", _what_german_gained(first, second), second)
    show(
        "Act 3: may it replace what is in use?",
        f"The gate holds it against release 1 on the same test messages, language by language.\n{_promoted(config)}\n"
        f"A way back takes no computing: sabir rollback {config}",
        None,
    )
    show("Act 4: what it cost", _bill(second), None)
    _caught(folder, config, show=show, listener=listener, workers=workers)
    show(
        "",
        f"All of it took {duration(time.perf_counter() - clock)}. Go on:\n"
        f"  sabir show {config} --scores\n"
        f"  sabir releases {config}\n"
        f'  sabir predict {config} "My parcel has not arrived yet."\n'
        f"  sabir estimate {config} {folder / WEEK}\n"
        f"  change something in {config}, then sabir plan {config}",
        None,
    )


def _caught(folder: Path, config: Path, *, show: Show, listener: Listener, workers: int | None) -> None:
    """Act 5: a Japanese file that was spoilt on the way is noticed before anyone labels a text, and undone."""
    path = mix_up_japanese(folder)
    week = write_week(folder)
    show(
        "Act 5: something is wrong, and nobody has labels",
        f"The Japanese training file comes again ({path}); an export slipped by one, and every topic is wrong.\n"
        f"Nobody has noticed. Only Japanese trains again. Then the new merge is held against this week's {PRODUCTION} "
        f"messages a language,\nwithout labels ({week}): how often does it disagree with the adapters that were "
        "right until now?",
        None,
    )
    third = Project(config).run(workers=workers, listener=listener)
    estimated = Project(config).estimate(week, model=third["selected"], workers=workers, listener=listener)
    show("", "", estimated)
    show("", _what_stands_out(estimated), None)
    show("", f"The gate, with labelled test messages, says the same.\n{_promoted(config)}", None)
    undone = Project(config).rollback(language="ja", workers=workers, listener=listener)
    reasons = (
        "; ".join(reason.rstrip(".") for reason in undone["reasons"])
        or f"release {undone['release']} stays in use"
    )
    show(
        "",
        f"sabir rollback {config} --language ja: Japanese goes back to the adapter of the release in use, and is held\n"
        f"there until its rows change again. Trained for that: {', '.join(undone['trained']) or 'nothing'}. {reasons}.",
        None,
    )


def _what_stands_out(document: Mapping[str, Any]) -> str:
    """Which languages are said to be worse than the model in use, in a sentence."""
    worse = {
        row["language"]: row
        for row in document["estimates"]
        if any(f.startswith("worse") for f in row["flags"])
    }
    if not worse:
        return "Nothing stands out: the merge is not seen to be worse than the model in use in any language."
    most = max(worse.values(), key=lambda row: row["rise"])
    others = [language for language in worse if language != most["language"]]
    also = f" (less so: {', '.join(others)})" if others else ""
    return (
        f"Without a single label: {most['language']} stands out{also}. Its expected error is {most['rise']:.2f} above "
        "that of the model in use, on the same messages."
    )


def _promoted(config: Path) -> str:
    """What `sabir promote` says of the selected merge: a release, or why not."""
    try:
        document = Project(config).promote()
    except GateNotMet as refused:
        return str(refused)
    reasons = "; ".join(document["reasons"])
    return (
        f"sabir promote: release {document['release']} is in use. Verdict: {document['verdict']}; {reasons}."
    )


def _what_german_gained(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    rows = [
        f"  {name}: {_german(first, one):.3f} before the new data, {_german(second, other):.3f} after"
        for name, one, other in (
            ("German's own adapter", "adapter/de", "adapter/de"),
            ("the selected merge", first["selected"], second["selected"]),
        )
    ]
    return "\n".join([f"German, {second['metric'].replace('_', ' ')} on the same test messages:", *rows])


def _german(document: Mapping[str, Any], model: str) -> float:
    return next(
        row["value"]
        for row in document["scores"]
        if row["model"] == model
        and (row["language"], row["split"], row["metric"]) == ("de", "test", document["metric"])
    )


def _bill(document: Mapping[str, Any]) -> str:
    updates = [row for row in document["costs"] if (row["phase"], row["component"]) == ("update", "train")]
    seconds = {row["route"]: row["device_s"] for row in updates if row["run"] == updates[-1]["run"]}
    ours, all_again = seconds["merged"], seconds["combined"]
    return (
        f"The update trained one adapter: {duration(ours)}. Training the combined adapter on all data again would "
        f"take about {duration(all_again)}\n(predicted from its speed in act 1), {all_again / ours:.1f} times as "
        "much; with twenty languages in place of five it would be about four times more again, and German's "
        "adapter as cheap as now."
    )


def _write(path: Path, messages: Sequence[Message], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, mode, encoding="utf-8") as file:
        for message in messages:
            row = {"id": message.id, "input": message.text, "output": message.label}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
