"""Whatever is written in a config, it is taken or refused in a sentence."""

from __future__ import annotations

from config_texts import DESIGN
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sabir.config import (
    members,
)
from sabir.errors import InputError

words = st.sampled_from(
    [
        "embedded",
        "de",
        "data/de",
        "ties",
        "grid",
        "depth",
        "rows",
        "short",
        "my.module:function",
        "paper-eight",
        "fold",
        "method",
        "folder",
        "lora",
        "1e-4",
        "",
        "no",
        "../..",
        "~x",
        "x" * 300,
        "\u2028",
        "a\nb",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
places = st.sampled_from(
    [
        "base",
        "task",
        "task.name",
        "task.labels",
        "task.instruction",
        "task.prompts",
        "task.prompts.de",
        "data",
        "data.de",
        "data.de.folder",
        "data.ja.fields",
        "data.zh.adapter",
        "data.ja.train",
        "lora",
        "lora.targets",
        "lora.rank",
        "merges",
        "merges.ties",
        "merges.ties.density",
        "merges.ties.weights",
        "merges.ties.rank",
        "merges.ties.dialect",
        "merges.ties.search",
        "merges.ties.search.over",
        "merges.ties.preset",
        "merges.ties.method",
        "merges.ties.space",
        "select.metric",
        "gate.max_drop",
        "prices.usd_per_hour",
        "run.store",
        "run",
        "rivals",
        "rivals.translate",
        "rivals.translate.languages",
        "rivals.stress",
        "rivals.unseen",
        "rivals.routed",
        "seeds",
        "evaluate.encoder",
        "merges.average.weights",
        "a.b",
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(places, anything, max_size=3))
@example({"lora.rank": 10**5000})
def test_any_value_anywhere_is_taken_or_refused_in_a_sentence(read, changes):
    import yaml

    try:
        overrides = [
            f"{place}={yaml.safe_dump(value, allow_unicode=True)}" for place, value in changes.items()
        ]
    except ValueError:  # an int too long for Python to write
        overrides = [f"{place}={'9' * 5000}" for place in changes]
    try:
        config = read(DESIGN, *overrides)
    except InputError as error:
        assert str(error)  # noqa: PT017
    else:
        assert all(members(merge) for merge in config.merges.values())
