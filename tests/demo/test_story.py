"""The demo, act by act, on fewer messages."""

from __future__ import annotations

import json

import pytest

from sabir.demo import story
from sabir.engine.run import Listener
from sabir.errors import InputError
from sabir.project import Project


@pytest.mark.slow
def test_the_demo_tells_its_story_and_reuses_what_did_not_change(tmp_path, monkeypatch):
    for name, size in {"TRAIN": 16, "VALID": 8, "TEST": 8, "UPDATE": 8, "PRODUCTION": 6}.items():
        monkeypatch.setattr(story, name, size)
    scenes = []
    story.play(
        tmp_path / "demo",
        show=lambda title, text, document: scenes.append((title, text, document)),
        listener=Listener(),
        workers=2,
    )
    titles = [title for title, _, _ in scenes if title]
    assert [title.partition(":")[0] for title in titles] == [f"Act {number}" for number in range(1, 6)]
    first, second, estimated = (document for _, _, document in scenes if document is not None)
    trained = {
        step["name"] for step in second["steps"] if step["kind"] == "adapter" and step["status"] == "run"
    }
    assert trained == {"adapter/de"}
    assert first["run"]["phase"] == "setup"
    assert second["run"] | {"id": None} == {"id": None, "phase": "update", "languages_changed": ["de"]}
    assert {row["measured"] for row in second["costs"] if row["run"] == second["run"]["id"]} == {True, False}
    texts = "\n".join(text for _, text, _ in scenes)
    assert "sabir promote: release 1 is in use. Verdict: pass; there is no release yet" in texts
    assert "release 2" in texts, "in use, or not promoted and why"
    assert {row["b"] for row in second["changes"]} == {"release/1"}
    assert [row["language"] for row in estimated["estimates"]] == ["de", "en", "fr", "ja", "zh"]
    assert {row["n_labelled"] for row in estimated["estimates"]} == {0}
    assert "Trained for that: nothing" in texts
    assert not [
        step for step in Project(tmp_path / "demo" / story.NAME).plan()["steps"] if step["status"] == "run"
    ]


def test_the_demo_project_is_one_that_check_accepts(tmp_path):
    config = story.write_project(tmp_path / "demo")
    document = Project(config).check()
    assert document["rows"]["ja"] == {"train": story.TRAIN, "valid": story.VALID, "test": story.TEST}
    assert document["warnings"] == []


def test_the_demo_overwrites_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="is not empty"):
        story.write_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_new_german_data_is_appended_and_breaks_no_line(tmp_path):
    story.write_project(tmp_path / "demo")
    rows = [json.loads(line) for line in story.add_german(tmp_path / "demo").read_text("utf-8").splitlines()]
    assert len(rows) == story.TRAIN + story.UPDATE
    assert len({row["input"] for row in rows}) == len(rows)


def test_a_demo_of_an_earlier_time_is_taken_up_again_and_a_changed_one_is_not(tmp_path):
    config = story.write_project(tmp_path / "demo")
    before = (tmp_path / "demo/data/de/train.jsonl").read_bytes()
    story.add_german(tmp_path / "demo")
    assert story.write_project(tmp_path / "demo") == config
    assert (tmp_path / "demo/data/de/train.jsonl").read_bytes() == before
    config.write_text(config.read_text("utf-8").replace("epochs: 4", "epochs: 5"), "utf-8")
    with pytest.raises(InputError, match="is not empty"):
        story.write_project(tmp_path / "demo")


def test_the_japanese_file_comes_again_with_every_topic_wrong(tmp_path):
    story.write_project(tmp_path / "demo")
    path = tmp_path / "demo/data/ja/train.jsonl"
    before = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert story.mix_up_japanese(tmp_path / "demo") == path
    after = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row["input"] for row in after] == [row["input"] for row in before]
    assert not [1 for old, new in zip(before, after, strict=True) if old["output"] == new["output"]]


def test_the_messages_of_the_week_have_no_topic_and_none_was_seen_before(tmp_path):
    story.write_project(tmp_path / "demo")
    week = [json.loads(line) for line in story.write_week(tmp_path / "demo").read_text("utf-8").splitlines()]
    assert len(week) == 5 * story.PRODUCTION
    assert {tuple(row) for row in week} == {("id", "language", "input")}
    seen = {
        json.loads(line)["input"]
        for path in (tmp_path / "demo/data").glob("*/*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    }
    assert not seen & {row["input"] for row in week}


def test_what_stands_out_is_the_language_that_rose_most():
    def row(language, rise, *flags):
        return {"language": language, "rise": rise, "flags": list(flags)}

    rows = [
        row("ja", 0.2, "worse: by 0.2"),
        row("zh", 0.1, "worse: by 0.1"),
        row("en", 0.3, "small: 3 texts"),
    ]
    said = story._what_stands_out({"estimates": rows})
    assert "ja stands out (less so: zh)" in said
    assert "0.20 above" in said
    assert "Nothing stands out" in story._what_stands_out({"estimates": rows[2:]})
