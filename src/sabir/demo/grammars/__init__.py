"""Word material of the demo's messages: one module of data per language, each with its own registers.

A pattern is a sentence with slots: `{day}` takes one filler of the slot `day`, `{item.den}` takes the form
named `den` of the filler drawn for `item`, and every `#` becomes a digit. What is drawn for a slot holds for
the whole message. Slots of one family (the word before the underscore) share the draw: a complaint about
`{item_power}` makes the opening's `{item.a}` speak of the same thing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Register:
    """One way of writing in one language: the sentences and what may stand in them.

    Args:
        length: fewest and most characters of a message.
        slots: fillers per slot; a filler with several forms separates them by `|`.
        forms: names of those forms, in their order, per family of slots.
        openings: neutral first sentences: they fit every label.
        closings: neutral last sentences: they fit every label.
        asides: per label, sentences that mention its topic without making it the writer's concern.
        cores: per label, the sentences that carry the concern.
        joint: what stands between two sentences.
        glue: what may stand there when the first one ends without a mark, as in a chat.
        lower_case: write everything in lower case; otherwise a sentence begins with a capital.
    """

    length: tuple[int, int]
    slots: Mapping[str, tuple[str, ...]]
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    asides: Mapping[str, tuple[str, ...]]
    cores: Mapping[str, tuple[str, ...]]
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    joint: str = " "
    glue: tuple[str, ...] = ()
    lower_case: bool = False
