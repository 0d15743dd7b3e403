"""The sample sets: fixed, varied, correct. Answers are worked out again here, by other means."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import combinations

import pytest

from honing.data.example import Example, Exchange
from honing.data.sample import PATTERNS_OF, SAMPLE_SOURCES, sample_examples
from honing.data.sample_rows.pattern import with_particles
from honing.errors import UserError

SAMPLE = sample_examples("sample")
FIRST_DRAFT = sample_examples("sample-10")
# Changes whenever a row does; a change that was meant is written in here and in the changelog.
FINGERPRINT = "4d29627d2e9821bc4d70e83d3c1f26a37f5749dd1152d0786ff242976ac97361"

# 1, 7 and 8 end in ㄹ; 3, 6 and the tens in another consonant; the rest in a vowel.
DIGIT_FINALS = {"1": "ᆯ", "7": "ᆯ", "8": "ᆯ", "3": "ᆷ", "6": "ᆨ", "0": "ᆸ"}
WEEKDAYS = "월화수목금토일"
FACTORS = {
    ("킬로미터", "미터"): 1000,
    ("미터", "센티미터"): 100,
    ("센티미터", "밀리미터"): 10,
    ("톤", "킬로그램"): 1000,
    ("킬로그램", "그램"): 1000,
    ("리터", "밀리리터"): 1000,
    ("시간", "분"): 60,
    ("분", "초"): 60,
    ("년", "개월"): 12,
}


def of_group(group: str) -> list[Example]:
    examples = [example for example in SAMPLE if example.group == group]
    assert examples
    return examples


def numbers_in(text: str) -> list[int]:
    return [int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*", text)]


def final_jamo(word: str) -> str:
    """The final consonant of a word's last syllable or digit, or nothing."""
    if word[-1].isdigit():
        return DIGIT_FINALS.get(word[-1], "")
    return unicodedata.normalize("NFD", word[-1])[2:]


def expected_particle(word: str, closed: str, open_: str) -> str:
    if open_ == "로" and final_jamo(word) == "\N{HANGUL JONGSEONG RIEUL}":
        return open_
    return closed if final_jamo(word) else open_


# The sets as a whole


def test_sources() -> None:
    assert SAMPLE_SOURCES == ("sample", "sample-10")
    with pytest.raises(UserError, match=r"no sample named 'samples'.*sample-10"):
        sample_examples("samples")


@pytest.mark.parametrize("source", SAMPLE_SOURCES)
def test_rows_are_numbered_and_normalised(source: str) -> None:
    examples = sample_examples(source)
    assert len(examples) == 1000
    assert [example.row for example in examples] == list(range(1, 1001))
    assert [example.id for example in examples[:2]] == [f"{source}:1", f"{source}:2"]
    for example in examples:
        text = f"{example.prompt_text}\n{example.response_text}"
        assert unicodedata.is_normalized("NFC", text)
        assert example.response_text
        # Nothing is left of the patterns' own marks, nor of the space around them.
        assert not re.search(r"[{}\[\]|]|  | $|^ ", text, re.MULTILINE)


def test_the_same_rows_always() -> None:
    assert sample_examples("sample") == SAMPLE
    parts = []
    for example in SAMPLE + FIRST_DRAFT:
        (exchange,) = example.exchanges
        parts += [example.id, example.group or "", exchange.instruction, exchange.input]
        parts.append(exchange.output)
    assert hashlib.sha256("\n".join(parts).encode()).hexdigest() == FINGERPRINT


def test_some_rows_word_for_word() -> None:
    assert SAMPLE[0] == Example(
        id="sample:1",
        exchanges=(
            Exchange(
                instruction="명태의 새끼를 이르는 우리말이 따로 있나요?",
                output="네, 명태의 새끼는 노가리라고 부릅니다.",
            ),
        ),
        group="baby_animal",
        row=1,
    )
    assert SAMPLE[1].exchanges[0] == Exchange(
        instruction="사전에 실리는 차례대로 낱말을 늘어놓아 주세요.",
        input="치마, 자두, 코끼리, 누나",
        output="사전에는 누나, 자두, 치마, 코끼리의 차례로 실립니다.",
    )
    assert FIRST_DRAFT[3].exchanges[0] == Exchange("오이는 무슨 색인가요?", "오이는 초록색입니다.")


def test_global_random_state_is_left_alone() -> None:
    state = random.getstate()
    sample_examples("sample")
    assert random.getstate() == state


def test_prompts_of_the_first_draft_are_there() -> None:
    answers = {example.prompt_text: example.response_text for example in SAMPLE}
    assert answers["한국의 수도는 어디인가요?"] == "대한민국의 수도는 서울입니다."
    assert answers["김치의 효능에 대해 설명해주세요."].startswith("김치에는 유산균과")


def test_many_balanced_templates() -> None:
    sizes = Counter(example.group for example in SAMPLE)
    assert len(sizes) >= 40
    assert min(sizes.values()) >= 10
    assert max(sizes.values()) <= 40
    # No row of a table is left out, and none is needed twice.
    assert sum(len(pattern.rows) for pattern in PATTERNS_OF["sample"]) == 1000


