"""Data sets of the hub: read from a folder in their form, pinned to a commit where they lie on the hub."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest

from sabir.errors import InputError
from sabir.tasks import make_task
from sabir.work.hub import HubData, asked_as, pinned
from sabir.work.prepare import load, prepare, read_examples
from sabir.work.sources import Source, read_splits

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = COMMIT[::-1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def rows(split, count):
    return [{"text": f"{split} {i}", "label": ("good", "bad")[i % 2]} for i in range(count)]


def data_set(folder, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, records in splits.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return HubData(str(folder))


def usual(folder):
    return data_set(folder, train=rows("train", 20), validation=rows("validation", 4), test=rows("test", 6))


def read(data, fields=None):
    return read_splits(Source("de", hub=data, fields=fields or {}))


def texts(data):
    return {split: [row.input for _, row in found] for split, found in read(data).items()}


def test_a_folder_of_data_files_is_read_by_its_splits(tmp_path):
    data = usual(tmp_path / "set")
    found = read(data)
    assert {split: len(rows) for split, rows in found.items()} == {"train": 20, "valid": 4, "test": 6}
    place, row = found["test"][2]
    assert place == f"{tmp_path / 'set'}, split test, row 3"
    assert (row.input, row.output) == ("test 2", "good")


def test_the_rows_are_the_same_as_those_of_the_files_themselves(tmp_path):
    data = usual(tmp_path / "set")
    named = {"train": "train", "valid": "validation", "test": "test"}
    files = {ours: tmp_path / "set" / f"{theirs}.jsonl" for ours, theirs in named.items()}
    task = make_task("classification", {"labels": ("good", "bad")})
    by_hub, by_file = (load(source, task) for source in (Source("de", hub=data), Source("de", files=files)))
    assert by_hub[0] == by_file[0]
    assert by_hub[1].digests == by_file[1].digests


def test_an_edited_file_is_read_anew(tmp_path):
    data = usual(tmp_path / "set")
    assert len(texts(data)["test"]) == 6
    data_set(tmp_path / "set", test=rows("new", 9))
    os.utime(tmp_path / "set" / "test.jsonl", (1, 1))
    assert texts(data)["test"] == [f"new {i}" for i in range(9)]


def test_splits_are_named_as_the_data_set_names_them(tmp_path):
    data = usual(tmp_path / "set")
    named = replace(data, splits={"valid": "test", "test": "validation"})
    assert [texts(named)[split][0] for split in ("valid", "test")] == ["test 0", "validation 0"]


def test_rows_to_select_on_are_found_under_their_other_usual_names(tmp_path):
    data = data_set(tmp_path / "set", a=rows("a", 30), b=rows("b", 3), c=rows("c", 3))
    files = "".join(
        f"  - {{split: {split}, path: {name}.jsonl}}\n"
        for split, name in (("train", "a"), ("dev", "b"), ("test", "c"))
    )
    (tmp_path / "set" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: all\n  data_files:\n{files}---\n"
    )
    assert texts(data)["valid"] == ["b 0", "b 1", "b 2"]


def test_a_split_that_is_taken_for_test_is_not_valid_too(tmp_path):
    data = data_set(tmp_path / "set", train=rows("a", 60), validation=rows("b", 5))
    found = texts(replace(data, splits={"test": "validation"}))
    assert len(found["test"]) == 5
    assert found["valid"]
    assert len(found["train"]) + len(found["valid"]) == 60  # a tenth of train, as elsewhere


def test_a_split_that_is_not_there_is_told_with_those_that_are(tmp_path):
    data = data_set(tmp_path / "set", train=rows("a", 5), validation=rows("b", 5))
    with pytest.raises(
        InputError, match=r"^data\.de\.test: .* has no split 'test'; it has train, validation\."
    ):
        read(data)
    with pytest.raises(InputError, match=r"has no split 'validatin'; .*Did you mean 'validation'\?"):
        read(replace(data, splits={"test": "validatin"}))


def test_only_the_splits_that_are_wanted_are_asked_for(tmp_path):
    data = data_set(tmp_path / "set", test=rows("a", 5))
    assert set(read(replace(data, only=("test",)))) == {"test"}


def test_a_subset_is_named_or_asked_for(tmp_path):
    folder = tmp_path / "set"
    for language in ("de", "fr"):
        data_set(folder / language, train=rows(language, 20), test=rows(language, 3))
    files = "".join(
        f"- config_name: {language}\n  data_files:\n"
        f"  - {{split: train, path: {language}/train.jsonl}}\n  - {{split: test, path: {language}/test.jsonl}}\n"
        for language in ("de", "fr")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    data = HubData(str(folder))
    assert texts(replace(data, subset="fr"))["test"] == ["fr 0", "fr 1", "fr 2"]
    for wrong in (data, replace(data, subset="it")):
        with pytest.raises(
            InputError, match=r"^data\.de: .* could not be loaded \(.*'de', 'fr'.*Check name, subset:"
        ):
            read(wrong)


def test_class_labels_count_by_their_names(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    for split, labels in (("train", [0, 1]), ("test", [1, 0])):
        columns = {"text": [f"{split} a", f"{split} b"], "label": labels}
        datasets.Dataset.from_dict(columns, features=kinds).to_parquet(folder / f"{split}.parquet")
    assert [row.output for _, row in read(HubData(str(folder)))["test"]] == ["pos", "neg"]
    columns = {"text": ["a"], "label": [-1]}  # how data sets hide the answers of a test split
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(folder / "test.parquet")
    with pytest.raises(
        InputError, match=r"split test, row 1: field 'label' is no class \(-1\); expected text\."
    ):
        read(HubData(str(folder)))


def test_wrong_rows_are_told_by_split_and_row(tmp_path):
    data = data_set(tmp_path / "set", train=rows("a", 5), test=[*rows("b", 2), {"text": "c", "label": ""}])
    with pytest.raises(InputError, match=r"set, split test, row 3: field 'label' is empty\."):
        read(data)


def test_a_data_set_that_cannot_be_had_is_a_sentence():
    with pytest.raises(
        InputError, match=r"^data\.de: the data set 'org/none' could not be loaded \(.*network"
    ):
        read(HubData("org/none", revision=COMMIT))


def test_it_goes_to_a_worker_and_back(tmp_path):
    data = HubData("org/name", "de", COMMIT, {"test": "validation"}, ("valid", "test"))
    source = Source("de", hub=data, fields={"input": "text"})
    assert Source.from_json(json.loads(json.dumps(source.to_json()))) == source
    assert source.paths == []


def test_the_step_reads_it_again_and_writes_what_was_planned(tmp_path):
    source = Source("de", hub=usual(tmp_path / "set"))
    told = {"name": "classification", "settings": {"labels": ["good", "bad"]}}
    splits, summary = load(source, make_task(told["name"], told["settings"]))
    out = tmp_path / "out"
    out.mkdir()
    args = json.loads(json.dumps({"source": source.to_json(), "task": told}))
    [(_, outcome)] = prepare([SimpleNamespace(name="data/de", args=args, settings=summary.digests, out=out)])
    assert outcome["result"]["rows"] == {"train": 20, "valid": 4, "test": 6}
    assert all(read_examples(out, split) == examples for split, examples in splits.items())


# --- which commit ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """The hub as `huggingface_hub` shows it: `answer` is its commit, or what it raises."""
    seen = SimpleNamespace(answer=COMMIT, calls=[])

    class Api:
        def dataset_info(self, name, revision=None, timeout=None):
            seen.calls.append((name, revision, timeout))
            if isinstance(seen.answer, Exception):
                raise seen.answer
            return SimpleNamespace(sha=seen.answer)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return seen


def test_the_commit_is_the_hubs_of_today_asked_with_a_time_limit(hub):
    assert pinned(HubData("org/name", revision="v2"), {}).revision == COMMIT
    [(name, revision, timeout)] = hub.calls
    assert (name, revision) == ("org/name", "v2")
    assert timeout <= 10


def test_a_commit_and_a_folder_need_nobody(hub, tmp_path):
    for data in (HubData("org/name", revision=OTHER), HubData(str(tmp_path))):
        assert pinned(data, {}) == data
    assert hub.calls == []


def test_without_a_network_the_last_commit_known_is_taken(hub):
    hub.answer = ConnectionError("no route")
    data = HubData("org/name")
    assert pinned(data, {asked_as(data): OTHER}).revision == OTHER
    with pytest.raises(
        InputError, match=r"^org/name: the hub could not be asked for this data set, and it is not"
    ):
        pinned(data, {})


def test_offline_nobody_is_asked_and_the_cache_is_looked_into(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "datasets--org--name"
    (folder / "snapshots" / OTHER).mkdir(parents=True)
    assert pinned(HubData("org/name"), {}).revision == OTHER  # fetched by its commit, as sabir does
    with pytest.raises(InputError, match="not in the local cache"):
        pinned(HubData("org/name", revision="v2"), {})  # whether that is v2, nobody knows
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    assert pinned(HubData("org/name"), {}).revision == COMMIT
    assert hub.calls == []


class Builder:
    """A data set as `datasets` hands it out."""

    def __init__(self, commit, inner):
        self.hash = commit
        self._inner = inner

    def download_and_prepare(self):
        self._inner.download_and_prepare()

    @property
    def info(self):
        return self._inner.info

    def as_dataset(self, split):
        return self._inner.as_dataset(split)


def test_the_hub_is_read_at_the_commit_and_no_code_of_its_own_is_asked_for(tmp_path, monkeypatch):
    usual(tmp_path / "set")
    real, asked = datasets.load_dataset_builder, []

    def fake(*arguments, **more):
        asked.append((arguments, more))
        return Builder(COMMIT, real(str(tmp_path / "set")))

    monkeypatch.setattr(datasets, "load_dataset_builder", fake)
    found = read(HubData("org/name", "de", COMMIT))
    assert asked == [(("org/name", "de"), {"revision": COMMIT})]
    assert found["valid"][0][0] == "org/name, split validation, row 1"
    with pytest.raises(
        InputError, match=rf"the local cache has commit {COMMIT[:12]} .*, and {OTHER[:12]} is asked"
    ):
        read(HubData("org/name", "de", OTHER))


def test_a_missing_package_is_told_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = r"^data\.de: data sets of the hub need datasets\. Install it: pip install 'sabir\[hub\]'"
    with pytest.raises(InputError, match=said):
        Source("de", hub=HubData("org/name")).check_installed()
