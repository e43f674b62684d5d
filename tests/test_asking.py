"""Who is asked beside a model: every kind of member really answers, judges and files are refused where they cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import sabir
from sabir.config import load_config
from sabir.engine.store import Store
from sabir.errors import InputError
from sabir.lock import Hold
from sabir.names import OWN
from sabir.plan import Member
from sabir.plan import asked as asked_graph
from sabir.plan.ensemble import free_members
from sabir.plan.steps import Steps
from sabir.project.asking import answered, asking, labelled_evidence
from sabir.project.running import Hand
from sabir.project.standing import Standing
from small_project import LABELS, WORDS, planned, settings, write_config, write_project, write_rows
from work.stand_in import Server

LANGUAGES = ("en", "de")
LORA = {"rank": 4, "epochs": 2, "max_length": 64, "batch_size": 8, "learning_rate": 3e-3}
MERGES = {"average": {"method": "linear"}, "dare": {"method": "dare_ties", "density": 0.5}}
KEEPING = "ensemble.free=[own,adapters,merges,masks,checkpoints]"
PROMPTED = ("ensemble.prompts=[zero-shot,few-shot]", "ensemble.shots=1", "ensemble.masks=1")


def labelled(language, split, count, tag=""):
    """Rows whose ids are the same in both languages, as those of parallel texts are."""
    return [
        {
            "id": f"{split}{i}",
            "input": f"{WORDS[language][i % 2]} {split} {i}{tag}",
            "output": LABELS[i % 2],
        }
        for i in range(count)
    ]


def texts(language, count):
    words = WORDS.get(language, ("il pacco è in ritardo", "la carta è rifiutata"))
    return [{"id": f"new{i}", "input": f"{words[i % 2]} new {i}", "language": language} for i in range(count)]


def answers(right=lambda i: True, languages=(*LANGUAGES, "it")):
    """What a member from elsewhere says to every row of the project."""
    ids = [f"test{i}" for i in range(10)] + [f"new{i}" for i in range(12)]
    return [
        {"id": one, "prediction": LABELS[i % 2 if right(i) else 1 - i % 2], "language": language}
        for language in languages
        for i, one in enumerate(ids)
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two languages: run without checkpoints, and again on other rows with them; asked with everyone there is."""
    folder = tmp_path_factory.mktemp("asking")
    for language in LANGUAGES:
        for split, count in (("train", 16), ("valid", 4), ("test", 10)):
            write_rows(folder / f"data/{language}/{split}.jsonl", labelled(language, split, count))
    config = write_config(folder, settings(LANGUAGES, baseline="none", lora=LORA, merges=MERGES))
    write_rows(folder / "texts.jsonl", [row for one in (*LANGUAGES, "it") for row in texts(one, 12)])

    def project(*overrides):
        return sabir.Project(config, overrides=["run.backend=inline", *overrides])

    def member_file(name, rows):
        write_rows(folder / f"{name}.jsonl", rows)
        return f"ensemble.files={{{', '.join(f'{one}: {folder / one}.jsonl' for one in [name])}}}"

    made = SimpleNamespace(folder=folder, texts=folder / "texts.jsonl", project=project, file=member_file)
    project().run()
    made.none_kept = who(project("ensemble.free=[checkpoints,own]"))
    made.only_checkpoints = refused(project("ensemble.free=[checkpoints]"), made.texts)
    for language in LANGUAGES:
        write_rows(folder / f"data/{language}/train.jsonl", labelled(language, "train", 16, "!"))
    project(KEEPING).run()
    mine = member_file("mine", answers())
    made.everyone = project(KEEPING, *PROMPTED, "ensemble.seeds=1", mine)
    made.document = made.everyone.estimate(made.texts)
    made.halves = project("ensemble.free=[own]", "ensemble.seeds=2", "ensemble.data=halves")
    made.of_halves = made.halves.estimate(made.texts)
    return made


def who(project, **given):
    standing = Standing(project.config, project.store, with_base=True)
    return asking(standing, **{"model": None, "kinds": {"all"}, "judged": False, **given})


def refused(project, path, **given):
    with pytest.raises(InputError) as caught:
        project.estimate(path, **given)
    return str(caught.value)


def columns(project):
    """(languages,) of the labelled rows, and by name how far each member agrees with the model on each."""
    asked = who(project)
    found = labelled_evidence(asked, answered(asked, {}, hand=Hand()))
    languages = np.array([one.language for one in found.segments])[found.segment]
    return languages, dict(zip(asked.names(), found.agreement.T, strict=True))


def by_language(document):
    return {row["language"]: row for row in document["estimates"]}


# --- every kind of member --------------------------------------------------------------------------------

