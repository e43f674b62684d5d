"""From answers in folders to the arrays that estimators read: every column by hand, or by the metric itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sabir.errors import InputError
from sabir.estimate.evidence import Evidence, Segment, joined
from sabir.metrics import measure
from sabir.tasks import Prompt, make_task
from sabir.work.evidence import Answered, evidence_of, read_member_file
from sabir.work.outputs import write_answers
from sabir.work.prepare import Example, write_examples

LABELS = ["delivery", "payment", "other"]
SENTIMENT = make_task("classification", {"labels": LABELS})
PHRASES = make_task("keyphrases", {})
GOLD = ["delivery", "payment", "payment"]
SAID = ["delivery", "other", "payment"]


@pytest.fixture
def part(tmp_path):
    """One language's answers, written down as steps write them."""

    def make(
        language="de", task=SENTIMENT, gold=GOLD, said=SAID, members=(), scores=None, domains=None, **more
    ):
        folder = tmp_path / f"{language}{len(list(tmp_path.iterdir()))}"

        def kept(name, answers, scores=None):
            (folder / name).mkdir(parents=True)
            rows = [{"id": str(i), "prediction": answer} for i, answer in enumerate(answers)]
            if scores is not None:
                rows = [{**row, "scores": of_row} for row, of_row in zip(rows, scores, strict=True)]
            write_answers(folder / name, rows)
            return folder / name

        model = kept("model", said, scores)
        examples = [
            Example(str(i), Prompt("", f"text {i}", ""), target, domain=(domains or [""] * len(gold))[i])
            for i, target in enumerate(gold)
        ]
        write_examples(folder, "test", examples)
        answers = {
            name: kept(name, given) if isinstance(given, list) else given
            for name, given in dict(members).items()
        }
        if "judge" in more:
            more["judge"] = kept("judge", more["judge"])
        return Answered(language, task, folder, model, answers, **more)

    return make


def test_labels_agree_or_not_and_are_right_or_wrong(part):
    members = {"a": ["delivery", "payment", "payment"], "b": ["other", "other", "payment"]}
    found = evidence_of([part(members=members)])
    assert found.segments == (Segment("de"),)
    assert found.agreement.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert found.pairs[:, 0].tolist() == [0, 0, 1]
    assert found.error.tolist() == [0, 1, 0]
    assert found.member_error.tolist() == [[0, 1], [0, 1], [0, 0]]
    assert found.answer.tolist() == [0, 2, 1]
    assert found.truth.tolist() == [0, 1, 1]
    assert found.keys.tolist() == ["0", "1", "2"]
    assert np.isnan(found.confidence).all(), "nobody said how sure it was"


def test_phrases_agree_as_far_as_the_metric_says(part):
    gold, said = ["late parcel; refund", "card"], ["refund; late parcel", "card; bank"]
    member = ["late parcel", "bank; fee"]
    found = evidence_of([part(task=PHRASES, gold=gold, said=said, members={"a": member})])

    def f1(answers, targets):
        return measure("f1_at_m", answers, targets, language="de").statistics[:, 0]

    assert found.error == pytest.approx(1 - f1(said, gold))
    assert found.error.tolist() == pytest.approx([0, 1 / 3])
    assert found.member_error[:, 0] == pytest.approx(1 - f1(member, gold))
    assert found.agreement[:, 0] == pytest.approx([2 / 3, 1 / 2])
    assert found.probabilities is None
    assert found.truth is None


def test_probabilities_are_the_softmax_of_the_scores_and_confidence_the_largest(part):
    scores = [
        dict(zip(LABELS, row, strict=True))
        for row in ([-1.0, -3.0, -2.0], [-9.0, -8.0, -0.5], [-5.0, -4.0, -6.0])
    ]
    found = evidence_of([part(scores=scores)])
    for row, of_row in zip(found.probabilities, scores, strict=True):
        whole = sum(math.exp(one) for one in of_row.values())
        assert row == pytest.approx([math.exp(of_row[label]) / whole for label in LABELS])
    assert found.confidence == pytest.approx(found.probabilities.max(axis=1))


def test_domains_and_windows_part_a_language_and_weights_stay_with_their_rows(part):
    given = part(
        domains=["news", "books", "news"],
        windows={"0": "2026-W46", "1": "2026-W46", "2": "2026-W47"},
        weights={"1": 7.0},
    )
    found = evidence_of([given])
    names = [str(found.segments[place]) for place in found.segment]
    assert names == ["de/news/2026-W46", "de/books/2026-W46", "de/news/2026-W47"]
    assert found.weight.tolist() == [1, 7, 1]


def test_truth_that_is_given_stands_in_for_what_the_rows_hold(part):
    found = evidence_of([part(gold=["", "", ""], truth={"1": "other"})])
    assert np.isnan(found.error).tolist() == [True, False, True]
    assert found.error[1] == 0
    assert found.truth.tolist() == [-1, 2, -1]
    assert found.labelled.tolist() == [False, True, False]
    assert not evidence_of([part(gold=["", "", ""], truth={})]).labelled.any(), "no label is no empty one"


def test_inclusion_is_unknown_where_nobody_chose_and_1_where_others_were_chosen(part):
    random = part(truth={"0": "delivery"})
    assert evidence_of([random]).inclusion is None
    chosen = part("en", truth={"1": "other"}, inclusion={"1": 0.25})
    assert evidence_of([random, chosen]).inclusion.tolist() == [1, 1, 1, 1, 0.25, 1]


