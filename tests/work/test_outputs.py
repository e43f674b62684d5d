"""What models are asked, and what they answer: labels, choices, texts, few-shot, and what is kept of it."""

from __future__ import annotations

import json
import shutil
import sys
import threading

import pytest

from model.test_vllm_generator import vllm  # noqa: F401  (a fixture)
from model.tiny import TINY_BASE, save_adapter
from sabir.errors import InputError
from sabir.model import loading
from sabir.model.loading import load_tokenizer
from sabir.model.text import TextBuilder
from sabir.tasks import Prompt, Row, make_task
from sabir.work import answers as module
from sabir.work.answers import Answers, model_key, model_keys
from sabir.work.outputs import in_words, outputs, read_answers
from sabir.work.predict import answer, rows_of
from sabir.work.prepare import Example, write_examples
from sabir.work.questions import Question, questions, room_of
from work.test_work_functions import FakeWork

IDENTITY = "sha256:base"
LABELS = ["sport", "sport and politics", "politics"]
SHOTS = {"count": 2, "seed": 0}


def row(name, text, target="sport", options=()):
    return Example(name, Prompt("Which?\n\n", text, "\n\nAnswer:"), target, tuple(options))


TEXTS = ["a goal", "a vote of the people in May", "une élection", "選挙の日", "der Ball ist rund"]
LABELLED = [row(f"r{i}", text) for i, text in enumerate(TEXTS)]
CHOICES = [
    row("c0", "Who runs?", "the dog", ["the dog", "a very old table of some wood", "nobody"]),
    row("c1", "What is it?", "a", ["a", "a b"]),
    row("c2", "Wohin?", "nach Hause", ["nach Hause", "weg", "in den Wald", "hinaus", "her"]),
]
TRAIN = [row(f"t{i}", f"train text {i}", LABELS[i % 3]) for i in range(6)]


@pytest.fixture
def rows(tmp_path):
    """A folder of a data step: labelled rows as test, choices as valid, and training rows."""
    folder = tmp_path / "rows"
    folder.mkdir()
    write_examples(folder, "test", LABELLED)
    write_examples(folder, "valid", CHOICES)
    write_examples(folder, "train", TRAIN)
    return folder


@pytest.fixture
def adapter(tmp_path):
    return save_adapter(tmp_path / "adapters" / "de", TINY_BASE, seed=1, size=0.2)


def work(rows, out, *, model=None, kept=None, split="test", name=None, shots=None, **settings):
    told = {"base": IDENTITY, "language": "de", "max_length": 64, "answer": "label", "labels": LABELS}
    if settings.get("answer", "label") != "label":
        del told["labels"]
    if shots:
        told["shots"] = shots
    return FakeWork(
        out,
        name=name or out.name,
        settings={**told, **settings},
        args={
            "base": {"folder": str(TINY_BASE)},
            "split": split,
            "batch_size": 2,
            "answers": str(kept) if kept else None,
        },
        inputs={
            "rows": rows,
            **({"model": model} if model else {}),
            **({"shots": rows} if shots else {}),
        },
    )


def done(*works):
    """The answers of each step, and its outcome."""
    outcomes = dict(outputs(works))
    found = {one.name: (read_answers(one.out), outcomes[one.name]) for one in works}
    return next(iter(found.values())) if len(works) == 1 else found


def alone(prompt, option, *, model=None):
    """The log-likelihood of one option of one row, in a pass of its own."""
    import torch

    builder = TextBuilder(load_tokenizer(TINY_BASE), max_length=64)
    prompt, option = builder.prompt(prompt, room=1000)[0], builder.answer(option)
    with loading.Models(TINY_BASE, device="cpu").at(model) as loaded, torch.inference_mode():
        logs = loaded(input_ids=torch.tensor([prompt + option])).logits[0].double().log_softmax(-1)
    return float(sum(logs[len(prompt) + k - 1, token] for k, token in enumerate(option)))


# --- what is chosen --------------------------------------------------------------------------------------


def test_each_row_is_answered_with_the_likeliest_of_its_own_choices(rows, adapter, tmp_path):
    found, outcome = done(work(rows, tmp_path / "out", model=adapter, split="valid", answer="choice"))
    assert [one["id"] for one in found] == ["c0", "c1", "c2"]
    for one, example in zip(found, CHOICES, strict=True):
        assert list(one["scores"]) == list(example.options)
        for option, score in one["scores"].items():
            assert score == pytest.approx(
                alone(example.prompt, option, model=adapter), abs=2e-4
            )  # 2e-5 a token
        assert one["prediction"] == max(example.options, key=one["scores"].get)
    assert outcome["tokens"] > 0
    assert "result" not in outcome


