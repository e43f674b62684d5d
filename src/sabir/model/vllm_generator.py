"""Greedy answers by vLLM, where it is installed: one engine for a base and all adapters on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sabir.errors import InputError
from sabir.lora.files import open_adapter

NAME = "vllm"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that an engine may be made for


def generator_missing(name: str) -> str | None:
    """The command that installs what writes the texts, or None where it is there already."""
    return "pip install vllm" if name == NAME and find_spec(NAME) is None else None


class VllmModels:
    """The models that stand on one base, one at a time, as `Models` has them; answers come from vLLM.

    Args:
        base: folder of the base.
        adapters: the folders of all adapters that will be asked for: the engine is made for the largest.
        longest: tokens of the longest prompt and answer together.
    """

    def __init__(self, base: Path | str, *, adapters: Sequence[Path], longest: int):
        if command := generator_missing(NAME):
            raise InputError("evaluate.generator", "vLLM is not installed.", f"Run: {command}.")
        self._base = base
        self._adapters = {folder: place for place, folder in enumerate(adapters, 1)}
        self._longest = longest
        self._engine: Any = None
        self._of: Path | str | None = None

    @contextmanager
    def at(self, folder: Path | None) -> Iterator[Writer]:
        """What writes with the model in a folder: an adapter of those announced, or a whole model; None is the base."""
        from vllm.lora.request import LoRARequest

        if folder in self._adapters:
            place = self._adapters[folder]
            yield Writer(self._loaded(self._base), LoRARequest(str(place), place, str(folder)))
        else:
            yield Writer(self._loaded(self._base if folder is None else folder), None)

    def _loaded(self, folder: Path | str) -> Any:
        from vllm import LLM

        if self._of != folder:
            self._engine = None  # its memory goes first
            adapted = folder == self._base and bool(self._adapters)
            lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": self._rank()} if adapted else {}
            self._engine = LLM(
                model=str(folder),
                tokenizer=str(self._base),
                max_model_len=self._longest,
                generation_config=NAME,  # or the base's own settings would enter
                seed=0,
                **lora,
            )
            self._of = folder
        return self._engine

    def _rank(self) -> int:
        largest = max(max(open_adapter(folder).ranks.values(), default=1) for folder in self._adapters)
        if largest > RANKS[-1]:
            raise InputError(
                "evaluate.generator",
                f"an adapter has rank {largest}, and vLLM takes up to {RANKS[-1]}.",
                "Write generator: transformers, or fold the merge in.",
            )
        return next(rank for rank in RANKS if rank >= largest)


class Writer:
    """One model in an engine; `adapter` is vLLM's request for it, None for none."""

    def __init__(self, engine: Any, adapter: Any):
        self._engine = engine
        self._adapter = adapter

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> list[list[int]]:
        """New ids after each prompt, as of `model.generate.generate`: vLLM batches by itself."""
        from vllm import SamplingParams

        decoding = SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            stop_token_ids=list(stop_ids),
            ignore_eos=True,  # it is among ours, or is no end
            detokenize=False,
        )
        found = self._engine.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            decoding,
            lora_request=self._adapter,
            use_tqdm=False,
        )
        on_batch(len(prompts))
        return [list(one.outputs[0].token_ids) for one in found]
