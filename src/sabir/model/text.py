"""From a prompt to token ids: the one place that builds text for training, scoring and generation.

With a chat template the prompt is the user's turn and the answer the assistant's; without one the answer
follows the cue after a blank. Prompt and answer are tokenised apart and joined as ids, everywhere alike,
so the seam between them is the same in training and in use. Examples before a prompt (few-shot) are turns of
their own in a chat template, and else stand before it in the same form, a blank line after each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sabir.errors import InputError
from sabir.tasks import Prompt

MARK = "\u241fanswer\u241f"  # stands for the answer while the template's own text is read off
BLANK_LINE = "\n\n"
DATE = (
    "26 Jul 2024"  # the default of Llama 3's template, which would otherwise write today's date into a prompt
)


Shot = tuple[Prompt, str]  # an example that a prompt stands behind: what was asked, and the gold answer


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
        self._following = lru_cache(maxsize=4096)(self._after)  # labels and shots come again with every row
        self.end_id = self._end_id()
        self.pad_id = self.end_id
        self.stop_ids = sorted({self.end_id, tokenizer.eos_token_id} - {None})

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, closed by the token that ends it."""
        before, answer = ("\n", text) if self.chat else (":", f" {text}")
        return [*self._following(before, answer), self.end_id]

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

    def few_shot(self, prompt: Prompt, shots: Sequence[Shot], *, room: int) -> list[int]:
        """Ids of a prompt behind some examples, at most `room` tokens.

        An instruction is said with the first of them, and again where another one is due. Where it all is too long,
        every source is cut at its end to one and the same number of tokens.
        Raises InputError when it does not fit even without the sources.
        """
        prompts = _said_once([*(shot for shot, _ in shots), prompt])
        answers = [answer for _, answer in shots]
        ids = self._turns_ids(prompts, answers)
        if len(ids) <= room:
            return ids
        ends = [self._token_ends(one.source) for one in prompts]

        def cut(kept: int) -> list[int]:
            sources = [
                one.source if len(end) <= kept else one.source[: end[kept - 1]] if kept else ""
                for one, end in zip(prompts, ends, strict=True)
            ]
            shorter = [replace(one, source=source) for one, source in zip(prompts, sources, strict=True)]
            return self._turns_ids(shorter, answers)

        kept = bisect_right(range(max(map(len, ends))), room, key=lambda kept: len(cut(kept))) - 1
        while kept >= 0:
            if (
                len(ids := cut(kept)) <= room
            ):  # one token fewer may give more: where it is cut, words fall apart
                return ids
            kept -= 1
        raise InputError(
            "rivals.shots",
            f"{len(shots)} examples and their question take {len(cut(0))} tokens without the texts, and there is room "
            f"for {max(room, 0)}.",
            "Lower it, raise lora.max_length, or shorten the instruction.",
        )

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

    def _turns_ids(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[int]:
        """Ids of prompts of which all but the last are answered."""
        if self.chat:
            turns = [{"role": "user", "content": prompts[0].text}]
            for answer, prompt in zip(answers, prompts[1:], strict=True):
                turns.append({"role": "assistant", "content": answer})
                turns.append({"role": "user", "content": prompt.text})
            return self._encode(self._render(turns, generation=True))
        ids = self._prompt_ids(prompts[0])
        for answer, prompt in zip(answers, prompts[1:], strict=True):
            ids += [*self.answer(answer)[:-1], *self._following("x", BLANK_LINE)]
            ids += self._following(BLANK_LINE, prompt.text)
        return ids

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

    def _after(self, before: str, text: str) -> tuple[int, ...]:
        """Ids of a text after another: some tokenizers put a blank of their own before the first word."""
        start, whole = self._encode(before, plain=True), self._encode(before + text, plain=True)
        joins = whole[: len(start)] != start
        return tuple(self._encode(text, plain=True) if joins else whole[len(start) :])

    def _encode(self, text: str, *, plain: bool = False) -> list[int]:
        """Ids of a text; in a `plain` one "</s>" is what the user wrote, never the end of a text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]


def _said_once(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts in a row, without an instruction that was the last one said."""
    said, shorter = "", []
    for prompt in prompts:
        shorter.append(replace(prompt, before="") if prompt.before == said else prompt)
        said = prompt.before or said
    return shorter