def test_a_label_that_another_begins_with_is_scored_to_its_end(rows, tmp_path):
    found, _ = done(work(rows, tmp_path / "out"))
    for one, example in zip(found, LABELLED, strict=True):
        assert one["scores"] == pytest.approx(
            {label: alone(example.prompt, label) for label in LABELS}, abs=1e-4
        )


def test_of_equally_likely_options_the_first_is_the_answer():
    question = Question("a", None, ("x", "y", "z"), ((1,), (2,), (3,)))
    assert in_words(question, {"scores": [-2.0, -1.0, -1.0]})["prediction"] == "y"


def test_an_option_that_does_not_fit_is_refused_with_its_language_and_row(rows, tmp_path):
    with pytest.raises(InputError) as error:
        done(work(rows, tmp_path / "out", split="valid", answer="choice", max_length=8))
    assert str(error.value).startswith(
        "data.de: row 'c0': lora.max_length: is 8, and the longest answer takes "
    )
    assert str(error.value).endswith("tokens. Answers are never cut: raise it or drop the row.")


def test_a_row_without_choices_is_refused(rows, tmp_path):
    with pytest.raises(InputError, match=r"^data\.de: row 'r\d': has no choices\."):
        done(work(rows, tmp_path / "out", answer="choice"))


def test_a_long_option_shortens_the_prompt_of_its_row_alone():
    builder = TextBuilder(load_tokenizer(TINY_BASE), max_length=40)
    text = "a word or two " * 30
    long, short = row("a", text, options=["one " * 20, "two"]), row("b", text, options=["one", "two"])
    found = questions(builder, [long, short], settings={"answer": "choice", "max_length": 40})
    assert all(len(one.prompt) + max(map(len, one.option_ids)) == 40 for one in found)
    assert len(found[0].prompt) < len(found[1].prompt)


# --- what is written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "phrases"])
def test_a_text_that_met_its_limit_is_marked(rows, tmp_path, kind):
    found, outcome = done(work(rows, tmp_path / "out", answer=kind, max_new_tokens=4))
    assert all(one["cut"] is True for one in found), "the tiny base knows no end"
    assert all(
        isinstance(one["prediction"], str) and set(one) == {"id", "prediction", "cut"} for one in found
    )
    assert outcome["tokens"] > 5 * 4


def test_a_text_that_ended_by_itself_is_not_marked_nor_is_an_empty_one(rows, tmp_path, monkeypatch):
    from sabir.model import generate as generation

    builder = TextBuilder(load_tokenizer(TINY_BASE), max_length=64)
    end, word = builder.end_id, builder.answer("word")[0]
    written = [[end], [word, word, end], [word, word, word], [word, end], [word, word, end]]
    monkeypatch.setattr(generation, "generate", lambda *_, **__: written)
    found, _ = done(work(rows, tmp_path / "out", answer="text", max_new_tokens=3))
    assert [one.get("cut") for one in found] == [None, None, True, None, None]
    assert found[0]["prediction"] == ""


def test_vllm_writes_texts_where_it_is_asked_to(rows, adapter, tmp_path, vllm, monkeypatch):  # noqa: F811
    monkeypatch.setattr(loading, "load_base", lambda *_, **__: pytest.fail("not needed"))
    given = {"answer": "text", "max_new_tokens": 3, "generator": "vllm"}
    works = [
        work(rows, tmp_path / name, model=model, **given) for name, model in (("a", adapter), ("b", None))
    ]
    found = done(*works)
    assert [one["max_model_len"] for one in vllm.engines] == [64]
    assert [one["id"] for one in found["a"][0]] == [one.id for one in LABELLED]
    assert all("cut" in one for one in found["a"][0]), "three tokens of three, and no end among them"
    assert found["a"][0] != found["b"][0], "the stand-in writes the adapter's number"


