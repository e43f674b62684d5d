"""Where a config says that the rows of a language lie."""

from __future__ import annotations

import pytest

from sabir.config import load_config
from sabir.errors import InputError
from sabir.work.hub import HubData
from small_project import write_config, write_project


@pytest.fixture
def read(tmp_path):
    """Loads a config with two languages and, as the third, what is given; or `unseen` beside them."""
    write_project(tmp_path, ("en", "de"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "set").mkdir()

    def load(third=None, unseen=None, rows="data/en"):
        given = {
            "base": "embedded",
            "task": "summarization",
            "data": {"en": rows, **({"xx": third} if third is not None else {})},
            **({"rivals": {"unseen": unseen}} if unseen else {}),
        }
        return load_config(write_config(tmp_path, given))

    return load


def test_a_data_set_of_the_hub_is_named_with_its_subset_revision_and_splits(read):
    given = {
        "hub": "org/name",
        "subset": "xx",
        "revision": "v2",
        "valid": "dev",
        "fields": {"input": "review"},
    }
    language = read(given).languages["xx"]
    assert language.hub == HubData("org/name", "xx", "v2", {"valid": "dev"})
    assert language.fields == {"input": "review"}
    assert (language.folder, language.file, language.train, language.valid, language.test) == (None,) * 5


def test_a_data_set_in_a_folder_starts_at_the_config(read, tmp_path):
    for written in ("./set", "set", str(tmp_path / "set")):
        assert read({"hub": written}).languages["xx"].hub == HubData(str(tmp_path / "set"))


def test_with_an_adapter_a_data_set_is_asked_for_no_training_rows(read):
    language = read({"adapter": "adapter", "hub": "org/name", "test": "t"}).languages["xx"]
    assert language.hub == HubData("org/name", splits={"test": "t"}, only=("valid", "test"))


def test_an_unseen_language_has_test_rows_and_nothing_else(read, tmp_path):
    unseen = read(
        unseen={"it": "data/de", "ko": {"test": "data/de/test.jsonl", "fields": {"input": "a"}}}
    ).rivals.unseen
    assert unseen["it"].folder == tmp_path / "data/de"
    assert unseen["ko"].test == tmp_path / "data/de/test.jsonl"
    assert unseen["ko"].fields == {"input": "a"}
    hub = (
        read(unseen={"it": {"hub": "org/name", "subset": "it", "test": "validation"}}).rivals.unseen["it"].hub
    )
    assert hub == HubData("org/name", "it", splits={"test": "validation"}, only=("test",))


@pytest.mark.parametrize(
    ("unseen", "said"),
    [
        ({"en": "data/de"}, "rivals.unseen.en: it has an adapter of its own."),
        (
            {"it": {"folder": "data/de", "test": "data/de/test.jsonl"}},
            "rivals.unseen.it: needs one of folder:",
        ),
        ({"it": {"fields": {}}}, "rivals.unseen.it: needs one of folder:"),
        (
            {"it": {"train": "data/de/test.jsonl", "test": "data/de/test.jsonl"}},
            "rivals.unseen.it.train: no such",
        ),
        ({"it": "data/nowhere"}, "neither a folder nor a file"),
        ({"it": 3}, "rivals.unseen.it: names no data."),
        ({"IT": "data/de"}, "Write 'it'."),
        ({"it": {"hub": "set", "revision": "a"}}, "rivals.unseen.it.revision: a folder has no revisions."),
        ({"it": {"hub": "org/name", "valid": "a"}}, "rivals.unseen.it.valid: no such setting."),
    ],
)
def test_what_is_no_test_set_of_an_unseen_language_is_refused(read, unseen, said):
    with pytest.raises(InputError) as error:
        read(unseen=unseen)
    [problem] = error.value.problems()
    assert said in str(problem)
