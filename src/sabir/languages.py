"""The languages of a config: where each one's rows are, and how its adapter is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sabir.settings import Filled, Range, Reader, Text, shown
from sabir.strict_yaml import KeyPath
from sabir.work.hub import HubData
from sabir.work.sources import SUFFIXES

DATA_SUFFIXES = SUFFIXES
LANGUAGE_FORM = "Write one line per language, such as `de: data/de`."


@dataclass(frozen=True)
class LoraConfig:
    """How an adapter is trained. All of it belongs to the adapter's identity."""

    rank: Annotated[int, Range(ge=1)] = 16
    alpha: Annotated[float, Range(gt=0)] = 32.0
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Filled()] = "all-linear"
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.0
    rslora: bool = False
    epochs: Annotated[float, Range(gt=0)] = 3.0
    learning_rate: Annotated[float, Range(gt=0)] = 2e-4
    batch_size: Annotated[int, Range(ge=1)] = 16  # the effective batch: one optimizer step
    max_length: Annotated[int, Range(ge=1)] = 512  # tokens of prompt and target together
    seed: Annotated[int, Range(ge=0)] = 0
    warmup: Annotated[float, Range(ge=0, lt=1)] = 0.03  # share of all steps
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Range(ge=0)] = 0.0


@dataclass(frozen=True)
class UpdateConfig:
    """How an adapter follows its rows when some are added: trained anew on all, or the last one trained on.

    Args:
        mode: "continue" goes on from the last adapter with the new rows and a replay of the old; where rows were
            edited or taken away, and where the settings changed, it is trained from scratch all the same.
        replay: share of the old rows that is trained on again, chosen by their content.
        epochs, learning_rate: of a continuation; None: those of `lora`.
    """

    mode: Literal["scratch", "continue"] = "scratch"
    replay: Annotated[float, Range(ge=0, le=1)] = 0.1
    epochs: Annotated[float, Range(gt=0)] | None = None
    learning_rate: Annotated[float, Range(gt=0)] | None = None

    def applied_to(self, lora: LoraConfig) -> LoraConfig:
        """How a continuation is trained, of an adapter that is otherwise trained like this."""
        return replace(
            lora,
            epochs=lora.epochs if self.epochs is None else self.epochs,
            learning_rate=lora.learning_rate if self.learning_rate is None else self.learning_rate,
        )


def read_update(
    reader: Reader, default: UpdateConfig, given: Mapping[str, Any], path: KeyPath
) -> UpdateConfig:
    """The section `update`, which may be its mode alone: `update: continue`."""
    written = given.get(str(path[-1]))
    if isinstance(written, str):
        mode = reader.one(given, str(path[-1]), Literal["scratch", "continue"], path[:-1], default.mode)
        return replace(default, mode=mode)
    return reader.section(default, given, path)


@dataclass(frozen=True)
class LanguageConfig:
    """One language: where its rows are (a folder, one file, one file per split, a data set), or its own adapter."""

    language: str
    folder: Path | None = None
    file: Path | None = None  # split by a hash of the row
    train: Path | None = None
    valid: Path | None = None
    test: Path | None = None
    hub: HubData | None = None
    adapter: Path | None = None  # a PEFT folder; then only valid and test are given
    fields: Mapping[str, str] = field(default_factory=dict)  # ours -> theirs, {"input": "text"}
    lora: LoraConfig = LoraConfig()  # the common settings with this language's own
    update: UpdateConfig = UpdateConfig()  # likewise


_FIELDS = ("input", "output", "id", "instruction", "domain", "choices", "group")
_SPLITS = ("train", "valid", "test")
_HUB = ("hub", "subset", "revision")
_DATA_SET = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TAG = re.compile(
    r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?"  # language, script, region
    r"(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(-x(-[a-z0-9]{1,8})+)?"  # variants, private use
)


def read_languages(
    reader: Reader, given: Mapping[str, Any], folder: Path, lora: LoraConfig, update: UpdateConfig
) -> dict[str, LanguageConfig]:
    """Every language under `data`, in the order of the file; what is wrong goes to the reader."""
    data = reader.mapping(given, ("data",))
    if given.get("data") is not None and isinstance(given["data"], dict) and not data:
        reader.wrong(("data",), "there is no language.", LANGUAGE_FORM)
    for code in data:
        _check_code(reader, code)
    common = LanguageConfig("", lora=lora, update=update)
    return {code: _language(reader, code, data, folder, common) for code in data}


