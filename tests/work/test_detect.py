"""Language detectors by name: py3langid restricted to the project's languages, and functions of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from sabir.errors import InputError
from sabir.work import detect as module
from sabir.work.detect import detector, detector_identity, detector_missing

TEXTS = {
    "de": "Der Hund schläft unter dem Tisch, und die Katze sitzt auf dem Dach.",
    "en": "The dog sleeps under the table, and the cat sits on the roof.",
    "fr": "Le chien dort sous la table, et le chat est assis sur le toit.",
    "ja": "犬はテーブルの下で眠り、猫は屋根の上に座っている。",
    "zh": "狗睡在桌子下面，猫坐在屋顶上。",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module of one's own into a folder, which is the one that `code` names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return tmp_path

    yield write
    for name in names:
        sys.modules.pop(name, None)


# --- py3langid ----------------------------------------------------------------------------------------------


def test_each_text_is_read_in_its_language():
    assert detector("py3langid", TEXTS, None)(list(TEXTS.values())) == list(TEXTS)


def test_no_language_outside_the_project_is_answered():
    found = detector("py3langid", ["de", "ja"], None)(list(TEXTS.values()))
    assert set(found) <= {"de", "ja"}
    assert (found[0], found[3]) == ("de", "ja")


def test_two_detectors_of_other_languages_do_not_share_their_restriction():
    one, other = detector("py3langid", ["de", "fr"], None), detector("py3langid", ["en", "ja"], None)
    assert one([TEXTS["fr"]]) == ["fr"]
    assert other([TEXTS["en"]]) == ["en"]
    assert one([TEXTS["de"]]) == ["de"]


def test_a_language_with_script_or_region_is_answered_by_its_whole_tag():
    texts = ["狗睡在桌子下面，貓坐在屋頂上。", "O cachorro dorme debaixo da mesa e não quer sair."]
    assert detector("py3langid", ["zh-Hant", "pt-BR", "de"], None)(texts) == ["zh-Hant", "pt-BR"]


def test_two_languages_with_one_subtag_are_refused():
    with pytest.raises(InputError, match=r"rivals\.routed: .*'pt' only, and cannot tell pt-BR from pt-PT"):
        detector("py3langid", ["pt-PT", "de", "pt-BR"], None)


def test_a_language_that_py3langid_does_not_know_is_refused():
    with pytest.raises(InputError, match=r"does not know 'tlh'\. Name a detector that does"):
        detector("py3langid", ["de", "tlh"], None)


@pytest.mark.parametrize("text", ["", "   ", "2024", "12:30 – 14 %", "…!?"])
def test_a_text_without_letters_goes_to_the_alphabetically_first_language_whatever_their_order(text):
    for languages in (["fr", "de", "ja"], ["ja", "de", "fr"]):
        assert detector("py3langid", languages, None)([text]) == ["de"]


def test_another_process_and_another_order_of_languages_answer_alike():
    texts = [text[:length] for text in TEXTS.values() for length in (1, 3, 5, 9, 20)]
    code = (
        "import json, sys\n"
        "from sabir.work.detect import detector\n"
        "texts, languages = json.load(sys.stdin)\n"
        "print(json.dumps(detector('py3langid', languages, None)(texts)))"
    )
    found = []
    for languages, seed in ((list(TEXTS), "1"), (list(TEXTS)[::-1], "2")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps([texts, languages]),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == detector("py3langid", TEXTS, None)(texts)


def test_the_version_enters_the_identity():
    assert detector_identity("py3langid") == f"py3langid-{version('py3langid')}"
    assert detector_missing("py3langid") is None


def test_a_detector_that_is_not_installed_is_told_with_the_command(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert detector_missing("py3langid") == "pip install 'sabir[detect]'"
    with pytest.raises(
        InputError, match=r"py3langid is not installed\. Run: pip install 'sabir\[detect\]'\."
    ):
        detector("py3langid", ["de", "fr"], None)


def test_an_unknown_detector_is_refused_with_a_hint():
    with pytest.raises(InputError, match=r"no language detector 'py3lagid'.*Did you mean 'py3langid'"):
        detector("py3lagid", ["de"], None)
    with pytest.raises(InputError, match=r"no language detector 'langid'\. Write py3langid, or my\.module"):
        detector_identity("langid")


# --- one's own ----------------------------------------------------------------------------------------------

BY_LETTER = (
    "def by_letter(texts):\n    return ['ja' if ord(max(text)) > 255 else 'pt-BR' for text in texts]\n"
)


def test_a_function_of_ones_own_answers(own):
    folder = own("detector_by_letter", BY_LETTER)
    detect = detector("detector_by_letter:by_letter", ["pt-PT", "pt-BR", "ja"], folder)
    assert detect(["olá", "犬"]) == ["pt-BR", "ja"]
    assert detector_missing("detector_by_letter:by_letter") is None


def test_a_function_of_ones_own_is_not_run_unasked(own):
    own("detector_by_letter", BY_LETTER)
    with pytest.raises(InputError, match=r"rivals\.routed: .*--allow-code"):
        detector("detector_by_letter:by_letter", ["pt-BR", "ja"], None)


def test_an_answer_that_is_none_of_the_languages_is_told_with_the_texts_place(own):
    folder = own("detector_by_letter", BY_LETTER)
    detect = detector("detector_by_letter:by_letter", ["ja", "de"], folder)
    with pytest.raises(
        InputError, match=r"answered 'pt-BR' to text 2 of 2 \('olá'\)\. It may answer: de, ja\."
    ):
        detect(["犬", "olá"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("texts[:1] and ['ja']", "gave 1 answers for 2 texts"),
        ("'ja'", "gave a str for 2 texts"),
        ("(t for t in texts)", "gave a generator for 2 texts"),
    ],
)
def test_anything_but_one_language_a_text_is_refused(own, body, said):
    folder = own("detector_of_nothing", f"def it(texts):\n    return {body}\n")
    with pytest.raises(InputError, match=said):
        detector("detector_of_nothing:it", ["ja", "de"], folder)(["犬", "olá"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "def it():\n    return []\n",
            "failed (TypeError: it() takes 0 positional arguments but 1 was given).",
        ),
        ("def it(texts):\n    return [{}[text] for text in texts]\n", "failed (KeyError: '犬')."),
    ],
)
def test_what_a_function_of_ones_own_raises_is_told_with_its_name(own, body, said):
    folder = own("detector_that_raises", body)
    with pytest.raises(InputError) as error:
        detector("detector_that_raises:it", ["ja", "de"], folder)(["犬"])
    assert str(error.value) == (
        f"rivals.routed: 'detector_that_raises:it' {said} "
        "It is given a list of texts and returns a list with one language for each."
    )


def test_an_edit_of_ones_own_module_changes_the_identity_and_a_missing_permission_reads_nothing(own):
    folder = own("detector_by_letter", BY_LETTER)
    name = "detector_by_letter:by_letter"
    before = detector_identity(name, folder)
    assert before.startswith(f"{name}@sha256:")
    assert detector_identity(name, folder) == before
    own("detector_by_letter", BY_LETTER.replace("255", "300"))
    assert detector_identity(name, folder) != before
    assert detector_identity(name, None) == name


def test_a_module_in_a_package_is_found_for_the_identity(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "inner.py").write_text("def it(texts): return texts\n")
    assert detector_identity("pack.inner:it", tmp_path).startswith("pack.inner:it@sha256:")
    assert detector_identity("pack:it", tmp_path).startswith("pack:it@sha256:")
    assert detector_identity("elsewhere:it", tmp_path) == "elsewhere:it"
