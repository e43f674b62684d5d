"""Checkpoints of a training: which one is whole, decided by us."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path


def newest_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint, every broken one deleted.

    Whole means: trainer_state.json parses and names the folder's step, the weights open, and every byte of
    the optimizer's, scheduler's and random state is as it was written. Trainer itself would die on a
    half-written one.
    """
    found = []
    for path in folder.glob("checkpoint-*"):
        if _is_whole(path):
            found.append((int(path.name.rpartition("-")[2]), path))
        else:
            shutil.rmtree(path)
    return str(max(found)[1]) if found else None


def _is_whole(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((path / "trainer_state.json").read_bytes())
        if state["global_step"] != int(path.name.rpartition("-")[2]):
            return False
        with safe_open(str(path / "adapter_model.safetensors"), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (not a mapping)
                file.get_tensor(key)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            with zipfile.ZipFile(path / name) as archive:  # what torch.save writes, with a checksum per entry
                if archive.testzip() is not None:
                    return False
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, SafetensorError):
        return False
    return True
