"""A detector sends each row to an own adapter: the answers are that adapter's own."""

from __future__ import annotations

import sys

import pytest

from model.tiny import TINY_BASE, save_adapter
from sabir.errors import InputError
from sabir.model import loading
from sabir.tasks import Prompt
from sabir.work.outputs import outputs, read_answers
from sabir.work.prepare import Example, write_examples
from sabir.work.routes import routed
from work.test_work_functions import FakeWork

LABELS = ("sport", "politics")
TEXTS = {
    "de": ["Der Hund schläft unter dem Tisch.", "Die Wahl hat gestern niemand gewonnen."],
    "fr": ["Le chien dort sous la table.", "Personne n'a gagné les élections hier."],
    "ja": ["犬はテーブルの下で眠っている。", "昨日の選挙では誰も勝たなかった。"],
}
# the languages mixed, as they come in, and of unequal length
ROWS = [
    Example(f"{language}-{i}", Prompt("Topic?\n\n", TEXTS[language][i % 2] * (1 + i), "\n\nAnswer:"), "sport")
    for i in range(3)
    for language in ("ja", "de", "fr")
]
LANGUAGE = [row.id.partition("-")[0] for row in ROWS]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    write_examples(folder, "test", ROWS)
    write_examples(folder, "valid", ROWS[:2])  # no row in French
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {
        language: save_adapter(folder / language, TINY_BASE, seed=seed, size=0.2)
        for seed, language in enumerate(TEXTS)
    }


def told(rows, out, *, split="test", inputs, name="step", settings=(), **args):
    base = {"name": "org/base", "folder": str(TINY_BASE), "revision": "a" * 40}
    given = {"answer": "label", "labels": list(LABELS), "max_length": 128, **dict(settings)}
    args = {"base": base, "split": split, "batch_size": 2, **args}
    return FakeWork(out, name=name, settings=given, args=args, inputs={"rows": rows, **inputs})


def route(rows, adapters, out, *, detector="py3langid", **more):
    models = {f"model/{language}": folder for language, folder in adapters.items()}
    return told(rows, out, inputs=models, detector=detector, **more)


@pytest.fixture(scope="module")
def own(rows, adapters, tmp_path_factory):
    """What each own adapter answers to all rows, as the step `outputs` says."""
    works = [
        told(rows, tmp_path_factory.mktemp("own"), name=language, inputs={"model": folder})
        for language, folder in adapters.items()
    ]
    list(outputs(works))
    return {work.name: read_answers(work.out) for work in works}


def assert_same(ours, theirs):
    assert {**theirs, "scores": None} == {**ours, "scores": None}
    assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-4)  # the batch: float noise