def test_vllm_is_not_asked_to_choose(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert done(work(rows, tmp_path / "a", generator="vllm"))[0] == done(work(rows, tmp_path / "b"))[0]


# --- few-shot --------------------------------------------------------------------------------------------


def shown(train, example=LABELLED[0], shots=SHOTS, **settings):
    """The asked prompt as text."""
    tokenizer = load_tokenizer(TINY_BASE)
    settings = {"answer": "label", "labels": LABELS, "max_length": 64, "shots": shots, **settings}
    [found] = questions(TextBuilder(tokenizer, max_length=64), [example], settings=settings, train=train)
    return tokenizer.decode(found.prompt)


def examples_in(text):
    return [part for part in text.split("\n\n") if part.startswith("train text")]


def test_examples_are_of_the_training_rows_by_seed_and_not_by_order():
    text = shown(TRAIN)
    assert len(examples_in(text)) == 2
    assert shown(TRAIN[::-1]) == text
    assert shown([TRAIN[i] for i in (3, 0, 5, 1, 4, 2)]) == text
    others = {tuple(examples_in(shown(TRAIN, shots={"count": 2, "seed": seed}))) for seed in range(8)}
    assert len(others) > 3
    more = examples_in(shown(TRAIN, shots={"count": 3, "seed": 0}))
    assert more[:2] == examples_in(text), "one more comes last"


def test_an_example_is_never_the_asked_text_nor_the_same_twice():
    first = examples_in(shown(TRAIN))[0]
    *before, asked = examples_in(shown(TRAIN, example=row("x", first)))
    assert asked == first
    assert len(before) == 2
    assert first not in before
    twice = [one for one in TRAIN for _ in range(2)]
    assert len(set(examples_in(shown(twice)))) == 2


def test_too_few_training_rows_are_told():
    with pytest.raises(InputError, match=r"rivals\.shots: is 4, and the training rows hold 3 other texts\."):
        shown(TRAIN[:3], shots={"count": 4, "seed": 0})


def test_few_shot_prompts_may_take_the_room_of_as_many_rows_up_to_the_bases_positions():
    settings = {"max_length": 64, "shots": {"count": 3, "seed": 0}}
    assert room_of({"max_length": 64}, 1024) == 64
    assert room_of(settings, 1024) == 256
    assert room_of(settings, None) == 256
    assert room_of(settings, 200) == 200


def test_examples_change_the_answers_and_are_read_from_the_shots(rows, tmp_path):
    plain, few, again = (
        work(rows, tmp_path / name, shots=shots)
        for name, shots in (("plain", None), ("few", SHOTS), ("again", SHOTS))
    )
    found = done(plain, few, again)
    assert found["few"] == found["again"]
    for one, other in zip(found["plain"][0], found["few"][0], strict=True):
        assert abs(one["scores"]["sport"] - other["scores"]["sport"]) > 0.01
    assert found["few"][1]["tokens"] > 2 * found["plain"][1]["tokens"]


def test_choices_under_letters_are_listed_in_the_examples_too():
    task = make_task("choice", {"answer_with": "letter"})
    asked = [Row(str(i), f"train text {i}?", "no", choices=("yes", "no")) for i in range(3)]
    train = [Example(one.id, task.prompt(one), task.target(one), task.options(one)) for one in asked]
    text = shown(train[:2], example=train[2], answer="choice", labels=[])
    assert text.count("A. yes\nB. no\n\nAnswer:") == 3
    assert text.count("Answer: B") == 2
    assert text.endswith("Answer:")


# --- one load, one tokenisation --------------------------------------------------------------------------


def test_what_is_asked_is_put_into_tokens_once_for_all_models(rows, adapter, tmp_path, monkeypatch):
    calls = []
    prompt = TextBuilder.prompt
    monkeypatch.setattr(
        TextBuilder, "prompt", lambda self, *args, **given: calls.append(1) or prompt(self, *args, **given)
    )
    works = [work(rows, tmp_path / str(i), model=model) for i, model in enumerate((None, adapter, None))]
    done(*works)
    assert len(calls) == len(LABELLED)


def test_an_adapter_changes_every_score_and_the_base_is_not_asked_in_its_place(rows, adapter, tmp_path):
    found = done(work(rows, tmp_path / "own", model=adapter), work(rows, tmp_path / "base"))
    for own, bare, example in zip(found["own"][0], found["base"][0], LABELLED, strict=True):
        for label in LABELS:
            assert abs(own["scores"][label] - bare["scores"][label]) > 0.01
            assert own["scores"][label] == pytest.approx(
                alone(example.prompt, label, model=adapter), abs=1e-4
            )


def test_a_step_that_ran_out_of_memory_takes_half_as_many_rows_at_once(rows, tmp_path):
    steps = [work(rows, tmp_path / name) for name in ("whole", "halved")]
    steps[1].halvings = 1
    found = done(*steps)
    assert [[event[0] for event in step.events] for step in steps] == [[2, 4, 5], [1, 2, 3, 4, 5]]
    for one, other in zip(found["whole"][0], found["halved"][0], strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)  # the batch: float noise


# --- what is kept ----------------------------------------------------------------------------------------


def no_model(monkeypatch):
    monkeypatch.setattr(loading, "load_base", lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.mark.parametrize("kind", [{}, {"answer": "text", "max_new_tokens": 3}, {"shots": SHOTS}])
def test_what_was_answered_once_is_answered_again_without_a_model_bit_for_bit(
    rows, adapter, tmp_path, monkeypatch, kind
):
    kept = tmp_path / "answers"
    first = work(rows, tmp_path / "a", model=adapter, kept=kept, **kind)
    _, outcome = done(first)
    assert "result" not in outcome
    moved = tmp_path / "elsewhere"
    shutil.copytree(adapter, moved)
    no_model(monkeypatch)
    second = work(rows, tmp_path / "b", model=moved, kept=kept, **kind)
    _, again = done(second)
    assert (second.out / "outputs.jsonl").read_bytes() == (first.out / "outputs.jsonl").read_bytes()
    assert (again["tokens"], again["result"]) == (0, {"kept": 5})


def test_without_a_place_nothing_is_kept(rows, tmp_path):
    done(work(rows, tmp_path / "a"))
    assert not (tmp_path / "answers").exists()


def test_an_adapter_trained_again_under_its_old_name_is_asked_anew(rows, adapter, tmp_path):
    kept = tmp_path / "answers"
    old, _ = done(work(rows, tmp_path / "a", model=adapter, kept=kept))
    shutil.rmtree(adapter)
    save_adapter(adapter, TINY_BASE, seed=2, size=0.2)
    new, outcome = done(work(rows, tmp_path / "b", model=adapter, kept=kept))
    fresh, _ = done(work(rows, tmp_path / "c", model=adapter))
    assert new == fresh
    assert "result" not in outcome
    assert all(abs(a["scores"]["sport"] - b["scores"]["sport"]) > 0.01 for a, b in zip(old, new, strict=True))


def test_another_scale_in_the_config_of_the_same_weights_is_another_model(rows, adapter, tmp_path):
    before = model_key(adapter, IDENTITY)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 8}))
    assert model_key(adapter, IDENTITY) != before
    (adapter / "rows.txt").write_text("no part of it")
    (adapter / "record.json").write_text("{}")
    assert model_key(adapter, IDENTITY) == model_key(adapter, "another base"), "that enters a row's key"
    assert model_key(None, IDENTITY) != model_key(None, "another base")


