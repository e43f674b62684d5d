"""What needs an accelerator; skipped without one, and not run by default (`-m gpu`)."""

from __future__ import annotations

import pytest

import sabir
from sabir.demo import story
from sabir.engine import ledger


@pytest.mark.gpu
def test_the_loop_runs_on_gpus_one_job_each(tmp_path, monkeypatch):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    for name, size in {"TRAIN": 32, "VALID": 8, "TEST": 8}.items():
        monkeypatch.setattr(story, name, size)
    project = sabir.Project(story.write_project(tmp_path / "demo"), overrides=["run.device=cuda"])
    document = project.run()
    trained = [step for step in document["steps"] if step["kind"] == "adapter"]
    assert all(step["status"] == "run" and step["peak_bytes"] > 0 for step in trained)
    devices = {record["cost"]["device"] for record in project.store.records() if record["kind"] == "adapter"}
    assert devices <= {f"cuda:{index}" for index in range(torch.cuda.device_count())}
    assert ledger.last(project.store)["complete"]
