"""What the steps do, each on a small folder made by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file

from model.tiny import TINY_BASE, save_adapter
from sabir.errors import SabirError
from sabir.lora.files import open_adapter
from sabir.merging.choices import make_recipe
from sabir.model.train import seed_of
from sabir.tasks import make_task
from sabir.work.adopt import adopt, name_base
from sabir.work.judge import judge
from sabir.work.merge import merge_step
from sabir.work.outputs import outputs, read_answers, write_answers
from sabir.work.predict import answer, rows_of
from sabir.work.prepare import load, prepare, read_examples
from sabir.work.scores import macro, scores
from sabir.work.select import select
from sabir.work.sources import Source
from sabir.work.train import train

BASE = {"name": "org/base", "folder": str(TINY_BASE), "revision": "a" * 40}
LABELS = ("sport", "politics")
TASK = {"name": "classification", "settings": {"labels": list(LABELS)}}


class FakeWork(SimpleNamespace):
    """A step as its function sees it; keeps what it emits."""

    def __init__(self, out, *, name="step", settings=(), args=(), inputs=()):
        out.mkdir(parents=True, exist_ok=True)
        super().__init__(name=name, settings=dict(settings), args=dict(args), inputs=dict(inputs), out=out)
        self.device = "cpu"
        self.halvings = 0
        self.events = []
        self.emit = lambda done, total, **facts: self.events.append((done, total, facts))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data step's folder: six train, two valid and five test rows."""
    folder = tmp_path_factory.mktemp("data")
    files = {}
    for split, count in (("train", 6), ("valid", 2), ("test", 5)):
        files[split] = folder / f"{split}.jsonl"
        rows = [{"id": i, "text": f"{split} text {i}", "label": LABELS[i % 2]} for i in range(count)]
        files[split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, out = Source("de", files=files), folder / "out"
    summary = load(source, make_task("classification", {"labels": LABELS}))[1]
    work = FakeWork(out, settings=summary.digests, args={"source": source.to_json(), "task": TASK})
    list(prepare([work]))
    return out


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapters") / "de", TINY_BASE, seed=1, size=0.2)


# --- outputs, predict ---------------------------------------------------------------------------------------


def outputs_work(data, out, name, *, model=None, batch_size=4, **settings):
    return FakeWork(
        out,
        name=name,
        settings={"answer": "label", "labels": list(LABELS), "max_length": 64, **settings},
        args={"base": BASE, "split": "test", "batch_size": batch_size},
        inputs={"rows": data, **({"model": model} if model else {})},
    )


def test_answers_of_many_models_are_each_models_own_and_in_the_order_of_the_rows(data, adapter, tmp_path):
    base = outputs_work(data, tmp_path / "base", "base")
    adapted = outputs_work(data, tmp_path / "adapted", "adapted", model=adapter)
    again = outputs_work(data, tmp_path / "again", "again", batch_size=1)
    done = dict(outputs([adapted, base, again]))
    assert set(done) == {"base", "adapted", "again"}
    assert all(outcome["tokens"] > 0 for outcome in done.values())
    ids = [example.id for example in read_examples(data, "test")]
    found = {work.name: read_answers(work.out) for work in (base, adapted, again)}
    for answers in found.values():
        assert [answer["id"] for answer in answers] == ids
        for one in answers:
            assert one["prediction"] == max(LABELS, key=one["scores"].get)
    for one, other, moved in zip(found["base"], found["again"], found["adapted"], strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)  # the batch: float noise
        assert abs(one["scores"]["sport"] - moved["scores"]["sport"]) > 0.01  # the adapter: much more
    assert base.events[-1][:2] == (5, 5)


def test_texts_are_written_up_to_their_limit(data, tmp_path):
    work = outputs_work(data, tmp_path, "texts", answer="text", max_new_tokens=5)
    [(_, outcome)] = outputs([work])
    assert len(read_answers(tmp_path)) == 5
    prompts = outcome["tokens"] - 5 * 5
    assert prompts > 0


def test_predict_answers_as_the_outputs_step_does(data, adapter, tmp_path, capfd):
    list(outputs([outputs_work(data, tmp_path, "adapted", model=adapter)]))
    texts = [example.prompt.source for example in read_examples(data, "test")]
    capfd.readouterr()
    task = make_task("classification", {"labels": LABELS})
    given = dict(base=TINY_BASE, model=adapter, max_length=64, batch_size=4, device="cpu")
    answers = answer(rows_of(texts, task), task=task, **given)
    assert capfd.readouterr() == ("", "")  # no bars, no warnings
    assert [one["input"] for one in answers] == texts
    assert [one["scores"] for one in answers] == [one["scores"] for one in read_answers(tmp_path)]
    task = make_task("summarization", {"max_new_tokens": 3})
    summary = answer(rows_of(texts[:1], task), task=task, **given)
    assert set(summary[0]) == {"input", "prediction", "cut"}


# --- adapters -----------------------------------------------------------------------------------------------

LORA = {
    "rank": 2,
    "alpha": 4.0,
    "targets": ["q_proj", "v_proj"],
    "dropout": 0.0,
    "rslora": False,
    "epochs": 1.0,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "max_length": 64,
    "warmup": 0.0,
    "schedule": "linear",
    "weight_decay": 0.0,
    "seed": 0,
}


def train_work(data, out, language):
    args = {"base": BASE, "lora": LORA, "micro_batch": 4, "checkpoint_every_s": 1e9}
    return FakeWork(
        out, name=f"adapter/{language}", settings={"language": language}, args=args, inputs={"rows/de": data}
    )


def test_the_trained_adapter_names_the_base_as_the_project_does(data, tmp_path):
    work = train_work(data, tmp_path / "de", "de")
    [(name, outcome)] = train([work])
    assert name == "adapter/de"
    assert outcome["result"]["rows"] == 6
    assert outcome["result"]["steps"] == 2
    config = json.loads((work.out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE["name"], BASE["revision"])
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert sorted(path.name for path in work.out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "rows.txt",
    ]
    assert work.events[-1][:2] == (2, 2)


def test_two_languages_with_the_same_rows_do_not_share_a_start(data, tmp_path):
    assert seed_of(LORA["seed"], "de") != seed_of(LORA["seed"], "fr")
    works = [train_work(data, tmp_path / language, language) for language in ("de", "fr")]
    list(train(works))
    one, other = (load_file(work.out / "adapter_model.safetensors") for work in works)
    assert not any(one[name].equal(other[name]) for name in one)


def adopt_work(adapter, out):
    settings = {"digest": open_adapter(adapter).digest}
    return FakeWork(out, name="adapter/de", settings=settings, args={"path": str(adapter), "base": BASE})


def test_an_adopted_adapter_is_a_copy_under_the_projects_name_of_the_base(adapter, tmp_path):
    (adapter / "optimizer.pt").touch()
    list(adopt([adopt_work(adapter, tmp_path)]))
    ours, theirs = (json.loads((f / "adapter_config.json").read_text()) for f in (tmp_path, adapter))
    assert ours == {**theirs, "base_model_name_or_path": BASE["name"], "revision": BASE["revision"]}
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert not (tmp_path / "optimizer.pt").exists()


def test_an_adapter_that_changed_since_the_plan_is_refused(adapter, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(adapter, mine)
    work = adopt_work(mine, tmp_path / "out")
    save_adapter(tmp_path / "other", TINY_BASE, seed=2)
    shutil.copyfile(tmp_path / "other" / "adapter_model.safetensors", mine / "adapter_model.safetensors")
    with pytest.raises(SabirError, match=r"the files changed while the run began\. Run again"):
        list(adopt([work]))


def test_the_config_of_an_adapter_is_the_same_bytes_whatever_peft_wrote(tmp_path):
    path = tmp_path / "adapter_config.json"
    written = []
    for targets in (["v_proj", "q_proj"], ["q_proj", "v_proj"]):
        path.write_text(json.dumps({"target_modules": targets, "base_model_name_or_path": f"/tmp/{targets}"}))
        name_base(path, BASE)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_the_merge_step_weighs_by_language(adapter, tmp_path):
    other = save_adapter(tmp_path / "fr", TINY_BASE, seed=2, size=0.2)
    recipe = make_recipe("linear", weights={"de": 1.0, "fr": 0.0})
    work = FakeWork(
        tmp_path / "out",
        settings=recipe.identity(),
        args={"base": BASE, "kept": str(tmp_path / "kept")},
        inputs={"fr": other, "de": adapter},
    )
    [(_, outcome)] = merge_step([work])
    assert outcome["result"]["rank"] >= 2
    json.dumps(outcome)  # goes into a record
    merged, single = open_adapter(work.out), open_adapter(adapter)
    assert merged.base_model == BASE["name"]
    for module in single.shapes:
        ours, theirs = (one.read(module) for one in (merged, single))
        difference = (ours.b @ ours.a - theirs.b @ theirs.a).abs().max()
        assert difference < 1e-5


# --- scores, select, judge ----------------------------------------------------------------------------------

SCORING = {"metrics": ["accuracy", "macro_f1"], "labels": list(LABELS), "level": 0.95, "resamples": 200}
SCORED = {"split": "test", "task": TASK, "max_unscored": 0.0, "encoder": None}


def answers_with(data, out, right):
    """Answers of which the first `right` are right."""
    out.mkdir(parents=True)
    other = dict(zip(LABELS, LABELS[::-1], strict=True))
    examples = read_examples(data, "test")
    write_answers(
        out,
        [
            {"id": example.id, "prediction": example.target if i < right else other[example.target]}
            for i, example in enumerate(examples)
        ],
    )
    return out


def scored(data, folder, language, right):
    work = FakeWork(
        folder / "scores",
        name=f"scores/{language}",
        settings={"language": language, **SCORING},
        args=SCORED,
        inputs={"outputs": answers_with(data, folder / "outputs", right), "rows": data},
    )
    [(_, outcome)] = scores([work])
    rows = {row["metric"]: row for row in outcome["result"]["scores"]}
    (work.out / "record.json").write_text(json.dumps(outcome))
    return work.out, rows


def test_scores_are_of_each_row_with_an_interval(data, tmp_path):
    folder, rows = scored(data, tmp_path, "de", 4)
    row = rows["accuracy"]
    assert row["value"] == pytest.approx(0.8)
    assert row["low"] <= 0.8 <= row["high"]
    assert (row["n"], row["unscored"], row["level"]) == (5, 0, 0.95)
    assert row["signature"].startswith("accuracy|v:")
    assert np.load(folder / "accuracy.npy").shape[0] == 5


def test_answers_to_other_rows_are_not_scored(data, tmp_path):
    folder = answers_with(data, tmp_path / "outputs", 5)
    write_answers(folder, read_answers(folder)[::-1])
    work = FakeWork(
        tmp_path / "scores",
        settings={"language": "de", **SCORING},
        args=SCORED,
        inputs={"outputs": folder, "rows": data},
    )
    with pytest.raises(RuntimeError, match="not of the same rows"):
        list(scores([work]))


def macro_of(data, folder, rights):
    inputs = {
        language: scored(data, folder / language, language, right)[0] for language, right in rights.items()
    }
    work = FakeWork(folder / "macro", settings=SCORING, inputs=inputs)
    [(_, outcome)] = macro([work])
    (work.out / "record.json").write_text(json.dumps(outcome))
    return work.out, inputs, {row["metric"]: row for row in outcome["result"]["scores"]}


def test_the_macro_score_is_the_mean_over_languages(data, tmp_path):
    _, _, rows = macro_of(data, tmp_path, {"de": 4, "fr": 2})
    assert rows["accuracy"]["value"] == pytest.approx((0.8 + 0.4) / 2)
    assert rows["accuracy"]["signature"] == "accuracy|mean over languages:de,fr"


def test_the_best_mean_is_selected_and_equal_ones_by_name(data, tmp_path):
    rights = {"merged/b": 3, "merged/a": 3, "merged/ties[0]": 2, "merged/ties[1]": 5}
    inputs = {
        name: macro_of(data, tmp_path / str(place), {"de": right, "fr": 4})[0]
        for place, (name, right) in enumerate(rights.items())
    }
    candidates = {"a": ["merged/a"], "b": ["merged/b"], "ties": ["merged/ties[0]", "merged/ties[1]"]}
    work = FakeWork(
        tmp_path / "out", settings={"metric": "accuracy", "candidates": candidates}, inputs=inputs
    )
    [(_, outcome)] = select([work])
    result = outcome["result"]
    assert result["selected"] == "merged/ties[1]"
    assert result["best"] == {"a": "merged/a", "b": "merged/b", "ties": "merged/ties[1]"}
    ranked = [row["model"] for row in result["ranking"]]
    assert ranked == ["merged/ties[1]", "merged/a", "merged/b", "merged/ties[0]"]


def test_a_member_without_a_score_cannot_be_ranked(tmp_path):
    (tmp_path / "record.json").write_text(
        json.dumps({"result": {"scores": [{"metric": "accuracy", "value": None}]}})
    )
    settings = {"metric": "accuracy", "candidates": {"a": ["merged/a"]}}
    work = FakeWork(tmp_path / "out", settings=settings, inputs={"merged/a": tmp_path})
    with pytest.raises(SabirError, match="merged/a: has no accuracy on validation"):
        list(select([work]))


def test_comparisons_are_paired_by_language_and_on_the_mean(data, tmp_path):
    _, merged, _ = macro_of(data, tmp_path / "merged", {"de": 5, "fr": 4})
    _, own, _ = macro_of(data, tmp_path / "own", {"de": 3, "fr": 4})
    b = "adapter/<language>"
    inputs = {f"m/{k}": v for k, v in merged.items()} | {f"{b}/{k}": v for k, v in own.items()}
    settings = {
        "pairs": [["m", b]],
        "languages": ["de", "fr"],
        "metric": "accuracy",
        "margin": 0.02,
        "level": 0.95,
        "resamples": 200,
        "labels": list(LABELS),
        "seeds": 1,
        "floor": None,
        "models": [],
    }
    [(_, outcome)] = judge([FakeWork(tmp_path / "out", settings=settings, inputs=inputs)])
    rows = {row["language"]: row for row in outcome["result"]["comparisons"]}
    assert list(rows) == ["de", "fr", "macro"]
    assert rows["de"]["difference"] == pytest.approx(0.4)
    assert rows["fr"]["difference"] == 0
    assert rows["macro"]["difference"] == pytest.approx(0.2)
    assert (rows["de"]["b"], rows["macro"]["b"]) == ("adapter/de", b)
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows.values())
    json.dumps(outcome)


def test_importing_the_work_loads_no_torch():
    modules = ", ".join(f"sabir.work.{name}" for name in ("sources", "prepare", "bases", "select", "merge"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
