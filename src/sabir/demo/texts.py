"""The messages of the demo: a shop's support desk in five languages, written by grammars, labelled by topic.

Every message is a concern (one of 28 sentence patterns per label and language, filled from the language's
own words), often with an opening or a closing, now and then with an aside that names another topic without
meaning it. Of patterns and words every fifth never occurs in training data, so a test measures what was
learned, not what was remembered. Same arguments, same texts, on every Python version.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sabir.demo.grammars import Register, de, en, fr, ja, zh

LABELS = ("delivery", "payment", "defect", "account")
LANGUAGES = ("en", "de", "fr", "ja", "zh")

_REGISTERS = {m.__name__.rsplit(".", 1)[1]: m.REGISTERS for m in (en, de, fr, ja, zh)}

_OPENING = 0.30  # shares of the messages that have one
_CLOSING = 0.30
_ASIDE = 0.20
_SENTENCES = 3  # at most
_UNSEEN_EVERY = 5  # of patterns and of fillers, this one is kept out of training data
_SIDES = {"train": range(6), "valid": range(6, 8), "test": range(8, 10)}  # by the text's hash, modulo 10
_SIDE_OF = {
    **{"train": "train", "update": "train"},
    **{"valid": "valid", "test": "test", "production": "test"},
}
_PATIENCE = 5_000  # rejected texts in a row after which the grammar counts as exhausted

_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")


@dataclass(frozen=True)
class Message:
    """One message to the support desk and its topic, one of `LABELS`."""

    id: str
    text: str
    label: str


def messages(language: str, n: int, *, seed: int, registers: Sequence[str] = ("plain",)) -> list[Message]:
    """`n` different messages from the whole grammar, in equal shares per label and register.

    Raises:
        ValueError: no such language or register, or the grammar holds fewer than `n` texts.
    """
    return _draw(language, n, seed=seed, registers=registers, stage="all")


def splits(language: str, *, train: int, valid: int, test: int, seed: int) -> dict[str, list[Message]]:
    """Train, valid and test messages that share no text, and some patterns and words only in the latter two.

    German trains on the plain register alone; its valid and test messages are plain and chat in equal parts.
    Which split a text may enter depends on the text alone: splits of other seeds and sizes do not leak.
    """
    judged = ("plain", "chat") if language == "de" else ("plain",)
    return {
        "train": _draw(language, train, seed=seed, registers=("plain",), stage="train"),
        "valid": _draw(language, valid, seed=seed, registers=judged, stage="valid"),
        "test": _draw(language, test, seed=seed, registers=judged, stage="test"),
    }


def update_messages(n: int, *, seed: int) -> list[Message]:
    """The new German data: `n` chat messages, none of them in any valid or test split."""
    return _draw("de", n, seed=seed, registers=("chat",), stage="update")


def mixed_up(messages: Sequence[Message]) -> list[Message]:
    """The same messages, each with the topic that comes after its own in `LABELS`."""
    following = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))
    return [replace(one, label=following[one.label]) for one in messages]


def production_messages(language: str, n: int, *, seed: int, test: Sequence[Message]) -> list[Message]:
    """`n` messages as they come to the desk, like the test messages and none of them."""
    registers = ("plain", "chat") if language == "de" else ("plain",)
    known = {one.text for one in test}
    drawn = _draw(language, n + len(test), seed=seed, registers=registers, stage="production")
    return [one for one in drawn if one.text not in known][:n]


def _draw(language: str, n: int, *, seed: int, registers: Sequence[str], stage: str) -> list[Message]:
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: no such demo language. There are {', '.join(LANGUAGES)}.")
    for register in registers:
        if register not in _REGISTERS[language]:
            known = ", ".join(_REGISTERS[language])
            raise ValueError(f"register {register!r}: {language!r} has no such register. It has {known}.")
    side = _SIDE_OF.get(stage)
    prefix = language if side is None else f"{language}-{stage}"
    rng = random.Random(f"sabir demo/{prefix}/{'+'.join(registers)}/{seed}")
    cells = _cells(rng, registers)
    found: list[Message] = []
    counts = dict.fromkeys(registers, 0)
    texts: set[str] = set()
    while len(found) < n:
        register, label = next(cells)
        for _ in range(_PATIENCE):
            text = _compose(_REGISTERS[language][register], label, rng, unseen=side != "train")
            if text is not None and text not in texts and (side is None or _side(language, text) == side):
                break
        else:
            raise ValueError(f"n = {n}: the {language!r} grammar found only {len(found)} different messages.")
        texts.add(text)
        counts[register] += 1
        found.append(Message(f"{prefix}-{register}-{counts[register]:04d}", text, label))
    return found


def _cells(rng: random.Random, registers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Registers and labels in shuffled rounds: balanced in every prefix up to one round."""
    while True:
        left = [(register, label) for register in registers for label in LABELS]
        while left:
            yield left.pop(_index(rng, len(left)))


