"""The model that BERTScore reads texts with: from a folder, cut after one layer."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabir.errors import InputError

if TYPE_CHECKING:
    import torch

LONGEST = 512  # tokens of a text that are read, where the encoder reads so many
GIVE = "Give an encoder such as xlm-roberta-large or mdeberta-v3-base."


@dataclass(frozen=True)
class Encoder:
    """An encoder in a folder, and how texts are read by it.

    Attributes:
        folder: holds config.json, model.safetensors and a tokenizer, as transformers writes them.
        identity: what the encoder is, wherever its folder lies: a commit, or the digest of its files. It stands
            in the signature; `folder`, `batch_size` and `device` do not.
        layer: whose output is taken, from 1; None is the last. Middle layers judge better: 17 of 24 for
            roberta-large and xlm-roberta-large, 10 of 12 for mdeberta-v3-base.
        max_length: tokens of a text that are read, special ones included; the rest is cut off. None: 512, or as
            many as the encoder reads where those are fewer.
        batch_size: pairs of texts read at once; changes no score beyond float noise.
        device: as torch names it.
    """

    folder: str
    identity: str
    layer: int | None = None
    max_length: int | None = None
    batch_size: int = 32
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """How many tokens of a text are read at most."""
        if self.max_length is not None:
            return self.max_length
        most = _positions(_config(self.folder))
        return LONGEST if most is None else min(LONGEST, most)

    @property
    def signature(self) -> str:
        """What its scores stand on."""
        layer = "last" if self.layer is None else self.layer
        version = importlib.metadata.version("transformers")
        return f"encoder:{self.identity}|layer:{layer}|max_length:{self.tokens}|transformers-{version}"

    def read(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Loaded.read`; it is loaded when it first reads."""
        return load(self).read(texts)


@dataclass(frozen=True)
class Loaded:
    """An encoder in memory."""

    tokenizer: Any
    model: Any
    device: str
    max_length: int

    def read(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Every token of every text, in its context.

        Returns: unit vectors, float32 (texts, tokens, size); (texts, tokens) True for tokens, False for padding;
            (texts, tokens) True for tokens that are not special.
        """
        import torch

        batch = self.tokenizer(
            [self._led(text.strip()) for text in texts],
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            hidden = self.model(**batch).last_hidden_state
        there = batch["attention_mask"].bool()
        special = torch.zeros_like(there)
        for token in (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id):
            if token is not None:
                special |= batch["input_ids"] == token
        return torch.nn.functional.normalize(hidden, dim=-1), there, there & ~special

    def _led(self, text: str) -> str:
        """RoBERTa's and GPT-2's first word has another token without a blank before it."""
        from transformers import GPT2Tokenizer, RobertaTokenizer

        return f" {text}" if isinstance(self.tokenizer, (RobertaTokenizer, GPT2Tokenizer)) else text


def load(encoder: Encoder) -> Loaded:
    """The encoder in memory; the last one stays there, since a run scores many models by one encoder.

    Raises InputError as `check_encoder` does, and where weights are not there in safetensors or the encoder has fewer
    positions than are asked for.
    """
    tokenizer, model = _at(encoder.folder, encoder.identity, encoder.layer, encoder.device)
    longest = _positions(model.config)
    if longest is not None and not 3 <= encoder.tokens <= longest:
        raise InputError(
            "encoder",
            f"max_length is {encoder.tokens}, and {encoder.folder} reads 3 to {longest} tokens.",
            f"Set it to at most {longest}.",
        )
    return Loaded(tokenizer, model, encoder.device, encoder.tokens)


@functools.lru_cache(maxsize=1)
def _at(folder: str, identity: str, layer: int | None, device: str) -> tuple[Any, Any]:
    config = _checked(folder, folder, layer)
    import torch
    from transformers import AutoModel, AutoTokenizer

    with _quiet():
        if layer is not None:
            config.num_hidden_layers = layer  # the layers above are not even loaded
        try:
            model, found = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except OSError as error:
            fix = "Convert them with transformers' save_pretrained."
            raise InputError("encoder", f"{folder!r} holds no weights in safetensors.", fix) from error
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="right")
    # transformers fills what it does not find with random numbers; the pooler alone has no part in this
    if missing := sorted(name for name in found["missing_keys"] if "pooler" not in name):
        fix = "Give a folder that holds the whole encoder."
        raise InputError("encoder", f"{folder!r} lacks weights of the encoder, such as {missing[0]!r}.", fix)
    return tokenizer, model.to(device).eval()


def check_encoder(folder: Path, name: str, layer: int | None) -> None:
    """Raise InputError for a folder without an encoder, and for a layer that it has not; no weights are read.

    Args:
        name: as the config calls it.
    """
    _checked(str(folder), name, layer)


def _checked(folder: str, name: str, layer: int | None) -> Any:
    config = _config(folder)
    made_to_write = [
        one for one in config.architectures or () if one.endswith(("ForCausalLM", "LMHeadModel"))
    ]
    if config.is_encoder_decoder:
        raise InputError("encoder", f"{name!r} holds a {config.model_type}, not an encoder alone.", GIVE)
    if getattr(config, "is_decoder", False) or made_to_write:
        found = f"{name!r} holds a {config.model_type} that writes texts, and reads each word without those after it."
        raise InputError("encoder", found, GIVE)
    if layer is not None and not 1 <= layer <= config.num_hidden_layers:
        raise InputError(
            "encoder_layer",
            f"layer is {layer}, and {name!r} has layers 1 to {config.num_hidden_layers}.",
            f"Set it to at most {config.num_hidden_layers}.",
        )
    return config


def _config(folder: str) -> Any:
    """The encoder's config as transformers reads it, with what it leaves to defaults."""
    if not (Path(folder) / "config.json").is_file():
        raise InputError("encoder", f"no encoder in {folder!r}: there is no config.json.", GIVE)
    from transformers import AutoConfig

    try:
        with _quiet():
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        said = str(error).splitlines()[0][:200].rstrip(".")
        raise InputError("encoder", f"{folder!r} holds no model that can be read ({said}).", GIVE) from error


def _positions(config: Any) -> int | None:
    """How many tokens the encoder reads at most; None where its config does not say."""
    most = getattr(config, "max_position_embeddings", None)
    if most is None or "roberta" not in config.model_type:
        return most
    return most - config.pad_token_id - 1  # RoBERTa counts positions from the padding's id on


@contextmanager
def _quiet() -> Iterator[None]:
    """No "Loading weights" bar, and no report of weights left out on purpose."""
    from transformers.utils import logging

    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
