"""What a server with many adapters pays beside one with a merged adapter, and how often its detector is right.

    python benchmarks/routed/measure.py DATA [--base embedded] [--languages de,en,fr,ja,zh] [--unseen ko] [--rows 100]

DATA has a folder per language with test.jsonl: `input`, `output` (a label), and an `id` that is equal where texts are
parallel. The adapters are random ones of the size a training would give: what they answer is not looked at here.

1. memory: the base with an adapter per language, and with one; numbers of values, bytes of tensors, and the peak
   resident memory of a fresh process that holds them;
2. throughput: the rows of all languages in one arrival order, a batch at a time; each batch is answered four ways by
   turns. `merged` answers it at once. `routed, split` detects, and answers it once per adapter in it. `routed, mixed`
   detects, and answers it at once with an adapter per row (PEFT's `adapter_names`). `folded` is a merged adapter
   folded into the base;
3. detector: the share of rows it sends to the right adapter, by test set of the stress step.

All figures come from the one call. Times are of the processor, on one thread: what else the machine does enters them
little. Rates are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sabir.tasks import Row, make_task
from sabir.work.detect import detector
from sabir.work.prepare import Example, read_examples, write_examples
from sabir.work.stress import needs, stress

BATCH = 16
ROUNDS = 3
DETECTOR = "py3langid"


def test_rows(data: Path, languages: Sequence[str]) -> dict[str, list[Example]]:
    """The test rows by language, as a classification task renders them."""
    read: dict[str, list[Row]] = {}
    for language in languages:
        lines = (data / language / "test.jsonl").read_text(encoding="utf-8").splitlines()
        rows = map(json.loads, lines)
        read[language] = [Row(str(row["id"]), row["input"], row["output"]) for row in rows]
    labels = sorted({row.output for rows in read.values() for row in rows})
    task = make_task("classification", {"labels": labels})
    return {
        language: [Example(row.id, task.prompt(row), task.target(row)) for row in rows]
        for language, rows in read.items()
    }


# --- what is held -------------------------------------------------------------------------------------------


def held(base: str, names: Sequence[str], rank: int) -> Any:
    """The base with a random adapter of each name on all linear modules, as PEFT holds several at once."""
    import torch
    from peft import LoraConfig, get_peft_model

    from sabir.model.loading import load_base
    from sabir.work.bases import local_folder

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_base(local_folder(base, Path.cwd()), device="cpu")
    if not names:
        return model
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(model, lora, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, lora)
    return model.eval()


def memory(base: str, names: Sequence[str], rank: int) -> None:
    """Print what one process holds; run in a fresh one."""
    model = held(base, names, rank)
    ours = [p for name, p in model.named_parameters() if "lora_" in name]
    print(
        json.dumps(
            {
                "values": sum(p.numel() for p in ours),
                "tensor_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
                "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def memory_of(base: str, names: Sequence[str], rank: int) -> dict[str, int]:
    """`memory` of a fresh process: the smallest of three, for what else the process does comes on top."""
    command = [sys.executable, __file__, "--memory", base, ",".join(names), str(rank)]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    return min((json.loads(one.splitlines()[-1]) for one in told), key=lambda one: one["peak_resident_bytes"])


# --- how fast it answers ------------------------------------------------------------------------------------


class Mixed:
    """A model that answers each row of a batch with the adapter of its own."""

    def __init__(self, model: Any, names: Sequence[str]):
        self.model = model
        self.names = list(names)
        self.config = model.config

    def parameters(self) -> Iterator[Any]:
        return self.model.parameters()

    def __call__(self, **asked: Any) -> Any:
        return self.model(adapter_names=self.names, **asked)


class Server:
    """Answers batches of a traffic mix, each way."""

    def __init__(self, base: str, rows: Mapping[str, Sequence[Example]], *, rank: int, max_length: int):
        from sabir.model.loading import load_tokenizer
        from sabir.model.text import TextBuilder
        from sabir.work.bases import local_folder

        self.models = {
            "many": held(base, sorted(rows), rank),
            "one": held(base, ["merged"], rank),
            "none": held(base, [], rank),
        }
        self.builder = TextBuilder(load_tokenizer(local_folder(base, Path.cwd())), max_length=max_length)
        labels = sorted({row.target for each in rows.values() for row in each})
        self.labels = tuple(tuple(self.builder.answer(label)) for label in labels)
        self.room = max_length - max(map(len, self.labels))
        self.detect = detector(DETECTOR, list(rows), None)
        self.detect_s = 0.0

    def merged(self, batch: Sequence[Example]) -> list[list[float]]:
        return self.scores(self.models["one"], batch)

    def folded(self, batch: Sequence[Example]) -> list[list[float]]:
        return self.scores(self.models["none"], batch)

    def split(self, batch: Sequence[Example]) -> list[list[float]]:
        model, found = self.models["many"], {}
        routes = self.routes(batch)
        for language in sorted(set(routes)):
            places = [i for i, route in enumerate(routes) if route == language]
            model.set_adapter(language)
            found.update(zip(places, self.scores(model, [batch[i] for i in places]), strict=True))
        return [found[i] for i in range(len(batch))]

    def mixed(self, batch: Sequence[Example]) -> list[list[float]]:
        routes = self.routes(batch)
        prompts = self.prompts(batch)
        order = sorted(range(len(batch)), key=lambda i: (-len(prompts[i]), i))  # that of the batch inside
        model = Mixed(self.models["many"], [routes[i] for i in order])
        told = self.scores(model, [batch[i] for i in order])
        found = dict(zip(order, told, strict=True))
        return [found[i] for i in range(len(batch))]

    def routes(self, batch: Sequence[Example]) -> list[str]:
        started = time.process_time()
        routes = self.detect([row.prompt.source for row in batch])
        self.detect_s += time.process_time() - started
        return routes

    def prompts(self, batch: Sequence[Example]) -> list[list[int]]:
        return [self.builder.prompt(row.prompt, room=self.room)[0] for row in batch]

    def scores(self, model: Any, batch: Sequence[Example]) -> list[list[float]]:
        from sabir.model.likelihood import option_scores

        options = [self.labels] * len(batch)
        pad = self.builder.pad_id
        return option_scores(model, self.prompts(batch), options, pad_id=pad, batch_size=len(batch))


def throughput(server: Server, traffic: Sequence[Example]) -> dict[str, Any]:
    """Answers a processor second by way, and the detector's share; the routed ways must agree."""
    batches = [traffic[start : start + BATCH] for start in range(0, len(traffic), BATCH)]
    ways: dict[str, Callable[[Sequence[Example]], Any]] = {
        "merged": server.merged,
        "routed, split": server.split,
        "routed, mixed": server.mixed,
        "folded": server.folded,
    }
    for one, other in zip(server.split(batches[0]), server.mixed(batches[0]), strict=True):
        assert max(abs(x - y) for x, y in zip(one, other, strict=True)) < 1e-3, (one, other)
    for way in ways.values():  # warm
        way(batches[0])
    taken: dict[str, list[float]] = {way: [0.0] * ROUNDS for way in ways}
    server.detect_s = 0.0
    for turn in range(ROUNDS):
        for batch in batches:
            for name, way in ways.items():
                started = time.process_time()
                way(batch)
                taken[name][turn] += time.process_time() - started
    detected = sum(name.startswith("routed") for name in ways) * ROUNDS * len(traffic)
    languages = [len(set(server.detect([row.prompt.source for row in batch]))) for batch in batches]
    return {
        "answers_per_s": {name: len(traffic) / statistics.median(spans) for name, spans in taken.items()},
        "spread": {name: max(spans) / min(spans) for name, spans in taken.items()},
        "detect_s_per_row": server.detect_s / detected,
        "adapters_per_batch": statistics.mean(languages),
    }


