"""What it takes to score many models on many languages: ours, and one model after the other, label by label.

    python benchmarks/evaluate/measure.py DATA [--rows 100] [--models 8] [--languages 5] [--base FOLDER]

DATA holds a folder per language with a test.jsonl of `input` and `output`, the outputs being labels. Adapters are made
of random numbers: the time does not hang on them. All figures come from the one call, on the same rows with the same
threads:

1. plain: the base and each adapter loaded anew, and for each label all rows with that label behind their prompts, in
   batches in the order of the file; logits of the label's tokens alone;
2. ours: the step `outputs` with an empty place for answers, tokens and files included;
3. ours again, from what was kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from sabir.lora.checks import base_linear_shapes
from sabir.model.batches import left_padded
from sabir.model.loading import adapted, load_base, load_tokenizer
from sabir.model.text import TextBuilder
from sabir.tasks import Row, make_task
from sabir.work.bases import EMBEDDED_FOLDER
from sabir.work.outputs import outputs, read_answers
from sabir.work.prepare import Example, read_examples, write_examples

MAX_LENGTH = 256
BATCH = 16
RANK = 16


def adapter(folder: Path, base: Path, seed: int) -> Path:
    """A PEFT adapter on every linear layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors, targets = {}, set()
    for module, (rows, columns) in base_linear_shapes(base).items():
        if not module.endswith("_proj"):
            continue
        targets.add(module.rpartition(".")[2])
        key = f"base_model.model.{module}"
        tensors[f"{key}.lora_A.weight"] = 0.1 * torch.randn(RANK, columns, generator=generator)
        tensors[f"{key}.lora_B.weight"] = 0.1 * torch.randn(rows, RANK, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK}
    config = {**said, "target_modules": sorted(targets), "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def rows_of(data: Path, out: Path, languages: int, rows: int) -> tuple[list[str], list[str]]:
    """Write the rows as a data step does; gives the languages and the labels."""
    folders = sorted(path for path in data.iterdir() if (path / "test.jsonl").is_file())[:languages]
    read = {
        path.name: [json.loads(line) for line in (path / "test.jsonl").read_text("utf-8").splitlines()]
        for path in folders
    }
    labels = sorted({row["output"] for found in read.values() for row in found})
    task = make_task("classification", {"labels": tuple(labels), "instruction": "What is the text about?"})
    for language, found in read.items():
        (out / language).mkdir(parents=True)
        asked = [Row(str(i), row["input"], row["output"]) for i, row in enumerate(found[:rows])]
        write_examples(
            out / language, "test", [Example(one.id, task.prompt(one), task.target(one)) for one in asked]
        )
    return list(read), labels


@torch.inference_mode()
def plain(base: Path, models: list[Path], rows: Path, languages: list[str], labels: list[str]) -> dict:
    """Scores of every row by (model, language)."""
    builder = TextBuilder(load_tokenizer(base), max_length=MAX_LENGTH)
    answers = [builder.answer(label) for label in labels]
    room = MAX_LENGTH - max(map(len, answers))
    found = {}
    for folder in models:
        with adapted(load_base(base, device="cpu"), folder) as model:
            for language in languages:
                examples = read_examples(rows / language, "test")
                prompts = [builder.prompt(example.prompt, room=room)[0] for example in examples]
                columns = [list(label_by_label(model, prompts, answer, builder.pad_id)) for answer in answers]
                found[folder.name, language] = list(zip(*columns, strict=True))
    return found


def label_by_label(model, prompts: list[list[int]], answer: list[int], pad_id: int) -> Iterator[float]:  # type: ignore[no-untyped-def]
    """The log-likelihood of one answer after each prompt."""
    wanted = torch.tensor(answer)
    for start in range(0, len(prompts), BATCH):
        whole = [[*prompt, *answer] for prompt in prompts[start : start + BATCH]]
        ids, mask = left_padded(whole, pad_id, torch.device("cpu"))
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=len(answer) + 1
        ).logits[:, :-1]
        logs = logits.log_softmax(-1).gather(-1, wanted.expand(len(whole), -1).unsqueeze(-1))
        yield from logs.squeeze(-1).sum(1).tolist()


def ours(
    base: Path, models: list[Path], rows: Path, languages: list[str], labels: list[str], out: Path, kept: Path
) -> dict:
    """The same by the step `outputs`."""
    works = [
        SimpleNamespace(
            name=f"{folder.name}/{language}",
            settings={
                "base": "benchmark",
                "language": language,
                "max_length": MAX_LENGTH,
                "answer": "label",
                "labels": labels,
            },
            args={
                "base": {"folder": str(base)},
                "split": "test",
                "batch_size": BATCH,
                "answers": str(kept),
            },
            inputs={"rows": rows / language, "model": folder},
            out=out / folder.name / language,
            device="cpu",
            halvings=0,
            emit=lambda *_, **__: None,
        )
        for folder in models
        for language in languages
    ]
    for work in works:
        work.out.mkdir(parents=True)
    list(outputs(works))
    return {
        tuple(work.name.split("/")): [list(row["scores"].values()) for row in read_answers(work.out)]
        for work in works
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--languages", type=int, default=5)
    parser.add_argument("--base", type=Path, default=EMBEDDED_FOLDER)
    given = parser.parse_args()
    load_base(given.base, device="cpu")  # imports
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        languages, labels = rows_of(given.data, folder / "rows", given.languages, given.rows)
        models = [adapter(folder / f"m{seed}", given.base, seed) for seed in range(given.models)]
        told = (given.base, models, folder / "rows", languages, labels)
        n = sum(len(read_examples(folder / "rows" / language, "test")) for language in languages)
        print(
            f"{len(models)} models, {len(languages)} languages, {n} rows, {len(labels)} labels, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        walls, found = [], []
        for label, call in (
            ("plain: each model loaded in turn, label by label", lambda: plain(*told)),
            ("ours", lambda: ours(*told, folder / "first", folder / "answers")),
            ("ours again, from what was kept", lambda: ours(*told, folder / "second", folder / "answers")),
        ):
            started, busy = time.perf_counter(), time.process_time()
            found.append(call())
            walls.append(time.perf_counter() - started)
            print(
                f"{label}: {walls[-1]:.2f} s ({time.process_time() - busy:.2f} s of the processor)",
                flush=True,
            )
        slow, fast, again = (torch.tensor([list(rows) for rows in one.values()]) for one in found)
        apart = (slow - fast).abs()
        print(
            f"plain / ours: {walls[0] / walls[1]:.2f} (reach 3); plain / from what was kept: {walls[0] / walls[2]:.0f}"
        )
        print(
            f"scores from {fast.min():.1f} to {fast.max():.1f}; ours and plain differ by at most {apart.max():.1e}; "
            f"{int((slow.argmax(-1) != fast.argmax(-1)).sum())} of {fast[..., 0].numel()} answers differ"
        )
        print(f"from what was kept: {'bit-equal' if torch.equal(fast, again) else 'NOT EQUAL'}")


if __name__ == "__main__":
    main()
