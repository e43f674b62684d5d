"""What a plan finds out about the world, and that it does so once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sabir import facts as facts_module
from sabir.config import load_config
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.facts import gather
from sabir.lock import Lock
from small_project import rows, write_config, write_language, write_project, write_rows


def known(config, memory=None, *, allow_code=False):
    read = load_config(config, allow_code=allow_code)
    return gather(read, Lock(), memory or {}, with_base=False, store=Store(read.run.store))


@pytest.fixture
def readings(monkeypatch):
    """The languages whose rows are read from here on."""
    seen = []
    real = facts_module.load

    def counted(source, task, **more):
        seen.append(source.language)
        return real(source, task, **more)

    monkeypatch.setattr(facts_module, "load", counted)
    return seen


def changed(config, **sections):
    given = yaml.safe_load(config.read_text("utf-8"))
    return write_config(config.parent, given | sections)


# --- languages without an adapter --------------------------------------------------------------------------


def test_an_unseen_language_has_a_summary_of_its_test_rows_alone(tmp_path):
    config = write_project(tmp_path, ("en", "de"), rivals={"unseen": {"fr": "data/fr"}})
    write_language(tmp_path, "fr")
    found = known(config)
    assert set(found.rows) == {"en", "de"}
    assert found.unseen["fr"].rows == {"test": 6}
    assert set(found.unseen["fr"].digests) == {"test"}
    assert set(found.sources) == {"en", "de", "fr"}


def test_other_rows_of_an_unseen_language_are_neither_needed_nor_read(tmp_path):
    config = write_project(tmp_path, ("en",), rivals={"unseen": {"fr": "data/fr"}})
    write_language(tmp_path, "fr", train=0, valid=0)
    alone = known(config).unseen["fr"]
    write_rows(tmp_path / "data/fr/train.jsonl", [{"input": "", "output": "nothing of this kind"}])
    assert known(config).unseen["fr"] == alone


def test_an_unseen_language_may_be_one_file(tmp_path):
    write_rows(tmp_path / "fr.jsonl", rows("fr", "test", 5))
    config = write_project(tmp_path, ("en",), rivals={"unseen": {"fr": "fr.jsonl"}})
    assert known(config).unseen["fr"].rows == {"test": 5}


def test_an_unseen_language_without_test_rows_is_refused(tmp_path):
    write_language(tmp_path, "fr", test=0)
    config = write_project(tmp_path, ("en",), rivals={"unseen": {"fr": "data/fr"}})
    with pytest.raises(
        InputError, match=r"^data\.fr: .*fr has no test file\. Add test\.jsonl, .* or test\.parquet"
    ):
        known(config)


def test_wrong_rows_of_seen_and_unseen_languages_are_told_together(tmp_path):
    write_rows(tmp_path / "fr.jsonl", [{"input": "a", "output": "terrible"}])
    config = write_project(tmp_path, ("en",), rivals={"unseen": {"fr": "fr.jsonl"}})
    write_rows(tmp_path / "data/en/test.jsonl", [{"input": "a", "output": "horrible"}])
    with pytest.raises(InputError) as error:
        known(config)
    said = [str(problem) for problem in error.value.problems()]
    assert ["horrible" in said[0], "terrible" in said[1], len(said)] == [True, True, 2]


# --- what is remembered ------------------------------------------------------------------------------------


def test_unchanged_rows_are_read_once(tmp_path, readings):
    config = write_project(tmp_path, ("en", "de"), rivals={"unseen": {"fr": "data/fr"}})
    write_language(tmp_path, "fr")
    first = known(config)
    assert sorted(readings) == ["de", "en", "fr"]
    again = known(config, first.memory)
    assert sorted(readings) == ["de", "en", "fr"]
    assert (again.rows, again.unseen) == (first.rows, first.unseen)
    write_rows(tmp_path / "data/de/test.jsonl", rows("de", "test", 9))
    assert known(config, first.memory).rows["de"].rows["test"] == 9
    assert readings[3:] == ["de"]


def test_other_words_for_one_language_change_its_digests_alone(tmp_path):
    config = write_project(tmp_path, ("en", "de"))
    task = {"name": "classification", "labels": ["delivery", "payment"]}
    before = known(config)
    for written in ({"de": {"cue": "Antwort:"}}, "prompts.yaml"):
        (tmp_path / "prompts.yaml").write_text("de: {cue: 'Antwort:'}\n", encoding="utf-8")
        after = known(changed(config, task={**task, "prompts": written}), before.memory)
        assert after.rows["en"] == before.rows["en"]
        assert all(
            after.rows["de"].digests[split] != before.rows["de"].digests[split]
            for split in after.rows["de"].digests
        )
        assert [after.tasks[language].cue for language in ("en", "de")] == ["Answer:", "Antwort:"]


def test_a_renamed_file_of_a_data_set_is_noticed(tmp_path, readings, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_language(tmp_path, "de")
    config = write_project(tmp_path, ("en",), data={"en": "data/en", "de": {"hub": "./data/de"}})
    first = known(config)
    assert first.rows["de"].rows["test"] == 6
    assert known(config, first.memory).rows == first.rows
    assert readings == ["en", "de"]
    (tmp_path / "data/de/train.jsonl").rename(tmp_path / "data/de/a")
    (tmp_path / "data/de/test.jsonl").rename(tmp_path / "data/de/train.jsonl")
    (tmp_path / "data/de/a").rename(tmp_path / "data/de/test.jsonl")
    assert known(config, first.memory).rows["de"].rows["test"] == 24


def test_planning_again_loads_neither_pyarrow_nor_datasets(tmp_path):
    config = write_project(tmp_path, ("en", "de"), data={"en": "data/en", "de": {"hub": "./set"}})
    for split in ("train", "valid", "test"):
        (tmp_path / f"data/en/{split}.jsonl").unlink()
        pq.write_table(pa.Table.from_pylist(rows("en", split, 24)), tmp_path / f"data/en/{split}.parquet")
        write_rows(tmp_path / f"set/{split}.jsonl", rows("de", split, 24))
    code = (
        "import sys, sabir; sabir.Project(sys.argv[1]).plan(); "
        "print(sorted({'pyarrow', 'datasets', 'huggingface_hub'} & set(sys.modules)))"
    )
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}

    def planned():
        done = subprocess.run(
            [sys.executable, "-c", code, str(config)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    assert planned() == "['datasets', 'huggingface_hub', 'pyarrow']"
    assert planned() == "[]"


# --- data sets of the hub ----------------------------------------------------------------------------------


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with the data set org/name, whose subsets en and de are folders of the project; `commit` is today's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    state = SimpleNamespace(commit=COMMIT, asked=0, fetched=[])
    real = datasets.load_dataset_builder

    class Api:
        def dataset_info(self, name, revision=None, timeout=None):
            state.asked += 1
            if state.commit is None:
                raise ConnectionError("no route")
            return SimpleNamespace(sha=state.commit)

    def fetched(name, subset, revision):
        assert name == "org/name"
        state.fetched.append((subset, revision))
        return real(str(tmp_path / "data" / subset))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset_builder", fetched)
    return state


def of_the_hub(tmp_path):
    data = {language: {"hub": "org/name", "subset": language} for language in ("en", "de")}
    return write_project(tmp_path, ("en", "de"), data=data)


def test_a_data_set_is_fetched_once_a_commit_and_the_hub_asked_once_a_plan(tmp_path, hub):
    config = of_the_hub(tmp_path)
    first = known(config)
    assert hub.fetched == [("en", COMMIT), ("de", COMMIT)]
    assert hub.asked == 1
    assert {source.hub.revision for source in first.sources.values()} == {COMMIT}
    again = known(config, json.loads(json.dumps(first.memory)))
    assert (len(hub.fetched), hub.asked) == (2, 2)
    assert again.rows == first.rows
    hub.commit = COMMIT[::-1]
    known(config, again.memory)
    assert hub.fetched[2:] == [("en", COMMIT[::-1]), ("de", COMMIT[::-1])]


def test_without_a_network_the_commit_of_the_last_plan_holds(tmp_path, hub):
    config = of_the_hub(tmp_path)
    first = known(config)
    hub.commit = None
    again = known(config, first.memory)
    assert again.rows == first.rows
    assert len(hub.fetched) == 2
    with pytest.raises(InputError, match=r"^org/name: the hub could not be asked"):
        known(config)


def test_a_written_commit_is_not_asked_for(tmp_path, hub):
    config = of_the_hub(tmp_path)
    data = {"en": {"hub": "org/name", "subset": "en", "revision": COMMIT}}
    assert known(changed(config, data=data)).rows["en"].rows["train"] == 24
    assert hub.asked == 0


def test_data_of_the_hub_and_the_same_files_are_the_same_rows(tmp_path, hub):
    config = of_the_hub(tmp_path)
    by_hub = known(config)
    by_file = known(changed(config, data={"en": "data/en", "de": "data/de"}))
    assert {one: by_hub.rows[one].digests for one in by_hub.rows} == {
        one: by_file.rows[one].digests for one in by_file.rows
    }


def test_a_missing_package_is_told_by_language_before_rows_are_read(tmp_path, hub, readings, monkeypatch):
    config = changed(of_the_hub(tmp_path), data={"en": {"hub": "org/name", "subset": "en"}, "de": "data/de"})
    pq.write_table(pa.Table.from_pylist(rows("de", "valid", 6)), tmp_path / "data/de/valid.parquet")
    (tmp_path / "data/de/valid.jsonl").unlink()
    for package in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as error:
        known(config)
    said = [str(problem) for problem in error.value.problems()]
    assert [sentence.split(":")[0] for sentence in said] == ["data.en", "data.de"]
    assert all(sentence.endswith("pip install 'sabir[hub]'.") for sentence in said)
    assert readings == []


# --- code of the user's own --------------------------------------------------------------------------------


def test_an_edit_of_ones_own_task_is_noticed_though_the_rows_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = (
        "from dataclasses import replace\nfrom sabir.tasks import make_task\n"
        "def mine(*, cue: str = 'A:'):\n    return make_task('summarization', {'cue': cue + EXTRA})\nEXTRA = ''\n"
    )
    (tmp_path / "facts_task.py").write_text(code)
    config = write_project(tmp_path, ("en",), task={"name": "facts_task:mine"})
    first = known(config, allow_code=True)
    assert known(config, first.memory, allow_code=True).rows == first.rows
    monkeypatch.setattr(sys.modules["facts_task"], "EXTRA", "!")
    after = known(config, first.memory, allow_code=True)
    assert after.tasks["en"].cue == "A:!"
    assert after.rows["en"].digests != first.rows["en"].digests


def test_forgotten_rows_are_left_out_of_data_sets_too(tmp_path, hub):
    from sabir.work.prepare import load
    from sabir.work.sources import Forgotten, hash_of

    found = known(of_the_hub(tmp_path))
    gone = Forgotten(None, hash_of(rows("en", "train", 1)[0]["input"]))
    source = replace(found.sources["en"], forgotten=(gone,))
    assert load(source, found.task)[1].rows["train"] == 23