# --- where it sends the rows --------------------------------------------------------------------------------


def stressed(rows: Mapping[str, Sequence[Example]], kind: str, language: str) -> list[Example]:
    """The stress set of one language, by the step that makes it."""
    with tempfile.TemporaryDirectory() as name:
        inputs = {}
        for each in needs(kind, language, list(rows)):
            folder = inputs[f"rows/{each}"] = Path(name) / each
            folder.mkdir()
            write_examples(folder, "test", rows[each])
        settings = {"stress": kind, "language": language, "seed": 0}
        work = SimpleNamespace(name="", settings=settings, inputs=inputs, out=Path(name))
        list(stress([work]))  # type: ignore[list-item]
        return read_examples(Path(name), "test")


def routes(rows: Mapping[str, Sequence[Example]], unseen: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """By test set and language: the number of rows, and where they were sent."""
    detect = detector(DETECTOR, list(rows), None)
    sets = {"full": rows}
    for kind in ("short", "code-switched"):
        sets[kind] = {language: stressed(rows, kind, language) for language in rows}
    sets["unseen"] = unseen
    return {
        name: {
            language: Counter(detect([row.prompt.source for row in each]))
            for language, each in of_set.items()
        }
        for name, of_set in sets.items()
    }


# --- the tables ---------------------------------------------------------------------------------------------


def report(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| held | values in adapters | tensors, MB | peak resident, MB |"
    yield "|---|--:|--:|--:|"
    for name, one in found["memory"].items():
        mega = [one[key] / 1e6 for key in ("tensor_bytes", "peak_resident_bytes")]
        yield f"| {name} | {one['values']:,} | {mega[0]:.2f} | {mega[1]:.1f} |"
    speed = found["throughput"]
    merged = speed["answers_per_s"]["merged"]
    yield ""
    yield "| way | answers a processor second | of merged | slowest / fastest round |"
    yield "|---|--:|--:|--:|"
    for name, rate in speed["answers_per_s"].items():
        yield f"| {name} | {rate:.1f} | {rate / merged:.2f} | {speed['spread'][name]:.2f} |"
    share = speed["detect_s_per_row"] * speed["answers_per_s"]["routed, split"]
    yield ""
    yield (
        f"Detector: {1e3 * speed['detect_s_per_row']:.2f} ms a row, {share:.3f} of the time of `routed, split`; "
        f"{speed['adapters_per_batch']:.2f} adapters in a batch of {BATCH}."
    )
    yield ""
    languages = list(found["routes"]["full"])
    yield f"| sent to its own adapter | {' | '.join(languages)} | all |"
    yield f"|---|{'--:|' * (len(languages) + 1)}"
    for name in ("full", "short", "code-switched"):
        of_set = found["routes"][name]
        right = [of_set[language][language] for language in languages]
        rows = [sum(of_set[language].values()) for language in languages]
        each = " | ".join(f"{x / n:.3f} ({n})" for x, n in zip(right, rows, strict=True))
        yield f"| {name} | {each} | {sum(right) / sum(rows):.3f} |"
    for language, sent in found["routes"]["unseen"].items():
        told = ", ".join(f"{to} {count / sum(sent.values()):.3f}" for to, count in sent.most_common())
        yield ""
        yield f"{language} (unseen, {sum(sent.values())} rows) is sent to: {told}."


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        base, names, rank = sys.argv[2:]
        memory(base, names.split(",") if names else [], int(rank))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--languages", default="de,en,fr,ja,zh")
    parser.add_argument("--unseen", default="", help="languages without an adapter")
    parser.add_argument("--rows", type=int, default=100, help="of each language, for the throughput")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=256)
    given = parser.parse_args()
    languages = given.languages.split(",")
    rows = test_rows(given.data, languages)
    unseen = test_rows(given.data, [one for one in given.unseen.split(",") if one])
    traffic = [row for each in rows.values() for row in each[: given.rows]]
    random.Random(0).shuffle(traffic)
    cases = {
        "base": ([], given.rank),
        f"base + {len(languages)} adapters": (languages, given.rank),
        "base + merged, same rank": (["merged"], given.rank),
        "base + merged, ranks together": (["merged"], given.rank * len(languages)),
    }
    found = {
        "memory": {name: memory_of(given.base, *case) for name, case in cases.items()},
        "throughput": throughput(
            Server(given.base, rows, rank=given.rank, max_length=given.max_length), traffic
        ),
        "routes": routes(rows, unseen),
    }
    print("\n".join(report(found)))


if __name__ == "__main__":
    main()