def read_unseen(
    reader: Reader, given: Mapping[str, Any], path: KeyPath, folder: Path, known: Collection[str]
) -> dict[str, LanguageConfig]:
    """Languages of which there are test rows and nothing else: a folder with a test file, or a file."""
    found = {}
    written = reader.mapping(given, path)
    for code in written:
        _check_code(reader, code, path)
        at = (*path, code)
        if code in known:
            reader.wrong(at, "it has an adapter of its own.", "Name a language that is not under data:.")
        inside = written[code]
        if isinstance(inside, str):
            form = _form_of(reader, at, inside, folder)
            inside = {"test" if form == "file" else "folder": inside} if form else None
        if not isinstance(inside, dict):
            if not isinstance(written[code], str):
                reader.wrong(at, "names no data.", "Write a folder with a test file, or a file.")
            continue
        known = ("folder", "test", *_HUB, "fields")
        reader.refuse_unknown(inside, known, at, "a language without an adapter")
        forms = [name for name in ("hub", "folder", "test") if name in inside]
        if forms not in (["hub"], ["hub", "test"], ["folder"], ["test"]):
            fix = "Write a folder with a test file, a file, or a data set."
            reader.wrong(at, "needs one of folder:, test: and hub:.", fix)
            continue
        hub = _hub(reader, inside, at, folder, ("test",))
        found[code] = LanguageConfig(
            code,
            folder=_place(reader, inside, "folder", at, folder) if "folder" in inside else None,
            test=_place(reader, inside, "test", at, folder) if forms == ["test"] else None,
            hub=hub,
            fields=_field_names(reader, inside, at),
        )
    return found


def is_language_tag(text: str) -> bool:
    """Whether a text is a language tag as configs take it: de, zh-Hant, pt-BR."""
    return _TAG.fullmatch(text) is not None


def _check_code(reader: Reader, code: str, path: KeyPath = ("data",)) -> None:
    path = (*path, code)
    if code in ("macro", "combined", "continued"):
        reader.wrong(path, f"{code!r} cannot name a language: sabir's own rows are called so.", "Rename it.")
    elif not _TAG.fullmatch(code):
        tidy = _tidy_code(code)
        fix = f"Write {tidy!r}." if _TAG.fullmatch(tidy) else "Expected a tag such as de, zh-Hant or pt-BR."
        reader.wrong(path, f"{shown(code)} is no language tag (BCP 47).", fix)


def _tidy_code(code: str) -> str:
    """The usual way of writing a tag: zh_hant -> zh-Hant, DE -> de, pt-br -> pt-BR."""
    first, *rest = code.strip().lower().replace("_", "-").split("-")
    cased = [part.title() if len(part) == 4 else part.upper() if len(part) == 2 else part for part in rest]
    return "-".join([first, *cased])


def _language(
    reader: Reader, code: str, data: Mapping[str, Any], folder: Path, common: LanguageConfig
) -> LanguageConfig:
    path: KeyPath = ("data", code)
    written = data[code]
    if written is None:
        reader.wrong(path, "nothing is given.", LANGUAGE_FORM)
    elif isinstance(written, str):
        form = _form_of(reader, path, written, folder)
        written = {form: written} if form else None
    elif not isinstance(written, dict):
        reader.wrong(path, f"{shown(written)} names no data.", LANGUAGE_FORM)
    if not isinstance(written, dict):
        return replace(common, language=code)
    given = written
    known = ("folder", "file", *_SPLITS, *_HUB, "adapter", "fields", "lora", "update")
    reader.refuse_unknown(given, known, path, "a language")
    named = ("folder", "file", "adapter") if "hub" in given else ("folder", "file", *_SPLITS, "adapter")
    places = {name: _place(reader, given, name, path, folder) for name in named if name in given}
    _check_combination(reader, path, given)
    return LanguageConfig(
        code,
        **places,
        hub=_hub(reader, given, path, folder, _SPLITS[1:] if "adapter" in given else _SPLITS),
        fields=_field_names(reader, given, path),
        lora=reader.section(common.lora, given, (*path, "lora")),
        update=read_update(reader, common.update, given, (*path, "update")),
    )


def _form_of(reader: Reader, path: KeyPath, written: str, folder: Path) -> str | None:
    """Whether a bare text names a folder or a file; None, and an error kept, when it is neither."""
    if Path(written).suffix in (*DATA_SUFFIXES, ".json"):
        return "file"
    if os.path.isdir(resolved(folder, written)):
        return "folder"
    reader.wrong(
        path,
        f"{shown(written)} is neither a folder nor a file ending in {_suffixes()}.",
        f"Looked for {resolved(folder, written)}.",
    )
    return None


