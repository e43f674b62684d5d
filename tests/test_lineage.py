"""Which adapters go on from which: today's rows, the lock and the store held against each other."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import pytest

import sabir.facts
import sabir.lineage
from model.tiny import TINY_BASE, save_adapter
from sabir.catalog import non_default
from sabir.config import load_config
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.facts import gather
from sabir.languages import LoraConfig
from sabir.lineage import Ancestor, continued
from sabir.lock import Forgotten, Hold, Line, Lock
from sabir.tasks import make_task
from sabir.work.prepare import load
from sabir.work.rows import choose, read_rows, write_rows
from sabir.work.sources import hash_of
from small_project import LABELS, rows, settings, write_config, write_language
from small_project import write_rows as write

P, C, Q = ("p" * 64, "c" * 64, "q" * 64)  # fingerprints: of a parent, a child, another


class Place:
    """A project of German and French with a store of adapters that were never really trained."""

    def __init__(self, folder):
        self.folder = folder
        for language in ("de", "fr"):
            write_language(folder, language, train=40)
        self.settings = settings(("de", "fr"), update="continue", merges="average", run={})
        self.store = Store(folder / ".sabir")
        self.locked = Lock()
        self.memory = {}

    def config(self):
        return load_config(write_config(self.folder, self.settings))

    def facts(self):
        facts = gather(self.config(), self.locked, self.memory, with_base=False, store=self.store)
        self.memory = json.loads(json.dumps(facts.memory))  # as the cache on disk gives it back
        return facts

    def examples(self, language):
        task = make_task("classification", {"labels": LABELS})
        return load(self.facts().sources[language], task)[0]["train"]

    def train_rows(self, language, given):
        write(self.folder / "data" / language / "train.jsonl", given)

    def trained(self, fingerprint, *languages, kind="adapter", update=None, result=(), rows=True, **changes):
        """Put an adapter of today's rows into the store; `changes` are of its settings."""
        facts = self.facts()
        folder = self.store.folder(fingerprint)
        folder.mkdir(parents=True)
        if rows:
            write_rows(folder, [row for language in languages for row in self.examples(language)], {})
        lora = self.config().languages[languages[0]].lora
        record = {
            "name": "adapter",
            "kind": kind,
            "fingerprint": fingerprint,
            "settings": {
                "base": facts.base.identity,
                "lora": non_default(asdict(lora), asdict(LoraConfig())),
                **({"update": update} if update else {}),
                **changes,
            },
            "deps": {f"rows/{one}": facts.rows[one].digests["train"] for one in languages},
            "result": dict(result),
        }
        (folder / "record.json").write_text(json.dumps(record))

    def line(self, adapter, parent=None, language="de"):
        """Say in the lock that this adapter is the last one, of today's rows."""
        rows = self.facts().rows[language].digests["train"]
        self.locked = replace(
            self.locked, lineage={**self.locked.lineage, language: Line(rows, adapter, parent)}
        )


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def grown(place):
    """German was trained on its rows, and ten rows came since."""
    place.trained(P, "de")
    place.line(P)
    place.train_rows("de", rows("de", "train", 50))
    return place


def test_more_rows_go_on_from_the_last_adapter(grown):
    found = grown.facts().ancestors
    choice = choose(grown.examples("de"), read_rows(grown.store.folder(P)), replay=0.1, seed=0)
    characters = sum(len(row.prompt.text) + len(row.target) for row in choice.rows)
    assert found == {"de": Ancestor(P, 10, len(choice.replayed), characters)}
    assert 0 < len(choice.replayed) < 40


def test_how_much_is_replayed_is_the_languages_own(grown):
    grown.settings["data"]["de"] = {"folder": "data/de", "update": {"replay": 1}}
    grown.settings["update"] = {"mode": "continue", "replay": 0}
    assert grown.facts().ancestors["de"].replayed == 40
    grown.settings["data"]["de"] = "data/de"
    assert grown.facts().ancestors["de"].replayed == 0


def test_without_a_line_or_without_being_asked_nothing_is_continued(grown):
    grown.settings["update"] = "scratch"
    assert grown.facts().ancestors == {}
    grown.settings["update"] = "continue"
    grown.locked = Lock()
    assert grown.facts().ancestors == {}


