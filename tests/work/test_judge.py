"""What a new release does to every language, on test rows made by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sabir.metrics import measure
from sabir.power import detectable
from sabir.stats import holm, paired_difference
from sabir.work.judge import changes
from sabir.work.outputs import write_answers
from sabir.work.scores import ROWS, SEED

LABELS = ["good", "bad"]
LEVEL = 0.95


def accuracy(means):
    return means[..., 0]


def scored(folder, answers, gold, metrics):
    """The folders of an outputs and a scores step."""
    outputs, scores = folder / "outputs", folder / "scores"
    for each in (outputs, scores):
        each.mkdir(parents=True)
    write_answers(outputs, [{"id": str(i), "prediction": answer} for i, answer in enumerate(answers)])
    for metric in metrics:
        measured = measure(metric, answers, gold, labels=LABELS, language="de")
        np.save(scores / f"{metric}.npy", measured.statistics)
    (scores / ROWS).write_text(json.dumps({"keys": [str(i) for i in range(len(gold))]}), encoding="utf-8")
    return outputs, scores


def changed(tmp_path, languages, *, served=None, metric="accuracy"):
    """The rows by language. `languages` maps each to the answers of the new and the old release, and the gold."""
    inputs = {}
    for language, (new, old, gold) in languages.items():
        for role, answers in (("a", new), ("b", old)):
            outputs, scores = scored(tmp_path / role / language, answers, gold, [metric])
            inputs |= {f"{role}-outputs/{language}": outputs, f"{role}/{language}": scores}
    settings = {
        "a": "merged/ties",
        "b": "release/2",
        "languages": list(languages),
        "served": list(languages) if served is None else served,
        "metric": metric,
        "margin": 0.02,
        "level": LEVEL,
        "resamples": 200,
        "labels": LABELS,
    }
    work = SimpleNamespace(name="changes", settings=settings, args={}, inputs=inputs, out=tmp_path)
    [(name, outcome)] = changes([work])
    assert name == "changes"
    json.dumps(outcome, allow_nan=False)
    return {each["language"]: each for each in outcome["result"]["changes"]}


def made(right, wrong_to_right, right_to_wrong, wrong):
    """Answers of a new and an old release to that many rows each, and the gold ones."""
    n = right + wrong_to_right + right_to_wrong + wrong
    gold = ["good", "bad"] * (n // 2)
    other = {"good": "bad", "bad": "good"}
    new_is_right = [True] * (right + wrong_to_right) + [False] * (right_to_wrong + wrong)
    old_is_right = [True] * right + [False] * wrong_to_right + [True] * right_to_wrong + [False] * wrong
    new = [each if ok else other[each] for each, ok in zip(gold, new_is_right, strict=True)]
    old = [each if ok else other[each] for each, ok in zip(gold, old_is_right, strict=True)]
    return new, old, gold


def test_each_language_has_both_scores_their_difference_and_the_share_that_changed(tmp_path):
    rows = changed(tmp_path, {"de": made(50, 10, 20, 20), "fr": made(60, 20, 10, 10)})
    assert list(rows) == ["de", "fr", "macro"]
    de = rows["de"]
    assert (de["a"], de["b"], de["split"], de["metric"]) == ("merged/ties", "release/2", "test", "accuracy")
    assert (de["new"], de["old"], de["changed"], de["n"]) == pytest.approx((0.6, 0.7, 0.3, 100))
    for each in rows.values():
        assert each["difference"] == pytest.approx(each["new"] - each["old"])
        assert each["low"] < each["difference"] < each["high"]
    macro = rows["macro"]
    assert (macro["new"], macro["old"], macro["n"]) == pytest.approx((0.7, 0.7, 200))
    assert macro["changed"] == pytest.approx(0.3)


def test_p_values_are_corrected_for_the_number_of_languages(tmp_path):
    languages = {"de": made(50, 5, 25, 20), "fr": made(60, 10, 12, 18), "pt": made(60, 8, 20, 12)}
    rows = changed(tmp_path, languages)
    alone = []
    for new, old, gold in languages.values():
        right = [np.array([[x == y] for x, y in zip(each, gold, strict=True)], float) for each in (new, old)]
        alone.append(paired_difference(*right, accuracy, seed=SEED).p)
    assert [rows[language]["p"] for language in languages] == pytest.approx(holm(alone))
    assert rows["de"]["p"] > alone[0]


def test_detectable_is_corrected_for_languages_and_not_for_their_mean(tmp_path):
    rows = changed(tmp_path, {"de": made(50, 10, 20, 20), "fr": made(60, 20, 10, 10)})
    for language, tests in (("de", 2), ("fr", 2), ("macro", 1)):
        found = rows[language]
        expected = detectable(found["low"], found["high"], LEVEL, tests=tests)
        assert found["detectable"] == pytest.approx(expected)
    assert rows["macro"]["detectable"] < rows["de"]["detectable"]


def test_the_mean_is_over_the_languages_that_the_old_release_serves(tmp_path):
    languages = {"de": made(50, 10, 20, 20), "pt": made(10, 80, 0, 10)}
    both = changed(tmp_path / "both", languages)
    rows = changed(tmp_path / "one", languages, served=["de"])
    assert rows["pt"]["difference"] == pytest.approx(0.8)  # shown all the same
    assert rows["macro"]["difference"] == rows["de"]["difference"] != both["macro"]["difference"]
    assert (rows["macro"]["changed"], rows["macro"]["n"]) == pytest.approx((0.3, 100))
    assert [each["served"] for each in rows.values()] == [True, False, True]


def test_with_no_language_in_common_the_mean_is_unknown(tmp_path):
    macro = changed(tmp_path, {"de": made(50, 10, 20, 20)}, served=[])["macro"]
    keys = ("difference", "low", "high", "p", "old", "new", "changed", "detectable")
    assert [macro[key] for key in keys] == [None] * len(keys)
    assert (macro["n"], macro["served"], macro["verdict"]) == (0, False, "undecided")


def test_equal_answers_change_nothing_and_are_not_taken_for_certainty(tmp_path):
    new, _, gold = made(60, 0, 0, 40)
    rows = changed(tmp_path, {"de": (new, new, gold)})
    assert (rows["de"]["changed"], rows["de"]["difference"], rows["de"]["p"]) == (0, 0, 1)
    assert rows["de"]["low"] < 0 < rows["de"]["detectable"]


@pytest.mark.parametrize("metric", ["macro_f1", "macro_recall", "rougeL"])
def test_any_metric_is_compared_and_its_scores_are_of_the_same_rows(tmp_path, metric):
    new, old, gold = made(20, 5, 10, 5)
    rows = changed(tmp_path, {"de": (new, old, gold)}, metric=metric)
    alone = measure(metric, new, gold, labels=LABELS, language="de")
    assert rows["de"]["new"] == pytest.approx(float(alone.value(alone.statistics.mean(axis=0))))
    assert rows["de"]["difference"] == pytest.approx(rows["de"]["new"] - rows["de"]["old"])
    assert rows["de"]["metric"] == metric


def test_a_row_that_either_has_not_answered_is_left_out_of_both_scores(tmp_path):
    new, old, gold = made(4, 2, 2, 2)
    rows = changed(tmp_path, {"de": ([None, *new[1:]], [*old[:-1], None], gold)}, metric="rougeL")
    assert rows["de"]["n"] == 8
    assert (rows["de"]["new"], rows["de"]["old"]) == pytest.approx((5 / 8, 5 / 8))


def test_answers_to_other_rows_are_not_compared(tmp_path):
    new, old, gold = made(4, 2, 2, 2)
    outputs, scores = scored(tmp_path / "a", new, gold, ["accuracy"])
    others, _ = scored(tmp_path / "b", old[:-1], gold[:-1], ["accuracy"])
    settings = {
        "a": "x",
        "b": "y",
        "languages": ["de"],
        "served": ["de"],
        "metric": "accuracy",
        "level": LEVEL,
    }
    inputs = {"a/de": scores, "b/de": scores, "a-outputs/de": outputs, "b-outputs/de": others}
    work = SimpleNamespace(name="changes", settings=settings, inputs=inputs)
    with pytest.raises(RuntimeError, match="not to the same rows"):
        list(changes([work]))