def test_members_are_columns_in_every_language_and_empty_where_they_say_nothing(part):
    first = part(members={"a": SAID, "only in German": GOLD})
    second = part("en", members={"a": None, "only in English": SAID})
    found = evidence_of([first, second])
    assert found.agreement.shape == (6, 3)
    nan = np.isnan(found.agreement)
    assert nan[:3].tolist() == [[False, False, True]] * 3
    assert nan[3:].tolist() == [[True, True, False]] * 3
    assert np.isnan(found.pairs[:3, 1:]).all()


def test_a_judge_that_is_silent_in_one_language_is_heard_in_the_other(part):
    found = evidence_of([part(judge=["delivery", "payment", None]), part("en")])
    assert found.judged[:2].tolist() == [1, 0]
    assert np.isnan(found.judged[2:]).all()
    assert evidence_of([part("fr")]).judged is None


def test_nothing_is_evidence_of_nothing():
    assert len(evidence_of([])) == 0


# --- answers from elsewhere ------------------------------------------------------------------------------


@pytest.fixture
def member_file(tmp_path):
    def write(*rows):
        path = tmp_path / "mine.jsonl"
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_a_member_from_elsewhere_means_one_of_the_labels_or_has_no_answer(part, member_file):
    said = {"0": "The answer is: Delivery.", "1": None, "2": "I cannot tell."}
    path = member_file(*({"id": key, "prediction": value} for key, value in said.items()), "")
    given = read_member_file(path, ids=["0", "1", "2"], language="de")
    found = evidence_of([part(members={"file/mine": given})])
    assert found.agreement[0, 0] == 1
    assert np.isnan(found.agreement[1:, 0]).all()


def test_lists_are_phrases_and_a_line_break_of_any_script_may_stand_in_a_text(member_file):
    rows = {"id": "a", "prediction": ["late parcel", "refund"]}, {"id": "b", "prediction": "one\u2028two\x85"}
    found = read_member_file(member_file(*rows), ids=["a", "b"], language="de")
    assert found == {"a": "late parcel; refund", "b": "one\u2028two\x85"}


def test_one_id_in_several_languages_is_told_apart_by_them(member_file):
    path = member_file(
        {"id": "1", "prediction": "x", "language": "de"}, {"id": "1", "prediction": "y", "language": "PT_br"}
    )
    assert read_member_file(path, ids=["1"], language="de") == {"1": "x"}
    assert read_member_file(path, ids=["1"], language="pt-BR") == {"1": "y"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "1", "prediction": "x"}], "2 rows are missing of de, the first '0'"),
        ([{"id": "0", "prediction": "x"}, "{"], "line 2: is no answer"),
        ([["0", "x"]], "line 1: is no answer"),
        ([{"id": "0"}], "line 1: is no answer"),
        (
            [{"id": "0", "prediction": "x"}, {"id": "0", "prediction": "y"}],
            "line 2: answers row '0' again, otherwise. Keep one of the two",
        ),
    ],
)
def test_a_file_of_answers_that_is_none_is_refused(member_file, rows, said):
    with pytest.raises(InputError) as caught:
        read_member_file(member_file(*rows), ids=["0", "1", "2"], language="de")
    assert said in str(caught.value)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes('{"id": "0", "prediction": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_member_file(path, ids=["0"], language="de")


# --- two pieces of evidence as one -----------------------------------------------------------------------


def random_evidence(rng, names, n, **more):
    agreement = rng.random((n, 2))
    segment = np.arange(n) % len(names)
    return Evidence(tuple(map(Segment, names)), segment, agreement=agreement, **more)


def test_joined_evidence_is_the_sum_of_both():
    rng = np.random.default_rng(0)
    first = random_evidence(rng, ["de", "en"], 7, error=rng.random(7), count=np.arange(1, 8))
    second = random_evidence(rng, ["ca", "de"], 5, weight=rng.random(5), confidence=rng.random(5))
    both = joined(first, second)
    assert [one.language for one in both.segments] == ["ca", "de", "en"]
    assert both.counts.sum() == first.counts.sum() + second.counts.sum()
    assert both.weights.sum() == pytest.approx(first.weights.sum() + second.weights.sum())
    assert both.labelled.sum() == 7
    assert both.confidence is None, "half of it is unknown"
    values = np.concatenate([first.agreement[:, 0], second.agreement[:, 0]])
    for language, parts in (("de", (first, second)), ("en", (first,)), ("ca", (second,))):
        rows = [(one, one.segments.index(Segment(language))) for one in parts]
        sums = sum((one.agreement[:, 0] * one.weights)[one.segment == place].sum() for one, place in rows)
        whole = sum(one.weights[one.segment == place].sum() for one, place in rows)
        assert both.mean(values)[both.segments.index(Segment(language))] == pytest.approx(sums / whole)


def test_evidence_of_other_members_is_not_joined():
    rng = np.random.default_rng(0)
    first = random_evidence(rng, ["de"], 3)
    second = Evidence((Segment("en"),), np.zeros(2, int), agreement=np.ones((2, 3)))
    with pytest.raises(ValueError, match="2 and 3 columns; expected the same members"):
        joined(first, second)
