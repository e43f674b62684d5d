"""Estimating from end to end, on one small project: before its first run, with a release, with labels, over time."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import sabir
from sabir.errors import InputError
from sabir.estimate.estimators import ESTIMATORS
from sabir.estimate.evidence import Evidence, Segment
from sabir.estimate.labels import ENOUGH
from sabir.project.asking import answered, asking, labelled_evidence, texts_of
from sabir.project.estimating import MARGIN, _with_labels
from sabir.project.history import History
from sabir.project.running import Hand
from small_project import LABELS, WORDS, settings, write_config, write_rows

INLINE = ["run.backend=inline"]
LANGUAGES = ("en", "de", "fr")
DOMAINS = ("books", "news")
OF_A_ROW = {
    *("language", "domain", "window", "estimator", "error", "low", "high", "level", "n", "n_labelled"),
    *("budget", "alarm", "flags"),
}
OF_ADVICE = {"action", "language", "p_over_budget", "expected_gain", "estimated_usd", "why"}
CALIBRATED = "calibrated-disagreement"


def labelled(language, split, count, *, wrong=False):
    """Rows of both labels in both domains; `wrong`: each with the other label."""
    return [
        {
            "input": f"{WORDS[language][i % 2]} {split} {i}",
            "output": LABELS[(i + wrong) % 2],
            "domain": DOMAINS[i // 2 % 2],
        }
        for i in range(count)
    ]


def texts(language, tag, count, **more):
    """As production has them; the gold answer of the i-th is LABELS[i % 2]."""
    words = WORDS.get(language, WORDS["en"])
    return [
        {
            "id": f"{language}-{tag}{i}",
            "input": f"{words[i % 2]} {tag} {i}",
            "language": language,
            "domain": DOMAINS[i // 2 % 2],
            **more,
        }
        for i in range(count)
    ]


def by_place(document):
    return {(row["language"], row["domain"]): row for row in document["estimates"]}


def made_by(store, before):
    """Kinds of the steps that were done since."""
    return {store.record(one)["kind"] for one in store.fingerprints() - before}


def refused(project, path, **given):
    with pytest.raises(InputError) as caught:
        project.estimate(path, **given)
    return str(caught.value)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Estimates before and after a run, a release, a poisoned update, and a backtest; each document by its scene."""
    folder = tmp_path_factory.mktemp("estimating")
    for language in LANGUAGES:
        for split, count in (("train", 24), ("valid", 4), ("test", 24)):
            write_rows(folder / f"data/{language}/{split}.jsonl", labelled(language, split, count))
    known = labelled("de", "train", 24)[:2]
    write_rows(folder / "data/de/test.jsonl", [*labelled("de", "test", 24), *known])
    lora = {"rank": 4, "epochs": 6, "max_length": 64, "batch_size": 8, "learning_rate": 3e-3}
    given = settings(LANGUAGES, baseline="none", lora=lora)
    config = write_config(folder, given)

    def project(*overrides):
        return sabir.Project(config, overrides=[*INLINE, *overrides])

    scenes = SimpleNamespace(folder=folder, project=project, store=project().store, warned=[])
    scenes.history = History(scenes.store.path, "sabir.yaml")
    first, later = {"time": "2026-11-10"}, {"time": "2026-11-17"}
    odd = [{"id": "odd", "input": "wo", "language": "de", "domain": "rare", **first}]
    rows = [
        *(row for one in LANGUAGES for row in texts(one, "first", 48, **first)),
        *texts("it", "first", 4, **first),
        *odd,
    ]
    scenes.texts = folder / "first.jsonl"
    write_rows(scenes.texts, rows)
    scenes.later = folder / "later.jsonl"
    write_rows(scenes.later, [row for one in LANGUAGES for row in texts(one, "later", 20, **later)])

    scenes.too_early = refused(project(), scenes.texts)
    scenes.own_too_early = refused(project(), scenes.texts, model="own")
    scenes.setup = project().run()
    scenes.selected = project().estimate(scenes.texts, warn=scenes.warned.append)
    scenes.own = project().estimate(scenes.texts, model="own")
    scenes.reference = reference_of(project())

    scenes.promoted = project().promote(accept=["all"])
    scenes.released = project().estimate(scenes.texts)
    scenes.streams, scenes.by_week = [], []
    for path in (scenes.texts, scenes.texts, scenes.later):
        scenes.by_week.append(project().estimate(path, window="week"))
        scenes.streams.append(scenes.history.entries()[-1].streams)

    scenes.to_label = folder / "to-label.jsonl"
    project().estimate(scenes.texts, choose=30, out=scenes.to_label)
    scenes.chosen = [json.loads(line) for line in scenes.to_label.read_text(encoding="utf-8").splitlines()]
    filled = folder / "filled.jsonl"
    write_rows(filled, [{**row, "output": gold(row["id"])} for row in scenes.chosen if row["id"] != "odd"])
    scenes.filled = project().estimate(scenes.texts, labels=filled)
    scenes.some = some = folder / "some.jsonl"
    write_rows(some, some_labels())
    scenes.labelled = project().estimate(scenes.texts, labels=some)
    scenes.answers = [row["prediction"] for row in project().predict([row["input"] for row in fr_books()])]
    scenes.macro = project().estimate(scenes.texts, labels=some, estimator="cbpe-macro-f1")

    write_rows(folder / "data/fr/train.jsonl", labelled("fr", "train", 24, wrong=True))
    before = scenes.store.fingerprints()
    scenes.changed = project().estimate(scenes.texts)
    scenes.made_after_change = made_by(scenes.store, before)
    scenes.not_yet = [refused(project(), scenes.texts, model=one) for one in ("own", "merged/ties")]
    judge = project("estimate.judge=adapter/<language>", "estimate.estimator=silver")
    scenes.judge_not_yet = refused(judge, scenes.texts)
    scenes.update = project().run()
    scenes.candidates = {
        one: project().estimate(scenes.texts, model=one) for one in ("merged/average", "merged/ties", "own")
    }
    before = scenes.store.fingerprints()
    scenes.still_in_use = project().estimate(scenes.texts)
    scenes.made_while_in_use = made_by(scenes.store, before)

    scenes.unchosen = scenes.history.chosen()
    project().backtest(model="own")
    project().backtest(members=["adapters"])
    scenes.still_unchosen = scenes.history.chosen()
    scenes.backtest = project().backtest()
    scenes.choice = scenes.history.chosen()
    scenes.by_choice = project().estimate(scenes.texts)
    scenes.by_hand = project().estimate(scenes.texts, estimator=CALIBRATED, members="adapters")
    scenes.by_config = project("estimate.estimator=doc").estimate(scenes.texts)
    return scenes


