"""The verbs of releases and of the store from outside: documents, sentences, exit codes."""

from __future__ import annotations

import json
import shutil

import pytest

from small_project import rows, settings, write_config, write_language, write_rows

RELEASES = ("promote", "rollback", "releases", "blame", "export")
STORE = ("why", "gc", "verify", "forget")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A project with two releases: German grew between them."""
    from sabir import Project

    folder = tmp_path_factory.mktemp("released")
    for language in ("en", "de"):
        write_language(folder, language, train=8, valid=4, test=12)
    given = settings(("en", "de"), merges={"average": {"method": "linear"}}, baseline="none")
    config = write_config(folder, {**given, "run": {"backend": "inline"}, "prices": {"usd_per_hour": 2.0}})
    Project(config).run()
    Project(config).promote()
    write_rows(folder / "data/de/train.jsonl", rows("de", "train", 12))
    Project(config).run()
    Project(config).promote(accept=["all"])
    return config


@pytest.fixture
def copy(released, tmp_path):
    shutil.copytree(released.parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / released.name


@pytest.mark.parametrize("verb", RELEASES + STORE)
def test_every_verb_explains_itself(sabir, verb):
    code, out, _ = sabir(verb, "--help")
    assert code == 0
    assert "Usage: sabir " + verb in out


def test_releases_are_listed_with_the_current_one_marked(sabir, released):
    code, out, _ = sabir("releases", released)
    assert code == 0
    assert "2  <- current" in out
    code, out, _ = sabir("releases", released, "--json")
    document = json.loads(out)
    assert document["current"] == "2"
    wanted = {"name", "created", "by", "fingerprint", "parent", "languages", "verdict", "scores", "usd"}
    assert all(wanted <= set(release) for release in document["releases"])
    assert [release["parent"] for release in document["releases"]] == [None, "1"]


def test_the_gate_that_is_not_met_exits_3_and_says_how_to_accept(sabir, copy):
    text = copy.read_text("utf-8") + "gate: {undecided: refuse, max_drop: 0.001}\n"
    copy.write_text(text, encoding="utf-8")
    write_rows(copy.parent / "data/en/train.jsonl", rows("en", "train", 14))
    assert sabir("run", copy)[0] == 0
    code, out, err = sabir("promote", copy)
    assert (code, out) == (3, "")
    assert err.startswith("release 3 was not promoted: ")
    assert "--accept undecided" in err
    code, out, _ = sabir("promote", copy, "--json")
    assert code == 3
    assert json.loads(out)["error"]["kind"] == "gate"
    assert sabir("releases", copy, "--json")[1].count('"event"') == 2, "nothing was written"
    code, out, _ = sabir("promote", copy, "--accept", "undecided", "--by", "ada")
    assert code == 0
    assert "Release 3 is in use. Verdict: undecided" in out


def test_rollback_says_what_is_in_use_again(sabir, copy):
    code, out, _ = sabir("rollback", copy)
    assert code == 0
    assert out.startswith("Release 1 is in use again, in place of 2.")
    code, _, err = sabir("rollback", copy)
    assert code == 2
    assert "release 1 is the first one" in err
    assert json.loads(sabir("rollback", copy, "--to", "2", "--json")[1])["release"] == "2"


def test_a_release_that_is_not_there_is_named_with_those_that_are(sabir, released):
    code, _, err = sabir("rollback", released, "--to", "7")
    assert (code, err) == (2, "release 7: there is no such release. There are: 1, 2.\n")


def test_export_writes_what_peft_and_servers_load(sabir, copy, tmp_path):
    from peft import PeftConfig

    code, out, _ = sabir("export", copy, "--out", tmp_path / "out", "--release", "1")
    assert code == 0
    assert str(tmp_path / "out") in out
    config = PeftConfig.from_pretrained(str(tmp_path / "out"))
    assert config.lora_alpha == config.r
    assert "vllm serve" in (tmp_path / "out/README.md").read_text("utf-8")
    assert (tmp_path / "out/tokenizer.json").is_file()
    assert sabir("export", copy, "--out", tmp_path / "out")[0] == 2, "it exists"
    assert sabir("export", copy, "--out", tmp_path / "whole", "--as", "model")[0] == 0
    assert (tmp_path / "whole/model.safetensors").is_file()
    code, _, err = sabir("export", copy, "--out", tmp_path / "x", "--as", "frob")
    assert code == 2
    assert "frob" in err


def test_blame_names_a_suspect(sabir, copy):
    code, out, _ = sabir("blame", copy, "2", "de", "--json")
    assert code == 0
    document = json.loads(out)
    assert [one["suspect"] for one in document["suspects"]] == ["de"]
    assert "Who made de worse in release 2" in sabir("blame", copy, "2", "de")[1]


def test_why_names_where_a_change_began(sabir, copy):
    write_rows(copy.parent / "data/en/train.jsonl", rows("en", "train", 14))
    code, out, _ = sabir("why", copy, "merged/average")
    assert code == 0
    assert "data/en" in out
    assert "will run" in out
    code, _, err = sabir("why", copy, "merged/avrage")
    assert code == 2
    assert "Did you mean 'merged/average'?" in err


def test_gc_says_what_it_would_free_and_frees_it(sabir, copy):
    code, out, _ = sabir("gc", copy, "--dry-run", "--keep-runs", "0")
    assert code == 0
    assert "would be freed; nothing was deleted" in out or "Nothing to free" in out
    assert sabir("gc", copy)[0] == 0
    assert sabir("plan", copy)[1].count("Nothing to do") == 1


def test_verify_exits_1_when_something_is_damaged_and_0_when_not(sabir, copy):
    code, out, _ = sabir("verify", copy)
    assert code == 0
    assert "nothing is damaged" in out
    next((copy.parent / ".sabir/steps").glob("*/outputs.jsonl")).unlink()
    code, out, _ = sabir("verify", copy)
    assert code == 1
    assert "outputs.jsonl" in out
    assert sabir("run", copy)[0] == 0
    assert sabir("verify", copy, "--json")[0] == 0


def test_forget_lists_copies_and_purge_waits_for_the_next_release(sabir, copy):
    text = rows("de", "train", 4)[3]["input"]
    code, out, _ = sabir("forget", copy, text)
    assert code == 0
    assert "adapter/de" in out
    assert "--purge deletes them" in out
    code, _, err = sabir("forget", copy, "--purge")
    assert code == 2
    assert "release 2, which is in use, was made of a forgotten row" in err


def test_what_if_and_costs_have_their_documents(sabir, released):
    document = json.loads(
        sabir("plan", released, "--what-if", "de=+500,pt=+50", "--devices", "1,2", "--json")[1]
    )
    assert document["devices"] == [1, 2]
    assert "What if" in sabir("plan", released, "--what-if", "de=+500")[1]
    for wrong in (["--what-if", "de"], ["--what-if", "de=+1", "--devices", "0"], ["--devices", "2"]):
        assert sabir("plan", released, *wrong)[0] == 2
    lines = sabir("show", released, "--costs", "--csv")[1].splitlines()
    rows = json.loads(sabir("show", released, "--json")[1])["costs"]
    assert len(lines) == len(rows) + 1
    assert lines[0].startswith("run,phase,route,component,devices,wall_s")
    assert "Saved against retraining everything" in sabir("show", released, "--costs")[1]
    assert sabir("show", released, "--costs", "--since", "2999-01-01")[0] == 0
    assert sabir("show", released, "--since", "2020-01-01")[0] == 2
    assert sabir("show", released, "--costs", "--since", "tomorrow")[0] == 2


def test_a_store_of_a_newer_version_is_refused_by_every_verb(sabir, copy):
    path = copy.parent / ".sabir/format.json"
    path.write_text(json.dumps({"format": 99}), encoding="utf-8")
    for verb in ("plan", "run", "show", "promote", "releases", "gc", "verify", "rollback", "forget"):
        code, _, err = sabir(verb, copy)
        assert code == 2, verb
        assert "newer" in err, verb


def test_the_whole_loop_prints_tables_of_changes(sabir, copy):
    write_rows(copy.parent / "data/en/train.jsonl", rows("en", "train", 14))
    code, out, _ = sabir("run", copy)
    assert code == 0
    assert "against release/2" in out
    assert "answers changed" in sabir("show", copy, "--changes")[1]
