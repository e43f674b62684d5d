"""Text to words, in any language: what overlap metrics count.

rouge-score's own tokenizer keeps [a-z0-9] only: Japanese, Russian or Hindi score 0, and two unrelated
Japanese sentences that share "2024" score 1. Here: Unicode categories, a word splitter where a language
writes no spaces and one is installed, and a named stemmer.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator

VERSION = 1  # raise when the words of some text change

# Category C, and yet inside a word: soft hyphen, zero-width non-joiner and joiner, word joiner. Dropped.
_JOINERS = dict.fromkeys((0x00AD, 0x200C, 0x200D, 0x2060))

# Snowball's algorithm per primary language subtag. English takes Porter's, as ROUGE-1.5.5 and rouge-score do.
_SNOWBALL = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "porter",
    "es": "spanish", "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish",
    "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian",
    "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "nn": "norwegian",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
_STEMMED_FROM = 4  # characters; shorter words stay, as in ROUGE-1.5.5

# Languages written without spaces: (module to look for, distributions that carry its version).
_SPLITTERS = {
    "ja": ("fugashi", ("fugashi", "unidic-lite")),
    "zh": ("jieba", ("jieba",)),
    "th": ("pythainlp", ("pythainlp",)),
}

# One token each, with the marks that follow: Han (with 々, 〇), kana, Bopomofo. Thai and Lao by nearly a
# syllable: leading vowel, consonant, marks, following vowels, and one more consonant that has none of its own
# (by bare consonants, unrelated Thai sentences share up to a third of their tokens).
_THAI = "[\u0e40-\u0e44]?[{c}][{m}]*[{v}]*(?:[{c}](?![{m}{v}]))?".format(
    c="\u0e01-\u0e2e", m="\u0e31\u0e34-\u0e3a\u0e47-\u0e4e", v="\u0e30\u0e32\u0e33\u0e45"
)
_LAO = "[\u0ec0-\u0ec4]?[{c}][{m}]*[{v}]*(?:[{c}](?![{m}{v}]))?".format(
    c="\u0e81-\u0eae\u0edc-\u0edf", m="\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece", v="\u0eb0\u0eb2\u0eb3"
)
_UNSPACED = re.compile(
    "[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f\u3105-\u312f\u31a0-\u31bf]"
    f"[\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]*|{_THAI}|{_LAO}"
)


def words(text: str, *, language: str, stemmed_from: int = _STEMMED_FROM) -> list[str]:
    """The words of a text, normalised and stemmed, in order.

    NFKC and casefold; split at punctuation, symbols, spaces and control characters (Unicode categories P, S,
    Z, C), so that combining marks stay in their word; Japanese, Chinese and Thai by a word splitter when it
    is installed, otherwise Han and kana per character and Thai per syllable; long enough words stemmed when
    the language has a Snowball stemmer.

    Args:
        language: BCP-47, e.g. "de" or "zh-Hant"; its first part decides. Unknown languages are not stemmed.
        stemmed_from: characters from which on a word is stemmed.
    Source: ROUGE, https://aclanthology.org/W04-1013, applies to words; UAX #15 and UAX #44 for the rest.
    """
    primary = primary_language(language)
    return list(_words(text, _splitter(primary), _stemmer(primary), stemmed_from))


@functools.lru_cache(maxsize=4096)  # a target is read again for every metric and every model
def _words(
    text: str,
    splitter: Callable[[str], list[str]] | None,
    stem: Callable[[str], str] | None,
    stemmed_from: int,
) -> tuple[str, ...]:
    found: Iterator[str] = runs(normalised(text))
    if splitter is None:
        found = itertools.chain.from_iterable(_unspaced(run) for run in found)
    else:
        # Splitters return pieces with punctuation inside now and then; the categories have the last word.
        found = itertools.chain.from_iterable(runs(piece) for run in found for piece in splitter(run))
    if stem is None:
        return tuple(found)
    return tuple(stem(word) if len(word) >= stemmed_from else word for word in found)


def describe_words(language: str) -> str:
    """How `words` reads that language here: normalisation, splitter and stemmer with their versions."""
    primary = primary_language(language)
    splitter = "unicode"
    if primary in _SPLITTERS and _splitter(primary) is not None:
        splitter = "+".join(f"{d}-{importlib.metadata.version(d)}" for d in _SPLITTERS[primary][1])
    return f"words:{VERSION}|{describe_normalisation()}|split:{splitter}|{describe_stemmer(language)}"


def describe_normalisation() -> str:
    """What `normalised` does, with the version of Unicode that it follows."""
    return f"norm:nfkc-casefold-{unicodedata.unidata_version}"


def describe_stemmer(language: str) -> str:
    """The stemmer of a language with its version."""
    primary = primary_language(language)
    if _stemmer(primary) is None:
        return "stem:none"
    return f"stem:snowball.{_SNOWBALL[primary]}-{importlib.metadata.version('snowballstemmer')}"


def splitter_missing(language: str) -> str | None:
    """The module that would split this language into words and is not installed here, or None.

    Without it `words` counts characters (Han, kana) or syllables (Thai): a valid score, but not to be
    compared with one over words; the signature tells them apart.
    """
    primary = primary_language(language)
    return _SPLITTERS[primary][0] if primary in _SPLITTERS and _splitter(primary) is None else None


def primary_language(language: str) -> str:
    """The first part of a BCP-47 tag: "zh" of "zh-Hant"."""
    return language.split("-", 1)[0].lower()


def normalised(text: str) -> str:
    """NFKC and casefold, and what joins letters without a sound of its own (soft hyphen) dropped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).translate(_JOINERS)


