"""Clusters that begin and end: started here, not there at all, and three nodes of which one is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace

import pytest
from toys import ENV, HERE, Heard, do, lines, step, wait_for
from witness import command, marked, parent, printing_to

from sabir.config import load_config
from sabir.engine.backends import ray as ray_backend
from sabir.engine.backends.local import LocalBackend, cpu_slots
from sabir.engine.backends.ray import RayBackend
from sabir.engine.steps import Graph
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.facts import gather
from sabir.lock import Lock
from sabir.plan import plan
from small_project import settings, write_config, write_language

pytestmark = pytest.mark.ray


def made(address, store, *, env=ENV, workers=1, **rest):
    log = store.path / "server.txt"
    return RayBackend(address, workers=workers, device="cpu", env=env, store_path=store.path, log=log, **rest)


# --- one that is started here ----------------------------------------------------------------------------


def test_a_cluster_of_its_own_whatever_ray_address_says_and_nothing_is_left_of_it(store, monkeypatch):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("MARK", mark := uuid.uuid4().hex)
    before = signal.getsignal(signal.SIGTERM)
    backend = made(None, store)
    assert signal.getsignal(signal.SIGTERM) is before
    assert any("raylet" in command(pid) for pid in marked(mark))
    assert do([step("a")], store, backend).ran == ["a"]
    wait_for(lambda: not marked(mark))
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before
    assert list((store.path / "cache").iterdir()) == []  # of the look at the store


COORDINATOR = """
import sys
from dataclasses import replace
from toys import do, step
from sabir.engine.store import Store
from test_ray_cluster import made

store = Store(sys.argv[1])
dies = replace(step("a", args={"diary": sys.argv[2]}), run="ray_toys:ray_worker_dies")
do([dies, step("b", "slow", args={"diary": sys.argv[2], "seconds": float(sys.argv[3])})], store, made(None, store))
"""


def coordinator(store, diary, seconds, **rest):
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, store.path, diary, str(seconds)],
        env={**os.environ, "PYTHONPATH": path, **rest},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_ray_writes_nothing_where_the_progress_is_shown_even_when_a_worker_is_lost(store, diary):
    said, _ = coordinator(store, diary, 2).communicate(timeout=120)
    assert len(lines(diary)) == 3  # two tries, and one step after
    assert said == ""


def test_all_of_it_dies_when_the_coordinator_is_killed(store, diary):
    mark = uuid.uuid4().hex
    ours = coordinator(store, diary, 60, MARK=mark)
    try:
        wait_for(lambda: len(lines(diary)) == 2, 60)
    finally:
        ours.kill()
        ours.communicate()
    agents = "Agent"  # Ray's own, which end when they have looked for the rest of it for a minute
    wait_for(lambda: all(agents in command(pid) for pid in marked(mark)))


# --- one that is not there -------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_a_cluster_that_is_not_there_is_said_in_a_sentence(address, store, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where auto looks first
    monkeypatch.setattr(ray_backend, "ANSWER_S", 3.0)
    with pytest.raises(InputError) as caught:
        made(address, store)
    assert (caught.value.where, caught.value.message) == (
        "run.address",
        f"no Ray cluster answers at '{address}'.",
    )
    assert not store.path.exists()


def test_without_ray_the_command_that_installs_it_is_said(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed. Run: pip install 'sabir\[ray\]'"):
        made(None, store)


# --- three nodes -----------------------------------------------------------------------------------------


@pytest.fixture
def three_nodes(monkeypatch):
    """A head without cores, and three nodes with one each, all on this machine; this process is no part."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, wait=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def training(tmp_path):
    """The steps of one adapter of the embedded base, with checkpoints as often as can be."""
    write_language(tmp_path, "de", train=160)
    config = load_config(write_config(tmp_path, settings(["de"], baseline="none", merges={})))
    facts = gather(config, Lock(), {}, with_base=True, store=Store(tmp_path / "unused"))
    graph = plan(config, facts, selection=None, stale={}).graph
    adapter = graph["adapter/de"]
    return [graph["data/de"], replace(adapter, args={**adapter.args, "checkpoint_every_s": 0.0})]


def files(store, fingerprint):
    folder = store.folder(fingerprint)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "record.json"}


class Loses(Heard):
    """Takes the node away that runs the training, once there is a checkpoint."""

    def __init__(self, cluster, store):
        super().__init__()
        self.cluster, self.store, self.lost = cluster, store, []

    def progress(self, step, event):
        super().progress(step, event)
        if not self.lost and list(self.store.path.glob("partial/*/checkpoints/checkpoint-*")):
            (log,) = self.store.path.glob("jobs/run/0001/log.txt")
            raylet = parent(parent(parent(printing_to(log))))  # of Ray's worker, of our server, of the job
            (node,) = [
                node
                for node in self.cluster.worker_nodes
                if node.all_processes["raylet"][0].process.pid == raylet
            ]
            self.lost.append(event["done"])
            self.cluster.remove_node(node, allow_graceful=False)


def test_a_training_whose_node_is_lost_goes_on_elsewhere_from_its_checkpoint_to_the_same_bytes(
    three_nodes, tmp_path
):
    steps = training(tmp_path)
    alone = Store(tmp_path / "alone")
    do(steps, alone, LocalBackend(cpu_slots(1, 1), env={}, log=alone.path / "server.txt"))
    store = Store(tmp_path / "store")
    heard = Loses(three_nodes, store)
    result = do(steps, store, made(three_nodes.address, store, env={}), listener=heard)
    assert (result.ran, result.failed) == (["data/de", "adapter/de"], {})
    first, again = (i for i, said in enumerate(heard.said) if said == "start adapter/de")
    steps_done = [said for said in heard.said[again:] if said.startswith("progress adapter/de")]
    assert "progress adapter/de 1/20" in heard.said[first:again]
    assert "progress adapter/de 1/20" not in steps_done
    assert steps_done[-1] == "progress adapter/de 20/20"
    for fingerprint in Graph(steps).fingerprints.values():
        assert files(store, fingerprint) == files(alone, fingerprint)
    others = [three_nodes.head_node, *three_nodes.worker_nodes]  # they are not ours to end
    assert [node.all_processes["raylet"][0].process.poll() for node in others] == [None] * 3
