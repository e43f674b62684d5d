"""From a prompt to token ids: the one place that builds text for training, scoring and generation.

With a chat template the prompt is the user's turn and the answer the assistant's; without one the answer
follows the cue after a blank. Prompt and answer are tokenised apart and joined as ids, everywhere alike,
so the seam between them is the same in training and in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sabir.errors import InputError
from sabir.tasks import Prompt

MARK = "\u241fanswer\u241f"  # stands for the answer while the template's own text is read off
DATE = (
    "26 Jul 2024"  # the default of Llama 3's template, which would otherwise write today's date into a prompt
)


@dataclass(frozen=True)
class Example:
    """Ids of prompt and answer in one row: `n_prompt` of the prompt, whose source lacks `cut` tokens."""

    ids: list[int]
    n_prompt: int
    cut: int


class TextBuilder:
    """Builds ids for one tokenizer; a row has at most `max_length` tokens, answer included.

    `end_id` closes an answer; `stop_ids` end a generation: a bare base may end its text where a chat model
    ends its turn. `pad_id` fills rows up: it is masked wherever it stands, so any token of the base will do.
    """

    def __init__(self, tokenizer: Any, *, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chat = bool(getattr(tokenizer, "chat_template", None))
        self.end_id = self._end_id()
        self.pad_id = self.end_id
        self.stop_ids = sorted({self.end_id, tokenizer.eos_token_id} - {None})

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, closed by the token that ends it."""
        before, answer = ("\n", text) if self.chat else (":", f" {text}")
        # after something, as in use: some tokenizers put a blank of their own before the first word
        start, whole = self._encode(before, plain=True), self._encode(before + answer, plain=True)
        joins = whole[: len(start)] != start
        return [*(self._encode(answer, plain=True) if joins else whole[len(start) :]), self.end_id]

    def prompt(self, prompt: Prompt, *, room: int) -> tuple[list[int], int]:
        """Ids of a prompt of at most `room` tokens, and how many tokens were cut off the end of its source.

        Raises InputError when the prompt does not fit even without its source.
        """
        whole = ids = self._prompt_ids(prompt)
        ends: Sequence[int] = () if len(whole) <= room else self._token_ends(prompt.source)
        kept = len(ends)
        while len(ids) > room and kept > 0:
            kept = max(0, kept - (len(ids) - room))
            source = prompt.source[: ends[kept - 1]] if kept else ""
            ids = self._prompt_ids(Prompt(prompt.before, source, prompt.after))
        if len(ids) > room:
            raise InputError(
                "lora.max_length",
                f"{self.max_length} leaves {max(room, 0)} tokens for the prompt, and it takes {len(ids)} "
                "without the text.",
                "Raise it or shorten the instruction.",
            )
        return ids, len(whole) - len(ids)

    def example(self, prompt: Prompt, target: str) -> Example:
        """A training row: the target whole, the source cut where the row would be too long.

        Raises InputError when the target alone is too long.
        """
        answer = self.answer(target)
        if len(answer) >= self.max_length:
            raise InputError(
                "lora.max_length",
                f"is {self.max_length}, and a target takes {len(answer)} tokens.",
                "Targets are never cut: raise it or drop the row.",
            )
        ids, cut = self.prompt(prompt, room=self.max_length - len(answer))
        return Example([*ids, *answer], len(ids), cut)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, up to the first token that ends an answer."""
        stop = next((place for place, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return self.tokenizer.decode(ids[:stop], skip_special_tokens=True)

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if self.chat:
            return self._encode(self._render([{"role": "user", "content": prompt.text}], generation=True))
        bos = self.tokenizer.bos_token_id
        return ([] if bos is None else [bos]) + self._encode(prompt.text, plain=True)

    def _token_ends(self, text: str) -> Sequence[int]:
        """Where each token of a text ends, in characters; every character for a tokenizer that cannot say."""
        if not self.tokenizer.is_fast:
            return range(1, len(text) + 1)
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=not self.chat, return_offsets_mapping=True
        )
        return [end for _, end in encoded["offset_mapping"]]

    def _render(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generation,
            enable_thinking=False,  # read by templates of reasoning models: the answer follows at once
            date_string=DATE,
        )

    def _end_id(self) -> int:
        """The token after the assistant's answer in the chat template, else the end of text."""
        if self.chat:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
            after = self._encode(self._render(turns, generation=False).rpartition(MARK)[2].lstrip())
            if after and self._is_special(after[0]):
                return after[0]
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "base", "the tokenizer has no end-of-text token.", "Set eos_token in its config."
            )
        return self.tokenizer.eos_token_id

    def _is_special(self, token: int) -> bool:
        added = self.tokenizer.added_tokens_decoder.get(token)  # Gemma 3's end of turn has no name of its own
        return token in self.tokenizer.all_special_ids or (added is not None and added.special)

    def _encode(self, text: str, *, plain: bool = False) -> list[int]:
        """Ids of a text; in a `plain` one "</s>" is what the user wrote, never the end of a text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
