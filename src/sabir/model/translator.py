"""Texts from one language into another, by a sequence-to-sequence model in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sabir.errors import InputError
from sabir.model.batches import by_length
from sabir.model.loading import _no_bars

WHERE = "rivals.translate"
LONGEST = 512  # tokens, where neither the tokenizer nor the config says
SPARE = 20  # tokens a translation may have beyond twice its source: what is longer goes round in circles


class Translator:
    """One translation model, greedily; its tokenizer is read at once, and its weights with the first text.

    A model with language codes of its own (M2M100, NLLB, mBART) is told both languages; another one (Marian, T5)
    what `languages` calls the target, if it calls it anything, in front of each text (">>fra<<", "<2fr>").

    Args:
        languages: what the model calls our languages, by BCP-47 tag; others are called by their first subtag.
        batch_size: texts at once.
    """

    def __init__(self, folder: Path, *, device: str, languages: Mapping[str, str], batch_size: int):
        from transformers import AutoTokenizer

        self._folder = folder
        self._device = device
        self._languages = languages
        self._batch_size = batch_size
        self._model: Any = None
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._has_codes = hasattr(self.tokenizer, "src_lang")

    def check(self, *languages: str) -> None:
        """Raise InputError for a language that the model has no code for."""
        if self._has_codes:
            for language in languages:
                self._code_id(language)

    def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        on_text: Callable[[int], None] = lambda done: None,
    ) -> tuple[list[str], int, int]:
        """The translations in order, the number of tokens read and written, and of pieces that were cut.

        A text is translated line by line, for these models were trained on sentences; lines without a letter stay
        as they are. A line that is longer than the model reads is cut.

        Args:
            on_text: called with the number of texts that are finished, by and by.
        """
        lines = [text.split("\n") for text in texts]
        asked = [
            (i, k) for i, of_text in enumerate(lines) for k, line in enumerate(of_text) if has_letters(line)
        ]
        left = Counter(i for i, _ in asked)
        prepared, cut = self._prepared([lines[i][k] for i, k in asked], source, target)
        tokens = 0
        for batch in by_length(prepared, self._batch_size):
            for row, ids in zip(batch, self._written([prepared[row] for row in batch], target), strict=True):
                i, k = asked[row]
                lines[i][k] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
                left[i] -= 1
                tokens += len(prepared[row]) + len(ids)
            on_text(len(texts) - sum(count > 0 for count in left.values()))
        return ["\n".join(of_text) for of_text in lines], tokens, cut

    def _prepared(self, lines: Sequence[str], source: str, target: str) -> tuple[list[list[int]], int]:
        """Ids of each line as the model reads it, and how many were cut."""
        front = ""
        if self._has_codes:
            self.check(source, target)
            self.tokenizer.src_lang = self._code(source)
        elif target in self._languages:
            front = f"{self._languages[target]} "
        longest = self._longest()
        prepared = []
        cut = 0
        for line in lines:
            ids = self.tokenizer(front + line, verbose=False)["input_ids"]
            if len(ids) > longest:
                cut += 1
                ids = self.tokenizer(front + line, truncation=True, max_length=longest)["input_ids"]
            prepared.append(ids)
        return prepared, cut

    @torch.inference_mode()
    def _written(self, rows: Sequence[Sequence[int]], target: str) -> list[list[int]]:
        """New ids for each row of ids, the decoder's start and what follows the end left out."""
        model = self._loaded()
        pad = self.tokenizer.pad_token_id
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        forced = {"forced_bos_token_id": self._code_id(target)} if self._has_codes else {}
        limits = [min(2 * len(row) + SPARE, self._longest() - 1) for row in rows]
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            num_beams=1,
            do_sample=False,
            max_new_tokens=max(limits) + 1,  # some end every text at its last token
            **forced,
        )
        written = []
        for row, limit in zip(out[:, 1:].tolist(), limits, strict=True):
            end = next(
                (place for place, token in enumerate(row) if token == self.tokenizer.eos_token_id), None
            )
            # a limit of the row's own: another one in the batch must not change its translation
            written.append(row[: limit if end is None else min(end, limit)])
        return written

    def _loaded(self) -> Any:
        if self._model is None:
            from transformers import AutoModelForSeq2SeqLM

            with _no_bars():
                model = AutoModelForSeq2SeqLM.from_pretrained(
                    str(self._folder),
                    dtype=torch.bfloat16 if self._device == "cuda" else torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                )
            model.generation_config.max_length = None  # or it warns beside max_new_tokens
            self._model = model.to(self._device).eval()
        return self._model

    def _longest(self) -> int:
        """Most tokens that the model reads, and writes, in one piece."""
        limits = [
            self.tokenizer.model_max_length,
            self._loaded().config.to_dict().get("max_position_embeddings"),
        ]
        return min([limit for limit in limits if limit and limit < 10**6], default=LONGEST)

    def _code(self, language: str) -> str:
        return self._languages.get(language, language.partition("-")[0])

    def _code_id(self, language: str) -> int:
        """The token of a language. Raises InputError when the model has none."""
        code = self._code(language)
        if hasattr(self.tokenizer, "get_lang_id"):  # M2M100 writes __de__
            found = self.tokenizer.lang_code_to_id.get(code)
        else:
            found = self.tokenizer.convert_tokens_to_ids(code)
            if found == self.tokenizer.unk_token_id or found not in self.tokenizer.all_special_ids:
                found = None  # "de" is a piece of a word in NLLB's vocabulary, and no language
        if found is None:
            raise InputError(
                f"{WHERE}.languages",
                f"the translator has no language {code!r}.",
                f"Write what it calls {language}, such as {{{language}: deu_Latn}}.",
            )
        return int(found)


def has_letters(text: str) -> bool:
    """Whether there is anything to translate: numbers and punctuation are not."""
    return any(map(str.isalpha, text))
