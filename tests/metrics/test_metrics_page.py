"""docs/metrics.md names the metrics of the program, with what they need and fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sabir.metrics import METRICS, fitting, needs, signature

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


def test_the_table_is_that_of_the_program(page):
    rows = [re.split(r" *\| *", line) for line in page.splitlines() if line.startswith("| `")]
    assert sorted(row[1].strip("`") for row in rows) == sorted(METRICS.names())
    for row in rows:
        name = row[1].strip("`")
        assert {kind for kind in ("label", "choice", "text", "phrases") if name in fitting(kind)} == set(
            row[2].split(", ")
        ), name
        assert needs(name) == set(filter(None, row[3].split(", "))), name


def test_the_signatures_have_the_parts_of_the_programs(page, encoder):
    """Versions and values apart, which are one machine's."""
    shown = page.split("## Signatures")[1].split("```")[1].strip().splitlines()
    languages = {"rougeL": "ja", "f1_at_5": "de"}

    def parts(text):
        return [re.split(r"[:\-]", part)[0] for part in text.split("|")]

    for line in shown:
        name = line.split("|")[0]
        given = {"labels": ("a", "b"), "language": languages.get(name), "encoder": encoder}
        assert parts(line) == parts(signature(name, **given)), name
