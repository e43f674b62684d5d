"""Rivals of merging in a project that lives: what they cost at an update, and whose baseline is whose."""

from __future__ import annotations

import shutil

import pytest

import sabir
from small_project import settings, write_config, write_language, write_project

INLINE = ["run.backend=inline"]
TWO = ("de", "en")
MERGES = {"average": {"method": "linear"}, "ties": {"method": "ties", "density": 0.5}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A project after its first run."""
    folder = tmp_path_factory.mktemp("rivals")
    rivals = {"merged_rank": True, "routed": "py3langid", "stress": ["short"]}
    config = write_project(folder, TWO, merges=MERGES, rivals=rivals)
    sabir.Project(config, overrides=INLINE).run()
    return config


def copied(ran, tmp_path):
    shutil.copytree(ran.parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / ran.name


def changed(config, **changes):
    given = {"merges": MERGES, "rivals": {"merged_rank": True, "routed": "py3langid"}, **changes}
    write_config(config.parent, settings(**{"languages": TWO, **given}), config.name)
    return {step["name"]: step for step in sabir.Project(config).plan()["steps"]}


def trained(steps):
    return {name for name, step in steps.items() if step["kind"] == "adapter" and step["status"] == "run"}


def test_a_new_language_trains_no_combined_adapter_of_whatever_rank(ran, tmp_path):
    config = copied(ran, tmp_path)
    write_language(config.parent, "fr")
    steps = changed(config, languages=("de", "en", "fr"))
    assert trained(steps) == {"adapter/fr"}
    assert steps["adapter/combined[rank=8]"]["why"].startswith("trained on older data (fr is new)")
    assert "adapter/combined[rank=12]" not in steps
    project = sabir.Project(config)
    with_baseline = {step["name"]: step for step in project.plan(with_baseline=True)["steps"]}
    assert trained(with_baseline) == {"adapter/fr", "adapter/combined", "adapter/combined[rank=12]"}


def test_another_prompt_is_no_older_data(ran, tmp_path):
    config = copied(ran, tmp_path)
    task = {"name": "classification", "labels": ["delivery", "payment"], "instruction": "What is it about?"}
    steps = changed(config, task=task)
    assert trained(steps) == {"adapter/de", "adapter/en", "adapter/combined", "adapter/combined[rank=8]"}


def test_other_metrics_leave_the_baseline_what_it_was(ran, tmp_path):
    config = copied(ran, tmp_path)
    write_language(config.parent, "de", train=30)
    task = {"name": "classification", "labels": ["delivery", "payment"], "metrics": ["macro_f1"]}
    assert trained(changed(config, task=task)) == {"adapter/de"}


def test_another_config_of_the_store_has_a_baseline_of_its_own(ran, tmp_path):
    config = copied(ran, tmp_path)
    task = {"name": "classification", "labels": ["delivery", "payment"], "instruction": "Topic?"}
    other = write_config(config.parent, settings(TWO, merges=MERGES, task=task), "other.yaml")
    steps = {step["name"]: step for step in sabir.Project(other).plan()["steps"]}
    assert steps["adapter/combined"]["status"] == "run"


def test_what_is_measured_beside_is_estimated_and_costed_beside(ran, tmp_path):
    config = copied(ran, tmp_path)
    rivals = {"merged_rank": True, "routed": "py3langid", "stress": ["short", "mislabelled"], "shots": 1}
    changed(config, rivals=rivals)
    totals = sabir.Project(config).plan()["totals"]
    beside = [row for row in totals if row["route"] == "beside"]
    assert beside
    assert all(row["estimated_device_s"] is not None for row in beside)
    costs = sabir.Project(ran).show()["costs"]
    assert {row["component"] for row in costs if row["route"] == "beside"} >= {"train", "evaluate"}
    trainings = [row for row in costs if (row["route"], row["component"]) == ("merged", "train")]
    assert trainings[0]["device_s"] < sum(row["device_s"] for row in costs if row["component"] == "train")


def test_the_document_says_where_texts_were_routed_and_what_a_server_holds(ran):
    shown = sabir.Project(ran).show()
    assert set(shown["routes"]) == set(TWO)
    assert sum(shown["routes"]["de"].values()) == 6
    own = 4 * sum(_sides())  # rank 4
    assert shown["parameters"]["routed"] == 2 * own
    assert {row["language"] for row in shown["standings"]} == {*TWO, "macro"}
    mean = [r for r in shown["scores"] if (r["model"], r["language"]) == ("adapter/<language>", "macro")]
    assert mean
    assert mean[0]["low"] is not None


def _sides():
    from sabir.lora.checks import base_linear_shapes
    from sabir.work.bases import EMBEDDED_FOLDER

    shapes = base_linear_shapes(EMBEDDED_FOLDER).items()
    return (rows + columns for name, (rows, columns) in shapes if ".layers." in name)