EVERYONE = {
    "own": [OWN],
    "adapters": ["adapter/en", "adapter/de"],
    "masks": ["merged/dare[mask=1]"],
    "checkpoints": [f"{OWN}[epoch=1]"],
    "seeds": [f"{OWN}#2"],
    "prompts": ["base", "base[shots=1]"],
    "files": ["file/mine"],
}


def test_every_kind_of_member_there_is_answers(small):
    asked = who(small.everyone)
    assert {kind: asked.names(kind) for kind in EVERYONE} == EVERYONE
    [merge] = asked.names("merges")
    assert {merge, asked.model.name} == {"merged/average", "merged/dare"}, "the other one is the model"
    assert small.document["members"] == {"kind": "all", "names": asked.names(), "n": len(asked.members)}
    languages, found = columns(small.everyone)
    for name, agreement in found.items():
        if name not in ("adapter/en", "adapter/de"):
            assert not np.isnan(agreement).any(), name
    for language in LANGUAGES:  # the adapter of one language is its own adapter: that one has said it
        assert set(languages[np.isnan(found[f"adapter/{language}"])]) == {language}


def test_halves_are_trained_on_half_of_the_rows_each_and_answer(small):
    names = [f"{OWN}[half=1]", f"{OWN}[half=2]"]
    assert small.of_halves["members"]["names"] == [OWN, *names]
    _, found = columns(small.halves)
    assert not any(np.isnan(found[name]).any() for name in names)
    records = (small.halves.store.record(one) for one in small.halves.store.fingerprints())
    rows = {
        one["name"]: one["result"]["rows"]
        for one in records
        if "half=" in one["name"] and one["kind"] == "adapter"
    }
    assert set(rows) == {f"adapter/{one}[half={half}]" for one in LANGUAGES for half in (1, 2)}
    assert all(rows[f"adapter/{one}[half=1]"] + rows[f"adapter/{one}[half=2]"] == 16 for one in LANGUAGES)


def test_another_seed_is_another_adapter_of_the_same_rows(small):
    records = [small.halves.store.record(one) for one in small.halves.store.fingerprints()]
    first, second = (
        {one["fingerprint"] for one in records if one["name"] == name}
        for name in ("adapter/en", "adapter/en#2")
    )
    assert second
    assert not first & second


def test_checkpoints_are_refused_where_the_training_kept_none(small):
    assert small.none_kept.names() == [OWN]
    [said] = small.none_kept.missing
    assert said.startswith(f"members that are not there: {OWN}[epoch=1]. Trainings keep them from then on")
    assert "nobody answers beside" in small.only_checkpoints
    assert said in small.only_checkpoints


def test_a_language_of_fewer_epochs_has_fewer_checkpoints_and_they_say_nothing_there(tmp_path):
    data = {"en": "data/en", "de": {"folder": "data/de", "lora": {"epochs": 3}}}
    config = write_project(tmp_path, LANGUAGES, data=data, lora=LORA, ensemble={"free": ["checkpoints"]})
    plan, facts = planned(config)
    make = Steps(load_config(config), facts)
    members = free_members(make, {})
    assert [one.name for one in members] == [f"{OWN}[epoch=1]", f"{OWN}[epoch=2]"]
    graph = asked_graph(make, plan.graph, members, production={}, reference=LANGUAGES)
    of_two = {f"outputs/adapter/{one}[epoch=2]/{one}/test" in graph for one in LANGUAGES}
    assert of_two == {True, False}
    assert "outputs/adapter/de[epoch=2]/de/test" in graph


def test_the_adapter_of_a_language_that_is_held_answers_for_its_release(tmp_path):
    """Every training of a held language is one and the same, but what a release has of it is its own."""
    config = write_project(tmp_path, LANGUAGES)
    plan, facts = planned(config)
    held = replace(facts, holds={"de": Hold("1", "f" * 64, "r")})
    make = Steps(load_config(config), held)
    step = replace(plan.graph["adapter/de"], deps={}, pinned="f" * 64)
    steps = tuple(replace(step, name=f"release/1/{one}") for one in LANGUAGES)
    of_release = Member("release/1/<language>", "own", steps)
    graph = asked_graph(make, plan.graph, [of_release], production={}, reference=LANGUAGES)
    assert all(f"outputs/release/1/{one}/{one}/test" in graph for one in LANGUAGES)


def test_own_adapters_say_nothing_in_a_language_that_has_none(small):
    project = small.project("ensemble.free=[own]")
    said = by_language(project.estimate(small.texts))["it"]
    assert said["error"] is None
    assert any(flag.startswith("no answers") for flag in said["flags"])
    assert by_language(small.document)["it"]["error"] is not None, "others do"


def test_one_member_is_marked(small):
    flags = by_language(small.project("ensemble.free=[own]").estimate(small.texts))["de"]["flags"]
    assert any(flag.startswith("one member") for flag in flags)
    assert not any(flag.startswith("one member") for flag in by_language(small.document)["de"]["flags"])


