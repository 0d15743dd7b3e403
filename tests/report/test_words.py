"""Changed words, and characters that nobody sees."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from honing.report.words import MOST_COMPARISONS, mark_changes, show_hidden, split_hidden


def test_a_korean_eojeol_changes_as_a_whole_and_keeps_its_punctuation() -> None:
    assert mark_changes("학교에 갔다. 그리고 왔다.", "학교에 안 갔다! 그리고 왔습니다.") == [
        ("same", "학교에"),
        ("added", " 안"),
        ("same", " 갔다"),
        ("removed", "."),
        ("added", "!"),
        ("same", " 그리고 "),
        ("removed", "왔다"),
        ("added", "왔습니다"),
        ("same", "."),
    ]


def test_the_space_within_a_change_is_part_of_it_and_the_space_before_it_is_not() -> None:
    assert mark_changes("turn the red light off", "turn a green lamp off") == [
        ("same", "turn "),
        ("removed", "the red light"),
        ("added", "a green lamp"),
        ("same", " off"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("", "", []),
        ("", "새 답", [("added", "새 답")]),
        ("옛 답", "", [("removed", "옛 답")]),
        ("같다\n", "같다\n", [("same", "같다\n")]),
        (
            "하나  둘",
            "하나 둘",
            [("same", "하나"), ("removed", "  "), ("added", " "), ("same", "둘")],
        ),
    ],
)
def test_small_cases(before: str, after: str, parts: list[tuple[str, str]]) -> None:
    assert mark_changes(before, after) == parts


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost(seed: int) -> None:
    random = Random(seed)
    words = [
        "네",
        "맞아요",
        ".",
        " ",
        "  ",
        "\n",
        "the",
        "a",
        "the",
        "👍",
        "\u0301",
        "!",
        "맞아요.",
    ]
    texts = ["".join(random.choices(words, k=random.randrange(60))) for _ in range(2)]
    before, after = texts if seed % 4 else (texts[0], texts[0][: len(texts[0]) // 2] + texts[1])
    parts = mark_changes(before, after)
    assert "".join(text for kind, text in parts if kind != "added") == before
    assert "".join(text for kind, text in parts if kind != "removed") == after
    assert all(text for _, text in parts)
    kinds = [kind for kind, _ in parts]
    assert all(one != other for one, other in pairwise(kinds))
    assert "added removed" not in " ".join(kinds)


def test_long_texts_are_compared_by_their_ends_alone() -> None:
    loop = "네, 맞아요. " * 400
    assert len(loop.split()) * 900 > MOST_COMPARISONS
    other = "아니요, 네, 틀려요. " * 300
    assert mark_changes(f"처음 {loop}끝", f"처음 {other}끝") == [
        ("same", "처음 "),
        ("removed", loop.removesuffix(". ")),
        ("added", other.removesuffix(". ")),
        ("same", ". 끝"),
    ]
    one_more = mark_changes(loop, loop + "네, ")  # what only grew costs no comparison
    assert one_more == [("same", loop.rstrip()), ("added", " 네,"), ("same", " ")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("가\u202e나", "가\\u202e나"),
        ("\x00\x1b[31m\r\n", "\\x00\\x1b[31m\\x0d\n"),
        ("a\u200bb\u2066c\ufeff", "a\\u200bb\\u2066c\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("빈\u3164칸", "빈\\u3164칸"),
        ("줄\n탭\t빈칸\u00a0\u3000끝", "줄\n탭\t빈칸\u00a0\u3000끝"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"),
        ("가\u200d나\u200d", "가\\u200d나\\u200d"),
        ("السلام עברית 한국어 é", "السلام עברית 한국어 é"),
    ],
)
def test_what_nobody_sees_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert show_hidden(text) == shown
    assert "".join(piece for _, piece in split_hidden(text)) == shown
    shown.encode("utf-8")


def test_a_backslash_of_the_text_itself_is_no_escape() -> None:
    assert list(split_hidden("\\u202e\u202e")) == [(False, "\\u202e"), (True, "\\u202e")]