@pytest.fixture
def always_french(tmp_path, monkeypatch):
    """A detector that is wrong two times in three, and the folder it lies in."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "only_french.py").write_text("def it(texts): return ['fr'] * len(texts)\n")
    yield {"detector": "only_french:it", "code": str(tmp_path)}
    sys.modules.pop("only_french", None)


def test_where_the_detector_is_right_each_row_has_its_own_adapters_answer(rows, adapters, own, tmp_path):
    work = route(rows, adapters, tmp_path / "out")
    [(_, outcome)] = routed([work])
    found = read_answers(work.out)
    assert [one.pop("route") for one in found] == LANGUAGE
    assert outcome["result"] == {"routes": {"de": 3, "fr": 3, "ja": 3}}
    assert outcome["tokens"] > 0
    for place, language in enumerate(LANGUAGE):
        assert_same(found[place], own[language][place])
    assert [event[:2] for event in work.events][-1] == (9, 9)


def test_a_wrong_route_has_the_other_adapters_answer(rows, adapters, own, always_french, tmp_path):
    work = route(rows, adapters, tmp_path / "out", **always_french)
    [(_, outcome)] = routed([work])
    found = read_answers(work.out)
    assert {one.pop("route") for one in found} == {"fr"}
    assert outcome["result"] == {"routes": {"fr": 9}}
    for place, language in enumerate(LANGUAGE):
        assert_same(found[place], own["fr"][place])
        if language != "fr":  # and the two adapters differ by far more than noise
            ours, theirs = found[place]["scores"]["sport"], own[language][place]["scores"]["sport"]
            assert abs(ours - theirs) > 0.01


def test_the_detector_reads_the_rows_own_text_and_not_the_instruction(adapters, tmp_path):
    english = Prompt(
        "Which topic has the following text, of sport and politics?\n\n", "犬と猫", "\n\nAnswer:"
    )
    folder = tmp_path / "rows"
    folder.mkdir()
    write_examples(folder, "test", [Example("1", english, "sport")])
    models = {"en": adapters["de"], "ja": adapters["ja"]}
    work = route(folder, models, tmp_path / "out")
    list(routed([work]))
    assert read_answers(work.out)[0]["route"] == "ja"


def test_many_steps_load_the_base_once_and_each_adapter_once(rows, adapters, tmp_path, monkeypatch):
    loaded = []
    load_base, adapted = loading.load_base, loading.adapted
    monkeypatch.setattr(loading, "load_base", lambda *a, **k: loaded.append("base") or load_base(*a, **k))
    monkeypatch.setattr(loading, "adapted", lambda base, at: loaded.append(at.name) or adapted(base, at))
    works = [
        route(
            rows, adapters, tmp_path / f"{split}-{size}", split=split, name=f"{split}-{size}", batch_size=size
        )
        for split in ("test", "valid")
        for size in (1, 4)
    ]
    done = dict(routed(works))
    assert loaded == ["base", "de", "fr", "ja"]
    assert sorted(done) == sorted(work.name for work in works)
    assert done["valid-1"]["result"] == {"routes": {"de": 1, "ja": 1}}
    for one, other in zip(*(read_answers(work.out) for work in works[:2]), strict=True):
        assert_same(one, other)
    assert [one["id"] for one in read_answers(works[2].out)] == [row.id for row in ROWS[:2]]


def test_what_an_adapter_answered_before_is_not_asked_again(rows, adapters, own, tmp_path, monkeypatch):
    """By the same adapter's own step: then the two are equal bit for bit, and no model is loaded."""
    store = {"answers": str(tmp_path / "answers"), "settings": {"base": "sha256:0"}}
    alone = [
        told(rows, tmp_path / language, name=language, inputs={"model": folder}, **store)
        for language, folder in adapters.items()
        if language != "ja"
    ]
    list(outputs(alone))
    loaded = []
    adapted = loading.adapted
    monkeypatch.setattr(loading, "adapted", lambda base, at: loaded.append(at.name) or adapted(base, at))
    work = route(rows, adapters, tmp_path / "first", **store)
    [(_, outcome)] = routed([work])
    assert loaded == ["ja"]
    assert outcome["result"] == {"routes": {"de": 3, "fr": 3, "ja": 3}, "kept": 6}
    theirs = {each.name: read_answers(each.out) for each in alone}
    for place, one in enumerate(read_answers(work.out)):
        route_of = one.pop("route")
        assert_same(one, own[route_of][place])
        if route_of != "ja":
            assert one == theirs[route_of][place]
    again = route(rows, adapters, tmp_path / "second", **store)
    [(_, outcome)] = routed([again])
    assert loaded == ["ja"]
    assert (outcome["tokens"], outcome["result"]["kept"]) == (0, 9)
    assert read_answers(again.out) == read_answers(work.out)


def test_adapters_of_another_training_are_not_mixed_up(rows, adapters, own, tmp_path):
    """With several seeds the same language has several own adapters."""
    swapped = {"de": adapters["fr"], "fr": adapters["de"], "ja": adapters["ja"]}
    works = [route(rows, adapters, tmp_path / "1"), route(rows, swapped, tmp_path / "2", name="step#2")]
    list(routed(works))
    for work, models in zip(works, (adapters, swapped), strict=True):
        for place, one in enumerate(read_answers(work.out)):
            of = {folder: language for language, folder in adapters.items()}[models[LANGUAGE[place]]]
            assert one.pop("route") == LANGUAGE[place]
            assert_same(one, own[of][place])


def test_texts_are_routed_too(rows, adapters, tmp_path):
    settings = {"answer": "text", "max_new_tokens": 3}
    work = route(rows, adapters, tmp_path / "out", settings=settings)
    list(routed([work]))
    alone = told(rows, tmp_path / "fr", inputs={"model": adapters["fr"]}, settings=settings)
    list(outputs([alone]))
    for one, theirs, language in zip(read_answers(work.out), read_answers(alone.out), LANGUAGE, strict=True):
        assert one["route"] == language
        if language == "fr":
            assert one["prediction"] == theirs["prediction"]


def test_a_detector_of_ones_own_is_not_run_unasked(rows, adapters, tmp_path):
    with pytest.raises(InputError, match="--allow-code"):
        list(routed([route(rows, adapters, tmp_path / "out", detector="only_french:it", code=None)]))