def test_nobody_beside_the_model_is_refused_and_an_estimator_without_members_is_not(small):
    alone = small.project("ensemble.free=[]")
    assert refused(alone, small.texts).startswith("ensemble: nobody answers beside merged/")
    document = alone.estimate(small.texts, estimator="doc")
    assert document["members"]["n"] == 0
    assert by_language(document)["de"]["error"] is not None


def test_a_kind_that_nobody_knows_is_refused(small):
    assert "Did you mean 'adapters'?" in refused(small.project(), small.texts, members="adapter")


# --- files -----------------------------------------------------------------------------------------------


def of_files(small, **rows):
    paths = {}
    for name, given in rows.items():
        write_rows(small.folder / f"{name}.jsonl", given)
        paths[name] = str(small.folder / f"{name}.jsonl")
    return small.project("ensemble.free=[]", f"ensemble.files={json.dumps(paths)}")


def test_answers_from_elsewhere_are_held_against_the_rows_of_their_language(small):
    wrong_in_german = [*answers(languages=["en", "it"]), *answers(lambda i: False, languages=["de"])]
    project = of_files(small, one=answers(), other=wrong_in_german)
    languages, found = columns(project)
    one, other = found["file/one"], found["file/other"]
    assert (one[languages == "en"] == other[languages == "en"]).all()
    assert (one[languages == "de"] == 1 - other[languages == "de"]).all()


def test_members_that_all_say_the_same_are_marked(small):
    flags = by_language(of_files(small, a=answers(), b=answers()).estimate(small.texts))["de"]["flags"]
    assert any(flag.startswith("members all say the same") for flag in flags)


def test_a_file_that_lacks_a_row_is_refused(small):
    rows = [row for row in answers() if (row["id"], row["language"]) != ("new3", "de")]
    said = refused(of_files(small, short=rows), small.texts)
    assert said.endswith(
        "1 row is missing of de, the first 'new3'. A member answers every test row and every text."
    )


# --- judges ----------------------------------------------------------------------------------------------


def judged_by(small, judge, estimator="silver"):
    return small.project(f"estimate.judge={json.dumps(judge)}", f"estimate.estimator={estimator}")


@pytest.fixture
def believed(monkeypatch):
    """Judges of a project this small are at chance, and would be refused."""
    monkeypatch.setattr("sabir.estimate.estimators.silver.judge_of", lambda reference: None)


