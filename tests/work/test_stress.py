"""Stress sets: texts written by hand with the sets that must come of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sabir.errors import InputError
from sabir.tasks import Prompt
from sabir.work.prepare import Example, read_examples, write_examples
from sabir.work.stress import needs, stress
from work.test_work_functions import FakeWork


def row(id, text, target="good", *, group="", before="Judge:\n\n", after="\n\nAnswer:"):
    return Example(id, Prompt(before, text, after), target, group=group)


def made(tmp_path, kind, language, rows, *, seed=0):
    """The stress set of one language, and what the step says of it."""
    inputs = {}
    for each in needs(kind, language, rows):
        folder = tmp_path / f"rows-{each}"
        folder.mkdir(parents=True)
        write_examples(folder, "test", rows[each])
        inputs[f"rows/{each}"] = folder
    settings = {"stress": kind, "language": language, "seed": seed}
    work = FakeWork(tmp_path / "out", settings=settings, inputs=inputs)
    [(_, outcome)] = stress([work])
    return read_examples(work.out, "test"), outcome["result"]


# --- short --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text", "short"),
    [
        ("de", "Ein schlechter  Film, wirklich.", "Ein schlechter  Film,"),
        ("en", "\n one\ntwo three four", "one\ntwo three"),
        ("ko", "이 영화는 정말 재미있다", "이 영화는 정말"),
        ("ja", "この映画は本当に面白い。", "この映画は本当に"),
        ("zh-Hant", "這部電影真的非常好看。", "這部電影真的非常"),
        ("th", "หนังเรื่องนี้สนุกมาก", "หนังเรื่องนี้"),  # 8 letters, 5 marks: none is torn off
        ("ja", "ABC 映画は本当に面白い", "ABC 映画は本当"),  # a blank is no character
    ],
)
def test_short_rows_are_the_first_three_words_or_eight_characters(tmp_path, language, text, short):
    [found], result = made(tmp_path, "short", language, {language: [row("1", text, "bad")]})
    assert found == row("1", short, "bad", group="1")
    assert result == {"rows": 1, "left_out": 0}


def test_rows_that_are_short_already_stay_out_and_groups_stay(tmp_path):
    rows = [row("1", "one two three"), row("2", "one two three four", group="film"), row("3", "")]
    found, result = made(tmp_path, "short", "en", {"en": rows})
    assert found == [row("2", "one two three", group="film")]
    assert result == {"rows": 1, "left_out": 2}


def test_a_set_without_a_row_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"rivals\.stress: no test row of 'en' makes a 'short' one"):
        made(tmp_path, "short", "en", {"en": [row("1", "two words")]})


# --- code-switched ------------------------------------------------------------------------------------------

PARALLEL = {
    "de": [row(str(i), f"de{i}a de{i}b de{i}c", ("good", "bad")[i % 2]) for i in range(40)],
    "fr": [row(str(i), f"fr{i}a fr{i}b fr{i}c fr{i}d", ("good", "bad")[i % 2]) for i in range(40)],
    "ja": [row(str(i), "犬が寝る所", ("good", "bad")[i % 2]) for i in range(40)],
}


def test_the_second_half_of_parallel_texts_is_the_same_row_in_another_language(tmp_path):
    found, result = made(tmp_path, "code-switched", "de", PARALLEL)
    assert result == {"rows": 40, "left_out": 0}
    assert [(one.id, one.target, one.group) for one in found] == [
        (r.id, r.target, r.id) for r in PARALLEL["de"]
    ]
    partners = []
    for one in found:
        first, second = f"de{one.id}a de{one.id}b", {"fr": f"fr{one.id}c fr{one.id}d", "ja": "る所"}
        partners += [other for other, half in second.items() if one.prompt.source == f"{first} {half}"]
        assert (one.prompt.before, one.prompt.after) == ("Judge:\n\n", "\n\nAnswer:")
    assert len(partners) == 40
    assert 8 <= partners.count("fr") <= 32  # both, by chance: outside once in 10,000 seeds


def test_where_ids_are_not_parallel_the_second_half_has_the_same_label(tmp_path):
    others = [row(f"f{i}", f"x x {label}{i} y", label) for i, label in enumerate(["good", "bad"] * 10)]
    found, _ = made(tmp_path, "code-switched", "de", {"de": PARALLEL["de"], "fr": others})
    halves = [one.prompt.source.split()[2] for one in found]
    assert all(half.startswith(one.target) for one, half in zip(found, halves, strict=True))
    assert len(set(halves)) > 8  # not always the same partner


def test_an_id_that_two_languages_share_by_chance_does_not_bring_another_label(tmp_path):
    others = [row("0", "not this one", "bad"), row("7", "but that one", "good")]
    [found], _ = made(tmp_path, "code-switched", "de", {"de": [row("0", "eins zwei", "good")], "fr": others})
    assert found.prompt.source == "eins one"
    assert found.target == "good"


def test_a_row_whose_label_no_other_language_has_stays_out(tmp_path):
    rows = {"de": [row("1", "a b", "rare"), row("2", "c d")], "fr": [row("3", "e f")]}
    found, result = made(tmp_path, "code-switched", "de", rows)
    assert [one.prompt.source for one in found] == ["c f"]
    assert result == {"rows": 1, "left_out": 1}


# --- mislabelled --------------------------------------------------------------------------------------------


def test_mislabelled_rows_are_evenly_from_the_others_with_their_own_labels(tmp_path):
    rows = {**PARALLEL, "es": [row("e1", "uno", "bad", group="film"), row("e2", "dos")]}
    rows["de"] = rows["de"][:31]
    found, result = made(tmp_path, "mislabelled", "de", rows)
    by_language = {each: [one for one in found if one.id.startswith(f"{each}:")] for each in rows}
    assert not by_language["de"]
    counts = {each: len(ours) for each, ours in by_language.items()}
    assert counts["es"] == 2  # all it has
    assert {counts["fr"], counts["ja"]} <= {10, 11}
    assert result == {"rows": len(found), "left_out": 31 - len(found)}
    assert len({one.id for one in found}) == len(found)
    for each, ours in by_language.items():
        known = {f"{each}:{one.id}": one for one in rows[each]}
        for one in ours:
            source = known[one.id]
            assert (one.prompt.source, one.target) == (source.prompt.source, source.target)
            assert one.group == (source.group or source.id)


def test_mislabelled_rows_come_with_the_instruction_of_the_language_they_are_tagged_as(tmp_path):
    rows = {
        "de": [row("1", "eins", before="Beurteile:\n\n", after="\n\nAntwort:")],
        "fr": [row("1", "un", "bad", before="Jugez :\n\n", after="\n\nRéponse :")],
    }
    found, _ = made(tmp_path, "mislabelled", "de", rows)
    assert found == [
        row("fr:1", "un", "bad", before="Beurteile:\n\n", after="\n\nAntwort:", group="1"),
    ]


# --- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["code-switched", "mislabelled"])
def test_the_seed_alone_decides_what_is_drawn(tmp_path, kind):
    upside_down = {language: PARALLEL[language][::-1] for language in reversed(PARALLEL)}
    given = {"here": (PARALLEL, 0), "elsewhere": (upside_down, 0), "again": (PARALLEL, 1)}
    sets = {
        name: {one.id: one for one in made(tmp_path / name, kind, "de", rows, seed=seed)[0]}
        for name, (rows, seed) in given.items()
    }
    assert sets["here"] == sets["elsewhere"]
    assert sets["here"] != sets["again"]


def test_a_short_set_stands_on_its_own_language_and_the_others_on_all():
    assert needs("short", "fr", ["fr", "de"]) == ["fr"]
    assert needs("code-switched", "fr", ["fr", "de"]) == ["de", "fr"]
    assert needs("mislabelled", "fr", ["fr", "de"]) == ["de", "fr"]


def test_stress_sets_are_made_without_torch():
    code = "import sys, sabir.work.stress as s; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
