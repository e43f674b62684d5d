"""Step `outputs`: what a model answers to the rows of one language and split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from sabir.work import Outcome, Work
from sabir.work.answers import Answers, model_key
from sabir.work.bases import max_positions
from sabir.work.prepare import Example, read_examples
from sabir.work.questions import GENERATED, Question, questions, room_of

Answer = dict[str, Any]  # `scores` in the order of the options, or `text` and whether it was `cut`


def outputs(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Answer with many models on one base: the base is loaded once, each adapter once, whole models last.

    What is asked is put into tokens once for all models. A model that has answered all of it before is not loaded;
    `kept` in the result counts such answers.
    """
    from sabir.model.loading import holds_model

    def place(work: Work) -> tuple[bool, str]:
        folder = work.inputs.get("model")
        return folder is not None and holds_model(folder), str(folder or "")

    asking = _Asking(Path(works[0].args["base"]["folder"]))
    for vllm in (False, True):
        some = sorted((work for work in works if by_vllm(work.settings) is vllm), key=place)
        models = models_on(
            asking.base,
            dict.fromkeys(work.inputs["model"] for work in some if "model" in work.inputs),
            vllm=vllm and bool(some),
            longest=max((room_of(work.settings, asking.positions) for work in some), default=0),
            device=works[0].device,
        )
        for _, group in groupby(some, key=place):
            sheets = list(asking.sheets(group))
            folder = sheets[0].work.inputs.get("model")
            unanswered = any(None in sheet.found for sheet in sheets)
            with models.at(folder) if unanswered else nullcontext() as model:
                for sheet in sheets:
                    yield sheet.work.name, sheet.filled(model)
            del model  # or it would stay in memory while the next one is loaded


def models_on(base: Path, folders: Iterable[Path], *, vllm: bool, longest: int, device: str) -> Any:
    """What loads the models of one job, by transformers or by vLLM.

    Args:
        folders: of all models there are, each once.
        longest: tokens that a prompt and its answer may take together.
    """
    from sabir.model.loading import Models, holds_model
    from sabir.model.vllm_generator import VllmModels

    if not vllm:
        return Models(base, device=device)
    return VllmModels(
        base, adapters=[folder for folder in folders if not holds_model(folder)], longest=longest
    )


class _Asking:
    """What is asked in one job, in tokens: the same rows once for all models."""

    def __init__(self, base: Path):
        from sabir.model.loading import load_tokenizer

        self.base = base
        self.positions = max_positions(base)
        self._tokenizer = load_tokenizer(base)
        self._asked: dict[str, tuple[Any, list[Question]]] = {}

    def sheets(self, works: Iterator[Work]) -> Iterator[_Sheet]:
        """One sheet per step of a model, filled in as far as the answers are kept."""
        key = ""
        for work in works:
            folder = work.args.get("answers")
            if folder and not key:
                key = model_key(work.inputs.get("model"), work.settings["base"])
            kept = Answers(
                Path(folder) if folder else None, model=key, settings=work.settings, device=work.device
            )
            builder, asked = self._questions(work)
            yield _Sheet(work, builder, asked, [kept.get(question) for question in asked], kept)

    def _questions(self, work: Work) -> tuple[Any, list[Question]]:
        from sabir.model.text import TextBuilder

        files = [str(work.inputs.get(role, "")) for role in ("rows", "shots")]
        key = json.dumps([files, work.args["split"], dict(work.settings)], sort_keys=True)
        if key not in self._asked:
            builder = TextBuilder(self._tokenizer, max_length=work.settings["max_length"])
            asked = questions(
                builder,
                read_examples(work.inputs["rows"], work.args["split"]),
                settings=work.settings,
                train=read_examples(work.inputs["shots"], "train") if work.settings.get("shots") else (),
                positions=self.positions,
            )
            self._asked[key] = builder, asked
        return self._asked[key]


