"""Adapters from folders of rows, on the embedded base: continued, forgotten, and what they say of themselves."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

import sabir.model.train
from model.tiny import TINY_BASE
from sabir.errors import SabirError
from sabir.tasks import make_task
from sabir.work.epochs import checkpoint
from sabir.work.prepare import load, prepare, read_examples
from sabir.work.rows import choose, half, line_of, read_rows
from sabir.work.sources import Forgotten, Source, hash_of
from sabir.work.train import train

BASE = {"name": "org/base", "folder": str(TINY_BASE), "revision": None}
LABELS = ("sport", "politics")
TASK = {"name": "classification", "settings": {"labels": list(LABELS)}}
LORA = {
    "rank": 2,
    "alpha": 4.0,
    "targets": ["q_proj", "v_proj"],
    "dropout": 0.1,
    "rslora": False,
    "epochs": 2.0,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "max_length": 64,
    "warmup": 0.0,
    "schedule": "linear",
    "weight_decay": 0.0,
    "seed": 0,
}


def source(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, some in (("train", texts), ("valid", ["v"]), ("test", ["t"])):
        files[split] = folder / f"{split}.jsonl"
        rows = [{"text": text, "label": LABELS[len(text) % 2]} for text in some]
        files[split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source("de", files=files)


def data(folder, given):
    """The folder of a data step."""
    out = folder / "out"
    out.mkdir(parents=True)
    summary = load(given, make_task("classification", {"labels": LABELS}))[1]
    work = SimpleNamespace(
        name="data/de",
        settings=dict(summary.digests),
        args={"source": given.to_json(), "task": TASK},
        out=out,
    )
    list(prepare([work]))
    return out


def work(out, inputs, *, replay=None, lora=LORA, language="de", halvings=0, emit=lambda *_, **__: None):
    out.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        name=f"adapter/{language}",
        settings={"language": language, **({} if replay is None else {"update": {"replay": replay}})},
        args={"base": BASE, "lora": lora, "micro_batch": 4, "checkpoint_every_s": 1e9},
        inputs=inputs,
        out=out,
        device="cpu",
        halvings=halvings,
        emit=emit,
    )


def trained(*args, **settings):
    """The result of one training."""
    [(_, outcome)] = train([work(*args, **settings)])
    return outcome["result"]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


OLD = [f"text {i} " * (1 + i % 3) for i in range(8)]
NEW = [f"news {i} " * (1 + i % 3) for i in range(4)]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    return data(folder, source(folder, OLD))


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    folder = tmp_path_factory.mktemp("more")
    return data(folder, source(folder, OLD + NEW))


@pytest.fixture(scope="module")
def parent(old, tmp_path_factory):
    out = tmp_path_factory.mktemp("parent")
    trained(out, {"rows/de": old})
    return out


def test_an_adapter_says_which_rows_it_was_trained_on(old, parent):
    assert read_rows(parent) == Counter(map(line_of, read_examples(old, "train")))


def test_a_continuation_is_trained_on_the_new_rows_and_a_share_of_the_old(parent, more, tmp_path):
    examples = read_examples(more, "train")
    expected = choose(examples, read_rows(parent), replay=0.5, seed=LORA["seed"])
    assert 0 < len(expected.replayed) < len(OLD)
    result = trained(tmp_path, {"rows/de": more, "parent": parent}, replay=0.5)
    assert {row.prompt.source for row in expected.new} == set(NEW)
    assert (result["new"], result["replayed"]) == (len(NEW), len(expected.replayed))
    assert result["rows"] == len(expected.rows)
    assert result["characters"] == sum(len(row.prompt.text) + len(row.target) for row in expected.rows)
    assert result["steps"] == 2 * -(-len(expected.rows) // LORA["batch_size"])


def test_a_continuation_stands_for_its_parents_rows_too(parent, more, tmp_path):
    trained(tmp_path, {"rows/de": more, "parent": parent}, replay=0.0)
    assert read_rows(tmp_path) == Counter(map(line_of, read_examples(more, "train")))


def test_a_continuation_is_the_same_bytes_each_time_and_another_adapter_than_from_scratch(
    parent, more, tmp_path
):
    for name in ("one", "two"):
        trained(tmp_path / name, {"rows/de": more, "parent": parent}, replay=0.25)
    trained(tmp_path / "scratch", {"rows/de": more})
    assert content(tmp_path / "one") == content(tmp_path / "two")
    one, scratch = content(tmp_path / "one"), content(tmp_path / "scratch")
    assert one["rows.txt"] == scratch["rows.txt"]
    assert one["adapter_config.json"] == scratch["adapter_config.json"]
    assert one["adapter_model.safetensors"] != scratch["adapter_model.safetensors"]


def test_a_continuation_that_learns_nothing_is_its_parent_to_the_byte(parent, more, tmp_path):
    trained(
        tmp_path,
        {"rows/de": more, "parent": parent},
        replay=0.1,
        lora={**LORA, "learning_rate": 1e-30},
    )
    ours, theirs = content(tmp_path), content(parent)
    assert ours["adapter_model.safetensors"] == theirs["adapter_model.safetensors"]


def test_a_stopped_continuation_goes_on_with_the_same_rows_to_the_same_bytes(parent, more, tmp_path):
    inputs = {"rows/de": more, "parent": parent}
    trained(tmp_path / "whole", inputs, replay=0.5)

    def stop(done, total, **facts):
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        trained(tmp_path / "stopped", inputs, replay=0.5, emit=stop)
    assert list((tmp_path / "stopped" / "checkpoints").iterdir())
    trained(tmp_path / "stopped", inputs, replay=0.5)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_a_combined_adapter_goes_on_with_one_language_and_stands_for_all(parent, tmp_path):
    french = [f"texte {i}" for i in range(5)]
    new = data(tmp_path, source(tmp_path, french))
    result = trained(tmp_path / "out", {"rows/fr": new, "parent": parent}, replay=0.0, language="continued")
    assert (result["rows"], result["new"], result["replayed"]) == (5, 5, 0)
    lines = Counter(map(line_of, read_examples(new, "train")))
    assert read_rows(tmp_path / "out") == read_rows(parent) + lines


def test_a_forgotten_row_gives_the_bytes_of_rows_that_never_had_it(tmp_path):
    never = data(tmp_path / "never", source(tmp_path / "never", OLD))
    given = source(tmp_path / "had", [*OLD[:3], "a secret", *OLD[3:]])
    whole = data(tmp_path / "had", given)
    forgot = data(tmp_path / "forgot", replace(given, forgotten=(Forgotten(None, hash_of("a secret")),)))
    for name, rows in (("never", never), ("had", whole), ("forgot", forgot)):
        trained(tmp_path / f"adapter-{name}", {"rows/de": rows})
    assert content(tmp_path / "adapter-forgot") == content(tmp_path / "adapter-never")
    assert content(tmp_path / "adapter-had") != content(tmp_path / "adapter-never")
    assert content(forgot) == content(never)


def test_a_parent_that_does_not_say_what_it_saw_is_refused(more, parent, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (silent / name).write_bytes((parent / name).read_bytes())
    with pytest.raises(
        SabirError, match=r"does not say which rows it was trained on\. Write update: scratch"
    ):
        trained(tmp_path / "out", {"rows/de": more, "parent": silent}, replay=0.1)


@pytest.mark.parametrize(("halvings", "expected"), [(0, 4), (1, 2), (2, 1), (5, 1)])
def test_each_time_out_of_memory_halves_the_micro_batch(old, tmp_path, monkeypatch, halvings, expected):
    seen = []

    def stop(rows, *, micro_batch, **_):
        seen.append(micro_batch)
        raise SabirError("", "enough")

    monkeypatch.setattr(sabir.model.train, "train_adapter", stop)
    with pytest.raises(SabirError, match="enough"):
        trained(tmp_path, {"rows/de": old}, halvings=halvings)
    assert seen == [expected]


# --- for ensembles -----------------------------------------------------------------------------------------


def test_halves_are_each_others_rest_and_of_one_size(tmp_path):
    texts = [f"text number {i}" for i in range(11)]
    rows = read_examples(data(tmp_path / "d", source(tmp_path / "s", texts)), "train")
    one, other = half(rows, 1), half(rows, 2)
    assert sorted(row.id for row in one + other) == sorted(row.id for row in rows)
    assert (len(one), len(other)) == (6, 5)
    assert half(rows, 3) not in (one, other)
    assert half(list(reversed(rows)), 1) == list(reversed(one))


def test_an_adapter_of_one_half_is_trained_on_those_rows_only(tmp_path):
    texts = [f"text number {i}" for i in range(8)]
    rows = data(tmp_path / "d", source(tmp_path / "s", texts))
    one = work(tmp_path / "out", {"rows/de": rows})
    one.settings["half"] = 2
    ((_, outcome),) = train([one])
    assert outcome["result"]["rows"] == 4
    assert read_rows(tmp_path / "out") == Counter(map(line_of, half(read_examples(rows, "train"), 2)))


def test_each_epoch_but_the_last_is_kept_where_it_is_asked_for_and_changes_nothing(tmp_path):
    rows = data(tmp_path / "d", source(tmp_path / "s", [f"text number {i}" for i in range(8)]))
    lora = {**LORA, "epochs": 3.0}
    plain, kept = (work(tmp_path / name, {"rows/de": rows}, lora=lora) for name in ("plain", "kept"))
    kept.args["keep_epochs"] = True
    list(train([plain]))
    list(train([kept]))
    weights = "adapter_model.safetensors"
    assert (plain.out / weights).read_bytes() == (kept.out / weights).read_bytes()
    assert not (plain.out / "epochs").exists()
    assert sorted(folder.name for folder in (kept.out / "epochs").iterdir()) == ["1", "2"]
    found = [(kept.out / "epochs" / epoch / weights).read_bytes() for epoch in ("1", "2")]
    assert len({*found, (kept.out / weights).read_bytes()}) == 3
    out = tmp_path / "checkpoint"
    out.mkdir()
    copy = SimpleNamespace(
        name="adapter/de[epoch=2]", settings={"epoch": 2}, inputs={"adapter": kept.out}, out=out
    )
    list(checkpoint([copy]))
    assert (out / weights).read_bytes() == found[1]
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"


def test_an_adapter_that_kept_no_epochs_says_so(tmp_path):
    rows = data(tmp_path / "d", source(tmp_path / "s", [f"text number {i}" for i in range(8)]))
    plain = work(tmp_path / "plain", {"rows/de": rows})
    list(train([plain]))
    asked = SimpleNamespace(name="x", settings={"epoch": 1}, inputs={"adapter": plain.out}, out=tmp_path)
    with pytest.raises(SabirError, match="kept no adapter of epoch 1"):
        list(checkpoint([asked]))
