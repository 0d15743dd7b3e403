"""Scripts: the ones people name, and every assigned character against Unicode's own table."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import get_args

import pytest

from honing.config import Script
from honing.data.scripts import SCRIPTS, count_scripts, script_of

EXAMPLES = {
    "hangul": "가힣ㄱㅋㅏᄀᆨꥠힰￂ㈜㉠",
    "latin": "aZéßŁəẞﬁＡｚªⅣÅ",
    "han": "漢字々〇㐀﨑豈𠀀〆⼀",
    "kana": "ひらカーヽﾊﾟゞㇰ",
    "cyrillic": "Жяёҗ",
    "greek": "αΩἀ",
    "arabic": "عربيپ٣،ـ",
    "hebrew": "שלוםְ",
    "devanagari": "हिन्दी३",
    "thai": "ไทย๓",
    "other": "ქაবাংলা৩አማꀀ",
}


@pytest.mark.parametrize("script", EXAMPLES)
def test_examples(script: str) -> None:
    assert {character: script_of(character) for character in EXAMPLES[script]} == dict.fromkeys(
        EXAMPLES[script], script
    )


def test_what_belongs_to_no_script() -> None:
    characters = " \n\t09０.,!?…“”「」、。·・~^*#%$₩€×÷→√∑②℃㎏µℝ𝐀😀❤\ufe0f\u200d\u0301\ufffd\x00"
    assert {c: script_of(c) for c in characters} == dict.fromkeys(characters)


def test_the_scripts_are_those_of_the_configuration() -> None:
    assert tuple(SCRIPTS) == get_args(Script)


def test_ranges_do_not_overlap() -> None:
    ranges = sorted(pair for ranges in SCRIPTS.values() for pair in ranges)
    assert all(first <= last for first, last in ranges)
    assert all(left[1] < right[0] for left, right in pairwise(ranges))


def test_every_assigned_character_is_where_unicode_has_it() -> None:
    """Only characters that Unicode gives to no script may stand in a script here."""
    regex = pytest.importorskip("regex")
    names = {"kana": ("Hiragana", "Katakana")} | {s: (s,) for s in SCRIPTS if s != "kana"}
    names["common"] = ("Common", "Inherited")
    sets = {script: "".join(rf"\p{{sc={n}}}" for n in names[script]) for script in names}
    pattern = regex.compile("|".join(f"(?P<{script}>[{sets[script]}])" for script in sets))
    taken = []
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Cn", "Co"):
            continue
        found = pattern.match(character)
        ours = script_of(character)
        if found is None:
            assert ours == ("other" if category[0] in "LM" or category in ("Nd", "Nl") else None)
        elif found.lastgroup != "common":
            assert ours == found.lastgroup, hex(code)
        elif ours is not None:
            taken.append(character)
    assert "".join(sorted(taken)) == (
        "\u0374\u0485\u0486\u0605\u060c\u061b\u061f\u0640"
        "\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0653\u0654\u0655\u0670\u06dd\u08e2"
        "〆〱〲〳〴〵〼\u3099\u309a゛゜ーｰﾞﾟ"
    )


def test_counts() -> None:
    assert count_scripts("안녕, world! 3人 ㅋㅋ 😀") == {"latin": 5, "hangul": 4, "han": 1}
    assert count_scripts("3.5 % 😀") == {}