@dataclass
class _Sheet:
    """The questions of one step, with the answers that are known so far."""

    work: Work
    builder: Any
    asked: list[Question]
    found: list[Answer | None]
    kept: Answers

    def filled(self, model: Any) -> Outcome:
        """Have a model answer what is open, keep that, and write the file of the step."""
        from sabir.model.loading import peak_device_bytes

        work, known = self.work, len(self.found) - self.found.count(None)
        still = [place for place, answer in enumerate(self.found) if answer is None]
        tokens = fill_in(model, work, self.builder, self.asked, self.found, at=still, kept=self.kept)
        told = [in_words(question, answer) for question, answer in zip(self.asked, self.found, strict=True)]
        write_answers(work.out, told)
        result = {"result": {"kept": known}} if known else {}
        return {"tokens": tokens, "peak_bytes": peak_device_bytes(work.device), **result}


def fill_in(
    model: Any,
    work: Work,
    builder: Any,
    asked: Sequence[Question],
    found: list[Answer | None],
    *,
    at: Sequence[int],
    kept: Answers,
) -> int:
    """Have a model answer some of a step's questions, write the answers among those found, and keep them.

    Args:
        at: places of the questions that are answered.
    Returns: the number of tokens read and written.
    """
    known = len(found) - found.count(None)
    made, tokens = answered(
        model,
        builder,
        [asked[place] for place in at],
        work.settings,
        max(1, work.args["batch_size"] >> work.halvings),
        lambda done: work.emit(known + done, len(found)),
    )
    for place, answer in zip(at, made, strict=True):
        found[place] = answer
        kept.add(asked[place], answer)
    kept.save()
    return tokens


def answers(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    settings: Mapping[str, Any],
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], int]:
    """A model's answer to each row, as `outputs` writes it, and the number of tokens read and written.

    Args:
        settings: `answer`, `max_length`, and `labels` or `max_new_tokens`; `language` is named in errors.
    """
    from sabir.model.text import TextBuilder

    builder = TextBuilder(tokenizer, max_length=settings["max_length"])
    asked = questions(builder, examples, settings=settings)
    made, tokens = answered(model, builder, asked, settings, batch_size, on_batch)
    return [in_words(question, answer) for question, answer in zip(asked, made, strict=True)], tokens


def by_vllm(settings: Mapping[str, Any]) -> bool:
    """Whether vLLM answers: it writes texts, and chooses nothing."""
    return settings["answer"] in GENERATED and settings.get("generator") == "vllm"


def answered(
    model: Any,
    builder: Any,
    asked: Sequence[Question],
    settings: Mapping[str, Any],
    batch_size: int,
    on_batch: Callable[[int], None],
) -> tuple[list[Answer], int]:
    """An answer to each question, and the number of tokens read (of prompts) and written."""
    if not asked:
        return [], 0
    prompts = [question.prompt for question in asked]
    read = sum(map(len, prompts))
    if settings["answer"] not in GENERATED:
        from sabir.model.likelihood import option_scores

        scores = option_scores(
            model,
            prompts,
            [question.option_ids for question in asked],
            pad_id=builder.pad_id,
            batch_size=batch_size,
            on_batch=on_batch,
        )
        return [{"scores": row} for row in scores], read
    from sabir.model.generate import generate
    from sabir.model.vllm_generator import Writer

    told = {"max_new_tokens": settings["max_new_tokens"], "stop_ids": builder.stop_ids, "on_batch": on_batch}
    if isinstance(model, Writer):
        written = model.generate(prompts, **told)
    else:
        written = generate(model, prompts, pad_id=builder.pad_id, batch_size=batch_size, **told)
    found: list[Answer] = []
    for ids in written:
        cut = len(ids) >= settings["max_new_tokens"] and ids[-1] not in builder.stop_ids
        found.append({"text": builder.decode(ids).strip(), "cut": cut})
    return found, read + sum(map(len, written))


def in_words(question: Question, answer: Answer | None) -> dict[str, Any]:
    """An answer in words: the first of the likeliest options, or the text."""
    assert answer is not None
    if "text" in answer:
        return {"id": question.id, "prediction": answer["text"], **({"cut": True} if answer["cut"] else {})}
    scores = answer["scores"]
    best = max(range(len(scores)), key=scores.__getitem__)
    return {
        "id": question.id,
        "prediction": question.options[best],
        "scores": dict(zip(question.options, scores, strict=True)),
    }


def write_answers(folder: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Keep answers as JSONL, one a row, in the order of the rows."""
    with open(folder / "outputs.jsonl", "w", encoding="utf-8") as file:
        for answer in found:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """What `write_answers` kept."""
    with open(folder / "outputs.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
