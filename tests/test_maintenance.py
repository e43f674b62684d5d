"""A year of one small project on the embedded base: updates, releases, a way back, rows that must be forgotten."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import sabir
from sabir import lock
from sabir.engine import ledger
from sabir.engine.store import Store
from sabir.errors import GateNotMet, InputError, StoreError
from small_project import LABELS, WORDS, rows, settings, write_config, write_language, write_rows

INLINE = ["run.backend=inline"]
THREE = ("en", "de", "fr")


def project(config: Path, *overrides: str) -> sabir.Project:
    return sabir.Project(config, overrides=[*INLINE, *overrides])


def write_project(folder: Path, **changes) -> Path:
    for language in THREE:
        write_language(folder, language, train=48, valid=10, test=40)
    lora = {"rank": 4, "epochs": 2, "max_length": 64, "batch_size": 8, "learning_rate": 2e-3}
    merges = {"average": {"method": "linear", "scale": {"grid": [1.0, 2.0]}}}
    given = settings(THREE, merges=merges, lora=lora, prices={"usd_per_hour": 2.0}, **changes)
    return write_config(folder, given)


def poisoned(language: str, count: int) -> list[dict[str, str]]:
    """Rows whose labels are the wrong way round."""
    return [
        {"input": f"{WORDS[language][i % 2]} train {i + 500}", "output": LABELS[(i + 1) % 2]}
        for i in range(count)
    ]


def trained(document) -> set[str]:
    return {s["name"] for s in document["steps"] if s["status"] == "run" and s["name"].startswith("adapter/")}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "record.json"}


def served(config: Path) -> Path:
    return (config.parent / ".sabir/serve/current").resolve()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Release 1; German grows: release 2; French is poisoned: refused, let through as 3, found, and held back: 4."""
    folder = tmp_path_factory.mktemp("maintenance")
    config = write_project(folder)
    scenes = SimpleNamespace(folder=folder, config=config)
    scenes.setup = project(config).run()
    scenes.first = project(config).promote(by="ada")
    scenes.again = project(config).promote()
    scenes.idle = project(config).plan()

    write_rows(folder / "data/de/train.jsonl", rows("de", "train", 120))
    scenes.update_plan = project(config).plan()
    scenes.update_why = project(config).why("merged/average[scale=1.0]")
    scenes.update = project(config).run()
    scenes.second = project(config).promote(accept=["all"])
    scenes.served_second = served(config)

    write_rows(folder / "data/fr/train.jsonl", [*rows("fr", "train", 48), *poisoned("fr", 200)])
    scenes.poisoned_plan = project(config).plan()
    scenes.poisoned = project(config).run()
    with pytest.raises(GateNotMet) as refused:
        project(config).promote()
    scenes.refused = str(refused.value)
    scenes.still = project(config).releases()["current"]
    scenes.third = project(config).promote(accept=["all"])
    scenes.blamed = project(config).blame("3", "fr")
    scenes.back = project(config).rollback()
    scenes.served_back = served(config)
    scenes.forth = project(config).rollback(to="3")
    scenes.held = project(config).rollback(language="fr", by="bob")
    scenes.held_plan = project(config).plan()
    scenes.history = project(config).releases()
    scenes.shown = project(config).show()
    return scenes


# --- releases --------------------------------------------------------------------------------------------


def test_the_first_release_passes_and_the_same_model_again_is_said_to_be_there(story):
    assert (story.first["promoted"], story.first["release"], story.first["verdict"]) == (True, "1", "pass")
    assert story.again["promoted"] is False
    assert "is release 1 already" in story.again["reasons"][0]


def test_after_a_promotion_there_is_nothing_to_run(story):
    assert {step["status"] for step in story.idle["steps"]} == {"reused"}


