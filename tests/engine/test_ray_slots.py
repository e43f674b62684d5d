"""What is decided without a cluster: places for jobs, and what is wrong with a node."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from sabir.engine.backends.on_node import Look
from sabir.engine.backends.ray import Node, judge, nodes, slots
from sabir.errors import InputError, StoreError

GIB = 2**30
OURS = {"sabir": metadata.version("sabir"), "python": "3.11.7"}


def node(name, cpus, gpus=0, memory=64, gpu=""):
    return Node(name, f"10.0.0.{name}", cpus, gpus, memory * GIB, gpu)


def places(found, *, workers=None, cpus=None, memory_bytes=None, device="auto"):
    return slots(found, workers=workers, cpus=cpus, memory_bytes=memory_bytes, device=device)


def test_without_gpus_each_core_is_a_place_and_no_job_spans_two_nodes():
    assert len(places([node("1", 4), node("2", 3)])) == 7
    assert len(places([node("1", 4), node("2", 3)], cpus=2)) == 3


@pytest.mark.parametrize(
    ("cpus", "workers", "share"), [([4, 4, 4], 2, 4), ([4, 4, 4], 4, 2), ([4, 4, 4], 5, 2), ([2], 4, 1)]
)
def test_workers_share_the_cores_of_the_nodes(cpus, workers, share):
    made = places([node(str(i), own) for i, own in enumerate(cpus)], workers=workers)
    assert len(made) == workers
    assert {(slot.cpus, dict(slot.env)["OMP_NUM_THREADS"]) for slot in made} == {(share, str(share))}


def test_each_gpu_is_a_place_with_its_share_of_the_cores():
    made = places([node("0", 4), node("1", 32, 8, gpu="H100"), node("2", 16, 2, gpu="H100")])
    assert len(made) == 10
    assert {(slot.device, slot.device_name, slot.gpus, slot.cpus) for slot in made} == {
        ("cuda", "cuda H100", 1, 4)
    }


def test_gpus_are_left_alone_where_the_config_says_cpu():
    assert {slot.gpus for slot in places([node("1", 4, 2)], device="cpu")} == {0}


def test_memory_limits_the_jobs_of_a_node():
    assert len(places([node("1", 8, memory=64), node("2", 8, memory=16)], memory_bytes=20 * GIB)) == 3


def test_a_cluster_without_a_gpu_is_refused_where_one_is_asked_for():
    with pytest.raises(InputError, match="is cuda, and no node of the cluster has a GPU"):
        places([node("1", 4)], device="cuda")


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"cpus": 8}, "has 8 CPUs for a job"), ({"memory_bytes": 99 * GIB}, "has 1 CPU and 99.0 GiB of memory")],
)
def test_a_job_that_fits_nowhere_is_refused_with_its_needs(asked, words):
    with pytest.raises(InputError, match=words):
        places([node("1", 4)], workers=3, **asked)


def test_a_node_that_is_dead_is_not_counted():
    has = {"CPU": 4.0, "GPU": 1.0, "memory": float(8 * GIB), "accelerator_type:L4": 1.0}
    described = {"NodeID": "a", "NodeManagerAddress": "10.0.0.a", "Resources": has}
    assert nodes([{**described, "Alive": True}, {**described, "NodeID": "b", "Alive": False}]) == [
        node("a", 4, 1, memory=8, gpu="L4")
    ]


# --- what nodes say at the start -------------------------------------------------------------------------

HERE, THERE = node("1", 4), node("2", 4)
STORE = Path("/shared/store")


def verdict(there, *, written=(HERE, THERE)):
    looks = {HERE: Look("token", (), OURS), THERE: there}
    return judge(looks, set(written), token="token", store_path=STORE)


def test_nodes_that_see_the_store_are_fine():
    assert verdict(Look("token", (), OURS)) is None


@pytest.mark.parametrize("token", [None, "of another store"])
def test_a_node_without_the_store_is_named(token):
    problem = verdict(Look(token, (), OURS))
    assert isinstance(problem, StoreError)
    assert str(problem) == (
        "/shared/store: the node 10.0.0.2 does not see this folder, or cannot write there. "
        "Put the store on a disk that all nodes share under one path."
    )


def test_a_node_whose_answer_does_not_arrive_is_named():
    assert "the node 10.0.0.2 does not see" in str(verdict(Look("token", (), OURS), written=[HERE]))


def test_a_node_with_another_version_is_named_with_both():
    problem = verdict(Look("token", (), {**OURS, "sabir": "0.0.1"}))
    assert isinstance(problem, InputError)
    assert f"the node 10.0.0.2 has sabir 0.0.1, and this is {OURS['sabir']}." in str(problem)


def test_a_node_that_cannot_answer_is_named_with_its_reason():
    problem = verdict(RuntimeError("a long trace\nModuleNotFoundError: No module named 'sabir'"))
    assert isinstance(problem, InputError)
    assert "the node 10.0.0.2 cannot run sabir: ModuleNotFoundError: No module named 'sabir'." in str(problem)


def test_data_that_a_node_does_not_see_is_named():
    problem = verdict(Look("token", ("/home/me/data",), OURS))
    assert str(problem) == (
        "/home/me/data: the node 10.0.0.2 does not see it. Put it on the disk that all nodes share."
    )