def test_silver_labels_are_the_share_of_answers_that_are_the_judges(small, believed):
    project = judged_by(small, "base")
    document = project.estimate(small.texts)
    said = {}
    for path in (project.store.path / "steps").glob("*/record.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["name"].endswith("/production"):
            rows = map(json.loads, (path.parent / "outputs.jsonl").read_text(encoding="utf-8").splitlines())
            if record["kind"] == "outputs":
                said.setdefault(record["name"], []).append({row["id"]: row["prediction"] for row in rows})
    for language in (*LANGUAGES, "it"):
        [judge], [model] = (
            said[f"outputs/{name}/{language}/production"] for name in ("base", document["model"])
        )
        apart = np.mean([judge[key] != model[key] for key in model])
        assert by_language(document)[language]["error"] == pytest.approx(apart)


def test_a_judge_that_has_nothing_to_say_in_one_language_judges_the_others(small, believed):
    rows = by_language(judged_by(small, OWN).estimate(small.texts))
    assert rows["it"]["error"] is None
    assert all(rows[language]["error"] is not None for language in LANGUAGES)


def test_a_judge_that_is_the_model_itself_is_refused(small):
    model = small.document["model"]
    said = refused(judged_by(small, model), small.texts)
    assert said.startswith(f"estimate.judge.model: {model} is the model that is asked about")


def test_a_judge_that_is_not_there_is_refused(small):
    assert "Did you mean 'merged/average'?" in refused(judged_by(small, "merged/averag"), small.texts)
    said = refused(small.project("estimate.estimator=silver"), small.texts)
    assert said.startswith("estimate.judge: silver needs a judge.")


@pytest.fixture
def server():
    one = Server(lambda server, text, nth: LABELS[nth % 2])
    yield one
    one.close()


def test_an_endpoint_is_asked_for_leave_with_the_number_of_questions_and_their_price(small, server):
    prices = {"usd_per_million_input": 200.0, "usd_per_million_output": 200.0}
    judge = {"model": "big", "endpoint": server.url, "max_usd": 5.0, **prices}
    project = judged_by(small, judge)
    asked = []
    with pytest.raises(InputError) as caught:
        project.estimate(small.texts, agree=lambda question: asked.append(question))
    [question] = asked
    rows = 2 * 10 + 3 * 12
    assert question.startswith(f"big would be asked {rows} questions, for about 0.")
    assert question in str(caught.value)
    assert "--yes" in str(caught.value)
    assert server.asked == []
    cheap = judged_by(small, {**judge, "max_usd": 0.01})
    assert "estimate.judge.max_usd: is 0.01 USD" in refused(cheap, small.texts, agree=lambda _: True)
    assert server.asked == [], "whoever agrees: that is above the limit"

    document = project.estimate(small.texts, agree=lambda _: True)
    assert len(server.asked) == rows
    assert by_language(document)["de"]["estimator"] == "silver"

    def nobody_asks(question):
        raise AssertionError(question)

    again = project.estimate(small.texts, agree=nobody_asks)
    assert len(server.asked) == rows, "what was answered is kept"
    assert [row["error"] for row in again["estimates"]] == [row["error"] for row in document["estimates"]]


def test_an_endpoint_without_a_price_is_not_asked(small, server):
    project = judged_by(small, {"model": "unpriced", "endpoint": server.url})
    assert "nobody could say what asking costs" in refused(project, small.texts)
    assert server.asked == []


# --- models ----------------------------------------------------------------------------------------------


def test_models_that_cannot_be_asked_are_refused(small):
    assert "Did you mean 'merged/average'?" in refused(small.project(), small.texts, model="merged/averge")
    assert "Write own" in refused(small.project(), small.texts, model="adapter/de")


def test_a_training_of_the_plan_is_no_member_before_it_is_done(tmp_path):
    """A project that trains everything twice has the second training anyway; to estimate does not make it."""
    config = write_project(tmp_path, LANGUAGES, seeds=2, baseline="none")
    project = sabir.Project(config, overrides=["run.backend=inline"])
    asked = who(project, model="base", kinds={"seeds"})
    assert asked.names() == []
    assert f"{OWN}#2" in asked.missing[0]
    assert Store(project.store.path).fingerprints() == set()


def test_texts_are_judged_by_estimators_that_can(tmp_path):
    """Keyphrases: nobody asks for probabilities of labels, or for a confusion of them."""
    for language in LANGUAGES:
        for split, count in (("train", 4), ("valid", 2), ("test", 4)):
            write_rows(tmp_path / f"data/{language}/{split}.jsonl", labelled(language, split, count))
    lora = {"rank": 2, "epochs": 1, "max_length": 48, "batch_size": 4}
    task = {"name": "keyphrases", "max_new_tokens": 3}  # of nonsense: no phrase is right
    merges = {"average": {"method": "linear"}}
    given = settings(LANGUAGES, baseline="none", lora=lora, task=task, merges=merges)
    project = sabir.Project(write_config(tmp_path, given), overrides=["run.backend=inline"])
    project.run()
    document = project.backtest()
    judged = {row["estimator"] for row in document["summary"]}
    assert {"constant", "calibrated-disagreement"} <= judged
    told = " ".join(document["warnings"])
    for name in ("cbpe", "cbpe-macro-f1", "ppi-macro-f1"):
        assert name not in judged
        assert f"{name} was not judged" not in told, "it is not for answers of this kind at all"
    write_rows(tmp_path / "texts.jsonl", [row for one in LANGUAGES for row in texts(one, 3)])
    rows = by_language(project.estimate(tmp_path / "texts.jsonl", estimator="disagreement"))
    assert all(0 <= row["error"] <= 1 for row in rows.values())
    for name in ("cbpe", "confidence", "atc", "doc"):
        said = refused(project, tmp_path / "texts.jsonl", estimator=name)
        assert said.startswith(f"estimate.estimator: {name} is for answers that are label or choice")


def test_without_test_rows_of_its_own_nothing_can_be_judged(tmp_path):
    """All test rows are among the training rows: a sentence, and an estimate that says what it lacks."""
    for language in LANGUAGES:
        for split, count in (("train", 4), ("valid", 2), ("test", 4)):
            write_rows(tmp_path / f"data/{language}/{split}.jsonl", labelled(language, "", count))
    lora = {"rank": 2, "epochs": 1, "max_length": 48, "batch_size": 4}
    given = settings(LANGUAGES, baseline="none", lora=lora, merges={"average": {"method": "linear"}})
    project = sabir.Project(write_config(tmp_path, given), overrides=["run.backend=inline"])
    project.run()
    with pytest.raises(InputError, match="there are no labelled test rows to judge by") as caught:
        project.backtest()
    assert "data.de: 4 test rows are among the training rows" in str(caught.value)
    write_rows(tmp_path / "texts.jsonl", texts("de", 3))
    row = by_language(project.estimate(tmp_path / "texts.jsonl"))["de"]
    assert row["error"] is None
    assert any(flag.startswith("no reference") for flag in row["flags"])