def test_the_same_rows_as_the_last_time_have_the_same_parent_as_the_last_time(grown):
    """So the continuation is found again, and never goes on from itself."""
    before = grown.facts().ancestors
    grown.line(C, parent=P)
    assert grown.facts().ancestors == before
    grown.train_rows("de", rows("de", "train", 50)[::-1])
    assert grown.facts().ancestors == before


def test_the_same_rows_of_an_adapter_from_scratch_stay_from_scratch(place):
    place.trained(P, "de")
    place.line(P)
    assert place.facts().ancestors == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[1:],
        lambda rows: [{**rows[0], "output": LABELS[1]}, *rows[1:]],
        lambda rows: [{**rows[0], "input": "other"}, *rows[1:]],
    ],
)
def test_rows_removed_or_edited_are_trained_from_scratch_even_when_others_came(place, change):
    place.trained(P, "de")
    place.line(P)
    place.train_rows("de", [*change(rows("de", "train", 40)), *rows("de", "more", 10)])
    assert place.facts().ancestors == {}


def test_a_row_the_parent_had_twice_must_be_there_twice(place):
    place.train_rows("de", rows("de", "train", 40) + rows("de", "train", 1))
    place.trained(P, "de")
    place.line(P)
    place.train_rows("de", rows("de", "train", 50))
    assert place.facts().ancestors == {}
    place.train_rows("de", rows("de", "train", 50) + rows("de", "train", 2))
    assert place.facts().ancestors["de"].new == 11


def test_a_forgotten_row_is_trained_from_scratch_and_one_of_test_changes_nothing(grown):
    before = grown.facts().ancestors
    text = rows("de", "test", 1)[0]["input"]
    grown.locked = replace(grown.locked, forgotten={"de": (Forgotten(None, hash_of(text)),)})
    assert grown.facts().ancestors == before
    text = rows("de", "train", 1)[0]["input"]
    grown.locked = replace(grown.locked, forgotten={"de": (Forgotten(None, hash_of(text)),)})
    assert grown.facts().ancestors == {}


def test_a_forgotten_row_of_the_new_ones_is_no_new_row(grown):
    text = rows("de", "train", 50)[-1]["input"]
    grown.locked = replace(grown.locked, forgotten={"de": (Forgotten(None, hash_of(text)),)})
    assert grown.facts().ancestors["de"].new == 9


@pytest.mark.parametrize("change", [{"rank": 8}, {"alpha": 1.0}, {"targets": ["q_proj"]}, {"batch_size": 4}])
def test_other_training_settings_are_trained_from_scratch(grown, change):
    grown.settings["lora"] = {**grown.settings["lora"], **change}
    assert grown.facts().ancestors == {}


@pytest.mark.parametrize("change", [{"epochs": 7}, {"learning_rate": 1e-3}, {"seed": 3}])
def test_epochs_learning_rate_and_seed_may_differ_from_the_parents(grown, change):
    grown.settings["lora"] = {**grown.settings["lora"], **change}
    assert grown.facts().ancestors["de"].adapter == P


def test_a_list_of_targets_is_the_same_in_the_record_and_in_the_config(place):
    place.settings["lora"]["targets"] = ["q_proj", "v_proj"]
    place.trained(P, "de")
    place.line(P)
    place.train_rows("de", rows("de", "train", 50))
    assert place.facts().ancestors["de"].adapter == P


@pytest.mark.parametrize(
    "unlike",
    [{"kind": "adopted"}, {"base": "sha256:another"}, {"rows": False}],
    ids=lambda one: next(iter(one)),
)
def test_an_adapter_that_cannot_be_gone_on_from_is_not(place, unlike):
    place.trained(P, "de", **unlike)
    place.line(P)
    place.train_rows("de", rows("de", "train", 50))
    assert place.facts().ancestors == {}


def test_another_instruction_is_trained_from_scratch(grown):
    grown.settings["task"]["instruction"] = "Which topic?"
    assert grown.facts().ancestors == {}


def test_a_parent_that_is_not_in_the_store_is_trained_from_scratch(place):
    place.line(P)
    place.train_rows("de", rows("de", "train", 50))
    assert place.facts().ancestors == {}


@pytest.fixture
def orphan(place):
    """A finished continuation whose parent is no longer in the store."""
    result = {"new": 10, "replayed": 3, "characters": 999}
    place.trained(C, "de", update={"replay": 0.1}, result=result)
    place.line(C, parent=P)
    return place


