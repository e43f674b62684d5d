"""From a prompt to token ids: the one place that builds text for training, scoring and generation.

With a chat template the prompt is the user's turn and the answer the assistant's; without one the answer
follows the cue after a blank. Prompt and answer are tokenised apart and joined as ids, everywhere alike,
so the seam between them is the same in training and in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sabir.errors import InputError
from sabir.tasks import Prompt

MARK = "\u241fanswer\u241f"  # stands for the answer while the template's own text is read off


@dataclass(frozen=True)
class Example:
    """Ids of prompt and answer in one row; the first `n_prompt` are the prompt. `cut` source tokens are missing."""

    ids: list[int]
    n_prompt: int
    cut: int


class TextBuilder:
    """Builds ids for one tokenizer; a row has at most `max_length` tokens, answer included."""

    def __init__(self, tokenizer: Any, *, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chat = bool(getattr(tokenizer, "chat_template", None))
        self.end_id = self._end_id()

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, closed by the token that ends it."""
        return [*self._encode(text if self.chat else f" {text}"), self.end_id]

    def prompt(self, prompt: Prompt, *, room: int) -> tuple[list[int], int]:
        """Ids of a prompt of at most `room` tokens, and how many tokens of its source were cut off its end.

        Raises InputError when the prompt does not fit even without its source.
        """
        ids = self._prompt_ids(prompt)
        if len(ids) <= room:
            return ids, 0
        encoded = self.tokenizer(prompt.source, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"]]
        kept = len(ends)
        while kept > 0 and len(ids) > room:
            kept = max(0, kept - (len(ids) - room))
            source = prompt.source[: ends[kept - 1]] if kept else ""
            ids = self._prompt_ids(Prompt(prompt.before, source, prompt.after))
        if len(ids) > room:
            raise InputError(
                "max_length",
                f"{self.max_length} leaves {room} tokens for the prompt, and it takes {len(ids)} without the text.",
                "Raise lora.max_length or shorten the instruction.",
            )
        return ids, len(ends) - kept

    def example(self, prompt: Prompt, target: str) -> Example:
        """A training row: the target whole, the source cut where the row would be too long.

        Raises InputError when the target alone is too long.
        """
        answer = self.answer(target)
        if len(answer) >= self.max_length:
            raise InputError(
                "max_length",
                f"a target takes {len(answer)} tokens, and a row has {self.max_length}.",
                "Targets are never cut: raise lora.max_length or drop the row.",
            )
        ids, cut = self.prompt(prompt, room=self.max_length - len(answer))
        return Example([*ids, *answer], len(ids), cut)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, up to the token that ends an answer."""
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if self.chat:
            return self._encode(self._render([{"role": "user", "content": prompt.text}], generation=True))
        bos = self.tokenizer.bos_token_id
        return ([] if bos is None else [bos]) + self._encode(prompt.text)

    def _render(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generation,
            enable_thinking=False,  # read by templates of reasoning models: the answer follows at once
        )

    def _end_id(self) -> int:
        """The token after the assistant's answer in the chat template, else the end of text."""
        if self.chat:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
            after = self._encode(self._render(turns, generation=False).rpartition(MARK)[2].lstrip())
            if after and after[0] in self.tokenizer.all_special_ids:
                return after[0]
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "base", "the tokenizer has no end-of-text token.", "Set eos_token in its config."
            )
        return self.tokenizer.eos_token_id

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