def runs(text: str) -> Iterator[str]:
    """Stretches of letters, marks and numbers."""
    for inside, run in itertools.groupby(text, key=_is_word_character):
        if inside:
            yield "".join(run)


@functools.lru_cache(maxsize=65536)
def _is_word_character(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _unspaced(run: str) -> Iterator[str]:
    """A run in pieces: each unspaced character or syllable alone, what lies between them whole."""
    at = 0
    for match in _UNSPACED.finditer(run):
        if match.start() > at:
            yield run[at : match.start()]
        yield match.group()
        at = match.end()
    if at < len(run):
        yield run[at:]


@functools.cache
def _splitter(primary: str) -> Callable[[str], list[str]] | None:
    """The word splitter of a language, or None when it has none or it is not installed."""
    if primary not in _SPLITTERS or importlib.util.find_spec(_SPLITTERS[primary][0]) is None:
        return None
    if primary == "ja":
        if importlib.util.find_spec("unidic_lite") is None:
            return None
        import fugashi
        import unidic_lite

        tagger = fugashi.Tagger(f'-d "{unidic_lite.DICDIR}" -r "{unidic_lite.DICDIR}/mecabrc"')
        return lambda text: [word.surface for word in tagger(text)]
    if primary == "zh":
        import jieba

        jieba.setLogLevel("WARNING")  # it announces its dictionary on standard error
        return jieba.Tokenizer().lcut
    from pythainlp.tokenize import word_tokenize

    return functools.partial(word_tokenize, engine="newmm", keep_whitespace=False)


@functools.cache
def _stemmer(primary: str) -> Callable[[str], str] | None:
    """The stemmer of a language with a memory of its words, or None."""
    algorithm = _SNOWBALL.get(primary)
    if algorithm is None or importlib.util.find_spec(f"snowballstemmer.{algorithm}_stemmer") is None:
        return None
    # By module: snowballstemmer.stemmer() takes PyStemmer's code, of another version, when it is installed.
    module = importlib.import_module(f"snowballstemmer.{algorithm}_stemmer")
    stem_word = getattr(module, f"{algorithm.title()}Stemmer")().stemWord

    @functools.lru_cache(maxsize=65536)
    def stem(word: str) -> str:
        return stem_word(word) or word

    return stem
