"""One question to a server that speaks the OpenAI chat protocol, asked until it is answered or lost."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sabir.errors import InputError

WAIT_S = 0.5  # before a question is asked again; twice as long each time
LONGEST_WAIT_S = 120.0  # that a server may wish for
TRIES = 4
TRIES_WHEN_BUSY = 8  # a minute in all: limits are per minute, as a rule
WHERE_KEY = "estimate.judge.key"
HOPELESS = {401, 403, 404}  # no key, no rights, no such model or path: the next question fares no better
FOR_GOOD = "insufficient_quota"  # is said with 429, and not mended by waiting
THINKING_TOKENS = 1024  # on top of the answer's, for models that ask for max_completion_tokens
SHOWN = 120  # characters of what a server said


@dataclass(frozen=True)
class Reply:
    """What a model wrote, whether it was `cut` at the length limit, and the tokens its server counted, if any."""

    text: str
    cut: bool
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True)
class Lost:
    """A question that was not answered: why, and whether the next ones will fare no better."""

    why: str
    timeout: bool = False
    hopeless: bool = False


def key_in(variable: str | None) -> str:
    """The key that an environment variable holds; "" where none is named. Raises InputError for one that is not set,
    and for what can be none."""
    if variable is None:
        return ""
    if not variable.isidentifier():
        found = "is no name of an environment variable."
        raise InputError(WHERE_KEY, found, "Write the variable that holds the key, not the key.")
    key = os.environ.get(variable, "").strip()
    if not key:
        fix = "Set it; for a server that needs none leave key: out."
        raise InputError(WHERE_KEY, f"the environment variable {variable} is not set.", fix)
    if not (key.isascii() and key.isprintable()):
        raise InputError(variable, "holds characters that no key has.", "Set the environment variable anew.")
    return key


class Chat:
    """A model at an endpoint; many threads may ask at once.

    Args:
        url, model: of the endpoint, and of the model there.
        key: the environment variable that holds the key; None: none is sent.
        timeout_s: after which a question is lost.
    """

    def __init__(self, *, url: str, model: str, key: str | None, timeout_s: float):
        from openai import OpenAI

        self._key = key_in(key)
        self._model = model
        self._client: Any = OpenAI(
            api_key=self._key or "none", base_url=url, timeout=timeout_s, max_retries=0
        )  # tries are ours: a timeout is not asked again, it may have been paid
        self._over = threading.Event()
        self._extra: dict[str, Any] = {"temperature": 0}
        self._limit = "max_tokens"

    def ask(self, text: str, *, max_tokens: int) -> Reply | Lost:
        """The model's answer to a text, at temperature 0; busy and broken servers are asked again, ever later."""
        import openai

        tries = 0
        while True:
            limit, extra = self._limit, self._extra
            try:
                room = max_tokens + (THINKING_TOKENS if limit != "max_tokens" else 0)
                response = self._client.chat.completions.with_raw_response.create(
                    model=self._model,
                    messages=[{"role": "user", "content": text}],
                    **{limit: room},
                    **extra,
                )
                return _reply(response.text) or Lost(f"no chat completion came: {self._shown(response.text)}")
            except openai.APITimeoutError:
                return Lost("it timed out", timeout=True)
            except openai.APIConnectionError as error:
                lost, retry, most = Lost(self._shown(_cause(error))), True, TRIES
                wished = None
            except openai.APIStatusError as error:
                if self._adapted(error, limit, extra):
                    continue
                lost, retry = (
                    self._refusal(error),
                    error.status_code in (408, 409, 429) or error.status_code >= 500,
                )
                retry &= not lost.hopeless
                most = TRIES_WHEN_BUSY if error.status_code == 429 else TRIES
                wished = error.response.headers.get("retry-after")
            except (openai.OpenAIError, RuntimeError) as error:  # the second: closed meanwhile
                return Lost(self._shown(str(error)))
            tries += 1
            if not retry or tries >= most or self._over.wait(_pause_s(wished, tries, text)):
                return lost

    def stop(self) -> None:
        """Ask nothing again."""
        self._over.set()

    def close(self) -> None:
        """Ask nothing again, and let go of what is under way."""
        self.stop()
        self._client.close()

    def _adapted(self, error: Any, limit: str, extra: Mapping[str, Any]) -> bool:
        """Whether it refused a setting that can be said otherwise: newer models take neither of ours."""
        if error.status_code != 400:
            return False
        for name in (limit, *extra):
            if error.param == name or f"'{name}'" in str(error.message):
                if name == "max_tokens":
                    self._limit = "max_completion_tokens"
                    return True
                if name in extra:
                    self._extra = {}
                    return True
        return False

    def _refusal(self, error: Any) -> Lost:
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message")
        said = said if isinstance(said, str) else error.response.text
        hopeless = error.status_code in HOPELESS or error.code == FOR_GOOD
        return Lost(f"HTTP {error.status_code}: {self._shown(said)}", hopeless=hopeless)

    def _shown(self, said: str) -> str:
        """The start of what a server said; some repeat the key."""
        said = " ".join(said.split())
        said = said.replace(self._key, "***") if self._key else said
        return repr(said if len(said) <= SHOWN else said[: SHOWN - 1] + "…")


def _reply(body: str) -> Reply | None:
    """The answer in a chat completion, or None where it is none."""
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    if text is not None and not isinstance(text, str):
        return None
    usage = document.get("usage")
    return Reply(
        text=text or "",
        cut=choice.get("finish_reason") == "length",
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
    )


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def _cause(error: BaseException) -> str:
    """What the network said: the library's own words are "Connection error."."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"


def _pause_s(wished: str | None, tries: int, text: str) -> float:
    """How long to wait: what the server wishes, else twice as long each time, a little otherwise for each question."""
    try:
        asked_s = float(wished or "")
    except ValueError:  # none, or a date
        asked_s = 0.0
    if 0 < asked_s <= LONGEST_WAIT_S:
        return asked_s
    apart = hashlib.sha256(f"{tries}:{text}".encode()).digest()[0] / 255
    return WAIT_S * 2 ** (tries - 1) * (0.75 + 0.5 * apart)