def reference_of(project):
    """Ids of the labelled rows that estimates stand on, by language, and of all test rows that were trained on."""
    who = asking(project._standing(project.config, with_base=True), model=None, kinds={"all"}, judged=False)
    graph = answered(who, {}, hand=Hand())
    found = labelled_evidence(who, graph)
    languages = np.array([one.language for one in found.segments])[found.segment]
    keys = {language: {*found.keys[languages == language]} for language in LANGUAGES}
    rows = texts_of(who, graph, LANGUAGES, split="test")
    return keys, {one: {row.id: row.prompt.source for of, row in rows if of == one} for one in LANGUAGES}


def gold(identity):
    return LABELS[int(identity.rpartition("first")[2]) % 2]


def fr_books():
    return [row for row in texts("fr", "first", 48) if row["domain"] == "books"]


def some_labels():
    """All 24 of fr/books, a quarter of them not what the text says; 19 of fr/news."""
    news = [row for row in texts("fr", "first", 48) if row["domain"] == "news"]
    wrong = {
        row["id"] for row in fr_books()[:12:2]
    }  # all of one label: macro F1 is another number than accuracy
    other = dict(zip(LABELS, reversed(LABELS), strict=True))
    return [
        {"id": row["id"], "output": other[gold(row["id"])] if row["id"] in wrong else gold(row["id"])}
        for row in [*fr_books(), *news[:19]]
    ]


def test_the_document_has_the_fields_of_the_contract(story):
    for document in (story.selected, story.released, story.labelled, story.candidates["own"]):
        assert {"release", "estimates", "advice"} <= {*document}
        assert all({*row} >= OF_A_ROW for row in document["estimates"])
        assert all({*row} >= OF_ADVICE for row in document["advice"])
        assert {row["action"] for row in document["advice"]} <= {"retrain", "label", "wait"}
        json.dumps(document, allow_nan=False)


def test_each_language_and_domain_is_estimated_by_itself(story):
    sizes = {place: row["n"] for place, row in by_place(story.selected).items()}
    expected = {(language, domain): 24 for language in LANGUAGES for domain in DOMAINS}
    assert sizes == {**expected, ("it", "books"): 2, ("it", "news"): 2, ("de", "rare"): 1}


def test_a_segment_of_one_text_is_estimated_and_marked(story):
    row = by_place(story.selected)["de", "rare"]
    assert 0 <= row["error"] <= 1
    assert any(flag.startswith("small: 1 text") for flag in row["flags"])
    assert any(flag.startswith("unseen domain") for flag in row["flags"])