def test_an_update_trains_one_language_and_holds_the_merge_against_the_release(story):
    assert trained(story.update) == {"adapter/de"}
    rows = {row["language"]: row for row in story.update["changes"]}
    assert set(rows) == {*THREE, "macro"}
    for row in rows.values():
        assert (row["b"], row["n"] >= 40) == ("release/1", True)
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["new"] - row["old"] == pytest.approx(row["difference"])
        assert 0 <= row["changed"] <= 1
        assert row["detectable"] > 0


def test_a_plan_says_which_drop_the_test_rows_would_show(story):
    drops = {row["language"]: row for row in story.update_plan["detectable"]}
    assert set(drops) == {*THREE, "macro"}
    assert all(0 < drops[language]["drop"] < 1 and drops[language]["n"] == 40 for language in THREE)
    assert 0 < drops["macro"]["drop"] < min(drops[language]["drop"] for language in THREE)
    known = {row["language"]: row["detectable"] for row in story.update["changes"]}
    later = {row["language"]: row["drop"] for row in story.poisoned_plan["detectable"]}
    assert later == known, "once two releases were compared, what that showed"


def test_why_follows_a_change_down_to_the_rows_that_changed(story):
    assert story.update_why["status"] == "run"
    assert [root["step"] for root in story.update_why["roots"]] == ["data/de"]
    assert "train" in json.dumps(story.update_why["roots"][0]["differences"])


def test_a_poisoned_language_is_refused_with_the_reason_and_how_to_accept(story):
    assert story.refused.startswith("release 3 was not promoted: ")
    assert "fr fell from" in story.refused
    assert "--accept fr" in story.refused
    assert story.still == "2", "nothing changed"


def test_what_was_accepted_is_written_down(story):
    third = next(release for release in story.history["releases"] if release["name"] == "3")
    assert third["verdict"] == "fail"
    assert "fr" in third["accepted"]
    assert third["reasons"]


def test_blame_names_the_poisoned_language(story):
    worst = story.blamed["suspects"][0]
    assert worst["suspect"] == "fr"
    assert worst["difference"] > 0.2
    assert worst["p"] < 0.05
    assert worst["value"] - story.blamed["value"] == pytest.approx(worst["difference"])


def test_a_rollback_is_at_once_and_servers_follow(story):
    assert (story.back["release"], story.back["before"]) == ("2", "3")
    assert story.served_back == story.served_second
    assert story.forth["release"] == "3"


def test_one_language_goes_back_and_stays_there_until_its_rows_change(story):
    assert story.held["promoted"]
    by_name = {release["name"]: release for release in story.history["releases"]}
    held, poisoned_, before = by_name["4"], by_name["3"], by_name["2"]
    assert held["languages"]["fr"] == before["languages"]["fr"] != poisoned_["languages"]["fr"]
    assert held["languages"]["de"] == poisoned_["languages"]["de"]
    assert held["by"] == "bob"
    assert held["data"]["fr"]["digests"]["train"] == before["data"]["fr"]["digests"]["train"]
    assert {step["status"] for step in story.held_plan["steps"]} == {"reused"}
    assert "held at the adapter of release 2" in json.dumps(story.held_plan["steps"])


