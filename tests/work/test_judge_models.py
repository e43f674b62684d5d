"""How models are compared and ranked: against the floor, over trainings, over texts that belong together."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sabir.names import MACRO, OWN
from sabir.work.judge import judge
from sabir.work.scores import ROWS

N = 300


def right(share, n=N, seed=0):
    """(n, 1) ones and zeros of a model that is right on about a share of the rows."""
    return (np.random.default_rng(seed).random((n, 1)) < share).astype(float)


def judged(tmp_path, models, *, pairs, keys=None, seeds=1, ranked=None, floor="base", languages=("de", "fr")):
    """The step's result for models given as {name: {language: statistics}}."""
    inputs = {}
    for model, by_language in models.items():
        for language, statistics in by_language.items():
            folder = tmp_path / model.replace("/", "_") / language
            folder.mkdir(parents=True)
            np.save(folder / "accuracy.npy", statistics)
            its_keys = (keys or {}).get(language) or [f"{language}{i}" for i in range(len(statistics))]
            (folder / ROWS).write_text(json.dumps({"keys": its_keys}), encoding="utf-8")
            inputs[f"{model}/{language}"] = folder
    settings = {
        "pairs": pairs,
        "models": list(ranked or ()),
        "floor": floor,
        "languages": list(languages),
        "seeds": seeds,
        "metrics": ["accuracy"],
        "metric": "accuracy",
        "margin": 0.02,
        "level": 0.95,
        "resamples": 300,
        "labels": [],
    }
    work = SimpleNamespace(name="comparisons", settings=settings, args={}, inputs=inputs, out=tmp_path)
    [(_, outcome)] = judge([work])
    json.dumps(outcome, allow_nan=False)
    return outcome["result"]


def by_language(result):
    return {row["language"]: row for row in result["comparisons"]}


def in_both(share, seed=0):
    return {"de": right(share, seed=seed), "fr": right(share, seed=seed + 1)}


def test_two_models_at_chance_are_not_on_par(tmp_path):
    at_chance = in_both(0.5)
    models = {"merged/ties": at_chance, "adapter/combined": at_chance, "base": in_both(0.5, seed=7)}
    rows = by_language(judged(tmp_path, models, pairs=[["merged/ties", "adapter/combined"]]))
    for row in rows.values():
        assert row["difference"] == 0
        assert row["low"] > -row["margin"]  # else there would be nothing to refuse
        assert row["verdict"] == "undecided"
        assert "bare base" in row["why"]


def test_two_models_that_learned_the_task_may_be_on_par(tmp_path):
    learned = in_both(0.9)
    models = {"merged/ties": learned, "adapter/combined": learned, "base": in_both(0.5, seed=7)}
    rows = by_language(judged(tmp_path, models, pairs=[["merged/ties", "adapter/combined"]]))
    assert {row["verdict"] for row in rows.values()} == {"not worse"}
    assert {row["why"] for row in rows.values()} == {None}


def test_parity_is_refused_where_the_rival_is_at_chance_and_only_there(tmp_path):
    same = {"de": right(0.9), "fr": right(0.5)}
    base = {"de": right(0.5, seed=3), "fr": right(0.5, seed=4)}
    models = {"merged/ties": same, "adapter/combined": same, "base": base}
    rows = by_language(judged(tmp_path, models, pairs=[["merged/ties", "adapter/combined"]]))
    assert (rows["de"]["verdict"], rows["fr"]["verdict"]) == ("not worse", "undecided")


def test_better_than_a_rival_at_chance_is_better(tmp_path):
    models = {"merged/ties": in_both(0.9), "adapter/combined": in_both(0.5), "base": in_both(0.5, seed=7)}
    rows = by_language(judged(tmp_path, models, pairs=[["merged/ties", "adapter/combined"]]))
    assert {row["verdict"] for row in rows.values()} == {"better"}


def test_the_bare_base_itself_is_no_rival_to_be_refused(tmp_path):
    same = in_both(0.5)
    rows = by_language(judged(tmp_path, {"merged/ties": same, "base": same}, pairs=[["merged/ties", "base"]]))
    assert {row["verdict"] for row in rows.values()} == {"not worse"}


def test_every_row_says_what_its_test_set_could_show(tmp_path):
    models = {"merged/ties": in_both(0.8), "base": in_both(0.5, seed=9)}
    few = {model: {language: rows[:30] for language, rows in each.items()} for model, each in models.items()}
    many = by_language(judged(tmp_path / "many", models, pairs=[["merged/ties", "base"]]))
    less = by_language(judged(tmp_path / "few", few, pairs=[["merged/ties", "base"]]))
    assert less["de"]["detectable"] > 2 * many["de"]["detectable"]
    assert many[MACRO]["detectable"] < many["de"]["detectable"]


