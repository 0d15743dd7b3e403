"""Ids one by one → pieces of text: whole characters, and nothing of a stop text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

from honing.generation.stream import SyllableStream, before_stop, whole_characters
from tests.generation.asking import decode, ids_of
from tests.tiny import tiny_tokenizer

TEXTS = {
    "Korean": "대한민국의 수도는 서울입니다. 꿿뷁, 똠방각하!",
    "Latin": "The quick brown fox jumps over the lazy dog.",
    "mixed": "서울(Seoul)은 100도, 60 % 확률로 Größe α→β입니다.",
    "emoji": "좋아요 🙂👍🏽 가족 👨‍👩‍👧‍👦 깃발 🇰🇷 끝",
    "Hanja": "漢字와 かな, 𠮷野家",
    "lines": "하나\n둘\n\n  셋\t넷\n",
    "jamo": "ㅋㅋㅋ ㅠㅠ ㄱㄴㄷ",
    "old Hangul": "\u1112\u119e\u11ab글",
    "blanks": "   세 칸 뒤, 그리고 끝에도   ",
}

Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int]], str]


@functools.cache
def sentencepiece_like() -> tuple[Encode, Decode]:
    """Words begin with ▁, and a character without a token is written in byte tokens, as Llama 2
    and Gemma do; the decoder drops the first blank."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for token in ("<unk>", "▁", "서", "울", "▁서", "▁서울", "이", "a", "b", "▁a", "."):
        vocabulary[token] = len(vocabulary)
    merges = [("▁", "서"), ("▁서", "울"), ("▁", "a")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return lambda text: list(tokenizer.encode(text).ids), lambda ids: str(tokenizer.decode(ids))


def stream_of(ids: Sequence[int], stop: Sequence[str] = (), prefix: str = "") -> list[str]:
    stream = SyllableStream(decode, stop, prefix)
    return [stream.add(token) for token in ids]


def text_of_bytes(ids: Sequence[int]) -> str:
    """The whole characters in the ids' bytes, by Python alone."""
    alphabet = {character: byte for byte, character in bytes_to_characters().items()}
    pieces = "".join(tiny_tokenizer().convert_ids_to_tokens(list(ids)))
    raw = bytes(alphabet[character] for character in pieces)
    for end in range(len(raw), max(-1, len(raw) - 4), -1):
        try:
            return raw[:end].decode()
        except UnicodeDecodeError:
            continue
    raise AssertionError(raw)


@functools.cache
def bytes_to_characters() -> dict[int, str]:
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


# --- whole characters


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_shown_is_every_whole_character_as_soon_as_it_is_there(name: str) -> None:
    ids = ids_of(TEXTS[name])
    stream = SyllableStream(decode)
    shown = ""
    for place, token in enumerate(ids, start=1):
        piece = stream.add(token)
        assert "\ufffd" not in piece
        shown += piece
        assert shown == text_of_bytes(ids[:place])
    assert shown == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_words_that_begin_with_a_blank_and_byte_tokens_are_whole_too(name: str) -> None:
    encode, decode_pieces = sentencepiece_like()
    ids = encode(TEXTS[name])
    stream = SyllableStream(decode_pieces)
    pieces = [stream.add(token) for token in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == TEXTS[name] == decode_pieces(ids)


def test_a_syllable_of_three_tokens_comes_with_its_third() -> None:
    assert len(ids_of("뷁")) == 3
    assert stream_of(ids_of("뷁")) == ["", "", "뷁"]


@pytest.mark.parametrize("num_missing", [1, 2])
def test_a_text_that_ends_in_half_a_syllable_loses_only_that(num_missing: int) -> None:
    ids = ids_of("서울 뷁")[:-num_missing]
    assert "".join(stream_of(ids)) == whole_characters(decode(ids)) == "서울 "


def test_bytes_that_are_no_character_in_the_middle_are_shown_as_such() -> None:
    ids = [*ids_of("뷁")[:1], *ids_of("A")]
    assert stream_of(ids) == ["", "\ufffdA"]


def test_a_text_that_the_decoder_takes_back_is_not_shown_twice() -> None:
    texts = {1: "a", 2: "ab", 3: "x", 4: "abc"}
    stream = SyllableStream(lambda ids: texts[len(ids)])
    assert [stream.add(0) for _ in range(4)] == ["a", "b", "", "c"]


# --- stop texts


def test_what_may_become_a_stop_text_is_held_back() -> None:
    ids = [*ids_of("좋아요 #"), *ids_of("# 아니 #"), *ids_of("##"), *ids_of(" 안 보임")]
    stream = SyllableStream(decode, ["###"])
    shown = ""
    for place, token in enumerate(ids, start=1):
        shown += stream.add(token)
        text = whole_characters(decode(ids[:place])).split("###")[0]
        assert text.startswith(shown)
        assert not shown.endswith("#")
        assert len(text) - len(shown) <= 2
    assert shown == "좋아요 ## 아니 "


def test_of_several_stop_texts_the_first_in_the_text_counts() -> None:
    ids = ids_of("하나 둘 셋")
    assert "".join(stream_of(ids, ["셋", "둘"])) == "하나 "


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("abc", [], "abc"),
        ("abc", ["b"], "a"),
        ("abc", ["cd"], "ab"),
        ("abcc", ["cd", "ccd"], "ab"),  # the longest beginning counts
        ("aab", ["aabaab"], ""),
        ("질문: 끝", ["질문:"], ""),
        ("답\n\n##", ["\n\n###"], "답"),
        ("a#b", ["##"], "a#b"),
    ],
)
def test_before_stop(text: str, stop: list[str], expected: str) -> None:
    assert before_stop(text, stop) == expected


# --- the template's prefix


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" 서울", "서울"), ("  서울", " 서울"), ("서울", "서울"), (" ", ""), (" a b", "a b")],
)
def test_the_templates_prefix_is_no_part_of_the_answer(text: str, expected: str) -> None:
    assert "".join(stream_of(ids_of(text), prefix=" ")) == expected


def test_a_prefix_of_several_characters_is_waited_for() -> None:
    texts = ["답", "답:", "답: 예"]
    stream = SyllableStream(lambda ids: texts[len(ids) - 1], prefix="답: ")
    assert [stream.add(0) for _ in texts] == ["", "", "예"]
    other = ["답", "답안"]
    stream = SyllableStream(lambda ids: other[len(ids) - 1], prefix="답: ")
    assert [stream.add(0) for _ in other] == ["", "답안"]


def test_a_stop_text_after_the_prefix_leaves_nothing() -> None:
    assert "".join(stream_of(ids_of(" ###"), ["###"], prefix=" ")) == ""
