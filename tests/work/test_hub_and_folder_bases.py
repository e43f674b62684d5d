"""From the name of a base to a folder and an identity."""

from __future__ import annotations

import json
import os

import pytest

from sabir.errors import InputError
from sabir.work import bases

COMMITS = ("a" * 40, "b" * 40)


def save_model(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"max_position_embeddings": 64}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("card")
    return folder


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache with two commits of org/name, the second being main; no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    repository = cache / "models--org--name"
    for commit in COMMITS:
        save_model(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS[1])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


def test_a_hub_name_is_two_words_that_are_no_folder(tmp_path):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for name in ("Qwen/Qwen3-0.6B", "org/name@main"):
        assert bases.is_hub_name(name, tmp_path)
    for name in ("embedded", "models/mine", "./org/name", "../name", "/abs", "~/name", "gpt2", "a/b/c"):
        assert not bases.is_hub_name(name, tmp_path)


def test_the_embedded_base_is_usable(tmp_path):
    folder = bases.local_folder("embedded", tmp_path)
    assert bases.max_positions(folder) == 1024


def test_a_folder_is_found_beside_the_config(model):
    assert bases.local_folder("model", model.parent) == model
    assert bases.local_folder(str(model), model.parent / "elsewhere") == model


def test_a_name_that_is_nothing_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(InputError, match=r"^base: 'embeded' is neither a folder nor a hub name.*'embedded'"):
        bases.local_folder("embeded", tmp_path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no readable config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "has no readable config.json"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "no .safetensors",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
            ),
            "lacks model-2.safetensors of its weights",
        ),
    ],
)
def test_a_folder_that_is_no_usable_model_is_refused_by_sentence(model, spoil, said):
    spoil(model)
    with pytest.raises(InputError, match=f"^base: 'model' .*{said}"):
        bases.local_folder("model", model.parent)


def digest(folder, remembered=None):
    return bases.digest_of(folder, remembered or {})[0]


def test_the_digest_is_of_content_alone(model, tmp_path):
    before = digest(model)
    os.utime(model / "model.safetensors", (1, 1))
    (model / "README.md").write_text("another card")
    (model / "README.txt").write_text("another card")
    (model / "LICENSE.txt").write_text("a licence")
    assert digest(model) == before
    assert digest(save_model(tmp_path / "copy")) == before


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"]
)
def test_every_file_that_decides_answers_enters_the_digest(model, name):
    before = digest(model)
    (model / name).write_text("changed")
    assert digest(model) != before


def test_nothing_is_read_twice_while_size_and_time_are_the_same(model, monkeypatch):
    first, memory = bases.digest_of(model, {})
    read = []
    whole = bases._sha256
    monkeypatch.setattr(bases, "_sha256", lambda path: read.append(path.name) or whole(path))
    assert bases.digest_of(model, json.loads(json.dumps(memory))) == (first, memory)
    assert read == []
    os.utime(model / "config.json", ns=(5, 5))
    assert bases.digest_of(model, memory)[0] == first
    assert read == ["config.json"]
    (model / "model.safetensors").write_bytes(b"weights and more")
    assert bases.digest_of(model, memory)[0] != first


def test_the_longest_input_is_read_from_the_config(model):
    assert bases.max_positions(model) == 64
    (model / "config.json").write_text('{"text_config": {"max_position_embeddings": 32}}')
    assert bases.max_positions(model) == 32
    (model / "config.json").write_text("{}")
    assert bases.max_positions(model) is None


def test_a_hub_name_gives_the_snapshot_and_its_commit(hub):
    assert bases.hub_folder("org/name", None) == (hub / "snapshots" / COMMITS[1], COMMITS[1])


def test_a_pinned_commit_is_the_one_that_is_taken(hub):
    assert bases.hub_folder("org/name", COMMITS[0]) == (hub / "snapshots" / COMMITS[0], COMMITS[0])
    assert bases.hub_folder(f"org/name@{COMMITS[0]}", None)[1] == COMMITS[0]
    assert bases.hub_folder("org/name@main", None)[1] == COMMITS[1]


def test_the_lock_goes_before_a_branch_in_the_name(hub):
    assert bases.hub_folder("org/name@main", COMMITS[0])[1] == COMMITS[0]


def test_a_pinned_commit_that_is_here_needs_no_network(hub, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []
    real = huggingface_hub.snapshot_download

    def download(*args, local_files_only, **given):
        asked.append(local_files_only)
        return real(*args, local_files_only=True, **given)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    bases.hub_folder("org/name", COMMITS[0])
    assert asked == [True]
    bases.hub_folder("org/name", None)
    assert asked == [True, False]


@pytest.mark.parametrize(("name", "revision"), [("org/unknown", None), ("org/name", "c" * 40)])
def test_a_model_that_cannot_be_had_is_refused_by_sentence(hub, name, revision):
    with pytest.raises(
        InputError, match=r"is not in the local cache and could not be fetched .*Check the name"
    ):
        bases.hub_folder(name, revision)


def test_without_a_network_the_cache_knows_the_commit_of_today(hub):
    assert bases.hub_commit("org/name") == COMMITS[1]


def test_a_hub_name_that_nobody_knows_is_a_sentence(hub):
    with pytest.raises(InputError, match="not pinned yet, not in the local cache"):
        bases.hub_commit("org/other")


def test_an_interrupted_download_is_not_taken_for_the_model(hub, monkeypatch):
    from huggingface_hub import constants

    (hub / "snapshots" / COMMITS[0] / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        bases.hub_folder("org/name", COMMITS[0])
    asked = []

    def snapshot(*_, local_files_only, **__):
        asked.append(local_files_only)
        return str(hub / "snapshots" / (COMMITS[0] if local_files_only else COMMITS[1]))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert bases.hub_folder("org/name", COMMITS[0])[1] == COMMITS[1]
    assert asked == [True, False], "the cache first, then the rest of it from the hub"