def test_a_finished_continuation_is_kept_though_its_parent_is_gone(orphan):
    assert orphan.facts().ancestors == {"de": Ancestor(P, 10, 3, 999)}


@pytest.mark.parametrize(
    "change",
    [
        {"update": {"mode": "continue", "replay": 0.2}},
        {"update": {"mode": "continue", "epochs": 9}},
        {"lora": {"rank": 8}},
    ],
)
def test_an_orphan_of_other_settings_is_trained_from_scratch(orphan, change):
    orphan.settings |= change
    assert orphan.facts().ancestors == {}


def test_planning_again_reads_neither_rows_nor_what_adapters_were_trained_on(grown, monkeypatch):
    before = grown.facts()

    def read(*_, **__):
        raise AssertionError("it was read")

    for module in (sabir.facts, sabir.lineage):
        monkeypatch.setattr(module, "load", read)
    monkeypatch.setattr(sabir.lineage, "read_rows", read)
    again = grown.facts()
    assert (again.ancestors, again.rows) == (before.ancestors, before.rows)
    grown.train_rows("de", rows("de", "train", 51))
    with pytest.raises(AssertionError, match="it was read"):
        grown.facts()


def test_from_scratch_is_remembered_too(grown, monkeypatch):
    grown.train_rows("de", rows("de", "other", 50))
    assert grown.facts().ancestors == {}
    monkeypatch.setattr(sabir.lineage, "read_rows", None)
    assert grown.facts().ancestors == {}


def test_rows_that_change_between_two_readings_are_told(grown, monkeypatch):
    real = sabir.facts.load

    def changing(source, task, **more):
        found = real(source, task, **more)
        if source.language == "de":
            grown.train_rows("de", rows("de", "train", 60))
        return found

    monkeypatch.setattr(sabir.facts, "load", changing)
    with pytest.raises(InputError, match=r"data\.de: the files changed while they were read\. Do it again"):
        grown.facts()


# --- holds ---------------------------------------------------------------------------------------------------


def held(place, adapter=Q, rows=None):
    digest = rows or place.facts().rows["de"].digests["train"]
    return replace(place.locked, holds={"de": Hold(digest, adapter, "3")})


def test_a_hold_counts_while_the_rows_are_the_same_and_its_adapter_is_there(grown):
    grown.trained(Q, "de")
    grown.locked = held(grown)
    assert grown.facts().holds == grown.locked.holds
    assert grown.facts().ancestors == {}  # its adapter is that one, and no continuation
    grown.train_rows("de", rows("de", "train", 51))
    assert grown.facts().holds == {}
    assert grown.facts().ancestors["de"].adapter == Q, "not the one that was rejected"


def test_a_hold_on_what_is_not_in_the_store_or_the_config_does_not_count(grown):
    grown.locked = held(grown)
    assert grown.facts().holds == {}
    grown.trained(Q, "de")
    grown.locked = replace(grown.locked, holds={"nl": grown.locked.holds["de"]})
    assert grown.facts().holds == {}


def test_a_hold_does_not_bring_a_forgotten_row_back(place):
    place.train_rows("de", rows("de", "train", 50))
    place.trained(Q, "de")
    place.train_rows("de", rows("de", "train", 40))
    place.locked = held(place)
    assert set(place.facts().holds) == {"de"}
    gone = rows("de", "train", 50)[45]["input"]  # no row of today, so today's rows stay the same
    place.locked = replace(place.locked, forgotten={"de": (Forgotten(None, hash_of(gone)),)})
    assert place.facts().holds == {}


# --- the combined adapter, continued -------------------------------------------------------------------------


def test_the_combined_adapter_goes_on_with_the_new_rows_alone(place):
    place.trained(P, "de", "fr")
    assert continued(place.store, place.facts(), P) is None  # it has seen them all
    place.train_rows("de", rows("de", "train", 50))
    new = [
        row for row in place.examples("de") if any(row.prompt.source.endswith(f" {i}") for i in range(40, 50))
    ]
    expected = Ancestor(P, 10, 0, sum(row.characters for row in new), ("de",))
    assert continued(place.store, place.facts(), P) == expected


def test_a_language_that_is_new_to_the_combined_adapter_is_new_as_a_whole(place):
    place.trained(P, "de", "fr")
    write_language(place.folder, "ja", train=24)
    place.settings["data"]["ja"] = "data/ja"
    found = continued(place.store, place.facts(), P)
    assert (found.new, found.languages) == (24, ("ja",))


