"""From files to rendered rows, and what a plan remembers of them."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sabir.errors import InputError, InputErrors, SabirError
from sabir.tasks import make_task
from sabir.work.prepare import Summary, load, prepare, read_examples, write_examples
from sabir.work.sources import SHOWN, Forgotten, Source, hash_of, split_files

TASK = make_task("classification", {"labels": ("good", "bad"), "instruction": "Is it good?"})


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def rows(count, start=0, **more):
    return [
        {"text": f"text {i}", "label": ("good", "bad")[i % 2], **more} for i in range(start, start + count)
    ]


def source(folder, *, train=None, valid=None, test=None):
    folder.mkdir(exist_ok=True)
    given = {"train": train or rows(6), "valid": valid or rows(2, 100), "test": test or rows(3, 200)}
    return Source("de", files={split: jsonl(folder / f"{split}.jsonl", r) for split, r in given.items()})


def digests(source):
    return load(source, TASK)[1].digests


def test_rows_are_rendered_by_the_task(tmp_path):
    splits, summary = load(source(tmp_path), TASK)
    assert {example.prompt.text for example in splits["valid"]} == {
        "Is it good?\n\ntext 100\n\nAnswer:",
        "Is it good?\n\ntext 101\n\nAnswer:",
    }
    assert summary.rows == {"train": 6, "valid": 2, "test": 3}
    assert summary.characters["valid"] == 2 * len("Is it good?\n\ntext 100\n\nAnswer:") + len("goodbad")


def test_the_order_of_the_file_changes_nothing(tmp_path):
    one, other = source(tmp_path / "a"), source(tmp_path / "b", train=rows(6)[::-1], test=rows(3, 200)[::-1])
    assert load(one, TASK)[0] == load(other, TASK)[0]
    assert digests(one) == digests(other)


def test_ids_enter_the_digest_of_test_and_not_of_train(tmp_path):
    plain = digests(source(tmp_path / "a"))
    train = digests(source(tmp_path / "b", train=[{"id": i, **row} for i, row in enumerate(rows(6))]))
    test = digests(source(tmp_path / "c", test=[{"id": i, **row} for i, row in enumerate(rows(3, 200))]))
    assert train == plain
    assert test["test"] != plain["test"]
    assert test["train"] == plain["train"]


@pytest.mark.parametrize("change", [{"text": "other"}, {"label": "bad"}, {"instruction": "Hm?"}])
def test_what_the_model_meets_enters_the_digest(tmp_path, change):
    changed = rows(6)
    changed[0] = {**changed[0], **change}
    assert digests(source(tmp_path / "a"))["train"] != digests(source(tmp_path / "b", train=changed))["train"]


def test_a_row_twice_is_another_digest_than_once(tmp_path):
    twice = digests(source(tmp_path / "b", train=[*rows(6), rows(1)[0]]))
    assert digests(source(tmp_path / "a"))["train"] != twice["train"]


def test_test_texts_that_are_in_train_are_counted(tmp_path):
    assert load(source(tmp_path, test=[*rows(2), *rows(2, 200)]), TASK)[1].overlap == 2


def test_the_longest_training_answers_are_told_with_their_places(tmp_path):
    task = make_task("summarization", {})
    texts = [{"text": "a", "label": "x"}, {"text": "b", "label": "日本語"}]
    test = [{"text": "c", "label": "an answer that is only compared, never trained on"}]
    summary = load(source(tmp_path, train=texts, test=test), task)[1]
    place = f"{tmp_path / 'train.jsonl'}, line"
    assert summary.longest_targets == ((9, f"{place} 2", "日本語"), (1, f"{place} 1", "x"))


def test_a_label_that_is_not_declared_is_told_with_its_line(tmp_path):
    wrong = rows(3)
    wrong[1]["label"] = "Good"
    with pytest.raises(InputError) as error:
        load(source(tmp_path, train=wrong), TASK)
    assert str(error.value) == (
        f"{tmp_path / 'train.jsonl'}, line 2: the label 'Good' is not declared. Declared are: good, bad. "
        "Did you mean 'good'?"
    )


def test_wrong_rows_are_capped_by_split(tmp_path):
    wrong = [{"text": str(i), "label": "?"} for i in range(SHOWN + 3)]
    with pytest.raises(InputErrors) as error:
        load(source(tmp_path, train=wrong, test=wrong), TASK)
    said = [str(problem) for problem in error.value.problems()]
    assert len(said) == 2 * (SHOWN + 1)
    assert said[SHOWN] == "de/train: 3 more rows are wrong likewise."


def test_a_language_without_test_rows_is_refused(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", rows(2))
    with pytest.raises(InputError, match=r"data\.de: there are no (valid|test) rows \(read: .*a\.jsonl\)"):
        load(Source("de", file=path), TASK)


def test_a_language_with_its_own_adapter_needs_no_train_rows(tmp_path):
    whole = source(tmp_path)
    files = {split: path for split, path in whole.files.items() if split != "train"}
    summary = load(Source("de", files=files), TASK)[1]
    assert set(summary.digests) == {"valid", "test"}
    assert summary.overlap == 0


def forgetting(source, *texts):
    return replace(source, forgotten=tuple(Forgotten(None, hash_of(text)) for text in texts))


def test_forgotten_rows_are_as_if_they_had_never_been_there(tmp_path):
    never = source(tmp_path / "a", train=rows(5), test=rows(2, 200))
    whole = source(tmp_path / "b", train=rows(6), test=rows(3, 200))
    forgot = forgetting(whole, "text 5", "text 202")
    splits, summary = load(forgot, TASK)
    expected_splits, expected = load(never, TASK)
    assert splits == expected_splits
    assert (summary.digests, summary.rows, summary.characters) == (
        expected.digests,
        expected.rows,
        expected.characters,
    )
    assert (summary.forgotten, expected.forgotten) == (2, 0)


def test_what_is_wrong_with_a_forgotten_row_bars_nobody(tmp_path):
    wrong = [*rows(6), {"text": "text 6", "label": "terrible"}]
    given = source(tmp_path, train=wrong)
    with pytest.raises(InputError, match="not declared"):
        load(given, TASK)
    assert load(forgetting(given, "text 6"), TASK)[1].rows["train"] == 6


def test_a_split_of_which_every_row_is_forgotten_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.de: there are no valid rows"):
        load(forgetting(source(tmp_path), "text 100", "text 101"), TASK)


def test_the_step_leaves_forgotten_rows_out_of_the_store(tmp_path):
    given = forgetting(source(tmp_path / "data"), "text 3")
    out = tmp_path / "out"
    out.mkdir()
    list(prepare([work(given, out, digests(given))]))
    assert len(read_examples(out, "train")) == 5
    assert all("text 3" not in path.read_text() for path in out.iterdir())


def test_a_summary_goes_through_json(tmp_path):
    summary = load(source(tmp_path), TASK)[1]
    assert Summary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


def work(given, out, settings):
    task = {"name": "classification", "settings": {"labels": ["good", "bad"], "instruction": "Is it good?"}}
    args = {"source": given.to_json(), "task": task}
    return SimpleNamespace(name="data/de", args=args, settings=settings, out=out)


def test_the_step_writes_what_was_planned(tmp_path):
    given = source(tmp_path / "data", train=[{"text": "schön\u2028🎉", "label": "good"}])
    out = tmp_path / "out"
    out.mkdir()
    splits, summary = load(given, TASK)
    [(name, outcome)] = prepare([work(given, out, summary.digests)])
    assert (name, outcome["result"]["rows"]) == ("data/de", summary.rows)
    for split, examples in splits.items():
        assert read_examples(out, split) == examples


def test_the_step_refuses_rows_that_changed_since(tmp_path):
    given = source(tmp_path / "data")
    planned = digests(given)
    jsonl(given.files["train"], rows(7))
    with pytest.raises(SabirError, match=r"data\.de: the files changed while the run began\. Run again"):
        list(prepare([work(given, tmp_path, planned)]))


# --- choices, groups, lists, words of one's own ------------------------------------------------------------

CHOICE = make_task("choice", {})


def questions(count, start=0, **more):
    return [
        {"question": f"q {i}", "choices": ["yes", "no", "perhaps"], "answer": i % 3, **more}
        for i in range(start, start + count)
    ]


def asked(folder, **splits):
    given = {"train": questions(6), "valid": questions(3, 100), "test": questions(3, 200)} | splits
    return source(folder, **given)


def judged_otherwise(change, tmp_path):
    """Splits whose digest differs once the change is made to every row."""
    splits = {"train": questions(6), "valid": questions(3, 100), "test": questions(3, 200)}
    changed = {split: [change(dict(record)) for record in records] for split, records in splits.items()}
    before = load(asked(tmp_path / "a"), CHOICE)[1].digests
    after = load(asked(tmp_path / "b", **changed), CHOICE)[1].digests
    return {split for split in before if before[split] != after[split]}


def test_a_row_keeps_its_options_and_its_group(tmp_path):
    splits, _ = load(asked(tmp_path, test=questions(1, group="doc 7")), CHOICE)
    [example] = splits["test"]
    assert (example.options, example.group, example.target) == (("yes", "no", "perhaps"), "doc 7", "yes")
    write_examples(tmp_path, "test", splits["test"])
    assert read_examples(tmp_path, "test") == splits["test"]


def test_groups_enter_what_is_judged_and_not_what_is_trained(tmp_path):
    assert judged_otherwise(lambda row: row | {"group": "one"}, tmp_path) == {"valid", "test"}


def test_other_options_with_the_same_answer_enter_what_is_judged_and_not_what_is_trained(tmp_path):
    def other(row):
        answer = row["choices"][row.pop("answer")]
        return row | {"choices": ["yes", "no", "perhaps", "never"], "output": answer}

    assert judged_otherwise(other, tmp_path) == {"valid", "test"}


def test_listed_options_enter_training_too(tmp_path):
    letter = make_task("choice", {"answer_with": "letter"})
    more = [row | {"choices": ["yes", "no", "perhaps", "never"]} for row in questions(6)]
    one, other = (
        load(given, letter)[1] for given in (asked(tmp_path / "a"), asked(tmp_path / "b", train=more))
    )
    assert one.digests["train"] != other.digests["train"]


def test_wrong_choices_are_told_with_their_line(tmp_path):
    wrong = questions(4)
    wrong[2]["choices"] = ["yes", "no", "no"]
    with pytest.raises(InputError, match=r"train\.jsonl, line 3: the choice 'no' is there twice\."):
        load(asked(tmp_path, train=wrong), CHOICE)


def test_phrases_are_rendered_as_one_text(tmp_path):
    rows = [{"text": "t", "label": ["b", "a"]}]
    splits, _ = load(source(tmp_path, train=rows, valid=rows, test=rows), make_task("keyphrases", {}))
    assert splits["test"][0].target == "b; a"


# rows of the published sets that hold one choice twice, or a phrase with a semicolon
TWICE = {
    "de": [("train.jsonl", 301)],
    "en": [("train.jsonl", 1458), ("train.jsonl", 2566)],
    "fr": [("train.jsonl", 88)],
    "ja": [("test.jsonl", 897)],
    "zh": [],
}


@pytest.mark.parametrize("language", TWICE)
def test_the_real_questions_load_but_for_rows_with_a_choice_twice(shared, language):
    folder = shared / "data" / "commonsense" / "mixed" / language
    given = Source(language, files=split_files(folder))
    try:
        load(given, CHOICE)
        told = []
    except InputError as error:
        told = [str(problem) for problem in error.problems()]
    assert [sentence.split(": ")[0] for sentence in told] == [
        f"{folder / name}, line {line}" for name, line in TWICE[language]
    ]
    assert all("is there twice." in sentence for sentence in told)
    ids = {
        json.loads((folder / name).read_text("utf-8").splitlines()[line - 1])["id"]
        for name, line in TWICE[language]
    }
    without = replace(given, forgotten=tuple(Forgotten(hash_of(name), None) for name in sorted(ids)))
    splits, summary = load(without, CHOICE)
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in folder.glob("*.jsonl"))
    assert sum(summary.rows.values()) == lines - len(ids)
    assert all(example.target in example.options for examples in splits.values() for example in examples)


def test_the_real_keyphrases_load_but_for_one_row(shared):
    refused = []
    for folder in sorted((shared / "data" / "keyphrases").glob("*/*")):
        try:
            load(Source(folder.name, files=split_files(folder)), make_task("keyphrases", {}))
        except InputError as error:
            refused += [(folder.parent.name, folder.name, problem) for problem in error.problems()]
    [(name, language, problem)] = refused
    assert (name, language, problem.where.rpartition("/")[2]) == ("papers", "en", "test.jsonl, line 1")
    assert "the phrase '(0;1)-matrices' holds a semicolon" in str(problem)
