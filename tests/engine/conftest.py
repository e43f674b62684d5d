"""A store to run in, and a diary in which toy steps write what they did."""

from __future__ import annotations

import pytest

from sabir.engine.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def diary(tmp_path):
    return tmp_path / "diary"