@pytest.mark.parametrize(
    "other",
    [{"base": "sha256:other"}, {"labels": LABELS[:2]}, {"labels": LABELS[::-1]}, {"shots": SHOTS}],
)
def test_other_questions_or_another_base_find_nothing(rows, adapter, tmp_path, other):
    kept = tmp_path / "answers"
    done(work(rows, tmp_path / "a", model=adapter, kept=kept))
    _, outcome = done(work(rows, tmp_path / "b", model=adapter, kept=kept, **other))
    assert "result" not in outcome


def test_texts_of_another_length_or_generator_find_nothing(rows, tmp_path, vllm):  # noqa: F811
    kept, given = tmp_path / "answers", {"answer": "text", "max_new_tokens": 3}
    done(work(rows, tmp_path / "a", kept=kept, **given))
    for i, other in enumerate(({"max_new_tokens": 2}, {"generator": "vllm"})):
        assert "result" not in done(work(rows, tmp_path / str(i), kept=kept, **{**given, **other}))[1]


def test_only_rows_that_are_new_are_asked(rows, adapter, tmp_path):
    kept = tmp_path / "answers"
    first, _ = done(work(rows, tmp_path / "a", model=adapter, kept=kept))
    new = [row("other id", TEXTS[0]), row("n", "something else"), *LABELLED[2:]]
    write_examples(rows, "test", new)
    step = work(rows, tmp_path / "b", model=adapter, kept=kept)
    found, outcome = done(step)
    assert outcome["result"] == {"kept": 4}
    assert step.events[-1][:2] == (5, 5)
    assert [one["id"] for one in found] == [one.id for one in new]
    assert found[0]["scores"] == first[0]["scores"]
    assert found[2:] == first[2:]
    assert len(list(kept.glob("*/*.json"))) == 2, "a file per step"


