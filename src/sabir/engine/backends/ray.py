"""Jobs on a Ray cluster: one plain task a job, with what it takes of a node.

Ray finds the node and says when a worker or a node is lost; everything else is ours: retries, progress,
checkpoints (see `sabir.engine.backends.on_node` for the other end). The store must be one path for all nodes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sabir.engine.backends import Slot, on_node
from sabir.engine.backends.devices import cores, gpus
from sabir.engine.backends.local import thread_caps
from sabir.engine.store import write_atomic
from sabir.errors import InputError, SabirError, StoreError

ANSWER_S = 15.0  # a cluster that has not answered by then is not there; ray.init itself waits for 286 s
LOOK_S = 60.0  # a node may have to start a process first
END_S = 5.0  # for a killed job to be gone
STOPPED = 130
OBJECTS_BYTES = 80 * 2**20  # Ray's minimum: nothing but exit codes goes through its own store
QUIET = {  # read by Ray when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # else news of lost workers go to our standard output
}
CONNECT = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has in all; `gpu` is the type of its GPUs, or ""."""

    id: str
    address: str
    cpus: int
    gpus: int
    memory_bytes: int
    gpu: str = ""

    def room(self, cpus: int, gpus: int, memory_bytes: int | None) -> int:
        """How many jobs of these needs fit side by side."""
        shares = [self.cpus // cpus]
        if gpus:
            shares.append(self.gpus // gpus)
        if memory_bytes:
            shares.append(self.memory_bytes // memory_bytes)
        return min(shares)


class RayBackend:
    """Connects, or starts a cluster of this machine alone, and looks whether every node sees the store.

    Args:
        address: None starts a cluster here, which ends with this backend; "auto" or "host:port" is one that
            is there already, of which this machine is a node. In a program that is connected to Ray already,
            its own connection is used, whatever the address.
        workers: jobs side by side; None: as many as fit. More than fit wait their turn, or for the cluster to
            grow.
        cpus: cores of a job; None: an equal share.
        memory_bytes: memory that Ray sets aside for a job; None: it does not look at memory.
        device: "auto" is "cuda" when a node has GPUs; then every job gets one.
        env: environment of all jobs, on top of the nodes' own.
        store_path: the folder that all nodes share.
        log: file beside which the servers on the nodes write theirs.
        reads: further paths that jobs read (data, base model), which every node must see.

    Raises InputError when Ray is not installed, the cluster is not there, has no room for a job, or runs
    another version of sabir; StoreError for a node that does not see the store.
    """

    def __init__(
        self,
        address: str | None,
        *,
        workers: int | None,
        cpus: int | None = None,
        memory_bytes: int | None = None,
        device: str,
        env: Mapping[str, str],
        store_path: Path,
        log: Path,
        reads: Sequence[Path] = (),
    ):
        paths = [env.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]  # where the user's functions are found
        self._env = {**env, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        self._log = log
        self._running: dict[Future[int], Any] = {}
        self._told = False
        self._connection = _Connection(address, workers=workers, cpus=cpus, device=device)
        self._ray = self._connection.ray
        try:
            found = nodes(self._ray.nodes())
            self.slots = slots(found, workers=workers, cpus=cpus, memory_bytes=memory_bytes, device=device)
            need = self.slots[0]
            used = [node for node in found if node.room(need.cpus, need.gpus, need.memory_bytes)]
            self._check_store(used, store_path, reads)
            # max_calls: Ray would end its process after each task with a GPU, and our servers with it
            self._task = self._ray.remote(max_retries=0, max_calls=0)(on_node.run_job)
        except BaseException:
            self._connection.close()
            raise

    def submit(self, job_file: Path, slot: Slot, preload: str | None) -> Future[int]:
        task = self._task.options(num_cpus=slot.cpus, num_gpus=slot.gpus, memory=slot.memory_bytes)
        ref = task.remote(str(job_file), preload, self._env, dict(slot.env), str(self._log))
        future: Future[int] = Future()
        self._running[future] = ref
        ref.future().add_done_callback(lambda ended: self._end(future, job_file, ended))
        return future

    def stop(self) -> None:
        self._told = True
        self._cancel()

    def kill(self) -> None:
        """A job hears of it when told twice, and ends with all that it started; else Ray ends its worker."""
        if not self._running:
            return
        self._cancel()
        if not self._told:
            time.sleep(3 * on_node.HEARD_S)
            self._cancel()
        wait(tuple(self._running), timeout=END_S)
        self._cancel(force=True)
        wait(tuple(self._running), timeout=END_S)

    def close(self) -> None:
        self.kill()
        self._connection.close()
        for future in tuple(self._running):  # Ray, now gone, will not say it
            self._settle(future, -signal.SIGKILL)

    def _cancel(self, *, force: bool = False) -> None:
        for ref in tuple(self._running.values()):
            self._ray.cancel(ref, force=force)

    def _end(self, future: Future[int], job_file: Path, ended: Future[int]) -> None:
        error = ended.exception()
        code = ended.result() if error is None else exit_code(error)
        if error is not None and code == 1:
            with contextlib.suppress(OSError):  # then only the code tells
                write_atomic(job_file.parent / "error.json", _described(error))
        self._settle(future, code)

    def _settle(self, future: Future[int], code: int) -> None:
        if self._running.pop(future, None) is not None:
            future.set_result(code)

    def _check_store(self, found: Sequence[Node], store_path: Path, reads: Sequence[Path]) -> None:
        """One look from every node, all at once."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        folder = store_path / "cache" / f"seen-{uuid.uuid4().hex}"
        token = uuid.uuid4().hex
        try:
            folder.mkdir(parents=True)
            (folder / "token").write_text(token, encoding="utf-8")
        except OSError as error:
            raise StoreError(
                str(store_path), f"cannot be written: {error.strerror}.", "Choose another store, or free it."
            ) from error
        try:
            look = self._ray.remote(max_retries=0, num_cpus=0)(on_node.look)
            asked = {
                node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
                .remote(str(folder / "token"), str(folder / node.id), [str(path) for path in reads])
                .future()
                for node in found
            }
            wait(asked.values(), timeout=LOOK_S)
            looks = {node: _outcome(future) for node, future in asked.items()}
            written = {node for node in found if _text(folder / node.id) == token}
        finally:
            for path in (*folder.iterdir(), folder):
                path.unlink() if path != folder else path.rmdir()
        problem = judge(looks, written, token=token, store_path=store_path)
        if problem is not None:
            raise problem


def nodes(described: Sequence[Mapping[str, Any]]) -> list[Node]:
    """The nodes that are alive, of what `ray.nodes()` gives."""
    found = []
    for node in described:
        if node["Alive"]:
            has = node["Resources"]
            kinds = [name.partition(":")[2] for name in has if name.startswith("accelerator_type:")]
            found.append(
                Node(
                    node["NodeID"],
                    node["NodeManagerAddress"],
                    int(has.get("CPU", 0)),
                    int(has.get("GPU", 0)),
                    int(has.get("memory", 0)),
                    kinds[0] if kinds else "",
                )
            )
    return found


def slots(
    found: Sequence[Node], *, workers: int | None, cpus: int | None, memory_bytes: int | None, device: str
) -> tuple[Slot, ...]:
    """The places for jobs on these nodes: one per GPU, or shares of the cores.

    Raises InputError when not one job fits.
    """
    with_gpus = [node for node in found if node.gpus] if device != "cpu" else []
    if device == "cuda" and not with_gpus:
        raise InputError(
            "run.device", "is cuda, and no node of the cluster has a GPU.", "Write device: auto or cpu."
        )
    if with_gpus:
        cpus = cpus or max(1, min(node.cpus // node.gpus for node in with_gpus))
    else:
        cpus = cpus or _share([node.cpus for node in found], workers)
    gpus_each = 1 if with_gpus else 0
    room = sum(node.room(cpus, gpus_each, memory_bytes) for node in found)
    if not room:
        memory = f" and {memory_bytes / 2**30:.1f} GiB of memory" if memory_bytes else ""
        gpu = ", a GPU" if with_gpus else ""
        raise InputError(
            "run.backend",
            f"is ray, and no node of the cluster has {cpus} CPU{'s' if cpus > 1 else ''}{gpu}{memory} for a job.",
            "Add a node that has, or ask for less.",
        )
    if with_gpus:
        kinds = {node.gpu for node in with_gpus}
        name = f"cuda {kinds.pop()}".strip() if len(kinds) == 1 else "cuda"
    else:
        name = f"cpu x {cpus}"
    device = "cuda" if with_gpus else "cpu"
    slot = Slot(device, name, thread_caps(cpus), cpus=cpus, gpus=gpus_each, memory_bytes=memory_bytes)
    return (slot,) * (workers or room)


def _share(cpus: Sequence[int], workers: int | None) -> int:
    """The most cores for each of so many workers, none of which spans two nodes; 1 when they do not fit."""
    if workers is None:
        return 1
    fitting = (share for share in range(max(cpus), 1, -1) if sum(own // share for own in cpus) >= workers)
    return next(fitting, 1)


def judge(
    looks: Mapping[Node, on_node.Look | BaseException], written: set[Node], *, token: str, store_path: Path
) -> SabirError | None:
    """What keeps these nodes from running jobs, or None.

    Args:
        looks: what each node said, or why it said nothing.
        written: the nodes whose answer lies in the store, seen from here.
    """
    ours = metadata.version("sabir")
    said: dict[Node, on_node.Look] = {}
    for node, seen in looks.items():
        if isinstance(seen, BaseException):
            return InputError(
                "run.address",
                f"the node {node.address} cannot run sabir: {_last_line(seen)}",
                f"Install sabir {ours} there, in the environment that Ray runs in.",
            )
        if seen.versions["sabir"] != ours:
            return InputError(
                "run.address",
                f"the node {node.address} has sabir {seen.versions['sabir']}, and this is {ours}.",
                "Install the same version on every node.",
            )
        said[node] = seen
    blind = [node.address for node, seen in said.items() if seen.token != token or node not in written]
    if blind:
        return StoreError(
            str(store_path),
            f"{_named(blind)} not see this folder, or cannot write there.",
            "Put the store on a disk that all nodes share under one path.",
        )
    for path in dict.fromkeys(path for seen in said.values() for path in seen.missing):
        without = [node.address for node, seen in said.items() if path in seen.missing]
        return InputError(path, f"{_named(without)} not see it.", "Put it on the disk that all nodes share.")
    return None


def exit_code(error: BaseException) -> int:
    """The code of a job of whose task Ray reports this: killed, out of memory, stopped, or failed (1)."""
    from ray import exceptions

    if isinstance(error, exceptions.OutOfMemoryError):
        return errno.ENOMEM
    if isinstance(error, exceptions.TaskCancelledError):
        return STOPPED
    failed = (exceptions.RayTaskError, exceptions.TaskUnschedulableError, exceptions.RuntimeEnvSetupError)
    if isinstance(error, exceptions.RayError) and not isinstance(error, failed):
        return -signal.SIGKILL  # the worker or its node is gone
    return 1


class _Connection:
    """This process's connection to Ray, and what of it is ours to end."""

    def __init__(self, address: str | None, *, workers: int | None, cpus: int | None, device: str):
        os.environ.update(QUIET)
        try:
            import ray
        except ImportError as error:
            raise InputError(
                "run.backend", "is ray, and Ray is not installed.", "Run: pip install 'sabir[ray]'."
            ) from error
        self.ray = ray
        self._ours = not ray.is_initialized()
        if not self._ours:
            return
        on_main = threading.current_thread() is threading.main_thread()
        self._before = signal.getsignal(signal.SIGTERM) if on_main else None  # Ray puts its own in its place
        try:
            if address is None:
                self._start_here(workers, cpus, device)
            else:
                _look_for(address)
                ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                "run.backend" if address is None else "run.address",
                f"Ray does not start: {_last_line(error)}",
                "Its own log is in /tmp/ray/session_latest/logs.",
            ) from error
        finally:
            self._restore()

    def _start_here(self, workers: int | None, cpus: int | None, device: str) -> None:
        """A cluster of this machine alone, in which so many workers fit whatever the machine has."""
        each = cpus or max(1, cores() // (workers or cores()))
        self.ray.init(
            "local",  # whatever RAY_ADDRESS says
            num_cpus=max(cores(), each * (workers or 1)),
            num_gpus=0 if device == "cpu" else len(gpus()),
            object_store_memory=OBJECTS_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )

    def close(self) -> None:
        if self._ours:
            self._ours = False
            self.ray.shutdown()
            self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def _look_for(address: str) -> None:
    """Raises InputError when no cluster is there.

    Another process asks, because Ray tries for minutes, and then ends the process that asked.
    """
    problem = f"no Ray cluster answers at {address!r}."
    if "://" not in address:
        try:
            asked = subprocess.run(
                [sys.executable, "-c", CONNECT, address],
                capture_output=True,
                text=True,
                timeout=ANSWER_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pass
        else:
            if asked.returncode == 0:
                return
            if "version mismatch" in asked.stderr.lower():
                problem = (
                    f"the cluster at {address!r} has another version of Ray or Python than this machine."
                )
    raise InputError(
        "run.address",
        problem,
        "Run sabir on a node of the cluster, with address: auto or its host:port (the port is 6379 as a "
        "rule); without an address, one is started on this machine.",
    )


def _outcome(future: Future[on_node.Look]) -> on_node.Look | BaseException:
    if not future.done():
        return TimeoutError(f"no answer within {LOOK_S:.0f} s.")
    return future.exception() or future.result()


def _described(error: BaseException) -> dict[str, str]:
    cause = getattr(error, "cause", None)
    if isinstance(cause, SabirError):
        return {"where": cause.where, "message": cause.message, "fix": cause.fix}
    return {"where": "", "message": f"Ray did not run its task: {_last_line(error)}", "fix": ""}


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[-1].strip() if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _named(addresses: Sequence[str]) -> str:
    if len(addresses) == 1:
        return f"the node {addresses[0]} does"
    return f"the nodes {', '.join(addresses)} do"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