def test_a_hold_ends_when_the_rows_change(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    write_rows(copy / "data/fr/train.jsonl", rows("fr", "train", 60))
    document = project(copy / "sabir.yaml").plan()
    assert {s["name"] for s in document["steps"] if s["status"] == "run" and s["kind"] == "adapter"} == {
        "adapter/fr"
    }


def test_the_history_has_data_recipe_scores_cost_and_who(story):
    for release in story.history["releases"]:
        assert set(release["languages"]) == set(THREE)
        assert release["recipe"]["method"] == "linear"
        assert {row["language"] for row in release["scores"]} == {*THREE, "macro"}
        assert release["data"]["de"]["rows"]["train"] in (48, 120)
        assert release["usd"] == pytest.approx(release["device_s"] / 3600 * 2.0)
    assert story.history["releases"][0]["by"] == "ada"
    assert [event["event"] for event in story.history["events"]].count("rollback") == 2
    assert story.history["current"] == story.shown["release"] == "4"


def test_predictions_come_from_the_release_in_use(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    texts = [WORDS["fr"][0], WORDS["fr"][1]]
    held = project(config).predict(texts)
    project(config).rollback(to="3")
    assert [one["scores"] for one in project(config).predict(texts)] != [one["scores"] for one in held]


def test_names_that_do_not_exist_are_refused_with_those_that_do(story):
    for call, said in [
        (lambda p: p.rollback(to="9"), "release 9: there is no such release. There are: 1, 2, 3, 4."),
        (lambda p: p.blame("9", "fr"), "release 9: there is no such release"),
        (lambda p: p.blame("3", "xx"), "there is no such language"),
        (lambda p: p.blame("1", "fr"), "no parent"),
        (lambda p: p.promote("merged/nosuch"), "is not evaluated"),
        (lambda p: p.promote("base"), "is not evaluated"),
        (lambda p: p.rollback(language="xx"), "there is no such language"),
        (lambda p: p.why("adapter/xx"), "there is no such step"),
        (lambda p: p.promote("adapter/combined", accept=["xx"]), "there is no 'xx' to accept"),
    ]:
        with pytest.raises(InputError) as caught:
            call(project(story.config))
        assert said in str(caught.value)


def test_new_test_rows_score_the_old_release_again_before_the_gate(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    write_rows(copy / "data/en/test.jsonl", rows("en", "test", 44, " now"))
    write_rows(copy / "data/fr/train.jsonl", rows("fr", "train", 60))
    with pytest.raises(InputError, match="no merge of today's data is selected yet"):
        project(config).promote()
    document = project(config).run(agree=lambda question: True)
    again = {
        s["name"]
        for s in document["steps"]
        if s["status"] == "run" and s["name"].startswith("outputs/release/4")
    }
    assert again == {"outputs/release/4/en/test"}
    assert {row["n"] for row in document["changes"] if row["language"] == "en"} == {44}
    project(config).promote(accept=["all"])


def test_a_store_that_moved_runs_nothing_and_serves_on(story, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(story.folder, moved, symlinks=True)
    assert {step["status"] for step in project(moved / "sabir.yaml").plan()["steps"]} == {"reused"}
    assert project(moved / "sabir.yaml").run()["run"]["id"] is None
    assert served(moved / "sabir.yaml").is_dir()


@contextlib.contextmanager
def read_only(folder: Path):
    """Nobody can write there for the length of the block: root by a mount, others by the folders' modes."""
    if os.geteuid() == 0:
        bind = [["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]]
        if any(subprocess.run(command, capture_output=True, check=False).returncode for command in bind):
            pytest.skip("this root may not mount")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def test_a_store_on_a_read_only_disk_can_be_shown(story, tmp_path):
    config = copied(story, tmp_path)
    killed = {"id": "20991121T000000.000000Z", "config": config.name, "phase": "none", "complete": False}
    rest = {
        "steps": [],
        "costs": [],
        "languages": {},
        "languages_changed": [],
        "devices": 1,
        "usd_per_hour": None,
    }
    ledger.begin(
        Store(config.parent / ".sabir"), {**killed, **rest}
    )  # its owner is dead, and nobody can close it
    with read_only(config.parent / ".sabir"):
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            (config.parent / ".sabir/x").write_text("x")
        assert project(config).show()["release"] == "4"
        assert project(config).releases()["current"] == "4"
        assert project(config).plan()["steps"]
        with pytest.raises(StoreError):
            project(config).rollback()
    assert project(config).releases()["current"] == "4"


def test_gc_keeps_what_releases_stand_on_and_says_what_it_frees(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    said = project(config).gc(dry_run=True, keep_runs=0)
    assert said["freed_bytes"] == sum(one["size_bytes"] for one in said["junk"]) > 0
    assert all(Path(one["path"]).exists() for one in said["junk"])
    done = project(config).gc(keep_runs=0)
    assert not any(Path(one["path"]).exists() for one in done["junk"])
    assert {one["path"] for one in done["junk"]} == {one["path"] for one in said["junk"]}
    assert {step["status"] for step in project(config).plan()["steps"]} == {"reused"}
    for release in ("1", "2", "3"):
        project(config).rollback(to=release)
    assert project(config).show()["costs"] == story.shown["costs"], "the ledger is kept for ever"


def test_gc_drops_the_kept_answers_of_models_that_are_gone(story, tmp_path):
    config = copied(story, tmp_path)
    answers = config.parent / ".sabir/answers"
    before = {path.name for path in answers.iterdir()}
    (answers / ("0" * 64)).mkdir()
    freed = project(config).gc(keep_runs=0)
    kept = {path.name for path in answers.iterdir()}
    assert "0" * 64 not in kept
    assert {row["name"] for row in freed["junk"] if row["what"] == "answers"} == before - kept | {"0" * 64}
    assert kept, "the models that are in use answer again from what they answered"


def test_damage_is_found_and_the_next_run_redoes_just_that(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    assert project(config).verify()["damaged"] == []
    steps = {step["name"]: copy / ".sabir/steps" / step["fingerprint"] for step in story.shown["steps"]}
    before = content(steps["adapter/en"])
    flipped = bytearray(before["adapter_model.safetensors"])
    flipped[-7] ^= 4
    (steps["adapter/en"] / "adapter_model.safetensors").write_bytes(bytes(flipped))
    (steps["outputs/base/de/test"] / "outputs.jsonl").unlink()
    found = {one["name"] for one in project(config).verify()["damaged"]}
    assert found == {"adapter/en", "outputs/base/de/test"}
    document = project(config).run()
    assert {s["name"] for s in document["steps"] if s["status"] == "run"} == found
    assert content(steps["adapter/en"]) == before
    assert project(config).verify()["damaged"] == []


def test_a_lost_release_and_a_lost_hold_are_said_and_never_passed_over(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    four = story.history["releases"][-1]
    for fingerprint in (four["fingerprint"], four["languages"]["fr"]):
        shutil.rmtree(copy / ".sabir/steps" / fingerprint)
    with pytest.raises(InputError, match=r"data.fr: is held at the adapter of release 2, which is no longer"):
        project(config).run()
    write_rows(copy / "data/fr/train.jsonl", rows("fr", "train", 60))
    document = project(config).run(agree=lambda question: True)
    assert any(
        "release 4 is lost from the store and cannot be made again" in said for said in document["warnings"]
    )
    with pytest.raises(GateNotMet, match="release 4 is lost from the store"):
        project(config, "gate.undecided=refuse").promote()
    assert project(config).promote()["verdict"] == "undecided"


def copied(story, tmp_path) -> Path:
    shutil.copytree(story.folder, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy/sabir.yaml"


def test_a_way_back_that_is_refused_changes_nothing(story, tmp_path):
    config = copied(story, tmp_path)
    project(config).rollback(to="3")
    before = lock.read(config)
    with pytest.raises(InputError, match="there is no 'xx' to accept"):
        project(config).rollback(language="de", to="1", accept=["xx"])
    with pytest.raises(GateNotMet):
        project(config, "gate.max_drop=0.0", "gate.undecided=refuse").rollback(language="de", to="1")
    assert lock.read(config) == before
    assert project(config).releases()["current"] == "3"
    with pytest.raises(InputError, match="its adapter is that of release 2 already"):
        project(config).rollback(language="de", to="2")


def test_a_hold_can_be_lifted(story, tmp_path):
    config = copied(story, tmp_path)
    project(config).lift("fr")
    assert lock.read(config).holds == {}
    assert "held" not in json.dumps(project(config).plan()["steps"])
    with pytest.raises(InputError, match="is not held"):
        project(config).lift("fr")


def test_rolling_one_language_back_asks_about_lost_rows_of_another(story, tmp_path):
    config = copied(story, tmp_path)
    write_rows(config.parent / "data/en/train.jsonl", rows("en", "train", 8))
    with pytest.raises(InputError, match=r"data.en: has 8 train rows, and the last run had 48"):
        project(config).rollback(language="de", to="1", accept=["all"])
    said = project(config).rollback(language="de", to="1", accept=["all"], agree=lambda question: True)
    assert said["trained"] == ["adapter/en"]


def test_blame_is_no_run_of_the_project(story, tmp_path):
    config = copied(story, tmp_path)
    write_rows(config.parent / "data/en/train.jsonl", rows("en", "train", 60))
    write_rows(config.parent / "data/fr/test.jsonl", rows("fr", "test", 44))
    before = project(config).plan()
    runs = len(list((config.parent / ".sabir/runs").glob("*.json")))
    project(config).blame("2", "fr")
    assert len(list((config.parent / ".sabir/runs").glob("*.json"))) == runs + 1, "it is in the ledger"
    after = project(config).plan()
    made = {step["name"] for step in after["steps"] if step["status"] == "reused"} - {
        step["name"] for step in before["steps"] if step["status"] == "reused"
    }
    assert made == {"data/fr"}, "what it read serves the next run"
    assert after["phase"] == before["phase"]
    reasons = {step["name"]: step["why"] for step in before["steps"]}
    assert all(step["why"] == reasons[step["name"]] for step in after["steps"] if step["status"] == "run")
    assert project(config).show()["run"] == story.shown["run"]


def test_what_cannot_be_served_is_not_promoted(story, tmp_path):
    config = copied(story, tmp_path)
    given = config.read_text("utf-8").replace("merges:\n", "merges:\n  whole: {method: linear, rank: fold}\n")
    config.write_text(given, encoding="utf-8")
    project(config).run()
    with pytest.raises(InputError, match=r"serve.form: is adapter"):
        project(config).promote("merged/whole", accept=["all"])
    assert project(config).releases()["current"] == "4"
    assert served(config).is_dir()
    assert project(config, "serve.form=model").promote("merged/whole", accept=["all"])["release"] == "5"
    assert (served(config) / "model.safetensors").is_file()
    with pytest.raises(InputError, match=r"serve.form: is adapter"):
        project(config).rollback(to="5")
    assert project(config).rollback(to="4")["release"] == "4"


def test_a_release_on_another_base_is_neither_compared_with_nor_gone_back_to(story, tmp_path):
    from sabir.work.bases import EMBEDDED_FOLDER

    config = copied(story, tmp_path)
    shutil.copytree(EMBEDDED_FOLDER, config.parent / "other")
    text = json.loads((config.parent / "other/config.json").read_text("utf-8"))
    (config.parent / "other/config.json").write_text(
        json.dumps({**text, "note": "another"}), encoding="utf-8"
    )
    config.write_text(config.read_text("utf-8").replace("base: embedded", "base: other"), encoding="utf-8")
    plan = project(config).plan()
    assert any("release 4 stands on another base than 'other'" in said for said in plan["warnings"])
    assert not any("release/" in step["name"] for step in plan["steps"])
    for call in (
        lambda p: p.rollback(),
        lambda p: p.predict(["x"]),
        lambda p: p.blame("3", "fr"),
        lambda p: p.rollback(language="de", to="1"),
        lambda p: p.export(tmp_path / "out"),
    ):
        with pytest.raises(
            InputError, match=r"release \d stands on another base|stands on another base than 'other'"
        ):
            call(project(config))


def test_another_config_has_releases_of_its_own_and_may_not_take_the_serving_folder(story, tmp_path):
    config = copied(story, tmp_path)
    other = config.with_name("other.yaml")
    other.write_text(config.read_text("utf-8"), encoding="utf-8")
    project(other).run()
    assert project(other).releases()["releases"] == []
    with pytest.raises(InputError, match=r"is the serving folder of sabir.yaml"):
        project(other).promote()
    assert project(other, "serve.folder=theirs").promote()["release"] == "1"
    assert project(config).releases()["current"] == "4"
    project(config).gc(keep_runs=0)
    assert project(other).predict(["x"]), "gc keeps the releases of every config"


def test_a_release_that_came_meanwhile_is_not_passed_over(story, tmp_path, monkeypatch):
    from sabir.project import releasing
    from sabir.releases import Log

    config = copied(story, tmp_path)
    real = releasing.gate

    def meanwhile(*arguments, **settings):
        Log(config.parent / ".sabir", config.name).roll_back("2", "bob")
        return real(*arguments, **settings)

    monkeypatch.setattr(releasing, "gate", meanwhile)
    with pytest.raises(InputError, match="release 2 came into use meanwhile, by bob"):
        project(config).promote("adapter/combined", accept=["all"])
    assert project(config).releases()["current"] == "2"


def test_the_model_before_sabir_is_release_0_and_can_be_gone_back_to(tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    from sabir.model.loading import load_base
    from sabir.work.bases import EMBEDDED_FOLDER

    torch.manual_seed(0)
    targets = ["q_proj", "v_proj"]
    model = get_peft_model(
        load_base(EMBEDDED_FOLDER, device="cpu"),
        LoraConfig(r=8, target_modules=targets, init_lora_weights=False),
    )
    model.save_pretrained(str(tmp_path / "old"))
    config = write_project(tmp_path / "project", gate={"incumbent": "../old"}, baseline="none")
    document = project(config).run()
    assert {row["b"] for row in document["changes"]} == {"release/0"}
    first = project(config).promote(accept=["all"])
    assert first["release"] == "1"
    assert project(config).run()["run"]["id"] is None
    history = project(config).releases()["releases"]
    assert [release["name"] for release in history] == ["0", "1"]
    assert history[0]["scores"]
    assert history[1]["device_s"] > 0
    assert project(config).rollback()["release"] == "0"
    assert (served(config) / "adapter_model.safetensors").is_file()
    assert project(config).predict(["x"])


# --- updates ---------------------------------------------------------------------------------------------


def test_the_cost_of_an_update_stands_beside_that_of_retraining_everything(story):
    run = story.update["run"]["id"]
    rows = {(r["route"], r["component"]): r for r in story.update["costs"] if r["run"] == run}
    assert rows["merged", "train"]["measured"] is True
    assert rows["combined", "train"]["measured"] is False, "it was predicted"
    assert rows["combined", "train"]["device_s"] > 0
    assert {("merged", part) for part in ("merge", "search", "evaluate")} <= set(rows)


def test_what_if_answers_before_the_data_exist(story):
    document = project(story.config).what_if({"de": 400, "pt": 100}, devices=(1, 4))
    assert document["devices"] == [1, 4]
    assert {row["language"] for row in document["languages"]} == {"de", "pt"}
    alone = [row for row in document["estimates"] if row["devices"] == 1]
    assert {row["route"] for row in alone} == {"merged", "combined"}
    assert all(row["estimated_device_s"] > 0 and row["estimated_usd"] > 0 for row in alone)
    assert document["break_even"]
    for added in ({"?": 5}, {"de": 0}):
        with pytest.raises(InputError, match="--what-if"):
            project(story.config).what_if(added)


def test_a_language_that_lost_half_of_its_rows_is_asked_about(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    write_rows(copy / "data/de/train.jsonl", rows("de", "train", 20))
    with pytest.raises(InputError, match=r"data.de: has 20 train rows, and the last run had 120\. .*--yes"):
        project(config).run()
    assert project(config).plan()["steps"], "a plan only looks"
    assert trained(project(config).run(agree=lambda question: True)) == {"adapter/de"}


def test_a_renamed_language_is_noticed(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    (copy / "data/fr").rename(copy / "data/fr-CA")
    given = (copy / "sabir.yaml").read_text(encoding="utf-8").replace("fr: data/fr", "fr-CA: data/fr-CA")
    (copy / "sabir.yaml").write_text(given, encoding="utf-8")
    warnings = project(copy / "sabir.yaml").plan()["warnings"]
    assert any("has the training rows that 'fr' had" in warning for warning in warnings)


def test_a_language_taken_out_is_merged_no_more(story, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy, symlinks=True)
    given = (copy / "sabir.yaml").read_text(encoding="utf-8").replace("  fr: data/fr\n", "")
    (copy / "sabir.yaml").write_text(given, encoding="utf-8")
    document = project(copy / "sabir.yaml").run()
    assert trained(document) == set()
    assert {row["language"] for row in document["changes"]} == {"en", "de", "macro"}
    release = project(copy / "sabir.yaml").promote(accept=["all"])
    assert "fr is no longer served" in release["reasons"]
    assert set(project(copy / "sabir.yaml").releases()["releases"][-1]["languages"]) == {"en", "de"}


# --- forgetting ------------------------------------------------------------------------------------------


def test_a_forgotten_row_costs_one_language_and_leaves_no_trace(story, tmp_path):
    copy, never = tmp_path / "copy", tmp_path / "never"
    shutil.copytree(story.folder, copy, symlinks=True)
    config = copy / "sabir.yaml"
    text = rows("de", "train", 8)[5]["input"]
    said = project(config).forget([text])
    assert [(row["language"], row["split"]) for row in said["rows"]] == [("de", "train")]
    assert {copy_["name"] for copy_ in said["copies"]} >= {"data/de", "adapter/de", "adapter/combined"}
    assert text not in (copy / lock.NAME).read_text(encoding="utf-8")
    document = project(config).run()
    assert trained(document) == {"adapter/de"}

    shutil.copytree(story.folder / "data", never / "data")
    write_rows(
        never / "data/de/train.jsonl", [row for row in rows("de", "train", 120) if row["input"] != text]
    )
    write_rows(never / "data/fr/train.jsonl", rows("fr", "train", 48))
    shutil.copy(story.config, never / "sabir.yaml")
    clean = project(never / "sabir.yaml", "baseline=none").run()
    for name in ("adapter/de", "merged/average[scale=1.0]", "merged/average[scale=2.0]"):
        ours, theirs = (
            Path(d["store"]) / "steps" / next(s["fingerprint"] for s in d["steps"] if s["name"] == name)
            for d in (document, clean)
        )
        assert content(ours) == content(theirs), name

    with pytest.raises(InputError, match="release 4, which is in use, was made of a forgotten row"):
        project(config).forget(purge=True)
    project(config).promote(accept=["all"])
    assert list((config.parent / ".sabir/answers").glob("*/*.json"))
    purged = project(config).forget(purge=True)
    assert purged["purged"]
    assert not (config.parent / ".sabir/answers").exists(), "an answer to the row may be among them"
    assert purged["copies"]
    assert project(config).forget()["copies"] == []
    held = [
        path
        for path in (copy / ".sabir").rglob("*")
        if path.is_file() and f'"{text}"'.encode() in path.read_bytes()
    ]
    assert held == []
    with pytest.raises(InputError, match="its model is no longer in the store"):
        project(config).rollback(to="3")
    assert project(config).run()["run"]["id"] is not None, "the combined baseline was made of it too"


def test_what_cannot_be_forgotten_is_said(story):
    with pytest.raises(InputError, match="no row has the id or the text 'nosuch'"):
        project(story.config).forget(["nosuch"])
    with pytest.raises(InputError, match="there is no such language"):
        project(story.config).forget(["x"], language="xx")