def test_a_combined_adapter_that_saw_rows_that_are_gone_is_not_continued(place):
    place.trained(P, "de", "fr")
    place.train_rows("de", rows("de", "train", 39) + rows("de", "more", 5))
    assert continued(place.store, place.facts(), P) is None
    place.train_rows("de", rows("de", "train", 50))
    assert continued(place.store, place.facts(), P) is not None
    del place.settings["data"]["fr"]
    assert continued(place.store, place.facts(), P) is None


def test_a_combined_adapter_of_another_base_or_none_is_not_continued(place):
    place.trained(P, "de", "fr", base="sha256:another")
    place.trained(Q, "de", "fr", rows=False)
    place.train_rows("de", rows("de", "train", 50))
    assert [continued(place.store, place.facts(), one) for one in (P, Q, C)] == [None] * 3


def test_what_the_combined_adapter_lacks_is_read_once(place, monkeypatch):
    place.trained(P, "de", "fr")
    place.train_rows("fr", rows("fr", "train", 44))
    before = continued(place.store, place.facts(), P)
    assert (before.new, before.languages) == (4, ("fr",))
    monkeypatch.setattr(sabir.lineage, "read_rows", None)
    assert continued(place.store, place.facts(), P) == before


def test_a_store_that_cannot_be_written_is_only_slower(place, monkeypatch):
    place.trained(P, "de", "fr")
    place.train_rows("fr", rows("fr", "train", 44))

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "remember", refused)
    assert continued(place.store, place.facts(), P).new == 4


# --- models that somebody brought ----------------------------------------------------------------------------


def test_the_digest_of_an_adapter_in_use_before_is_remembered_until_it_changes(place, monkeypatch):
    adapter = save_adapter(place.folder / "in-use", TINY_BASE, seed=1)
    place.settings["gate"] = {"incumbent": "in-use"}
    before = place.facts().incumbent
    assert before.startswith("sha256:")
    real = sabir.facts.open_adapter
    monkeypatch.setattr(sabir.facts, "open_adapter", None)
    assert place.facts().incumbent == before
    monkeypatch.setattr(sabir.facts, "open_adapter", real)
    weights = save_adapter(place.folder / "other", TINY_BASE, seed=2) / "adapter_model.safetensors"
    os.replace(weights, adapter / "adapter_model.safetensors")
    assert place.facts().incumbent not in (None, before)


def test_the_digest_of_a_model_in_use_before_is_that_of_its_files(place, monkeypatch):
    from sabir.work import bases

    place.settings["gate"] = {"incumbent": str(TINY_BASE)}
    assert place.facts().incumbent == bases.digest_of(TINY_BASE, {})[0]
    monkeypatch.setattr(bases, "_sha256", None)
    assert place.facts().incumbent is not None  # nothing is read again, though the base has the same files
    del place.settings["gate"]
    assert place.facts().incumbent is None


def test_a_model_in_use_before_without_weights_is_refused(place):
    (place.folder / "in-use").mkdir()
    (place.folder / "in-use" / "config.json").write_text("{}")
    place.settings["gate"] = {"incumbent": "in-use"}
    with pytest.raises(InputError, match=r"gate\.incumbent: .*in-use has no \.safetensors weights"):
        place.facts()


def test_what_an_adapter_is_made_from_is_its_rows_or_the_adapter_that_was_brought(place):
    adapter = save_adapter(place.folder / "adapters" / "fr", TINY_BASE, seed=1)
    files = {split: f"data/fr/{split}.jsonl" for split in ("valid", "test")}
    place.settings["data"]["fr"] = {"adapter": str(adapter), **files}
    place.locked = Lock(lineage={"fr": Line("x", P, None)})
    facts = place.facts()
    assert facts.made_from("de") == facts.rows["de"].digests["train"]
    assert facts.made_from("fr") == facts.adapters["fr"]
    assert facts.ancestors == {}


def test_forgotten_rows_are_counted_by_language(place):
    gone = tuple(Forgotten(None, hash_of(row["input"])) for row in rows("de", "train", 3))
    place.locked = Lock(forgotten={"de": gone})
    facts = place.facts()
    assert (facts.rows["de"].forgotten, facts.rows["fr"].forgotten) == (3, 0)
    assert facts.rows["de"].rows["train"] == 37
    place.locked = Lock()
    assert place.facts().rows["de"].rows["train"] == 40
