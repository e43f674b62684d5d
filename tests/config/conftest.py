"""A folder of files to name in configs, and what reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabir.config import Config, load_config
from sabir.errors import InputError


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with the files the configs here name."""
    folder = tmp_path_factory.mktemp("project")
    for language in ("en", "de", "no"):
        (folder / "data" / language).mkdir(parents=True)
    for name in (
        "fr.jsonl",
        "ja.jsonl",
        "ja-valid.jsonl",
        "ja-test.jsonl",
        "zh-valid.jsonl",
        "zh-test.jsonl",
    ):
        (folder / "data" / name).touch()
    for name in ("it.csv", "it.tsv", "it.json", "it.parquet", "it.txt"):
        (folder / "data" / name).touch()
    (folder / "adapters" / "zh").mkdir(parents=True)
    (folder / "adapters" / "zh" / "adapter_config.json").write_text("{}")
    (folder / "base").mkdir()
    return folder


@pytest.fixture
def read(project, monkeypatch):
    """Loads a YAML text as `config.yaml` of the project."""
    monkeypatch.chdir(project)

    def load(text: str | bytes, *overrides: str, allow_code: bool = False) -> Config:
        Path("config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config("config.yaml", overrides=overrides, allow_code=allow_code)

    return load


@pytest.fixture
def refusals(read):
    """The sentences a YAML text earns."""

    def told(text: str, *overrides: str, allow_code: bool = False) -> list[str]:
        with pytest.raises(InputError) as caught:
            read(text, *overrides, allow_code=allow_code)
        assert caught.value.exit_code == 2
        return [str(error) for error in caught.value.problems()]

    return told