def _compose(register: Register, label: str, rng: random.Random, *, unseen: bool) -> str | None:
    """One message, or None where it came out too short or too long."""
    drawn: dict[str, str] = {}

    def sentence(patterns: Sequence[str]) -> str:
        return _fill(_pick(rng, patterns), register, rng, drawn, unseen=unseen)

    cores = register.cores[label]
    parts = [
        sentence(cores if unseen else _seen(cores))
    ]  # first, so that an opening speaks of the thing complained about
    if rng.random() < _ASIDE:
        topic = _pick(rng, [other for other in LABELS if other != label])
        parts.insert(_index(rng, 2), sentence(register.asides[topic]))
    opening, closing = rng.random() < _OPENING, rng.random() < _CLOSING
    if opening and closing and len(parts) == _SENTENCES - 1:
        opening, closing = (True, False) if rng.random() < 0.5 else (False, True)
    if opening:
        parts.insert(0, sentence(register.openings))
    if closing:
        parts.append(sentence(register.closings))
    text = parts[0]
    for part in parts[1:]:
        ends = text[-1] in ".,!?:。,?!、"
        text += (register.joint if ends or not register.glue else _pick(rng, register.glue)) + part
    fewest, most = register.length
    return text if fewest <= len(text) <= most else None


def _fill(
    pattern: str, register: Register, rng: random.Random, drawn: dict[str, str], *, unseen: bool
) -> str:
    """The pattern with its slots filled; `drawn` remembers the fillers, by family, for the message."""

    def digits(written: str) -> str:
        return re.sub("#", lambda _: str(_index(rng, 10)), written)

    def filler(match: re.Match[str]) -> str:
        slot, form = match.groups()
        family = slot.split("_")[0]
        if family not in drawn:
            rows = register.slots[slot]
            row = _pick(rng, rows if unseen else _seen(rows))
            drawn[family] = digits(row)
        forms = drawn[family].split("|")
        return forms[register.forms[family].index(form)] if form else forms[0]

    text = _SLOT.sub(filler, digits(pattern))
    return text.lower() if register.lower_case else text[0].upper() + text[1:]


def _seen(options: Sequence[str]) -> list[str]:
    """The options that may occur in training data."""
    return [option for i, option in enumerate(options) if (i + 1) % _UNSEEN_EVERY]


def _side(language: str, text: str) -> str:
    digest = hashlib.sha256(f"{language}\n{text}".encode()).digest()
    digit = int.from_bytes(digest[:8], "big") % 10
    return next(side for side, digits in _SIDES.items() if digit in digits)


def _pick(rng: random.Random, options: Sequence[str]) -> str:
    return options[_index(rng, len(options))]


def _index(rng: random.Random, n: int) -> int:
    """A number below `n`; `random()` alone is promised to stay the same across Python versions."""
    return int(rng.random() * n)