def _place(reader: Reader, given: Mapping[str, Any], name: str, path: KeyPath, folder: Path) -> Path | None:
    """The file or folder that one key of a language names, absolute and known to exist."""
    written = reader.one(given, name, Text, path, None)
    if written is None:
        return None
    # A language given as a bare text has no key of its own in the file.
    path = (*path, name) if reader.has((*path, name)) else path
    place = resolved(folder, written)
    suffix = place.suffix  # endings are read in lower case only
    if name in ("folder", "adapter"):
        if not os.path.isdir(place):
            reader.wrong(path, f"there is no folder {shown(written)}.", f"Looked for {place}.")
        elif name == "adapter" and not os.path.isfile(place / "adapter_config.json"):
            reader.wrong(path, f"{shown(written)} is no PEFT adapter.", "It has no adapter_config.json.")
    elif suffix not in DATA_SUFFIXES:
        fix = "With one JSON object to a line it is .jsonl: rename it." if suffix == ".json" else ""
        reader.wrong(path, f"{shown(written)} does not end in {_suffixes()}.", fix)
    elif not os.path.isfile(place):
        reader.wrong(path, f"there is no file {shown(written)}.", f"Looked for {place}.")
    return place


def _check_combination(reader: Reader, path: KeyPath, given: Mapping[str, Any]) -> None:
    """One form per language: a folder, a file, its splits, a data set, or an adapter with valid and test."""
    splits = [name for name in _SPLITS if name in given]
    if "hub" not in given:
        for name in ("subset", "revision"):
            if name in given:
                reader.wrong((*path, name), "it goes with hub: only.", "Name the data set, or take it out.")
    if "adapter" in given:
        for name in ("folder", "file", "train", "lora", "update"):
            if name in given:
                fix = "Nothing is trained here: give valid: and test: files only."
                reader.wrong((*path, name), "it does not go with adapter:.", fix)
        needed = () if "hub" in given else ("valid", "test")
    elif "hub" in given:
        for name in ("folder", "file"):
            if name in given:
                reader.wrong((*path, name), "it does not go with hub:.", "Keep one of the two.")
        return
    elif "folder" in given or "file" in given:
        one = "folder" if "folder" in given else "file"
        for name in (["file"] if one == "folder" and "file" in given else []) + splits:
            reader.wrong((*path, name), f"it does not go with {one}:.", "Keep one of the two.")
        return
    elif splits:
        needed = ("train", "test")  # without valid, a tenth of train becomes it
    else:
        reader.wrong(path, "no data is named.", "Write folder:, file:, hub:, or train:, valid: and test:.")
        return
    for name in needed:
        if name not in given:
            fix = {"valid": "Merges are selected on it.", "test": "Results are reported on it."}.get(name, "")
            reader.wrong((*path, name), "it is missing.", fix or "Name the training rows, or an adapter:.")


def _hub(
    reader: Reader, given: Mapping[str, Any], path: KeyPath, folder: Path, only: tuple[str, ...]
) -> HubData | None:
    """The data set of a language: of the hub, or a folder in the form of one.

    Args:
        only: the splits that are read; train:, valid: and test: are the data set's names for them.
    """
    if "hub" not in given:
        return None
    hints: dict[str, Any] = dict.fromkeys((*_HUB, *only), Text)
    read = reader.settings({key: given[key] for key in hints if key in given}, hints, path, "a data set")
    name = read.get("hub")
    if name is None:
        return None
    place = resolved(folder, name)
    splits = {split: read[split] for split in only if split in read}
    for split, theirs in splits.items():
        other = next(one for one in splits if splits[one] == theirs)
        if other != split:
            fix = "Judge and select on rows of their own; without valid: a tenth of train is taken."
            reader.wrong((*path, split), f"{theirs!r} is {other} already.", fix)
    if name.startswith((".", "/", "~")) or os.path.isdir(place):
        if not os.path.isdir(place):
            reader.wrong((*path, "hub"), f"there is no folder {shown(name)}.", f"Looked for {place}.")
        if "revision" in read:
            reader.wrong((*path, "revision"), "a folder has no revisions.", "Take it out.")
        name = str(place)
    elif not _DATA_SET.fullmatch(name):
        fix = "Expected org/name, with the commit as revision:, or a folder such as ./rows."
        reader.wrong((*path, "hub"), f"{shown(name)} is no data set.", fix)
    return HubData(name, read.get("subset"), read.get("revision"), splits, only)


def _field_names(reader: Reader, given: Mapping[str, Any], path: KeyPath) -> dict[str, str]:
    path = (*path, "fields")
    return reader.settings(reader.mapping(given, path), dict.fromkeys(_FIELDS, Text), path, "'fields'")


def resolved(folder: Path, written: str) -> Path:
    """A path of the config as an absolute one: relative ones start at the config's folder."""
    return Path(os.path.normpath(folder / os.path.expanduser(written)))


def _suffixes() -> str:
    return f"{', '.join(DATA_SUFFIXES[:-1])} or {DATA_SUFFIXES[-1]}"
