"""The files to copy for clusters: whole, and with one shared folder for all nodes."""

from __future__ import annotations

from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "examples" / "clusters"


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_all_pods_of_kuberay_have_one_image_and_mount_one_claim_at_one_path():
    claim, cluster = documents("kuberay.yaml")
    spec = cluster["spec"]
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    containers = [container for pod in pods for container in pod["containers"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert {volume["persistentVolumeClaim"]["claimName"] for pod in pods for volume in pod["volumes"]} == {
        claim["metadata"]["name"]
    }
    assert {mount["mountPath"] for one in containers for mount in one["volumeMounts"]} == {"/shared"}
    assert len({one["image"] for one in containers}) == 1
    assert f"ray:{spec['rayVersion']}-" in (FOLDER / "Dockerfile").read_text()


def test_skypilot_mounts_the_volume_that_is_made_for_it_where_the_project_is():
    (task,), (volume,) = documents("skypilot.yaml"), documents("skypilot-volume.yaml")
    ((path, name),) = task["volumes"].items()
    assert name == volume["name"]
    assert task["envs"]["PROJECT"].startswith(f"{path}/")
    assert volume["config"]["access_mode"] == "ReadWriteMany"


def test_every_file_that_the_page_names_is_there():
    docs = FOLDER.parents[1] / "docs"
    links = [part.partition(")")[0] for part in (docs / "clusters.md").read_text().split("](")[1:]]
    assert links
    assert [link for link in links if not (docs / link).exists()] == []
