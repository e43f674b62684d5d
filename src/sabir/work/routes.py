"""Step `routed`: a language detector picks the own adapter that answers, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabir.work import Outcome, Work
from sabir.work.answers import Answers, model_key
from sabir.work.detect import detector
from sabir.work.outputs import Answer, by_vllm, fill_in, in_words, models_on, write_answers
from sabir.work.prepare import read_examples
from sabir.work.questions import Question, questions

ROLE = "model/"  # of the inputs: each language's own adapter


def routed(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Answer each row with the own adapter of the language that the detector reads in its text.

    The detector sees the row's own text alone, without instruction and cue. The base is loaded once, and each
    adapter once for all steps, where it has not answered all of it before; a step is finished with the last adapter
    it needs. Each answer says its `route`; the result counts them, and in `kept` the answers that were there.
    """
    from sabir.model.loading import holds_model

    journeys = list(_setting_out(works))
    open_at = {folder for journey in journeys for folder in journey.open_at}
    folders = sorted(open_at, key=lambda folder: (holds_model(folder), str(folder)))
    first = works[0]
    models = models_on(
        Path(first.args["base"]["folder"]),
        folders,
        vllm=bool(folders) and by_vllm(first.settings),
        longest=max(work.settings["max_length"] for work in works),
        device=first.device,
    )
    for folder in [None, *folders]:  # None: those that need no model
        with nullcontext() if folder is None else models.at(folder) as model:
            for journey in list(journeys):
                if folder in journey.open_at:
                    journey.answer(model, folder)
                if not journey.open_at:
                    journeys.remove(journey)
                    yield journey.work.name, journey.arrived()
        del model  # or it would stay in memory while the next one is loaded


@dataclass
class _Journey:
    """One step on its way: what is asked, the language and the adapter each row was sent to, the answers so far."""

    work: Work
    builder: Any
    asked: list[Question]
    routes: list[str]
    folders: list[Path]
    found: list[Answer | None]
    kept: Mapping[Path, Answers]
    tokens: int = 0

    def __post_init__(self) -> None:
        self._known = len(self.found) - self.found.count(None)

    @property
    def open_at(self) -> set[Path]:
        """The adapters that have rows to answer yet."""
        return {folder for folder, answer in zip(self.folders, self.found, strict=True) if answer is None}

    def answer(self, model: Any, folder: Path) -> None:
        """Have a model answer the open rows that were sent to its folder, and keep that."""
        sent = [i for i, answer in enumerate(self.found) if answer is None and self.folders[i] == folder]
        kept = self.kept[folder]
        self.tokens += fill_in(model, self.work, self.builder, self.asked, self.found, at=sent, kept=kept)

    def arrived(self) -> Outcome:
        """Write the file of the step."""
        from sabir.model.loading import peak_device_bytes

        told = [
            {**in_words(question, answer), "route": route}
            for question, answer, route in zip(self.asked, self.found, self.routes, strict=True)
        ]
        write_answers(self.work.out, told)
        return {
            "tokens": self.tokens,
            "peak_bytes": peak_device_bytes(self.work.device),
            "result": {
                "routes": dict(sorted(Counter(self.routes).items())),
                **({"kept": self._known} if self._known else {}),
            },
        }


def _setting_out(works: Sequence[Work]) -> Iterator[_Journey]:
    """Every step with its rows sent their ways, and filled in as far as the answers are kept."""
    from sabir.model.loading import load_tokenizer
    from sabir.model.text import TextBuilder

    tokenizer = load_tokenizer(works[0].args["base"]["folder"])
    keys: dict[Path, str] = {}
    for work in works:
        languages = [role.removeprefix(ROLE) for role in work.inputs if role.startswith(ROLE)]
        code, store = work.args.get("code"), work.args.get("answers")
        detect = detector(work.args["detector"], languages, Path(code) if code else None)
        examples = read_examples(work.inputs["rows"], work.args["split"])
        routes = detect([example.prompt.source for example in examples])
        folders = [work.inputs[ROLE + route] for route in routes]
        kept = {}
        for folder in dict.fromkeys(folders):
            if store and folder not in keys:
                keys[folder] = model_key(folder, work.settings["base"])
            kept[folder] = Answers(
                Path(store) if store else None,
                model=keys.get(folder, ""),
                settings=work.settings,
                device=work.device,
            )
        builder = TextBuilder(tokenizer, max_length=work.settings["max_length"])
        asked = questions(builder, examples, settings=work.settings)
        found = [kept[folder].get(question) for folder, question in zip(folders, asked, strict=True)]
        yield _Journey(work, builder, asked, routes, folders, found, kept)
