"""A judge that is another base model: the step `outputs`, told of another base than the project's."""

from __future__ import annotations

import pytest
import torch

from model.tiny import TINY_BASE
from sabir.tasks import make_task
from sabir.work.outputs import outputs, read_answers
from sabir.work.predict import answer, rows_of
from sabir.work.prepare import Example, write_examples
from work.test_work_functions import FakeWork

LABELS = ("sport", "politics")
TEXTS = ("a ball game", "the vote in parliament", "they won the cup", "a law was passed", "a goal")


@pytest.fixture(scope="module")
def other_base(tmp_path_factory):
    """A base of another size and with other weights than the embedded one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("other-base")
    config = AutoConfig.from_pretrained(TINY_BASE)
    config.num_hidden_layers = 1
    config.intermediate_size *= 2
    config.initializer_range = 0.5  # so that it prefers one label to the other, by text
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY_BASE).save_pretrained(folder)
    return folder


def answered(tmp_path, task, base, identity, name):
    folder = tmp_path / "rows"
    folder.mkdir(exist_ok=True)
    rows = rows_of(TEXTS, task)
    write_examples(folder, "test", [Example(row.id, task.prompt(row), "sport") for row in rows])
    work = FakeWork(
        tmp_path / name,
        settings={
            "base": identity,
            "language": "en",
            "max_length": 64,
            "answer": "label",
            "labels": list(LABELS),
        },
        args={
            "base": {"folder": str(base)},
            "split": "test",
            "batch_size": 2,
            "answers": str(tmp_path / "answers"),
        },
        inputs={"rows": folder},
    )
    ((_, outcome),) = outputs([work])
    return read_answers(work.out), outcome


def test_another_base_answers_and_its_answers_are_kept_apart_from_the_projects(tmp_path, other_base):
    task = make_task("classification", {"labels": LABELS})
    bases = {"judge": (other_base, "sha256:other"), "ours": (TINY_BASE, "sha256:tiny")}
    found = {}
    for name, (base, identity) in bases.items():
        found[name], outcome = answered(tmp_path, task, base, identity, name)
        assert not outcome.get("result"), "nothing was known"
        alone = answer(
            rows_of(TEXTS, task), task=task, base=base, model=None, max_length=64, batch_size=1, device="cpu"
        )
        for ours, theirs in zip(found[name], alone, strict=True):
            assert ours["scores"] == pytest.approx(theirs["scores"], rel=1e-4)
    assert found["judge"] != found["ours"]
    again, outcome = answered(tmp_path, task, *bases["judge"], "again")
    assert again == found["judge"]
    assert outcome["result"] == {"kept": len(TEXTS)}
