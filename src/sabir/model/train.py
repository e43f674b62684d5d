"""One LoRA adapter from one set of rows, by transformers' Trainer and PEFT."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sabir.errors import SabirError
from sabir.lora.files import WEIGHTS, open_adapter
from sabir.model.batches import left_padded
from sabir.model.checkpoints import newest_checkpoint
from sabir.model.loading import load_base, load_tokenizer, peak_device_bytes
from sabir.model.text import Example, TextBuilder
from sabir.tasks import Prompt

IGNORED = -100  # label of tokens that carry no loss
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training took: `tokens` read over all epochs, `cut_rows` whose source did not fit, `loss` as the
    mean over the last tenth of its steps."""

    tokens: int
    steps: int
    cut_rows: int
    loss: float
    peak_bytes: int | None


@dataclass(frozen=True)
class LoraSettings:
    """What decides the adapter: `lora:` of the config; `seed` is already the language's own."""

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
    parent: Path | None = None,
    epochs: Path | None = None,
) -> Trained:
    """Train on (prompt, target) rows and leave a PEFT folder in `out`.

    Starts from a fresh adapter, or from the weights of the one in the folder `parent` (the state of its
    optimizer is gone: warm-up and schedule begin anew). Only answer tokens carry loss. A batch is
    `lora.batch_size` rows whatever `micro_batch` is. Goes on from the newest whole checkpoint in `checkpoints`,
    with the bits of a training that was never stopped; on SIGTERM saves one and raises SystemExit. With a folder
    `epochs` it leaves there the adapter as it was after each epoch but the last, "1", "2" and so on. Out of
    memory: once more with half the micro-batch. Raises SabirError when the parent is no adapter of these
    settings.
    """
    attempt = partial(
        _train,
        rows,
        base,
        lora,
        parent,
        out,
        checkpoints,
        device,
        pulse=_pulse(on_step, checkpoint_every_s, epochs),
    )
    sizes = [_divisor(lora.batch_size, micro_batch)]
    if sizes[0] > 1:
        sizes.append(_divisor(lora.batch_size, sizes[0] // 2))
    for size in sizes:
        try:
            return attempt(size)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            logger.warning("out of memory at micro-batch %d", size)
        torch.cuda.empty_cache()  # outside the except block: its traceback holds the tensors
    peak = peak_device_bytes(device)
    at_peak = f" (peak {peak / 2**30:.1f} GiB)" if peak else ""
    raise SabirError(
        "",
        f"out of memory on {device}{at_peak}, last at a micro-batch of {sizes[-1]}.",
        "Lower run.micro_batch, lora.max_length or lora.rank.",
    )


def _divisor(whole: int, at_most: int) -> int:
    """The largest divisor of `whole` that is at most `at_most`."""
    return next(size for size in range(min(whole, at_most), 0, -1) if whole % size == 0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """True for a GPU's out-of-memory error, and for the plain RuntimeError that a CPU raises."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _train(
    rows: Sequence[tuple[Prompt, str]],
    base: Path,
    lora: LoraSettings,
    parent: Path | None,
    out: Path,
    checkpoints: Path,
    device: str,
    micro_batch: int,
    *,
    pulse: Any,
) -> Trained:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import PrinterCallback, TrainingArguments, set_seed

    with _stoppable(pulse):
        builder = TextBuilder(load_tokenizer(base), max_length=lora.max_length)
        examples = [builder.example(prompt, target) for prompt, target in rows]
        set_seed(lora.seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft 0.21
            model = get_peft_model(
                load_base(base, device=device),
                LoraConfig(
                    r=lora.rank,
                    lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT computes with it as a float
                    target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
                    lora_dropout=lora.dropout,
                    use_rslora=lora.rslora,
                    bias="none",
                    task_type=TaskType.CAUSAL_LM,
                ),
            )
        if parent is not None:
            _start_from(parent, model, lora)
        arguments = TrainingArguments(
            output_dir=str(checkpoints),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=lora.batch_size // micro_batch,
            num_train_epochs=lora.epochs,
            learning_rate=lora.learning_rate,
            lr_scheduler_type=lora.schedule,
            warmup_steps=lora.warmup,  # below 1: a share of all steps
            weight_decay=lora.weight_decay,
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
        trainer = _answer_trainer()(
            model=model,
            args=arguments,
            train_dataset=_Rows(examples),
            data_collator=partial(_collated, pad_id=builder.pad_id),
            callbacks=[pulse],
        )
        trainer.remove_callback(PrinterCallback)
        pulse.training = True
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*mtime", UserWarning)  # checkpoints are rotated by step
            trainer.train(resume_from_checkpoint=newest_checkpoint(checkpoints))
        pulse.training = False
        if pulse.stopped:
            raise SystemExit(130)
    model.save_pretrained(str(out))
    (out / "README.md").unlink(missing_ok=True)  # a card full of blanks says nothing
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 10) :]
    return Trained(
        tokens=round(sum(len(example.ids) for example in examples) * lora.epochs),
        steps=trainer.state.global_step,
        cut_rows=sum(example.cut > 0 for example in examples),
        loss=sum(last) / len(last),
        peak_bytes=peak_device_bytes(device),
    )


def _start_from(parent: Path, model: Any, lora: LoraSettings) -> None:
    """Give a fresh adapter its parent's weights. Raises SabirError unless they are of the same settings."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapter = open_adapter(parent)
    scale = lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)
    theirs = load_file(adapter.path / WEIGHTS)
    ours = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = [{name: list(tensor.shape) for name, tensor in one.items()} for one in (theirs, ours)]
    if shapes[0] != shapes[1] or any(adapter.scale(module) != scale for module in adapter.shapes):
        raise SabirError(
            "",
            "the adapter to go on from has another rank, alpha, rslora or targets than lora: asks for, or stands "
            "on another base.",
            "Write update: scratch, or the settings it was trained with.",
        )
    set_peft_model_state_dict(model, theirs)


@contextmanager
def _stoppable(pulse: Any) -> Iterator[None]:
    """SIGTERM ends the block: at once before and after the steps, with a checkpoint between them."""

    def stop(*_: object) -> None:
        pulse.stopped = True
        if not pulse.training:
            raise SystemExit(130)

    pulse.training = False  # an attempt that ran out of memory left it on
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


class _Order(torch.utils.data.Sampler):  # type: ignore[type-arg]
    """Rows of like length together, in an order that depends on (seed, epoch) alone.

    transformers' own sampler of the kind draws from the global random state: after a resume in the middle of
    an epoch it would give another order, and with it another adapter.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int):
        self.lengths, self.batch, self.seed = list(lengths), batch, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch, generator=generator))


def _collated(batch: Sequence[dict[str, list[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows filled up on the left, so that the answers of all rows end at the same column."""
    ids, mask = left_padded([row["input_ids"] for row in batch], pad_id, torch.device("cpu"))
    labels, _ = left_padded([row["labels"] for row in batch], IGNORED, torch.device("cpu"))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}


def _answer_trainer() -> Any:
    from transformers import Trainer

    class AnswerTrainer(Trainer):
        """Computes logits where there is an answer, and nowhere else.

        The prompt's logits carry no loss; with a large vocabulary they are most of the memory, and on the
        embedded base they are a third of the time.
        """

        def _get_train_sampler(self, train_dataset=None):  # type: ignore[no-untyped-def]
            lengths = [len(example.ids) for example in self.train_dataset.examples]
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return _Order(lengths, batch, self.args.seed)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
            labels = inputs.pop("labels")
            first = int((labels != IGNORED).any(0).nonzero()[0])  # leftmost column of any answer, at least 1
            wanted = labels[:, first:]  # (b, k)
            k = wanted.shape[1]
            outputs = model(**inputs, logits_to_keep=k + 1, use_cache=False)
            logits = outputs.logits[:, -(k + 1) : -1].float()  # (b, k, V): each column predicts the next one
            total = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            count = num_items_in_batch if num_items_in_batch is not None else (wanted != IGNORED).sum()
            loss = total / count
            return (loss, outputs) if return_outputs else loss

    return AnswerTrainer


def _pulse(
    on_step: Callable[[int, int, float | None], None], checkpoint_every_s: float, epochs: Path | None
) -> Any:
    from transformers import TrainerCallback

    class Pulse(TrainerCallback):
        """Reports each step, saves by the clock, keeps each epoch's adapter where asked to, and when it was
        `stopped` saves and ends."""

        def __init__(self) -> None:
            self.stopped = False
            self.training = False
            self.saved_at = time.monotonic()

        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            """After each step, before the Trainer saves: `logging_steps` is 1."""
            if not logs or "loss" not in logs:
                return control
            on_step(state.global_step, state.max_steps, logs["loss"])
            if self.stopped:
                control.should_save = control.should_training_stop = True
            elif time.monotonic() - self.saved_at > checkpoint_every_s:
                control.should_save = True
                self.saved_at = time.monotonic()
            return control

        def on_epoch_end(self, args, state, control, model=None, **kwargs):  # type: ignore[no-untyped-def]
            ended = round(state.epoch)
            if epochs is not None and not self.stopped and state.global_step < state.max_steps:
                model.save_pretrained(str(epochs / str(ended)))
                (epochs / str(ended) / "README.md").unlink(missing_ok=True)
            return control

    return Pulse()
