"""Test rows translated: by tiny random models of two kinds, and by a function of one's own."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from model.tiny import TINY_BASE
from sabir.errors import InputError
from sabir.model.translator import Translator
from sabir.tasks import Prompt
from sabir.work import translate as module
from sabir.work.prepare import Example, read_examples, write_examples
from sabir.work.translate import check_translator, translate, translator_missing
from work.test_work_functions import FakeWork

TEXTS = [
    "der hund schläft unter dem tisch",
    "die katze",
    "der hund sitzt auf dem dach und die katze schläft",
    "dach",
]
LONGEST = 60  # tokens
SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": LONGEST,
    "init_std": 0.8,  # so that what is written depends on what is read
}


def pieces_of(path: Path) -> list[str]:
    """A tiny SentencePiece model in a file; its pieces."""
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "犬は眠る"] * 4),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    return [piece for piece in pieces if piece not in ("<unk>", "<s>", "</s>")]


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    """A model without languages of its own: one direction, or a word in front of the text."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder = tmp_path_factory.mktemp("marian")
    pieces = pieces_of(folder / "source.spm")
    shutil.copyfile(folder / "source.spm", folder / "target.spm")
    vocabulary = {piece: i for i, piece in enumerate(["</s>", "<unk>", *pieces, ">>fra<<", "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    MarianTokenizer(*files, model_max_length=LONGEST).save_pretrained(folder)
    torch.manual_seed(2)  # one that writes something, and other things for other texts
    pad = vocabulary["<pad>"]
    config = MarianConfig(
        vocab_size=len(vocabulary), pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, **SIZES
    )
    model = MarianMTModel(config)
    model.generation_config.bad_words_ids = [[pad]]  # as those on the hub have it
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def m2m100(tmp_path_factory):
    """A model that is told both languages."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder = tmp_path_factory.mktemp("m2m100")
    pieces = pieces_of(folder / "sentencepiece.bpe.model")
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = len(vocabulary) + len(tokenizer.lang_code_to_id) + tokenizer.num_madeup_words
    M2M100ForConditionalGeneration(M2M100Config(vocab_size=size, **SIZES)).save_pretrained(folder)
    return folder


def one_by_one(folder, texts, *, source=None, target=None, front=""):
    """An independent reading: each text alone, greedily by a loop over the logits, no generate()."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    if source:
        tokenizer.src_lang = source
    found = []
    for text in texts:
        ids = tokenizer(front + text, return_tensors="pt")["input_ids"]
        written = [model.config.decoder_start_token_id]
        if target:
            written.append(tokenizer.get_lang_id(target))
        limit = min(2 * ids.shape[1] + 20, LONGEST - 1)
        while len(written) <= limit:
            with torch.no_grad():
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([written])).logits[0, -1]
            if not source:  # Marian never writes its padding
                logits[tokenizer.pad_token_id] = -torch.inf
            written.append(int(logits.argmax()))
            if written[-1] == tokenizer.eos_token_id:
                break
        found.append(tokenizer.decode(written[1:], skip_special_tokens=True).strip())
    return found


def translator(folder, *, languages=(), batch_size=3):
    return Translator(folder, device="cpu", languages=dict(languages), batch_size=batch_size)


# --- the models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_that_is_told_both_languages_translates_as_one_by_one(m2m100, batch_size):
    found, tokens, cut = translator(m2m100, batch_size=batch_size).translate(TEXTS, "de", "en")
    assert found == one_by_one(m2m100, TEXTS, source="de", target="en")
    assert len(set(found)) == len(TEXTS)  # it is no constant
    assert tokens > 0
    assert cut == 0


def test_both_languages_matter_and_are_called_what_the_model_calls_them(m2m100):
    model = translator(m2m100, languages={"nds": "de", "gsw": "de"})
    english = model.translate(TEXTS, "de", "en")[0]
    assert model.translate(TEXTS, "de", "fr")[0] != english
    assert model.translate(TEXTS, "ja", "en")[0] != english
    assert model.translate(TEXTS, "nds", "en")[0] == english
    assert model.translate(TEXTS, "de-AT", "en")[0] == english  # by its first subtag


def test_a_language_that_the_model_does_not_have_is_refused(m2m100):
    with pytest.raises(
        InputError, match=r"rivals\.translate\.languages: the translator has no language 'tlh'"
    ):
        translator(m2m100).translate(TEXTS, "tlh", "en")
    with pytest.raises(InputError, match="no language 'deu_Latn'"):
        translator(m2m100, languages={"de": "deu_Latn"}).check("en", "de")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_without_languages_translates_as_one_by_one(marian, batch_size):
    found, _, cut = translator(marian, batch_size=batch_size).translate(TEXTS, "de", "en")
    assert found == one_by_one(marian, TEXTS)
    assert len(set(found)) == len(TEXTS)
    assert cut == 0


def test_a_model_of_many_targets_is_told_the_target_in_front_of_the_text(marian):
    found, _, _ = translator(marian, languages={"fr": ">>fra<<"}).translate(TEXTS, "de", "fr")
    assert found == one_by_one(marian, TEXTS, front=">>fra<< ")
    assert found != one_by_one(marian, TEXTS)


def test_a_text_is_translated_line_by_line_and_lines_without_letters_stay(marian):
    given = [f"{TEXTS[0]}\n\n10/10 !!\n{TEXTS[1]}", "", "2024", TEXTS[2]]
    done = []
    found, _, _ = translator(marian).translate(given, "de", "en", done.append)
    first, second, third = one_by_one(marian, TEXTS[:3])
    assert found == [f"{first}\n\n10/10 !!\n{second}", "", "2024", third]
    assert done[-1] == 4


def test_a_line_longer_than_the_model_reads_is_cut_and_counted(marian):
    found, _, cut = translator(marian).translate([" ".join(TEXTS * 3), TEXTS[1]], "de", "en")
    assert cut == 1
    assert found[1] == one_by_one(marian, TEXTS[1:2])[0]


# --- the step -----------------------------------------------------------------------------------------------


def rows_of(tmp_path, texts, language="de"):
    folder = tmp_path / "rows"
    folder.mkdir(parents=True)
    rows = [
        Example(f"{language}{i}", Prompt("Frage:\n\n", text, "\n\nAntwort:"), "ja", ("ja", "nein"), f"g{i}")
        for i, text in enumerate(texts)
    ]
    write_examples(folder, "test", rows)
    return folder, rows


def told(rows, out, model, *, language="de", to="en", code=None):
    return FakeWork(
        out,
        name=f"translated/{language}",
        settings={"translator": "sha256:0", "language": language, "to": to},
        args={"model": model, "languages": {}, "code": code, "batch_size": 2},
        inputs={"rows": rows},
    )


def test_the_step_translates_the_rows_own_text_and_keeps_the_rest(m2m100, tmp_path):
    folder, rows = rows_of(tmp_path, TEXTS)
    work = told(folder, tmp_path / "out", str(m2m100))
    other = told(folder, tmp_path / "other", str(m2m100), language="fr", to="ja")
    done = dict(translate([work, other]))
    written = one_by_one(m2m100, TEXTS, source="de", target="en")
    expected = [
        Example(row.id, Prompt(row.prompt.before, text, row.prompt.after), row.target, row.options, row.group)
        for row, text in zip(rows, written, strict=True)
    ]
    assert read_examples(work.out, "test") == expected
    assert done[work.name]["result"] == {"rows": 4, "cut": 0}
    assert work.events[-1][:2] == (4, 4)
    again = one_by_one(m2m100, TEXTS, source="fr", target="ja")
    assert [row.prompt.source for row in read_examples(other.out, "test")] == again


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a translator of one's own; returns its name and its folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(body):
        (tmp_path / "own_translator.py").write_text(f"def it(texts, source, target):\n    return {body}\n")
        return "own_translator:it", str(tmp_path)

    yield write
    sys.modules.pop("own_translator", None)


def test_a_function_of_ones_own_is_given_texts_and_both_languages(own, tmp_path):
    name, code = own("[f'{source}>{target}: {text}' for text in texts]")
    folder, _ = rows_of(tmp_path, TEXTS)
    work = told(folder, tmp_path / "out", name, code=code)
    [(_, outcome)] = translate([work])
    assert [row.prompt.source for row in read_examples(work.out, "test")] == [
        f"de>en: {text}" for text in TEXTS
    ]
    assert outcome["result"] == {"rows": 4, "cut": 0}
    with pytest.raises(InputError, match="--allow-code"):
        list(translate([told(folder, tmp_path / "not", name, code=None)]))


def test_rows_in_the_target_language_are_not_translated(own, tmp_path):
    name, code = own("1 / 0")
    folder, rows = rows_of(tmp_path, TEXTS, "en")
    work = told(folder, tmp_path / "out", name, language="en", code=code)
    list(translate([work]))
    assert read_examples(work.out, "test") == rows


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("texts[1:]", r"gave 3 texts for 4 texts\. It is given a list of texts, their language"),
        ("1 / 0", r"'own_translator:it' failed \(ZeroDivisionError: division by zero\)\. It is given a list"),
        ("' '.join(texts)", "gave a str for 4 texts"),
        ("[*texts[1:], None]", r"gave None for text 4 of 4\. Return texts\."),
        ("['x', ' ', 'x', 'x']", "the translation of row 'de1' is empty"),
    ],
)
def test_a_translator_that_gives_less_is_refused(own, tmp_path, body, said):
    name, code = own(body)
    folder, _ = rows_of(tmp_path, TEXTS)
    with pytest.raises(InputError, match=rf"rivals\.translate\.model: .*{said}"):
        list(translate([told(folder, tmp_path / "out", name, code=code)]))


# --- what is missing -----------------------------------------------------------------


def test_a_model_that_is_no_translator_is_refused():
    with pytest.raises(
        InputError, match=r"rivals\.translate\.model: 'mine' is no sequence-to-sequence model"
    ):
        check_translator(TINY_BASE, "mine")


def test_a_missing_sentencepiece_is_told_with_the_command(marian, m2m100, monkeypatch):
    for folder in (marian, m2m100):
        check_translator(folder, "mine")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for folder in (marian, m2m100):
        with pytest.raises(
            InputError, match=r"'mine' needs SentencePiece\. Run: pip install sentencepiece\."
        ):
            check_translator(folder, "mine")
    assert translator_missing(TINY_BASE) is None  # its tokenizer.json needs nothing