def test_no_row_twice() -> None:
    prompts = {(each.exchanges[0].instruction, each.exchanges[0].input) for each in SAMPLE}
    assert len(prompts) == 1000


def test_templates_are_no_near_duplicates_of_each_other() -> None:
    trigrams = []
    for example in SAMPLE:
        text = "".join(example.prompt_text.split())
        trigrams.append((example.group, {text[at : at + 3] for at in range(len(text) - 2)}))
    for (group, ours), (other_group, theirs) in combinations(trigrams, 2):
        if group != other_group:
            assert 2 * len(ours & theirs) < len(ours | theirs)


def test_no_long_answer_in_two_templates() -> None:
    groups: dict[str, set[str | None]] = {}
    for example in SAMPLE:
        if len(example.response_text) >= 20:
            groups.setdefault(example.response_text, set()).add(example.group)
    assert all(len(each) == 1 for each in groups.values())


def test_answers_are_short() -> None:
    lengths = sorted(len(re.findall("[가-힣]", example.response_text)) for example in SAMPLE)
    assert 15 <= lengths[500] <= 30
    assert lengths[980] < 80
    assert lengths[-1] <= 150


# Particles


def test_with_particles() -> None:
    assert with_particles("물[은/는] 바다[으로/로] 간다") == "물은 바다로 간다"
    assert with_particles("'서울'[으로/로], 부산[으로/로]") == "'서울'로, 부산으로"
    assert with_particles("3[이/가] 4[과/와] 10[을/를]") == "3이 4와 10을"
    with pytest.raises(ValueError, match="no particle can follow 't'"):
        with_particles("cat[은/는]")


@pytest.mark.parametrize("source", SAMPLE_SOURCES)
def test_a_particle_fits_every_slot(source: str) -> None:
    slot = re.compile(r"\{(\w+)\}(['\"]?)\[([^/{]+)/([^\]]+)\]")
    for pattern in PATTERNS_OF[source]:
        for written in (pattern.instruction, pattern.output, pattern.input):
            # Every particle of a pattern follows a slot, so that none escapes this test.
            assert len(slot.findall(written)) == written.count("[") - written.count("[{")
        for row, exchange in zip(pattern.rows, pattern.exchanges(), strict=True):
            words = dict(zip(pattern.slots.split(), row, strict=True))
            for written, text in (
                (pattern.instruction, exchange.instruction),
                (pattern.output, exchange.output),
            ):
                for name, quote, closed, open_ in slot.findall(written):
                    particle = expected_particle(words[name], closed, open_)
                    assert f"{words[name]}{quote}{particle}" in text


def test_particles_of_the_particle_template() -> None:
    for example in of_group("particle"):
        before, noun, closed, open_, after = re.fullmatch(
            r"(.*) (\S+)\((.+)/(.+)\) (.*)", example.exchanges[0].input
        ).groups()  # type: ignore[union-attr]
        particle = expected_particle(noun, closed, open_)
        assert example.response_text == f"{before} {noun}{particle} {after}"


def test_ro_after_rieul() -> None:
    for example in of_group("ro"):
        word = example.prompt_text.split("'")[1]
        assert f"'{word}{expected_particle(word, '으로', '로')}'가" in example.response_text
        assert ("ㄹ 받침" in example.response_text) == (final_jamo(word) == "ᆯ")


# Numbers


