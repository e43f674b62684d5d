"""Nothing heavy is imported before it is needed (no timings here: those stand in benchmarks/)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from small_project import write_project

HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "accelerate", "huggingface_hub", "tokenizers")


def loaded(code: str, *arguments: str) -> set[str]:
    """Top-level names of the modules that a fresh Python has after running the code."""
    tail = "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module", ["sabir", "sabir.cli", "sabir.project", "sabir.plan", "sabir.merging.choices"]
)
def test_importing_it_imports_nothing_heavy(module):
    assert not loaded(f"import {module}") & set(HEAVY)


@pytest.mark.parametrize("verb", ["plan", "show"])
def test_plan_and_show_import_nothing_heavy(verb, tmp_path):
    config = write_project(tmp_path, ("en", "de"))
    code = f"import sys, sabir; sabir.Project(sys.argv[1]).{verb}()"
    assert not loaded(code, str(config)) & {*HEAVY, "numpy"}
