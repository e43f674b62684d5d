"""Where jobs run: the slots of this machine or of a cluster, and the backend that fills them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sabir.config import Config
from sabir.engine.backends import Backend, Slot
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.backends.local import LocalBackend, cpu_slots, gpu_slots
from sabir.engine.store import Store
from sabir.errors import InputError

WORKER_ENV = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for GPUs before the fork must not start CUDA
}


def slots(config: Config, workers: int | None = None) -> tuple[Slot, ...]:
    """The places for jobs on this machine: a GPU each, or equal shares of the cores.

    Raises InputError when a GPU is asked for and none is there. What a cluster has is not looked at.
    """
    from sabir.engine.backends.devices import cores, gpus

    wanted = workers or config.run.workers
    found = gpus() if config.run.device in ("auto", "cuda") else []
    if config.run.device == "cuda" and not found and config.run.backend != "ray":
        raise InputError("run.device", "is cuda, and no GPU is visible.", "Write device: auto or cpu.")
    if found:
        return gpu_slots(found[: wanted or len(found)], cores())
    return cpu_slots(wanted or cores(), cores())


def backend(
    config: Config, store: Store, workers: int | None, run_id: str, *, reads: Sequence[Path]
) -> Backend:
    """What the config's run section names. Raises InputError for a cluster that is not there, StoreError where a
    node of it does not see the store.

    Args:
        reads: what jobs read beside the store: every node must see it.
    """
    log = store.path / "jobs" / run_id / "server.txt"
    if config.run.backend == "ray":
        from sabir.engine.backends.ray import RayBackend

        memory = config.run.memory_gib
        return RayBackend(
            config.run.address,
            workers=workers or config.run.workers,
            memory_bytes=None if memory is None else int(memory * 2**30),
            device=config.run.device,
            env=WORKER_ENV,
            store_path=store.path,
            log=log,
            reads=reads,
        )
    places = slots(config, workers)
    if config.run.backend == "inline":
        return InlineBackend(places[0].device)  # type: ignore[return-value]  # its one slot is a tuple[Slot]
    threads = {key: value for key, value in places[0].env if key != "CUDA_VISIBLE_DEVICES"}
    return LocalBackend(places, env={**WORKER_ENV, **threads}, log=log)