def test_without_a_release_it_is_the_selected_merge(story):
    assert story.selected["release"] is None
    assert story.selected["model"] == story.setup["selected"]


def test_before_the_first_run_there_is_nothing_to_estimate(story):
    for said in (story.too_early, story.own_too_early):
        assert "sabir run" in said, "it trains nothing to find out"


def test_a_language_that_no_adapter_was_trained_on_is_flagged_and_said(story):
    rows = by_place(story.selected)
    for domain in DOMAINS:
        assert any(flag.startswith("unseen language") for flag in rows["it", domain]["flags"])
        assert not any(flag.startswith("unseen language") for flag in rows["de", domain]["flags"])
    [said] = [warning for warning in story.warned if "'it'" in warning]
    assert "no adapter was trained on" in said
    assert said in story.selected["warnings"]


def test_own_adapters_answer_their_own_languages_and_the_rest_is_said_to_be_left_out(story):
    assert story.own["model"] == "adapter/<language>"
    assert {row["language"] for row in story.own["estimates"]} == {*LANGUAGES}
    assert any("answers nothing in 'it'" in warning for warning in story.own["warnings"])


def test_the_reference_is_the_test_rows_but_for_those_that_were_trained_on(story):
    test_rows = {language: {*story.reference[1][language]} for language in LANGUAGES}
    assert {language: len(rows) for language, rows in test_rows.items()} == {"en": 24, "de": 26, "fr": 24}
    trained = {key for key, source in story.reference[1]["de"].items() if " train " in source}
    assert len(trained) == 2
    assert story.reference[0] == {**test_rows, "de": test_rows["de"] - trained}
    [said] = [one for one in story.selected["warnings"] if one.startswith("data.de: 2 test rows")]
    assert "left out of the reference" in said


def test_a_budget_is_what_the_labelled_rows_had_and_a_little_more_unless_one_is_given(story):
    scores = {
        row["language"]: 1 - row["value"]
        for row in story.setup["scores"]
        if (row["model"], row["split"], row["metric"]) == (story.setup["selected"], "test", "accuracy")
    }
    for (language, _), row in by_place(story.selected).items():
        if language in ("en", "fr"):
            assert row["budget"] == pytest.approx(scores[language] + MARGIN)
    given = story.project("estimate.budget={en: 0.3}").estimate(story.texts, model="base")
    assert {row["budget"] for row in given["estimates"] if row["language"] == "en"} == {0.3}


# --- over time -------------------------------------------------------------------------------------------


def test_a_release_is_taken_where_there_is_one(story):
    assert story.released["release"] == story.promoted["release"]
    assert story.released["model"] == story.setup["selected"], "it is the same model, under the same name"


def test_a_week_is_bet_on_once_and_the_next_one_goes_on(story):
    once, twice, on = (
        {(row["language"], row["domain"]): (row["window"], row["after"][0]) for row in streams}
        for streams in story.streams
    )
    places = [(language, domain) for language in LANGUAGES for domain in DOMAINS]
    assert once == twice
    assert {once[place] for place in places} == {("2026-W46", 1)}
    assert {on[place] for place in places} == {("2026-W47", 2)}


def test_weeks_before_are_the_history_of_the_model_in_use_and_nothing_stands_there_twice(story):
    first, again, later = ([row["window"] for row in document["history"]] for document in story.by_week)
    assert first == again == [], "the same texts and model, and of other models none that was released"
    assert set(later) == {"2026-W46"}
    assert len(later) == len(story.by_week[0]["estimates"])
    assert {row["window"] for row in story.by_week[2]["estimates"]} == {"2026-W47"}
    assert {row["model"] for row in story.by_week[2]["history"]} == {story.setup["selected"]}


# --- labels ----------------------------------------------------------------------------------------------


def test_texts_to_label_are_written_with_their_probabilities_and_read_again(story):
    assert len({row["id"] for row in story.chosen}) == 30
    assert all(0 < row["inclusion"] <= 1 and row["output"] == "" for row in story.chosen)
    assert {"en", "de", "fr"} <= {row["language"] for row in story.chosen}
    filled = sum(row["id"] != "odd" for row in story.chosen)
    assert sum(row["n_labelled"] for row in story.filled["estimates"]) == filled