@pytest.mark.parametrize("how", ["cut", "flipped", "half", "empty", "folder"])
def test_a_file_that_is_not_what_its_name_says_is_passed_over(rows, adapter, tmp_path, how):
    kept = tmp_path / "answers"
    right, _ = done(work(rows, tmp_path / "a", model=adapter, kept=kept))
    [path] = kept.glob("*/*.json")
    data = path.read_bytes()
    if how == "folder":
        path.unlink()
        path.mkdir()
    else:
        at = data.index(b"-") + 1
        digit = b"1" if data[at : at + 1] != b"1" else b"2"
        broken = {
            "cut": data[:-7],
            "flipped": data[:at] + digit + data[at + 1 :],
            "half": b'{"',
            "empty": b"",
        }
        path.write_bytes(broken[how])
    if how == "folder":
        path.rmdir()
        path = path.with_name(f".{path.name}.{'0' * 32}")  # being written
        path.write_bytes(data[:40])
    found, outcome = done(work(rows, tmp_path / "b", model=adapter, kept=kept))
    assert "result" not in outcome
    assert found == right, "asked again, in the same batches"


def test_many_writers_lose_nothing(tmp_path):
    settings = {"base": IDENTITY}

    def write(worker):
        kept = Answers(tmp_path, model="m", settings=settings, device="cpu")
        for i in range(20):
            kept.add(question(worker * 10 + i), {"scores": [float(worker * 10 + i)]})  # neighbours overlap
        kept.save()

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Answers(tmp_path, model="m", settings=settings, device="cpu")
    assert [found.get(question(i)) for i in range(90)] == [{"scores": [float(i)]} for i in range(90)]
    assert found.get(question(90)) is None
    assert not list(tmp_path.glob("*/.*"))


def question(number):
    from array import array

    return Question(str(number), array("i", [1, number]), ("a",), ((5, 2),))


def test_numbers_are_read_back_as_they_were(tmp_path):
    kept = Answers(tmp_path, model="m", settings={}, device="cpu")
    values = [-0.1, -1 / 3, -1e-45, -float("inf"), -123456.789, 0.0]
    kept.add(question(1), {"scores": values})
    kept.save()
    read = Answers(tmp_path, model="m", settings={}, device="cpu").get(question(1))
    assert [one.hex() for one in read["scores"]] == [one.hex() for one in values]
    assert Answers(tmp_path, model="m", settings={}, device="cuda").get(question(1)) is None


def test_of_many_files_only_the_newest_are_read(tmp_path, monkeypatch):
    import os

    for number in range(5):
        kept = Answers(tmp_path, model="m", settings={}, device="cpu")
        kept.add(question(number), {"scores": [1.0]})
        kept.save()
        [newest] = [path for path in tmp_path.glob("m/*.json") if path.stat().st_mtime > 1e6]
        os.utime(newest, (1000 + number, 1000 + number))
    monkeypatch.setattr(module, "READ_BYTES", 2 * newest.stat().st_size + 5)
    found = Answers(tmp_path, model="m", settings={}, device="cpu")
    assert [found.get(question(i)) is not None for i in range(5)] == [False, False, False, True, True]


def test_the_keys_of_models_are_found_in_their_records(adapter):
    files = {path.name: {"sha256": module_digest(path)} for path in adapter.iterdir()}
    records = [
        {"files": {**files, "rows.txt": {"sha256": "0"}}},
        {"files": {"outputs.jsonl": {"sha256": "1"}}},
        {},
    ]
    assert model_keys(records, IDENTITY) == {model_key(adapter, IDENTITY), model_key(None, IDENTITY)}


def module_digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- predict ---------------------------------------------------------------------------------------------


def test_predict_chooses_among_each_rows_own(adapter, rows, tmp_path):
    task = make_task("choice", {"instruction": "Which?"})
    asked = rows_of([{"input": one.prompt.source, "choices": list(one.options)} for one in CHOICES], task)
    found = answer(asked, task=task, base=TINY_BASE, model=adapter, max_length=64, batch_size=2, device="cpu")
    expected, _ = done(work(rows, tmp_path / "out", model=adapter, split="valid", answer="choice"))
    assert [one["prediction"] for one in found] == [one["prediction"] for one in expected]
    assert [one["scores"] for one in found] == [one["scores"] for one in expected]
