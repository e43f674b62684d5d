"""The documents name what the program has: no method, space or recipe that is not there, none left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sabir.merging.choices import make_recipe
from sabir.merging.dialects import DIALECTS
from sabir.merging.methods import METHODS
from sabir.merging.published import PRESETS
from sabir.merging.spaces import SPACES

PAGE = Path(__file__).parents[1] / "docs" / "merging.md"


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


def first_column(page: str, heading: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    section = page.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_tables_of_methods_and_spaces_are_those_of_the_program(page):
    assert first_column(page, "Methods") == set(METHODS.names())
    assert first_column(page, "Spaces: what is merged entry by entry") == set(SPACES.names())


def test_settings_and_defaults_are_told_as_they_are(page):
    section = page.split("## Methods")[1].split("\n## ")[0]
    for row in (line.split("|") for line in section.splitlines() if line.startswith("| `")):
        for name in re.findall(r"`([^`]+)`", row[1]):
            settings = METHODS.get(name).settings
            for key, default in re.findall(r"(\w+) \(([\d.]+)\)", row[3]):
                if key in settings:
                    assert settings[key].default == float(default), (name, key)
            assert any(key in row[3] for key in settings), name


def test_every_dialect_and_preset_stands_in_the_page(page):
    header = next(line for line in page.splitlines() if line.startswith("| question |"))
    assert re.findall(r"`(\w+)`", header) == list(DIALECTS)
    assert all(preset in page for preset in PRESETS)


def test_every_recipe_and_name_of_other_tools_in_the_page_is_understood(page):
    start = page.split("## Where to start")[1].split("\n## ")[0]
    for name in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", start):
        make_recipe(name)
    named = page.split("Other tools' names are\nunderstood:")[1].split("...")[0]
    for name in re.findall(r"`(\w+)`", named):
        make_recipe(name)