def test_twenty_labels_replace_the_estimate_and_nineteen_do_not(story):
    rows = by_place(story.labelled)
    books, news = rows["fr", "books"], rows["fr", "news"]
    assert (books["estimator"], books["n_labelled"]) == ("ppi", 24)
    truth = [row["output"] for row in some_labels()[:24]]
    wrong = np.mean([said != target for said, target in zip(story.answers, truth, strict=True)])
    assert books["error"] == pytest.approx(wrong), "every text of it is labelled"
    assert books["low"] < books["error"] < books["high"]
    assert (news["estimator"], news["n_labelled"]) == (CALIBRATED, 19)
    assert news["error"] == by_place(story.released)["fr", "news"]["error"]
    assert rows["en", "books"] == by_place(story.released)["en", "books"], "labels elsewhere change nothing"


def test_a_labelled_segment_is_alarming_by_its_labels(story):
    """A quarter of 24 labels say wrong."""
    alarms = {}
    for budget in (0.01, 0.2):
        document = story.project(f"estimate.budget={budget}").estimate(story.texts, labels=story.some)
        alarms[budget] = by_place(document)["fr", "books"]["alarm"]
    assert alarms == {0.01: True, 0.2: False}


def test_macro_f1_is_never_replaced_by_the_mean_error_nor_by_labels_too_few_for_an_interval(story):
    rows = by_place(story.macro)
    assert rows["fr", "books"]["n_labelled"] < 50
    assert {row["estimator"] for row in rows.values()} == {"cbpe-macro-f1"}
    assert rows["fr", "books"]["error"] != by_place(story.labelled)["fr", "books"]["error"]


def test_an_estimator_that_lives_on_labels_is_refused_without(story):
    said = refused(story.project(), story.texts, estimator="ppi")
    assert said.startswith("--estimator: ppi needs labels")


# --- a release, and data that changed --------------------------------------------------------------------


def test_where_data_changed_the_release_goes_on_and_nothing_is_trained(story):
    assert story.changed["release"] == "1"
    assert story.changed["model"] == "release/1"
    assert {"release/1/<language>", "release/1/fr"} <= {*story.changed["members"]["names"]}
    assert {"adapter/en", "adapter/de"} <= {*story.changed["members"]["names"]}, "these did not change"
    assert story.made_after_change <= {"outputs", "production", "data"}
    [said] = [one for one in story.changed["warnings"] if one.startswith("members that are not there")]
    assert "merged/average" in said
    assert "merged/ties" in said


def test_the_same_release_is_the_same_model_whatever_it_is_called(story):
    of_release = {one.model: one.fingerprint for one in story.history.entries() if one.release == "1"}
    assert {"release/1", story.setup["selected"]} <= {*of_release}
    assert len({*of_release.values()}) == 1


def test_what_is_not_trained_yet_is_not_asked(story):
    own, merged = story.not_yet
    assert own.startswith("--model: adapter/fr is not there yet.")
    assert merged.startswith("--model: merged/ties is not there yet.")
    assert story.judge_not_yet.startswith("estimate.judge.model: adapter/fr is not there yet.")


def fell(story, model, language):
    """Whether a candidate is worse on the labelled rows of a language than what was promoted."""
    key = ("test", "accuracy", language)
    now, before = (
        next(
            row["value"]
            for row in document["scores"]
            if (row["split"], row["metric"], row["language"]) == key and row["model"] == name
        )
        for document, name in ((story.update, model), (story.setup, story.setup["selected"]))
    )
    return now < before


@pytest.mark.parametrize("candidate", ["merged/average", "merged/ties", "own"])
def test_of_a_candidate_the_language_whose_adapter_was_poisoned_is_named(story, candidate):
    document = story.candidates[candidate]
    assert document["release"] is None
    rows = by_place(document)
    for domain in DOMAINS:
        fr = rows["fr", domain]
        assert fr["rise"] > 0.5
        assert fr["drift_p"] < 0.01
        assert any(flag.startswith("worse: by") for flag in fr["flags"])
        for language in ("en", "de"):
            flags = [flag for flag in rows[language, domain]["flags"] if flag.startswith("worse")]
            assert not flags or fell(story, candidate, language), (
                "the merge of a poisoned adapter may harm others"
            )
            assert (rows[language, domain]["rise"] or 0.0) < fr["rise"]


def test_the_model_in_use_stays_the_release_until_another_is_promoted(story):
    assert story.still_in_use["release"] == "1"
    assert story.made_while_in_use <= {"outputs"}
    assert {row["rise"] for row in story.still_in_use["estimates"]} == {None}


# --- the backtest ----------------------------------------------------------------------------------------


