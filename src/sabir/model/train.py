"""One LoRA adapter from one set of rows, by transformers' Trainer and PEFT."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sabir.errors import SabirError
from sabir.model.loading import load_base, load_tokenizer, peak_device_bytes
from sabir.model.text import Example, TextBuilder
from sabir.tasks import Prompt

IGNORED = -100  # label of tokens that carry no loss
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training took: `tokens` read over all epochs, `cut_rows` whose source did not fit, last loss."""

    tokens: int
    steps: int
    cut_rows: int
    loss: float
    peak_bytes: int | None


@dataclass(frozen=True)
class LoraSettings:
    """What decides the adapter (see the reference of `lora:` in the config). `seed` is already the language's own."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...]
    dropout: float
    rslora: bool
    epochs: float
    learning_rate: float
    batch_size: int
    max_length: int
    warmup: float
    schedule: str
    weight_decay: float
    seed: int


def seed_of(seed: int, language: str) -> int:
    """A language's own seed: no two languages share one by accident, and none depends on the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{language}".encode()).digest()[:4], "big") >> 1


def train_adapter(
    rows: Sequence[tuple[Prompt, str]],
    *,
    base: Path,
    lora: LoraSettings,
    out: Path,
    checkpoints: Path,
    device: str,
    micro_batch: int,
    checkpoint_every_s: float,
    on_step: Callable[[int, int, float | None], None],
) -> Trained:
    """Train on (prompt, target) rows and leave a PEFT folder in `out`.

    Only answer tokens carry loss. A batch is `lora.batch_size` rows whatever `micro_batch` is. Goes on from
    the newest whole checkpoint in `checkpoints`; on SIGTERM saves one and raises SystemExit. Out of memory:
    once more with half the micro-batch.
    """
    sizes = [_divisor(lora.batch_size, micro_batch)]
    if sizes[0] > 1:
        sizes.append(_divisor(lora.batch_size, sizes[0] // 2))
    for size in sizes:
        try:
            return _train(rows, base, lora, out, checkpoints, device, size, checkpoint_every_s, on_step)
        except torch.OutOfMemoryError:
            logger.warning("out of memory at micro-batch %d", size)
        torch.cuda.empty_cache()  # outside the except block: its traceback holds the tensors
    peak = peak_device_bytes(device) or 0
    raise SabirError(
        "",
        f"out of memory on {device} (peak {peak / 2**30:.1f} GiB), last at a micro-batch of {sizes[-1]}.",
        "Lower run.micro_batch, lora.max_length or lora.rank.",
    )


def _divisor(whole: int, at_most: int) -> int:
    """The largest divisor of `whole` that is at most `at_most`."""
    return next(size for size in range(min(whole, at_most), 0, -1) if whole % size == 0)


def _train(
    rows: Sequence[tuple[Prompt, str]],
    base: Path,
    lora: LoraSettings,
    out: Path,
    checkpoints: Path,
    device: str,
    micro_batch: int,
    checkpoint_every_s: float,
    on_step: Callable[[int, int, float | None], None],
) -> Trained:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import Trainer, TrainingArguments, set_seed

    tokenizer = load_tokenizer(base)
    builder = TextBuilder(tokenizer, max_length=lora.max_length)
    examples = [builder.example(prompt, target) for prompt, target in rows]
    set_seed(lora.seed)
    model = get_peft_model(
        load_base(base, device=device),
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
            lora_dropout=lora.dropout,
            use_rslora=lora.rslora,
            bias="none",
            task_type=TaskType.CAUSAL_LM,
        ),
    )
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=lora.batch_size // micro_batch,
        num_train_epochs=lora.epochs,
        learning_rate=lora.learning_rate,
        lr_scheduler_type=lora.schedule,
        warmup_steps=lora.warmup,  # below 1: a share of all steps
        weight_decay=lora.weight_decay,
        train_sampling_strategy="group_by_length",
        seed=lora.seed,
        data_seed=lora.seed,
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        dataloader_pin_memory=device == "cuda",
        logging_steps=1,
        save_strategy="no",  # the callback saves by time
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
    )
    pulse = _pulse(on_step, checkpoint_every_s)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Rows(examples),
        data_collator=lambda batch: _right_padded(batch, tokenizer.pad_token_id),
        callbacks=[pulse],
    )
    trainer.remove_callback(_printer())
    result = trainer.train(resume_from_checkpoint=newest_checkpoint(checkpoints))
    if pulse.stopped:
        raise SystemExit(130)
    model.save_pretrained(str(out))
    (out / "README.md").unlink(missing_ok=True)  # a card full of blanks says nothing
    passes = sum(len(example.ids) for example in examples)
    return Trained(
        tokens=round(passes * lora.epochs),
        steps=trainer.state.global_step,
        cut_rows=sum(example.cut > 0 for example in examples),
        loss=result.training_loss,
        peak_bytes=peak_device_bytes(device),
    )


class _Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Examples as the Trainer wants them; `labels` carry loss on the answer only."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        example = self.examples[index]
        labels = [IGNORED] * example.n_prompt + example.ids[example.n_prompt :]
        return {"input_ids": example.ids, "labels": labels}


def _right_padded(batch: Sequence[dict[str, list[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in batch)

    def filled(key: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[key] + [filler] * (width - len(row[key])) for row in batch])

    mask = torch.tensor(
        [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch]
    )
    return {
        "input_ids": filled("input_ids", pad_id),
        "attention_mask": mask,
        "labels": filled("labels", IGNORED),
    }


def newest_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint, every broken or older one deleted.

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


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback


def _pulse(on_step: Callable[[int, int, float | None], None], checkpoint_every_s: float) -> Any:
    from transformers import TrainerCallback

    class Pulse(TrainerCallback):
        """Reports each step, saves by the clock, and on SIGTERM saves and ends."""

        def __init__(self) -> None:
            self.stopped = False
            self.saved_at = time.monotonic()
            self.loss: float | None = None

        def on_train_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if threading.current_thread() is threading.main_thread():
                self.before = signal.signal(signal.SIGTERM, self._stop)

        def on_train_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self.before)

        def _stop(self, *_: object) -> None:
            self.stopped = True

        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            self.loss = (logs or {}).get("loss", self.loss)

        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            on_step(state.global_step, state.max_steps, self.loss)
            if self.stopped:
                control.should_save = control.should_training_stop = True
            elif time.monotonic() - self.saved_at > checkpoint_every_s:
                control.should_save = True
                self.saved_at = time.monotonic()
            return control

    return Pulse()