def end_of(hour: int, minute: int, length: int) -> list[int]:
    end = hour * 60 + minute + length
    return [length, end // 60] + ([end % 60] if end % 60 else [])


def later_date(month: int, day: int, days: int) -> list[int]:
    end = date(2025, month, day) + timedelta(days)
    return [month, day, days, end.month, end.day]


ARITHMETIC: dict[str, Callable[..., list[int]]] = {
    "addition": lambda a, b: [a, b, a + b],
    "left_over": lambda total, used: [total, used, total - used],
    "product": lambda a, b: [a, b, a * b],
    "sharing": lambda total, people: list(divmod(total, people)),
    "average": lambda a, b, c: [a + b + c, 3, (a + b + c) // 3],
    "ascending": lambda *numbers: sorted(numbers),
    "sequence": lambda a, b, c, d: [abs(b - a), d + (c - b)],
    "even_or_odd": lambda number: [number, 2, 1] if number % 2 else [number, 2],
    "change": lambda price, count, paid: [price * count, paid - price * count],
    "discount": lambda price, percent: [price * percent // 100, price * (100 - percent) // 100],
    "end_time": end_of,
    "date_after": later_date,
}


@pytest.mark.parametrize("group", ARITHMETIC)
def test_arithmetic(group: str) -> None:
    for example in of_group(group):
        expected = ARITHMETIC[group](*numbers_in(example.prompt_text))
        assert numbers_in(example.response_text) == expected, example


def test_words_of_the_arithmetic_answers() -> None:
    for example in of_group("even_or_odd"):
        even = numbers_in(example.prompt_text)[0] % 2 == 0
        assert example.response_text.endswith("짝수예요." if even else "홀수예요.")
    for example in of_group("sequence"):
        first, second, third, fourth = numbers_in(example.prompt_text)
        assert second - first == third - second == fourth - third
        assert ("커지므로" in example.response_text) == (second > first)
    for example in of_group("average"):
        assert sum(numbers_in(example.prompt_text)) % 3 == 0
    for example in of_group("end_time"):
        assert max(numbers_in(example.response_text)[1:2]) < 12


def test_weekdays() -> None:
    for example in of_group("weekday_after"):
        (days,) = numbers_in(example.prompt_text)
        today = example.prompt_text[len("오늘이 ")]
        later = WEEKDAYS[(WEEKDAYS.index(today) + days) % 7]
        assert example.response_text == f"{today}요일에서 {days}일을 더 세면 {later}요일이에요."


def test_units() -> None:
    for example in of_group("units"):
        asked = re.fullmatch(r"(\d)(\S+)[은는] 몇 (\S+)인가요\?", example.prompt_text)
        assert asked
        number, large, small = int(asked[1]), asked[2], asked[3]
        factor = FACTORS[large, small]
        assert numbers_in(example.response_text) == [1, factor, number, number * factor]
        assert example.response_text.endswith(f"{small}입니다.")


def test_numbers_in_words() -> None:
    for example in of_group("number_reading"):
        (number,) = numbers_in(example.prompt_text)
        value = digit = 0
        for syllable in example.response_text.split("'")[1]:
            if syllable in "십백천":
                value += (digit or 1) * 10 ** (1 + "십백천".index(syllable))
                digit = 0
            else:
                digit = "영일이삼사오육칠팔구".index(syllable)
        assert value + digit == number


def test_native_numerals() -> None:
    ones = ["하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉"]
    shortened = {"하나": "한", "둘": "두", "셋": "세", "넷": "네"}
    for example in of_group("native_counting"):
        (number,) = numbers_in(example.prompt_text)
        one = ones[number % 10 - 1] if number % 10 else ""
        ten = ["", "열", "스물" if one else "스무"][number // 10]
        item, counted = example.prompt_text.split("'")[1].split()
        unit = counted.lstrip("0123456789")
        assert f"'{item} {ten}{shortened.get(one, one)} {unit}'" in example.response_text


def test_sums_of_the_first_draft() -> None:
    for example in FIRST_DRAFT:
        if example.group == "sum":
            assert numbers_in(example.response_text) == [sum(numbers_in(example.prompt_text))]


# Words


def test_dictionary_order() -> None:
    for example in of_group("dictionary_order"):
        words = example.exchanges[0].input.split(", ")
        in_order = sorted(words, key=lambda word: unicodedata.normalize("NFD", word))
        assert example.response_text == f"사전에는 {', '.join(in_order)}의 차례로 실립니다."


def test_syllables_and_initials() -> None:
    counts = ["한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟"]
    for example in of_group("syllables"):
        word = example.prompt_text.split("'")[1]
        assert example.response_text.endswith(f"이렇게 {counts[len(word) - 1]} 글자입니다.")
    for example in of_group("initials"):
        word = example.prompt_text.split("'")[1]
        names = [unicodedata.name(unicodedata.normalize("NFD", each)[0]) for each in word]
        jamo = [unicodedata.lookup(f"HANGUL LETTER {name.split()[-1]}") for name in names]
        assert f" {''.join(jamo)}입니다." in example.response_text


def test_rewritten_sentences_keep_their_words() -> None:
    for example in of_group("spacing"):
        assert example.response_text.replace(" ", "") == example.exchanges[0].input
    for example in of_group("word_order"):
        given = example.exchanges[0].input.split(" / ")
        asked = example.response_text.removesuffix(".").split()
        assert given != asked
        assert sorted(given) == sorted(asked)
    for example in of_group("completion"):
        assert example.response_text.startswith(f"{example.exchanges[0].input} ")


@pytest.mark.parametrize("group", ["name", "date", "price", "place"])
def test_what_is_found_stands_in_the_text(group: str) -> None:
    pattern = next(each for each in PATTERNS_OF["sample"] if each.name == group)
    assert all(found in text for text, found in pattern.rows)


def test_the_odd_word_is_of_another_kind() -> None:
    for example in of_group("odd_one"):
        odd = re.split("[이가] 다릅니다", example.response_text)[0]
        assert example.exchanges[0].input.split(", ").count(odd) == 1


# The first draft's data


def test_first_draft_repeats_few_rows() -> None:
    times = Counter((example.group, example.exchanges) for example in FIRST_DRAFT)
    assert len({group for group, _ in times}) == 10
    assert 60 <= len(times) <= 90
    assert min(times.values()) >= 8


@pytest.mark.parametrize("seed", range(5))
def test_first_draft_leaks_under_any_random_split(seed: int) -> None:
    shuffled = random.Random(seed).sample(FIRST_DRAFT, len(FIRST_DRAFT))
    train = {example.exchanges for example in shuffled[:800]}
    assert all(example.exchanges in train for example in shuffled[800:900])
