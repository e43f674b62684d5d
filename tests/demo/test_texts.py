import hashlib
import re
import unicodedata
from collections import Counter

import pytest

from sabir.demo import texts
from sabir.demo.grammars import de, en, fr, ja, zh
from sabir.demo.texts import LABELS, LANGUAGES, messages, splits, update_messages

REGISTERS = [
    ("en", "plain", en.PLAIN),
    ("de", "plain", de.PLAIN),
    ("de", "chat", de.CHAT),
    ("fr", "plain", fr.PLAIN),
    ("ja", "plain", ja.PLAIN),
    ("zh", "plain", zh.PLAIN),
]
SIZES = {"train": 300, "valid": 80, "test": 120}
GOLDEN = [
    ("en", "321b8c65d5dc26b1"),
    ("de", "21a6c5e9a121d663"),
    ("fr", "ed5ed08ef8c09705"),
    ("ja", "5b6a761839b05652"),
    ("zh", "31b15222d0a58bdb"),
]


@pytest.fixture(scope="module")
def drawn():
    return {language: splits(language, **SIZES, seed=7) for language in LANGUAGES}


@pytest.fixture(scope="module")
def update():
    return update_messages(200, seed=7)


def golden(language: str) -> str:
    rows = [m for split in splits(language, train=60, valid=20, test=20, seed=3).values() for m in split]
    if language == "de":
        rows += update_messages(20, seed=3)
    lines = "\n".join(f"{m.id}\t{m.label}\t{m.text}" for m in rows)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("language", "digest"), GOLDEN)
def test_texts_are_the_same_everywhere(language, digest):
    # A change of the material changes these on purpose; nothing else may.
    assert golden(language) == digest


def test_another_seed_gives_other_texts():
    assert {m.text for m in messages("fr", 50, seed=1)} != {m.text for m in messages("fr", 50, seed=2)}


def test_a_longer_draw_begins_with_the_shorter_one():
    assert messages("ja", 60, seed=1)[:25] == messages("ja", 25, seed=1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_are_balanced_in_every_split(language, drawn):
    for name, rows in drawn[language].items():
        counts = Counter(m.label for m in rows)
        assert set(counts) == set(LABELS)
        assert max(counts.values()) - min(counts.values()) <= 1, (name, counts)


def test_no_text_and_no_id_occurs_twice(drawn, update):
    rows = [m for by_split in drawn.values() for split in by_split.values() for m in split] + update
    assert len({m.text for m in rows}) == len(rows)
    assert len({m.id for m in rows}) == len(rows)


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_of_other_seeds_do_not_leak(language, drawn):
    train = {
        m.text for seed in (1, 2) for m in splits(language, train=300, valid=0, test=0, seed=seed)["train"]
    }
    assert not train & {m.text for m in drawn[language]["valid"] + drawn[language]["test"]}


def test_no_update_message_is_in_any_valid_or_test_split(update):
    judged = splits("de", train=0, valid=300, test=300, seed=11)
    assert not {m.text for m in update} & {m.text for rows in judged.values() for m in rows}


def test_german_trains_on_plain_is_judged_on_both_and_updated_with_chat(drawn, update):
    def registers(rows):
        return Counter(m.id.split("-")[2] for m in rows)

    assert registers(drawn["de"]["train"]) == {"plain": 300}
    assert registers(drawn["de"]["valid"]) == {"plain": 40, "chat": 40}
    assert registers(drawn["de"]["test"]) == {"plain": 60, "chat": 60}
    assert registers(update) == {"chat": 200}


def test_the_german_registers_differ(update, drawn):
    assert all(m.text == m.text.lower() for m in update)
    assert all(m.text[0].isupper() or m.text[0].isdigit() for m in drawn["de"]["train"])
    polite = re.compile(r"\b(?:Sie|Ihnen|Ihre?)\b")
    assert not any(polite.search(m.text) for m in update)
    assert not set(sum(de.PLAIN.cores.values(), ())) & set(sum(de.CHAT.cores.values(), ()))


@pytest.mark.parametrize(("language", "register", "grammar"), REGISTERS)
def test_every_message_is_one_clean_line_of_fair_length(language, register, grammar):
    fewest, most = grammar.length
    for m in messages(language, 400, seed=5, registers=(register,)):
        assert fewest <= len(m.text) <= most
        assert m.text == unicodedata.normalize("NFC", m.text) == m.text.strip()
        assert not re.search(r"[{}|#\n\t]|  ", m.text), m.text


@pytest.mark.parametrize(("language", "register", "grammar"), REGISTERS)
def test_the_grammar_is_wide(language, register, grammar):
    per_label = 20 if register == "chat" else 25
    assert all(len(set(grammar.cores[label])) >= per_label for label in LABELS)
    assert len({m.text for m in messages(language, 1500, seed=9, registers=(register,))}) == 1500


@pytest.mark.parametrize(("language", "register", "grammar"), REGISTERS)
def test_every_slot_is_known_and_every_filler_has_all_forms(language, register, grammar):
    patterns = [*grammar.openings, *grammar.closings]
    for label in LABELS:
        patterns += [*grammar.asides[label], *grammar.cores[label]]
    for slot, form in re.findall(r"\{(\w+)(?:\.(\w+))?\}", "\n".join(patterns)):
        forms = grammar.forms.get(slot.split("_")[0], ())
        assert not form or form in forms, (slot, form)
        assert all(len(row.split("|")) == max(1, len(forms)) for row in grammar.slots[slot]), slot


@pytest.mark.parametrize(("language", "register", "grammar"), REGISTERS)
def test_a_thing_unseen_in_one_slot_is_unseen_in_all(language, register, grammar):
    seen = {slot: set(texts._seen(rows)) for slot, rows in grammar.slots.items()}
    for part in ("item_power", "item_cloth", "item_house"):
        assert seen[part] == seen["item"] & set(grammar.slots[part])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_fifth_of_the_patterns_is_only_in_judged_splits(language, drawn):
    grammar = texts._REGISTERS[language]["plain"]

    def pattern(message):
        return next(
            i
            for i, core in enumerate(grammar.cores[message.label])
            if re.search(
                ".*?".join(map(re.escape, re.split(r"\{[^}]*\}", core))), message.text, re.IGNORECASE
            )
        )

    assert all((pattern(m) + 1) % 5 for m in drawn[language]["train"])
    plain = [m for split in ("valid", "test") for m in drawn[language][split] if "-plain-" in m.id]
    assert 0.05 < sum((pattern(m) + 1) % 5 == 0 for m in plain) / len(plain) < 0.35


def test_languages_share_no_sentence():
    cores = [core for _, register, g in REGISTERS for rows in g.cores.values() for core in rows]
    assert len(set(cores)) == len(cores)


def test_the_label_word_does_not_give_the_answer_away(drawn):
    rows = drawn["en"]["train"]
    for label in LABELS:
        named = [m.label == label for m in rows if label in m.text.lower()]
        own = sum(named) / sum(m.label == label for m in rows)
        assert own < 0.25
        if len(named) >= 20:
            assert sum(named) / len(named) < 0.75, label


def test_a_register_the_language_lacks_is_refused():
    with pytest.raises(ValueError, match=r"'fr' has no such register. It has plain"):
        messages("fr", 4, seed=1, registers=("chat",))


def test_a_language_without_grammar_is_refused():
    with pytest.raises(ValueError, match="no such demo language"):
        messages("es", 4, seed=1)