def test_texts_of_one_source_count_as_one_witness(tmp_path):
    half, per = N // 10, 10
    a = {
        language: np.repeat(right(0.8, half, seed=i), per, axis=0) for i, language in enumerate(("de", "fr"))
    }
    b = {
        language: np.repeat(right(0.6, half, seed=9 + i), per, axis=0)
        for i, language in enumerate(("de", "fr"))
    }
    keys = {language: [f"{language}{i // per}" for i in range(N)] for language in ("de", "fr")}
    models = {"merged/ties": a, "base": b}
    pairs = [["merged/ties", "base"]]
    alone = by_language(judged(tmp_path / "alone", models, pairs=pairs))
    grouped = by_language(judged(tmp_path / "grouped", models, pairs=pairs, keys=keys))
    for language in ("de", "fr", MACRO):
        wide, narrow = (row["high"] - row["low"] for row in (grouped[language], alone[language]))
        assert wide > 2 * narrow
    assert grouped["de"]["groups"] == half
    assert alone["de"]["groups"] == N


def test_parallel_texts_move_the_mean_together(tmp_path):
    easy = right(0.5, seed=1)
    a = {"de": easy, "fr": easy}
    b = {"de": right(0.5, seed=2), "fr": right(0.5, seed=2)}
    pairs = [["merged/ties", "base"]]
    apart = by_language(judged(tmp_path / "apart", {"merged/ties": a, "base": b}, pairs=pairs))
    keys = {language: [str(i) for i in range(N)] for language in ("de", "fr")}
    together = by_language(
        judged(tmp_path / "together", {"merged/ties": a, "base": b}, pairs=pairs, keys=keys)
    )
    width = {
        name: rows[MACRO]["high"] - rows[MACRO]["low"]
        for name, rows in (("apart", apart), ("together", together))
    }
    assert width["together"] == pytest.approx(width["apart"] * 2**0.5, rel=0.1)


def test_the_best_and_those_not_significantly_worse_are_named(tmp_path):
    good = in_both(0.9)
    nearly = {language: rows.copy() for language, rows in good.items()}
    for rows in nearly.values():
        rows[0] = 1 - rows[0]
    models = {"merged/ties": good, "merged/average": nearly, "base": in_both(0.4, seed=5)}
    result = judged(tmp_path, models, pairs=[["merged/ties", "base"]], ranked=models)
    found = {row["language"]: row for row in result["standings"]}
    assert list(found) == ["de", "fr", MACRO]
    for row in found.values():
        assert {row["best"], *row["tied"]} == {"merged/ties", "merged/average"}


def test_each_languages_own_adapter_is_ranked_under_its_name(tmp_path):
    models = {OWN: in_both(0.9), "base": in_both(0.4, seed=5)}
    result = judged(tmp_path, models, pairs=[], ranked=models)
    assert [row["best"] for row in result["standings"]] == ["adapter/de", "adapter/fr", OWN]


def test_several_trainings_widen_what_one_training_seems_to_know(tmp_path):
    shares = (0.9, 0.7, 0.8)
    names = ("merged/ties", "merged/ties#2", "merged/ties#3")
    models = {
        name: in_both(share, seed=10 * i) for i, (name, share) in enumerate(zip(names, shares, strict=True))
    }
    models["base"] = in_both(0.5, seed=99)
    pairs = [["merged/ties", "base"]]
    once = by_language(judged(tmp_path / "once", models, pairs=pairs))
    result = judged(tmp_path / "thrice", models, pairs=pairs, seeds=3, ranked=["merged/ties", "base"])
    thrice = by_language(result)
    assert (once["de"]["seeds"], thrice["de"]["seeds"]) == (1, 3)
    mean = np.mean([models[name]["de"].mean() for name in names])
    assert thrice["de"]["difference"] == pytest.approx(mean - models["base"]["de"].mean())
    assert thrice["de"]["high"] - thrice["de"]["low"] > once["de"]["high"] - once["de"]["low"]
    rows = {(row["model"], row["language"]): row for row in result["over_seeds"]}
    assert set(rows) == {("merged/ties", "de"), ("merged/ties", "fr"), ("merged/ties", MACRO)}
    assert rows["merged/ties", "de"]["value"] == pytest.approx(mean)
    assert rows["merged/ties", "de"]["seed"] is None


def test_three_rows_are_compared_and_say_how_little_they_show(tmp_path):
    models = {
        name: {"de": right(share, 3), "fr": right(share, 3)}
        for name, share in (("merged/x", 1.0), ("base", 0.0))
    }
    rows = by_language(judged(tmp_path, models, pairs=[["merged/x", "base"]]))
    assert rows["de"]["high"] - rows["de"]["low"] > 0.5
    assert rows["de"]["n"] == 3