def test_a_backtest_of_the_model_in_use_chooses_and_others_do_not(story):
    assert story.unchosen == story.still_unchosen == {}
    best = story.backtest["best"]
    assert story.choice == {"estimator": best["estimator"], "members": best["members"] or "all"}


def test_what_a_backtest_chose_is_used_unless_something_else_is_asked_for(story):
    assert story.by_choice["estimator"] == story.choice["estimator"]
    assert story.by_choice["members"]["kind"] == story.choice["members"]
    assert story.by_hand["estimator"] == CALIBRATED
    assert story.by_hand["members"]["kind"] == "adapters"
    assert story.by_config["estimator"] == "doc"


def test_a_backtest_judges_every_estimator_that_fits(story):
    judged = {row["estimator"] for row in story.backtest["summary"]}
    assert {"constant", CALIBRATED, "disagreement", "cbpe", "atc", "doc"} <= judged
    assert {row["language"] for row in story.backtest["segments"]} == {*LANGUAGES}


# --- labels in plenty ------------------------------------------------------------------------------------


def evidence(*parts, seed=0):
    """Segments given as (segment, texts, labelled ones, error at no and at full disagreement); two members."""
    rng = np.random.default_rng(seed)
    names, places, agreement, error = [], [], [], []
    for place, (segment, count, known, errors) in enumerate(parts):
        apart = rng.random(count) < 0.4
        wrong = (rng.random(count) < np.where(apart, errors[1], errors[0])).astype(float)
        wrong[known:] = np.nan
        names.append(segment)
        places += [place] * count
        agreement += [np.where(apart, 0.0, 1.0)] * 1
        error.append(wrong)
    column = np.concatenate(agreement)
    return Evidence(
        tuple(names),
        np.array(places),
        agreement=np.stack([column, column], axis=1),
        error=np.concatenate(error),
        keys=np.array([str(i) for i in range(len(places))], dtype=object),
    )


WEEKS = Segment("l0", "", "2026-W46"), Segment("l0", "", "2026-W47")
USUAL, GONE_BAD = (0.02, 0.2), (0.05, 0.8)


def estimated(count):
    """With so many labels in one of two weeks that both went bad; the other has none."""
    reference = evidence(*((Segment(f"l{i}"), 150, 150, USUAL) for i in range(6)))
    asked = evidence(
        (Segment("l0", "", "2026-W46"), 2000, count, GONE_BAD),
        (Segment("l0", "", "2026-W47"), 2000, 0, GONE_BAD),
        seed=1,
    )
    return _with_labels(ESTIMATORS.get(CALIBRATED), reference, asked, 0.9)


def test_many_labels_say_whether_numbers_without_labels_may_be_trusted():
    books, _ = estimated(ENOUGH)
    assert any(flag.startswith("not to be trusted without labels") for flag in books.flags)
    books, _ = estimated(ENOUGH - 1)
    assert not any(flag.startswith("not to be trusted") for flag in books.flags)


def test_many_labels_in_one_segment_teach_the_estimates_of_the_others():
    true = mean_error(GONE_BAD)
    _, untaught = estimated(ENOUGH - 1)
    _, taught = estimated(ENOUGH)
    assert untaught.n_labelled == taught.n_labelled == 0
    assert untaught.error < true - 0.15, "nothing on the labelled rows is as wrong"
    assert abs(taught.error - true) < 0.5 * abs(untaught.error - true)
    assert "7 labelled segments" in taught.how
    assert "6 labelled segments" in untaught.how


def test_what_labels_teach_does_not_depend_on_how_they_were_chosen():
    """Doubtful texts were chosen nine times as often; each label stands for what it was chosen from."""
    reference = evidence(*((Segment(f"l{i}"), 150, 150, USUAL) for i in range(6)))
    asked = evidence((WEEKS[0], 40000, 40000, GONE_BAD), (WEEKS[1], 2000, 0, GONE_BAD))
    inclusion = np.where(asked.agreement[:, 0] == 0, 0.09, 0.01)
    known = np.random.default_rng(2).random(len(asked)) < inclusion
    chosen = replace(asked, error=np.where(known, asked.error, np.nan), inclusion=inclusion)
    labels = chosen.labelled.sum()
    for name in (CALIBRATED, "constant"):
        _, later = _with_labels(ESTIMATORS.get(name), reference, chosen, 0.9)
        # as far as the labels outnumber the language's 150 older ones
        pooled = (150 * mean_error(USUAL) + labels * mean_error(GONE_BAD)) / (150 + labels)
        assert later.error == pytest.approx(pooled, abs=0.04)


def mean_error(errors):
    return 0.6 * errors[0] + 0.4 * errors[1]
