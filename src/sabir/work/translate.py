"""Step `translated`: test rows with their texts translated, for the translate-test rival."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from sabir.errors import InputError
from sabir.own_code import called, is_own, own_function
from sabir.tasks import Prompt
from sabir.work import Outcome, Work
from sabir.work.prepare import Example, read_examples, write_examples

WHERE = "rivals.translate"
PIECES = (".spm", ".bpe.model", "spiece.model", "tokenizer.model")  # SentencePiece's files, by their ends
Translate = Callable[..., tuple[list[str], int, int]]  # see Translator.translate


def check_translator(folder: Path, name: str) -> None:
    """Raise InputError for a model folder that is no translator, or whose tokenizer lacks a package here.

    Args:
        folder: of a model that `bases.check_usable` has let pass.
        name: as the config calls it.
    """
    if not json.loads((folder / "config.json").read_bytes()).get("is_encoder_decoder"):
        fix = "Name one such as M2M100, NLLB or Marian, or my.module:function."
        raise InputError(f"{WHERE}.model", f"{name!r} is no sequence-to-sequence model.", fix)
    if command := translator_missing(folder):
        message = f"the tokenizer of {name!r} needs SentencePiece."
        raise InputError(f"{WHERE}.model", message, f"Run: {command}.")


def translator_missing(folder: Path) -> str | None:
    """The command that installs what the tokenizer of a translator's folder needs and lacks here, or None."""
    needed = not (folder / "tokenizer.json").is_file() and any(
        path.name.endswith(PIECES) for path in folder.iterdir()
    )
    return "pip install sentencepiece" if needed and find_spec("sentencepiece") is None else None


def translate(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Write test.jsonl with every row's own text in the language `to`, and all else as it was.

    The instruction, the cue, the row's options and its gold answer are not translated; rows that are in that
    language already are left as they are, and so are texts without a letter. The result counts the rows, and the
    pieces of text that were cut because the model reads no more. The translator is loaded once. Raises InputError
    for a translation that is empty, and for answers that are not one a text.
    """
    from sabir.model.loading import peak_device_bytes

    ours = _translator(works[0])
    for work in works:
        source, target = work.settings["language"], work.settings["to"]
        examples = read_examples(work.inputs["rows"], "test")
        tokens = cut = 0
        if source != target:
            texts = [example.prompt.source for example in examples]
            found, tokens, cut = ours(texts, source, target, partial(_told, work, len(texts)))
            examples = [_with_text(example, text) for example, text in zip(examples, found, strict=True)]
        write_examples(work.out, "test", examples)
        yield (
            work.name,
            {
                "tokens": tokens,
                "peak_bytes": peak_device_bytes(work.device),
                "result": {"rows": len(examples), "cut": cut},
            },
        )


def _told(work: Work, total: int, done: int) -> None:
    work.emit(done, total)


def _with_text(example: Example, text: str) -> Example:
    if example.prompt.source.strip() and not text.strip():
        raise InputError(
            f"{WHERE}.model",
            f"the translation of row {example.id!r} is empty.",
            "Look at that row, or name another translator.",
        )
    return replace(example, prompt=Prompt(example.prompt.before, text, example.prompt.after))


def _translator(work: Work) -> Translate:
    """The translator that all works of a call share."""
    model, code = work.args["model"], work.args.get("code")
    if is_own(model):
        return _own(model, own_function(model, Path(code) if code else None, where=f"{WHERE}.model"))
    from sabir.model.translator import Translator

    folder = Path(model)
    check_translator(folder, model)
    given = {key: work.args[key] for key in ("languages", "batch_size")}
    return Translator(folder, device=work.device, **given).translate


def _own(name: str, function: Callable[..., object]) -> Translate:
    def translated(
        texts: Sequence[str], source: str, target: str, on_text: Callable[[int], None]
    ) -> tuple[list[str], int, int]:
        fix = "It is given a list of texts, their language and the wanted one, and returns a text for each."
        found = called(name, function, list(texts), source, target, where=f"{WHERE}.model", fix=fix)
        if not isinstance(found, (list, tuple)) or len(found) != len(texts):
            given = f"{len(found)} texts" if isinstance(found, (list, tuple)) else f"a {type(found).__name__}"
            raise InputError(f"{WHERE}.model", f"{name!r} gave {given} for {len(texts)} texts.", fix)
        for place, text in enumerate(found, 1):
            if not isinstance(text, str):
                message = f"{name!r} gave {text!r} for text {place} of {len(texts)}."
                raise InputError(f"{WHERE}.model", message, "Return texts.")
        on_text(len(texts))
        return list(found), 0, 0

    return translated
